"""Features: whole, in a batch, and in a stream are one; nothing looks ahead."""

import math
import os
from pathlib import Path

import pytest
import soundfile
import torch

from speechbrain_amnet.features import ChunkFeatures, StreamingFeatures

FRAME = 640  # samples


def noise(*shape, seed=0):
    """Noise that grows louder, so that no two frames are alike."""
    generator = torch.Generator().manual_seed(seed)
    ramp = torch.linspace(0.01, 0.3, shape[-1])
    return torch.randn(shape, generator=generator) * ramp


@pytest.fixture(scope="module", params=[None, 0.5])
def features(request):
    features = StreamingFeatures(mean_seconds=request.param)
    features.fit_statistics([noise(16000), noise(5000, seed=1)])
    return features


@pytest.mark.parametrize("samples", [1, 639, 640, 641, 6400, 10007])
def test_frames_are_the_samples_over_640_rounded_up(features, samples):
    frames, lengths = features(noise(1, samples))
    assert frames.shape == (1, -(-samples // FRAME), 320)
    assert lengths.tolist() == [1.0]
    assert features.frame_duration == 0.04


@pytest.mark.parametrize("chunk", [1, 37, 160, 639, 640, 641, 5000])
def test_streaming_equals_batch(features, chunk):
    wav = noise(2, 4007)
    context = features.make_streaming_context()
    parts = [
        features.forward_streaming(c, context) for c in wav.split(chunk, 1)
    ]
    assert sum(part.shape[1] for part in parts) == 4007 // FRAME
    parts.append(features.forward_streaming(wav[:, :0], context, final=True))
    torch.testing.assert_close(
        torch.cat(parts, 1), features(wav)[0], atol=1e-5, rtol=0
    )


def test_streaming_gives_a_frame_with_its_last_sample(features):
    wav = noise(1, FRAME)
    context = features.make_streaming_context()
    assert features.forward_streaming(wav[:, :-1], context).shape[1] == 0
    assert features.forward_streaming(wav[:, -1:], context).shape[1] == 1
    # All samples were used: a flush has nothing to complete.
    end = features.forward_streaming(wav[:, :0], context, final=True)
    assert end.shape == (1, 0, 320)


def test_last_chunk_may_come_with_the_flush(features):
    wav = noise(1, 1000)
    context = features.make_streaming_context()
    frames = features.forward_streaming(wav, context, final=True)
    torch.testing.assert_close(frames, features(wav)[0])


def test_an_utterance_does_not_depend_on_its_batch(features):
    samples = [10007, 640, 641, 3000, 1]
    batch = noise(len(samples), max(samples))
    batch[1, 640:] = float("nan")  # behind an utterance nothing is read
    lengths = torch.tensor(samples) / max(samples)
    together, together_lengths = features(batch, lengths)
    own = torch.round(together_lengths * together.shape[1]).int().tolist()
    assert own == [-(-n // FRAME) for n in samples]
    for row, (n, frames) in enumerate(zip(samples, own, strict=True)):
        alone = features(batch[row : row + 1, :n])[0][0]
        torch.testing.assert_close(
            together[row, :frames], alone, atol=1e-5, rtol=0
        )


@pytest.mark.parametrize("frame", [0, 3, 8])
def test_a_frame_reads_up_to_its_last_sample_and_no_further(features, frame):
    wav = noise(1, 6400)
    before = features(wav)[0]
    end = (frame + 1) * FRAME
    for sample, first_moved in ((end, frame + 1), (end - 1, frame)):
        moved = wav.clone()
        moved[0, sample] += 0.5
        change = (features(moved)[0] - before).abs().amax(-1)[0]
        assert (change[:first_moved] == 0).all()
        assert change[first_moved] > 0.01


def test_a_loud_sound_does_not_move_the_floor_of_a_quiet_one(features):
    wav = noise(1, 6400)
    wav[0, :2000] *= 1e-3
    loud = wav.clone()
    loud[0, 4000:] *= 50  # 94 dB above
    torch.testing.assert_close(
        features(wav)[0][:, :6], features(loud)[0][:, :6]
    )


def test_digital_silence_is_at_the_floor():
    features = StreamingFeatures()
    features.fit_statistics([noise(16000)])
    frames = features(torch.zeros(1, 1280))[0].reshape(-1, 80)
    decibel = frames * features.std + features.mean
    torch.testing.assert_close(decibel, torch.full_like(decibel, -70.0))


def test_statistics_normalise_what_they_were_fitted_on(features):
    features = StreamingFeatures()
    wav = noise(64000)
    features.fit_statistics([wav[:32000], wav[32000:]])
    bands = features(wav[None])[0].reshape(-1, 80)
    assert bands.mean(0).abs().max() < 0.05
    assert (bands.std(0) - 1).abs().max() < 0.05


def test_running_mean_forgets_the_microphone():
    plain, running = (StreamingFeatures(mean_seconds=s) for s in (None, 0.5))
    for features in (plain, running):
        features.fit_statistics([noise(16000)])
    wav = noise(1, 64000)
    apart = [
        (f(0.1 * wav)[0] - f(wav)[0]).abs().amax(-1)[0]
        for f in (plain, running)
    ]
    # Nothing is known at first, and 4 seconds later all of it.
    assert (apart[1][:-1] > apart[1][1:]).all()
    assert apart[1][0] > 0.9 * apart[0][0]
    assert apart[1][-1] < 1e-3 < apart[0][-1]
    # Means of a constant: 1 - exp(-t / 0.5) of it has been learnt.
    left = apart[1] / apart[0]
    assert left[24].item() == pytest.approx(math.exp(-1 / 0.5), rel=0.02)


def test_a_band_that_never_moves_is_not_blown_up():
    features = StreamingFeatures()
    features.fit_statistics([torch.zeros(16000)])
    assert features(noise(1, 6400))[0].abs().max() < 100


def test_statistics_are_saved():
    features, other = StreamingFeatures(), StreamingFeatures()
    features.fit_statistics([noise(16000)])
    other.load_state_dict(features.state_dict())
    wav = noise(1, 6400)
    assert torch.equal(other(wav)[0], features(wav)[0])


def test_autocast_changes_nothing(features):
    wav = noise(1, 6400)
    with torch.autocast("cpu", torch.bfloat16):
        frames = features(wav)[0]
    assert torch.equal(frames, features(wav)[0])


def test_other_rates_and_sizes():
    features = StreamingFeatures(8000, n_mels=40, stack=3, window_ms=32)
    features.fit_statistics([noise(8000)])
    wav = noise(1, 8001)
    assert features(wav)[0].shape == (1, 34, 120)
    context = features.make_streaming_context()
    parts = [features.forward_streaming(c, context) for c in wav.split(99, 1)]
    parts.append(features.forward_streaming(wav[:, :0], context, final=True))
    torch.testing.assert_close(torch.cat(parts, 1), features(wav)[0])


@pytest.mark.parametrize(
    ("wav", "lengths", "says"),
    [
        (torch.zeros(16000), None, r"\[batch, samples\]"),
        (torch.zeros(1, 16000).short(), None, "floating-point"),
        (torch.zeros(1, 0), None, "empty"),
        (torch.zeros(0, 16000), None, "empty"),
        (torch.full((1, 900), float("nan")), None, "row 0 has NaN"),
        (torch.tensor([[0.0], [-300.0]]), None, "row 1 has a sample of 300: e"),
        (torch.zeros(2, 900), torch.tensor([1.0, 0.0]), "at least one sample"),
        (torch.zeros(2, 900), torch.tensor([1.0, 1.5]), "at most 1"),
        (torch.zeros(2, 900), torch.tensor([1.0, torch.nan]), "lengths"),
        (torch.zeros(2, 900), torch.ones(3), r"lengths must be \[batch\]"),
    ],
)
def test_bad_input_is_refused(features, wav, lengths, says):
    with pytest.raises(ValueError, match=says) as error:
        features(wav, lengths)
    assert "\n" not in str(error.value)


def test_bad_streams_are_refused(features):
    context = features.make_streaming_context()
    features.forward_streaming(noise(2, 100), context)
    with pytest.raises(ValueError, match="batch size"):
        features.forward_streaming(noise(1, 100), context)
    with pytest.raises(ValueError, match="NaN"):
        features.forward_streaming(noise(2, 100) / 0, context)
    features.forward_streaming(noise(2, 100), context, final=True)
    with pytest.raises(ValueError, match="has ended"):
        features.forward_streaming(noise(2, 100), context)


def test_bad_statistics_are_refused():
    features = StreamingFeatures()
    with pytest.raises(ValueError, match="not fitted"):
        features(noise(1, 6400))
    with pytest.raises(ValueError, match="no audio"):
        features.fit_statistics([])
    with pytest.raises(ValueError, match="NaN"):
        features.fit_statistics([noise(900), noise(900) / 0])
    assert not features.fitted
    with pytest.raises(ValueError, match="whole number of samples"):
        StreamingFeatures(sample_rate=11025)
    for seconds in (0, -1, math.inf, math.nan):
        with pytest.raises(ValueError, match="mean_seconds must be above 0"):
            StreamingFeatures(mean_seconds=seconds)
    for floor in (0, -1, 1.5, math.inf, math.nan):
        with pytest.raises(ValueError, match="floor must be above 0 and at m"):
            StreamingFeatures(floor=floor)


# ChunkFeatures


@pytest.mark.parametrize("chunk", [1, 99, 638, 639, 640, 5000])
@pytest.mark.parametrize("samples", [1, 640, 641, 1919])
def test_final_chunks_of_zeros_complete_the_last_frame(chunk, samples):
    features = StreamingFeatures()
    features.fit_statistics([noise(16000)])
    extractor, wav = ChunkFeatures(features), noise(2, samples)
    count = extractor.get_recommended_final_chunk_count(chunk)
    assert FRAME - 1 <= count * chunk < FRAME - 1 + chunk
    context = extractor.make_streaming_context()
    chunks = [*wav.split(chunk, 1), *[torch.zeros(2, chunk)] * count]
    found = torch.cat([extractor(part, context) for part in chunks], 1)
    own, _ = features(wav)
    last = own.shape[1]
    torch.testing.assert_close(found[:, :last], own, atol=1e-5, rtol=0)
    # And nothing else but silence.
    silent = found[:, last + 1 :]
    silence = features(torch.zeros(2, FRAME))[0].expand_as(silent)
    torch.testing.assert_close(silent, silence, atol=1e-5, rtol=0)


def test_what_lies_behind_in_a_chunk_is_silence(features):
    extractor, wav = ChunkFeatures(features), noise(3, 1280)
    lengths = torch.tensor([1.0, 0.25, 0.0])
    cut = wav.clone()
    cut[1, 320:], cut[2] = 0, 0
    wav[1, 320:], wav[2] = torch.nan, torch.nan
    context = extractor.make_streaming_context()
    found = extractor(wav, context=context, lengths=lengths)
    torch.testing.assert_close(found, features(cut)[0])


def test_a_frame_reads_what_its_properties_say():
    features = StreamingFeatures(8000, n_mels=40, stack=3, window_ms=32)
    features.fit_statistics([noise(8000)])
    said = ChunkFeatures(features).properties
    assert (said.stride, said.causal) == (240, True)
    wav = noise(1, 4 * said.stride)
    end = 3 * said.stride  # of the third frame
    frame = features(wav)[0][0, 2]
    for place, read in (
        (end - said.window_size - 1, False),
        (end - said.window_size + 1, True),  # a window is 0 at its first one
        (end - 2, True),
        (end, False),
    ):
        moved = wav.clone()
        moved[0, place] += 90.0
        same = torch.equal(features(moved)[0][0, 2], frame)
        assert same is not read, place


def test_floor_lies_below_real_silence():
    folder = os.environ.get("AMNET_AN4")
    if not folder:
        pytest.skip("AMNET_AN4 (the folder of AN4) is not set")
    features = StreamingFeatures()
    features.fit_statistics([noise(16000)])
    files = sorted((Path(folder) / "dev").rglob("*.flac"))[::10]
    at_floor = []
    for file in files:
        wav = torch.from_numpy(soundfile.read(file, dtype="float32")[0])
        # The start of a recording is complete: no zeros pad it.
        bands = features(wav[None])[0][:, 1:-1].reshape(-1, 80)
        decibel = bands * features.std + features.mean
        at_floor.append((decibel < -69.9).float().mean())
    assert torch.stack(at_floor).mean() < 0.01
