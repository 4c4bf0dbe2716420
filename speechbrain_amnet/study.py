"""A study: the trainings that a table is made of, those that are missing.

A YAML file lists them::

    train: ../train.py          # beside this file
    hparams: ../hparams
    results: results/an4        # RESULTS/EXPERIMENT/SEED, from where one is
    runs:
        full: {seeds: [1, 2, 3]}
        amnet:
            seeds: [1, 2, 3]
            overrides:
                start_from: results/an4/full/{seed}

A run whose overrides name the folder of another waits for it. `file` names the
hparams file where it is not EXPERIMENT.yaml. `trained_as: NAME` is for a row
that another study has under that name: its folder is RESULTS/NAME/SEED, and
what one has trained the other finds. `loads: [1, 4]` evaluates a run for these
devices, too.
"""

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

KEYS = {"train", "hparams", "results", "runs"}
PLAIN = (dict, list, type(None))  # what YAML calls otherwise than Python
RUN_KEYS = {"file", "seeds", "overrides", "trained_as", "loads"}


@dataclass
class Training:
    """One training, and how far it is.

    Arguments
    ---------
    name : str
        What messages call it.
    folder : Path
        Its output folder.
    command : list of str
        What starts it, and goes on with it where it was stopped.
    epochs : int
        How many it trains.
    after : list of Path
        Output folders of trainings that must be done before.
    last : str
        The file that it writes last.
    loads : list of float
        Devices that it is evaluated for afterwards, beside its own.

    Example
    -------
    >>> Training("full/1", Path("results/full/1"), ["true"], 90).done
    False
    """

    name: str
    folder: Path
    command: list[str]
    epochs: int
    after: list[Path] = field(default_factory=list)
    last: str = "results.json"
    loads: list[float] = field(default_factory=list)

    @property
    def row(self) -> str:
        """What tables call its experiment."""
        return self.name.rpartition("/")[0]

    @property
    def folders(self) -> list[Path]:
        """Where its results are: its own, and one for each of `loads`."""
        loads = [self.folder / f"load-{load:g}" for load in self.loads]
        return [self.folder, *loads]

    @property
    def test(self) -> Path:
        """The manifest of its test set."""
        return self.folder / "save" / "manifests" / "test.csv"

    @property
    def done(self) -> bool:
        """Whether it has come to its end."""
        return (self.folder / self.last).is_file()

    @property
    def epochs_done(self) -> int:
        """Lines of its log; the last one only counts with its results."""
        if self.done:
            return self.epochs
        log = self.folder / "train_log.txt"
        lines = len(log.read_text().splitlines()) if log.exists() else 0
        return min(lines, self.epochs - 1)


def as_named(
    results: Iterable[dict[str, Any]], path: str | Path
) -> list[dict[str, Any]]:
    """Published results by the names and in the choice of a study.

    Arguments
    ---------
    results : iterable of dict
        As `read_results` gives them.
    path : str or Path
        The YAML file.

    Returns
    -------
    list of dict
        Those that the study has a run for, `experiment` as it calls them.

    Raises
    ------
    ValueError
        If there is none, or the file is no study.
    """
    study, found = _read_yaml(Path(path)), []
    for name, run in study["runs"].items():
        found += [
            {**result, "experiment": name}
            for result in results
            if result["experiment"] == run.get("trained_as", name)
            and result["seed"] in run["seeds"]
        ]
    if not found:
        raise ValueError(f"{path}: none of its runs is among the results")
    return found


def read_study(
    path: str | Path, data_folder: str | Path, settings: Sequence[str] = ()
) -> list[Training]:
    """Read a study, and load the hparams of all its runs once.

    Arguments
    ---------
    path : str or Path
        The YAML file.
    data_folder : str or Path
        What all runs train on.
    settings : sequence of str
        Hparams of every run, as `epochs=2`; they come last.

    Returns
    -------
    list of Training
        In the order of the file.

    Raises
    ------
    FileNotFoundError
        If the study or one of its hparams files does not exist.
    ValueError
        If a key is unknown or missing, hparams do not load, runs wait for
        each other, or a run that is done was trained with other hparams.
    """
    path = Path(path)
    study = _read_yaml(path)
    trainings = []
    for experiment, run in study["runs"].items():
        seeds, overrides = run["seeds"], run.get("overrides") or {}
        trained_as = run.get("trained_as", experiment)
        loads = run.get("loads", [])
        file = path.parent / study["hparams"]
        file = file / run.get("file", f"{experiment}.yaml")
        for seed in seeds:
            folder = Path(study["results"]) / str(trained_as) / str(seed)
            values = {
                "data_folder": data_folder,
                "output_folder": folder,
                "experiment": trained_as,
                "seed": seed,
                **overrides,
                **dict(one.split("=", 1) for one in settings if "=" in one),
            }
            arguments = [
                str(file),
                *(
                    f"--{key}={_text(value).replace('{seed}', str(seed))}"
                    for key, value in values.items()
                ),
                *(f"--{one}" for one in settings if "=" not in one),
            ]
            name = f"{experiment}/{seed}"
            try:
                one = training(
                    name, folder, path.parent / study["train"], arguments
                )
            except FileNotFoundError as error:
                raise FileNotFoundError(f"{path}: {name}: {error}") from error
            except ValueError as error:  # of any kind: some take no message
                raise ValueError(f"{path}: {name}: {error}") from error
            one.loads = loads
            trainings.append(one)
    names: dict[Path, str] = {}
    for one in trainings:
        if one.folder in names:
            raise ValueError(
                f"{path}: {names[one.folder]} and {one.name} are both trained "
                f"in {one.folder}"
            )
        names[one.folder] = one.name
        check_settings(one)
    return _in_order(path, trainings)


def _text(value: Any) -> str:
    """As YAML reads it again, which JSON is a part of."""
    return json.dumps(value) if isinstance(value, PLAIN) else str(value)


def _read_yaml(path: Path) -> dict[str, Any]:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    if not path.is_file():
        raise FileNotFoundError(f"no such study: {path}")
    try:
        study = YAML(typ="safe", pure=True).load(path.read_text("utf-8"))
    except (YAMLError, UnicodeDecodeError) as error:
        text = " ".join(str(error).split())
        raise ValueError(f"{path}: not YAML: {text}") from error
    if not isinstance(study, dict) or not isinstance(study.get("runs"), dict):
        raise ValueError(f"{path}: not a study: there are no runs")
    for key in ("train", "hparams", "results"):
        if key in study and not isinstance(study[key], str):
            raise ValueError(f"{path}: {key} must be a path")
    _check_keys(path, study, KEYS, KEYS)
    for experiment, run in study["runs"].items():
        _check_run(f"{path}: {experiment}", run)
    return study


def _check_run(where, run):
    """Seeds, and what else a row says, are what they should be."""
    _check_keys(where, {} if run is None else run, RUN_KEYS, {"seeds"})
    seeds, loads = run["seeds"], run.get("loads", [])
    if (
        not isinstance(seeds, list)
        or not seeds
        or len(set(map(str, seeds))) < len(seeds)
    ):
        raise ValueError(
            f"{where}: seeds must be a list of different ones, as [1, 2, 3]"
        )
    if not isinstance(run.get("overrides") or {}, dict):
        raise ValueError(f"{where}: overrides must be `key: value` lines")
    if not isinstance(loads, list):
        raise ValueError(f"{where}: loads must be a list, as [1, 1.5, 4]")
    for load in loads:
        number = isinstance(load, int | float) and not isinstance(load, bool)
        if not (number and 0 < load < math.inf):
            raise ValueError(
                f"{where}: loads: expected numbers above 0, got {load}"
            )


def _check_keys(where, found, known, needed):
    if not isinstance(found, dict):
        raise ValueError(f"{where}: expected `key: value` lines")
    for key in found:
        if key not in known:
            raise ValueError(
                f"{where}: unknown key '{key}'; there are "
                f"{', '.join(sorted(known))}"
            )
    for key in sorted(needed - set(found)):
        raise ValueError(f"{where}: '{key}' is missing")


def training(
    name: str, folder: Path, script: Path, arguments: Sequence[str]
) -> Training:
    """A training of a recipe; its hparams are loaded, which checks them.

    Arguments
    ---------
    name : str
        What messages call it.
    folder : Path
        Its output folder.
    script : Path
        The recipe's train.py.
    arguments : sequence of str
        What follows it on the command line.

    Returns
    -------
    Training
        Not started yet.

    Raises
    ------
    FileNotFoundError, ValueError
        As `load_hparams`.
    """
    hparams = loaded(arguments)
    skipped = int(hparams["starts_at"] * hparams["epochs"])
    return Training(
        name,
        folder,
        [sys.executable, str(script), *arguments, "--noprogressbar"],
        hparams["epochs"] - skipped,
        [Path(hparams[k]) for k in ("start_from", "teacher") if hparams[k]],
    )


def loaded(arguments: Sequence[str]) -> dict[str, Any]:
    """The hparams of a command line, which checks them; nothing is written.

    Arguments
    ---------
    arguments : sequence of str
        What follows the script.

    Returns
    -------
    dict

    Raises
    ------
    FileNotFoundError, ValueError
        As `load_hparams` and `check_values`.
    """
    from speechbrain_amnet.hparams import (
        load_hparams,
        parse_arguments,
        resolve_hparams,
    )
    from speechbrain_amnet.values import check_values

    with tempfile.TemporaryDirectory() as aside:  # loading makes its folder
        kept = [a for a in arguments if not a.startswith("--output_folder=")]
        file, run_opts, overrides = parse_arguments(
            [*kept, f"--output_folder={aside}"]
        )
        check_values(resolve_hparams(file, overrides), run_opts)
        return load_hparams(file, overrides)


def check_settings(one: Training) -> None:
    """Refuse a run that is done and was trained with other hparams.

    Arguments
    ---------
    one : Training
        Of a recipe that writes its hparams to `hyperparams.yaml`.

    Raises
    ------
    ValueError
        If they differ from those of its command, see `check_recorded`.
    """
    from speechbrain_amnet.hparams import (
        check_recorded,
        parse_arguments,
        resolve_hparams,
    )

    used = one.folder / "hyperparams.yaml"
    if not (one.done and used.exists()):
        return
    file, _, overrides = parse_arguments(one.command[2:-1])
    check_recorded(used, resolve_hparams(file, overrides))


def _in_order(path, trainings):
    """What runs wait for is here or trained, and nothing in a circle."""
    folders = {one.folder for one in trainings}
    for one in trainings:
        for needed in one.after:
            if needed not in folders and not (needed / "save").is_dir():
                raise ValueError(
                    f"{path}: {one.name} starts from {needed}, which is "
                    "neither a run of this study nor the folder of a training"
                )
        one.after = [folder for folder in one.after if folder in folders]
    ready, left = set(), list(trainings)
    while left:
        free = [t for t in left if ready.issuperset(t.after)]
        if not free:
            names = ", ".join(t.name for t in left)
            raise ValueError(f"{path}: these wait for each other: {names}")
        ready.update(t.folder for t in free)
        left = [t for t in left if t.folder not in ready]
    return trainings


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
