"""Buckets and signs: the same everywhere, even, and new with each seed."""

import numpy as np
import torch

from speechbrain_amnet.diff.hashing import bucket_and_sign, key_of, mix

LAST = 2**32 - 1
KEY = 779573012
MIXED = [
    0,
    1753845952,
    3507691905,
    3007594116,
    3380868877,
    1801581140,
    1734902346,
]
BUCKETS = [311, 130, 444, 235, 707, 260, 607]
SIGNS = [-1, 1, -1, -1, 1, -1, -1]


def test_golden_values():
    """These must never change: devices have files that rely on them."""
    assert key_of(1, "encoder.weight") == KEY
    at = np.array([0, 1, 2, 255, 256, 1_000_000, LAST])
    assert mix(at.astype(np.int32)).view(np.uint32).tolist() == MIXED
    bucket, sign = bucket_and_sign(at, 0x12345678, 1000)
    assert bucket.tolist() == BUCKETS
    assert sign.tolist() == SIGNS


def test_torch_and_numpy_agree():
    at = np.random.default_rng(0).integers(0, LAST, 10_000)
    for ours, theirs in zip(
        bucket_and_sign(at, LAST, 777),
        bucket_and_sign(torch.from_numpy(at), LAST, 777),
    ):
        assert ours.tolist() == theirs.tolist()


def test_buckets_and_signs_are_even():
    bucket, sign = bucket_and_sign(np.arange(1_000_000), key_of(0, "w"), 100)
    assert bucket.min() == 0 and bucket.max() == 99
    counts = np.bincount(bucket)
    # Chi square of 99 degrees of freedom: 99 +- 14.
    assert np.square(counts - 10_000).sum() / 10_000 < 99 + 5 * 14
    assert abs(sign.sum()) < 5_000
    # Neighbours, and sign and bucket, tell nothing of each other.
    assert abs(np.corrcoef(bucket[1:], bucket[:-1])[0, 1]) < 0.005
    assert abs(np.corrcoef(bucket, sign)[0, 1]) < 0.005


def test_each_seed_and_name_is_another_hash():
    first, _ = bucket_and_sign(np.arange(10_000), key_of(0, "w"), 100)
    for other in (key_of(1, "w"), key_of(0, "v")):
        bucket, _ = bucket_and_sign(np.arange(10_000), other, 100)
        assert 0.005 < (bucket == first).mean() < 0.015
