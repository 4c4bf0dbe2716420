"""The rows of experiments as a table, in Markdown and CSV, and in words."""

import csv
import io
import textwrap
from typing import Any

from speechbrain_amnet.report.markdown import cell
from speechbrain_amnet.report.summary import (
    COLUMNS,
    METHOD,
    PAPER_METHOD,
    REFERENCE,
    SPARSE_CONTROLS,
    SPARSE_METHODS,
    is_method,
)

PAPERS = (*SPARSE_METHODS, PAPER_METHOD)
LONGER = "full_longer"  # dense, trained as long as the amortized ones
CONTROLS = {"small", "factorized", "random", "energy"}
CONTROLS |= {"amnet_cost", "amnet_factorized_cost", "amnet_no_backlog"}


def markdown_text(rows: list[dict[str, Any]]) -> str:
    """What a Markdown file holds: the table and its sentence."""
    return f"{markdown_table(rows)}\n\n{headline(rows)}"


def markdown_table(rows: list[dict[str, Any]]) -> str:
    """The rows as a Markdown table.

    Data, device, commands and the wait after the last word have a column only
    where there is something to tell.
    """
    columns = {
        "Experiment": [f"`{cell(row['experiment'])}`" for row in rows],
        "Seeds": [str(row["seeds"]) for row in rows],
        "WER %": [
            ranged(f"{row['wer']:.1f}", row["wer_low"], row["wer_high"], "")
            for row in rows
        ],
        f"Points above `{REFERENCE}`": differences(rows, "difference"),
        "Points above AmNet": differences(rows, "above_amnet"),
        "Commands matched %": [
            shown(row["commands_matched"], ".1f") for row in rows
        ],
        "Commands right %": [
            shown(row["command_accuracy"], ".1f") for row in rows
        ],
        "Slots F1 %": [shown(row["slot_f1"], ".1f") for row in rows],
        "Intents right %": [
            shown(row["intent_accuracy"], ".1f") for row in rows
        ],
        "MFLOPs a frame": [
            shown(row["mflops_per_frame"], ".2f") for row in rows
        ],
        "Compute saved %": [
            shown(row["compute_saved"], ".1f", 100) for row in rows
        ],
        "Latency ms: mean / p50 / p90 / max": [
            " / ".join(
                shown(row[f"latency_{part}_ms"], ",.0f")
                for part in ("mean", "p50", "p90", "max")
            )
            for row in rows
        ],
        "Above floor ms": [
            shown(row["above_floor_ms"], ",.1f") for row in rows
        ],
        "After last word ms": [
            shown(row["last_word_ms"], ",.0f") for row in rows
        ],
        "Real-time factor": [
            shown(row["real_time_factor"], ".3f") for row in rows
        ],
        "Parameters": [shown(row["parameters"], ",.0f") for row in rows],
        "MB": [shown(row["megabytes"], ".1f") for row in rows],
    }
    for key, column in (
        ("above_amnet", "Points above AmNet"),
        ("commands_matched", "Commands matched %"),
        ("command_accuracy", "Commands right %"),
        ("slot_f1", "Slots F1 %"),
        ("intent_accuracy", "Intents right %"),
        ("last_word_ms", "After last word ms"),
    ):
        if all(row[key] is None for row in rows):
            del columns[column]
    front = {}
    if len({(row["data"], row["split"]) for row in rows}) > 1:
        front["Data"] = [cell(f"{row['data']} {row['split']}") for row in rows]
    if not one_device(rows):
        front["Device"] = [row["device"] for row in rows]
    columns = {**front, **columns}
    names = {*front, "Experiment"}
    lines = [list(columns), ["---" if c in names else "---:" for c in columns]]
    lines += zip(*columns.values())
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def differences(rows: list[dict[str, Any]], key: str) -> list[str]:
    """A column of differences with their intervals.

    And of how many seeds they are, where that is fewer than the row's.
    """
    return [
        "–"
        if row[key] is None
        else ranged(
            f"{row[key]:+.2f}", row[f"{key}_low"], row[f"{key}_high"], "+"
        )
        + fewer(row, key)
        for row in rows
    ]


def fewer(row: dict[str, Any], key: str) -> str:
    """Of how many seeds a difference is, where not of all of the row's.

    Example
    -------
    >>> fewer({"seeds": 5, "difference_seeds": 1}, "difference")
    ', 1 seed'
    """
    count = row[f"{key}_seeds"]
    if count in (None, row["seeds"]):
        return ""
    if not count:
        return ", other seeds"
    return f", {count} seed{'s' * (count > 1)}"


def terminal_text(rows: list[dict[str, Any]]) -> str:
    """What a terminal shows: the main columns, their meaning, the sentence."""
    columns = {
        "": [row["experiment"] for row in rows],
        "seeds": [str(row["seeds"]) for row in rows],
        "WER %": [f"{row['wer']:.1f}" for row in rows],
        f"vs {REFERENCE}": [
            shown(row["difference"], "+.2f") + fewer(row, "difference")
            for row in rows
        ],
        "vs AmNet": [
            shown(row["above_amnet"], "+.2f") + fewer(row, "above_amnet")
            for row in rows
        ],
        "saved %": [shown(row["compute_saved"], ".1f", 100) for row in rows],
        "MFLOPs": [shown(row["mflops_per_frame"], ".2f") for row in rows],
        "latency ms": [shown(row["latency_mean_ms"], ",.0f") for row in rows],
        "above floor": [shown(row["above_floor_ms"], ",.1f") for row in rows],
        "real time": [shown(row["real_time_factor"], ".3f") for row in rows],
    }
    if all(row["above_amnet"] is None for row in rows):
        del columns["vs AmNet"]
    if len({(row["data"], row["split"]) for row in rows}) > 1:
        data = [f"{row['data']} {row['split']}" for row in rows]
        columns = {"data": data, **columns}
    if not one_device(rows):
        columns = {"device": [row["device"] for row in rows], **columns}
    lines = []
    for line in zip(*([name, *cells] for name, cells in columns.items())):
        lines.append("")
        for name, text in zip(columns, line):
            width = max(map(len, [name, *columns[name]]))
            words = name in ("", "data", "device")
            lines[-1] += f"{text:{'<' if words else '>'}{width}}  "
    table = "\n".join(line.rstrip() for line in lines)
    return (
        f"{table}\n\nLatency: mean wait from the last sample until the last "
        "frame is encoded, on the\nstated device; its floor is what the last "
        "frame itself takes. Real time: computing\ntime on this machine, in "
        "durations of the audio.\n\n"
        + textwrap.fill(headline(rows).replace("`", ""), 88)
    )


def ranged(text: str, low: float | None, high: float | None, sign: str) -> str:
    """A figure and its interval.

    Example
    -------
    >>> ranged("+0.26", -0.9, 1.5, "+")
    '+0.26 (-0.9 to +1.5)'
    """
    if low is None or high is None:
        return text
    # Adding 0 turns -0.0 into 0.0.
    low, high = round(low, 1) + 0.0, round(high, 1) + 0.0
    return f"{text} ({low:{sign}.1f} to {high:{sign}.1f})"


def shown(value: float | None, form: str, factor: float = 1) -> str:
    """A figure, or a dash."""
    return "–" if value is None else f"{factor * value:{form}}"


def one_device(rows: list[dict[str, Any]]) -> bool:
    """Whether all rows are for the same device."""
    if len({row["device"] for row in rows}) == 1:
        return True
    speeds = [row["speed"] for row in rows]
    # `r` refers to an encoder's own dense branch, the speed to nothing.
    return None not in speeds and max(speeds) <= 1.01 * min(speeds)


def csv_table(rows: list[dict[str, Any]]) -> str:
    """The rows as CSV, every column of `COLUMNS`, empty where not known."""
    out = io.StringIO()
    writer = csv.DictWriter(
        out, COLUMNS, extrasaction="ignore", lineterminator="\n"
    )
    writer.writeheader()
    for row in rows:
        writer.writerow(
            {k: round(v, 6) if type(v) is float else v for k, v in row.items()}
        )
    return out.getvalue()


def headline(rows: list[dict[str, Any]]) -> str:
    """What the table says, in one sentence."""
    names = {row["experiment"] for row in rows}
    # The whole method: by that name, or by those of the paper's two.
    ours = {METHOD} & names or set(PAPERS) & names
    found = [
        (row, full)
        for row in rows
        for full in rows
        if row["experiment"] in ours
        and full["experiment"] == REFERENCE
        and (row["data"], row["split"]) == (full["data"], full["split"])
    ]
    if not found:
        runs = sum(row["seeds"] for row in rows)
        sets = sorted({f"{row['data']} {row['split']}" for row in rows})
        return (
            f"Experiments: {len(rows)}, runs: {runs}, on {', '.join(sets)}; "
            f"`{METHOD}` and `{REFERENCE}` are not both among them"
            f"{' on the same data' * (len(sets) > 1)}."
        )
    sentences = []
    for name in sorted(ours):
        pairs = [pair for pair in found if pair[0]["experiment"] == name]
        if pairs:
            row, full = min(pairs, key=_other_device)
            sentences.append(_compared(row, full))
            sentences.append(_longer(row, rows))
            sentences.append(_unequal(row, rows))
    return " ".join(filter(None, sentences))


def _longer(row, rows):
    """What the dense network has that was trained as long, if one was."""
    for other in rows:
        same = (other["data"], other["split"]) == (row["data"], row["split"])
        known = other["above_amnet"] is not None and is_method(
            row["experiment"]
        )
        if same and known and other["experiment"] == LONGER:
            change = other["above_amnet"]
            side = "higher" if change > 0 else "lower"
            within = ranged(
                f"{abs(change):.2f} points {side}",
                other["above_amnet_low"],
                other["above_amnet_high"],
                "+",
            )
            return (
                f"`{LONGER}`, the dense network after as long a training, has "
                f"a WER that is {within}."
            )
    return ""


def _unequal(row, rows):
    """Which controls compute clearly more or less, so that all can see it."""
    found, ours = [], is_method(row["experiment"])
    for other in rows:
        same = (other["data"], other["split"]) == (row["data"], row["split"])
        controls = CONTROLS if ours else SPARSE_CONTROLS
        if same and other["experiment"] in controls:
            excess = other["flops_over_amnet"]  # of the same seeds
            if excess is None:
                excess = other["mflops_per_frame"] / row["mflops_per_frame"] - 1
            if abs(excess) > 0.03:
                found.append(f"`{other['experiment']}` {100 * excess:+.0f} %")
    if not found:
        return ""
    return (
        "Not at its FLOPs, which controls should be within 3 %: "
        f"{', '.join(found)} (of the seed that is farthest off)."
    )


def _other_device(pair):
    return pair[0]["device"] != pair[1]["device"]


def _compared(row, full):
    """What an AmNet saves, and at which price, in one sentence."""
    change = row["difference"]
    within = ranged(
        f"{abs(change):.2f} points {'higher' if change > 0 else 'lower'}",
        row["difference_low"],
        row["difference_high"],
        "+",
    ).replace("(", "(95 % interval ")
    if row["difference_seeds"] == 0:
        within += " (of other seeds)"
    elif part := fewer(row, "difference"):
        within += f" ({part.removeprefix(', ')} of {row['seeds']})"
    instead = ""  # a wait on another device tells nothing
    if one_device([row, full]):
        waited = shown(full["latency_mean_ms"], ",.0f")
        instead = f" instead of {waited} ms"
    return (
        f"On {row['data']} {row['split']}, `{row['experiment']}` saves "
        f"{shown(row['compute_saved'], '.0f', 100)} % of the dense encoder's "
        f"computation{_whole(row)} and answers "
        f"{shown(row['latency_mean_ms'], ',.0f')} ms after the last sample"
        f"{instead}, at a WER {within}, reckoned by FLOPs for a device "
        f"{device_in_words(row['device'])}."
    )


def _whole(row):
    """What that is of the whole recogniser, where it is known."""
    share = row["recogniser_saved"]
    if share is None:
        return ""
    return (
        f" ({100 * share:.0f} % of the recogniser's, with features, predictor "
        "and joint)"
    )


def device_in_words(device: str) -> str:
    """A device as the end of a sentence.

    Example
    -------
    >>> device_in_words("r = 2")
    'on which a dense frame takes 2 frame durations'
    """
    if device.startswith("r = "):
        load = device.removeprefix("r = ")
        return f"on which a dense frame takes {load} frame durations"
    return f"of {device}"
