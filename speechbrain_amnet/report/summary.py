"""A row an experiment: means over its seeds, intervals, its difference.

Intervals are 95 % and come from resampling the utterances, the same for every
experiment. Differences to `full` and to an AmNet are paired: by utterance, and
by seed, as a run begins with the dense network of its seed: of the seeds that
both have, which may be fewer than a row's. The AmNet is the one that was
trained for the row's device, with a low-rank branch; for a sparse network that
with a sparse one.
"""

from typing import Any

import numpy as np

from speechbrain_amnet.report.results import (
    group_of,
    read_utterances,
)

REFERENCE, METHOD = "full", "amnet"
BEGUN = "_from_full"  # what began with a trained network, and so does its rival
PAPER_METHOD = "amnet_factorized_backlog"  # `amnet` in the paper's table
SPARSE_METHODS = ("amnet_sparse_backlog", "amnet_sparse")  # the same
SPARSE_CONTROLS = {"sparse", "random_sparse", "amnet_sparse_cost"}
SPARSE = SPARSE_CONTROLS | {"amnet_sparse_blocks"}
FIRST = (  # the order of the rows; then by name
    REFERENCE,
    "sparse",
    "factorized",
    "small",
    "amnet",
    "amnet_sparse_cost",
    "amnet_sparse_backlog",
    "amnet_factorized_cost",
    "amnet_factorized_backlog",
)

COLUMNS = (
    "data",
    "split",
    "device",
    "experiment",
    "seeds",
    "wer",
    "wer_low",
    "wer_high",
    "difference",
    "difference_low",
    "difference_high",
    "difference_seeds",
    "above_amnet",
    "above_amnet_low",
    "above_amnet_high",
    "above_amnet_seeds",
    "flops_over_amnet",
    "commands_matched",
    "command_accuracy",
    "slot_f1",
    "intent_accuracy",
    "mflops_per_frame",
    "compute_saved",
    "recogniser_saved",
    "latency_mean_ms",
    "latency_p50_ms",
    "latency_p90_ms",
    "latency_max_ms",
    "above_floor_ms",
    "last_word_ms",
    "real_time_factor",
    "parameters",
    "megabytes",
)


# Words and, in each run, errors; by utterance.
Utterances = dict[str, tuple[int, np.ndarray]]


def summarise(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Average the runs of each experiment, and compare with `full`.

    Arguments
    ---------
    results : list of dict
        As `read_results` gives them.

    Returns
    -------
    list of dict
        A row an experiment (and data, split, device), with the keys of
        `COLUMNS`; None for what is not known. Figures are means over the
        seeds; `latency_max_ms` is the longest of all.
    """
    groups: dict[tuple, list[dict[str, Any]]] = {}
    for result in results:
        groups.setdefault(group_of(result), []).append(result)
    utterances = {key: errors_of(runs) for key, runs in groups.items()}
    rows = []
    for key in sorted(groups, key=place):
        row = average(groups[key], utterances[key])
        other = reference_of(key, groups, REFERENCE)
        if other is not None and other != key:
            row.update(compare(*of_same_seeds(groups[key], groups[other])))
        other = method_of(key, groups)
        if other is not None:
            row.update(beside(*of_same_seeds(groups[key], groups[other])))
        rows.append({column: row.get(column) for column in COLUMNS})
        rows[-1]["speed"] = groups[key][0]["device"].get("flops_per_second")
    return rows


def place(key: tuple[str, str, str, str]) -> tuple:
    """Sorts rows: by data, then full, small, amnet, the others by name."""
    data, split, device, experiment = key
    rank = FIRST.index(experiment) if experiment in FIRST else len(FIRST)
    return data, split, rank, experiment, device


def reference_of(
    key: tuple, groups: dict[tuple, Any], name: str
) -> tuple | None:
    """The group of an experiment that a group is compared with."""
    found = [k for k in groups if k[:2] == key[:2] and k[3] == name]
    same_device = [k for k in found if k[2] == key[2]]
    return next(iter(same_device + found), None)


def method_of(key: tuple, groups: dict[tuple, Any]) -> tuple | None:
    """The group of the amortized network that a group is compared with.

    With a seed that both have: a difference between seeds is none of methods.
    """
    begun = f"{METHOD}{BEGUN}"
    if key[3] in (REFERENCE, begun) or is_method(key[3]):
        return None
    ours = SPARSE_METHODS.__contains__ if key[3] in SPARSE else is_method
    if key[3].endswith(BEGUN):
        ours = begun.__eq__
    seeds = {run["seed"] for run in groups[key]}
    found = [
        other
        for other, runs in groups.items()
        if other[:3] == key[:3]
        and ours(other[3])
        and seeds & {run["seed"] for run in runs}
    ]
    # `amnet` may have been evaluated for a device that it was not trained for.
    found.sort(key=lambda other: not other[3].startswith(f"{METHOD}_load_"))
    return next(iter(found), None)


def is_method(experiment: str) -> bool:
    """Whether it is `amnet`, by its name in the paper, or for one device.

    Example
    -------
    >>> is_method("amnet_load_4"), is_method("amnet_cost")
    (True, False)
    """
    return experiment in (METHOD, PAPER_METHOD) or experiment.startswith(
        f"{METHOD}_load_"
    )


def average(
    runs: list[dict[str, Any]],
    utterances: Utterances | None,
) -> dict[str, Any]:
    """The row of one experiment, without its difference to another."""
    runs = sorted(runs, key=lambda run: run["seed"])
    check_alike(runs)

    def mean(*keys: str) -> float | None:
        values = [dig(run, keys) for run in runs]
        return None if None in values else float(np.mean(values))

    low = high = None
    if len(runs) == 1:
        low, high = runs[0]["wer_interval"]
    elif utterances:
        low, high = interval(utterances)
    longest = [dig(run, ("latency_ms", "max")) for run in runs]
    data, split, device, experiment = group_of(runs[0])
    return {
        "data": data,
        "split": split,
        "device": device,
        "experiment": experiment,
        "seeds": len(runs),
        "wer": mean("wer"),
        "wer_low": low,
        "wer_high": high,
        "commands_matched": mean("commands_matched"),
        "command_accuracy": mean("command_accuracy"),
        "slot_f1": mean("slot_f1"),
        "intent_accuracy": mean("intent_accuracy"),
        "mflops_per_frame": mean("mflops_per_frame"),
        "compute_saved": mean("compute_saved"),
        "recogniser_saved": mean("recogniser_saved"),
        "latency_mean_ms": mean("latency_ms", "mean"),
        "latency_p50_ms": mean("latency_ms", "p50"),
        "latency_p90_ms": mean("latency_ms", "p90"),
        "latency_max_ms": None if None in longest else max(longest),
        "above_floor_ms": mean("latency_ms", "above_floor"),
        "last_word_ms": mean("last_word_ms", "mean"),
        "real_time_factor": mean("real_time_factor"),
        "parameters": mean("parameters"),
        "megabytes": mean("megabytes"),
    }


def dig(value: Any, keys: tuple[str, ...]) -> float | None:
    """`value[key][key]...`; stops early at a number, None if it is absent."""
    for key in keys:
        if not isinstance(value, dict):
            break
        value = value.get(key)
    return value


def of_same_seeds(
    ours: list[dict[str, Any]], theirs: list[dict[str, Any]]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The runs of two experiments that can be compared.

    Those of the seeds that both have, or all where there are none.
    """
    both = {r["seed"] for r in ours} & {r["seed"] for r in theirs}
    if not both:
        return ours, theirs
    return (
        [r for r in ours if r["seed"] in both],
        [r for r in theirs if r["seed"] in both],
    )


def compare(
    our_runs: list[dict[str, Any]], their_runs: list[dict[str, Any]]
) -> dict[str, float | None]:
    """Difference in WER, in points, and its interval over paired utterances.

    And over the seeds that both have; there are 0 of these where they have none
    in common, and then it is of the means of all.
    """
    low = high = None
    check_alike([*our_runs, *their_runs])
    wers = [
        np.mean([r["wer"] for r in runs]) for runs in (our_runs, their_runs)
    ]
    our_runs, their_runs = (
        sorted(runs, key=lambda run: run["seed"])
        for runs in (our_runs, their_runs)
    )
    paired = [r["seed"] for r in our_runs] == [r["seed"] for r in their_runs]
    ours, theirs = errors_of(our_runs), errors_of(their_runs)
    if ours and theirs:
        check_pairing(ours, theirs, our_runs[0]["path"], their_runs[0]["path"])
        if paired:
            ours = {
                id: (words, errors - theirs[id][1])
                for id, (words, errors) in ours.items()
            }
        low, high = interval(ours, None if paired else theirs)
    return {
        "difference": float(wers[0] - wers[1]),
        "difference_low": low,
        "difference_high": high,
        "difference_seeds": len(our_runs) if paired else 0,
    }


def check_alike(runs: list[dict[str, Any]]) -> None:
    """Refuses different grammars of one name, and noises."""
    for what, key in (("grammars", "grammar"), ("noises", "noise")):
        known = [run for run in runs if run.get(f"{key}_digest")]
        for run in known:
            if run[f"{key}_digest"] != known[0][f"{key}_digest"]:
                raise ValueError(
                    f"{known[0]['path']} and {run['path']} are of different "
                    f"{what} of one name; rename one, and evaluate again"
                )


def beside(
    our_runs: list[dict[str, Any]], their_runs: list[dict[str, Any]]
) -> dict[str, float | None]:
    """Difference in WER to the method's runs, and in FLOPs, as a share."""
    found = compare(our_runs, their_runs)
    return {
        "above_amnet": found["difference"],
        "above_amnet_low": found["difference_low"],
        "above_amnet_high": found["difference_high"],
        "above_amnet_seeds": found["difference_seeds"],
        "flops_over_amnet": flops_over(our_runs, their_runs),
    }


def flops_over(
    our_runs: list[dict[str, Any]], their_runs: list[dict[str, Any]]
) -> float:
    """By which share the FLOPs of a frame are above the others'.

    Of the seed with the largest distance, up or down: as differences are
    paired by seed, one that is above does not make up for one that is below.
    """
    ours, theirs = (
        {run["seed"]: run["mflops_per_frame"] for run in runs}
        for runs in (our_runs, their_runs)
    )
    if ours.keys() == theirs.keys():
        shares = [ours[seed] / theirs[seed] - 1 for seed in sorted(ours)]
    else:
        means = (np.mean(list(some.values())) for some in (ours, theirs))
        shares = [float(next(means) / next(means) - 1)]
    return max(shares, key=abs)


def errors_of(results: list[dict[str, Any]]) -> Utterances | None:
    """Words of each utterance, and its errors in each run, ``[runs]``."""
    runs = [read_utterances(result) for result in results]
    if any(run is None for run in runs):
        return None
    for result, run in zip(results, runs):
        check_pairing(runs[0], run, results[0]["path"], result["path"])
    return {
        id: (words, np.array([run[id][1] for run in runs], dtype=float))
        for id, (words, _) in runs[0].items()
    }


def check_pairing(first: dict, second: dict, path: Any, other: Any) -> None:
    """Refuses to compare runs on different utterances."""
    ids = sorted(
        id
        for id in first.keys() | second.keys()
        if id not in first or id not in second or first[id][0] != second[id][0]
    )
    if ids:
        raise ValueError(
            f"{path} and {other} are not of the same utterances "
            f"({len(ids)} differ, for instance {ids[0]})"
        )


def interval(
    utterances: Utterances, others: Utterances | None = None
) -> tuple[float, float]:
    """`bootstrap` of what `errors_of` gives, in the order of the ids."""
    ids = sorted(utterances)
    words = np.array([utterances[id][0] for id in ids], dtype=float)
    errors, less = (
        some and np.stack([some[id][1] for id in ids], 1)
        for some in (utterances, others)
    )
    return bootstrap(errors, words, less=less)


def bootstrap(
    errors: np.ndarray,
    words: np.ndarray,
    resamples: int = 10_000,
    seed: int = 0,
    less: np.ndarray | None = None,
) -> tuple[float, float]:
    """95 % interval of `100 * sum(errors) / sum(words)`.

    Over utterances and, where there are several, over trainings.

    Arguments
    ---------
    errors : numpy.ndarray
        Of each utterance, `[utterances]`, or in each training
        `[trainings, utterances]`; or the difference of two systems'.
    words : numpy.ndarray
        Of each utterance, `[utterances]`.
    resamples : int
        How often utterances, and trainings, are drawn with replacement.
    seed : int
        Of the draws.
    less : numpy.ndarray, optional
        Errors to take off, in trainings that are not those of `errors` one by
        one; as `errors`.

    Returns
    -------
    tuple of float
        Lower and upper end, in percent.

    Example
    -------
    >>> bootstrap(np.array([1, 1, 1]), np.array([4, 4, 4]))
    (25.0, 25.0)
    """
    # RandomState's numbers never change with NumPy's version; a table that
    # is compared to the letter needs that.
    random, rates = np.random.RandomState(seed), []
    others = np.random.RandomState(seed + 1)

    def mean_errors(some, drawn):
        """Of each resample, over trainings that are drawn, too."""
        found = np.atleast_2d(some)[:, drawn].sum(2)
        if len(found) > 1:
            seeds = others.randint(0, len(found), found.shape, dtype=np.int64)
            found = np.take_along_axis(found, seeds, 0)
        return found.mean(0)

    for start in range(0, resamples, 500):
        size = min(500, resamples - start), len(words)
        drawn = random.randint(0, len(words), size, dtype=np.int64)
        found = mean_errors(errors, drawn)
        if less is not None:
            found = found - mean_errors(less, drawn)
        rates.append(100 * found / words[drawn].sum(1))
    low, high = np.percentile(np.concatenate(rates), [2.5, 97.5])
    return float(low), float(high)
