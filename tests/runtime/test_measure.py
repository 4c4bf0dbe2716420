"""Memory is that of what comes, and not of what was there before."""

import mmap
import os
import sys
from pathlib import Path

import pytest

from speechbrain_amnet.runtime import measure
from speechbrain_amnet.runtime.measure import forget_peak, peak_memory_mb


@pytest.mark.skipif(
    not os.access("/proc/self/clear_refs", os.W_OK),
    reason="this system does not forget a peak",
)
def test_a_peak_is_forgotten():
    # Mapped, not allocated: malloc may find room in what earlier tests left
    # on its heap, and the pages would stay with it when the array is gone.
    before = mmap.mmap(-1, 80_000_000)
    for page in range(0, len(before), mmap.PAGESIZE):
        before[page] = 1
    peak = peak_memory_mb()
    before.close()
    assert peak_memory_mb() > peak - 10  # counted in batches of pages
    forget_peak()
    assert peak_memory_mb() < peak - 40


def test_a_system_that_does_not_tell(monkeypatch):
    """Windows has neither; then a figure is missing, and nothing fails."""
    assert peak_memory_mb(since=peak_memory_mb()) < 100
    monkeypatch.setattr(measure, "Path", lambda _: Path("/nowhere"))
    monkeypatch.setitem(sys.modules, "resource", None)
    assert peak_memory_mb() is None and peak_memory_mb(since=None) is None
