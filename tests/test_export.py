"""What an exported folder names stays loadable, wherever its code moves."""

import re
import shutil

import pytest
import torch
from speechbrain.inference.ASR import StreamingASR
from speechbrain.utils.dynamic_chunk_training import DynChunkTrainConfig

from speechbrain_amnet import catalogue
from speechbrain_amnet.export import export_model
from speechbrain_amnet.inference import load

CPU = {"device": "cpu"}


@pytest.fixture(scope="module")
def model(tiny, tmp_path_factory):
    """The folder of a tiny model."""
    folder = tmp_path_factory.mktemp("finished")
    return export_model(*tiny(folder, ["STOP", "GO"]), folder / "model")


def test_a_folder_names_public_names_alone(model):
    text = (model / "hyperparams.yaml").read_text()
    named = set(re.findall(r"![a-z]+:(speechbrain_amnet\.[\w.]+)", text))
    assert {
        f"speechbrain_amnet.{name}"
        for name in (
            "ChunkFeatures",
            "StreamingFeatures",
            "TextStream",
            "decode_streaming",
            "load_weights",
        )
    } <= named
    assert named <= set(catalogue.names())


@pytest.mark.parametrize("loading", ["loading", "inference"])
def test_a_folder_of_before_these_names_loads(model, tmp_path, loading):
    """Deployed folders name the modules; one has moved since."""
    shutil.copytree(model, tmp_path / "model")
    file = tmp_path / "model" / "hyperparams.yaml"
    text = file.read_text()
    for old in (
        "features.ChunkFeatures",
        "text.TextStream",
        "text.decode_streaming",
        f"{loading}.load_weights",
    ):
        new = f":speechbrain_amnet.{old.partition('.')[2]}\n"
        assert new in text
        text = text.replace(new, f":speechbrain_amnet.{old}\n")
    file.write_text(text)
    wav = 0.3 * torch.randn(1, 16000)
    said = []
    for folder in (model, tmp_path / "model"):
        asr = StreamingASR.from_hparams(str(folder), run_opts=CPU)
        context = asr.make_streaming_context(DynChunkTrainConfig(50))
        said += asr.transcribe_chunk(context, wav)
    assert said[0] == said[1] != ""
    assert load(tmp_path, run_opts=CPU).pieces
