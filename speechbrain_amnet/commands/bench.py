"""`amnet bench`: a model on the clock, beside what was reckoned."""

import argparse
import math
import os
import sys
from pathlib import Path
from typing import Any

from speechbrain_amnet.commands.transcribe import add_runtime, find_model

TRIED = 4  # seconds of a recording that are played to find a branch's time


def add(subparsers: Any) -> None:
    """Declares `amnet bench`."""
    parser = subparsers.add_parser(
        "bench", help="measure a model on the clock, live"
    )
    add_runtime(parser)
    parser.add_argument(
        "wavs", metavar="WAV", nargs="+", type=Path, help="recordings"
    )
    parser.add_argument(
        "--load",
        type=float,
        help="hold this machine back until a dense frame takes so many frame "
        "durations (default: as fast as it is)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Measures the branches, then plays the recordings in real time."""
    # Before NumPy is loaded: more threads are slower for one frame.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    import numpy as np
    from tqdm import tqdm

    from speechbrain_amnet.report.text import branch_names
    from speechbrain_amnet.runtime import live
    from speechbrain_amnet.runtime.audio import read_audio
    from speechbrain_amnet.runtime.measure import peak_memory_mb

    idle = peak_memory_mb()
    model = find_model(args.model)
    rate, duration = model.features.sample_rate, model.frame_duration
    recordings = [read_audio(wav, rate) for wav in args.wavs]
    # In real time: a few seconds are enough.
    few = [one[: TRIED * rate] for one in sorted(recordings, key=len)[:2]]
    bar = tqdm(total=1 if args.load is None else 5, desc="try", unit="try")
    seconds = live.branch_seconds(model, few)
    bar.update()
    # A load is always that of the dense encoder, whatever the first branch is.
    share = model.branch_flops[0] / model.dense_flops
    dense = seconds[0] / share / duration
    slowdown, held = 1.0, seconds
    if args.load is not None:
        if not dense <= args.load < math.inf:
            raise ValueError(
                f"--load {args.load:g}: expected a number from {dense:.3f} on, "
                "which a dense frame takes here already, in frame durations"
            )
        # Over and over again a frame is quicker than once in a while: so how
        # often it takes is found by trying.
        slowdown = args.load / dense
        for _ in range(3):
            held = live.branch_seconds(model, few[:1], slowdown)
            bar.update()
            slowdown *= args.load * duration * share / held[0]
            slowdown = max(1.0, slowdown)
        held = live.branch_seconds(model, few[:1], slowdown)
        bar.update()
    bar.close()
    print(
        f"{'branch':14} {'MFLOPs':>8} {'ms a frame':>11} {'held back':>10}  "
        "product"
    )
    for name, flops, second, slow, products in zip(
        branch_names(model.branches),
        model.branch_flops,
        seconds,
        held,
        model.encoder.products,
    ):
        # The form that was found to be the fastest here, layer by layer.
        forms = dict.fromkeys(type(one).__name__ for one in products)
        print(
            f"{name:14} {flops / 1e6:8.3f} {1000 * second:11.3f} "
            f"{1000 * slow:10.3f}  {', '.join(forms)}"
        )
    if model.branches > 1:
        print(
            f"The last branch computes {flops / model.branch_flops[0]:.2f} of "
            f"the first one's FLOPs in {second / seconds[0]:.2f} of its time."
        )
    runs = [
        live.run_live(model, samples, slowdown, load=held[0] / duration)
        for samples in tqdm(recordings, desc="live", unit="recording")
    ]
    simulated = [live.simulate(model, samples, held) for samples in recordings]
    took = np.concatenate([run.took for run in runs])
    words = [run.first_word for run in runs if run.first_word is not None]
    audio = sum(map(len, recordings)) / rate
    if "torch" in sys.modules:  # which takes a hundred times as much
        print("peak memory  of what `amnet pack` writes alone")
    else:
        print(f"peak memory  {peak_memory_mb() - idle:8.1f} MB")
    if words:
        print(f"first word   {np.mean(words):8.2f} s after the start")
    else:
        print("first word      none was found")
    print(
        f"encoding     {100 * took.sum() / audio:8.1f} % of the time\n"
        f"{'latency, ms':12} {'mean':>8} {'p50':>8} {'p90':>8} {'max':>8}"
    )
    for name, waits in (
        ("measured", [run.latency for run in runs]),
        ("reckoned", simulated),
    ):
        ms = 1000 * np.array(waits)
        figures = (ms.mean(), *np.percentile(ms, [50, 90]), ms.max())
        print(f"{name:12}" + "".join(f" {figure:8.1f}" for figure in figures))
    measured = 1000 * np.mean([run.latency for run in runs])
    print(
        f"{audio:.1f} s of audio, {len(runs)} recordings: encoded "
        f"{measured:.1f} ms after the last sample, reckoned "
        f"{1000 * np.mean(simulated):.1f} ms, with a dense frame taking "
        f"{held[0] / share / duration:.2f} frame durations."
    )
