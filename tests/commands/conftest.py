"""A tiny trained model for the commands that take one."""

import pytest

from speechbrain_amnet.export import export_model


@pytest.fixture(scope="session")
def run(tiny, tmp_path_factory):
    """The output folder of its training."""
    folder = tmp_path_factory.mktemp("run")
    export_model(*tiny(folder, ["GO FORWARD TEN", "STOP"]), folder / "model")
    return folder
