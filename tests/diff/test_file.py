"""A diff's file: what it holds comes back, and what is wrong is refused."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import zstandard
from safetensors.numpy import save

from speechbrain_amnet.diff.applying import apply_diff
from speechbrain_amnet.diff.changes import (
    HashChange,
    LowRankChange,
    SparseChange,
    Values,
    from_arrays,
)
from speechbrain_amnet.diff.coding import entropy_bits
from speechbrain_amnet.diff.file import (
    KEY,
    SMALL,
    DiffError,
    fingerprint,
    from_bytes,
    make_diff,
    model_of,
    new_tensors,
    read_diff,
    to_bytes,
    write_diff,
)
from speechbrain_amnet.diff.hashing import BLOCK
from speechbrain_amnet.diff.squash import squash

ONE, TWO = 64 * "1", 64 * "2"  # fingerprints
HEAD = (
    f'{{"format":1,"base":"{ONE}","result":"{TWO}","about":{{}},'
    '"signature":null,"tensors":'
)


@pytest.mark.parametrize("kind", ["sparse", "new", "hash", "lowrank"])
def test_diff_comes_back_and_undoes_itself(make, kind, tensors, tmp_path):
    diff = make.diff_of(kind, tensors)
    assert write_diff(diff, tmp_path / "a.diff") > 0
    read = read_diff(tmp_path / "a.diff")
    assert read.about == diff.about and read.base == fingerprint(tensors)
    now = dict(tensors)
    undo = from_bytes(to_bytes(apply_diff(read, now)))
    for name, array in new_tensors(diff.changes, tensors).items():
        assert np.array_equal(now[name], array)
        assert not np.array_equal(now[name], tensors[name])
    apply_diff(undo, now)
    for name, array in tensors.items():
        assert now[name].tobytes() == array.tobytes()


def test_low_rank_is_a_product(make, tensors):
    diff = make.diff_of("lowrank", tensors)
    change = diff.changes["encoder.weight"]
    left = change.left.floats().reshape(24, 2)
    right = change.right.floats().reshape(2, 16)
    new = change.apply(tensors["encoder.weight"])
    assert np.allclose(new, tensors["encoder.weight"] + left @ right, atol=1e-5)


def test_half_precision_models_stay_so(make, tensors):
    half = {name: array.astype(np.float16) for name, array in tensors.items()}
    now = dict(half)
    undo = apply_diff(make.diff_of("sparse", half), now)
    assert now["joint.w"].dtype == np.float16
    apply_diff(undo, now)
    assert all(now[name].tobytes() == half[name].tobytes() for name in now)


@pytest.mark.parametrize("bits", [2, 4, 8, 16, 32])
def test_fewer_bits_are_fewer_bytes(make, bits):
    old = {"w": np.zeros((512, 512), dtype=np.float32)}
    change = make.sparse((512, 512), count=10_000, bits=bits)
    size = len(to_bytes(make_diff({"w": change}, old)))
    least = entropy_bits(10_000, 512 * 512) / 8
    # The header and fingerprints, and at most the bits of each value.
    assert size <= 1.05 * least + 10_000 * bits / 8 + 600


def test_any_flipped_bit_or_cut_is_refused(make, tensors):
    content = to_bytes(make.diff_of("sparse", tensors))
    for length in range(0, len(content), 7):
        with pytest.raises(DiffError):
            from_bytes(content[:length])
    rng = np.random.default_rng(0)
    for bit in rng.choice(8 * len(content), 400, replace=False):
        broken = bytearray(content)
        broken[bit // 8] ^= 1 << (bit % 8)
        try:
            # A bit of the frame's header may mean nothing to anyone.
            read = from_bytes(bytes(broken))
        except DiffError:
            continue
        assert to_bytes(read) == content
    with pytest.raises(DiffError, match="cut short, or longer"):
        from_bytes(content + b"more")


def test_what_hangs_on_behind_a_full_piece_is_refused(
    make, tensors, monkeypatch
):
    content = to_bytes(make.diff_of("sparse", tensors))
    for piece in (len(content), len(content) // 2, 1):
        if len(content) % piece == 0:
            monkeypatch.setattr("speechbrain_amnet.diff.file.PIECE", piece)
            from_bytes(content)
            with pytest.raises(DiffError, match="cut short, or longer"):
                from_bytes(content + b"m")


def frame(header, arrays=None):
    """The bytes of a file with this header."""
    arrays = arrays or {"scales": np.ones(1, dtype=np.float32)}
    return zstandard.ZstdCompressor(write_checksum=True).compress(
        save(arrays, {KEY: header})
    )


def about(header):
    """The bytes of a safetensors file that has this instead of its header."""
    return len(header).to_bytes(8, "little") + header.encode()


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "not a diff, or damaged"),
        (b"RIFF....WAVE", "not a diff, or damaged"),
        (zstandard.compress(b"something else"), "not a diff"),
        (zstandard.compress(save({"w": np.ones(1)})), "no amnet_diff in it"),
        (frame('{"format": 2}'), "format 2; this version reads format 1"),
        (frame('{"format": 1}'), "damaged"),
        (frame('{"format": 0}'), "damaged .its format is 0"),
        (frame('{"format": "one"}'), "damaged .its format is 'one'"),
        *(
            (zstandard.compress(about(x)), "no amnet_diff")
            for x in ("7", "null", '"a"', "[1]")
        ),
        (
            zstandard.ZstdCompressor(write_content_size=False).compress(b"a"),
            "it says no size",
        ),
        (
            frame(
                HEAD
                + '{"w":{"kind":"new","shape":[1],"values":[["int8",1]]}}}',
                {"int8": np.ones(1, "i1"), "scales": np.ones(2, "f4")},
            ),
            "more scales than tensors need",
        ),
        (
            frame(HEAD + '{"w":{"kind":"odd","shape":[1],"values":[]}}}'),
            "unknown kind of change 'odd'",
        ),
        *(
            (
                frame((HEAD + "{}}").replace(good, bad)),
                message,
            )
            for good, bad, message in (
                ('"about":{}', '"about":null', "about is None"),
                (f'"base":"{ONE}"', '"base":7', "base is 7"),
                (ONE, r"\u001b[2J", r"base is '\\x1b\[2J'"),
                (TWO, TWO[1:], "result is '2*'"),
                (TWO, ONE, "it changes nothing"),
                ("{}", "{}", "it changes no tensor"),
                ('"tensors":{}', '"tensors":[]', "tensors is"),
                ('"signature":null', '"signature":1', "signature is 1"),
            )
        ),
    ],
)
def test_what_is_no_diff_is_refused(content, message):
    with pytest.raises(DiffError, match=message):
        from_bytes(content)


def test_other_models_are_refused(make, tensors):
    diff = make.diff_of("sparse", tensors)
    for name in tensors:
        other = {**tensors, name: tensors[name] + 1}
        with pytest.raises(DiffError, match="not the base of this diff"):
            apply_diff(diff, other)
    with pytest.raises(DiffError, match="has no joint.w"):
        apply_diff(diff, {k: v for k, v in tensors.items() if k != "joint.w"})
    now = dict(tensors)
    apply_diff(diff, now)
    with pytest.raises(DiffError, match="has this diff already"):
        apply_diff(diff, now)


def test_result_that_was_not_promised_is_refused(make, tensors):
    diff = make.diff_of("sparse", tensors)
    diff.result = "0" * 64
    with pytest.raises(DiffError, match="not the one that the diff promises"):
        apply_diff(diff, dict(tensors))


def test_values_take_known_bits_only(make):
    with pytest.raises(ValueError, match="bits must be 2 to 8, 16 or 32"):
        Values.rounded(make.random(3), 9)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_diff(tmp_path / "none.diff")


def test_a_frame_that_says_less_than_it_has_is_not_unpacked(monkeypatch):
    zeros = zstandard.ZstdCompressor().compress(bytes(300_000_000))
    monkeypatch.setattr(
        "speechbrain_amnet.diff.file.zstandard.frame_content_size",
        lambda content: 1000,
    )
    tracemalloc.start()
    try:
        with pytest.raises(DiffError, match="cut short, or longer"):
            from_bytes(zeros)
        assert tracemalloc.get_traced_memory()[1] < 100_000_000
    finally:
        tracemalloc.stop()


def test_a_frame_that_says_that_it_is_huge_is_refused():
    zeros = zstandard.ZstdCompressor().compress(bytes(50_000_000))
    with pytest.raises(DiffError, match="it says it has 50000000 bytes"):
        from_bytes(zeros)


@pytest.mark.parametrize(
    "tensors",
    [
        "[]",
        "{}",
        '{"w":7}',
        '{"w":{"kind":"sparse","shape":[0],"values":[["int8",1]]}}',
        '{"w":{"kind":"sparse","shape":[1e99],"values":[["int8",1]]}}',
        '{"w":{"kind":"sparse","shape":[9e18],"values":[["int8",1]]}}',
        '{"w":{"kind":"sparse","shape":[3],"values":[]}}',
        '{"w":{"kind":"sparse","shape":[3],"values":[["int8",-1]]}}',
        '{"w":{"kind":"sparse","shape":[3],"values":[["int8",9]]}}',
        '{"w":{"kind":"sparse","shape":[3],"values":[["text",1]]}}',
        '{"w":{"kind":"sparse","shape":[1],"values":[["scales",0]]}}',
        '{"w":{"kind":"hash","shape":[3],"values":[["int8",0]],"seed":1}}',
        *(
            f'{{"w":{{"kind":"hash","shape":[3],"values":[["int8",1]],'
            f'"seed":{seed}}}}}'
            for seed in ("1.0", "true", '"1"', "null")
        ),
        '{"w":{"kind":"lowrank","shape":[3,3],"values":[["int8",1]]}}',
        '{"w":' + 5000 * "[" + 5000 * "]" + "}",
    ],
)
def test_headers_that_do_not_fit_are_refused(tensors):
    header = HEAD + tensors + "}"
    ones = {"int8": np.ones(1, "i1"), "scales": np.ones(1, "f4")}
    with pytest.raises(DiffError):
        from_bytes(frame(header, ones))


def test_arrays_of_another_type_are_refused():
    new = '{"kind":"new","shape":[2],"values":[["float32",2]]}'
    arrays = {"scales": np.ones(1, "f4"), "float32": np.ones(2, "f8")}
    with pytest.raises(DiffError, match="float32 of type F64"):
        from_bytes(frame(HEAD + '{"w":' + new + "}}", arrays))


def test_about_is_what_json_has(make, tensors):
    diff = replace(make.diff_of("sparse", tensors), about={"wer": {3}})
    with pytest.raises(ValueError, match="about: expected what JSON has"):
        to_bytes(diff)


@pytest.mark.parametrize("rank", [1.0, -1, 0, 2, "1"])
def test_ranks_that_do_not_fit_are_refused(rank):
    entry = {"kind": "lowrank", "shape": [1, 1], "rank": rank}
    values = [Values(np.ones(1, np.int8))] * 2
    with pytest.raises(ValueError, match="do not fit"):
        from_arrays("w", entry, np.zeros(0, np.uint8), values)


def test_more_numbers_than_a_tensor_needs_are_refused():
    """They are few bytes of a file, and much memory or time."""
    codes = np.zeros(0, np.uint8)
    for size in (BLOCK, BLOCK + 1):
        values = [Values(np.ones(size, np.int8))]
        entry = {"kind": "hash", "shape": [2, 3], "seed": 1}
        if size == BLOCK:
            assert from_arrays("w", entry, codes, values).seed == 1
            continue
        with pytest.raises(ValueError, match=f"w: {size} buckets for"):
            from_arrays("w", entry, codes, values)
    for rank in (2, 3):
        sides = [Values(np.ones(rank * n, np.int8)) for n in (2, 3)]
        entry = {"kind": "lowrank", "shape": [2, 3], "rank": rank}
        if rank == 2:
            assert from_arrays("w", entry, codes, sides).rank == 2
            continue
        with pytest.raises(ValueError, match="w: factors that do not fit"):
            from_arrays("w", entry, codes, sides)


def test_a_long_header_is_neither_read_nor_written(make, tensors):
    diff = make.diff_of("sparse", tensors)
    diff.about = {"note": (SMALL - 2048) * "a"}
    assert from_bytes(to_bytes(diff)).about == diff.about
    diff.about = {"note": SMALL * "a"}
    with pytest.raises(ValueError, match="say less in about"):
        to_bytes(diff)
    header = HEAD.replace('"about":{}', f'"about":{{"a":"{SMALL * "a"}"}}')
    new = '{"w":{"kind":"new","shape":[1],"values":[["int8",1]]}}}'
    ones = {"int8": np.ones(1, "i1"), "scales": np.ones(1, "f4")}
    assert from_bytes(frame(HEAD + new, ones), weights=SMALL).changes
    with pytest.raises(DiffError, match="not a diff .its header has 1049"):
        from_bytes(frame(header + new, ones), weights=SMALL)


def test_a_chain_is_for_one_model_and_makes_numbers(make, tensors):
    now, chain = dict(tensors), []
    for seed in (1, 2):
        diff = make.diff_of("sparse", {"joint.w": now["joint.w"]}, seed)
        chain.append(replace(diff, model=seed == 2 and model_of(now) or None))
        apply_diff(chain[-1], now)
    assert squash(chain, tensors).model == model_of(tensors)
    assert squash(chain[:1], tensors).model is None
    chain[0].changes["joint.w"].deltas.scale = np.float32(np.nan)
    new = new_tensors(chain[0].changes, tensors)
    chain[0].result = fingerprint(new)
    with pytest.raises(DiffError, match="makes NaN or infinity of joint.w"):
        squash(chain[:1], tensors)


def test_other_shapes_are_refused(make, tensors):
    diff = make.diff_of("sparse", tensors)
    other = {**tensors, "joint.w": tensors["joint.w"].reshape(7, 5)}
    with pytest.raises(DiffError, match="is \\[7, 5\\] and not \\[5, 7\\]"):
        apply_diff(diff, other)


def test_a_diff_of_nothing_is_not_made():
    with pytest.raises(ValueError, match="changes nothing"):
        make_diff({}, {})


def test_numbers_that_are_none_are_not_sent():
    with pytest.raises(ValueError, match="NaN or infinity"):
        Values.rounded(np.array([1.0, np.nan]), 4)


def test_a_change_that_was_hashed_under_another_name_is_not_sent(tensors):
    """As those of `DiffLinear` layers are, which all call theirs "weight"."""
    change = HashChange((5, 7), Values.rounded([1.0, 2.0], 8), 3, "weight")
    with pytest.raises(ValueError, match="joint.w: .* under the name 'weight'"):
        make_diff({"joint.w": change}, tensors)
    make_diff({"joint.w": replace(change, name="joint.w")}, tensors)


def test_zeros_come_back_where_the_model_is_known():
    """What undoes an update of a matrix of zeros is zeros alone."""
    tensors = {"w": np.zeros((2000, 2000), dtype=np.float32)}
    change = LowRankChange(
        (2000, 2000),
        Values.rounded(np.ones(2000), 8),
        Values.rounded(np.ones(2000), 8),
        1,
    )
    content = to_bytes(apply_diff(make_diff({"w": change}, tensors), tensors))
    with pytest.raises(DiffError, match="or zeros alone, .* .it says it has"):
        from_bytes(content)
    apply_diff(from_bytes(content, weights=tensors["w"].size), tensors)
    assert not tensors["w"].any()
    with pytest.raises(DiffError, match="it says it has"):
        from_bytes(content, weights=tensors["w"].size // 4)


def test_a_diff_that_changes_nothing_is_not_made(make, tensors):
    nothing = {
        "joint.w": SparseChange((5, 7), np.array([3]), Values.rounded([0], 4))
    }
    for changes in ({}, nothing):
        with pytest.raises(ValueError, match="changes nothing"):
            make_diff(changes, tensors)


def test_numbers_that_are_none_are_named(tensors):
    change = SparseChange((5, 7), np.array([3]), Values.rounded([1], 4))
    tensors["joint.w"][0, 0] = np.nan
    with pytest.raises(ValueError, match="joint.w: the base has NaN"):
        make_diff({"joint.w": change}, tensors)
    tensors["joint.w"][0, 0] = 0
    change.deltas.scale = np.float32(np.inf)
    with pytest.raises(ValueError, match="joint.w: the update has NaN"):
        make_diff({"joint.w": change}, tensors)


def test_a_model_that_differs_elsewhere_is_refused(make, tensors):
    """What a diff does not change was there when it was measured."""
    changes = {"joint.w": make.sparse((5, 7))}
    other = {**tensors, "encoder.bias": tensors["encoder.bias"] + 1}
    apply_diff(make_diff(changes, tensors), dict(other))
    diff = make_diff(changes, tensors, model=model_of(tensors))
    diff = from_bytes(to_bytes(diff))
    with pytest.raises(DiffError, match="does not change is that of another"):
        apply_diff(diff, dict(other))
    now = dict(tensors)
    undo = apply_diff(diff, now)
    with pytest.raises(DiffError, match="has this diff already"):
        apply_diff(diff, now)
    apply_diff(undo, now)
    assert fingerprint(now) == fingerprint(tensors)
    chain = squash([diff], tensors)
    with pytest.raises(DiffError, match="does not change is that of another"):
        apply_diff(chain, dict(other))


def test_a_small_file_does_not_take_much_memory():
    """A stranger's: of a huge tensor, with positions that are all ones."""
    coded = np.full(800_000, 255, dtype=np.uint8)
    entry = (
        '"kind":"sparse","shape":[2000,2000],"values":[["int8",1]],'
        f'"position_bytes":{len(coded)}'
    )
    arrays = {"int8": np.ones(1, "i1"), "scales": np.ones(1, "f4")}
    content = frame(
        f'{HEAD}{{"w":{{{entry}}}}}}}', arrays | {"positions": coded}
    )
    tracemalloc.start()
    try:
        with pytest.raises(DiffError, match="longer than any are"):
            from_bytes(content)
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()
    with pytest.raises(DiffError, match="not for this model: it changes more"):
        from_bytes(content, weights=1000)


def test_there_is_room_for_a_release(make, tensors):
    diff = make.diff_of("sparse", tensors)
    assert from_bytes(to_bytes(diff)).release is None
    diff.release = 3
    assert from_bytes(to_bytes(diff)).release == 3
    for bad in ("true", "0", '"3"'):
        head = HEAD.replace('"signature"', f'"release":{bad},"signature"')
        with pytest.raises(DiffError, match="release is"):
            from_bytes(frame(head + "{}}"))


def test_a_model_that_is_no_text_is_refused():
    head = HEAD.replace('"signature"', '"model":7,"signature"')
    with pytest.raises(DiffError, match="model is 7"):
        from_bytes(frame(head + "{}}"))
