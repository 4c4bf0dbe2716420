"""The file of a diff: a safetensors file in a zstandard frame.

The header says what the diff is for and what must come out of it; the arrays
are those of all tensors, one after the other, so that a small diff is not
mostly names (docs/diff-format.md). What a reader cannot trust it refuses: the
frame has a checksum, and base and result have fingerprints.
"""

import hashlib
import io
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import zstandard
from safetensors.numpy import save

from speechbrain_amnet import files
from speechbrain_amnet.diff.changes import (
    Change,
    Values,
    from_arrays,
    to_arrays,
)

FORMAT = 1
KEY = "amnet_diff"
LEVEL = 19  # of zstandard; a diff is small and written once
TYPES = ("int8", "float16", "float32")
ARRAYS = {  # in the file's order of bytes
    "positions": "u1",
    "scales": "<f4",
    **dict(zip(TYPES, ("i1", "<f2", "<f4"))),
}
CODES = {  # the same, as safetensors calls them
    "positions": "U8",
    "scales": "F32",
    **dict(zip(TYPES, ("I8", "F16", "F32"))),
}
SMALL = 1 << 20  # bytes that any file may unpack to, and no header exceeds;
RATIO = 100  # larger ones as many times their own; where the model is
WEIGHT = 12  # known, as many for each of its weights
MODEL_DIGITS = 16  # of the fingerprint of a whole model
DIGITS = {"base": 64, "result": 64, "model": MODEL_DIGITS}  # hexadecimal
PIECE = 1024  # bytes that are unpacked at a time
ROOM = 1024  # bytes of a header that are not ours, at most
FRAME_HEAD = 18  # bytes of zstandard's header at most
LARGEST = 1 << 32  # numbers in a tensor
HEADER = {
    "base": str,
    "result": str,
    "about": dict,
    "signature": (str, type(None)),
    "tensors": dict,
}
OPTIONAL = {"model": (str, type(None)), "release": (int, type(None))}
DAMAGED = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)


class DiffError(ValueError):
    """A file that is no diff, is damaged, or is for another model."""


@dataclass
class Diff:
    """A diff, read or to be written.

    Arguments
    ---------
    changes : dict
        Name of a tensor to what happens to it.
    base, result : str
        Fingerprints of these tensors before and after.
    about : dict
        What else the header says: method, budget, training; JSON can hold it.
    signature : str, optional
        Room for one.
    model : str, optional
        See `model_of`; of the whole base, the tensors that do not change
        too.
    release : int, optional
        Room for a number from 1 on, by which a device can tell that an update
        is older than what it has.
    """

    changes: dict[str, Change]
    base: str
    result: str
    about: dict[str, Any] = field(default_factory=dict)
    signature: str | None = None
    model: str | None = None
    release: int | None = None


def fingerprint(tensors: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of tensors: names, types, shapes and bytes.

    Arguments
    ---------
    tensors : mapping
        Name to array; the order does not matter.

    Returns
    -------
    str
        64 hexadecimal digits.

    Example
    -------
    >>> fingerprint({"w": np.zeros(2, dtype=np.float32)})[:8]
    '07c145c6'
    """
    total = hashlib.sha256()
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name])
        array = array.astype(array.dtype.newbyteorder("<"), copy=False)
        about = [name, array.dtype.name, list(tensors[name].shape)]
        total.update(json.dumps(about).encode())
        total.update(array.reshape(-1).view(np.uint8))
    return total.hexdigest()


def model_of(tensors: Mapping[str, np.ndarray]) -> str:
    """The beginning of the fingerprint of all tensors of a model.

    Example
    -------
    >>> model_of({"w": np.zeros(2, dtype=np.float32)})
    '07c145c6b594dcc8'
    """
    return fingerprint(tensors)[:MODEL_DIGITS]


def to_bytes(diff: Diff, level: int = LEVEL) -> bytes:
    """The bytes of a diff's file; `level` is zstandard's."""
    return b"".join(parts_of(diff, level).values())


def parts_of(diff: Diff, level: int = LEVEL) -> dict[str, bytes]:
    """The bytes of a diff's file by what they are for.

    Returns
    -------
    dict
        Of `header`, `positions`, `scales` and the types of values, those that
        there are; joined they are the file.

    Example
    -------
    >>> from speechbrain_amnet.diff.changes import NewValues
    >>> change = NewValues((3,), np.array([1]), Values.rounded([0.5], 32))
    >>> diff = make_diff({"w": change}, {"w": np.ones(3, dtype=np.float32)})
    >>> sorted(parts_of(diff))
    ['float32', 'header', 'positions', 'scales']
    """
    entries, positions, scales = {}, [], []
    values: dict[str, list[np.ndarray]] = {name: [] for name in TYPES}
    for name, change in diff.changes.items():
        entries[name], coded = to_arrays(change)
        positions.append(coded)
        for one in change.values:
            values[one.stored.dtype.name].append(one.stored)
            scales.append(one.scale)
    arrays = {"positions": _joined(positions, np.uint8)}
    arrays["scales"] = np.array(scales, dtype=np.float32)
    for kind, parts in values.items():
        arrays[kind] = _joined(parts, kind)
    arrays = {name: array for name, array in arrays.items() if array.size}
    return _compressed(save(arrays, metadata(diff, entries)), level)


def metadata(diff: Diff, entries: Mapping[str, Any]) -> dict[str, str]:
    """The header, as safetensors has it; an entry for each tensor."""
    header = {
        "format": FORMAT,
        "base": diff.base,
        "result": diff.result,
        **({"model": diff.model} if diff.model else {}),
        **({"release": diff.release} if diff.release else {}),
        "signature": diff.signature,
        "about": diff.about,
        "tensors": entries,
    }
    try:
        text = json.dumps(header, separators=(",", ":"), sort_keys=False)
    except TypeError as error:
        raise ValueError(f"about: expected what JSON has ({error})") from None
    size = len(json.dumps(text)) + ROOM
    if size > SMALL:
        raise ValueError(
            f"a diff's header has {size} bytes, and readers take {SMALL}: say "
            "less in about, or make several diffs, each of fewer tensors"
        )
    return {KEY: text}


def _compressed(whole: bytes, level: int) -> dict[str, bytes]:
    """One frame in parts, with a new block (a new code) for each array.

    Coded positions look like noise; in one block with the steps they would
    spoil the code for these.
    """
    frame = zstandard.ZstdCompressor(level=level, write_checksum=True)
    frame = frame.compressobj(size=len(whole))
    begin, start = 0, 8 + int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8:start])
    del header["__metadata__"]
    ends = {start + e["data_offsets"][1]: name for name, e in header.items()}
    parts = {}
    for end, name in sorted({start: "header", **ends}.items()):
        parts[name] = frame.compress(whole[begin:end])
        parts[name] += frame.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
        begin = end
    parts[name] += frame.flush()
    return parts


def _joined(parts, kind):
    return np.concatenate([np.zeros(0, dtype=kind), *parts])


def from_bytes(
    content: bytes, what: str = "the diff", weights: int | None = None
) -> Diff:
    """Read a diff's bytes.

    Arguments
    ---------
    content : bytes
        Of a whole file.
    what : str
        What errors call it.
    weights : int, optional
        Of the model that it is for, where that is known. What undoes an update
        may be zeros alone, which compress better than any stranger's file is
        trusted to.

    Returns
    -------
    Diff

    Raises
    ------
    DiffError
        If it is not a diff, damaged, or of another version of the format.
    """
    return _from_file(io.BytesIO(content), len(content), what, weights)


def _from_file(file, size, what, weights):
    """What `from_bytes` gives, of a file of so many bytes."""
    most = RATIO * size if weights is None else WEIGHT * weights
    whole = _decompressed(file, what, max(SMALL, most))
    start = 8 + int.from_bytes(whole[:8].tobytes(), "little")
    if start > SMALL:  # JSON takes many times its size
        raise DiffError(f"{what}: not a diff (its header has {start} bytes)")
    try:
        entries = json.loads(whole[8:start].tobytes())
        header = json.loads(entries.pop("__metadata__")[KEY])
        version = header["format"]
    except DAMAGED:
        raise DiffError(f"{what}: not a diff (no {KEY} in it)") from None
    if type(version) is not int or version < FORMAT:
        raise DiffError(f"{what}: damaged (its format is {version!r})")
    if version > FORMAT:
        raise DiffError(
            f"{what}: format {version}; this version reads "
            f"format {FORMAT}: a newer speechbrain_amnet is needed"
        )
    try:
        return _read(header, _arrays(whole[start:], entries), weights)
    except DiffError as error:
        raise DiffError(f"{what}: {error}") from None
    except DAMAGED as error:
        why = " ".join(str(error).split())[:200]
        raise DiffError(f"{what}: damaged ({why})") from None


def _decompressed(file: BinaryIO, what: str, most: int) -> np.ndarray:
    """The frame's content, of exactly the size that it says."""
    head = file.read(FRAME_HEAD)
    file.seek(0)
    try:
        size = zstandard.frame_content_size(head)
        if size < 0:
            raise DiffError(f"{what}: not a diff (it says no size)")
        if size > most:
            raise DiffError(
                f"{what}: damaged, or zeros alone, as what undoes an update "
                f"may be (it says it has {size} bytes)"
            )
        frame = zstandard.ZstdDecompressor().decompressobj()
        whole, found = np.empty(size, dtype=np.uint8), 0
        # Little by little: a frame may say that it is small and not be.
        piece = file.read(PIECE)
        while piece and not frame.eof and found <= size:
            part = np.frombuffer(frame.decompress(piece), dtype=np.uint8)
            room = whole[found : found + len(part)]
            room[:] = part[: len(room)]
            found += len(part)
            piece = file.read(PIECE)
    except zstandard.ZstdError as error:
        raise DiffError(f"{what}: not a diff, or damaged ({error})") from None
    if not frame.eof or found != size or frame.unused_data or piece:
        raise DiffError(f"{what}: damaged (it is cut short, or longer)")
    return whole


def _arrays(data: np.ndarray, entries: dict[str, Any]) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file, where they lie.

    Its own reader copies them, and they may be as large as the model.
    """
    arrays, end = {}, 0
    for name, entry in entries.items():
        start, stop = entry["data_offsets"]
        if entry["dtype"] != CODES[name]:
            raise ValueError(f"{name} of type {entry['dtype']}")
        arrays[name] = data[start:stop].view(ARRAYS[name])
        if entry["shape"] != [len(arrays[name])]:
            raise ValueError(f"{name} of shape {entry['shape']}")
    for start, stop in sorted(e["data_offsets"] for e in entries.values()):
        if not start == end <= stop:
            raise ValueError(f"nothing from byte {end} to byte {start}")
        end = stop
    if end != len(data):
        raise ValueError(f"{end} bytes of arrays, {len(data)} are there")
    return arrays


def _read(header, arrays, weights=None):
    """The diff of a header and its arrays; all of both must be used."""
    taken = dict.fromkeys(("positions", "scales", *TYPES), 0)

    def take(kind, count):
        if type(count) is not int or count < 0:
            raise ValueError(f"{count!r} {kind}")
        start = taken[kind]
        part = arrays.get(kind, np.zeros(0))[start : start + count]
        if len(part) < count:
            raise ValueError(f"too few {kind}")
        taken[kind] += count
        return part

    for key, kinds in {**HEADER, **OPTIONAL}.items():
        value = header.get(key) if key in OPTIONAL else header[key]
        if not isinstance(value, kinds):
            raise ValueError(f"{key} is {value!r}")
    for key, count in DIGITS.items():
        value = header.get(key)
        if value is not None and not re.fullmatch(
            f"[0-9a-f]{{{count}}}", value
        ):
            raise ValueError(f"{key} is {value!r}")
    release = header.get("release")
    if release is not None and (type(release) is bool or release < 1):
        raise ValueError(f"release is {release!r}")
    if header["base"] == header["result"]:
        raise ValueError("it changes nothing")
    if not header["tensors"]:
        raise ValueError("it changes no tensor")
    changes, declared = {}, 0
    for name, entry in header["tensors"].items():
        shape = entry["shape"]
        if not all(type(n) is int and n > 0 for n in shape) or (
            math.prod(shape) > LARGEST
        ):
            raise ValueError(f"{name} of shape {shape}")
        declared += math.prod(shape)
        if weights is not None and declared > max(SMALL, weights):
            raise DiffError(
                f"not for this model: it changes more than its {weights:,} "
                "weights"
            )
        values = []
        for kind, count in entry["values"]:
            if kind not in TYPES:
                raise ValueError(f"{name}: values of type {kind!r}")
            values.append(Values(take(kind, count), take("scales", 1)[0]))
        coded = take("positions", entry.get("position_bytes", 0))
        changes[name] = from_arrays(name, entry, coded, values)
    for kind, array in arrays.items():
        if taken[kind] != len(array):
            raise ValueError(f"more {kind} than tensors need")
    return Diff(
        changes,
        header["base"],
        header["result"],
        header["about"],
        header["signature"],
        header.get("model"),
        release,
    )


def plain(text: str) -> str:
    """What a stranger wrote, without what a terminal would obey.

    Example
    -------
    >>> plain("joint.w"), plain("a\\nb")
    ('joint.w', "'a\\\\nb'")
    """
    return text if text.isprintable() else ascii(text)


def write_diff(diff: Diff, path: str | Path) -> int:
    """Write a diff, aside and renamed; gives its size in bytes."""
    content = to_bytes(diff)
    files.write(path, content, durable=True)
    return len(content)


def read_diff(path: str | Path, weights: int | None = None) -> Diff:
    """Read what `write_diff` wrote; `weights` as for `from_bytes`.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    DiffError
        As `from_bytes`.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; expected a diff's file")
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    with open(path, "rb") as file:
        return _from_file(file, path.stat().st_size, str(path), weights)


def new_tensors(
    changes: Mapping[str, Change], old: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Every change applied to its tensor, in the tensor's type."""
    return {
        name: change.apply(old[name]).astype(old[name].dtype)
        for name, change in changes.items()
    }


def make_diff(
    changes: Mapping[str, Change],
    old: Mapping[str, np.ndarray],
    about: Mapping[str, Any] | None = None,
    model: str | None = None,
) -> Diff:
    """A diff of changes to known tensors, with both fingerprints.

    Arguments
    ---------
    changes : mapping
        Name to change.
    old : mapping
        Name to the base's tensor.
    about : mapping, optional
        What else the file says.
    model : str, optional
        `model_of` the whole base: then no other model takes the diff, also
        where the tensors that change are the same.

    Raises
    ------
    ValueError
        If nothing changes, there would be numbers that are none, or a change
        was hashed under another name.
    """
    for name, change in changes.items():
        if getattr(change, "name", name) != name:
            raise ValueError(
                f"{name}: the change was hashed under the name "
                f"'{change.name}', and nobody who reads the file knows that; "
                "train it as the diff of this name (DiffModel does)"
            )
    old = {name: old[name] for name in changes}
    new = new_tensors(changes, old)
    for whose, tensors in (("base", old), ("update", new)):
        for name, array in tensors.items():
            if not np.isfinite(array).all():
                raise ValueError(f"{name}: the {whose} has NaN or infinity")
    base, result = fingerprint(old), fingerprint(new)
    if base == result:
        raise ValueError("the update changes nothing: there is no diff to make")
    about = dict(about or {})
    return Diff(dict(changes), base, result, about, model=model)
