"""A model as arrays and a few numbers: what a device needs, in one file."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from speechbrain_amnet import files
from speechbrain_amnet.runtime.int8 import from_int8, to_int8

# Of the file; 2 had no masks, 3 no running mean and no digest, 4 the sum of a
# predictor's two biases.
FORMAT = 5
READS = (2, 3, 4, FORMAT)
MASKS = "mask."  # before the name of an array of which few entries are sent
SHAPES = "shape."  # and its shape
SCALES = "scales."  # before the name of an array whose steps the file holds
KEY = "speechbrain_amnet"


@dataclass
class Packed:
    """A model for the runtime.

    Arguments
    ---------
    config : dict
        What is no array; JSON can hold it. See `convert.pack`.
    arrays : mapping
        Name to array, float32.
    scales : mapping
        Name to what a step of 8 bits is worth, in each row of those arrays
        that hold whole steps only. The file needs a byte a number for them.
    """

    config: dict[str, Any]
    arrays: Mapping[str, np.ndarray]
    scales: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def int8(self) -> bool:
        """Whether matrices are of 8 bits."""
        return bool(self.scales)

    def part(self, prefix: str) -> dict[str, np.ndarray]:
        """The arrays whose names begin so, by the rest of their names."""
        start = f"{prefix}."
        return {
            name.removeprefix(start): array
            for name, array in self.arrays.items()
            if name.startswith(start)
        }


def write_packed(
    packed: Packed, path: str | Path, replace: bool = True
) -> None:
    """Write a model as one safetensors file, aside, flushed and renamed."""
    files.write(path, to_bytes(packed), durable=True, replace=replace)


def to_bytes(packed: Packed) -> bytes:
    """What `write_packed` writes.

    Of a matrix with many zeros the others are sent, and a bit an entry that
    says where they are, if that is less.
    """
    arrays = dict(packed.arrays)
    for name, scales in packed.scales.items():
        arrays[name] = to_int8(arrays[name], scales)
        arrays[SCALES + name] = scales
    for name, array in list(arrays.items()):
        kept = array != 0
        bits = np.packbits(kept)
        size = array.itemsize * kept.sum() + bits.size
        if array.ndim == 2 and size < array.nbytes:
            arrays[name] = array[kept]
            arrays[MASKS + name] = bits
            arrays[SHAPES + name] = np.array(array.shape)
    about = {"format": FORMAT, **packed.config}
    about["digest"] = digest(about, arrays)
    return save(arrays, metadata={KEY: json.dumps(about, ensure_ascii=False)})


def digest(about: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
    """What tells whether a file is as it was written."""
    found = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        found.update(f"{name} {array.dtype.str} {array.shape}".encode())
        found.update(array.data)
    return found.hexdigest()


def read_config(path: str | Path) -> dict[str, Any]:
    """What a packed model says of itself, without its arrays.

    Arguments
    ---------
    path : str or Path
        The file.

    Returns
    -------
    dict
        `Packed.config`, with format and digest of the file.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is not such a model, or one of another version.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    try:
        with safe_open(path, framework="numpy") as file:
            about = (file.metadata() or {}).get(KEY)
    except SafetensorError as error:
        raise ValueError(f"{path}: not a packed model ({error})") from None
    if about is None:
        raise ValueError(f"{path}: not a packed model (no {KEY} in its header)")
    try:
        config = json.loads(about)
        version = config["format"]
    except (ValueError, KeyError, TypeError):
        version = None
    if version not in READS:
        known = ", ".join(map(str, READS))
        raise ValueError(
            f"{path}: not a packed model of this version, which reads the "
            f"formats {known}; pack the model again"
        )
    return config


def read_packed(path: str | Path) -> Packed:
    """Read what `write_packed` wrote.

    Arguments
    ---------
    path : str or Path
        The file.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is not such a model, one of another version, or damaged.
    """
    path = Path(path)
    config = read_config(path)
    version, written = config.pop("format"), config.pop("digest", None)
    try:
        with safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}
    except SafetensorError as error:
        raise ValueError(f"{path}: not a packed model ({error})") from None
    # The older formats have no digest.
    if version >= 4 and written != digest(
        {"format": version, **config}, arrays
    ):
        raise ValueError(
            f"{path}: damaged packed model (its digest does not fit); copy it "
            "or pack the model again"
        )
    for name in [n for n in arrays if n.startswith(MASKS)]:
        bits, name = arrays.pop(name), name.removeprefix(MASKS)
        shape = arrays.pop(SHAPES + name, np.zeros(1, int))
        size = math.prod(shape.tolist())  # of Python, which does not overflow
        kept = np.unpackbits(bits)[:size].astype(bool)
        few = arrays.get(name, bits)
        if not 0 < size <= 8 * bits.size < size + 8 or kept.sum() != few.size:
            raise ValueError(f"{path}: not a packed model (array {name})")
        whole = np.zeros(size, few.dtype)
        whole[kept] = few
        arrays[name] = whole.reshape(shape)
    scales = {
        name.removeprefix(SCALES): arrays.pop(name)
        for name in list(arrays)
        if name.startswith(SCALES)
    }
    for name, step in scales.items():
        arrays[name] = from_int8(arrays[name], step)
    return Packed(config, arrays, scales)
