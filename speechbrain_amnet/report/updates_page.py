"""A page of updates: their figures, plots, and which weights each one touched.

One HTML file that opens from disk and asks no network for anything. Where the
updates' files lie beside their records, the weights that a chain touches go by
update by update, as in the article's animation.
"""

import base64
import json
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from speechbrain_amnet.diff.file import read_diff
from speechbrain_amnet.report.page import fill
from speechbrain_amnet.report.touched import density, overlaps, read_touched
from speechbrain_amnet.report.updates import (
    markdown_table,
    name_of,
    plot_updates,
    read_updates,
    summarise_updates,
)

UPDATE, RECORD = "update.diff", "diff.json"


def write_updates_page(paths: Iterable[str | Path], out: str | Path) -> Path:
    """Make a page of updates.

    Arguments
    ---------
    paths : iterable of str or Path
        Files with records, or folders with files `diff.json` anywhere below,
        as `read_updates` takes them.
    out : str or Path
        The page.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    FileNotFoundError, ValueError
        As `read_updates`; also if an update's file is damaged.
    """
    paths = [Path(path) for path in paths]
    rows = summarise_updates(read_updates(paths))
    sets = dict.fromkeys((row["task"], row["data"]) for row in rows)
    data = {
        "sets": [
            about_set([r for r in rows if (r["task"], r["data"]) == one])
            for one in sets
        ],
        "chains": [
            about_chain(files)
            for files in chains_in(path for path in paths if path.is_dir())
        ],
    }
    return fill("updates_page.html", {}, data, out)


def about_set(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Table and plots of one task and data set."""
    lines = markdown_table(rows).splitlines()
    head, _, *body = [line.strip("| ").split(" | ") for line in lines]
    with tempfile.TemporaryDirectory() as folder:
        picture = plot_updates(rows, Path(folder, "updates.png"))
        content = base64.b64encode(picture.read_bytes()).decode()
    return {
        "title": f"{rows[0]['data']} ({rows[0]['task']})",
        "head": head,
        "rows": body,
        "picture": f"data:image/png;base64,{content}",
    }


def chains_in(folders: Iterable[Path]) -> list[list[Path]]:
    """Sparse updates that follow each other: folders of one folder.

    Of one method, budget, seed and fold, by generation, none left out.
    """
    groups: dict[tuple, list[tuple[int, Path]]] = {}
    for folder in folders:
        for file in sorted(folder.rglob(RECORD)):
            record, update = json.loads(file.read_text()), file.parent / UPDATE
            if not isinstance(record, dict) or not update.is_file():
                continue
            if is_sparse(update):
                chain = file.parent.parent, name_of_chain(record)
                one = record["generation"], update
                groups.setdefault(chain, []).append(one)
    chains = []
    for group in groups.values():
        before = None
        for generation, update in sorted(group):
            if before is None or generation != before + 1:
                chains.append([])
            chains[-1].append(update)
            before = generation
    return chains


def is_sparse(update: Path) -> bool:
    """Whether it changes weights here and there, not all of them."""
    changes = read_diff(update).changes.values()
    return all(change.sparse for change in changes)


def name_of_chain(record: dict[str, Any]) -> str:
    """What the page calls the chain that an update is of."""
    name = f"{name_of(record)}, {record['data']}, seed {record['seed']}"
    fold = record.get("fold")
    return name if fold is None else f"{name}, fold {fold}"


def about_chain(files: Sequence[Path]) -> dict[str, Any]:
    """What a chain touches in each matrix."""
    records = [json.loads(file.with_name(RECORD).read_text()) for file in files]
    updates = read_touched(files)
    shapes = {n: shape for u in updates for n, (shape, _) in u.items()}
    nothing = np.zeros(0, dtype=int)
    matrices = []
    for name, shape in shapes.items():
        if len(shape) < 2:
            continue
        touched = [u.get(name, (shape, nothing))[1] for u in updates]
        maps = [density(shape, positions) for positions in touched]
        matrices.append(
            {
                "name": name,
                "shape": "x".join(map(str, shape)),
                "high": maps[0].shape[0],
                "wide": maps[0].shape[1],
                "maps": [as_bytes(one) for one in maps],
                "shares": [len(t) / int(np.prod(shape)) for t in touched],
            }
        )
    return {
        "name": name_of_chain(records[0]),
        "generations": [record["generation"] for record in records],
        "overlaps": overlaps(updates),
        "matrices": sorted(matrices, key=lambda one: -sum(one["shares"])),
    }


def as_bytes(shares: np.ndarray) -> str:
    """Shares as bytes, 255 for all, in base 64.

    Example
    -------
    >>> as_bytes(np.array([[0.0, 1.0]]))
    'AP8='
    """
    return base64.b64encode(np.rint(255 * shares).astype(np.uint8)).decode()
