"""Time, memory and size of a model."""

from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from speechbrain_amnet.export import export_model
from speechbrain_amnet.footprint import measure_stream, model_size
from speechbrain_amnet.inference import load


@pytest.fixture(scope="module")
def asr(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    export_model(*tiny(folder, ["STOP", "GO"]), folder / "model")
    return load(folder, run_opts={"device": "cpu"})


def test_streaming_that_fails_says_why(asr, monkeypatch):
    failed = SimpleNamespace(returncode=1, stderr="at line 3\nValueError: x\n")
    monkeypatch.setattr("subprocess.run", lambda *a, **k: failed)
    with pytest.raises(RuntimeError, match="failed: ValueError: x$"):
        measure_stream(asr, ["some.wav"])


def test_size_is_that_of_the_files(asr):
    size = model_size(asr)
    weights = sum(p.numel() for p in asr.mods.parameters())
    assert size["parameters"] == weights
    # Four bytes a weight; names, buffers and statistics beside them.
    assert 4 * weights < 1e6 * size["megabytes"] < 4 * weights + 100_000


def test_time_and_memory_of_a_stream(asr, tmp_path):
    path = tmp_path / "some.wav"
    soundfile.write(path, 0.1 * np.random.randn(16000), 16000)
    measured = measure_stream(asr, [path, path])
    assert 0 < measured["real_time_factor"] < 2
    assert 0 <= measured["peak_memory_mb"] < 100


def test_a_router_of_one_s_own_is_not_streamed(asr, monkeypatch):
    class Own(type(asr.mods.encoder.router)):
        pass

    monkeypatch.setattr(asr.mods.encoder.router, "__class__", Own)
    assert set(measure_stream(asr, ["some.wav"]).values()) == {None}


def test_size_without_files(asr):
    alone = SimpleNamespace(mods=asr.mods, hparams=SimpleNamespace())
    assert model_size(alone)["megabytes"] == pytest.approx(
        4e-6 * sum(p.numel() for p in asr.mods.parameters())
    )
