"""Pruning: the smallest go, for good, until the density is reached."""

from functools import partial

import pytest
import torch

from speechbrain_amnet import (
    AmortizedEncoder,
    Arbitrator,
    Dense,
    LowRank,
    Skip,
    Sparse,
)
from speechbrain_amnet.pruning import prune


def forms(density=0.25, block=1):
    return [
        Sparse(16, 8, density, block),
        Sparse(16, 4, density, block),
    ]


@pytest.mark.parametrize("scope", ["matrix", "all"])
def test_the_largest_are_kept(scope):
    both = forms()
    before = [form.weight.detach().clone() for form in both]
    before[0].mul_(2)
    both[0].weight.data.mul_(2)
    prune(both, 1.0, scope)
    kept = [form.factors()[0] != 0 for form in both]
    assert sum(int(k.sum()) for k in kept) == 48
    if scope == "matrix":
        assert [int(k.sum()) for k in kept] == [32, 16]
        for k, weight in zip(kept, before):
            assert weight[k].abs().min() >= weight[~k].abs().max()
    else:
        assert int(kept[0].sum()) > 32
        lost = torch.cat([w[~k] for k, w in zip(kept, before)]).abs()
        left = torch.cat([w[k] for k, w in zip(kept, before)]).abs()
        assert left.min() >= lost.max()
    # What is planned and what there is agree in the end.
    for form, k in zip(both, kept):
        planned = form.flops
        assert planned == form.eval().flops == 2 * int(k.sum())


def test_pruned_in_steps_while_the_rest_trains():
    (form, _) = forms()
    optimizer = torch.optim.AdamW(form.parameters(), lr=0.1)
    gone = torch.zeros(16, 8, dtype=torch.bool)
    for step in range(5):
        prune([form], step / 4)
        assert int(form.mask.sum()) == 128 - 24 * step
        assert not (form.mask[gone] != 0).any(), "what is gone stays gone"
        gone = form.mask == 0
        kept = form.factors()[0].detach().clone()
        optimizer.zero_grad()
        form(torch.randn(3, 8)).square().sum().backward()
        assert not form.weight.grad[gone].any()
        optimizer.step()
        moved = form.factors()[0] != kept
        assert moved[~gone].all() and not moved[gone].any()


def test_blocks_go_together():
    (form, _) = forms(density=0.25, block=4)
    prune([form], 1.0)
    mask = form.mask.reshape(4, 4, 8)
    assert ((mask == mask[:, :1]).all()) and int(mask.sum()) == 32
    scores = form.weight.detach().reshape(4, 4, 8).square().sum(1)
    assert form.flops == form.eval().flops == 64
    kept = mask[:, 0] == 1
    assert scores[kept].min() >= scores[~kept].max()


def test_a_density_is_reached_in_whole_blocks():
    form = Sparse(64, 32, density=0.1, block=8)
    planned = form.flops
    prune([form], 1.0)
    assert form.eval().flops == planned == 2 * int(form.mask.sum())


def test_the_plan_is_what_routing_is_learnt_for():
    """In training the cost is the goal's, in evaluation what there is."""
    encoder = AmortizedEncoder(
        12,
        16,
        2,
        [Dense, lambda r, c: Sparse(r, c, density=0.1), Skip],
        Arbitrator(12, branches=3),
    )
    dense, planned, skip = encoder.branch_flops
    assert skip == encoder.router.flops
    assert planned < 0.12 * dense + skip
    assert encoder.eval().branch_flops[1] == dense
    encoder.prune(1.0)
    assert encoder.branch_flops[1] == planned


def test_an_encoder_of_all_forms():
    """Soft equals hard when one-hot, streaming equals batch."""
    encoder = AmortizedEncoder(
        12,
        16,
        2,
        [
            Dense,
            lambda r, c: LowRank(r, c, energy=0.9),
            lambda r, c: Sparse(r, c, density=0.1),
            Skip,
        ],
        Arbitrator(12, branches=4),
    )
    encoder.start_routing()
    encoder.prune(0.5)
    x = torch.randn(2, 9, 12)
    encoded, _ = encoder(x)
    encoded.square().sum().backward()
    lost = encoder.layers[0].recurrent[2]
    assert not lost.weight.grad[lost.mask == 0].any()
    encoder.prune(1.0)
    with torch.no_grad():
        encoder.router.temperature.fill_(1e6)
        encoder.router.out.weight.mul_(30)
        soft, routing = encoder(x)
        assert routing.shares.max(-1).values.min() > 0.999
        encoder.eval()
        hard, again = encoder(x)
    assert len(again.choice.unique()) > 2
    same = routing.choice == again.choice  # planned and real cost agree
    assert same.all()
    torch.testing.assert_close(soft, hard, rtol=1e-3, atol=1e-4)
    context = encoder.make_streaming_context(batch=2)
    parts = [encoder.forward_streaming(c, context) for c in x.split(2, 1)]
    torch.testing.assert_close(torch.cat(parts, 1), hard)


def test_weights_pruned_in_other_blocks_are_refused():
    single, blocks = Sparse(8, 4, 0.5), Sparse(8, 4, 0.5, block=4)
    single.keep(16)
    with pytest.raises(ValueError, match="not pruned in blocks of 4 rows"):
        blocks.load_state_dict(single.state_dict())
    blocks.keep(16)
    single.load_state_dict(blocks.state_dict())
    assert torch.equal(single.mask, blocks.mask)


def test_all_matrices_of_a_branch_may_share_its_density():
    router = Arbitrator(input_size=6, branches=2)
    encoder = AmortizedEncoder(
        6, 8, 2, [Dense, partial(Sparse, density=0.25)], router=router
    )
    with torch.no_grad():
        encoder.layers[0].input[1].weight.mul_(10)
    forms = [f for f in encoder.modules() if isinstance(f, Sparse)]
    encoder.prune(0.5, "all")  # on the way each is planned as it will be
    assert [form.flops for form in forms] == [2 * form.goal for form in forms]
    encoder.prune(1.0, "all")
    kept = [int(form.kept) for form in forms]
    assert kept[0] > forms[0].goal  # more of it than of the others
    assert sum(kept) == pytest.approx(sum(f.goal for f in forms), abs=4)


def test_what_cannot_be_is_named():
    for no_share in (True, float("nan")):
        with pytest.raises(ValueError, match="density must be"):
            Sparse(8, 4, density=no_share)
    with pytest.raises(ValueError, match="block must divide .* got True"):
        Sparse(8, 4, density=0.5, block=True)
    with pytest.raises(ValueError, match="density must be .* got 0"):
        Sparse(8, 4, density=0)
    with pytest.raises(ValueError, match="density must be .* got 1.5"):
        Sparse(8, 4, density=1.5)
    with pytest.raises(ValueError, match="block must divide .* 8 rows, got 3"):
        Sparse(8, 4, density=0.5, block=3)
    with pytest.raises(ValueError, match="matrix, all, got 'layer'"):
        prune([], 0.5, "layer")
    with pytest.raises(ValueError, match="share must be 0 to 1, got 2"):
        prune([], 2)
