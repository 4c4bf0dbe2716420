"""The runtime's words, decisions and backlogs are those of PyTorch."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import soundfile
import torch

from speechbrain_amnet import (
    AmortizedEncoder,
    Arbitrator,
    Device,
    EnergyRouting,
    FixedRouting,
    RandomRouting,
)
from speechbrain_amnet.export import export_model
from speechbrain_amnet.grammar import Grammar
from speechbrain_amnet.inference import load
from speechbrain_amnet.runtime.convert import pack
from speechbrain_amnet.runtime.packed import read_packed, write_packed
from speechbrain_amnet.runtime.recogniser import Recogniser


def same(asr, samples, chunks, **options):
    """Streams in chunks, and compares all with PyTorch's whole utterance."""
    wavs = torch.from_numpy(samples)[None]
    words, _ = asr.transcribe_batch(wavs, torch.ones(1))
    encoded, lengths, routing = asr.encode_batch(wavs, torch.ones(1))
    stream = Recogniser(pack(asr), **options).start()
    frames = []
    for chunk in np.split(samples, chunks):
        frames += stream.feed(chunk)
    frames += stream.feed(samples[:0], final=True)
    assert "".join(frame.text for frame in frames) == words[0]
    assert [frame.branch for frame in frames] == routing.choice[0].tolist()
    assert [frame.backlog for frame in frames] == pytest.approx(
        routing.backlog[0].tolist(), abs=1e-5
    )
    assert [frame.index for frame in frames] == list(range(len(frames)))
    return frames


def test_running_mean_and_floor(tiny, tmp_path, speech):
    options = {"mean_seconds": 0.5, "floor": 1e-3}
    made = tiny(tmp_path, ["GO", "STOP"], **options)
    export_model(*made, tmp_path / "model")
    asr = load(tmp_path, run_opts={"device": "cpu"})
    floor = asr.mods.features.filterbank.amin
    assert floor == pytest.approx(1e-3)
    frames = same(asr, 0.1 * speech(1.7), [1, 700, 701, 9000])
    assert len({frame.branch for frame in frames}) == 2


@pytest.mark.parametrize(
    "chunks", [[], [1, 700, 701, 9000], range(0, 20000, 99)]
)
def test_any_chunks(asr, chunks, speech):
    frames = same(asr, speech(1.7), list(chunks))
    assert len({frame.branch for frame in frames}) == 2
    assert sum(len(frame.tokens) for frame in frames) > 10


@pytest.mark.parametrize(
    "router",
    [
        FixedRouting(2, 1),
        RandomRouting([0.3, 0.7], seed=5),
        EnergyRouting(0.4),
    ],
    ids=lambda router: type(router).__name__,
)
def test_any_router(asr, router, speech):
    if isinstance(router, EnergyRouting):
        router.train().prepare(torch.randn(4, 50, 320))
    asr.mods.encoder.router = router.eval()
    same(asr, speech(1.1), [800])


def test_commands_are_understood_alike(tiny, tmp_path, speech):
    tags = ["<size>", "<drink>", "<=order>", "<=stop>"]
    parts = tiny(tmp_path, ["GO LEFT"], tags, tokens=34)
    export_model(*parts, tmp_path / "model")
    asr = load(tmp_path, run_opts={"device": "cpu"})
    samples = speech(1.7)
    soundfile.write(tmp_path / "a.wav", samples, 16000, "FLOAT")
    command = asr.understand_file(tmp_path / "a.wav")
    # It chatters, and tags are no words.
    assert command.slots and "<" not in command.words
    assert command.words == asr.transcribe_file(tmp_path / "a.wav")
    recogniser = Recogniser(pack(asr))
    assert recogniser.understands
    stream = recogniser.start()
    text = "".join(f.text for f in stream.feed(samples, final=True))
    assert stream.command == command and text == command.words


# Letters as words, which a model that chatters can say any number of.
GRAMMAR = """#JSGF V1.0; grammar g;
public <order> = (<thing>) {thing} (the (<thing>) {more})*;
<thing> = a | g | o | t | l;
"""


@pytest.mark.parametrize(
    "head, known", [(True, False), (True, True), (False, False)]
)
@pytest.mark.parametrize("tags", [[], ["<thing>", "<more>", "<=order>"]])
def test_a_grammar_holds_both_alike(tags, head, known, tiny, tmp_path, speech):
    text, modules, tokenizer = tiny(
        tmp_path, ["A GOAT THE LION"], tags, tokens=30 + len(tags)
    )
    if head:
        with torch.no_grad():
            modules["ctc_head"].weight.mul_(9)
    else:
        modules = {n: m for n, m in modules.items() if n != "ctc_head"}
    shares = None
    if known:
        shares = np.random.default_rng(0).uniform(0.01, 1, 30 + len(tags))
    export_model(text, modules, tokenizer, tmp_path / "model", shares)
    asr = load(tmp_path, run_opts={"device": "cpu"})
    if known:
        assert asr.shares == pytest.approx(shares, rel=1e-3)
    (tmp_path / "animals.gram").write_text(GRAMMAR)
    asr.hold_to(tmp_path / "animals.gram")
    samples = speech(1.7)
    stream = Recogniser(pack(asr)).start()
    text = "".join(f.text for f in stream.feed(samples)) + stream.rest
    assert not stream.rest
    text += "".join(f.text for f in stream.feed(samples[:0], final=True))
    text += stream.rest
    wavs = torch.from_numpy(samples)[None]
    words, tokens = asr.transcribe_batch(wavs, torch.ones(1))
    assert (text, stream.tokens) == (words[0], tokens[0])
    assert stream.command == asr.command(tokens[0])
    assert stream.command.slots or tags
    said = stream.command
    # What was read as words alone is read with tags where these are needed.
    stream.recogniser.hold_to(Grammar(GRAMMAR, tags=not tags))
    again = stream.recogniser.start()
    again.feed(samples, final=True)
    assert again.command == said
    with pytest.raises(ValueError, match="width must be 1 or more"):
        asr.hold_to(tmp_path / "animals.gram", width=0)
    asr.hold_to(tmp_path / "animals.gram", width=3)
    assert Recogniser(pack(asr)).width == 3
    asr.hold_to(tmp_path / "animals.gram")
    stream.recogniser.hold_to(None)  # the next stream is another matter
    assert stream.command == said
    encoded, *_ = asr.encode_batch(wavs, torch.ones(1))
    context = asr.hparams.search.make_streaming_context()
    asr.hparams.search.forward_streaming(encoded, context)
    asr.hparams.search.finish(context)
    for one, other in zip(
        stream.search.beam.hypotheses, context.beams[0].hypotheses
    ):
        assert one.tokens == other.tokens
        assert one.score == pytest.approx(other.score, abs=0.01)
    write_packed(pack(asr), tmp_path / "held.safetensors")
    kept = Recogniser(read_packed(tmp_path / "held.safetensors"))
    assert kept.transcribe(samples) == words[0]
    streamed = asr.transcribe_stream(samples_of(samples))
    said = next(streamed)
    asr.hold_to(None)  # the next stream is another matter
    assert said + "".join(streamed) == words[0]
    # Let go, it chatters again.
    assert asr.transcribe_batch(wavs, torch.ones(1))[0] != words
    assert asr.understands == bool(tags)


def samples_of(samples):
    """In chunks."""
    return torch.from_numpy(samples).split(3000)


def test_words_alone_are_no_command(asr, tmp_path):
    assert not asr.understands and not Recogniser(pack(asr)).understands
    with pytest.raises(ValueError, match="`slots: True`"):
        asr.understand_file(tmp_path / "a.wav")


def test_a_penalty_on_blank(asr, speech):
    plain = same(asr, speech(1.1), [800])
    asr.hparams.search.blank_penalty = 2.0
    more = same(asr, speech(1.1), [800])
    assert sum(len(f.tokens) for f in more) > sum(len(f.tokens) for f in plain)


def test_an_arbitrator_that_does_not_read_the_backlog(asr, speech):
    asr.mods.encoder.router.use_backlog = False
    same(asr, speech(1.1), [800])


def test_a_device_that_the_arbitrator_reads_and_that_throttles(asr, speech):
    """The frames after the change are those of a stream that goes on so."""
    encoder = asr.mods.encoder
    old, encoder.router = encoder.router, Arbitrator(320, use_device=True)
    encoder.router.load_state_dict(old.state_dict(), strict=False)
    with torch.no_grad():
        encoder.router.device.weight.mul_(3)
    encoder.router.eval()
    same(asr, speech(1.1), [800])
    free = same(asr, speech(2.0), [800])
    encoder.router.loads = [0.1, 0.5]  # of a training; this device is slower
    assert same(asr, speech(2.0), [800]) != free
    encoder.router.loads = None

    samples = speech(2.0)
    stream = Recogniser(pack(asr)).start()
    frames = stream.feed(samples[:16000])
    stream.device = Device(load=6.0)
    frames += stream.feed(samples[16000:])
    context = asr.make_streaming_context()
    branches, backlogs = [], []
    wavs = torch.from_numpy(samples)[None]
    for part in wavs.split(16000, 1):
        asr.transcribe_chunk(context, part)
        routing = context.encoder_context.routing
        branches += routing.choice[0].tolist()
        backlogs += routing.backlog[0].tolist()
        context.encoder_context.device = Device(load=6.0)
    assert [frame.branch for frame in frames] == branches
    assert [frame.backlog for frame in frames] == pytest.approx(backlogs)
    unchanged = Recogniser(pack(asr)).start().feed(samples)
    assert [f.branch for f in frames[:25]] == [f.branch for f in unchanged[:25]]
    assert frames[25:] != unchanged[25:]


def test_the_state_of_the_encoder(asr, speech):
    """To rounding, after some hundred frames on changing branches."""
    with torch.no_grad():  # as large as they are made, rounding grows
        for weight in asr.mods.encoder.layers.parameters():
            weight.div_(4)
    samples = speech(8.0)
    encoded, _, _ = asr.encode_batch(
        torch.from_numpy(samples)[None], torch.ones(1)
    )
    stream = Recogniser(pack(asr)).start()
    stream.feed(samples)
    last = stream.cells[-1].h
    assert last == pytest.approx(encoded[0, -1].numpy(), abs=2e-5)


def test_another_device(run, speech):
    slow = load(run, device_load=4.0, run_opts={"device": "cpu"})
    same(slow, speech(1.1), [800])
    model = pack(load(run, run_opts={"device": "cpu"}))
    frames = Recogniser(model, Device(load=4.0)).start().feed(speech(1.1))
    again = Recogniser(pack(slow)).start().feed(speech(1.1))
    assert frames == again


def test_a_clock_of_ones_own(asr, speech):
    seen = []

    def clock(index):
        seen.append(index)
        return 0.5

    frames = Recogniser(pack(asr)).start(clock).feed(speech(0.5))
    assert seen == list(range(len(frames)))
    assert {frame.backlog for frame in frames} == {0.5}
    back = Recogniser(pack(asr)).start(lambda index: np.float32(-0.1))
    assert {frame.backlog for frame in back.feed(speech(0.5))} == {0.0}


def test_long_audio_at_once_takes_little_memory(asr, speech, monkeypatch):
    samples = speech(2.3)
    stream = Recogniser(pack(asr)).start()
    whole = stream.feed(samples, final=True)
    monkeypatch.setattr("speechbrain_amnet.runtime.recogniser.AT_ONCE", 7)
    model, sizes = Recogniser(pack(asr)), []
    frames = model.features.frames

    def counted(samples, mean):
        sizes.append(len(samples))
        return frames(samples, mean)

    monkeypatch.setattr(model.features, "frames", counted)
    assert model.start().feed(samples, final=True) == whole
    most = model.features.overlap + 7 * model.features.frame_samples
    assert len(sizes) == -(-len(whole) // 7) and max(sizes) == most


def test_streams_do_not_disturb_each_other(asr, speech):
    model = Recogniser(pack(asr))
    one, other = speech(1.0, seed=1), speech(1.0, seed=2)
    alone = [model.transcribe(one), model.transcribe(other)]
    streams, words = [model.start(), model.start()], ["", ""]
    for parts in zip(np.split(one, 10), np.split(other, 10)):
        for n, part in enumerate(parts):
            words[n] += "".join(f.text for f in streams[n].feed(part))
    for n, stream in enumerate(streams):
        words[n] += "".join(f.text for f in stream.feed([], final=True))
    assert words == alone and alone[0] != alone[1]


def test_threads_wait_for_each_other(asr, speech):
    """Products write into one memory: half of a frame of each is neither's."""
    model = Recogniser(pack(asr))
    spoken = [speech(1.0, seed=n) for n in range(3)]
    alone = [model.transcribe(one) for one in spoken]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(3) as threads:
            found = list(threads.map(model.transcribe, spoken * 3))
    finally:
        sys.setswitchinterval(before)
    assert found == alone * 3 and len(set(alone)) == 3


def test_broken_weights_are_not_packed(asr, monkeypatch):
    bias = asr.mods.joint.output.bias
    monkeypatch.setattr(bias, "data", torch.full_like(bias, torch.nan))
    with pytest.raises(ValueError, match="weights have NaN"):
        pack(asr)


def test_bad_streams_are_refused(asr, speech):
    model = Recogniser(pack(asr))
    with pytest.raises(ValueError, match="NaN or infinity"):
        model.start().feed(np.array([0.0, np.nan]))
    with pytest.raises(ValueError, match="without any audio"):
        model.start().feed([], final=True)
    stream = model.start()
    stream.feed(np.zeros(10), final=True)
    with pytest.raises(ValueError, match="has ended"):
        stream.feed(np.zeros(10))
    broken = pack(asr)
    broken.arrays["encoder.0.0.bias"][:] = np.nan
    broken.arrays["encoder.0.1.bias"][:] = np.nan
    with pytest.raises(ValueError, match="encoded frames have NaN"):
        Recogniser(broken).transcribe(speech(0.2))


@pytest.mark.parametrize("loud", [32767, 1e25, -1e25, 1e300])
@pytest.mark.filterwarnings("error")
def test_what_is_too_loud_for_audio_is_not_the_weights_fault(asr, loud, speech):
    stream = Recogniser(pack(asr)).start()
    samples = speech(0.2)
    wanted = Recogniser(pack(asr)).start().feed(samples)
    frames = stream.feed(samples[:1000])
    said = "^the audio has (a sample of .*: expected -1 to 1|NaN or infinity)"
    with pytest.raises(ValueError, match=said):
        stream.feed(np.array([0.1, loud]))
    assert frames + stream.feed(samples[1000:]) == wanted


def test_a_router_that_is_not_known(asr):
    class Own(FixedRouting):
        pass

    asr.mods.encoder.router = Own(2)
    with pytest.raises(ValueError, match="no router of the kind Own"):
        pack(asr)


def test_pytorch_is_not_needed():
    code = (
        "import sys, speechbrain_amnet.runtime.recogniser\n"
        "print([m for m in ('torch', 'speechbrain') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_real_speech(asr, an4):
    import soundfile

    for path in sorted((an4 / "test").rglob("*.flac"))[:3]:
        same(asr, soundfile.read(path, dtype="float32")[0], [640])


def test_three_branches_of_each_form(asr, tiny, speech):
    """Input and recurrent matrices of different forms, too."""
    from functools import partial

    from speechbrain_amnet import Dense, LowRank

    def mixed(rows, columns):
        """Dense for the recurrent matrix, thin for the input."""
        thin = columns == 320
        return LowRank(rows, columns, 30) if thin else Dense(rows, columns)

    old = asr.mods.encoder
    asr.mods.encoder = AmortizedEncoder(
        320,
        old.hidden_size,
        2,
        [Dense, mixed, partial(LowRank, rank=3)],
        RandomRouting([0.3, 0.3, 0.4]),
    ).eval()
    with torch.no_grad():
        for weight in asr.mods.encoder.parameters():
            weight.mul_(4)
    frames = same(asr, speech(1.1), [800])
    assert {frame.branch for frame in frames} == {0, 1, 2}
