"""The recipe's pages, the list of experiments, and hparams/librispeech.yaml."""

import re
import shlex
from pathlib import Path

import pytest
import torch

from speechbrain_amnet.hparams import load_hparams

ROOT = Path(__file__).parents[2]
HPARAMS = ROOT / "hparams"
RECIPE = ROOT / "recipes" / "LibriSpeech"
BLOCKS = [
    block
    for name in ("README.md", "RESULTS.md")
    for block in re.findall(
        r"^```(\w*)\n(.*?)^```$",
        (RECIPE / name).read_text("utf-8"),
        re.M | re.S,
    )
]


def commands():
    """Each command of the pages, as its words."""
    text = "".join(block for language, block in BLOCKS if not language)
    lines = text.replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines]


def test_every_experiment_is_listed():
    text = (HPARAMS / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `(\S+\.yaml)` \|", text, re.M)
    assert sorted(listed) == sorted(p.name for p in HPARAMS.glob("*.yaml"))


def test_no_command_takes_the_folder_of_others():
    """What is trained with `--set` is not what was trained without it."""
    folders = {}
    for words in commands():
        if "train_releases.py" in words:
            out = [w for w in words if w.startswith("--out=")]
            for what in words[words.index("--methods") + 1 :]:
                if what.startswith("-"):
                    break
                folders.setdefault((*out, what), set()).add(" ".join(words))
    assert folders and all(len(f) == 1 for f in folders.values())


@pytest.mark.parametrize(
    "text", [block for language, block in BLOCKS if language == "yaml"]
)
def test_experiments_of_the_pages_load(text, tmp_path):
    (tmp_path / "hparams").symlink_to(HPARAMS)
    for file in HPARAMS.glob("*.yaml"):
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "own.yaml").write_text(text)
    values = {"data_folder": "none", "output_folder": str(tmp_path / "out")}
    hparams = load_hparams(tmp_path / "own.yaml", {**values, "layers": 1})
    assert hparams["experiment"] in ("full_large", "mine")


def test_librispeech_takes_a_step(tmp_path):
    """As it is, but for the input: a second of random audio, in bf16."""
    values = {"data_folder": "none", "output_folder": str(tmp_path / "out")}
    hparams = load_hparams(HPARAMS / "librispeech.yaml", values)
    assert len(hparams["encoder"].layers) == 5
    assert hparams["encoder"].hidden_size == 1024
    assert hparams["precision"] == "bf16"
    frames, tokens = torch.randn(2, 8, 320), torch.randint(1, 1000, (2, 3))
    hparams["encoder"].start_routing(copy=False)  # the SVD takes a while
    ones = torch.ones(2)
    with torch.autocast("cpu", torch.bfloat16):
        encoded, routing = hparams["encoder"](frames, ones)
        logits = hparams["joint"](encoded, hparams["predictor"](tokens))
        loss = hparams["transducer_loss"](logits, tokens, ones, ones)
        parts = hparams["routing_loss"](
            routing, ones, hparams["encoder"].dense_flops
        )
    (loss + parts["total"]).backward()
    assert logits.shape == (2, 8, 4, 1000)
    for name in ("encoder", "predictor", "joint"):
        for key, parameter in hparams[name].named_parameters():
            assert parameter.grad.isfinite().all(), (name, key)
            assert parameter.grad.abs().sum() > 0, (name, key)
