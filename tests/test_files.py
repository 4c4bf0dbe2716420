"""A file is replaced by what is whole, or not at all."""

import os

import pytest

from speechbrain_amnet.files import write


def test_a_file_is_replaced_whole(tmp_path, monkeypatch):
    file = tmp_path / "new" / "a.txt"
    write(file, "π\n")
    assert file.read_bytes() == b"\xcf\x80\n"
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda *a: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            write(file, b"after")
    assert file.read_text() == "π\n"
    assert list(file.parent.iterdir()) == [file]
    with pytest.raises(IsADirectoryError, match="expected a file's name"):
        write(file.parent, b"")
    assert list(tmp_path.iterdir()) == [file.parent]
    write(file, b"after")
    assert file.read_bytes() == b"after"
    assert list(file.parent.iterdir()) == [file]
