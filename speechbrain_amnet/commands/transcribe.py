"""`amnet transcribe`: words as they come, and what they cost."""

import argparse
import os
import signal
import sys
import time
from collections.abc import Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from speechbrain_amnet.commands import arguments
from speechbrain_amnet.commands.arguments import find_model

LONGEST = 60_000  # ms of a chunk


def add(subparsers: Any) -> None:
    """Declares `amnet transcribe`."""
    parser = subparsers.add_parser(
        "transcribe", help="stream recordings through a trained model"
    )
    arguments.add_runtime(parser)
    parser.add_argument(
        "wavs",
        metavar="WAV",
        nargs="+",
        type=Path,
        help="recordings; - is standard input, raw samples as they come: 16 "
        "bits, mono, at the model's rate (arecord -t raw -f S16_LE -r 16000); "
        "without --load the backlog is then what really waits",
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
        help="audio that arrives at once, in ms, at most from standard input "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--grammar",
        type=Path,
        help="a file in JSGF, whose sentences alone are searched: what is "
        "heard is one of them, or whole words of its beginning if nothing "
        "fits to its end, and known at its end",
    )
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=arguments.above_zero,
        help="end standard input where it has brought nothing for so long "
        "(default: wait as long as it is open)",
    )
    arguments.add_load(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Prints words as they come, and what they cost."""
    # Before NumPy is loaded: more threads are slower for one frame.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from speechbrain_amnet.audio import has_come
    from speechbrain_amnet.device import wait
    from speechbrain_amnet.report.text import branch_names, on_device
    from speechbrain_amnet.runtime.live import LiveStream, arrivals
    from speechbrain_amnet.runtime.speed import load_here

    if len(args.wavs) > 1 and Path("-") in args.wavs:
        raise ValueError(
            "- is standard input, which is timed otherwise than recordings: "
            "give it alone"
        )
    if Path("-") in args.wavs and sys.stdin is None:
        raise ValueError("-: standard input is closed: expected raw samples")
    model = find_model(args.model, args.load)
    if args.grammar:
        model.hold_to(args.grammar)
    rate, names = model.features.sample_rate, branch_names(model.branches)
    if not 1000 / rate <= args.chunk_ms <= LONGEST:
        raise ValueError(
            f"--chunk-ms: expected {1000 / rate:g} (a sample) to {LONGEST} ms, "
            f"got {args.chunk_ms:g}"
        )
    size = round(rate * args.chunk_ms / 1000)
    seconds = spent = flops = 0.0
    count, waits = 0, []
    for wav in args.wavs:
        if len(args.wavs) > 1:
            print(f"{wav}:")
        live, source = None, chunks(wav, rate, size, args.timeout)
        if str(wav) == "-" and args.load is None:
            here = load_here(model)
            live = LiveStream(model)
            live.hold_back(1.0, here)
            there = partial(has_come, sys.stdin.buffer)
            came = arrivals(source, rate, there, behind=samples_behind)
        else:
            came = ((chunk, None) for chunk in chain(source, [()]))
        stream = live.stream if live else model.start()
        for chunk, arrived in came:
            # The last chunk is empty and ends the stream.
            final = not len(chunk)
            start = time.perf_counter()
            if live:
                frames = live.feed(chunk, final, arrived)
            else:
                frames = stream.feed(chunk, final)
            spent += time.perf_counter() - start
            seconds += len(chunk) / rate
            for frame in frames:
                flops += model.branch_flops[frame.branch]
                count += 1
                waited = wait(
                    frame.backlog, stream.branch_seconds[frame.branch]
                )
                if live:
                    waited = live.latency
                if args.frames:
                    print(
                        f"{frame.index * model.frame_duration:7.2f} s  "
                        f"{names[frame.branch]:{max(map(len, names))}}  "
                        f"backlog {1000 * frame.backlog:5.0f} ms  "
                        f"{frame.text}".rstrip(),
                        flush=True,
                    )
                else:
                    print(frame.text, end="", flush=True)
        if stream.rest or not args.frames:
            print(stream.rest)
        if model.understands:
            print(in_words(stream.command))
        waits.append(waited)
    speed = model.device.speed(model.dense_flops, model.frame_duration)
    device = on_device(model.device.load, speed)
    if live:
        device = "by the clock"
        if here is not None:
            dense = here * model.dense_flops / model.branch_flops[0]
            device += (
                f", {on_device(float(f'{dense:.2g}'), speed)}, as measured here"
            )
    saved = 1 - flops / count / model.dense_flops
    print(
        f"{seconds:.1f} s of audio in {spent / seconds:.3f} times its duration;"
        f" {100 * saved:.0f} % of the dense encoder's computation saved; "
        f"encoded {1000 * sum(waits) / len(waits):.0f} ms after the last "
        f"sample {device}."
    )


def chunks(
    wav: Path, rate: int, size: int, timeout: float | None = None
) -> Iterator[Any]:
    """A recording in chunks, or standard input as it comes."""
    from speechbrain_amnet.audio import read_audio, read_pcm

    if str(wav) != "-":
        samples = read_audio(wav, rate)
        for first in range(0, len(samples), size):
            yield samples[first : first + size]
    elif sys.stdin.isatty():
        raise ValueError(
            "standard input is a terminal: expected raw samples, as of "
            f"`arecord -t raw -f S16_LE -r {rate} | amnet transcribe MODEL -`"
        )
    else:
        yield from until_stopped(read_pcm(sys.stdin.buffer, size, timeout))


def samples_behind() -> int:
    """Samples that lie on standard input."""
    from speechbrain_amnet.audio import waiting

    return waiting(sys.stdin.buffer) // 2


def until_stopped(source: Iterator[Any]) -> Iterator[Any]:
    """What a source brings until Ctrl-C, which ends it as its end would.

    While something of it is at work Ctrl-C waits for that to be done; a second
    one does not.
    """
    waiting = stopped = False

    def stop(*_: Any) -> None:
        nonlocal stopped
        if waiting or stopped:
            raise KeyboardInterrupt
        stopped = True

    before = signal.signal(signal.SIGINT, stop)
    try:
        while True:
            waiting = True
            if stopped:
                break
            one = next(source, None)
            waiting = False
            if one is None:
                break
            yield one
    except KeyboardInterrupt:
        pass
    finally:
        signal.signal(signal.SIGINT, before)


def in_words(command: Any) -> str:
    """Intent and slots of a command, in a line.

    Example
    -------
    >>> from speechbrain_amnet.slots import understood
    >>> in_words(understood("A LARGE<size> TEA<drink><=order>"))
    'order: size LARGE, drink TEA'
    """
    slots = ", ".join(f"{name} {said}" for name, said in command.slots.items())
    return f"{command.intent or 'no intent'}: {slots or 'nothing more'}"
