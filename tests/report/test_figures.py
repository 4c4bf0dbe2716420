"""Figures of a benchmark come back as they were written."""

import pytest

from speechbrain_amnet.report import figures

COLUMNS = {"Run": 0, "ms": 1, "MB": 0}
ROWS = [
    {"Run": "a", "ms": 2.04, "MB": 12345, "more": 1},
    {"Run": "b", "ms": None, "MB": 0.4},
]


def test_written_and_read(tmp_path):
    file = tmp_path / "new" / "some.json"
    figures.write_figures(file, COLUMNS, ROWS, {"date": "today"}, "So it is.")
    found = figures.read_figures(file)
    assert found["about"] == {"date": "today"} and found["rows"] == ROWS
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
