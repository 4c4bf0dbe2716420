"""What a model takes: time and memory of its stream, size of its files."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from .inference import AmortizedASR
from .runtime.convert import UnknownRouter, pack
from .runtime.packed import to_bytes, write_packed
from .weights import LowRank, Sparse


def measure_stream(
    asr: AmortizedASR, wavs: Sequence[str | Path]
) -> dict[str, float | None]:
    """Time and memory of streaming, in the runtime, one thread, on the CPU.

    In a process of its own, whose own time is taken: on a machine that does
    nothing else that is the time that passes.

    Arguments
    ---------
    asr : AmortizedASR
        The model.
    wavs : sequence of str or Path
        A few recordings.

    Returns
    -------
    dict
        real_time_factor, peak_memory_mb : see `runtime.measure.measure`; both
            null for a router of one's own, which the runtime does not know.
    """
    try:
        packed = pack(asr)
    except UnknownRouter:
        return {"real_time_factor": None, "peak_memory_mb": None}
    here = str(Path(__file__).resolve().parent.parent)
    paths = [here, os.environ.get("PYTHONPATH", "")]
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model.safetensors"
        write_packed(packed, model)
        done = subprocess.run(
            [sys.executable, "-m", "speechbrain_amnet.runtime.measure", model]
            + [str(wav) for wav in wavs],
            env={
                **os.environ,
                "OMP_NUM_THREADS": "1",
                "OPENBLAS_NUM_THREADS": "1",
                # Else a package in the working directory comes first.
                "PYTHONSAFEPATH": "1",
                "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            },
            capture_output=True,
            text=True,
        )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RuntimeError(f"streaming the model failed: {last}")
    return json.loads(done.stdout.splitlines()[-1])


def model_size(asr: AmortizedASR) -> dict[str, float]:
    """Parameters that are used, and megabytes (1e6 bytes) of the file.

    The file is what a device gets, as `amnet pack` writes it; for a router that
    the runtime does not know, four bytes a parameter are reckoned.
    """
    parameters = sum(p.numel() for p in asr.mods.parameters())
    for form in asr.mods.modules():
        if isinstance(form, Sparse):
            parameters -= form.rows * form.columns - int(form.kept)
        elif isinstance(form, LowRank):  # by energy: columns that are zeros
            unused = form.left.shape[1] - form.rank
            parameters -= unused * (form.rows + form.columns)
    try:
        size = len(to_bytes(pack(asr)))
    except UnknownRouter:
        size = 4 * parameters
    return {"parameters": parameters, "megabytes": size / 1e6}
