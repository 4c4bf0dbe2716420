"""8 bits: near the weights, the same with and without the fast kernel."""

import numpy as np
import pytest

from speechbrain_amnet.runtime import int8, packed, products
from speechbrain_amnet.runtime.convert import as_int8, pack
from speechbrain_amnet.runtime.recogniser import Recogniser


def matrix(rows=12, columns=10, seed=0):
    random = np.random.default_rng(seed)
    return random.standard_normal((rows, columns)).astype("float32")


def test_rounding_is_at_most_half_a_step():
    exact = matrix()
    exact[3] = 0
    scales = int8.scales_of(exact)
    steps = int8.to_int8(exact, scales)
    assert steps.dtype == np.int8 and not steps[3].any()
    assert np.abs(steps).max(1).tolist() == [127] * 3 + [0] + [127] * 8
    apart = np.abs(int8.from_int8(steps, scales) - exact)
    assert (apart <= 0.501 * scales[:, None]).all()
    again = int8.from_int8(steps, scales)
    assert np.array_equal(int8.to_int8(again, int8.scales_of(again)), steps)


def test_kernel_is_the_product_of_the_rounded_matrix():
    pytest.importorskip("numba")
    exact, z = matrix(), matrix(1, 10, seed=1)[0]
    scales = int8.scales_of(exact)
    rounded = int8.from_int8(int8.to_int8(exact, scales), scales)
    out = np.empty(12, "float32")
    product = int8.Int8(exact, out)
    assert product(z) is out
    assert out == pytest.approx(rounded @ z, rel=1e-5, abs=1e-5)


def test_without_numba_it_is_multiplied_as_float32(monkeypatch):
    monkeypatch.setattr(products, "kernel", lambda: None)
    assert isinstance(products.full(matrix(), int8=True), products.Dense)
    monkeypatch.setattr(int8, "kernel", lambda: None)
    with pytest.raises(ValueError, match="numba"):
        int8.Int8(matrix())


def test_the_faster_one_is_taken(monkeypatch):
    monkeypatch.setattr(products, "kernel", lambda: print)
    monkeypatch.setattr(products, "Int8", lambda *_: "int8")
    monkeypatch.setattr(products, "fastest", lambda all_, _: all_[-1])
    assert products.full(matrix(), int8=True) == "int8"
    assert isinstance(products.full(matrix()), products.Dense)


def test_a_model_of_8_bits(asr, tmp_path, monkeypatch):
    exact, path = pack(asr), tmp_path / "model.safetensors"
    rounded = as_int8(exact)
    assert rounded.int8 and not exact.int8
    packed.write_packed(exact, path)
    size = path.stat().st_size
    packed.write_packed(rounded, path)
    assert path.stat().st_size < size / 2  # the features' filters stay
    again = packed.read_packed(path)
    assert again.arrays.keys() == exact.arrays.keys()
    for name, array in again.arrays.items():
        assert np.array_equal(array, rounded.arrays[name]), name
        if name in again.scales:
            step = again.scales[name].max()
            assert np.abs(array - exact.arrays[name]).max() <= 0.51 * step
        else:
            assert np.array_equal(array, exact.arrays[name]), name
    kinds = {name.split(".")[0] for name in again.scales}
    assert kinds == {"encoder", "predictor", "joint"}
    # With the kernel everywhere and without it: the same numbers.
    pytest.importorskip("numba")
    frame = matrix(1, 320)[0]
    said = []
    for take in (lambda all_, _: all_[0], lambda all_, _: all_[-1]):
        monkeypatch.setattr(products, "fastest", take)
        encoder = Recogniser(again).encoder
        for branch in range(2):
            cells = encoder.start()
            for _ in range(5):
                state = encoder.step(frame, branch, cells)
            said.append(state.copy())
    assert said[:2] == [
        pytest.approx(state, rel=1e-4, abs=1e-5) for state in said[2:]
    ]
