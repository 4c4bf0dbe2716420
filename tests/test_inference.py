"""A trained folder: written, moved, loaded; streaming equals batch."""

import shutil
import socket

import numpy as np
import pytest
import soundfile
import torch
from speechbrain.inference.ASR import StreamingASR
from speechbrain.inference.interfaces import Pretrained
from speechbrain.utils.dynamic_chunk_training import DynChunkTrainConfig

from speechbrain_amnet import AmortizedASR, cli
from speechbrain_amnet.audio import read_audio
from speechbrain_amnet.export import export_model
from speechbrain_amnet.inference import find_model, load

RATE = 16000
TEXTS = ["GO FORWARD TEN METERS", "STOP", "TURN LEFT THEN RIGHT"]


@pytest.fixture(scope="module")
def trained(tiny, tmp_path_factory):
    """The parts of a tiny network that chatters and switches branches."""
    return tiny(tmp_path_factory.mktemp("run"), TEXTS)


@pytest.fixture(scope="module")
def run(trained, tmp_path_factory):
    """The output folder of its training."""
    folder = tmp_path_factory.mktemp("finished")
    export_model(*trained, folder / "model")
    return folder


@pytest.fixture(scope="module")
def asr(run):
    return load(run, run_opts={"device": "cpu"})


def speech(*seconds):
    """Recordings whose loudness comes and goes: [batch, samples], lengths."""
    random = torch.Generator().manual_seed(1)
    samples = [round(s * RATE) for s in seconds]
    wavs = torch.zeros(len(samples), max(samples))
    for wav, n in zip(wavs, samples):
        loud = torch.rand(1 + n // 1600, generator=random) ** 4
        noise = torch.randn(n, generator=random)
        wav[:n] = 0.3 * noise * loud.repeat_interleave(1600)[:n]
    return wavs, torch.tensor(samples) / wavs.shape[1]


def test_words_and_routing_do_not_depend_on_the_batch(asr):
    wavs, lengths = speech(1.9, 0.63, 2.4)
    words, tokens = asr.transcribe_batch(wavs, lengths)
    routing = asr.encode_batch(wavs, lengths)[2]
    assert len({*words}) == 3 and min(map(len, words)) > 3
    assert 0.1 < routing.choice.float().mean() < 0.9
    for i, wav in enumerate(wavs):
        alone = wav[: round(len(wav) * lengths[i].item())][None]
        assert asr(alone, torch.ones(1)) == ([words[i]], [tokens[i]])
        one = asr.encode_batch(alone, torch.ones(1))[2]
        frames = one.choice.shape[1]
        assert torch.equal(one.choice[0], routing.choice[i, :frames])


@pytest.mark.parametrize("sizes", [[640], [1], [100, 0, 3000], [10**6]])
def test_streaming_equals_batch(asr, sizes):
    seconds = 0.13 if sizes == [1] else 1.9
    wavs, lengths = speech(seconds, seconds)
    expected, _ = asr.transcribe_batch(wavs, lengths)
    routing = asr.encode_batch(wavs, lengths)[2]
    context = asr.make_streaming_context(batch=2)
    found, choices, backlogs = ["", ""], [], []
    start = 0
    while start < wavs.shape[1]:
        for size in sizes:
            chunk = wavs[:, start : start + size]
            start += size
            final = start >= wavs.shape[1]
            texts = asr.transcribe_chunk(context, chunk, final=final)
            found = [a + b for a, b in zip(found, texts)]
            now = context.encoder_context.routing
            if now is not None:
                choices.append(now.choice)
                backlogs.append(now.backlog)
            if final:
                break
    assert found == expected and all(expected)
    assert torch.equal(torch.cat(choices, 1), routing.choice)
    assert torch.allclose(torch.cat(backlogs, 1), routing.backlog, atol=1e-5)


def test_a_file_in_streams_and_whole(asr, tmp_path):
    wavs, _ = speech(1.5)
    path = tmp_path / "some.wav"
    soundfile.write(path, wavs[0].numpy(), RATE, subtype="FLOAT")
    expected, _ = asr.transcribe_batch(wavs, torch.ones(1))
    assert asr.transcribe_file(path) == expected[0]
    assert "".join(asr.transcribe_stream(path, chunk_ms=70)) == expected[0]
    chunks = [torch.zeros(1, 0), *wavs[0].split(999)]
    pieces = list(asr.transcribe_stream(chunks))[1:]
    assert "".join(pieces) == expected[0]
    assert sum(map(bool, pieces)) > 3, "words come before the end"


def test_other_rates_and_channels_are_converted(asr, tmp_path):
    path = tmp_path / "stereo.wav"
    t = np.arange(44100) / 44100
    tone = 0.1 * np.sin(2 * np.pi * 440 * t)
    soundfile.write(path, np.stack([tone, 0 * tone], 1), 44100)
    wav = asr.load_audio(path)
    expected = 0.05 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)
    assert wav.shape == (RATE,)
    assert np.abs(wav.numpy() - expected)[99:-99].max() < 1e-3


@pytest.mark.parametrize("rate", [8000, 44100, 48000])
def test_other_rates_are_what_the_runtime_hears(asr, tmp_path, rate):
    path = tmp_path / "noise.wav"
    noise = np.random.default_rng(0).normal(0, 0.1, rate)
    soundfile.write(path, noise, rate)
    wav = asr.load_audio(path)
    assert np.array_equal(wav.numpy(), read_audio(path, RATE))


def test_a_moved_folder_loads_without_network(run, asr, tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    shutil.copytree(run / "model", tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path)
    for moved in (
        AmortizedASR.from_hparams("elsewhere", run_opts={"device": "cpu"}),
        load("elsewhere", run_opts={"device": "cpu"}),
    ):
        assert isinstance(moved, Pretrained)
        wavs, lengths = speech(1.0)
        assert moved(wavs, lengths) == asr(wavs, lengths)
    text = (run / "model" / "hyperparams.yaml").read_text()
    assert "experiment: amnet" in text
    for other in (
        "nowhere",
        str(run),
        "optimizer",
        "routing_loss",
        "seed_every",
    ):
        assert other not in text, other
    assert sorted(p.name for p in run.iterdir()) == ["model"]


# SpeechBrain's StreamingASR


@pytest.fixture(scope="module")
def streaming(run):
    return StreamingASR.from_hparams(
        str(run / "model"), run_opts={"device": "cpu"}
    )


def with_silence(wavs, samples):
    """What whole frames are of so many more samples, all 0."""
    frames = (wavs.shape[1] + samples) // 640
    return torch.nn.functional.pad(wavs, (0, frames * 640 - wavs.shape[1]))


@pytest.mark.parametrize("samples", [30400, 30720, 30721, 500])
@pytest.mark.parametrize("size", [1, 2, 9, 100])
def test_speechbrain_hears_the_same_words(
    asr, streaming, tmp_path, samples, size
):
    wavs, _ = speech(samples / RATE)
    path = tmp_path / "some.wav"
    soundfile.write(path, wavs[0].numpy(), RATE, subtype="FLOAT")
    config = DynChunkTrainConfig(size)
    pieces = list(
        streaming.transcribe_file_streaming(
            str(path), config, use_torchaudio_streaming=False
        )
    )
    chunk = streaming.get_chunk_size_frames(config)
    assert chunk == 639 * size
    whole = with_silence(wavs, chunk)  # one chunk of zeros is enough
    assert "".join(pieces) == asr.transcribe_batch(whole, torch.ones(1))[0][0]
    if size == 1:  # no zero too many
        assert "".join(pieces) == asr.transcribe_file(path)
    if size < 10 and samples > 1000:
        assert sum(map(bool, pieces[:-1])) > 2, "words come before the end"


@pytest.mark.parametrize("chunk", [50, 320, 639, 640, 5000])
def test_speechbrain_hears_the_same_words_in_two_streams(asr, streaming, chunk):
    wavs, lengths = speech(0.9, 0.41)
    own = torch.round(lengths * wavs.shape[1])
    heard = wavs.clone()
    heard[1, int(own[1]) :] = torch.nan  # the second stream has ended
    context = streaming.make_streaming_context(DynChunkTrainConfig(8))
    found, start = ["", ""], 0
    for part in heard.split(chunk, 1):
        left = ((own - start) / part.shape[1]).clamp(0, 1)
        start += part.shape[1]
        texts = streaming.transcribe_chunk(context, part, left)
        found = [a + b for a, b in zip(found, texts, strict=True)]
    extractor = streaming.hparams.fea_streaming_extractor
    count = extractor.get_recommended_final_chunk_count(chunk)
    for _ in range(count):
        texts = streaming.transcribe_chunk(context, torch.zeros(2, chunk))
        found = [a + b for a, b in zip(found, texts, strict=True)]
    whole = with_silence(wavs, count * chunk)
    assert found == asr.transcribe_batch(whole, torch.ones(2))[0]
    assert len({*found}) == 2 and all(found)


def test_a_context_takes_the_batch_of_its_first_chunk(asr):
    wavs, _ = speech(0.5, 0.5)
    context = asr.make_streaming_context()
    words = asr.transcribe_chunk(context, wavs, final=True)
    assert words == asr.transcribe_batch(wavs, torch.ones(2))[0]


def test_a_folder_without_the_keys_of_speechbrain_loads(run, asr, tmp_path):
    shutil.copytree(run / "model", tmp_path / "model")
    file = tmp_path / "model" / "hyperparams.yaml"
    before, _, rest = file.read_text().partition("  enc: ")
    file.write_text(before + "pretrainer:" + rest.partition("pretrainer:")[2])
    wavs, lengths = speech(1.0)
    old = load(tmp_path, run_opts={"device": "cpu"})
    assert old(wavs, lengths) == asr(wavs, lengths)
    with pytest.raises(ValueError, match="fea_streaming_extractor"):
        StreamingASR.from_hparams(str(tmp_path / "model"))


def test_an_update_in_the_midst_of_loading(run, asr, tmp_path, monkeypatch):
    """The version that was found is gone, and another one is in its place."""
    for name in ("first", "second"):
        shutil.copytree(run / "model", tmp_path / "versions" / name)
    link = tmp_path / "model"
    link.symlink_to("versions/first")
    whole = AmortizedASR.from_hparams

    def updated(*args, **options):
        if link.resolve().name == "first":
            shutil.rmtree(link.resolve())
            link.unlink()
            link.symlink_to("versions/second")
        return whole(*args, **options)

    monkeypatch.setattr(AmortizedASR, "from_hparams", updated)
    wavs, lengths = speech(1.0)
    new = load(tmp_path, run_opts={"device": "cpu"})
    assert new(wavs, lengths) == asr(wavs, lengths)


def test_every_weight_is_loaded(trained, asr):
    _, modules, _ = trained
    for name in AmortizedASR.MODULES_NEEDED:
        state = asr.mods[name].state_dict()
        for key, value in modules[name].state_dict().items():
            assert torch.equal(state[key], value), key
    assert not asr.mods.encoder.training
    assert not any(p.requires_grad for p in asr.parameters())


def test_export_replaces_only_by_what_loads(trained, run, tmp_path):
    text, modules, tokenizer = trained
    folder = tmp_path / "model"
    export_model(text, modules, tokenizer, folder)
    (folder / "mine.txt").write_text("of an earlier export")
    before = (folder / "hyperparams.yaml").read_text()
    with pytest.raises(ValueError, match="no key 'search'"):
        export_model(
            text.replace("\nsearch:", "\nsearcher:"),
            modules,
            tokenizer,
            folder,
        )
    with pytest.raises(ValueError, match="not the weights of SentencePiece"):
        export_model(text, modules, run / "model" / "joint.ckpt", folder)
    with pytest.raises(ValueError, match="no module joint"):
        some = {k: v for k, v in modules.items() if k != "joint"}
        export_model(text, some, tokenizer, folder)
    assert (folder / "hyperparams.yaml").read_text() == before
    export_model(text, modules, tokenizer, folder)
    assert not (folder / "mine.txt").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
    # Killed where it has no model: the old one is there, and is put back.
    folder.rename(tmp_path / "model.old")
    with pytest.raises(ValueError, match="no key 'search'"):
        old, new = "\nsearch:", "\nsearcher:"
        export_model(text.replace(old, new), modules, tokenizer, folder)
    assert find_model(tmp_path) == folder
    # An update leaves a link there, which may be replaced as often.
    folder.rename(tmp_path / "updated")
    folder.symlink_to("updated")
    for _ in range(2):
        export_model(text, modules, tokenizer, folder)
    assert not folder.is_symlink()
    left = {"model", "model.part", "updated"}  # of the refused one
    assert {p.name for p in tmp_path.iterdir()} <= left


def test_references_are_followed(trained, tmp_path):
    text, modules, tokenizer = trained
    old, new = "\nlayers: 2\n", "\nlayers: !ref <halves[low]> * 2\n"
    assert old in text
    text = text.replace(old, new)
    text += "halves: {low: !ref <a_number>}\na_number: 1\n"
    export_model(text, modules, tokenizer, tmp_path / "model")
    kept = (tmp_path / "model" / "hyperparams.yaml").read_text()
    assert "a_number: 1" in kept and "learning_rate" not in kept


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda text: "a: [1", "not YAML"),
        (lambda text: "hello", "expected `key: value` lines"),
        (lambda text: "", "expected `key: value` lines"),
        (lambda text: text[: len(text) // 2], "there is no pretrainer"),
        (lambda text: text + "b: !re 1\n", "'!re'"),
        (
            lambda text: text.replace("load: 2.0", "load: 0"),
            "target_device: Device: load must be above 0, got 0",
        ),
        (
            lambda text: text.replace("load: 2.0", "speed: 2.0"),
            "target_device: Invalid argument to class .*Device",
        ),
        (
            lambda text: text.replace("{rank: 32}", "{rank: 99}"),
            r"encoder: AmortizedEncoder: branches\[1\]: LowRank: rank: exp",
        ),
        (
            lambda text: text.replace("\nstack: 4", "\nstack: 8"),
            "frame_duration: expected 0.08 s, which the features' stack makes, "
            "got 0.04",
        ),
    ],
)
def test_broken_hparams_of_a_model_are_named(run, tmp_path, change, message):
    shutil.copytree(run / "model", tmp_path / "model")
    file = tmp_path / "model" / "hyperparams.yaml"
    file.write_text(change(file.read_text()))
    with pytest.raises(ValueError, match=message) as caught:
        load(tmp_path)
    assert str(caught.value).startswith(f"{file}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"", b"not a file of weights", None], ids=str
)
def test_broken_weights_are_named(run, tmp_path, content):
    shutil.copytree(run / "model", tmp_path / "model")
    file = tmp_path / "model" / "encoder.ckpt"
    if content is None:  # those of another module
        content = (run / "model" / "joint.ckpt").read_bytes()
    file.write_bytes(content)
    with pytest.raises(
        ValueError, match="encoder.ckpt: not the weights of"
    ) as caught:
        load(tmp_path)
    assert len(str(caught.value)) < 350  # without PyTorch's advice
    assert "weights_only" not in str(caught.value)
    file.unlink()
    with pytest.raises(FileNotFoundError, match="encoder.ckpt"):
        load(tmp_path)


@pytest.mark.parametrize(
    "form, said",
    [
        (
            "LowRank {rank: 16}",
            "branches[1] is LowRank, rank 16 in the hparams, LowRank, rank 32 "
            "in the weights",
        ),
        ("Sparse {density: 0.3}", "branches[1] is Sparse, density 0.3 in"),
        ("Skip", "branches[1] is Skip in the hparams"),
    ],
)
def test_weights_of_other_branches_are_named(run, tmp_path, form, said):
    shutil.copytree(run / "model", tmp_path / "model")
    yaml = tmp_path / "model" / "hyperparams.yaml"
    text = yaml.read_text()
    assert "LowRank {rank: 32}" in text
    yaml.write_text(text.replace("LowRank {rank: 32}", form))
    with pytest.raises(ValueError) as caught:
        load(tmp_path)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_training_s_folder_is_read_as_its_model(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = {"run_opts": {"device": "cpu"}}
    asr = AmortizedASR.from_hparams(run, **options)
    whole = AmortizedASR.from_hparams(run / "model", **options)
    for name, one in whole.mods.encoder.state_dict().items():
        assert torch.equal(asr.mods.encoder.state_dict()[name], one)
    with pytest.raises(ValueError, match="is a file; expected the folder"):
        AmortizedASR.from_hparams(run / "model" / "hyperparams.yaml")
    with pytest.raises(FileNotFoundError, match="there is no such folder"):
        AmortizedASR.from_hparams(tmp_path / "nothing")
    assert not list(tmp_path.iterdir())  # no training began here


def test_no_model_there(tmp_path):
    (tmp_path / "hyperparams.yaml").write_text("seed: 1\n")  # in training
    for folder in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(FileNotFoundError, match="no model; expected"):
            find_model(folder)


def test_bad_audio_is_refused_in_one_line(asr, tmp_path):
    def refuses(match, error=ValueError):
        with pytest.raises(error, match=match) as refused:
            asr.transcribe_file(path)
        assert "\n" not in str(refused.value)
        assert path.name in str(refused.value)

    path = tmp_path / "folder" / "missing.wav"
    refuses("no such audio file", FileNotFoundError)
    path = tmp_path / "text.wav"
    path.write_text("these are words")
    refuses("unreadable audio")
    path = tmp_path / "empty.wav"
    soundfile.write(path, np.zeros(0), RATE)
    refuses("empty audio")
    path = tmp_path / "nan.wav"
    soundfile.write(path, np.array([0, np.nan]), RATE, subtype="FLOAT")
    refuses("NaN or infinity")


def test_bad_streams_are_refused(asr):
    with pytest.raises(ValueError, match="without any audio"):
        list(asr.transcribe_stream([]))
    with pytest.raises(ValueError, match="NaN or infinity"):
        list(asr.transcribe_stream([torch.full((700,), torch.nan)]))
    whole = (3000 * torch.randn(700)).short()
    with pytest.raises(ValueError, match="floating-point .* got torch.int16"):
        list(asr.transcribe_stream([whole]))
    with pytest.raises(ValueError, match="floating-point .* got torch.int16"):
        asr.transcribe_batch(whole[None], torch.ones(1))
    with pytest.raises(ValueError, match="expected -1 to 1; divide 16-bit"):
        list(asr.transcribe_stream([whole.double()]))
    with pytest.raises(ValueError, match=r"one channel.* \[700, 2\]"):
        list(asr.transcribe_stream([torch.zeros(700, 2)]))
    context = asr.make_streaming_context()
    asr.transcribe_chunk(context, torch.zeros(1, 700), final=True)
    with pytest.raises(ValueError, match="has ended"):
        asr.transcribe_chunk(context, torch.zeros(1, 700))
    # One row of two, by mistake: the two rows go on.
    wavs = speech(1.0, 1.0)[0]
    context = asr.make_streaming_context(batch=2)
    with pytest.raises(ValueError, match="batch size of its stream, 2, got 1"):
        asr.transcribe_chunk(context, wavs[:1])
    asr.transcribe_chunk(context, wavs)
    for size in (0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="at least one sample"):
            asr.chunks(torch.zeros(9), size)
    with pytest.raises(ValueError, match=r"shape \[700\]; give \[samples\]"):
        list(asr.transcribe_stream(torch.zeros(700)))


def test_an_end_without_audio_is_no_end(asr):
    wav = speech(1.0)[0][:1]
    context = asr.make_streaming_context()
    with pytest.raises(ValueError, match="without any audio"):
        asr.transcribe_chunk(context, wav[:, :0], final=True)
    words = asr.transcribe_chunk(context, wav, final=True)
    assert words == asr.transcribe_batch(wav, torch.ones(1))[0]


def test_samples_of_numpy(asr):
    wavs, lengths = speech(1.0)
    words = asr.transcribe_batch(wavs, lengths)
    assert asr.transcribe_batch(wavs.numpy(), lengths.numpy()) == words
    context = asr.make_streaming_context()
    said = asr.transcribe_chunk(context, wavs[:1].numpy(), final=True)
    assert said == asr.transcribe_batch(wavs[:1], torch.ones(1))[0]
    wav = wavs[0].numpy().astype("float64")
    (alone,), _ = asr.transcribe_batch(wav[None], [1.0])
    assert "".join(asr.transcribe_stream([wav])) == alone


def test_a_slower_device_is_reckoned_with(run, asr):
    wavs, lengths = speech(1.0)
    slow = load(run, device_load=4.0, run_opts={"device": "cpu"})
    for model, load_ in ((asr, 2.0), (slow, 4.0)):
        encoder = model.mods.encoder
        routing = model.encode_batch(wavs, lengths)[2]
        dense = 0.04 * load_ * encoder.branch_flops[0] / encoder.dense_flops
        assert routing.time.max().item() == pytest.approx(dense, rel=1e-5)


# amnet transcribe


def test_command_prints_the_words(run, asr, tmp_path, capsys):
    wavs, _ = speech(1.5)
    path = tmp_path / "some.wav"
    soundfile.write(path, wavs[0].numpy(), RATE, subtype="FLOAT")
    expected = asr.transcribe_file(path)
    assert cli.main(["transcribe", str(run), str(path)]) == 0
    words, result = capsys.readouterr().out.splitlines()
    assert words == expected
    routing = asr.encode_batch(wavs, torch.ones(1))[2]
    saved = 1 - routing.flops.mean() / asr.mods.encoder.dense_flops
    wait = 1000 * (routing.backlog + routing.time)[0, -1]
    assert result.startswith("1.5 s of audio in ")
    assert f" {100 * saved:.0f} % of the dense" in result
    assert f" {wait:.0f} ms after the last sample" in result
    assert "takes 2 times its duration" in result

    command = ["transcribe", str(run), str(path), "--frames"]
    assert cli.main([*command, "--chunk-ms", "90", "--load", "2"]) == 0
    *lines, again = capsys.readouterr().out.splitlines()
    assert again.partition("duration;")[2] == result.partition("duration;")[2]
    assert len(lines) == routing.choice.shape[1]
    for n, line in enumerate(lines):
        fields = line.split()
        assert float(fields[0]) == pytest.approx(0.04 * n)
        assert fields[2] == ["dense", "cheap"][routing.choice[0, n]]
        backlog = 1000 * routing.backlog[0, n].item()
        assert float(fields[4]) == pytest.approx(backlog, abs=0.51)
    text = "".join(line.partition(" ms  ")[2] for line in lines)
    assert text == expected


def test_command_ends_with_one_line(run, tmp_path, capsys):
    assert cli.main(["transcribe", str(run), str(tmp_path / "no.wav")]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("amnet: error: no such audio file")


def test_real_speech_streams(asr, an4):
    paths = sorted((an4 / "test").rglob("*.flac"))[:2]
    for path in paths:
        whole = asr.transcribe_file(path)
        assert whole
        assert "".join(asr.transcribe_stream(path, chunk_ms=33)) == whole
