"""Trainings that run, some at a time, and end with the process they are of."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

from speechbrain_amnet.trainings import Training


def train(
    trainings: Iterable[Training], jobs: int = 1, unit: str = "epoch"
) -> None:
    """Run trainings, some at a time, each on one core.

    What a training prints goes to `output.txt` in its folder. One that fails
    does not stop the others, but those that wait for it are left out.

    Arguments
    ---------
    trainings : iterable of Training
        Those to run; they are started in this order.
    jobs : int
        How many run at a time.
    unit : str
        What the bar calls an epoch.

    Raises
    ------
    ValueError
        If `jobs` is below 1. At the end, if one failed: what it said last.
    """
    from tqdm import tqdm

    if jobs < 1:
        raise ValueError(f"jobs must be 1 or more, got {jobs}")
    trainings = list(trainings)
    waiting, running, failed = list(trainings), {}, []
    total = sum(one.epochs for one in trainings)
    # Epochs of earlier sessions count, but not in the speed.
    before = sum(one.epochs_done for one in trainings)
    with (
        ended_by_signals(),
        tqdm(
            total=total,
            initial=before,
            desc="train",
            unit=unit,
            smoothing=0,  # or half a second between looks counts as an epoch's
        ) as bar,
    ):
        try:
            while waiting or running:
                for one in _startable(waiting, trainings, failed):
                    if len(running) < jobs:
                        waiting.remove(one)
                        running[one.name] = one, _start(one)
                if not running:
                    break  # what is left waits for one that failed
                time.sleep(0.5)
                for one, process in list(running.values()):
                    if process.poll() is not None:
                        del running[one.name]
                        if process.returncode:
                            failed.append(one)
                # A log would get two lines a second.
                shown = sys.stderr.isatty()
                bar.set_postfix_str(" ".join(running), refresh=shown)
                now = sum(one.epochs_done for one in trainings)
                bar.update(now - bar.n)
        finally:
            for _, process in running.values():
                process.kill()
                process.wait()
    if failed:
        raise ValueError(_said(failed, waiting))


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end what is inside as Ctrl-C does, by an exception.

    Else its trainings would go on alone.
    """

    def end(number: int, _: Any) -> None:
        raise SystemExit(128 + number)

    names = ("SIGTERM", "SIGHUP")
    numbers = [getattr(signal, n) for n in names if hasattr(signal, n)]
    if threading.current_thread() is not threading.main_thread():
        numbers = []  # Python lets no other one set what a signal does
    before = {n: signal.getsignal(n) for n in numbers}
    before = {n: b for n, b in before.items() if b == signal.SIG_DFL}
    for number in before:  # `nohup` has SIGHUP ignored: so it stays
        signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _startable(waiting, trainings, failed):
    """Those that wait for nothing that is still to be trained."""
    waited_for = {t.folder for t in [*waiting, *failed]}
    waited_for |= {t.folder for t in trainings if not t.done}
    return [t for t in waiting if waited_for.isdisjoint(t.after)]


def _start(one):
    one.folder.mkdir(parents=True, exist_ok=True)
    with open(one.folder / "output.txt", "a") as output:
        return subprocess.Popen(
            one.command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )


def _said(failed, waiting):
    """One line for those that failed."""
    parts = []
    for one in failed:
        output = one.folder / "output.txt"
        lines = output.read_text().strip().splitlines() or ["it said nothing"]
        parts.append(
            f"The training of {one.name} failed: {lines[-1]} (all of it: "
            f"{output})."
        )
    if waiting:
        names = ", ".join(one.name for one in waiting)
        parts.append(f"Not started, as they wait for it: {names}.")
    return " ".join(parts)
