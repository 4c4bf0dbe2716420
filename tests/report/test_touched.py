"""Which weights updates touch: counted, and drawn."""

import matplotlib.image
import numpy as np
import pytest

from speechbrain_amnet.report.touched import density, overlaps, plot_touched


def test_overlap_and_chance():
    rng = np.random.default_rng(0)
    one, two = (
        {
            "big": ((100, 90), np.sort(rng.choice(9000, 900, replace=False))),
            "small": ((20,), np.arange(5)),
        }
        for _ in range(2)
    )
    first, second = overlaps([one, two])
    assert first == {"share": 905 / 9020, "again": None, "chance": None}
    assert second["chance"] == (900 * 0.1 + 5 * 5 / 20) / 905
    both = len(np.intersect1d(one["big"][1], two["big"][1])) + 5
    assert second["again"] == both / 905
    (_, other) = overlaps([{}, one])
    assert other["again"] == other["chance"] == 0


def test_cells_of_uneven_size_are_shares():
    every = density((100, 7), np.arange(700))
    assert every.shape == (48, 7) and (every == 1).all()
    top = density((100, 70), np.arange(3500))
    np.testing.assert_allclose(top.mean(1)[:23], 1)
    assert (top[25:] == 0).all()
    huge = density((1 << 31, 2), np.array([0]))  # a small file may say so
    assert huge.shape == (48, 2) and huge[0, 0] > 0 == huge[1:].sum()


def test_picture(tmp_path):
    update = {"w": ((60, 50), np.arange(0, 3000, 7)), "b": ((9,), np.arange(3))}
    other = {"v": ((4, 4), np.arange(2))}
    out = plot_touched([update, other], ["one", "two"], tmp_path / "a.png")
    assert matplotlib.image.imread(out).std() > 0
    with pytest.raises(ValueError, match="no matrix is touched"):
        plot_touched([{"b": update["b"]}], ["one"], tmp_path / "b.png")
    assert not (tmp_path / "b.png").exists()
