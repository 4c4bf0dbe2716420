"""One training of a recipe: the command that starts it and goes on with it."""

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


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
    skipped = epochs_before(hparams["starts_at"], hparams["epochs"])
    return Training(
        name,
        folder,
        [sys.executable, str(script), *arguments, "--noprogressbar"],
        hparams["epochs"] - skipped,
        [Path(hparams[k]) for k in ("start_from", "teacher") if hparams[k]],
    )


def epochs_before(starts_at: float, epochs: int) -> int:
    """The whole epochs that a training skips.

    Example
    -------
    >>> epochs_before(0.7, 90), epochs_before(0.6, 1)
    (63, 0)
    """
    return int(starts_at * epochs + 1e-6)  # 0.7 * 90 is 62.99...


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
    """Refuse a run that is done, with other hparams or tested on other words.

    Arguments
    ---------
    one : Training
        Of a recipe that writes its hparams to `hyperparams.yaml`.

    Raises
    ------
    ValueError
        If hparams differ from those of its command, see `check_recorded`, or
        the utterances of its test are others than the data folder has now,
        where that is there.
    """
    from speechbrain_amnet.hparams import (
        check_recorded,
        parse_arguments,
        plain_values,
        resolve_hparams,
    )

    used = one.folder / "hyperparams.yaml"
    if not (one.done and used.exists()):
        return
    file, _, overrides = parse_arguments(one.command[2:-1])
    text = resolve_hparams(file, overrides)
    check_recorded(used, text)
    values = plain_values(text)
    data_folder = values.get("data_folder", "")
    splits = values.get("test_splits", [])
    there = [(Path(data_folder) / split).is_dir() for split in splits]
    if one.test.exists() and there and all(there):
        check_speech(one, data_folder, splits)


def check_speech(
    one: Training, data_folder: str | Path, splits: Sequence[str]
) -> None:
    """Refuse a run that was tested on other utterances than these.

    By ids and words; audio is not looked at.

    Arguments
    ---------
    one : Training
        One that is done.
    data_folder : str or Path
        The speech, which may have moved.
    splits : sequence of str
        Its folders that test.

    Raises
    ------
    ValueError
        If ids or transcripts differ, where there are transcripts.
    """
    from speechbrain_amnet.corpus.manifest import read_manifest, words_of
    from speechbrain_amnet.corpus.prepare import read_transcripts

    tested = words_of(read_manifest(one.test))
    there = read_transcripts(data_folder, splits)
    if there and there != tested:
        raise ValueError(
            f"data_folder: {one.folder} is done, and was tested on other "
            f"utterances than {', '.join(splits)} of {data_folder} has now; "
            "give its data, or another folder (--out, or results: of a study)"
        )
