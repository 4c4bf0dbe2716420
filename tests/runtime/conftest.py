"""A tiny trained model, as the runtime and as PyTorch have it."""

import pytest

from speechbrain_amnet.export import export_model
from speechbrain_amnet.inference import load

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
