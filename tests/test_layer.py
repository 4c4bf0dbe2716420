"""One layer: what its branches share, and what each has of its own."""

from functools import partial

import pytest
import torch

from speechbrain_amnet import (
    AmortizedEncoder,
    Arbitrator,
    Dense,
    DiffModel,
    LowRank,
    Skip,
    Sparse,
    SparseDiff,
)
from speechbrain_amnet.layer import BranchedLayer, branch_forms, check_branches
from speechbrain_amnet.weights import OtherBranchesError, WeightForm

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


class Scaled(WeightForm):
    """A user's own: the weights of a module inside, times a number."""

    def __init__(self, rows, columns):
        super().__init__(rows, columns)
        self.inside = torch.nn.Linear(columns, rows, bias=False)
        self.scale = torch.nn.Parameter(torch.ones(()))

    def factors(self):
        return (self.scale * self.inside.weight,)

    @property
    def flops(self):
        return self.rows * self.columns


class Nothing(Skip):
    """A user's own that has no weights."""


class Constant(WeightForm):
    """A user's own that has none, and is no form of this package."""

    def factors(self):
        return (torch.ones(self.rows, self.columns),)

    @property
    def flops(self):
        return self.rows


def encoder(form):
    router = Arbitrator(INPUT, 2)
    return AmortizedEncoder(INPUT, HIDDEN, 2, [Dense, form], router)


SCALED = "a form of inside.weight, scale"


def test_a_state_dict_tells_a_user_s_form_by_its_tensors():
    """By which a training knows that it can go on from another's weights."""
    for form, said in ((Scaled, SCALED), (Nothing, "Skip")):
        state = encoder(form).state_dict()
        assert branch_forms(state) == ["Dense", said]
        encoder(form).load_state_dict(state)


@pytest.mark.parametrize(
    "ours, theirs, said",
    [
        (Scaled, Skip, "Scaled in the hparams, Skip in the weights"),
        (Scaled, Dense, "Scaled in the hparams, Dense in the weights"),
        (Constant, Scaled, f"Constant in the hparams, {SCALED} in the weights"),
        (Skip, Scaled, f"Skip in the hparams, {SCALED} in the weights"),
        (
            partial(LowRank, rank=2),
            Scaled,
            f"LowRank, rank 2 in the hparams, {SCALED} in the weights",
        ),
    ],
)
def test_a_user_s_form_is_called_by_its_class(ours, theirs, said):
    with pytest.raises(OtherBranchesError) as caught:
        encoder(ours).load_state_dict(encoder(theirs).state_dict())
    assert str(caught.value) == f"encoder: branches[1] is {said}"
    one, other = (encoder(form).state_dict() for form in (ours, theirs))
    with pytest.raises(OtherBranchesError, match=r"branches\[1\]"):
        check_branches(one, other)


def test_a_diff_beside_it_does_not_change_its_name():
    one = encoder(Scaled)
    DiffModel(one, SparseDiff)
    with pytest.raises(OtherBranchesError, match=r"\[1\] is Scaled in"):
        one.load_state_dict(encoder(Skip).state_dict())
