"""The file of a packed model: read as written, refused if it is none."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from speechbrain_amnet.runtime import packed
from speechbrain_amnet.runtime.convert import pack
from speechbrain_amnet.runtime.recogniser import Recogniser
from speechbrain_amnet.runtime.search import Search

# Files as devices have them, and what they made of `speech(2.0)` when they
# were written. They are never written again: a new format has files of its
# own beside them, `write_packed(read_packed(OLD), NEW)`.
#
# Those of format 5 are amnet.yaml with random weights, hidden_size, joint_size
# and predictor_size 8, n_mels 4, tokens 8 (characters), mean_seconds 0.5; the
# branches Dense, Sparse {density: 0.3}, LowRank {rank: 1}, Skip, pruned; an
# arbitrator of hidden 4 with use_device, trained for loads 0.5 to 4, on a
# device of load 6; random token shares; held to a grammar. So `pack` made
# packed_5, and `as_int8` of it packed_5_int8.
DATA = Path(__file__).parent / "data"
STORED = json.loads((DATA / "packed.json").read_text())


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
    bfloat16 = {"a": {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]}}
    header = json.dumps(bfloat16).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(2))
    with pytest.raises(ValueError, match="no speechbrain_amnet in its header"):
        packed.read_packed(path)
    for about in ('{"format": 99}', "[]", "null", "{", "{}", '{"format": []}'):
        save_file({"a": np.zeros(1)}, path, metadata={packed.KEY: about})
        with pytest.raises(
            ValueError, match="formats 2, 3, 4, 5; pack"
        ) as error:
            packed.read_packed(path)
        assert str(path) in str(error.value)
    packed.write_packed(pack(asr), path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ValueError, match="not a packed model"):
        packed.read_packed(path)


@pytest.mark.parametrize("place", [0.2, 0.5, 0.999])
def test_damage_is_found(asr, tmp_path, place):
    path = tmp_path / "model.safetensors"
    packed.write_packed(pack(asr), path)
    written = bytearray(path.read_bytes())
    written[int(place * len(written))] ^= 16
    path.write_bytes(written)
    with pytest.raises(ValueError, match="damaged packed model") as error:
        packed.read_packed(path)
    assert str(path) in str(error.value)


def test_a_changed_number_is_found(asr, tmp_path):
    path = tmp_path / "model.safetensors"
    packed.write_packed(pack(asr), path)
    with safe_open(path, framework="numpy") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}
        about = json.loads(file.metadata()[packed.KEY])
    about["encoder"]["frame_duration"] *= 2
    save_file(arrays, path, metadata={packed.KEY: json.dumps(about)})
    with pytest.raises(ValueError, match="damaged packed model"):
        packed.read_packed(path)
    # What was written before there was a digest is still read.
    del about["digest"]
    about["format"] = 3
    save_file(arrays, path, metadata={packed.KEY: json.dumps(about)})
    assert packed.read_packed(path).config["encoder"] == about["encoder"]


@pytest.mark.parametrize("shape", [[10**6] * 3, [0, 3], [40, 31], [2]])
def test_a_shape_that_its_mask_does_not_have(tmp_path, shape):
    """Whoever can reckon a digest may promise any shape."""
    path = tmp_path / "model.safetensors"
    few = np.zeros((40, 30), "f")
    few[3, 4] = 1
    packed.write_packed(packed.Packed({}, {"few": few}), path)
    with safe_open(path, framework="numpy") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}
        about = json.loads(file.metadata()[packed.KEY])
    arrays[f"{packed.SHAPES}few"] = np.array(shape)
    del about["digest"]
    about["digest"] = packed.digest(about, arrays)
    save_file(arrays, path, metadata={packed.KEY: json.dumps(about)})
    with pytest.raises(ValueError, match=r"not a packed model \(array few\)"):
        packed.read_packed(path)


def test_what_was_packed_before_updates_is_read(asr):
    """Format 4 had the sum of a predictor's biases, which is the same to it."""
    now = pack(asr)
    old = packed.Packed(now.config, dict(now.arrays))
    more = old.arrays.pop("predictor.0.recurrent_bias")
    old.arrays["predictor.0.bias"] = old.arrays["predictor.0.bias"] + more
    (new,), (before,) = Search(now).biases, Search(old).biases
    assert new.tobytes() == before.tobytes() and more.any()


def test_zeros_are_not_sent(tmp_path):
    """Bits and values, read as they were."""
    random = np.random.default_rng(0)
    few = random.normal(size=(40, 30)).astype("f") * (
        random.random((40, 30)) < 0.1
    )
    arrays = {"few": few, "full": few + 1, "vector": np.zeros(9, "f")}
    packed.write_packed(packed.Packed({}, arrays), tmp_path / "a")
    found = packed.read_packed(tmp_path / "a").arrays
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == np.float32
    packed.write_packed(packed.Packed({}, {"few": few + 1}), tmp_path / "b")
    packed.write_packed(packed.Packed({}, {"few": few}), tmp_path / "c")
    sizes = [(tmp_path / name).stat().st_size for name in "bc"]
    assert sizes[1] < 0.4 * sizes[0]


@pytest.mark.parametrize("name", STORED)
def test_what_devices_have_is_read_as_ever(name, speech):
    model = Recogniser(packed.read_packed(DATA / f"{name}.safetensors"))
    wanted, samples = STORED[name], speech(2.0)
    assert model.transcribe(samples) == wanted["said"]
    model.hold_to(None)
    stream = model.start()
    frames = stream.feed(samples, final=True)
    assert "".join(str(frame.branch) for frame in frames) == wanted["branches"]
    assert "".join(map(str, stream.tokens)) == wanted["tokens"]
    assert stream.cells[-1].h == pytest.approx(wanted["encoded"], abs=1e-4)


def test_what_is_written_otherwise_is_another_format(tmp_path):
    """Or a device of before would take it for what it is not."""
    files = [DATA / f"{name}.safetensors" for name in STORED]
    now = [f for f in files if packed.read_config(f)["format"] == packed.FORMAT]
    assert now, "store files of this format, too"
    for file in now:
        packed.write_packed(packed.read_packed(file), tmp_path / file.name)
        again = packed.read_config(tmp_path / file.name)
        assert again == packed.read_config(file)  # and so is the digest
