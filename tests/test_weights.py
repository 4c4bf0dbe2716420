"""Weight forms: the product, its cost, and the start from a dense matrix."""

import copy
import gc
import io
import pickle
import weakref
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from speechbrain_amnet import Dense, DiffModel, LowRank, Sparse, SparseDiff
from speechbrain_amnet.pruning import prune

FORMS = [Dense, partial(LowRank, rank=1), partial(LowRank, rank=3)]


def matrix_of(form):
    first, *rest = form.factors()
    return first @ rest[0] if rest else first


@pytest.mark.parametrize("make", FORMS)
def test_forward_is_the_product_with_the_matrix(make):
    form = make(6, 4)
    x = torch.randn(2, 5, 4)
    assert matrix_of(form).shape == (6, 4)
    torch.testing.assert_close(form(x), x @ matrix_of(form).t())


@pytest.mark.parametrize(
    "form, flops",
    [
        (Dense(6, 4), 2 * 24),
        (LowRank(6, 4, rank=1), 2 * (6 + 4)),
        (LowRank(6, 4, rank=3), 2 * 3 * (6 + 4)),
        # A layer of 256 on 320 features, as in the recipes.
        (Dense(1024, 320), 655_360),
        (LowRank(1024, 320, rank=32), 86_016),
    ],
)
def test_flops_are_two_a_multiply_add(form, flops):
    assert form.flops == flops
    # One multiply-add for each parameter.
    assert form.flops == 2 * sum(p.numel() for p in form.parameters())


@pytest.mark.parametrize("rows, columns", [(6, 4), (4, 6), (5, 5)])
@pytest.mark.parametrize("low_rank", [False, True])
def test_full_rank_copies_a_matrix_exactly(rows, columns, low_rank):
    form = Dense(rows, columns)
    if low_rank:
        form = LowRank(rows, columns, rank=min(rows, columns))
    matrix = torch.randn(rows, columns)
    form.copy_from(matrix)
    torch.testing.assert_close(matrix_of(form), matrix)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_lower_rank_copies_the_closest_matrix(rank):
    matrix = torch.randn(6, 4)
    form = LowRank(6, 4, rank=rank)
    form.copy_from(matrix)
    # Eckart and Young: no matrix of this rank is closer.
    closest = torch.linalg.svdvals(matrix)[rank:].square().sum().sqrt()
    error = torch.linalg.norm(matrix_of(form) - matrix)
    torch.testing.assert_close(error, closest)
    # Evenly shared, so that both factors learn at one rate.
    torch.testing.assert_close(
        torch.linalg.norm(form.left, dim=0),
        torch.linalg.norm(form.right, dim=1),
    )


@pytest.mark.parametrize("rank", [1, 16, 64])
def test_a_product_starts_with_a_dense_matrix_s_variance(rank):
    dense, low = Dense(512, 128), LowRank(512, 128, rank=rank)
    ratio = matrix_of(low).std() / matrix_of(dense).std()
    assert 0.85 < ratio.item() < 1.15


@pytest.mark.parametrize("rank", [-1, 0, 5, True])
def test_a_rank_that_the_matrix_cannot_have_is_named(rank):
    with pytest.raises(ValueError, match=rf"1 to 4 .* 6 x 4 .* got {rank}\."):
        LowRank(6, 4, rank=rank)


@pytest.mark.parametrize("make", FORMS)
def test_an_empty_matrix_is_refused(make):
    with pytest.raises(ValueError, match="0 x 4"):
        make(0, 4)


@pytest.mark.parametrize("energy, rank", [(0.5, 1), (0.9, 2), (1.0, 3)])
def test_a_rank_by_energy(energy, rank):
    """Singular values 4, 2, 1: squares 16, 4, 1 of 21."""
    u, _ = torch.linalg.qr(torch.randn(12, 3))
    v, _ = torch.linalg.qr(torch.randn(9, 3))
    matrix = u @ torch.diag(torch.tensor([4.0, 2.0, 1.0])) @ v.t()
    form = LowRank(12, 9, energy=energy)
    assert form.flops <= 2 * 12 * 9, "no dearer than dense before it is known"
    form.copy_from(matrix)
    assert form.rank == rank and form.flops == 2 * rank * (12 + 9)
    assert matrix_of(form).shape == (12, 9)
    torch.testing.assert_close(
        torch.linalg.matrix_norm(matrix - matrix_of(form)).square(),
        torch.tensor([5.0, 1.0, 0.0])[rank - 1],
        rtol=1e-3,
        atol=1e-4,
    )
    again = LowRank(12, 9, energy=energy)
    again.load_state_dict(form.state_dict())
    assert again.rank == rank
    capped = LowRank(12, 9, rank=2, energy=1.0)
    capped.copy_from(matrix)
    assert capped.rank == 2


def test_rank_or_energy():
    with pytest.raises(ValueError, match="give rank, energy, or both"):
        LowRank(6, 4)
    with pytest.raises(ValueError, match="energy must be above 0 .* got 0"):
        LowRank(6, 4, energy=0)


def pruned(share=0.5):
    form = Sparse(8, 6, density=0.25).eval()
    form.keep(int(share * 48))
    return form


def right(form):
    """Ask for the matrix as inference does; is it the masked weight?"""
    with torch.no_grad():
        return torch.equal(form.factors()[0], form.weight * form.mask)


def trained(form):
    """One step of an optimizer, in evaluation mode."""
    optimizer = torch.optim.AdamW(form.parameters(), lr=0.1)
    form(torch.randn(3, 6)).square().sum().backward()
    optimizer.step()


def diffed(form):
    """Beside its weight a diff, which then changes, too."""
    model = DiffModel({"form": form}, SparseDiff)
    assert right(form)
    with model.computed():
        assert right(form) and right(form)
    with torch.no_grad():
        model.diffs["form.weight"].dense.add_(1)
    assert right(form)
    model.merge()
    assert right(form)
    model.unmerge()


def replaced(form):
    """By another tensor, of the same version and at the same place."""
    form.weight = nn.Parameter(torch.randn(8, 6))
    assert right(form)
    turned = form.weight.data.as_strided((8, 6), (1, 8))
    form.weight = nn.Parameter(turned)


def stored_elsewhere(form):
    """As averages of weights are swapped in; no version tells it."""
    form.weight.data = torch.randn(8, 6)


def swapped(form):
    """As PyTorch may convert and load, but no tensor with weak references."""
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        form.half()
        assert right(form)
        loaded(form)
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)


def loaded(form):
    form.load_state_dict(pruned().state_dict())


def assigned(form):
    form.load_state_dict(pruned().state_dict(), assign=True)


CHANGES = {
    "training": trained,
    "keep": lambda form: form.keep(3),
    "copy_from": lambda form: form.copy_from(torch.randn(8, 6)),
    "load_state_dict": loaded,
    "assign": assigned,
    "mask": lambda form: form.mask.zero_(),
    "diff": diffed,
    "replaced": replaced,
    "data": stored_elsewhere,
    "double": lambda form: form.double(),
    "rounded": lambda form: form.half().float(),
    "swapped": swapped,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_the_masked_matrix_of_inference_is_that_of_now(change):
    form = pruned()
    assert right(form)
    change(form)
    assert right(form)


def test_inference_masks_once():
    form = pruned()
    with torch.no_grad():
        (one,), (other,) = form.factors(), form.factors()
        assert one is other
    with torch.inference_mode():
        assert form.factors()[0] is one
    # What learns has a gradient each time, and frees it.
    made = weakref.ref(one)
    del one, other
    assert form.factors()[0].requires_grad
    assert made() is None
    with torch.no_grad():
        assert form.train().factors()[0] is not form.factors()[0]


def test_weights_that_have_no_version_are_masked_anew():
    with torch.inference_mode():
        form = pruned()
        assert right(form)
        form.weight.mul_(2)
        assert right(form)


def test_the_masked_matrix_is_no_part_of_a_copy():
    form = pruned()
    before = list(form.state_dict())
    assert right(form)
    assert list(form.state_dict()) == before
    bare = len(pickle.dumps(pruned()))
    assert len(pickle.dumps(form)) == bare
    file = io.BytesIO()
    torch.save(form, file)
    file.seek(0)
    copies = [
        copy.deepcopy(form),
        pickle.loads(pickle.dumps(form)),
        torch.load(file, weights_only=False),
    ]
    with torch.no_grad():
        (ours,) = form.factors()
        for other in copies:
            assert other.factors()[0] is not ours and right(other)
            other.weight.mul_(2)
            assert right(other) and form.factors()[0] is ours
    parametrize.register_parametrization(form, "weight", nn.Identity())
    assert right(copy.deepcopy(form))


def test_the_masked_matrix_keeps_nothing_alive():
    form = pruned()
    assert right(form)
    refs = [weakref.ref(form), weakref.ref(form.weight)]
    gc.disable()  # what goes has no cycle
    try:
        form.weight = nn.Parameter(torch.randn(8, 6))
        assert refs[1]() is None
        del form
        assert refs[0]() is None
    finally:
        gc.enable()


def test_data_that_changed_is_seen_when_inference_begins():
    """PyTorch counts no version of `weight.data`."""
    form = pruned()
    assert right(form)
    form.weight.data.mul_(2)
    assert right(form.eval())


def test_what_is_traced_has_weight_and_mask():
    form = pruned()
    assert right(form)  # there is a product now
    x = torch.randn(2, form.columns)
    with torch.no_grad():
        traced = torch.jit.trace(form, x)
        assert torch.allclose(traced(x), form(x))
        exported = torch.export.export(form, (x,)).module()
        assert torch.allclose(exported(x), form(x))


def test_a_fresh_start_has_the_budget_of_its_density():
    """Pruned with others, a matrix had another."""
    forms = [Sparse(16, 8, 0.25), Sparse(16, 8, 0.25)]
    forms[0].weight.data.mul_(9)
    prune(forms, 1.0, "all")
    assert forms[0].flops > 2 * forms[0].goal
    for form in forms:
        form.copy_from(torch.randn(16, 8))
        assert form.flops == 2 * form.goal == 64
        assert form.eval().flops == 2 * 16 * 8


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision_counts_as_before(kind):
    """float16 holds nothing above 65504, bfloat16 not 301."""
    form = Sparse(1024, 1024, density=0.1).to(kind)
    assert form.weight.dtype == kind and form.flops == 2 * 104_858
    assert form.eval().flops == 2 * 1024 * 1024
    form.keep(104_857)
    assert form.flops == 2 * 104_857
    low = LowRank(700, 700, rank=301, energy=0.9).to(kind)
    assert low.rank == 301
    moved = LowRank(7, 7, energy=0.9).to("meta", kind)
    assert moved.kept.is_meta and moved.kept.dtype == torch.float32
