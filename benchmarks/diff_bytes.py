"""Bytes of an update: other ways to send it, against our files.

    pip install -e '.[bench]'
    python benchmarks/diff_bytes.py BASE UPDATED update.diff other.diff \\
        --data_folder=corpus --split=1/test

BASE and UPDATED are folders of models, before and after a full fine-tuning.
The lossless tools are asked for their smallest file, and have to give the new
weights back, bit for bit; xdelta3 is a program of its own (apt install
xdelta3), which `--tools` can leave out. The lossy ones send a coarser
difference:

- one bit a weight (BitDelta, https://arxiv.org/abs/2402.10193): its sign, and
  a scale for each matrix, which is not tuned here; vectors as they are
- MPEG's neural network coding (NNC, ISO/IEC 15938-17) at several quantisation
  parameters, by nncodec, which needs an older NumPy than we do and so an
  environment of its own (`python -m venv nnc; nnc/bin/pip install nncodec`):
  `--nncodec=nnc/bin/python` names its Python

The files of ours are updates of the same base that change few weights; plain
safetensors of the same positions (int32) and values (float16) stand beside
them, and how many bytes their positions take for each that equally likely ones
need at least. With data, word errors are measured. The last line is how many
times smaller the smallest of ours is than the best lossless tool's.
"""

import argparse
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import zstandard
from safetensors.numpy import save

from speechbrain_amnet.corpus.prepare import prepare_librispeech
from speechbrain_amnet.diff.coding import entropy_bits
from speechbrain_amnet.diff.file import read_diff
from speechbrain_amnet.diff.model_files import ModelFiles
from speechbrain_amnet.evaluation import evaluate
from speechbrain_amnet.inference import load
from speechbrain_amnet.report.figures import markdown_text, write_figures

LEVEL = 19
XDELTA = "xdelta3"
LEAST_WINDOW, MOST_INPUT = 2**19, 2**24  # bytes that it looks at, old and new
# Coarser and coarser; nncodec's default is -32.
QPS = (-34, -28, -22, -20, -18, -16, -10)
NNCODEC = """
import sys
import numpy as np
from nncodec.nn import decode, encode
folder, qp = sys.argv[1], int(sys.argv[2])
deltas = dict(np.load(f"{folder}/deltas.npz"))
made = encode(deltas, {"qp": qp, "verbose": False, "results": folder})
open(f"{folder}/made.nnc", "wb").write(bytes(made))
np.savez(f"{folder}/back.npz", **decode(made))
"""
COLUMNS = {
    "Update": 0,
    "Bytes": 0,
    "Of the model %": 2,
    "WER %": 1,
    "Seconds": 1,
    "Positions, of their entropy": 3,
}
Tensors = dict[str, np.ndarray]


def zstd(old: bytes, new: bytes) -> tuple[bytes, bytes]:
    """The new model, compressed on its own."""
    made = zstandard.ZstdCompressor(level=LEVEL).compress(new)
    return made, zstandard.ZstdDecompressor().decompress(made)


def zstd_patch(old: bytes, new: bytes) -> tuple[bytes, bytes]:
    """What `zstd --patch-from` does: the old model is the dictionary."""
    known = zstandard.ZstdCompressionDict(
        old, dict_type=zstandard.DICT_TYPE_RAWCONTENT
    )
    settings = zstandard.ZstdCompressionParameters.from_level(
        LEVEL,
        window_log=(len(old) + len(new)).bit_length(),
        enable_ldm=True,
    )
    made = zstandard.ZstdCompressor(
        dict_data=known, compression_params=settings
    ).compress(new)
    back = zstandard.ZstdDecompressor(
        dict_data=known, max_window_size=2**31
    ).decompress(made)
    return made, back


def xor_zstd(old: bytes, new: bytes) -> tuple[bytes, bytes]:
    """The bits that differ, byte of a weight by byte, compressed."""
    a, b = (np.frombuffer(x, "uint8") for x in (old, new))
    changed = (a ^ b)[: len(a) // 4 * 4].reshape(-1, 4).T.tobytes()
    rest = (a ^ b)[len(a) // 4 * 4 :].tobytes()
    made, back = zstd(b"", changed + rest)
    bits = np.frombuffer(back[: len(changed)], "uint8").reshape(4, -1).T
    bits = np.concatenate([bits.ravel(), np.frombuffer(rest, "uint8")])
    return made, (a ^ bits).tobytes()


def bsdiff(old: bytes, new: bytes) -> tuple[bytes, bytes]:
    """The tool of many software updates."""
    import bsdiff4

    made = bsdiff4.diff(old, new)
    return made, bsdiff4.patch(old, made)


def xdelta(old: bytes, new: bytes) -> tuple[bytes, bytes]:
    """VCDIFF (RFC 3284) with its second compressor, by a program."""
    known = f"-B{max(len(old), LEAST_WINDOW)}"
    window = f"-W{min(max(len(new), 2**14), MOST_INPUT)}"
    with tempfile.TemporaryDirectory() as place:
        names = ("old", "new", "made", "back")
        source, wanted, made, back = (Path(place, name) for name in names)
        source.write_bytes(old)
        wanted.write_bytes(new)
        line = [XDELTA, "-f", known, "-s", source]
        code = [*line, "-e", "-9", "-S", "lzma", window, wanted, made]
        for one in (code, [*line, "-d", made, back]):
            subprocess.run(one, check=True)
        return made.read_bytes(), back.read_bytes()


TOOLS: dict[str, Callable] = {
    "full, zstandard": zstd,
    "full, zstandard from the old model": zstd_patch,
    "full, XOR and zstandard": xor_zstd,
    "full, bsdiff4": bsdiff,
    "full, xdelta3": xdelta,
}


def changed(old: Tensors, new: Tensors) -> Tensors:
    """The difference of all tensors that are not the same."""
    return {n: new[n] - old[n] for n in new if (new[n] != old[n]).any()}


def one_bit(old: Tensors, new: Tensors) -> tuple[int, Tensors]:
    """Bytes, and the new weights, of a sign a weight and a scale a matrix."""
    sent, back = {}, dict(new)
    for name, delta in changed(old, new).items():
        if delta.ndim < 2:
            sent[name] = new[name]
            continue
        scale = np.float32(np.abs(delta).mean())
        sent[f"{name}/sign"] = np.packbits(delta > 0)
        sent[f"{name}/scale"] = scale.reshape(1)
        back[name] = old[name] + np.where(delta > 0, scale, -scale)
    return len(zstd(b"", save(sent))[0]), back


def nnc(
    old: Tensors, new: Tensors, python: str, qp: int
) -> tuple[int, Tensors]:
    """Bytes, and the new weights, of the coded difference."""
    deltas = changed(old, new)
    with tempfile.TemporaryDirectory() as folder:
        np.savez(f"{folder}/deltas.npz", **deltas)
        done = subprocess.run(
            [python, "-c", NNCODEC, folder, str(qp)],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            why = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise RuntimeError(f"--nncodec: {python} failed: {why}")
        size = Path(folder, "made.nnc").stat().st_size
        with np.load(f"{folder}/back.npz") as found:
            back = {n: old[n] + found[n].reshape(old[n].shape) for n in deltas}
    return size, {**new, **back}


def plain_sparse(path: Path, old: Tensors) -> tuple[int, Tensors] | None:
    """A sparse diff as positions and half-precision values; None of another.

    Its bytes, and the weights that come of it.
    """
    sent, new = {}, {}
    for name, change in read_diff(path).changes.items():
        if not change.sparse:
            return None
        where = slice(None)
        if change.touched is not None:
            where = change.touched.astype(np.int32)
            sent[f"{name}/positions"] = where
        values = change.values[0].floats().astype(np.float16)
        sent[f"{name}/values"] = values
        new[name] = old[name].copy()
        new[name].reshape(-1)[where] += values
    return len(save(sent)), new


def of_entropy(path: Path) -> float | None:
    """Bytes of coded positions for each that they need; None if all change."""
    coded = least = 0.0
    for change in read_diff(path).changes.values():
        if change.sparse and change.positions is not None:
            coded += 8 * len(change.positions.code)
            least += entropy_bits(len(change.positions), change.size)
    return coded / least if least else None


def word_errors(folder: Path, tensors: Tensors, manifest: str) -> float:
    """Of a model with other weights."""
    model = ModelFiles(folder)
    for name, array in tensors.items():
        model[name] = np.ascontiguousarray(array)
    with tempfile.TemporaryDirectory() as place:
        model.write(Path(place))
        return evaluate(load(place), manifest, progress=False)["wer"]


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base", type=Path)
    parser.add_argument("updated", type=Path)
    parser.add_argument("ours", nargs="+", type=Path, metavar="DIFF")
    parser.add_argument("--tools", nargs="+", default=TOOLS, choices=TOOLS)
    parser.add_argument("--nncodec", metavar="PYTHON")
    parser.add_argument("--data_folder", type=Path)
    parser.add_argument("--split", default="test")
    parser.add_argument("--out", type=Path, help="a JSON file to write")
    args = parser.parse_args()
    if "full, xdelta3" in args.tools and shutil.which(XDELTA) is None:
        parser.error(
            f"{XDELTA} is not installed; install it (apt install {XDELTA}), or "
            "leave it out of --tools"
        )
    before, after = (ModelFiles(f) for f in (args.base, args.updated))
    old, new = (save(dict(sorted(t.items()))) for t in (before, after))
    rows = []
    for name in args.tools:
        start = time.perf_counter()
        made, back = TOOLS[name](old, new)
        seconds = time.perf_counter() - start
        if back != new:
            raise RuntimeError(f"{name} does not give the new weights back")
        rows.append(row(name, len(made), after, seconds))
    best = min(one["Bytes"] for one in rows)
    lossy = {"one bit a weight": one_bit}
    if args.nncodec:
        for qp in QPS:
            lossy[f"NNC, qp {qp}"] = partial(nnc, python=args.nncodec, qp=qp)
    for name, tool in lossy.items():
        start = time.perf_counter()
        size, back = tool(before, after)
        rows.append(row(name, size, back, time.perf_counter() - start))
    for path in args.ours:
        name = " ".join(path.resolve().parts[-4:-3]) or path.stem
        diff = read_diff(path)
        back = {n: c.apply(before[n]) for n, c in diff.changes.items()}
        plain = plain_sparse(path, before)
        if plain is not None:
            rows.append(row(f"`{name}`, plain safetensors", *plain))
        one = row(f"`{name}`", path.stat().st_size, back)
        one["Positions, of their entropy"] = of_entropy(path)
        rows.append(one)
    measure(rows, args)
    for one in rows:
        one["Of the model %"] = 100 * one["Bytes"] / len(new)
    print(markdown_text({"columns": COLUMNS, "rows": rows}))
    if args.out:
        write_figures(args.out, COLUMNS, rows)
    ours = min(path.stat().st_size for path in args.ours)
    print(f"ratio: {best / ours:.2f}")


def row(name, size, tensors, seconds=None):
    """A way to send the update."""
    return {
        "Update": name,
        "Bytes": size,
        "Seconds": seconds,
        "Positions, of their entropy": None,
        "tensors": tensors,
    }


def measure(rows, args) -> None:
    """Word errors of each row's weights, those of equal ones once."""
    weights = [one.pop("tensors") for one in rows]
    found: dict[int, float | None] = {}
    with tempfile.TemporaryDirectory() as place:
        manifest = None
        if args.data_folder:
            manifest = prepare_librispeech(
                args.data_folder, place, {"test": [args.split]}
            )["test"]
        for one, tensors in zip(rows, weights, strict=True):
            if id(tensors) not in found:
                found[id(tensors)] = manifest and word_errors(
                    args.base, tensors, manifest
                )
            one["WER %"] = found[id(tensors)]


if __name__ == "__main__":
    main()
