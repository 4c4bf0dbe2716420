"""docs/how-to-update.md does what it says, on numbers that can be learnt."""

import re
import shlex
from pathlib import Path

import torch

from speechbrain_amnet import DiffModel
from speechbrain_amnet.cli import main

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "how-to-update.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.M | re.S)


def accuracy(folder, features, words):
    """Of the model in a folder, as plain SpeechBrain loads it."""
    from hyperpyyaml import load_hyperpyyaml

    (text,) = [text for language, text in BLOCKS if language == "yaml"]
    modules = load_hyperpyyaml(text, {"updated": None})["modules"]
    for name, module in modules.items():
        module.load_state_dict(torch.load(folder / f"{name}.ckpt"))
    encoded, _ = modules["encoder"](features)
    found = modules["output"](encoded).mean(1).argmax(-1)
    return (found == words).float().mean().item()


def test_the_page_updates_a_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    (text,) = [text for language, text in BLOCKS if language == "yaml"]
    Path("keywords.yaml").write_text(text)
    # A word is a direction in the features, which an untrained model ignores.
    words = torch.arange(10).repeat(16)
    said = torch.randn(10, 40)[words][:, None]
    features = said + 0.5 * torch.randn(160, 12, 40)
    data = torch.utils.data.TensorDataset(features, words)
    batches = torch.utils.data.DataLoader(data, 32, shuffle=True)
    deployed = tmp_path / "deployed"
    deployed.mkdir()
    from hyperpyyaml import load_hyperpyyaml

    for name, module in load_hyperpyyaml(text, {"updated": None})[
        "modules"
    ].items():
        torch.save(module.state_dict(), deployed / f"{name}.ckpt")
    assert accuracy(deployed, features, words) < 0.4

    space = {"batches": batches}
    for language, code in BLOCKS:
        if language == "python":
            exec(compile(code, "how-to-update.md", "exec"), space)
    weights = sum(p.numel() for p in space["hparams"]["encoder"].parameters())
    assert space["size"] < 0.05 * 4 * (weights + 10_000)
    modules = load_hyperpyyaml(text, {"updated": None})["modules"]
    hashed = DiffModel(modules, space["hashed"])
    for parameter in hashed.diff_parameters():
        torch.nn.init.normal_(parameter)
    size = hashed.save("h.diff", "5%", bits=8)
    assert 0.8 < size / (0.05 * 4 * hashed.size) <= 1
    (commands,) = [text for language, text in BLOCKS if not language]
    for line in commands.splitlines()[:-1]:
        assert main(shlex.split(line)[1:]) == 0
    assert accuracy(tmp_path / "next" / "model", features, words) > 0.9
    assert main(shlex.split(commands.splitlines()[-1])[1:]) == 0
    again = accuracy(tmp_path / "next" / "model", features, words)
    assert again == accuracy(deployed, features, words)
