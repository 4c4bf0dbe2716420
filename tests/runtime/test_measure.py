"""Memory is that of what comes, and not of what was there before."""

import os

import numpy as np
import pytest

from speechbrain_amnet.runtime.measure import forget_peak, peak_memory_mb


@pytest.mark.skipif(
    not os.access("/proc/self/clear_refs", os.W_OK),
    reason="this system does not forget a peak",
)
def test_a_peak_is_forgotten():
    before = np.ones(10_000_000)  # 80 MB
    peak = peak_memory_mb()
    del before
    assert peak_memory_mb() > peak - 10  # counted in batches of pages
    forget_peak()
    assert peak_memory_mb() < peak - 40
