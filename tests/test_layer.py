"""One layer: what its branches share, and what each has of its own."""

from functools import partial

import pytest
import torch

from speechbrain_amnet import Dense, LowRank, Skip, Sparse
from speechbrain_amnet.layer import BranchedLayer, branch_forms

INPUT, HIDDEN = 6, 5
BRANCHES = [
    Dense,
    partial(Sparse, density=0.4),
    partial(LowRank, rank=2),
    Skip,
]


def build():
    layer = BranchedLayer(INPUT, HIDDEN, BRANCHES)
    for bias in layer.bias:
        torch.nn.init.normal_(bias)
    return layer


def test_the_forget_gate_starts_open():
    for bias in BranchedLayer(INPUT, HIDDEN, BRANCHES).bias[:3]:
        assert bias.reshape(4, HIDDEN).mean(1).tolist() == [0, 0, 1, 0]


@pytest.mark.parametrize("started", [False, True])
def test_a_skip_begins_with_handing_the_cell_on(started):
    """Whatever the biases are of the branch that it starts from."""
    layer, other = BranchedLayer(INPUT, HIDDEN, BRANCHES), build()
    if started:
        layer.start_from(0, 3, other)
    x, cell = torch.randn(20, INPUT), torch.randn(HIDDEN)
    new, come, keep, out = layer.project(x, 3).chunk(4, -1)
    kept = cell * keep.sigmoid() + come.sigmoid() * new.tanh()
    assert (kept - cell).abs().max() < 0.1
    if started:
        theirs = other.bias[0].chunk(4)
        assert torch.equal(new[0], theirs[0]) and torch.equal(out[0], theirs[3])


@pytest.mark.parametrize("branch", range(len(BRANCHES)))
def test_mixed_is_the_branch_where_its_share_is_one(branch):
    layer, x = build(), torch.randn(3, 7, INPUT)
    shares = torch.eye(len(BRANCHES))[branch].expand(3, 7, -1)
    alone = layer.project(x, branch)
    torch.testing.assert_close(layer.project_mixed(x, shares), alone)


def test_mixed_is_the_sum_by_shares():
    layer, x = build(), torch.randn(3, 7, INPUT)
    shares = torch.rand(3, 7, len(BRANCHES)).softmax(-1)
    each = [layer.project(x, k) for k in range(len(BRANCHES))]
    expected = sum(share * one for share, one in zip(shares.split(1, -1), each))
    torch.testing.assert_close(layer.project_mixed(x, shares), expected)


def test_a_branch_starts_from_another_layer_s():
    layer, other = build(), build()
    layer.start_from(0, 1, other)
    x = torch.randn(4, INPUT)
    # All of it at first; pruning comes later.
    torch.testing.assert_close(layer.project(x, 1), other.project(x, 0))
    layer.start_from(1, 0)
    torch.testing.assert_close(layer.project(x, 0), other.project(x, 0))


def test_cost_is_that_of_both_matrices():
    layer = BranchedLayer(INPUT, HIDDEN, BRANCHES)
    gates = 4 * HIDDEN
    assert layer.flops(0) == 2 * gates * (INPUT + HIDDEN)
    assert layer.flops(2) == 2 * 2 * (2 * gates + INPUT + HIDDEN)
    assert layer.flops(3) == 0


def test_a_state_dict_says_its_branches():
    said = ["Dense", "Sparse, density 0.4", "LowRank, rank 2", "Skip"]
    two = torch.nn.ModuleList(
        BranchedLayer(size, HIDDEN, BRANCHES) for size in (INPUT, HIDDEN)
    )
    for layer in two:  # before and after they are pruned
        state = {f"layers.{n}": v for n, v in two.state_dict().items()}
        assert branch_forms(state) == said
        for part in (layer.input, layer.recurrent):
            part[1].keep(part[1].goal)
    assert branch_forms(state) == said and branch_forms({}) == []
