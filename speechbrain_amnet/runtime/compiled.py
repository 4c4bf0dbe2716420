"""Loops in machine code, where numba is installed (extra `[fast]`)."""

from collections.abc import Callable


def compiled(loop: Callable) -> Callable | None:
    """A loop over arrays in machine code, of one thread.

    Arguments
    ---------
    loop : callable
        A function that numba can compile, by itself.

    Returns
    -------
    callable or None
        None if numba is not installed.
    """
    try:
        import numba
    except ImportError:
        return None
    options = {"fastmath": True, "nogil": True}
    try:
        return numba.njit(cache=True, **options)(loop)
    except RuntimeError:  # no folder to keep it in, as on a read-only disk
        return numba.njit(**options)(loop)
