"""Files that are whole or not there: written aside, then renamed."""

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

SPARE = 1 << 20  # bytes that must stay free
CLAIMED: dict[tuple[int, int], int] = {}  # folders of this process, open


def write(
    file: str | Path,
    content: str | bytes,
    durable: bool = False,
    replace: bool = True,
) -> None:
    """Write a file, and the folders it is in; one process after the other.

    Arguments
    ---------
    file : str or Path
        Replaced if it exists.
    content : str or bytes
        Text is written as UTF-8.
    durable : bool
        Whether it is on disk, and not in the system's memory, at the end.
    replace : bool
        Whether it may be there already.

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
    check_name(file)
    make_folder(file.parent, durable)
    aside = aside_of(file)
    with alone(aside):
        try:
            if not replace and os.path.lexists(file):
                raise FileExistsError(f"{file} exists already")
            aside.write_bytes(content)
            if durable:
                to_disk(aside)
            os.replace(aside, file)
        except BaseException as error:
            aside.unlink(missing_ok=True)
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                raise OSError(
                    f"{file}: its {len(content) / 1e6:.1f} MB do not fit on "
                    "the disk"
                ) from None
            raise
    if durable:
        to_disk(file.parent)


def make_folder(folder: Path, durable: bool = False) -> None:
    """Make a folder, and those it is in, where they are not there.

    Arguments
    ---------
    folder : Path
        May be there already.
    durable : bool
        Whether those that are made are on disk at the end.

    Example
    -------
    >>> make_folder(Path("."))
    """
    made = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    if durable:
        for one in made:
            to_disk(one.parent)


def check_name(file: Path) -> None:
    """Refuse a folder in the place of a file.

    Raises
    ------
    IsADirectoryError
        If there is one.
    """
    if file.is_dir():
        raise IsADirectoryError(f"{file} is a folder; expected a file's name")


def aside_of(file: Path) -> Path:
    """Where a file is written before it gets its name; what is there goes.

    Example
    -------
    >>> aside_of(Path("a.txt")).name
    '.a.txt.amnet.part'
    """
    return file.with_name(f".{file.name}.amnet.part")


@contextlib.contextmanager
def alone(aside: Path) -> Iterator[None]:
    """One process at a time writes a file; a killed one leaves no lock.

    Without that one would rename what another is in the midst of. Where files
    cannot be locked (Windows, some network disks) nobody is kept out.

    Arguments
    ---------
    aside : Path
        See `aside_of`.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    while True:
        handle = os.open(aside, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
                mine = is_same(handle, aside)
            except OSError:
                mine = True  # as far as one can be here
            # Or who had it before has renamed or removed it.
            if mine:
                yield
                return
        finally:
            os.close(handle)


def is_same(handle: int, path: Path) -> bool:
    """Whether an open file still has this name."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


def check_space(place: str | Path, needed: int, what: str) -> None:
    """Refuse before anything is written that does not fit.

    Arguments
    ---------
    place : str or Path
        Where it goes; the nearest folder above it that is there counts.
    needed : int
        Bytes.
    what : str
        What needs them, for the error.

    Raises
    ------
    OSError
        If there is less free space, with a megabyte to spare.

    Example
    -------
    >>> check_space(".", 10, "a file")
    """
    there = Path(place)
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free
    if free < needed + SPARE:
        raise OSError(
            f"{place}: {what} needs {(needed + SPARE) / 1e6:.1f} MB of free "
            f"space, there are {free / 1e6:.1f} MB"
        )


def unused(folder: str | Path) -> Path:
    """The absolute path of a folder that is to be made.

    Raises
    ------
    FileExistsError
        If it is there already.
    """
    folder = Path(os.path.abspath(folder))
    if folder.exists():
        raise FileExistsError(f"{folder} is there already; remove it first")
    return folder


@contextlib.contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A folder to fill, which takes its place when that has come to its end.

    Arguments
    ---------
    folder : Path
        Its place, see `unused`; the folders that it is in are made.

    Yields
    ------
    Path
        Where to write meanwhile, beside it; gone after an error.

    Example
    -------
    >>> import tempfile
    >>> place = unused(Path(tempfile.mkdtemp(), "new"))
    >>> with whole_folder(place) as aside:
    ...     write(aside / "a.txt", "whole")
    >>> [path.name for path in place.parent.iterdir()]
    ['new']
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
    try:
        yield aside
        aside.chmod(0o755)
        os.replace(aside, folder)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def claim(folder: str | Path) -> None:
    """Keep other processes out of a folder until this one ends.

    It is no file, so one that is killed leaves nothing. Where folders cannot be
    locked (Windows, some network disks) nobody is kept out.

    Arguments
    ---------
    folder : str or Path
        Made if it is not there.

    Raises
    ------
    ValueError
        If another process has claimed it.

    Example
    -------
    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> claim(folder)
    >>> claim(folder)  # twice is once
    """
    try:
        import fcntl
    except ImportError:
        return
    Path(folder).mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    status = os.fstat(handle)
    one = status.st_dev, status.st_ino
    if one in CLAIMED:
        os.close(handle)
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise ValueError(
            f"{folder}: another process trains there; wait for it, or give "
            "another output_folder"
        ) from None
    except OSError:
        os.close(handle)
        return
    CLAIMED[one] = handle


def to_disk(path: str | Path) -> None:
    """Have a file or folder written to disk before going on.

    A folder's entries are written, not what is in its files. (On Windows it is
    the file system that does so.)

    Example
    -------
    >>> to_disk(".")
    """
    writes = os.name == "nt"  # there, what is flushed has to be writable
    if writes and os.path.isdir(path):
        return
    handle = os.open(path, os.O_RDWR if writes else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
