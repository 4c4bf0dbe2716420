"""Blocks of rows are found, and multiplied as the matrix that they are of."""

import copy

import numpy as np
import pytest
import torch

from speechbrain_amnet import Sparse
from speechbrain_amnet.runtime import blocks, products


def pruned(block, rows=96, columns=11, density=0.2):
    torch.manual_seed(block)
    form = Sparse(rows, columns, density, block)
    form.keep(form.goal)
    return form.factors()[0].detach().numpy()


@pytest.mark.parametrize("block", blocks.SIZES)
def test_the_blocks_of_a_pruned_matrix_are_found(block):
    assert blocks.rows_of(pruned(block)) == block


def test_scattered_entries_are_no_blocks():
    assert blocks.rows_of(pruned(1)) == 1
    assert blocks.rows_of(np.ones((3, 5))) == 1


@pytest.mark.parametrize("rows", [96, 512])
@pytest.mark.parametrize("empty", [0, 64])
@pytest.mark.parametrize("block", blocks.SIZES)
def test_product_of_blocks(block, rows, empty):
    """Of as many groups of rows as are taken by turns, and of others."""
    pytest.importorskip("numba")
    matrix = pruned(block, rows, density=0.5)
    matrix[:empty] = 0  # groups of rows without any block
    product = copy.deepcopy(blocks.Blocks(matrix, block))
    for seed in range(2):  # nothing is left from the call before
        z = np.random.default_rng(seed).standard_normal(11).astype("float32")
        expected = pytest.approx(matrix @ z, rel=1e-5, abs=1e-6)
        assert product(z) == expected


def test_blocks_are_among_the_products_of_a_layer(monkeypatch):
    pytest.importorskip("numba")
    monkeypatch.setattr(products, "fastest", lambda found, columns: found[-1])
    w, u = pruned(16), pruned(16, columns=7)
    product = products.product_of([w], [u])
    assert isinstance(product, blocks.Blocks)
    z = np.ones(18, "float32")
    assert product(z) == pytest.approx(np.hstack([w, u]) @ z, abs=1e-5)
    assert isinstance(
        products.product_of([pruned(1)], [pruned(1)]), products.Csr
    )


def test_without_numba_they_are_left_out(monkeypatch):
    monkeypatch.setattr(blocks, "kernel", lambda: None)
    found = products.product_of([pruned(16)], [pruned(16)])
    assert not isinstance(found, blocks.Blocks)
    with pytest.raises(ValueError, match="numba is not installed"):
        blocks.Blocks(pruned(16), 16)
