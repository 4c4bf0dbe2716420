"""A file is replaced by what is whole, or not at all."""

import os
import subprocess
import sys

import pytest

from speechbrain_amnet.files import claim, write

CLAIM = "from speechbrain_amnet.files import claim; claim({!r}); {}"


def other(folder, then):
    """Another process that claims a folder."""
    script = CLAIM.format(str(folder), then)
    return subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_folder_is_claimed_until_its_process_ends(tmp_path):
    folder = tmp_path / "new"
    first = other(folder, "print('here', flush=True); input()")
    assert first.stdout.readline() == "here\n"
    with pytest.raises(ValueError, match="another process trains there"):
        claim(folder)
    first.kill()
    first.communicate()
    claim(folder)
    claim(folder)  # twice is once
    _, error = other(folder, "print('here')").communicate()
    assert "another process trains there; wait for it" in error
    assert list(folder.iterdir()) == []


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
