"""Figures of a benchmark come back as they were written."""

from datetime import date

import pytest

from speechbrain_amnet.report import figures

COLUMNS = {"Run": 0, "ms": 1, "MB": 0}
ROWS = [
    {"Run": "a", "ms": 2.04, "MB": 12345, "more": 1},
    {"Run": "b", "ms": None, "MB": 0.4},
]


def test_written_and_read(tmp_path, monkeypatch):
    file = tmp_path / "new" / "some.json"
    monkeypatch.setattr("sys.argv", ["/opt/some.py", "--folder=/data/an4"])
    figures.write_figures(file, COLUMNS, ROWS, "So it is.", data="an4 test")
    found = figures.read_figures(file)
    assert found["rows"] == ROWS
    about = found["about"]
    assert date.fromisoformat(about.pop("date")) <= date.today()
    assert about == {"command": "some.py --folder=an4", "data": "an4 test"}
    lines = figures.markdown_text(found).splitlines()
    assert lines[2:] == [
        "| a | 2.0 | 12,345 |",
        "| b | – | 0 |",
        "",
        "So it is.",
    ]


@pytest.mark.parametrize("text", ["[]", "{}", '{"rows": []}'])
def test_another_file(tmp_path, text):
    file = tmp_path / "other.json"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"other.json: no table of figures"):
        figures.read_figures(file)
