"""A tiny trained model, as the runtime and as PyTorch have it."""

import numpy as np
import pytest

from speechbrain_amnet.export import export_model
from speechbrain_amnet.inference import load
from speechbrain_amnet.runtime.convert import pack
from speechbrain_amnet.runtime.recogniser import Recogniser

TEXTS = ["GO FORWARD TEN METERS", "STOP", "TURN LEFT THEN RIGHT"]


@pytest.fixture(scope="session")
def run(tiny, tmp_path_factory):
    """The output folder of a training."""
    folder = tmp_path_factory.mktemp("run")
    export_model(*tiny(folder, TEXTS), folder / "model")
    return folder


@pytest.fixture
def asr(run):
    """The model in PyTorch."""
    return load(run, run_opts={"device": "cpu"})


@pytest.fixture
def speech():
    """Makes something with loud and quiet parts, of so many seconds."""

    def make(seconds, seed=0):
        random = np.random.default_rng(seed)
        samples = random.standard_normal(int(16000 * seconds))
        loud = np.abs(np.sin(np.arange(len(samples)) / 2000))
        return (0.3 * samples * loud).astype("float32")

    return make


@pytest.fixture
def takes():
    """Seconds that a frame of each branch of `model` computes."""
    return [0.012, 0.002]


@pytest.fixture
def model(asr, clock, takes, monkeypatch):
    """A recogniser whose frames take the clock's time, by branch."""
    model = Recogniser(pack(asr))
    step = model.encoder.step

    def encode(x, branch, cells):
        clock.now += takes[branch]
        return step(x, branch, cells)

    monkeypatch.setattr(model.encoder, "step", encode)
    return model
