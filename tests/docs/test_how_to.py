"""The code of docs/how-to-own-recipe.md, run as it stands on the page."""

import re
from pathlib import Path

import pytest
import torch
from hyperpyyaml import load_hyperpyyaml

PAGE = Path(__file__).parents[2] / "docs" / "how-to-own-recipe.md"


def blocks(language):
    """The page's code blocks of one language."""
    text = PAGE.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """All names of the page's Python after it ran, and what was watched."""
    folder = tmp_path_factory.mktemp("own-recipe")
    (yaml,) = blocks("yaml")
    (folder / "ctc.yaml").write_text(yaml)
    python = blocks("python")
    names = {"losses": [], "starts": []}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        exec(compile(python[0], str(PAGE), "exec"), names)
        watch(names)
        for block in python[1:]:
            exec(compile(block, str(PAGE), "exec"), names)
    return names


def watch(names):
    """Notes each step's loss without routing, and the start of routing."""
    brain = names["CTC"]
    fit_batch, forward = brain.fit_batch, brain.compute_forward

    def noted_forward(self, batch, stage):
        encoder = self.hparams.encoder
        if stage.name == "TRAIN" and encoder.routed and not names["starts"]:
            dense, low = encoder.layers[0].recurrent
            router = encoder.router.state_dict()
            names["starts"].append(
                {
                    "step": self.optimizer_step,
                    "dense": dense.weight.detach().clone(),
                    "low": (low.left @ low.right).detach(),
                    "router": {k: v.clone() for k, v in router.items()},
                }
            )
        return forward(self, batch, stage)

    def noted_batch(self, batch):
        loss = fit_batch(self, batch)
        names["losses"].append(float(loss))
        return loss

    brain.fit_batch, brain.compute_forward = noted_batch, noted_forward


def test_loss_falls(page):
    losses = page["losses"]
    assert len(losses) == page["brain"].total_steps
    warm = len(losses) * 4 // 10
    assert sum(losses[warm - 4 : warm]) < 0.5 * sum(losses[:4])
    assert sum(losses[-4:]) < 0.5 * sum(losses[:4])


def test_small_branch_starts_from_the_dense_one(page):
    (start,) = page["starts"]
    assert start["step"] == 0.4 * page["brain"].total_steps
    u, s, v = torch.linalg.svd(start["dense"])
    closest = u[:, :8] * s[:8] @ v[:8]
    torch.testing.assert_close(start["low"], closest, atol=1e-5, rtol=1e-4)


def test_arbitrator_learns(page):
    (start,) = page["starts"]
    now = page["encoder"].router.state_dict()
    for name, value in start["router"].items():
        assert not torch.equal(value, now[name]), name
    assert now["temperature"] == 200


def test_gradient_reaches_the_arbitrator(page):
    brain, encoder = page["brain"], page["encoder"]
    brain.modules.train()
    encoder.router.temperature.fill_(1.0)
    stage = page["sb"].Stage.TRAIN
    predictions = brain.compute_forward(page["batch"], stage)
    encoder.zero_grad()
    brain.compute_objectives(predictions, page["batch"], stage).backward()
    encoder.router.temperature.fill_(200.0)
    for name, parameter in encoder.router.named_parameters():
        assert parameter.grad.abs().sum() > 0, name


def test_evaluation_is_hard(page):
    shares = page["routing"].shares
    assert set(shares.unique().tolist()) <= {0.0, 1.0}
    assert page["encoded"].requires_grad is False


def test_streaming_equals_batch(page):
    brain, wav = page["brain"], page["wav"]
    modules = brain.modules.eval()
    with torch.no_grad():
        feats, lengths = modules.features(wav, torch.ones(1))
        encoded, _ = modules.encoder(feats, lengths)
        whole = page["hparams"]["log_softmax"](modules.output(encoded))
    torch.testing.assert_close(page["streamed"], whole, atol=1e-5, rtol=1e-5)


def test_yaml_takes_overrides(tmp_path):
    """Overrides of SpeechBrain's command line work on it."""
    (yaml,) = blocks("yaml")
    hparams = load_hyperpyyaml(
        yaml, {"epochs": 3, "save_folder": str(tmp_path)}
    )
    assert hparams["epoch_counter"].limit == 3
