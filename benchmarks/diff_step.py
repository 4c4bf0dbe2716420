"""Time and memory of training a diff, against plain fine-tuning.

A step is forward, backward and Adam's update of an amortized encoder (a dense
and a low-rank branch), on one thread, in interleaved runs, medians. `sparse,
dense` is a sparse diff that has not been pruned yet, `sparse, gated` one whose
gate closes anew before each step, `sparse, kept` one that has 5 % of the
weights left and rounds them to 4 bits. The last line is the
headline: the ratio of the dearest kind to plain fine-tuning.

    python benchmarks/diff_step.py --size 256 --batch 16 --frames 100
    python benchmarks/diff_step.py --out FILE    # keeps the figures as JSON
"""

import argparse
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from tqdm import tqdm
from training_step import FEATURES, encoder, medians, memory

from speechbrain_amnet import DiffModel, HashDiff, LowRankDiff, SparseDiff
from speechbrain_amnet.report.figures import write_figures

PLAIN = "plain"
KINDS = {
    "sparse, dense": SparseDiff,
    "sparse, gated": SparseDiff,
    "sparse, kept": SparseDiff,
    "hash": partial(HashDiff, share=0.02),
    "hash, cached": partial(HashDiff, share=0.02, cache=True),
    "low rank": partial(LowRankDiff, rank=4),
}
DENSITY = 0.05
COLUMNS = {
    "Diff": 0,
    "ms": 1,
    "Times plain": 2,
    "MiB": 1,
    "Times plain's memory": 2,
}


def step_of(name: str, size: int, batch: int, frames: int) -> Callable:
    """What makes one step of a contender."""
    model = encoder("K=2", size)
    learns = list(model.parameters())
    if name != PLAIN:
        model = DiffModel(model, KINDS[name])
        if name == "sparse, kept":
            for diff in model.diffs.values():
                count = max(1, round(DENSITY * diff.dense.numel()))
                diff.keep(torch.randperm(diff.dense.numel())[:count])
                torch.nn.init.normal_(diff.values)
            model.round(4)
        learns = list(model.diff_parameters())
    optimizer = torch.optim.Adam(learns, 1e-4)
    x = torch.randn(batch, frames, FEATURES)
    gradient = torch.randn(batch, frames, size)

    def step():
        optimizer.zero_grad()
        if name == "sparse, gated":
            model.gate(DENSITY, temperature=4.0)
        model(x)[0].backward(gradient)
        optimizer.step()

    return step


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--out", type=Path, help="a JSON file to write")
    parser.add_argument("--quick", action="store_true", help="a tiny trial")
    args = parser.parse_args()
    torch.set_num_threads(1)
    shape = (args.size, args.batch, args.frames)
    if args.quick:
        shape, args.repeats = (16, 2, 5), 2
    names = [PLAIN, *KINDS]
    needs = {
        name: memory(step_of, name, *shape) for name in tqdm(names, leave=False)
    }
    times = medians(
        {name: step_of(name, *shape) for name in names}, args.repeats
    )
    about = f"3 layers of {shape[0]}, batch {shape[1]}, {shape[2]} frames"
    print(about)
    print(f"{'diff':14} {'ms':>7} {'ratio':>6} {'MiB':>6} {'ratio':>6}")
    rows = []
    for name in names:
        values = (
            1000 * times[name],
            times[name] / times[PLAIN],
            needs[name],
            needs[name] / max(1e-9, needs[PLAIN]),
        )
        rows.append(dict(zip(COLUMNS, (name, *values))))
        row = "{:7.1f} {:6.2f} {:6.1f} {:6.2f}".format(*values)
        print(f"{name:14} {row}")
    if args.out:
        write_figures(args.out, COLUMNS, rows, f"A step: {about}, K = 2.")
    dearest = max(times[name] for name in KINDS)
    print(f"ratio: {dearest / times[PLAIN]:.2f}")


if __name__ == "__main__":
    main()
