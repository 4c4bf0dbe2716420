"""What an arbitrator learnt: which frames it gives to the dense branch.

Frames are sorted by what can be heard in them, by rules that no model has a
part in, and by the backlog that they found. A voice detector would treat steady
sounds and transitions alike, random routing all three alike, and neither would
mind the backlog.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from speechbrain_amnet import files
from speechbrain_amnet.report.markdown import cell
from speechbrain_amnet.report.results import (
    device_of,
    heard,
    read_split,
)
from speechbrain_amnet.report.utterances import read_audio, read_frames

CLASSES = ("silence", "steady", "transition")
BACKLOGS = ("none", "up to two frames", "more")
QUIET_DB = 30.0  # below the loudest tenth of an utterance's frames
BANDS = 24
FLOOR = 1e-7


def classify(wave: np.ndarray, rate: int, frame: float) -> np.ndarray:
    """Sort the frames of a recording by what is heard.

    A frame is silence if it is 30 dB below the loudest tenth of the
    recording's frames. Of the others the half whose spectrum changes most
    from the frame before to the one after are transitions.

    Arguments
    ---------
    wave : np.ndarray
        ``[samples]``
    rate : int
        Samples a second.
    frame : float
        Seconds.

    Returns
    -------
    np.ndarray
        ``[frames]``, indices of `CLASSES`.

    Example
    -------
    >>> time = np.arange(16000) / 16000
    >>> tone = np.sin(2 * np.pi * 500 * time) * (time > 0.4)
    >>> classify(tone, 16000, 0.04)[:5].tolist()
    [0, 0, 0, 0, 0]
    """
    size = round(rate * frame)
    count = -(-len(wave) // size)
    frames = np.pad(wave, (0, count * size - len(wave))).reshape(count, size)
    spectrum = np.abs(np.fft.rfft(frames * np.hanning(size))) ** 2
    # Bands that widen with the frequency, as hearing does.
    edges = np.geomspace(2, spectrum.shape[1], BANDS + 1).astype(int)
    bands = [
        spectrum[:, low : max(low + 1, high)].mean(1)
        for low, high in zip(edges, edges[1:])
    ]
    level = 10 * np.log10((frames**2).mean(1) + FLOOR)
    shape = 10 * np.log10(np.stack(bands, 1) + FLOOR * size)
    loud = level > np.percentile(level, 90) - QUIET_DB
    around = np.pad(shape, ((1, 1), (0, 0)), mode="edge")
    change = np.abs(around[2:] - around[:-2]).mean(1)
    classes = np.zeros(count, int)
    classes[loud] = 1 + (change > np.median(change[loud]))[loud]
    return classes


def count_frames(folder: str | Path, split: str) -> dict[str, Any]:
    """Count a run's frames, and those on each of its branches.

    Arguments
    ---------
    folder : str or Path
        Of a run that was evaluated on the split, with its audio in place.
    split : str
        The evaluated split.

    Returns
    -------
    dict
        `experiment`, `seed`, `data` (with the noise in it), `split`, `device`,
        and by class and backlog (``[CLASSES, BACKLOGS]``) the `frames`; as many
        tables of the frames on each branch, `taken`.

    Raises
    ------
    ValueError
        If its model has one branch.
    """
    folder = Path(folder)
    result = read_split(folder, split)
    if len(result["branch_shares"]) < 2:
        raise ValueError(
            f"{folder}: expected a model of two or more branches, it has one: "
            "nothing was learnt about which frame goes where"
        )
    frames = np.zeros((len(CLASSES), len(BACKLOGS)), int)
    taken = np.zeros((len(result["branch_shares"]), *frames.shape), int)
    for utterance in read_frames(folder, split):
        wave, rate = read_audio(Path(utterance["wav"]), utterance["id"], folder)
        length = utterance["frame_ms"]
        sounds = classify(wave, rate, length / 1000)
        branch = np.array([int(b, 36) for b in utterance["branch"]])
        waiting = np.array(utterance["backlog_ms"]) / length
        found = np.digitize(waiting, [1e-3, 2.0])
        np.add.at(frames, (sounds, found), 1)
        np.add.at(taken, (branch, sounds, found), 1)
    return {
        **{k: result[k] for k in ("experiment", "seed", "split")},
        "data": heard(result),
        "device": device_of(result),
        "frames": frames.tolist(),
        "taken": taken.tolist(),
    }


def markdown_text(counts: Iterable[dict[str, Any]]) -> str:
    """A Markdown table of the percent of frames on a branch.

    The first branch; of several, all but the last.

    Arguments
    ---------
    counts : iterable of dict
        As `count_frames` gives them.
    """
    heads = ["Run", "all", *CLASSES]
    heads += [f"{name}, no backlog" for name in CLASSES]
    heads += ["all, backlog up to two frames", "all, more"]
    lines = ["| " + " | ".join(heads) + " |"]
    lines.append("| --- |" + " ---: |" * (len(heads) - 1))
    counts = list(counts)
    about = ("data", "split", "device")  # said where it tells runs apart
    told = [k for k in about if len({c.get(k) for c in counts}) > 1]
    for count in counts:
        frames = np.array(count["frames"])
        for k, taken in enumerate(np.array(count["taken"])[:-1]):
            pairs = [(taken.sum(), frames.sum())]
            pairs += list(zip(taken.sum(1), frames.sum(1)))
            pairs += list(zip(taken[:, 0], frames[:, 0]))
            pairs += list(zip(taken.sum(0)[1:], frames.sum(0)[1:]))
            cells = [
                f"{100 * part / whole:.0f}" if whole else "–"
                for part, whole in pairs
            ]
            run = f"`{count['experiment']}`, seed {count['seed']}"
            run += "".join(f", {count[k]}" for k in told if k in count)
            if len(count["taken"]) > 2:
                run += f", branch {k}"
            lines.append(f"| {cell(run)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def write_counts(counts: Sequence[dict[str, Any]], file: str | Path) -> None:
    """Keep the counts of some runs."""
    files.write(file, json.dumps(list(counts), indent=1) + "\n")


def read_counts(file: str | Path) -> list[dict[str, Any]]:
    """What `write_counts` wrote; a ValueError if the file is another."""
    try:
        counts = json.loads(Path(file).read_text(encoding="utf-8"))
        markdown_text(counts)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise ValueError(
            f"{file}: expected counts that `amnet learnt --publish` wrote"
        ) from error
    return counts
