"""Trained routing at the size of the paper's encoder, on the paper's device.

    python benchmarks/paper_size.py RUN... --data_folder=FOLDER

Nothing is trained at this size: five layers of 1024 get the branches of the
run, ranks grown with the layers, and their FLOPs alone are used. The run's
router reads the test set's frames, and the backlog that such an encoder has on
a thread of 650 million operations a second. The article does not say what it
counts as one operation: reckoned are two a multiply-add, as everywhere here,
and one, by which its 30 to 43 million a frame are about this encoder's.
"""

import argparse
from functools import partial
from pathlib import Path

import numpy as np
import torch

from speechbrain_amnet import AmortizedEncoder, Device, LowRank, Sparse
from speechbrain_amnet.corpus.manifest import read_manifest
from speechbrain_amnet.corpus.prepare import manifest_name, prepare_librispeech
from speechbrain_amnet.frames import timing
from speechbrain_amnet.inference import load
from speechbrain_amnet.records import spread_ms
from speechbrain_amnet.report.figures import markdown_text, write_figures

SIZE, LAYERS = 1024, 5
OPERATIONS = 650e6  # a second
COLUMNS = {
    "Run": 0,
    "Operations a multiply-add": 0,
    "Dense frame, frame durations": 2,
    "MFLOPs a frame": 1,
    "Compute saved %": 1,
    "Latency ms: mean": 0,
    "p50": 0,
    "p90": 0,
    "max": 0,
    "Above floor ms": 1,
}


def grown(encoder: AmortizedEncoder) -> AmortizedEncoder:
    """An encoder of the paper's size with an encoder's branches and router."""
    factor = SIZE / encoder.hidden_size

    def form(small):
        if isinstance(small, LowRank):
            rank = round(factor * small.rank)
            return lambda rows, columns: LowRank(
                rows, columns, min(rank, rows, columns)
            )
        if isinstance(small, Sparse):
            return partial(Sparse, density=small.density, block=small.block)
        return type(small)

    forms = [form(small) for small in encoder.layers[0].recurrent]
    return AmortizedEncoder(
        encoder.input_size,
        SIZE,
        LAYERS,
        forms,
        encoder.router,
        frame_duration=encoder.frame_duration,
    )


def measure(asr, wavs: list[Path], counted: int) -> dict:
    """Cost and latency of a run's routing at the paper's size."""
    small = asr.mods.encoder
    encoder = grown(small)
    small.router.eval()  # `grown` shares it, and is in training
    flops = torch.tensor(encoder.branch_flops, dtype=torch.float32)
    device = Device(flops_per_second=OPERATIONS * 2 / counted)
    duration = encoder.frame_duration
    time = device.seconds(flops, encoder.dense_flops, duration)
    spent, latency, floor = [], [], []
    for wav in wavs:
        with torch.no_grad():
            audio, whole = asr.load_audio(str(wav))[None], torch.ones(1)
            features, _ = asr.mods.features(audio, whole)
            routing, _ = small.router.route(
                features, time, flops, duration, hard=True
            )
        waits = timing(routing.time, whole, routing.backlog)
        spent += routing.flops[0].tolist()
        latency.append(waits.latency.item())
        floor.append(waits.floor.item())
    dense = device.seconds(encoder.dense_flops, encoder.dense_flops, duration)
    spread = spread_ms(np.array(latency))
    return {
        "Operations a multiply-add": counted,
        "Dense frame, frame durations": dense / duration,
        "MFLOPs a frame": np.mean(spent) / 1e6,
        "Compute saved %": 100 * (1 - np.mean(spent) / encoder.dense_flops),
        "Latency ms: mean": spread.pop("mean"),
        **spread,
        "Above floor ms": 1000 * (np.mean(latency) - np.mean(floor)),
    }


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--data_folder", type=Path, required=True)
    parser.add_argument("--split", default="test")
    parser.add_argument("--manifests", type=Path, default=Path("manifests"))
    parser.add_argument("--out", type=Path, help="a JSON file to write")
    args = parser.parse_args()
    (manifest,) = prepare_librispeech(
        args.data_folder,
        args.manifests,
        {manifest_name(args.split): [args.split]},
    ).values()
    wavs = [row["wav"] for row in read_manifest(manifest)]
    rows = []
    for run in args.runs:
        asr = load(run)
        name = getattr(asr.hparams, "experiment", run.name)
        for counted in (1, 2):
            rows.append({"Run": f"`{name}`", **measure(asr, wavs, counted)})
    print(markdown_text({"columns": COLUMNS, "rows": rows}))
    if args.out:
        data = f"{args.data_folder.resolve().name} {args.split}"
        write_figures(args.out, COLUMNS, rows, data=data)


if __name__ == "__main__":
    main()
