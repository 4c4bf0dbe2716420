"""docs/how-to-new-words.md: its words are new, its figures the results'."""

import json
from pathlib import Path
from statistics import mean

from speechbrain_amnet.corpus.releases import RELEASES

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "how-to-new-words.md").read_text(encoding="utf-8")


def test_the_first_release_brings_the_words():
    assert {"LEDECKY", "KALISZ"} <= RELEASES[0].words


def test_figures_are_those_of_the_results():
    """As the last line of train_diff.py says them."""
    results = ROOT / "recipes" / "LibriSpeech" / "results"
    records = json.loads((results / "diff_first.json").read_text())
    fulls, sparses = (
        [r for r in records if r["method"] == method and fits(r["budget"])]
        for method, fits in (
            ("full", bool),
            ("sparse", lambda budget: 0.015 < budget < 0.03),
        )
    )
    (full,), (sparse,) = (
        [r for r in some if r["seed"] == 1] for some in (fulls, sparses)
    )
    share = 100 * sparse["bytes"] / sparse["model_bytes"]
    assert (
        f"update.diff: {sparse['bytes']:,} bytes, {share:.2f} % of the model; "
        f"WER on what is new {sparse['base_wer']:.1f} -> {sparse['wer']:.1f} %,"
        f" on what is old {sparse['base_old_wer']:.1f} -> "
        f"{sparse['old_wer']:.1f} %"
    ) in PAGE.replace("\n> ", " ")
    text = " ".join(PAGE.split())
    assert f"{full['bytes'] / 1e6:.1f} MB, come to {full['wer']:.1f} %" in text
    assert f"and {full['old_wer']:.1f} % on what is old" in text
    means = [
        mean(r[key] for r in some)
        for some in (sparses, fulls)
        for key in ("wer", "old_wer")
    ]
    assert (
        "Over three seeds it is {:.1f} and {:.1f} with 58 kB, {:.1f} and "
        "{:.1f} with all.".format(*means)
    ) in text
    readme = " ".join((ROOT / "README.md").read_text().split())
    assert (
        f"{sparse['bytes'] / 1e3:.0f} kB, 2 % of the model's bytes, lowers the "
        f"word errors on what is new from {sparse['base_wer']:.1f} to "
        f"{means[0]:.1f} %; all weights, trained as long and all sent, to "
        f"{means[2]:.1f} % (means of three seeds;"
    ) in readme
    assert len(fulls) == len(sparses) == 3
