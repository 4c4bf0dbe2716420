"""A table's place in a Markdown file."""

import pytest

from speechbrain_amnet.report import markdown


def test_update_markdown(tmp_path):
    file = tmp_path / "README.md"
    before = (
        "# Title\n\n<!-- table: an4 from a b -->\nold\nlines\n<!-- end -->\n"
        "between\n<!-- table: an40 -->\nother\n<!-- end -->\nafter\n"
    )
    file.write_text(before)
    assert markdown.update_markdown(file, "| new |", "an4", check=True)
    assert file.read_text() == before
    assert markdown.update_markdown(file, "| new |", "an4")
    assert file.read_text() == before.replace("old\nlines", "| new |")
    assert not markdown.update_markdown(file, "| new |\n", "an4")
    assert [p.name for p in tmp_path.iterdir()] == ["README.md"]


def test_markers_that_are_wrong(tmp_path):
    file = tmp_path / "README.md"
    with pytest.raises(FileNotFoundError, match="no such Markdown file"):
        markdown.update_markdown(file, "", "an4")
    file.write_text("<!-- table: an4 -->\n<!-- table: b -->\n<!-- end -->\n")
    with pytest.raises(ValueError, match="table an4 has no <!-- end -->"):
        markdown.update_markdown(file, "", "an4")
    file.write_text("<!-- table: an4 -->\n")
    with pytest.raises(ValueError, match="table an4 has no <!-- end -->"):
        markdown.update_markdown(file, "", "an4")
    file.write_text("text <!-- table: an4 --> text\n")
    with pytest.raises(ValueError, match="has no line `<!-- table: an4 -->`"):
        markdown.update_markdown(file, "", "an4")
    file.write_text("<!-- table: my table -->\n<!-- end -->\n")
    with pytest.raises(ValueError, match="without blanks, got 'my table'"):
        markdown.update_markdown(file, "", "my table")


def test_what_is_not_the_table_stays_byte_for_byte(tmp_path):
    file = tmp_path / "README.md"
    before = (
        "a\r\nb\x0cc\r\n<!-- table: an4 -->\r\nold\r\n<!-- end -->\r\nz\u2028y"
    ).encode()
    file.write_bytes(before)
    assert markdown.update_markdown(file, "| 1 |\n| 2 |", "an4")
    assert file.read_bytes() == before.replace(b"old", b"| 1 |\r\n| 2 |")
    assert not markdown.update_markdown(file, "| 1 |\n| 2 |", "an4")
