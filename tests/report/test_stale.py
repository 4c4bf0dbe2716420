"""Every table in the repository's Markdown files is that of its results.

`amnet table FOLDER... --markdown FILE --name NAME` brings one up to date.
"""

import importlib.util
from pathlib import Path

import pytest

from speechbrain_amnet.report import figures, learnt, peers, updates
from speechbrain_amnet.report.markdown import find_tables, update_markdown
from speechbrain_amnet.report.results import read_results
from speechbrain_amnet.report.summary import summarise
from speechbrain_amnet.report.table import markdown_text
from speechbrain_amnet.study import as_named

ROOT = Path(__file__).resolve().parents[2]
SKIPPED = {"build", "dist", "node_modules", "site-packages"}


def markdown_files(root):
    for file in sorted(root.rglob("*.md")):
        parts = file.relative_to(root).parts
        if any(part.startswith(".") or part in SKIPPED for part in parts):
            continue
        if file.resolve() == file:  # not again through the link to recipes/
            yield file


def targets():
    """The script that compares results with what was asked."""
    file = ROOT / "benchmarks" / "targets.py"
    spec = importlib.util.spec_from_file_location("targets", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TABLES = [
    pytest.param(file, place, id=f"{file.relative_to(ROOT)}:{place.name}")
    for file in markdown_files(ROOT)
    for place in find_tables(file.read_text(encoding="utf-8"), file)
]


@pytest.mark.parametrize("file, place", TABLES)
def test_table_is_up_to_date(file, place):
    assert place.sources, (
        f"{file}: write `<!-- table: {place.name} from FOLDER -->`, so that "
        "the table can be compared with its results"
    )
    folders = [ROOT / source for source in place.sources]
    if place.name == "targets":
        text = targets().markdown_text(folders[0])
    elif folders[0].parent.name == "peers":
        text = peers.markdown_text(peers.read_peers(folders[0]))
    elif folders[0].parent.name == "figures":
        text = figures.markdown_text(figures.read_figures(folders[0]))
    elif folders[0].name.startswith("diff_"):
        rows = updates.summarise_updates(updates.read_updates(folders))
        text = updates.markdown_table(rows)
    elif folders[0].parent.name == "learnt":
        text = learnt.markdown_text(learnt.read_counts(folders[0]))
    elif folders[-1].suffix == ".yaml":
        results = as_named(read_results(folders[:-1]), folders[-1])
        text = markdown_text(summarise(results))
    else:
        text = markdown_text(summarise(read_results(folders)))
    command = f"amnet table {' '.join(place.sources)} --name {place.name}"
    if place.name == "targets":
        command = "python benchmarks/targets.py"
    assert not update_markdown(file, text, place.name, check=True), (
        f"table {place.name} in {file} is stale; run: {command} --markdown "
        f"{file.relative_to(ROOT)}"
    )


def test_markdown_files_are_found(tmp_path):
    for name in ("README.md", "docs/a.md", ".venv/b.md", "build/c.md", "d.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    found = [f.relative_to(tmp_path) for f in markdown_files(tmp_path)]
    assert [f.as_posix() for f in found] == ["README.md", "docs/a.md"]
