"""Time and memory of a training step: AmortizedEncoder against nn.LSTM.

Encoder forward and backward on one thread, in interleaved runs, medians. The
last line is the headline: the ratio of two branches, one dense and one of a
low rank, to `torch.nn.LSTM` of the same layers.

    python benchmarks/training_step.py --size 256 --batch 16 --frames 100
    python benchmarks/training_step.py --device cuda --batch 64 --frames 400
"""

import argparse
import multiprocessing
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from statistics import median

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import nn
from tqdm import tqdm

from speechbrain_amnet import AmortizedEncoder, Arbitrator, Dense, LowRank

LAYERS, FEATURES = 3, 320
NAMES = ["nn.LSTM", "K=1", "K=2", "K=3"]
# Size, batch, frames; below the headline.
OTHERS = [(128, 16, 100), (512, 16, 100), (256, 4, 100), (256, 16, 400)]


def ranks(name: str, size: int) -> list[int]:
    """Of a contender's low-rank branches, 64 and 32 for a size of 256."""
    return {"K=2": [size // 8], "K=3": [size // 4, size // 8]}.get(name, [])


def encoder(name: str, size: int) -> nn.Module:
    """A contender, in training mode."""
    torch.manual_seed(0)
    if name == "nn.LSTM":
        return nn.LSTM(FEATURES, size, LAYERS, batch_first=True)
    low = [partial(LowRank, rank=rank) for rank in ranks(name, size)]
    router = Arbitrator(FEATURES, 1 + len(low)) if low else None
    return AmortizedEncoder(FEATURES, size, LAYERS, [Dense, *low], router)


def training_step(
    name: str, size: int, batch: int, frames: int, device: str = "cpu"
) -> Callable:
    """What makes one step of a contender."""
    model = encoder(name, size).to(device)
    x = torch.randn(batch, frames, FEATURES, device=device)
    gradient = torch.randn(batch, frames, size, device=device)

    def step():
        model.zero_grad()
        model(x)[0].backward(gradient)
        if device != "cpu":
            torch.cuda.synchronize()  # or only the launches are timed

    return step


def medians(runs: dict[str, Callable], repeats: int) -> dict[str, float]:
    """Seconds of each run, taken in turns, so that all see the same machine."""
    for run in runs.values():  # Warm up.
        run()
    seconds = {name: [] for name in runs}
    for _ in tqdm(range(repeats), leave=False):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return {name: median(values) for name, values in seconds.items()}


def peak_memory() -> int:
    """Largest resident set of this process so far, in KiB."""
    # Not getrusage: there a process inherits its parent's.
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    raise OSError("/proc/self/status has no VmHWM.")


def added_memory(make: Callable, name: str, *shape: int) -> float:
    """MiB that steps add to the peak of an idle process, tensors loaded."""
    make(name, 8, 1, 2)()  # Loads the kernels.
    step = make(name, *shape)
    idle = peak_memory()
    for _ in range(3):
        step()
    return (peak_memory() - idle) / 1024


def gpu_memory(step: Callable) -> float:
    """MiB that steps add to what the GPU held before them."""
    step()  # Loads the kernels, makes the gradients.
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    step()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def memory(make: Callable, name: str, *shape: int) -> float:
    """The same, in a process that has run nothing else; NaN but on Linux."""
    if not Path("/proc/self/status").exists():
        return float("nan")
    fresh = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(1, fresh) as pool:
        return pool.submit(added_memory, make, name, *shape).result()


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--quick", action="store_true", help="a tiny trial")
    args = parser.parse_args()
    torch.set_num_threads(1)
    shape, others = (args.size, args.batch, args.frames), OTHERS
    if args.quick:
        shape, others, args.repeats = (16, 2, 5), [(8, 1, 3)], 2

    make = partial(training_step, device=args.device)
    # First, while this process is small.
    needs = {
        name: memory(make, name, *shape)
        if args.device == "cpu"
        else gpu_memory(make(name, *shape))
        for name in tqdm(NAMES, leave=False)
    }
    times = medians({name: make(name, *shape) for name in NAMES}, args.repeats)
    print(
        f"{LAYERS} layers of {shape[0]}, batch {shape[1]}, {shape[2]} frames, "
        f"on {args.device}"
    )
    print(f"{'encoder':8} {'ranks':8} {'ms':>7} {'ratio':>6} {'MiB':>6}")
    for name in NAMES:
        low = ", ".join(map(str, ranks(name, shape[0]))) or "-"
        print(
            f"{name:8} {low:8} {1000 * times[name]:7.1f} "
            f"{times[name] / times['nn.LSTM']:6.2f} {needs[name]:6.1f}"
        )
    if needs["nn.LSTM"]:
        print(f"memory ratio: {needs['K=2'] / needs['nn.LSTM']:.2f}")
    print("Other sizes, K=2 to nn.LSTM:")
    for other in others:
        two = {name: make(name, *other) for name in ("nn.LSTM", "K=2")}
        ours = medians(two, args.repeats)
        print(
            "size {:4}, batch {:2}, {:3} frames: {:.2f}".format(
                *other, ours["K=2"] / ours["nn.LSTM"]
            )
        )
    print(f"ratio: {times['K=2'] / times['nn.LSTM']:.2f}")


if __name__ == "__main__":
    main()
