"""Memory is that of what comes, and not of what was there before."""

import mmap
import os
import sys
from pathlib import Path

import pytest
import soundfile

from speechbrain_amnet.inference import load
from speechbrain_amnet.runtime import measure
from speechbrain_amnet.runtime.convert import pack
from speechbrain_amnet.runtime.measure import forget_peak, peak_memory_mb
from speechbrain_amnet.runtime.packed import write_packed


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


def test_time_is_that_of_the_recordings_alone(
    run, speech, tmp_path, monkeypatch
):
    """The first one is streamed once more before, which does not count."""
    packed, wavs = tmp_path / "model", [tmp_path / "a.wav", tmp_path / "b.wav"]
    write_packed(pack(load(run, run_opts={"device": "cpu"})), packed)
    for wav, seconds in zip(wavs, (1, 3)):
        soundfile.write(wav, speech(seconds), 16000)
    ticks = iter([0.0, 5.0, 10.0, 10.1, 20.0, 20.3])  # before and after each
    monkeypatch.setattr(measure.time, "process_time", lambda: next(ticks))
    found = measure.measure(packed, *wavs)
    assert found["real_time_factor"] == pytest.approx((0.1 + 0.3) / 4)


def test_a_megabyte_is_a_million_bytes(tmp_path, monkeypatch):
    status = tmp_path / "status"
    status.write_text("Name:\tpython\nVmHWM:\t    1000 kB\n")
    monkeypatch.setattr(measure, "Path", lambda _: status)
    assert peak_memory_mb() == pytest.approx(1.024)
    assert peak_memory_mb(since=0.024) == pytest.approx(1.0)
