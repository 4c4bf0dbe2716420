"""What an evaluation leaves: results.json, a row an utterance, its frames.

`evaluation.py` measures, `report` reads these files.
"""

import csv
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import files
from .slots import score

if TYPE_CHECKING:  # `amnet bench` measures without PyTorch
    from .inference import AmortizedASR

KINDS = ("substitutions", "deletions", "insertions")


def write(
    folder: str | Path,
    split: str,
    results: dict[str, Any],
    utterances: Sequence[dict[str, Any]],
    asr: "AmortizedASR",
) -> Path:
    """Write the results, utterances and frames; gives the results' path."""
    folder, path = Path(folder), results_path(folder, split)
    encoder = asr.mods.encoder
    table, frames = io.StringIO(), io.StringIO()
    lines = [
        _utterance_row(u, encoder.dense_flops, encoder.router.branches)
        for u in utterances
    ]
    writer = csv.DictWriter(table, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    for u in utterances:
        record = {
            "id": u["id"],
            "wav": u["wav"],
            "branch": "".join(np.base_repr(k, 36) for k in u["branch"]),
            "backlog_ms": [round(1000 * b, 1) for b in u["backlog"].tolist()],
            "wait_ms": [round(1000 * w, 1) for w in u["wait"].tolist()],
            "tokens": u["tokens"],
            "frame_ms": round(1000 * encoder.frame_duration, 6),
        }
        frames.write(json.dumps(record, ensure_ascii=False) + "\n")
    # The results last: who finds them, finds the rest.
    files.write(folder / f"frames_{split}.jsonl", frames.getvalue())
    files.write(folder / f"utterances_{split}.csv", table.getvalue())
    files.write(path, json.dumps(results, indent=2) + "\n")
    return path


def results_path(folder: str | Path, split: str) -> Path:
    """Where the results of a split are."""
    name = "results.json" if split == "test" else f"results_{split}.json"
    return Path(folder) / name


def _utterance_row(u, dense_flops, branches):
    flops = u["flops"].mean()
    shares = np.bincount(u["branch"], minlength=branches) / len(u["branch"])
    return {
        "id": u["id"],
        "reference": u["reference"],
        "hypothesis": u["hypothesis"],
        "words": u["words"],
        **{kind: u[kind] for kind in KINDS},
        "matched": int(u["matched"]) if "matched" in u else "",
        "understood": int(
            score([u["said"]], [u["command"]])["command_accuracy"] > 0
        )
        if "said" in u
        else "",
        "seconds": round(u["seconds"], 6),
        "frames": len(u["branch"]),
        "mflops_per_frame": round(flops / 1e6, 6),
        "compute_saved": round(1 - flops / dense_flops, 6),
        "latency_ms": round(1000 * u["latency"], 3),
        "floor_ms": round(1000 * u["floor"], 3),
        **{f"share_{k}": round(s, 6) for k, s in enumerate(shares.tolist())},
    }


def spread_ms(seconds: np.ndarray) -> dict[str, float]:
    """Mean, p50, p90 and max, in ms.

    Example
    -------
    >>> spread_ms(np.array([0.5, 0.25, 0.0]))
    {'mean': 250.0, 'p50': 250.0, 'p90': 450.0, 'max': 500.0}
    """
    values = {
        "mean": seconds.mean(),
        "p50": np.percentile(seconds, 50),
        "p90": np.percentile(seconds, 90),
        "max": seconds.max(),
    }
    return {name: 1000 * float(value) for name, value in values.items()}


def command(argv: Sequence[str]) -> str:
    """A command line; of absolute paths in it, what others can use.

    That is data, experiment and seed of a run, and the last part of others.

    Example
    -------
    >>> command(["/opt/bin/amnet", "evaluate", "--data_folder=/data/an4/"])
    'amnet evaluate --data_folder=an4'
    >>> command(["train.py", "--train_splits=[train, /data/mine/train]"])
    'train.py --train_splits=[train, train]'
    """
    words = [Path(argv[0]).name]
    for word in argv[1:]:
        name, equals, value = word.rpartition("=")
        if Path(value).is_absolute():
            value = _shown(value)
        else:  # paths in a list or a mapping
            value = INNER.sub(lambda found: _shown(found[0]), value)
        words.append(name + equals + value)
    return " ".join(words)


INNER = re.compile(r"(?<=[\s\[{:,'\"])/[^\s,\]}'\"]+")


def _shown(path: str) -> str:
    parts = Path(path).parts
    run = (Path(path) / "hyperparams.yaml").is_file()
    return "/".join(parts[-3:] if run else parts[-1:])


def rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: rounded(v) for name, v in value.items()}
    if isinstance(value, list):
        return [rounded(v) for v in value]
    if isinstance(value, float):  # NumPy's too
        return round(float(value), 6)
    return value
