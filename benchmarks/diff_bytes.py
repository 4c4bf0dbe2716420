"""Bytes of an update: general tools on the new model, against our files.

    pip install -e '.[bench]'
    python benchmarks/diff_bytes.py BASE UPDATED update.diff other.diff

BASE and UPDATED are folders of models, before and after a full fine-tuning.
Every tool is asked for its smallest file, and has to give the new weights back,
bit for bit. The files of ours are updates of the same base that change few
weights; what they do to word errors is beside them in their folders. The last
line is how many times smaller the smallest of ours is than the best tool's.
"""

import argparse
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import zstandard
from safetensors.numpy import save

from speechbrain_amnet.diff.folder import ModelFiles
from speechbrain_amnet.records import command
from speechbrain_amnet.report.figures import markdown_text, write_figures

LEVEL = 19
COLUMNS = {"Update": 0, "Bytes": 0, "Of the model %": 2, "Seconds": 1}


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


TOOLS: dict[str, Callable] = {
    "full, zstandard": zstd,
    "full, zstandard from the old model": zstd_patch,
    "full, XOR and zstandard": xor_zstd,
    "full, bsdiff4": bsdiff,
}


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base", type=Path)
    parser.add_argument("updated", type=Path)
    parser.add_argument("ours", nargs="+", type=Path, metavar="DIFF")
    parser.add_argument("--tools", nargs="+", default=TOOLS, choices=TOOLS)
    parser.add_argument("--out", type=Path, help="a JSON file to write")
    args = parser.parse_args()
    tensors = [ModelFiles(f).tensors() for f in (args.base, args.updated)]
    old, new = (save(dict(sorted(t.items()))) for t in tensors)
    rows = []
    for name in args.tools:
        start = time.perf_counter()
        made, back = TOOLS[name](old, new)
        seconds = time.perf_counter() - start
        if back != new:
            raise RuntimeError(f"{name} does not give the new weights back")
        rows.append({"Update": name, "Bytes": len(made), "Seconds": seconds})
    best = min(row["Bytes"] for row in rows)
    for path in args.ours:
        name = " ".join(path.resolve().parts[-4:-3]) or path.stem
        size = path.stat().st_size
        rows.append({"Update": f"`{name}`", "Bytes": size, "Seconds": None})
    for row in rows:
        row["Of the model %"] = 100 * row["Bytes"] / len(new)
    about = {"command": command(sys.argv), "date": date.today().isoformat()}
    print(markdown_text({"columns": COLUMNS, "rows": rows}))
    if args.out:
        write_figures(args.out, COLUMNS, rows, about)
    ours = min(path.stat().st_size for path in args.ours)
    print(f"ratio: {best / ours:.2f}")


if __name__ == "__main__":
    main()
