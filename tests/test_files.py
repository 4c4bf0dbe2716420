"""A file is replaced by what is whole, or not at all."""

import errno
import os
import shutil
import subprocess
import sys
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from speechbrain_amnet import files
from speechbrain_amnet.diff.changes import SparseChange, Values
from speechbrain_amnet.diff.file import make_diff, write_diff
from speechbrain_amnet.files import SPARE, aside_of, check_space, claim, write
from speechbrain_amnet.runtime.packed import Packed, write_packed

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


def test_many_write_one_file_and_it_is_whole(tmp_path):
    """Each of another length; without turns some would be cut or mixed."""
    file = tmp_path / "a.txt"
    contents = [bytes([65 + n]) * (n + 1) * 100_000 for n in range(8)]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            for done in [pool.submit(write, file, one) for one in contents]:
                done.result()
            assert file.read_bytes() in contents
            assert list(tmp_path.iterdir()) == [file]


@pytest.mark.skipif(
    not Path("/proc/self/fd").exists(), reason="needs /proc/self/fd"
)
def test_what_is_to_last_is_on_disk_before_it_has_its_name(
    tmp_path, monkeypatch
):
    """The file, then its name; then that name in its folder."""
    done = []

    def synced(handle):
        done.append(Path(os.readlink(f"/proc/self/fd/{handle}")).name)

    def replaced(source, target):
        done.append("renamed")
        os.rename(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    old = {"w": np.zeros((2, 2), "float32")}
    values = Values.rounded(np.array([1.0, -2.0]), 4)
    change = SparseChange((2, 2), np.array([0, 3]), values)
    diff, model = make_diff({"w": change}, old), Packed({}, old)
    file = tmp_path / "a.txt"
    for written in (
        partial(write, file, "whole", durable=True),
        partial(write_packed, model, file),
        partial(write_diff, diff, file),
    ):
        written()
        assert done == [aside_of(file).name, "renamed", tmp_path.name]
        del done[:]
    write(file, "again")
    assert done == ["renamed"]


def test_who_may_not_replace_is_refused(tmp_path):
    file = tmp_path / "a.txt"
    write(file, "first", replace=False)
    with pytest.raises(FileExistsError, match="a.txt exists already"):
        write(file, "second", replace=False)
    assert file.read_text() == "first" and list(tmp_path.iterdir()) == [file]


def test_what_a_killed_one_left_is_in_nobodys_way(tmp_path):
    file, strange = tmp_path / "a.txt", tmp_path / "a.txt.part"
    aside_of(file).write_text("half")
    strange.write_text("another's")
    write(file, "whole")
    assert file.read_text() == "whole" and strange.read_text() == "another's"
    assert sorted(tmp_path.iterdir()) == [file, strange]


def test_a_full_disk_is_named(tmp_path, monkeypatch):
    def full(path, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="a.txt: its 2.0 MB do not fit"):
        write(tmp_path / "a.txt", bytes(2_000_000))
    assert not list(tmp_path.iterdir())


def test_a_folder_is_named_before_it_is_written_to():
    for name in (".", "..", "/"):
        with pytest.raises(IsADirectoryError, match="is a folder; expected"):
            files.check_name(Path(name))
        with pytest.raises(IsADirectoryError, match="is a folder; expected"):
            write(name, "")


def test_without_locks_one_of_two_may_lose_its_file(tmp_path, monkeypatch):
    """As on some network disks; what the other wrote is whole."""
    import fcntl

    def refused(*_):
        raise OSError(errno.EOPNOTSUPP, "no locks here")

    replace = os.replace

    def beaten(aside, file):
        replace(aside, file)  # by another writer of the same name
        replace(aside, file)

    monkeypatch.setattr(fcntl, "flock", refused)
    write(tmp_path / "a.txt", "whole")
    monkeypatch.setattr(os, "replace", beaten)
    with pytest.raises(FileNotFoundError):
        write(tmp_path / "a.txt", "other")
    assert (tmp_path / "a.txt").read_text() == "other"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("short", [0, 1])
def test_what_is_needed_must_be_free(short, tmp_path, monkeypatch):
    """And a megabyte more; of a folder that is to be made, above it."""
    usage = namedtuple("usage", "free")(SPARE + 5_000_000 - short)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    if short:
        with pytest.raises(OSError, match="a file needs 6.0 MB of free"):
            check_space(tmp_path / "new" / "a", 5_000_000, "a file")
    else:
        check_space(tmp_path / "new" / "a", 5_000_000, "a file")
