"""DiffLinear as SpeechBrain's AdaptedModel uses it."""

import copy
from functools import partial

import pytest
import torch
from speechbrain.nnet.adapters import AdaptedModel, LoRA
from torch import nn

from speechbrain_amnet.diff.linear import DiffLinear
from speechbrain_amnet.diff.lowrank import LowRankDiff


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))


def test_names_stay_and_only_the_diff_learns(net):
    names, x = set(net.state_dict()), torch.randn(5, 4)
    plain = net(x)
    adapted = AdaptedModel(net, DiffLinear, target_layers=["0", "2"])
    assert torch.equal(adapted(x), plain)
    assert names < set(net.state_dict())
    optimizer = torch.optim.SGD(
        [p for p in adapted.parameters() if p.requires_grad], 0.1
    )
    adapted(x).sum().backward()
    before = net[0].weight.clone()
    optimizer.step()
    assert torch.equal(net[0].weight, before)
    assert not torch.equal(adapted(x), plain)


def test_saved_and_loaded_by_speechbrain(net, tmp_path):
    options = {"diff": LowRankDiff}
    other = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
    other.load_state_dict(net.state_dict())
    adapted, again = (
        AdaptedModel(m, DiffLinear, all_linear=True, adapter_kwargs=options)
        for m in (net, other)
    )
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.normal_()
    adapted.saver(tmp_path / "adapter.ckpt")
    again.loader(tmp_path / "adapter.ckpt", True)
    x = torch.randn(5, 4)
    assert torch.equal(adapted(x), again(x))


def test_kept_positions_are_never_lost(net, tmp_path):
    """`AdaptedModel` saves no buffers and loads what it finds."""
    fresh = copy.deepcopy(net)
    adapted, again = (
        AdaptedModel(m, DiffLinear, all_linear=True) for m in (net, fresh)
    )
    dense = copy.deepcopy(adapted)
    for layer in (net[0], net[2]):
        layer.diff.dense.data.normal_()
        layer.diff.keep(torch.tensor([4, 1]))
    adapted.saver(tmp_path / "adapter.ckpt")
    with pytest.raises(RuntimeError, match="values and not where they are"):
        again.loader(tmp_path / "adapter.ckpt", True)
    x, state = torch.randn(5, 4), copy.deepcopy(adapted.state_dict())
    trained = adapted(x)
    net[0].diff.keep(torch.tensor([0, 2, 3]))
    net[2].diff.values.data.mul_(100)
    net[2].diff.round(4)  # whose step is for larger values
    for other in (again, adapted):  # dense still, and with other positions
        assert not torch.equal(other(x), trained)
        other.load_state_dict(state)
        if other is adapted:
            rounded = net[2].diff.rounded(0)
            step = (rounded / net[2].diff.steps[0]).detach()
            assert step.abs().max().round() == 7
            net[2].diff.round(32)
        assert torch.equal(other(x), trained)
    with pytest.raises(RuntimeError, match="load it before keep"):
        adapted.load_state_dict(dense.state_dict(), strict=False)


def test_other_layers_are_refused():
    with pytest.raises(ValueError, match="expected a linear layer, got Conv1d"):
        DiffLinear(nn.Conv1d(1, 1, 1))


def test_low_rank_is_the_lora_of_speechbrain(net):
    """With the same factors: outputs, and what a step makes of both."""
    x, rank = torch.randn(5, 4), 2
    theirs = AdaptedModel(
        copy.deepcopy(net),
        LoRA,
        all_linear=True,
        adapter_kwargs={"rank": rank, "alpha": rank},
    )
    ours = AdaptedModel(
        net,
        DiffLinear,
        all_linear=True,
        adapter_kwargs={"diff": partial(LowRankDiff, rank=rank)},
    )
    for name in ("0", "2"):
        one = theirs.adapted_model.get_submodule(name)
        other = ours.adapted_model.get_submodule(name).diff
        with torch.no_grad():
            one.adapter_up_proj.weight.normal_()
            other.left.copy_(one.adapter_up_proj.weight)
            other.right.copy_(one.adapter_down_proj.weight)
    for model in (theirs, ours):
        learning = [p for p in model.parameters() if p.requires_grad]
        assert sum(p.numel() for p in learning) == rank * (4 + 3 + 3 + 2)
        optimizer = torch.optim.SGD(learning, 0.1)
        for _ in range(3):
            optimizer.zero_grad()
            model(x).square().sum().backward()
            optimizer.step()
    assert torch.allclose(theirs(x), ours(x), atol=1e-6)
