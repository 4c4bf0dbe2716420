"""Results in words: a table for the terminal, a sentence for each."""

from collections.abc import Sequence
from typing import Any


def table(results: Sequence[dict[str, Any]]) -> str:
    """The main figures of some results, one column each."""
    rows = [
        ("", [f"{r['data']} {r['split']}" for r in results]),
        ("word errors, %", [f"{r['wer']:.2f}" for r in results]),
        (
            "  95 % interval",
            ["{:.1f} - {:.1f}".format(*r["wer_interval"]) for r in results],
        ),
        ("  all branches mixed", [_show(r["soft_wer"], 2) for r in results]),
        (
            "commands matched, %",
            [_show(r["commands_matched"], 1) for r in results],
        ),
        *(
            (
                name,
                [_show(r[key], 1) for r in results],
            )
            for name, key in (
                ("commands right, %", "command_accuracy"),
                ("slots, F1, %", "slot_f1"),
                ("intents right, %", "intent_accuracy"),
            )
        ),
        ("MFLOPs a frame", [f"{r['mflops_per_frame']:.3f}" for r in results]),
        (
            "compute saved, %",
            [f"{100 * r['compute_saved']:.1f}" for r in results],
        ),
        (
            "  of the whole recogniser",
            [_show(_percent(r.get("recogniser_saved")), 1) for r in results],
        ),
        (
            "frames on each branch, %",
            [
                " ".join(f"{100 * s:.0f}" for s in r["branch_shares"])
                for r in results
            ],
        ),
        (
            "sharp decisions, %",
            [f"{100 * r['sharp_share']:.2f}" for r in results],
        ),
        *(
            (
                f"latency, {name.replace('_', ' ')}, ms",
                [f"{r['latency_ms'][name]:.1f}" for r in results],
            )
            for name in ("mean", "p50", "p90", "max", "floor")
        ),
        (
            "after the last word, ms",
            [_show((r["last_word_ms"] or {}).get("mean"), 0) for r in results],
        ),
        (
            "real-time factor",
            [_show(r["real_time_factor"], 3) for r in results],
        ),
        ("peak memory, MB", [_show(r["peak_memory_mb"], 0) for r in results]),
    ]
    rows = [row for row in rows if any(value != "-" for value in row[1])]
    width = max(len(value) for _, values in rows for value in values)
    return "\n".join(
        f"{name:26}" + "".join(f"  {value:>{width}}" for value in values)
        for name, values in rows
    )


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _show(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def sentence(results: dict[str, Any]) -> str:
    """The results of a split, in one sentence."""
    low, high = results["wer_interval"]
    waits, device = results["latency_ms"], results["device"]
    return (
        f"{results['data']} {results['split']}: {results['wer']:.1f} % word "
        f"errors ({low:.1f} to {high:.1f}) in {results['words']} words, with "
        f"{100 * results['compute_saved']:.0f} % less computation than the "
        f"dense encoder, and {waits['mean']:.0f} ms of latency (floor "
        f"{waits['floor']:.0f} ms) {on_device(**device)}."
    )


def on_device(load: float | None, flops_per_second: float) -> str:
    """The device that latencies are reckoned for, in words.

    Example
    -------
    >>> on_device(2.0, 1.5e8)
    'on a device where a dense frame takes 2 times its duration'
    """
    if load is None:
        return f"on a device of {flops_per_second / 1e6:.0f} MFLOP/s"
    return f"on a device where a dense frame takes {load:g} times its duration"


def branch_names(count: int) -> list[str]:
    """How a legend calls the branches.

    Example
    -------
    >>> branch_names(3)
    ['dense', 'cheap', 'cheaper']
    """
    if count == 1:
        return ["single branch"]
    if count <= 3:
        return ["dense", "cheap", "cheaper"][:count]
    return ["dense", *(f"branch {k}" for k in range(1, count))]
