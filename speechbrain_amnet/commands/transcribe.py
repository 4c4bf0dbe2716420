"""`amnet transcribe`: words as they come, and what they cost."""

import argparse
import time
from pathlib import Path
from typing import Any

from speechbrain_amnet.commands import arguments


def add(subparsers: Any) -> None:
    """Declares `amnet transcribe`."""
    parser = subparsers.add_parser(
        "transcribe", help="stream recordings through a trained model"
    )
    arguments.add_model(parser)
    parser.add_argument(
        "wavs", metavar="WAV", nargs="+", type=Path, help="recordings"
    )
    parser.add_argument(
        "--frames",
        action="store_true",
        help="one line a frame, with its branch and the backlog it finds",
    )
    parser.add_argument(
        "--chunk-ms",
        type=float,
        default=40,
        help="audio that arrives at once, in ms (default: %(default)s)",
    )
    arguments.add_load(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Prints words as they come, and what they cost."""
    import torch

    from speechbrain_amnet.inference import load
    from speechbrain_amnet.report.text import branch_names, on_device

    torch.set_num_threads(1)
    asr = load(args.folder, args.load, run_opts={"device": "cpu"})
    encoder, device = asr.mods.encoder, asr.mods.encoder.target_device
    seconds = spent = flops = frames = 0.0
    waits = []
    for wav in args.wavs:
        audio = asr.load_audio(wav)
        if len(args.wavs) > 1:
            print(f"{wav}:")
        start = time.perf_counter()
        last = None
        for text, routing, first in stream(asr, audio, args.chunk_ms):
            if args.frames:
                print_frames(
                    text,
                    routing,
                    first,
                    encoder.frame_duration,
                    branch_names(encoder.router.branches),
                )
            else:
                print(text, end="", flush=True)
            if routing is not None:
                flops += routing.flops.sum().item()
                frames += routing.flops.numel()
                last = routing
        spent += time.perf_counter() - start
        print(end="" if args.frames else "\n")
        seconds += len(audio) / asr.mods.features.sample_rate
        waits.append((last.backlog + last.time)[0, -1].item())
    speed = device.speed(encoder.dense_flops, encoder.frame_duration)
    print(
        f"{seconds:.1f} s of audio in {spent / seconds:.2f} times its duration;"
        f" {100 * (1 - flops / frames / encoder.dense_flops):.0f} % of the "
        f"dense encoder's computation saved; encoded "
        f"{1000 * sum(waits) / len(waits):.0f} ms after the last sample "
        f"{on_device(device.load, speed)}."
    )


def stream(asr: Any, audio: Any, chunk_ms: float) -> Any:
    """Yields for each chunk its text, routing, and the first frame's index."""
    context = asr.make_streaming_context()
    chunks = asr.chunks(audio, chunk_ms)
    first = 0
    for text in asr.transcribe_stream(chunks, context=context):
        yield text, context.encoder_context.routing, first
        first = context.encoder_context.first


def print_frames(
    text: str,
    routing: Any,
    first: int,
    frame_duration: float,
    names: list[str],
) -> None:
    """One line a frame; the text of a chunk stands at its last frame."""
    lines, width = [], max(map(len, names))
    if routing is not None:
        for n, (branch, backlog) in enumerate(
            zip(routing.choice[0].tolist(), routing.backlog[0].tolist())
        ):
            lines.append(
                f"{(first + n) * frame_duration:7.2f} s  "
                f"{names[branch]:{width}}  "
                f"backlog {1000 * backlog:5.0f} ms"
            )
    if text:
        lines[-1] += f"  {text}"
    for line in lines:
        print(line, flush=True)
