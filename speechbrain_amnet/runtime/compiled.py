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
        kept = numba.njit(cache=True, **options)(loop)
    except RuntimeError:  # no folder to keep it in, as on a read-only disk
        return numba.njit(**options)(loop)

    def call(*arrays):
        nonlocal kept
        try:
            return kept(*arrays)
        # Compiled, read and written in the first call: a kept file that was
        # cut off, or a full disk, may raise anything.
        except Exception:
            kept = numba.njit(**options)(loop)
            return kept(*arrays)

    return call
