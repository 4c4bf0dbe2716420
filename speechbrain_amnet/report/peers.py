"""Other recognisers beside ours, as a table; see benchmarks/peers.py."""

import json
from pathlib import Path
from typing import Any


def read_peers(file: str | Path) -> dict[str, Any]:
    """What `benchmarks/peers.py --out` wrote.

    Raises
    ------
    ValueError
        If the file holds something else.
    """
    found = json.loads(Path(file).read_text(encoding="utf-8"))
    if not isinstance(found, dict) or "recognisers" not in found:
        raise ValueError(f"{file}: no figures of recognisers")
    return found


def markdown_text(found: dict[str, Any]) -> str:
    """The table, and what wins, for a Markdown file.

    Example
    -------
    >>> one = {"wer": 9.5, "real_time_factor": 0.01, "wait_ms": 3.0}
    >>> one |= {"name": "a", "commands_matched": None, "peak_memory_mb": 7}
    >>> text = markdown_text(
    ...     {"data": "an4", "split": "test", "recognisers": [one]}
    ... )
    >>> print(text.splitlines()[2])
    | a | 9.5 | 0.0100 | 3 | 7 |
    """
    rows = found["recognisers"]
    commands = any(row["commands_matched"] is not None for row in rows)
    lines = [
        "| Recogniser | WER % | "
        + ("Commands matched % | " if commands else "")
        + "Real-time factor | Wait after the last sample, ms | Memory, MB |",
        "| --- |" + " ---: |" * (5 if commands else 4),
    ]
    for row in rows:
        cells = [row["name"], f"{row['wer']:.1f}"]
        if commands:
            cells.append(f"{row['commands_matched']:.1f}")
        cells += [
            f"{row['real_time_factor']:.4f}",
            f"{row['wait_ms']:.0f}",
            f"{row['peak_memory_mb']:.0f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    least = min(rows, key=lambda row: row["wer"])
    quickest = min(rows, key=lambda row: row["real_time_factor"])
    lines += [
        "",
        f"On {found['data']} {found['split']}, {least['name']} makes the "
        f"fewest word errors ({least['wer']:.1f} %) and {quickest['name']} "
        f"computes least ({quickest['real_time_factor']:.4f} of real time).",
    ]
    return "\n".join(lines)
