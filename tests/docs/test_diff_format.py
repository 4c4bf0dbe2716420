"""docs/diff-format.md is enough to read a diff: a reader made from it alone."""

import hashlib
import json
import math

import numpy as np
import pytest
import zstandard
from safetensors.numpy import load

from speechbrain_amnet.diff.changes import (
    HashChange,
    LowRankChange,
    NewValues,
    SparseChange,
    Values,
)
from speechbrain_amnet.diff.file import make_diff, to_bytes


def read(content):
    """Header and arrays."""
    whole = zstandard.decompress(content)
    length = int.from_bytes(whole[:8], "little")
    text = json.loads(whole[8 : 8 + length])["__metadata__"]["amnet_diff"]
    return json.loads(text), {k: v.tolist() for k, v in load(whole).items()}


def positions_of(coded, count, size):
    """Bit by bit."""
    wanted = count if 2 * count <= size else size - count
    bits = "".join(f"{byte:08b}" for byte in coded)
    q = 1 - wanted / size
    m = 1
    if 0 < wanted < size:
        m = max(1, math.ceil(-math.log2(1 + q) / math.log2(q)))
    b = (m - 1).bit_length()
    s = 2**b - m
    w = b - 1 if s else b
    at, gaps = 0, []
    for _ in range(wanted):
        end = bits.index("1", at)
        gaps.append((end - at) * m)
        at = end + 1
    rest = []
    for _ in range(wanted):
        rest.append(int(bits[at : at + w][::-1] or "0", 2))
        at += w
    for n, r in enumerate(rest):
        if s and r >= s:
            rest[n] = 2 * r + int(bits[at]) - s
            at += 1
    found, place = [], -1
    for gap, r in zip(gaps, rest):
        place += gap + r + 1
        found.append(place)
    if wanted != count:
        found = sorted(set(range(size)) - set(found))
    return found


def mix(x):
    x ^= x >> 16
    x = x * 0x7FEB352D % 2**32
    x ^= x >> 15
    x = x * 0x846CA68B % 2**32
    return x ^ x >> 16


def apply(content, old):
    """The new tensors, number by number."""
    header, arrays = read(content)
    assert header["format"] == 1 and header["signature"] is None
    assert fingerprint(old) == header["base"]
    new = {}
    for name, entry in header["tensors"].items():
        parts = []
        for kind, count in entry["values"]:
            scale = np.float32(arrays["scales"].pop(0))
            taken = [arrays[kind].pop(0) for _ in range(count)]
            parts.append([np.float32(v) * scale for v in taken])
        tensor = old[name].copy()
        flat, size = tensor.reshape(-1), tensor.size
        if entry["kind"] in ("sparse", "new"):
            coded = [
                arrays["positions"].pop(0)
                for _ in range(entry["position_bytes"])
            ]
            where = positions_of(coded, len(parts[0]), size)
            for place, value in zip(where, parts[0]):
                before = flat[place] if entry["kind"] == "sparse" else 0
                flat[place] = before + value
        elif entry["kind"] == "hash":
            digest = hashlib.sha256(f"{entry['seed']}:{name}".encode())
            key = int.from_bytes(digest.digest()[:4], "little")
            for p in range(size):
                bits = mix((mix(p ^ key) + key) % 2**32)
                value = parts[0][(bits >> 1) * len(parts[0]) >> 31]
                flat[p] += -value if bits % 2 else value
        else:
            rows, rank = tensor.shape[0], entry["rank"]
            columns = size // rows
            for i in range(rank):
                for row in range(rows):
                    for column in range(columns):
                        left = parts[0][row * rank + i]
                        right = parts[1][i * columns + column]
                        flat[row * columns + column] += left * right
        new[name] = tensor
    assert not any(arrays.values())
    assert fingerprint(new) == header["result"]
    return new


def fingerprint(tensors):
    total = hashlib.sha256()
    for name in sorted(tensors):
        array = tensors[name]
        about = json.dumps([name, array.dtype.name, list(array.shape)])
        total.update(about.encode() + array.astype("<f4").tobytes())
    return total.hexdigest()


@pytest.mark.parametrize("bits", [4, 16, 32])
@pytest.mark.parametrize("share", [0.02, 0.2, 0.7, 1.0])
def test_sparse_and_new_values(bits, share):
    random = np.random.default_rng(0)
    shapes = {"a.w": (13, 17), "a.k": (4, 3, 5)}
    old = {n: random.normal(size=s).astype("f4") for n, s in shapes.items()}
    changes = {}
    for kind, name in ((SparseChange, "a.w"), (NewValues, "a.k")):
        size = old[name].size
        where = random.choice(size, math.ceil(share * size), replace=False)
        values = Values.rounded(random.normal(size=len(where)), bits)
        where = None if share == 1 else np.sort(where)
        changes[name] = kind(shapes[name], where, values)
    apply(to_bytes(make_diff(changes, old)), old)


def test_hash_and_low_rank():
    random = np.random.default_rng(0)
    old = {n: random.normal(size=(9, 11)).astype("f4") for n in "ab"}
    left, right, buckets = (
        Values.rounded(random.normal(size=size), 8) for size in (18, 22, 7)
    )
    changes = {
        "a": HashChange((9, 11), buckets, 5, "a"),
        "b": LowRankChange((9, 11), left, right, 2),
    }
    apply(to_bytes(make_diff(changes, old)), old)
