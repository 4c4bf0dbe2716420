"""The file of a packed model: read as written, refused if it is none."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from speechbrain_amnet.runtime import packed
from speechbrain_amnet.runtime.convert import pack


def test_a_file_holds_the_model(asr, tmp_path):
    model = pack(asr)
    path = tmp_path / "new" / "model.safetensors"
    packed.write_packed(model, path)
    again = packed.read_packed(path)
    assert again.config == model.config
    assert again.arrays.keys() == model.arrays.keys()
    for name, array in model.arrays.items():
        assert np.array_equal(again.arrays[name], array), name
        assert array.dtype == np.float32, name
    assert not list(path.parent.glob("*.part"))
    weights = sum(p.numel() for p in asr.mods.parameters())
    assert 4 * weights < path.stat().st_size < 4 * weights + 300_000
    assert set(again.part("router")) == {
        "frame",
        "bias",
        "backlog",
        "out",
        "out_bias",
    }


def test_other_files_are_refused(asr, tmp_path):
    path = tmp_path / "model.safetensors"
    with pytest.raises(FileNotFoundError, match="no such file"):
        packed.read_packed(path)
    path.write_bytes(b"these are words")
    with pytest.raises(ValueError, match="not a packed model"):
        packed.read_packed(path)
    save_file({"a": np.zeros(1)}, path)
    with pytest.raises(ValueError, match="no speechbrain_amnet in its header"):
        packed.read_packed(path)
    about = json.dumps({"format": 99})
    save_file({"a": np.zeros(1)}, path, metadata={packed.KEY: about})
    with pytest.raises(ValueError, match="format 2"):
        packed.read_packed(path)
    packed.write_packed(pack(asr), path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ValueError, match="not a packed model"):
        packed.read_packed(path)
