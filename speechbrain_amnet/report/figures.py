"""Small tables of figures, as benchmarks write them, for a Markdown file."""

import json
import sys
from datetime import date
from pathlib import Path
from typing import Any

from speechbrain_amnet.files import write
from speechbrain_amnet.records import command
from speechbrain_amnet.report.markdown import cell


def write_figures(
    file: str | Path,
    columns: dict[str, int],
    rows: list[dict[str, Any]],
    sentence: str = "",
    **about: Any,
) -> None:
    """Write a table's figures, and how they came about: command and date.

    Arguments
    ---------
    file : str or Path
        A JSON file.
    columns : dict
        The title of each column that is shown, and its digits after the
        point. The first is text.
    rows : list of dict
        A value for each column; others are kept, too.
    sentence : str
        What the table says, in words.
    **about
        What else there is to say, as the data.
    """
    about = {
        "command": command(sys.argv),
        "date": date.today().isoformat(),
        **about,
    }
    found = {
        "about": about,
        "columns": columns,
        "rows": rows,
        "sentence": sentence,
    }
    write(file, json.dumps(found, indent=1) + "\n")


def read_figures(file: str | Path) -> dict[str, Any]:
    """What `write_figures` wrote.

    Raises
    ------
    ValueError
        If the file holds something else.
    """
    found = json.loads(Path(file).read_text(encoding="utf-8"))
    if not isinstance(found, dict) or not {"columns", "rows"} <= set(found):
        raise ValueError(f"{file}: no table of figures")
    return found


def markdown_text(found: dict[str, Any]) -> str:
    """The table as Markdown.

    Example
    -------
    >>> rows = [{"Run": "a", "ms": 2}]
    >>> print(markdown_text({"columns": {"Run": 0, "ms": 1}, "rows": rows}))
    | Run | ms |
    | --- | ---: |
    | a | 2.0 |
    """
    (first, _), *columns = found["columns"].items()
    names = " | ".join(name for name, _ in columns)
    lines = [f"| {first} | {names} |", "| --- |" + " ---: |" * len(columns)]
    for row in found["rows"]:
        cells = [
            "–" if row[name] is None else f"{row[name]:,.{digits}f}"
            for name, digits in columns
        ]
        lines.append(f"| {cell(row[first])} | " + " | ".join(cells) + " |")
    if found.get("sentence"):
        lines += ["", found["sentence"]]
    return "\n".join(lines)
