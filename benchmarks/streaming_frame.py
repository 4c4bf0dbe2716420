"""Time of one frame of a stream: AmortizedEncoder against nn.LSTM.

One frame at a time, batch 1, hard routing, one thread, in interleaved runs,
medians. The last line is the ratio of two branches, each taken for half of
the frames at random, to `torch.nn.LSTM` of the same layers.

    python benchmarks/streaming_frame.py
    python benchmarks/streaming_frame.py --size 1024 --layers 5
"""

import argparse
import os
from collections.abc import Callable
from functools import partial

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import nn
from training_step import FEATURES, medians

from speechbrain_amnet import (
    AmortizedEncoder,
    Dense,
    FixedRouting,
    LowRank,
    RandomRouting,
)


def stream(model: nn.Module, frames: int) -> Callable:
    """What encodes a stream frame by frame."""
    x = torch.randn(1, frames, FEATURES).split(1, 1)

    @torch.no_grad()
    def rival():
        state = None
        for frame in x:
            _, state = model(frame, state)

    def ours():
        context = model.make_streaming_context()
        for frame in x:
            model.forward_streaming(frame, context)

    return rival if isinstance(model, nn.LSTM) else ours


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--rank", type=int, help="by default size / 8")
    parser.add_argument("--frames", type=int, default=50, help="of each run")
    parser.add_argument("--repeats", type=int, default=25)
    parser.add_argument("--quick", action="store_true", help="a tiny trial")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.quick:
        args.size, args.layers, args.frames, args.repeats = 16, 1, 3, 2
    rank = args.rank or args.size // 8
    low = partial(LowRank, rank=rank)
    middle = partial(LowRank, rank=2 * rank)

    def ours(branches, router):
        torch.manual_seed(0)
        return AmortizedEncoder(
            FEATURES, args.size, args.layers, branches, router
        ).eval()

    one = ours([Dense], None)
    models = {
        "nn.LSTM": nn.LSTM(FEATURES, args.size, args.layers, batch_first=True),
        "K=1": one,
        "K=2, dense": ours([Dense, low], FixedRouting(2, 0)),
        f"K=2, rank {rank}": ours([Dense, low], FixedRouting(2, 1)),
        "K=2, half/half": ours([Dense, low], RandomRouting([0.5, 0.5])),
        "K=3, a third each": ours(
            [Dense, middle, low], RandomRouting([1 / 3, 1 / 3, 1 / 3])
        ),
    }
    x = torch.zeros(1, 1000, FEATURES)
    flops = {
        name: one.dense_flops
        if isinstance(model, nn.LSTM)
        else model.route(x, hard=True)[0].flops.mean().item()
        for name, model in models.items()
    }
    seconds = medians(
        {name: stream(model, args.frames) for name, model in models.items()},
        args.repeats,
    )
    print(f"{args.layers} layers of {args.size}, one frame at a time")
    print(f"{'encoder':18} {'MFLOPs':>7} {'us':>7} {'ratio':>6}")
    for name, second in seconds.items():
        print(
            f"{name:18} {flops[name] / 1e6:7.2f} "
            f"{1e6 * second / args.frames:7.0f} "
            f"{second / seconds['nn.LSTM']:6.2f}"
        )
    print(f"ratio: {seconds['K=2, half/half'] / seconds['nn.LSTM']:.2f}")


if __name__ == "__main__":
    main()
