"""What undoes a diff, written while that is applied.

It has the values that were replaced, which are as many as the model has where
all change. So they go to the file tensor by tensor, and none are kept.
"""

import json
from collections.abc import MutableMapping
from pathlib import Path

import numpy as np
import zstandard

from speechbrain_amnet.diff.applying import change_each
from speechbrain_amnet.diff.changes import NewValues, Values, to_arrays
from speechbrain_amnet.diff.file import CODES, Diff, metadata

LEVEL = 3  # of zstandard: it may be as large as the model, and in a hurry


class Undo:
    """What will undo a diff.

    Arguments
    ---------
    diff : Diff
        From `read_diff`.

    Example
    -------
    >>> from speechbrain_amnet.diff.changes import SparseChange
    >>> from speechbrain_amnet.diff.applying import apply_diff
    >>> from speechbrain_amnet.diff.file import make_diff, read_diff
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "1.undo")
    >>> old = {"w": np.ones(4, dtype=np.float32)}
    >>> change = SparseChange((4,), np.array([2]), Values.rounded([0.5], 4))
    >>> tensors = dict(old)
    >>> size = Undo(make_diff({"w": change}, old)).write(tensors, path)
    >>> tensors["w"].tolist(), size == path.stat().st_size
    ([1.0, 1.0, 1.5, 1.0], True)
    >>> _ = apply_diff(read_diff(path), tensors)
    >>> tensors["w"].tolist()
    [1.0, 1.0, 1.0, 1.0]
    """

    def __init__(self, diff: Diff):
        self.diff = diff
        entries, self.codes, count = {}, [], 0
        for name, change in diff.changes.items():
            where = change.positions if change.sparse else None
            number = change.size if where is None else len(where)
            unknown = np.broadcast_to(np.float32(0), (number,))
            entries[name], code = to_arrays(
                NewValues(change.shape, where, Values(unknown))
            )
            self.codes.append(code)
            count += number
        undo = Diff({}, diff.result, diff.base, {"method": "undo"})
        head, end = {"__metadata__": metadata(undo, entries)}, 0
        for name, size, each in (
            ("float32", count, 4),
            ("scales", len(entries), 4),
            ("positions", sum(map(len, self.codes)), 1),
        ):
            if size:
                offsets = [end, end := end + each * size]
                head[name] = {
                    "dtype": CODES[name],
                    "shape": [size],
                    "data_offsets": offsets,
                }
        text = json.dumps(head).encode()
        text += b" " * (-len(text) % 8)
        self.head = len(text).to_bytes(8, "little") + text
        self.size = len(self.head) + end

    @property
    def most(self) -> int:
        """Bytes that the file has at most."""
        return self.size + self.size // 128 + 1024

    def write(
        self,
        tensors: MutableMapping[str, np.ndarray],
        path: str | Path | None,
        in_place: bool = False,
    ) -> int:
        """Apply the diff, and write what undoes it.

        Arguments
        ---------
        tensors : mapping
            Name to array, of a model that `check_base` has passed; those that
            the diff changes are replaced.
        path : str, Path or None
            The file; what is there after an error is no diff. None writes
            nothing.
        in_place : bool
            Whether the arrays themselves may be changed; see `change_each`.

        Returns
        -------
        int
            Its bytes.

        Raises
        ------
        DiffError
            If the result is not the one that the diff promises, or has NaN or
            infinity.
        """
        if path is None:
            change_each(self.diff, tensors, finite=True, in_place=in_place)
            return 0
        frame = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True)
        frame = frame.compressobj(size=self.size)
        with open(path, "wb") as file:

            def put_some(part):
                file.write(frame.compress(part))

            def put(*parts):
                for part in parts:
                    put_some(part)
                # A new block, so a new code, for each array.
                file.write(frame.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK))

            def keep(name, values):
                put_some(values.astype("<f4", copy=False))

            put(self.head)
            change_each(self.diff, tensors, keep, True, in_place)
            put()
            put(np.ones(len(self.diff.changes), dtype="<f4"))
            put(*self.codes)
            file.write(frame.flush())
            return file.tell()
