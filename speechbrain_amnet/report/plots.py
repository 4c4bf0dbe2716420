"""All pictures that there are to draw of some runs."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from speechbrain_amnet.report.results import group_of, read_results
from speechbrain_amnet.report.tradeoff import plot_tradeoff
from speechbrain_amnet.report.training import plot_training
from speechbrain_amnet.report.utterances import plot_utterances
from speechbrain_amnet.study import as_named


def plot_runs(
    folders: Iterable[str | Path],
    out: str | Path | None = None,
    study: str | Path | None = None,
    only: Sequence[str] | None = None,
) -> list[Path]:
    """Draw all that there is to draw of some runs.

    Arguments
    ---------
    folders : iterable of str or Path
        Folders of runs, finished or in training, or folders with the folders
        or published results of several runs.
    out : str or Path, optional
        A folder for all pictures; by default those of a run are in its own
        folder and the trade-off is in the folder that all have in common.
    study : str or Path, optional
        In the trade-off only the runs of this study, by its names.
    only : sequence of str, optional
        In the trade-off only these experiments.

    Returns
    -------
    list of Path
        The pictures.

    Raises
    ------
    ValueError
        If there is no result of an experiment of `only`.
    """
    folders = [Path(folder) for folder in folders]
    training = [f for f in folders if (f / "train_log.txt").is_file()]
    results = read_results(
        folder
        for folder in folders
        if folder not in training or (folder / "results.json").is_file()
    )
    runs = training + [
        result["path"].parent
        for result in results
        if result["path"].name == "results.json"
    ]
    pictures = []
    for run in dict.fromkeys(runs):
        pictures += plot_run(run, None if out is None else Path(out))
    if study is not None:
        results = as_named(results, study)
    names = {result["experiment"] for result in results}
    for name in only or ():
        if name not in names:
            raise ValueError(
                f"{name}: no result of it; there are {', '.join(sorted(names))}"
            )
    if only:
        results = [r for r in results if r["experiment"] in only]
    common = os.path.commonpath([folder.resolve() for folder in folders])
    for data, split in sorted({group_of(r)[:2] for r in results}):
        here = [r for r in results if group_of(r)[:2] == (data, split)]
        if len(here) > 1:
            name = f"tradeoff_{data}_{split}.png"
            pictures.append(plot_tradeoff(here, Path(out or common) / name))
    return pictures


def plot_run(run: Path, out: Path | None) -> list[Path]:
    """Draw the training of a run, and the utterances it was evaluated on."""
    # In a folder of all runs' pictures, names like an4-amnet-1-training.png.
    start = run if out is None else out
    prefix = "" if out is None else "-".join(run.resolve().parts[-3:]) + "-"
    pictures = []
    if (run / "train_log.txt").is_file():
        picture = start / f"{prefix}training.png"
        pictures.append(plot_training(run / "train_log.txt", picture))
    splits = {
        file.stem.removeprefix("frames_") for file in run.glob("frames_*.jsonl")
    }
    if (run / "results.json").is_file():
        splits.add(read_results([run])[0]["split"])
    for split in sorted(splits):
        picture = start / f"{prefix}utterances_{split}.png"
        pictures.append(plot_utterances(run, split, out=picture))
    return pictures
