"""Diffs in training: gradients, gates, what is kept, and what travels."""

import numpy as np
import pytest
import torch
from torch import nn

from speechbrain_amnet.diff.hashed import HashDiff, _Hashed
from speechbrain_amnet.diff.lowrank import LowRankDiff
from speechbrain_amnet.diff.sparse import SparseDiff, _AddAt, _AddGated

WEIGHT = torch.randn(6, 5, generator=torch.manual_seed(0))


def filled(diff):
    """With numbers where it learns."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in diff.parameters():
            parameter.copy_(torch.randn(parameter.shape))
    return diff


KINDS = {
    "sparse": lambda **o: SparseDiff(WEIGHT, "w", **o),
    "hash": lambda **o: HashDiff(WEIGHT, "w", share=0.3, seed=3, **o),
    "lowrank": lambda **o: LowRankDiff(WEIGHT, "w", rank=2, **o),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_diff_changes_nothing(kind):
    assert torch.equal(KINDS[kind]()(WEIGHT), WEIGHT)


@pytest.mark.parametrize("kind", KINDS)
def test_start_comes_as_near_as_the_kind_can(kind, monkeypatch):
    monkeypatch.setattr("speechbrain_amnet.diff.hashed.BLOCK", 7)
    target = KINDS[kind]().delta() + torch.randn(WEIGHT.shape)
    diff = KINDS[kind]()
    diff.start(target)
    near = (diff.delta() - target).square().sum()
    if kind == "sparse":
        assert near == 0
    # No small step in any direction of its numbers comes nearer.
    (diff.delta() - target).square().sum().backward()
    for parameter in diff.parameters():
        assert parameter.grad.abs().max() < 1e-4
    # What it can express it begins with exactly.
    again = KINDS[kind]()
    again.start(diff.delta())
    torch.testing.assert_close(again.delta(), diff.delta())


@pytest.mark.parametrize("kind", KINDS)
def test_linear_combination(kind):
    diff = filled(KINDS[kind](alpha=0.5, beta=2.0))
    expected = 0.5 * WEIGHT + 2 * diff.delta()
    assert torch.allclose(diff(WEIGHT), expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("beta", [1.0, 0.5])
def test_what_travels_is_what_was_trained(kind, beta):
    diff = filled(KINDS[kind](beta=beta))
    if kind == "sparse":
        diff.keep(torch.tensor([20, 3, 11]))
    new = diff.change(bits=32).apply(WEIGHT.numpy())
    assert np.allclose(new, diff(WEIGHT).detach().numpy(), atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_other_alpha_does_not_travel(kind):
    diff = filled(KINDS[kind](alpha=0.5))
    if kind == "sparse":
        diff.keep(torch.tensor([3]))
    with pytest.raises(ValueError, match="alpha must be 1"):
        diff.change()


def test_gradients():
    generator = torch.Generator().manual_seed(0)
    options = {"dtype": torch.double, "generator": generator}
    weight = torch.randn(4, 3, **options).requires_grad_()
    values = torch.randn(5, **options).requires_grad_()
    positions = torch.tensor([0, 2, 3, 7, 11])
    assert torch.autograd.gradcheck(_AddAt.apply, (weight, values, positions))
    dense = weight.detach().clone().requires_grad_()
    for threshold, temperature in ((0.5, 2.0), (1.0, 0.0), (0.1, 7.0)):
        numbers = 0.5, threshold, temperature
        assert torch.autograd.gradcheck(
            _AddGated.apply, (weight, dense, *numbers)
        )
    for cache in (False, True):
        diff = HashDiff(torch.ones(8, 5, dtype=torch.double), share=5 / 40)
        diff.cache = cache
        assert torch.autograd.gradcheck(_Hashed.apply, (values, diff))


def test_a_product_that_begins_at_zero_still_learns():
    diff = LowRankDiff(torch.ones(6, 5), rank=2)
    diff.start(torch.zeros(6, 5))
    assert not diff.delta().any()
    diff.delta().sum().backward()
    assert diff.left.grad.any()


@pytest.mark.parametrize("cache", [False, True])
def test_hashing_in_blocks_is_the_same(cache, monkeypatch):
    def found():
        diff = filled(HashDiff(torch.ones(40, 25), "w", 0.01, cache=cache))
        whole = diff.delta()
        whole.square().sum().backward()
        assert (diff.cached is not None) == cache
        assert not cache or "cached" not in diff.state_dict()
        return whole, diff.buckets.grad

    whole, gradient = found()
    assert len(gradient) == 10
    monkeypatch.setattr("speechbrain_amnet.diff.hashed.BLOCK", 64)
    parts, other = found()
    assert torch.equal(whole, parts)
    assert torch.allclose(gradient, other, rtol=1e-5)


def test_gate_becomes_a_threshold():
    diff = filled(SparseDiff(WEIGHT))
    dense = diff.dense.detach()
    diff.gate(0.5, 0.0)
    assert torch.allclose(diff.delta(), dense / 2)
    diff.gate(0.5, 1e6)
    hard = dense * (dense.abs() > 0.5)
    assert torch.allclose(diff.delta(), hard)
    diff.gate(0.5, 2.0)
    diff.delta().sum().backward()
    assert diff.dense.grad.isfinite().all() and diff.dense.grad.any()


def test_only_kept_positions_learn():
    diff = filled(SparseDiff(WEIGHT))
    before = diff.dense.detach().flatten()
    diff.keep(torch.tensor([7, 2]))
    assert [p.numel() for p in diff.parameters()] == [2]
    assert diff.positions.tolist() == [2, 7]
    assert torch.equal(diff.values.detach(), before[[2, 7]])
    diff(WEIGHT).sum().backward()
    assert diff.values.grad.tolist() == [1, 1]
    changed = (diff(WEIGHT) != WEIGHT).flatten().nonzero().flatten()
    assert changed.tolist() == [2, 7]
    diff.keep(torch.tensor([7, 2]), torch.tensor([70.0, 20.0]))
    assert diff.values.tolist() == [20, 70]


@pytest.mark.parametrize("bits", [3, 4, 8])
@pytest.mark.parametrize("beta", [1.0, -2.0])
@pytest.mark.parametrize("kind", KINDS)
def test_rounding_in_training_is_that_of_the_file(kind, beta, bits):
    diff = filled(KINDS[kind](beta=beta))
    if kind == "sparse":
        diff.keep(torch.arange(0, 30, 2))
    exact = diff(WEIGHT).detach()
    diff.round(bits)
    with torch.no_grad():
        for parameter in diff.parameters():
            parameter.add_(0.01)  # a step later
    now = diff(WEIGHT).detach()
    new = diff.change(bits).apply(WEIGHT.numpy())
    assert np.allclose(new, now.numpy(), atol=1e-6)
    assert all(v.stored.ndim == 1 for v in diff.change(bits).values)
    diff(WEIGHT).square().sum().backward()
    own = [(p, p.grad.clone(), p.detach().clone()) for p in diff.parameters()]
    # Gradients are those of the rounded values.
    diff.zero_grad()
    with torch.no_grad():
        for i, (parameter, _, _) in enumerate(own):
            parameter.copy_(diff.rounded(i))
    diff.round(32)
    assert torch.allclose(diff(WEIGHT), now, atol=1e-6)
    diff(WEIGHT).square().sum().backward()
    for parameter, gradient, was in own:
        assert torch.allclose(parameter.grad, gradient, rtol=1e-4)
        with torch.no_grad():
            parameter.copy_(was - 0.01)
    assert torch.allclose(diff(WEIGHT), exact, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_loaded_is_rounded_by_its_own_step(kind):
    diffs = [filled(KINDS[kind]()) for _ in range(2)]
    for diff in diffs:
        if kind == "sparse":
            diff.keep(torch.arange(0, 30, 2))
    state = diffs[0].state_dict()
    with torch.no_grad():
        for parameter in diffs[1].parameters():
            parameter.mul_(100)
    for diff in diffs:
        diff.round(4)
    assert not torch.allclose(diffs[0](WEIGHT), diffs[1](WEIGHT))
    diffs[1].load_state_dict(state)
    assert torch.equal(diffs[0](WEIGHT), diffs[1](WEIGHT))


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_put_in_is_rounded_by_its_own_step(kind):
    diff = filled(KINDS[kind]())
    if kind == "sparse":
        diff.keep(torch.arange(0, 30, 2), torch.full((15,), 0.01))
    diff.round(4)
    diff.start(torch.full(WEIGHT.shape, 5.0))
    assert diff.delta().max().item() == pytest.approx(5, rel=0.2)
    if kind == "sparse":
        diff.keep(torch.tensor([1]), torch.tensor([90.0]))
        assert diff.delta().max().item() == pytest.approx(90)
    vector = LowRankDiff(torch.zeros(4))
    vector.start(torch.full((4,), 0.01))
    vector.round(4)
    vector.start(torch.full((4,), 5.0))
    assert vector.delta().max().item() == pytest.approx(5)


def test_a_state_of_another_hash_is_refused():
    diff, state = KINDS["hash"](), filled(KINDS["hash"]()).state_dict()
    for seed, name in ((4, "w"), (3, "v")):
        other = HashDiff(WEIGHT, name, share=0.3, seed=seed)
        with pytest.raises(RuntimeError, match="of another seed or name than"):
            other.load_state_dict(state)
        assert not other.buckets.any()
    del state["_extra_state"]  # as older ones are
    diff.load_state_dict(state)
    assert torch.equal(diff.delta(), filled(KINDS["hash"]()).delta())


def test_a_state_has_the_gate():
    diff = filled(KINDS["sparse"]())
    diff.gate(0.5, 20.0)
    state = diff.state_dict()
    again = KINDS["sparse"]()
    again.load_state_dict(state)
    assert torch.equal(again(WEIGHT), diff(WEIGHT))
    del state["_extra_state"]
    diff.load_state_dict(state)
    assert torch.equal(again(WEIGHT), diff(WEIGHT))


def test_seeds_are_those_that_files_have():
    for seed in (1.0, True, "1", None):
        with pytest.raises(ValueError, match="seed must be an integer, got"):
            HashDiff(WEIGHT, seed=seed)
    diff = filled(HashDiff(WEIGHT, "w", seed=np.int64(3)))
    assert type(diff.change().seed) is int


@pytest.mark.parametrize("kind", ["hash", "lowrank"])
def test_what_is_zero_still_is_not_rounded(kind):
    diff = KINDS[kind]()
    diff.round(4)
    assert diff.change(4) is None
    with torch.no_grad():
        for parameter in diff.parameters():
            parameter.add_(0.1)
    assert diff.delta().any()
    assert np.allclose(
        diff.change(4).apply(WEIGHT.numpy()),
        diff(WEIGHT).detach().numpy(),
        atol=0.05,
    )


def test_vectors_are_rounded_too():
    bias = torch.randn(7)
    diff = filled(LowRankDiff(bias, rank=2))
    diff.right.data.fill_(1.0)
    diff.round(4)
    new = diff.change(4).apply(bias.numpy())
    assert np.allclose(new, diff(bias).detach().numpy(), atol=1e-6)
    assert not torch.allclose(diff.delta(), diff.left.flatten())


def test_what_is_zero_does_not_travel():
    assert HashDiff(WEIGHT).change() is None
    assert LowRankDiff(WEIGHT).change() is None
    diff = SparseDiff(WEIGHT)
    with pytest.raises(ValueError, match="dense still"):
        diff.change()
    diff.keep(torch.tensor([], dtype=torch.int64))
    assert diff.change() is None


def test_vectors_and_kernels():
    kernel = torch.randn(4, 3, 5)
    diff = filled(LowRankDiff(kernel, rank=2))
    assert diff.delta().shape == kernel.shape
    new = diff.change(32).apply(kernel.numpy())
    assert np.allclose(new, diff(kernel).detach().numpy(), atol=1e-6)
    bias = torch.randn(7)
    diff = LowRankDiff(bias, rank=2)
    with torch.no_grad():
        diff.left.fill_(0.5)
    assert torch.allclose(diff(bias), bias + 0.5)
    assert np.allclose(diff.change(32).apply(bias.numpy()), bias + 0.5)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: HashDiff(WEIGHT, share=0), "share must be above 0"),
        (lambda: LowRankDiff(WEIGHT, rank=0), "rank must be 1 or more"),
    ],
)
def test_mistakes(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def kept_by(diff):
    """Numbers that autograd keeps of a step, beyond weight and diff."""
    saved, own = [], {id(p) for p in diff.parameters()}
    weight = torch.zeros(diff.shape)
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: saved.append(t) or t, lambda t: t
    ):
        diff(weight).sum()
    return sum(t.numel() for t in saved if id(t) not in own)


def test_a_step_holds_nothing_as_large_as_the_weights():
    diff = HashDiff(torch.randn(200, 200), share=0.01)
    assert kept_by(diff) <= 400 and diff.cached is None
    held = [v for v in vars(diff).values() if torch.is_tensor(v)]
    assert not held and not list(diff.buffers())
    gated = SparseDiff(torch.randn(200, 200))
    torch.nn.init.normal_(gated.dense)
    gated.gate(0.5, 2.0)
    assert kept_by(gated) == 0


def test_what_is_cached_is_of_this_seed():
    diff = filled(HashDiff(WEIGHT, "w", share=0.3, seed=3, cache=True))
    assert torch.equal(diff.delta(), filled(KINDS["hash"]()).delta())
    diff.seed = 4
    now = torch.from_numpy(diff.change(32).apply(0 * WEIGHT.numpy()))
    assert torch.allclose(diff.delta(), now)


def test_a_gate_in_half_precision_has_no_nan():
    diff = SparseDiff(WEIGHT.half())
    with torch.no_grad():
        diff.dense.copy_(torch.linspace(-9, 9, 30).reshape(6, 5))
    diff.gate(1e-5, 8.0)  # ratios that half precision does not hold
    diff.delta().sum().backward()
    assert diff.delta().isfinite().all() and diff.dense.grad.isfinite().all()
    assert torch.equal(diff.delta(), diff.dense)


def test_embedding_gradients_reach_the_diff():
    table = nn.Embedding(10, 4)
    table.weight.requires_grad_(False)
    diff = SparseDiff(table.weight)
    nn.utils.parametrize.register_parametrization(table, "weight", diff)
    table(torch.tensor([3])).sum().backward()
    assert diff.dense.grad.sum(1).tolist() == [0, 0, 0, 4] + 6 * [0]


def test_rounded_values_that_are_none_are_not_sent():
    diff = SparseDiff(torch.randn(6, 5), "w")
    with torch.no_grad():
        diff.dense.normal_()
    diff.keep(torch.arange(4))
    diff.round(4)
    assert diff.change(4) is not None
    with torch.no_grad():
        diff.values[1] = float("nan")
    with pytest.raises(ValueError, match="NaN or infinity"):
        diff.change(4)
