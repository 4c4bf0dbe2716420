"""Machine code where it can be had, and wherever it can be kept."""

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
