"""Time and memory of the runtime, measured in a process of its own.

    python -m speechbrain_amnet.runtime.measure MODEL WAV...

Memory that was used before cannot be told apart, hence the process.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np

from speechbrain_amnet.audio import read_audio
from speechbrain_amnet.runtime import blocks, int8
from speechbrain_amnet.runtime.packed import read_config, read_packed
from speechbrain_amnet.runtime.recogniser import Recogniser


def measure(model: str | Path, *wavs: str | Path) -> dict[str, float | None]:
    """Stream recordings, 40 ms at a time.

    Arguments
    ---------
    model : str or Path
        A packed model.
    *wavs : str or Path
        Recordings; the first is streamed once more before all, unmeasured.

    Returns
    -------
    dict
        real_time_factor : the process's seconds over those of the audio.
        peak_memory_mb : peak of the resident set (1e6 bytes), less what it
            was when all was imported (numba, too, where it is), the recordings
            read and no model loaded; null where the system does not tell.
    """
    rate = read_config(model)["features"]["sample_rate"]
    audio = [read_audio(wav, rate) for wav in wavs]
    compile_loops()
    forget_peak()
    idle = peak_memory_mb()
    recogniser = Recogniser(read_packed(model))
    features = recogniser.features
    spent = []
    for samples in (audio[0], *audio):
        start = time.process_time()
        stream = recogniser.start()
        for first in range(0, len(samples), features.frame_samples):
            stream.feed(samples[first : first + features.frame_samples])
        stream.feed(samples[:0], final=True)
        spent.append(time.process_time() - start)
    seconds = sum(map(len, audio)) / rate
    return {
        "real_time_factor": sum(spent[1:]) / seconds,
        "peak_memory_mb": peak_memory_mb(since=idle),
    }


def compile_loops() -> None:
    """Load numba, where it is, and what it compiles: 120 MB, and no model's."""
    one = np.ones((blocks.SIZES[-1], 1), "float32")
    if int8.kernel() is not None:
        int8.Int8(one)(one[0])
        blocks.Blocks(one, len(one))(one[0])


def peak_memory_mb(since: float | None = 0.0) -> float | None:
    """Peak of this process's resident set so far, in MB.

    Arguments
    ---------
    since : float or None
        What is taken from it.

    Returns
    -------
    float or None
        None where the system does not tell.
    """
    peak = _peak()
    return None if None in (peak, since) else peak - since


def _peak() -> float | None:
    try:
        # Linux's getrusage counts the process that started this one, too.
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    except OSError:
        pass
    try:
        import resource
    except ImportError:  # on Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e6


def forget_peak() -> None:
    """From now on the peak is that of what comes, where the system can."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass


if __name__ == "__main__":
    print(json.dumps(measure(*sys.argv[1:])))
