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

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from speechbrain_amnet.trainings import Training, check_settings, training

KEYS = {"train", "hparams", "results", "runs"}
PLAIN = (dict, list, type(None))  # what YAML calls otherwise than Python
OWN = ("data_folder", "output_folder", "experiment", "seed")
RUN_KEYS = {"file", "seeds", "overrides", "trained_as", "loads"}


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
    for one in settings:
        _check_own("--set", one.partition("=")[0])
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
    runs = study.get("runs") if isinstance(study, dict) else None
    if not isinstance(runs, dict) or not runs:
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
    for key in run.get("overrides") or {}:
        _check_own(f"{where}: overrides", key)
    if not isinstance(run.get("file", ""), str):
        raise ValueError(f"{where}: file must be the name of a hparams file")
    if not isinstance(loads, list):
        raise ValueError(f"{where}: loads must be a list, as [1, 1.5, 4]")
    for load in loads:
        number = isinstance(load, int | float) and not isinstance(load, bool)
        if not (number and 0 < load < math.inf):
            raise ValueError(
                f"{where}: loads: expected numbers above 0, got {load}"
            )


def _check_own(where, key):
    """What tells the study's runs apart is the study's own."""
    if key in OWN:
        raise ValueError(
            f"{where}: {key} is what the study gives each run; change it there"
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
