"""Time of one frame on each branch in the runtime, against its FLOPs.

Random weights, one frame after the other, one thread, branches interleaved,
medians; by default the size of the paper's encoder, 5 layers of 1024. The last
line is how much of the FLOP ratio of dense and cheap branch the clock shows: 1
if a frame of a quarter of the FLOPs takes a quarter of the time.

There each frame follows one of its own branch, whose weights may still lie in
the cache. With `--routed` branches are drawn, that share of them dense, and
frames timed as they come; the ratio is then that of a stream of dense frames
alone and one of both branches. Both are timed a second time whole, from samples
to the search, which finds nothing here: what is the same for all branches
(features, arbitrator, joint network) makes the ratio smaller.

    python benchmarks/runtime_frame.py
    python benchmarks/runtime_frame.py --int8
    python benchmarks/runtime_frame.py --routed 0.4
    python benchmarks/runtime_frame.py --size 256 --layers 3 --rank 32
"""

import argparse
import copy
import os
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import torch

from speechbrain_amnet import (
    AmortizedEncoder,
    Arbitrator,
    Dense,
    GreedySearch,
    Joint,
    LowRank,
    Predictor,
    StreamingFeatures,
)
from speechbrain_amnet import Sparse as SparseForm
from speechbrain_amnet.report.figures import write_figures
from speechbrain_amnet.runtime.convert import as_int8, pack
from speechbrain_amnet.runtime.encoder import Encoder
from speechbrain_amnet.runtime.recogniser import Recogniser

FEATURES = 320
COLUMNS = {
    "Frames": 0,
    "MFLOPs a frame": 2,
    "ms a frame": 2,
    "Times as fast": 2,
    "Of what FLOPs promise": 2,
}
WHOLE = {"Whole: ms a frame": 2, "Whole: of what FLOPs promise": 2}
TOKENS = 30  # as of the recipes


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--layers", type=int, default=5)
    parser.add_argument("--rank", type=int, help="by default size / 8")
    parser.add_argument("--density", type=float, default=0.1)
    parser.add_argument(
        "--block", type=int, default=16, help="rows pruned together"
    )
    parser.add_argument("--int8", action="store_true", help="8-bit weights")
    parser.add_argument(
        "--routed",
        metavar="SHARE",
        type=float,
        help="streams whose frames change the branch, this share of them dense",
    )
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--out", type=Path, help="a JSON file to write")
    parser.add_argument("--quick", action="store_true", help="a tiny trial")
    args = parser.parse_args()
    if args.routed is not None and not 0 <= args.routed <= 1:
        parser.error(f"--routed: expected 0 to 1, got {args.routed}")
    if args.quick:
        args.size, args.layers, args.repeats = 16, 1, 3
        args.density = 0.02  # cheaper than rank 2, as branches are ordered
    rank = args.rank or args.size // 8
    branches = {
        "dense": Dense,
        f"rank {rank}": partial(LowRank, rank=rank),
        f"sparse {args.density:g}": partial(SparseForm, density=args.density),
        f"blocks {args.density:g}": partial(
            SparseForm, density=args.density, block=args.block
        ),
    }
    torch.manual_seed(0)
    model = AmortizedEncoder(
        FEATURES,
        args.size,
        args.layers,
        list(branches.values()),
        Arbitrator(FEATURES, branches=len(branches)),
    ).eval()
    model.prune(1.0)
    packed = pack(around(model))
    recogniser = Recogniser(as_int8(packed) if args.int8 else packed)
    encoder = recogniser.encoder
    names, flops = list(branches), np.array(model.branch_flops)
    print(f"{args.layers} layers of {args.size}, one frame at a time")
    seconds = alone(encoder, args.repeats)
    print(f"{'branch':12} {'MFLOPs':>8} {'ms':>8} {'GFLOP/s':>8} {'form':>8}")
    for name, one, second, products in zip(
        names, flops, seconds, encoder.products
    ):
        form = type(products[-1]).__name__
        print(
            f"{name:12} {one / 1e6:8.2f} {1000 * second:8.3f} "
            f"{one / second / 1e9:8.1f} {form:>8}"
        )
    if args.routed is not None:
        (whole, seconds), flops = routed(
            [Whole(recogniser), encoder], flops, args.routed, args.repeats
        )
        mixed = f"{args.routed:g} dense, "
        names = [names[0], *(mixed + name for name in names[1:])]
    speedup = seconds[0] / seconds
    kept = speedup / (flops[0] / flops)
    rows = [
        dict(zip(COLUMNS, row))
        for row in zip(names, flops / 1e6, 1000 * seconds, speedup, kept)
    ]
    columns = COLUMNS
    if args.routed is not None:
        columns = COLUMNS | WHOLE
        of_whole = whole[0] / whole / (flops[0] / flops)
        for row, *both in zip(rows, 1000 * whole, of_whole):
            row.update(zip(WHOLE, both))
        print(
            f"{'stream':20} {'MFLOPs':>8} {'ms':>8} {'ratio':>8} "
            f"{'whole ms':>8} {'ratio':>8}"
        )
        for name, one, second, _, share, *both in map(dict.values, rows):
            print(
                f"{name:20} {one:8.2f} {second:8.3f} {share:8.2f} "
                f"{both[0]:8.3f} {both[1]:8.2f}"
            )
    if args.out:
        write_figures(args.out, columns, rows)
    print(f"ratio: {kept[1]:.2f}")


def around(encoder: AmortizedEncoder) -> SimpleNamespace:
    """A model of this encoder that hears nothing."""
    predictor = Predictor(TOKENS)
    joint = Joint(encoder.hidden_size, 256, 128, TOKENS)
    with torch.no_grad():
        joint.output.bias[0] += 100  # blank
    modules = {"encoder": encoder, "predictor": predictor, "joint": joint}
    modules["features"] = StreamingFeatures()
    for module in modules.values():
        module.eval()
    search = GreedySearch(predictor, joint)
    return SimpleNamespace(
        mods=SimpleNamespace(**modules),
        hparams=SimpleNamespace(search=search),
        grammar=None,
        pieces=[chr(65 + n) for n in range(TOKENS)],
    )


class Whole:
    """A recogniser in the place of its encoder: from samples to the search.

    Arguments
    ---------
    recogniser : Recogniser
        Its arbitrator does its work, and is not listened to.
    """

    def __init__(self, recogniser: Recogniser):
        self.recogniser = copy.copy(recogniser)
        self.products = recogniser.encoder.products
        self.router, self.recogniser.router = recogniser.router, self
        size = recogniser.features.frame_samples
        self.sound = np.random.default_rng(0).normal(0, 0.1, size).astype("f")
        self.branch = 0

    def choose(self, *frame) -> int:
        """The branch that `step` was told."""
        self.router.choose(*frame)
        return self.branch

    def start(self):
        """A stream, in the place of the encoder's state."""
        return self.recogniser.start()

    def step(self, frame: np.ndarray, branch: int, stream) -> None:
        """A frame of sound, whatever the features."""
        self.branch = branch
        stream.feed(self.sound)


def alone(encoder: Encoder, repeats: int) -> np.ndarray:
    """Seconds of a frame on each branch, after one of the same branch."""
    cells, frame = encoder.start(), features()
    spent = [[] for _ in encoder.products]
    for _ in range(repeats):
        for branch, runs in enumerate(spent):
            encoder.step(frame, branch, cells)  # its weights into the cache
            runs.append(timed(encoder, frame, branch, cells))
    return np.median(spent, 1)


def routed(
    encoders: Sequence[Encoder], flops: np.ndarray, share: float, repeats: int
) -> tuple[np.ndarray, np.ndarray]:
    """Seconds and FLOPs of a frame in streams of two branches, as they come.

    The first stream of each encoder is dense alone, each other one of dense
    frames and those of another branch. The medians of both count as often as
    they were drawn. Seconds are ``[encoders, streams]``.
    """
    frame, drawn = features(), np.random.default_rng(1).random(repeats) >= share
    choices = [other * drawn for other in range(len(encoders[0].products))]
    states = [[encoder.start() for _ in choices] for encoder in encoders]
    spent = np.zeros((len(encoders), len(choices), repeats))
    # All of them take turns: a machine is not always as quick.
    for part in np.array_split(np.arange(repeats), 10):
        for stream, choice in enumerate(choices):
            for encoder, cells, runs in zip(encoders, states, spent):
                for n in part:
                    runs[stream, n] = timed(
                        encoder, frame, choice[n], cells[stream]
                    )
    for choice, runs in zip(choices, spent.swapaxes(0, 1)):
        for k in set(choice):
            here = choice == k
            runs[:, here] = np.median(runs[:, here], 1, keepdims=True)
    return spent.mean(2), flops[np.array(choices)].mean(1)


def timed(encoder: Encoder, frame: np.ndarray, branch: int, cells) -> float:
    """Seconds of one frame."""
    start = time.perf_counter()
    encoder.step(frame, branch, cells)
    return time.perf_counter() - start


def features() -> np.ndarray:
    """A frame."""
    return np.random.default_rng(0).standard_normal(FEATURES).astype("f")


if __name__ == "__main__":
    main()
