"""What a training says of its data before it begins."""

import logging
import os
import shutil

import numpy as np
import pytest
from speechbrain.dataio.dataset import DynamicItemDataset


@pytest.fixture
def read(train, tones, tmp_path, caplog):
    """Makes the datasets of changed data; gives them and what was said."""
    import data

    def read(change=lambda folder: None, **values):
        folder = shutil.copytree(tones, tmp_path / "data")
        change(folder)
        hparams = {
            "data_folder": folder,
            "save_folder": tmp_path / "save",
            "train_splits": ["train"],
            "valid_splits": ["dev"],
            "test_splits": ["test"],
            "sample_rate": 16000,
            "resample": False,
            "start_from": None,
            "token_type": "char",
            "tokens": 30,
            "max_seconds": 10,
            **values,
        }
        with caplog.at_level(logging.WARNING):
            sets = data.make_data(hparams)
        return sets, [record.getMessage() for record in caplog.records]

    return read


def test_nothing_is_said_of_data_as_they_should_be(read):
    assert read()[1] == []


def test_letters_that_only_dev_and_test_have(read):
    """They are read all the same."""

    def change(folder):
        for split, new in (("dev", "D'OH"), ("test", "\u00d6")):
            (file,) = (folder / split).rglob("*.trans.txt")
            first, *rest = file.read_text().splitlines()
            lines = [f"{first} {new}", *rest]
            file.write_text("\n".join(lines))

    sets, said = read(change)
    assert said == [
        "dev: no tokens for ', H, in 1 of 3 utterances, where each counts as "
        "an error",
        "test: no tokens for \u00d6, in 1 of 3 utterances, where it counts as "
        "an error",
    ]
    assert len(sets["test"]) == 3


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_recordings_to_learn_from_and_to_be_measured_on(read, link):
    def change(folder):
        """One of dev's is one of train's, by another name."""
        first = min((folder / "train").rglob("*.flac"))
        file = min((folder / "dev").rglob("*.flac"))
        file.unlink()
        link(first, file)

    _, said = read(change, test_splits=["train"])
    assert len(said) == 2
    start, end = "recordings that train trains with, too", "of other speech"
    for line, count in zip(said, ("dev: 1 of 3", "train: 12 of 12")):
        assert line.startswith(f"{count} utterances are {start}")
        assert line.endswith(end)


def test_what_is_too_long_is_said_to_be_left_out(read):
    """An utterance has one word or three, of a quarter of a second each."""
    sets, said = read(max_seconds=0.6)
    left = len(sets["train"])
    assert 0 < left < 12
    assert said == [
        f"{12 - left} of 12 training utterances are longer than max_seconds = "
        "0.6 and left out"
    ]


@pytest.mark.parametrize(
    "seconds, buckets", [(30, 6), (60, 6), (400, 6), (30, 30)]
)
def test_batches_are_filled_with_speech_of_like_length(train, seconds, buckets):
    """However large they are: with SpeechBrain's own edges they were not."""
    import data

    lengths = np.random.default_rng(0).lognormal(0.8, 0.5, 3000).clip(0.5, 20)
    rows = {str(n): {"duration": x} for n, x in enumerate(lengths.tolist())}
    sampler, *_ = data.make_loaders(
        {"train": DynamicItemDataset(rows)},
        {
            "batch_seconds": seconds,
            "buckets": buckets,
            "seed": 1,
            "num_workers": 0,
        },
    )
    batches = [lengths[batch] for batch in sampler]
    assert sum(map(len, batches)) == len(lengths)
    padded = [len(batch) * batch.max() for batch in batches]
    assert max(padded) <= seconds
    assert sum(padded) / len(padded) > 0.6 * min(seconds, 200)
    share = lengths.sum() / sum(padded)
    assert share > 0.75
