"""What a model takes: time and memory of its stream, size of its files.

Run as a program, this module measures a stream in a process of its own, as
memory that was used before cannot be told apart.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from .device import Device
from .inference import AmortizedASR, load


def measure_stream(
    asr: AmortizedASR, wavs: Sequence[str | Path]
) -> dict[str, float | None]:
    """Time and memory of streaming, in a process of its own.

    One frame at a time, one thread, on the CPU, after the model was loaded
    and had one recording. Time is the process's own, which on a machine that
    does nothing else is the time that passes.

    Arguments
    ---------
    asr : AmortizedASR
        A model that was loaded from a folder.
    wavs : sequence of str or Path
        A few recordings.

    Returns
    -------
    dict
        real_time_factor : seconds of computation over seconds of audio.
        peak_memory_mb : peak of the resident set, less what it was when all
            was imported and nothing loaded. Null where there is no folder.
    """
    folder = model_folder(asr)
    if folder is None:
        return {"real_time_factor": None, "peak_memory_mb": None}
    device = asr.mods.encoder.target_device
    speed = device.speed(
        asr.mods.encoder.dense_flops, asr.mods.encoder.frame_duration
    )
    here = str(Path(__file__).resolve().parent.parent)
    paths = [here, os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "-m", __name__, str(folder), repr(speed)]
        + [str(wav) for wav in wavs],
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        },
        capture_output=True,
        text=True,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RuntimeError(f"streaming {folder} failed: {last}")
    return json.loads(done.stdout.splitlines()[-1])


def _stream_here(folder: str, speed: str, *wavs: str) -> dict[str, float]:
    """What `measure_stream` runs in another process."""
    torch.set_num_threads(1)
    idle = peak_memory_mb()
    asr = load(folder, run_opts={"device": "cpu"})
    asr.mods.encoder.target_device = Device(flops_per_second=float(speed))
    size = asr.mods.features.frame_samples
    audio = [asr.load_audio(wav) for wav in wavs]
    spent = []
    for wav in (audio[0], *audio):
        start = time.process_time()
        for _ in asr.transcribe_stream(wav.split(size)):
            pass
        spent.append(time.process_time() - start)
    seconds = sum(map(len, audio)) / asr.mods.features.sample_rate
    return {
        "real_time_factor": sum(spent[1:]) / seconds,
        "peak_memory_mb": peak_memory_mb() - idle,
    }


def peak_memory_mb() -> float:
    """Peak of this process's resident set so far, in MB."""
    try:
        # Linux's getrusage counts the process that started this one, too.
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    except OSError:
        pass
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e6


def model_folder(asr: AmortizedASR) -> Path | None:
    """Where a model was loaded from, if from a folder."""
    pretrainer = getattr(asr.hparams, "pretrainer", None)
    paths = getattr(pretrainer, "paths", {})
    return Path(paths["encoder"]).parent if "encoder" in paths else None


def model_size(asr: AmortizedASR) -> dict[str, float]:
    """Parameters of the model, and megabytes (1e6 bytes) of its files."""
    parameters = sum(p.numel() for p in asr.mods.parameters())
    folder = model_folder(asr)
    size = 4 * parameters
    if folder is not None:
        size = sum(file.stat().st_size for file in folder.glob("*.ckpt"))
    return {"parameters": parameters, "megabytes": size / 1e6}


if __name__ == "__main__":
    print(json.dumps(_stream_here(*sys.argv[1:])))
