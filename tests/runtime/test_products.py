"""A layer's product is that of its matrices, in every form."""

import numpy as np
import pytest

from speechbrain_amnet.runtime import blocks, int8, products


def factors(random, rows, columns, rank):
    """One factor, or two of a rank."""
    shapes = (
        [(rows, columns)] if rank is None else [(rows, rank), (rank, columns)]
    )
    return [random.standard_normal(s).astype("float32") for s in shapes]


def test_a_sparse_matrix_in_either_form():
    random = np.random.default_rng(0)
    w, u = factors(random, 12, 7, None) + factors(random, 12, 3, None)
    w[random.random(w.shape) < 0.8] = 0
    u[random.random(u.shape) < 0.8] = 0
    z = random.standard_normal(10).astype("float32")
    matrix = np.hstack([w, u])
    for product in (products.product_of([w], [u]), products.Csr(matrix)):
        assert product(z) == pytest.approx(matrix @ z, rel=1e-5, abs=1e-5)


def test_the_fastest_is_taken():
    now = [0.0]

    def slow(z):
        now[0] += 2e-6

    def quick(z):
        now[0] += 1e-6

    matrix = np.ones((2, 3), "float32")
    found = products.fastest([slow, quick, slow], matrix, lambda: now[0])
    assert found is quick


def test_the_cache_is_not_that_of_the_form_alone(monkeypatch):
    """Between two products of a layer a stream reads those of the others."""
    read = []

    class Memory:
        def __init__(self, count):
            self.count = count

        def sum(self):
            read.append(self.count)

    def ones(count, dtype):
        return np.zeros(count) if count == 3 else Memory(count)

    def product(z):
        read.append("product")

    monkeypatch.setattr(products.np, "ones", ones)
    matrix = np.zeros((2, 3), "float32")
    products.fastest([product, product], matrix)
    assert read[:2] == ["product"] * 2
    assert read[2:] == [4 * 6, "product"] * 2 * products.TRIALS


@pytest.mark.parametrize(
    "ranks, form",
    [
        ((None, None), products.Dense),
        ((3, 2), products.LowRank),
        ((3, None), products.Sum),
        ((None, 2), products.Sum),
    ],
)
def test_product(ranks, form):
    random = np.random.default_rng(0)
    inputs = factors(random, 12, 7, ranks[0])
    recurrent = factors(random, 12, 3, ranks[1])
    product = products.product_of(inputs, recurrent)
    assert type(product) is form
    for _ in range(2):  # nothing is left from the call before
        z = random.standard_normal(10).astype("float32")
        x, h = z[:7], z[7:]
        for factor in reversed(inputs):
            x = factor @ x
        for factor in reversed(recurrent):
            h = factor @ h
        assert product(z) == pytest.approx(x + h, rel=1e-5, abs=1e-5)


@pytest.mark.skipif(blocks.kernel() is None, reason="numba is not installed")
def test_what_products_are_called():
    thin = [np.ones((12, 2), "float32"), np.ones((2, 5), "float32")]
    none = [np.ones((12, 0), "float32"), np.ones((0, 5), "float32")]
    full = [np.ones((12, 5), "float32")]
    for product, name in (
        (products.Dense(full[0]), "dense"),
        (products.Csr(full[0]), "CSR"),
        (blocks.Blocks(full[0], 4), "blocks"),
        (int8.Int8(full[0]), "int8"),
        (products.LowRank(thin, thin), "low rank"),
        (products.LowRank(none, none), "zeros"),
        (products.LowRank(none, none, int8=True), "zeros"),
        (products.Sum(thin, full), "low rank + dense"),
        (products.Sum(full, none), "dense + zeros"),
    ):
        assert products.form_of(product) == name
    mixed = products.LowRank(thin, thin)
    mixed.left = int8.Int8(np.hstack([thin[0], thin[0]]))
    assert products.form_of(mixed) == "low rank dense/int8"
