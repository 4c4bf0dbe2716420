"""Machine code where it can be had, and wherever it can be kept."""

import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from speechbrain_amnet.runtime.compiled import compiled


def double(values, out):
    for i in range(len(values)):
        out[i] = 2 * values[i]


def test_a_loop_computes_the_same():
    pytest.importorskip("numba")
    values, out = np.arange(5.0), np.zeros(5)
    compiled(double)(values, out)
    assert out.tolist() == [0, 2, 4, 6, 8]


def test_a_kept_file_that_was_cut_off_does_no_harm(tmp_path):
    """In programs of their own: numba reads its folder once."""
    pytest.importorskip("numba")
    program = (
        "import numpy as np\n"
        "from speechbrain_amnet.runtime import int8\n"
        "product = int8.Int8(np.eye(8, dtype='float32'))\n"
        "print(product(np.arange(8, dtype='float32')).tolist())\n"
    )
    said = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        said.append(done.stdout)
        files = list(tmp_path.rglob("*.nbc"))
        assert files  # they were kept
        for file in files:
            file.write_bytes(file.read_bytes()[:100])
    assert said[0] == said[1]


def test_without_numba_there_is_none(monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", None)
    assert compiled(double) is None


def test_a_disk_that_cannot_be_written_does_no_harm(monkeypatch):
    """As numba says it of a service without a home folder."""

    def njit(cache=False, **options):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return lambda loop: ("compiled", loop)

    monkeypatch.setitem(sys.modules, "numba", SimpleNamespace(njit=njit))
    assert compiled(double) == ("compiled", double)
