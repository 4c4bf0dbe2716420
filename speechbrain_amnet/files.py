"""Files that are whole or not there: written aside, then renamed."""

import os
from pathlib import Path


def write(
    file: str | Path, content: str | bytes, durable: bool = False
) -> None:
    """Write a file, and the folders it is in.

    Arguments
    ---------
    file : str or Path
        Replaced if it exists.
    content : str or bytes
        Text is written as UTF-8.
    durable : bool
        Whether it is on disk, and not in the system's memory, at the end.

    Raises
    ------
    OSError
        If that cannot be done; nothing is left behind.

    Example
    -------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write(f"{folder}/new/a.txt", "whole")
    ...     Path(folder, "new", "a.txt").read_text()
    'whole'
    """
    file = Path(file)
    if isinstance(content, str):
        content = content.encode()
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_name(file.name + ".part")
    if file.is_dir():
        raise IsADirectoryError(f"{file} is a folder; expected a file's name")
    try:
        aside.write_bytes(content)
        if durable:
            to_disk(aside)
        os.replace(aside, file)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    if durable:
        to_disk(file.parent)


def to_disk(path: str | Path) -> None:
    """Have a file or folder written to disk before going on.

    A folder's entries are written, not what is in its files.

    Example
    -------
    >>> to_disk(".")
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
