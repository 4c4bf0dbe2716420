"""What a model takes: time, memory, FLOPs of its stream, size of its file."""

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from .features import StreamingFeatures
from .inference import AmortizedASR
from .runtime.convert import UnknownRouter, pack
from .runtime.packed import to_bytes, write_packed
from .search import GreedySearch
from .transducer import Joint, Predictor
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


def flops_around(asr: AmortizedASR, frames: int, tokens: int) -> float | None:
    """FLOPs of all that is not the encoder: features, predictor and joint.

    Of the matrices and the Fourier transform, two a multiply-add, as the
    runtime multiplies them (the mel filters as a dense matrix, which is faster
    for a frame than leaving out their zeros).

    Arguments
    ---------
    asr : AmortizedASR
        The model.
    frames : int
        That it heard.
    tokens : int
        That it wrote of them. (What a stream's start takes, the predictor once
        for a blank, is left out.)

    Returns
    -------
    float or None
        None if it is held to a grammar, or parts of it are another's.
    """
    features, predictor, joint = (
        asr.mods[name] for name in ("features", "predictor", "joint")
    )
    if (
        not isinstance(asr.hparams.search, GreedySearch)
        or not isinstance(features, StreamingFeatures)
        or not isinstance(predictor, Predictor)
        or not isinstance(joint, Joint)
    ):
        return None
    n_fft = features.stft.n_fft
    spectrum = 2.5 * n_fft * math.log2(n_fft)  # of real samples
    mels = 2 * (n_fft // 2 + 1) * features.filterbank.n_mels
    a_frame = features.stack * (spectrum + mels)
    a_frame += _products(joint.encoder_projection)
    a_token = _products(predictor.lstm) + _products(joint.predictor_projection)
    # Each frame ends with a blank, and each token was looked for before it.
    looks = frames + tokens
    return frames * a_frame + tokens * a_token + looks * _products(joint.output)


def _products(module: torch.nn.Module) -> int:
    return 2 * sum(p.numel() for p in module.parameters() if p.dim() == 2)
