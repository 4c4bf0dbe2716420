"""Weight forms: the product, its cost, and the start from a dense matrix."""

from functools import partial

import pytest
import torch

from speechbrain_amnet import Dense, LowRank

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
