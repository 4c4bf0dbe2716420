"""`amnet bench`: a model on the clock, beside what was reckoned."""

import argparse
import os
import sys
from itertools import groupby
from pathlib import Path
from typing import Any

from speechbrain_amnet.commands.arguments import (
    above_zero,
    add_runtime,
    find_model,
)

CALIBRATION = 3  # seconds of audio
TRIALS = 3  # to find how often work is to be done
MOST_LOAD = 20  # at which a run of the calibration takes a minute


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
        type=above_zero,
        help="hold this machine back until a dense frame takes so many frame "
        "durations (default: as fast as it is)",
    )
    parser.add_argument(
        "--then",
        metavar="LOAD",
        type=above_zero,
        help="hold it back so from the middle of each recording on, as a phone "
        "that throttles",
    )
    parser.add_argument(
        "--publish",
        metavar="FILE",
        type=Path,
        help="keep measured and reckoned latency as JSON",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Measures the branches, then plays the recordings in real time."""
    # Before NumPy is loaded: more threads are slower for one frame.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    import numpy as np
    from tqdm import tqdm

    from speechbrain_amnet.audio import read_audio
    from speechbrain_amnet.records import spread_ms
    from speechbrain_amnet.report.text import branch_names
    from speechbrain_amnet.runtime import live
    from speechbrain_amnet.runtime.measure import (
        compile_loops,
        forget_peak,
        peak_memory_mb,
    )

    if args.publish and args.publish.is_dir():
        raise IsADirectoryError(f"{args.publish}: expected a file, is a folder")
    wanted = {"--load": args.load}
    if args.then is not None:
        wanted["--then"] = args.then
    for option, load in wanted.items():
        if load is not None and load > MOST_LOAD:
            raise ValueError(
                f"{option} {load:g}: expected {MOST_LOAD} or less; recordings "
                "are played in real time, and slower devices fall behind alike"
            )
    rate = sample_rate_of(args.model)
    recordings = [read_audio(wav, rate) for wav in args.wavs]
    # What reading them took is none of the model's, which comes now.
    compile_loops()
    forget_peak()
    idle = peak_memory_mb()
    model = find_model(args.model)
    duration = model.frame_duration
    # In real time, and over and over again: a few seconds are enough.
    sample = np.concatenate(sorted(recordings, key=len))[: CALIBRATION * rate]
    (_, seconds), *devices = calibrate(model, sample, wanted)
    names, share = branch_names(model.branches), dense_share(model)
    loads = [held[0] / share / duration for _, held in devices]
    print(
        f"{'branch':14} {'MFLOPs':>8} {'ms a frame':>11} {'held back':>10}"
        + (f" {'then':>10}" if args.then is not None else "")
    )
    for k, name in enumerate(names):
        print(
            f"{name:14} {model.branch_flops[k] / 1e6:8.3f} "
            f"{1000 * seconds[k]:11.3f}"
            + "".join(f" {1000 * held[k]:10.3f}" for _, held in devices)
        )
    print(f"layers multiplied as  {forms(names, model.encoder.products)}")
    if model.branches > 1:
        flops = model.branch_flops[-1] / model.branch_flops[0]
        print(
            f"The last branch computes {flops:.2f} of the first one's FLOPs in "
            f"{seconds[-1] / seconds[0]:.2f} of its time."
        )
    (slowdown, load), *then = [
        (slowdown, held[0] / duration) for slowdown, held in devices
    ]
    runs = [
        live.run_live(model, samples, slowdown, *then, load=load)
        for samples in tqdm(recordings, desc="live", unit="recording")
    ]
    simulated = [
        live.simulate(model, samples, *(held for _, held in devices))
        for samples in recordings
    ]
    if then:
        print(halves([run.frames for run in runs], loads, names))
    took = np.concatenate([run.took for run in runs])
    around = 1000 * sum(run.around for run in runs) / len(took)
    words = [run.first_word for run in runs if run.first_word is not None]
    audio = sum(map(len, recordings)) / rate
    peak = peak_memory_mb(since=idle)
    memory = "not told by this system" if peak is None else f"{peak:8.1f} MB"
    if "torch" in sys.modules:  # which takes a hundred times as much
        memory = "not measured beside PyTorch; `amnet pack` the model for it"
    first = f"{np.mean(words):8.2f} s after the start" if words else "no words"
    print(
        f"around it    {around:8.3f} ms a frame, features and search, which "
        "are not held back\n"
        f"peak memory  {memory}\n"
        f"first word   {first}\n"
        f"encoding     {100 * took.sum() / audio:8.1f} % of the time\n"
        f"{'latency, ms':12} {'mean':>8} {'p50':>8} {'p90':>8} {'max':>8}"
    )
    latency, simulated = (
        np.array([run.latency for run in runs]),
        np.array(simulated),
    )
    waits = {
        "measured": spread_ms(latency),
        "reckoned": spread_ms(simulated),
        "apart": spread_ms(np.abs(latency - simulated)),  # of each recording
    }
    for name, spread in waits.items():
        print(f"{name:12}" + "".join(f" {ms:8.1f}" for ms in spread.values()))
    sentence = (
        f"{audio:.1f} s of audio, {len(runs)} recordings: encoded "
        f"{waits['measured']['mean']:.1f} ms after the last sample, reckoned "
        f"{waits['reckoned']['mean']:.1f} ms, with a dense frame taking "
        f"{', then '.join(f'{load:.2f}' for load in loads)} frame durations."
    )
    if args.publish:
        more = f" First word {first.strip()}; peak memory {memory.strip()}."
        publish(args.publish, waits, sentence + more)
    print(sentence)


def publish(
    file: Path, waits: dict[str, dict[str, float]], sentence: str
) -> None:
    """Write the latencies as a table of figures."""
    from speechbrain_amnet.report.figures import write_figures

    columns = {"Latency, ms": 0, **dict.fromkeys(waits["measured"], 1)}
    rows = [{"Latency, ms": name, **spread} for name, spread in waits.items()]
    write_figures(file, columns, rows, sentence)


def sample_rate_of(path: Path) -> int:
    """What a model listens at; a packed one is not loaded for it."""
    from speechbrain_amnet.runtime.packed import read_config

    if path.is_file():
        return read_config(path)["features"]["sample_rate"]
    return find_model(path).features.sample_rate


def dense_share(model: Any) -> float:
    """The first branch's part of a dense frame, which loads are told of."""
    return model.branch_flops[0] / model.dense_flops


def calibrate(
    model: Any, sample: Any, wanted: dict[str, float | None]
) -> list[tuple[float, list[float]]]:
    """How many times as long frames are to take, and how long they do then.

    Arguments
    ---------
    model : Recogniser
        The model.
    sample : np.ndarray
        ``[samples]`` of a recording.
    wanted : dict
        Option to the load that it says; None for this machine as it is.

    Returns
    -------
    list of tuple
        Slowdown and seconds of a frame on each branch: of this machine as it
        is, then of each load.
    """
    from tqdm import tqdm

    from speechbrain_amnet.runtime import speed

    count = sum(load is not None for load in wanted.values())
    steps = model.branches + count * (TRIALS + model.branches)
    with tqdm(total=steps, desc="calibration", unit="run") as bar:

        def measured(branch: int, slowdown: float = 1.0) -> float:
            found = speed.frame_seconds(model, branch, sample, slowdown)
            bar.update()
            return found

        branches = range(model.branches)
        once = [measured(branch) for branch in branches]
        dense = once[0] / dense_share(model) / model.frame_duration
        for option, load in wanted.items():
            if load is not None and load < dense:
                raise ValueError(
                    f"{option} {load:g}: expected a number from {dense:.3f} "
                    "on, which a dense frame takes here already, in frame "
                    "durations"
                )
        devices = [(1.0, once)]
        for load in wanted.values():
            if load is None:
                devices.append(devices[0])
                continue
            # Over and over again a frame is quicker than once in a while: so
            # how often it takes is found by trying.
            slowdown = target = load / dense
            for _ in range(TRIALS):
                slowdown *= target * once[0] / measured(0, slowdown)
                slowdown = max(1.0, slowdown)
            held = [measured(branch, slowdown) for branch in branches]
            devices.append((slowdown, held))
    return devices


def forms(names: list[str], products: list[list[Any]]) -> str:
    """How the matrices of each branch are multiplied, from layer to layer."""
    from speechbrain_amnet.runtime.products import form_of

    return "; ".join(
        f"{name}: "
        + ", ".join(
            f"{len(list(same))} {form}"
            for form, same in groupby(map(form_of, layers))
        )
        for name, layers in zip(names, products)
    )


def halves(
    recordings: list[list[Any]], loads: list[float], names: list[str]
) -> str:
    """What the frames of both halves of recordings did, a line each.

    Arguments
    ---------
    recordings : list of list of Frame
        Of each recording.
    loads : list of float
        Of each half.
    names : list of str
        Of the branches.
    """
    from speechbrain_amnet.runtime.live import middle

    lines = [
        f"{'half':14} {'load':>8}"
        + "".join(f" {name + ', %':>11}" for name in names)
        + f" {'backlog, ms':>11}"
    ]
    parts: dict[str, list[Any]] = {"before": [], "then": []}
    for frames in recordings:
        parts["before"] += frames[: middle(len(frames))]
        parts["then"] += frames[middle(len(frames)) :]
    for (name, frames), load in zip(parts.items(), loads):
        count = max(1, len(frames))  # a single frame is in the second half
        shares = [
            100 * sum(frame.branch == k for frame in frames) / count
            for k in range(len(names))
        ]
        backlog = 1000 * sum(frame.backlog for frame in frames) / count
        lines.append(
            f"{name:14} {load:8.2f}"
            + "".join(f" {share:11.1f}" for share in shares)
            + f" {backlog:11.1f}"
        )
    return "\n".join(lines)
