"""Time of one frame on each branch in the runtime, against its FLOPs.

Random weights, one frame after the other, one thread, branches interleaved,
medians; by default the size of the paper's encoder, 5 layers of 1024. The last
line is how much of the FLOP ratio of dense and cheap branch the clock shows: 1
if a frame of a quarter of the FLOPs takes a quarter of the time.

    python benchmarks/runtime_frame.py
    python benchmarks/runtime_frame.py --int8
    python benchmarks/runtime_frame.py --routed 0.3
    python benchmarks/runtime_frame.py --size 256 --layers 3 --rank 32
"""

import argparse
import os
import time
from functools import partial

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import torch

from speechbrain_amnet import AmortizedEncoder, Dense, FixedRouting, LowRank
from speechbrain_amnet import Sparse as SparseForm
from speechbrain_amnet.runtime.convert import as_array, as_int8, encoder_arrays
from speechbrain_amnet.runtime.encoder import Encoder
from speechbrain_amnet.runtime.packed import Packed

FEATURES = 320


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
        type=float,
        metavar="SHARE",
        help="also streams in which this share of the frames is dense, drawn; "
        "the ratio is then theirs to the dense stream",
    )
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--quick", action="store_true", help="a tiny trial")
    args = parser.parse_args()
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
        FixedRouting(len(branches)),
    ).eval()
    model.prune(1.0)
    arrays = {k: as_array(v) for k, v in encoder_arrays(model).items()}
    config = {
        "input_size": FEATURES,
        "hidden_size": args.size,
        "layers": args.layers,
        "branches": len(branches),
    }
    packed = Packed({"encoder": config}, arrays)
    encoder = Encoder(as_int8(packed) if args.int8 else packed)
    cells = encoder.start()
    frame = np.random.default_rng(0).standard_normal(FEATURES).astype("f")
    spent = [[] for _ in branches]
    for _ in range(args.repeats):
        for branch, runs in enumerate(spent):
            encoder.step(frame, branch, cells)  # its weights into the cache
            start = time.perf_counter()
            encoder.step(frame, branch, cells)
            runs.append(time.perf_counter() - start)
    seconds, flops = [float(np.median(s)) for s in spent], model.branch_flops
    print(f"{args.layers} layers of {args.size}, one frame at a time")
    print(f"{'branch':12} {'MFLOPs':>8} {'ms':>8} {'GFLOP/s':>8} {'form':>8}")
    for name, one, second, products in zip(
        branches, flops, seconds, encoder.products
    ):
        form = type(products[-1]).__name__
        print(
            f"{name:12} {one / 1e6:8.2f} {1000 * second:8.3f} "
            f"{one / second / 1e9:8.1f} {form:>8}"
        )
    gain = seconds[0] / seconds[1] / (flops[0] / flops[1])
    if args.routed is not None:
        gain = routed(encoder, flops, args.routed, args.repeats)
    print(f"ratio: {gain:.2f}")


def routed(encoder, flops, share, repeats) -> float:
    """Of what the FLOPs promise, how much a stream of two branches gains.

    As the frames come, without a frame of the same branch before each: what
    the other branch has driven out of the caches is read again.
    """
    random = np.random.default_rng(0)
    frame = random.standard_normal(FEATURES).astype("f")
    cheap = np.arange(20) >= round(20 * share)  # of each twenty frames
    cells, spent = encoder.start(), [[], []]
    for _ in range(repeats):
        for runs, part in zip(spent, (0 * cheap, random.permutation(cheap))):
            start = time.perf_counter()
            for branch in part.astype(int):
                encoder.step(frame, branch, cells)
            runs.append((time.perf_counter() - start) / len(part))
    dense, mixed = (float(np.median(runs)) for runs in spent)
    cost = flops[0] + (flops[1] - flops[0]) * cheap.mean()
    print(
        f"routed, {100 * (1 - cheap.mean()):.0f} % dense: {1000 * mixed:.3f}"
        f" ms a frame, all dense {1000 * dense:.3f}; {dense / mixed:.2f} times "
        f"as fast, {flops[0] / cost:.2f} by FLOPs"
    )
    return dense / mixed / (flops[0] / cost)


if __name__ == "__main__":
    main()
