"""Bases, overrides, tags and messages of hparams files."""

import collections
import datetime
import json
import re
from pathlib import Path
from statistics import mean

import pytest
import torch
from hyperpyyaml import load_hyperpyyaml

from speechbrain_amnet.hparams import (
    check_recorded,
    load_hparams,
    parse_arguments,
    plain_values,
    resolve_hparams,
)
from speechbrain_amnet.nodes import compose, content, serialize

WHOLE = """\
# A whole file, with comments.
seed: 1
data_folder: !PLACEHOLDER
folder: !ref <data_folder>/out
rate: 1e-3
shape: (3, 4)
encoder: !new:datetime.timedelta # a class with arguments
    days: !ref <seed>
    hours: 2
loss: {weight: 0.5, parts: {cost: 1, backlog: 2}}
bare: !new:collections.OrderedDict
pair: !apply:operator.sub [5, 3]
steps: [1, 2, 3]
modules:
    enc: !ref <encoder>
"""


@pytest.fixture
def load(tmp_path):
    """Writes whole.yaml and an experiment on it; loads the experiment."""
    (tmp_path / "whole.yaml").write_text(WHOLE)

    def load(experiment="", overrides="data_folder: d"):
        path = tmp_path / "mine.yaml"
        path.write_text(f"base: whole.yaml\n{experiment}")
        return load_hparams(path, overrides)

    return load


# Merging


def test_empty_experiment_equals_its_base(load, tmp_path):
    plain = load_hyperpyyaml(WHOLE, "data_folder: d")
    assert load() == plain
    assert load_hparams(tmp_path / "whole.yaml", "data_folder: d") == plain
    assert plain["shape"] == (3, 4)


def test_tagged_node_replaces_whole(load):
    hparams = load("encoder: !new:collections.Counter\n    a: 3\n")
    assert hparams["encoder"] == collections.Counter(a=3)
    assert type(hparams["encoder"]) is collections.Counter
    assert hparams["modules"]["enc"] is hparams["encoder"]


def test_hyperpyyaml_alone_would_keep_the_class():
    """The trap that this module is for; if this fails, less is needed."""
    change = "data_folder: d\nencoder: !new:collections.Counter {minutes: 3}"
    encoder = load_hyperpyyaml(WHOLE, change)["encoder"]
    assert type(encoder) is datetime.timedelta


def test_same_class_with_tag_drops_the_base_arguments(load):
    hparams = load("encoder: !new:datetime.timedelta {minutes: 5}\n")
    assert hparams["encoder"] == datetime.timedelta(minutes=5)


def test_untagged_mapping_changes_the_arguments_of_a_class(load):
    hparams = load("encoder: {hours: 5, minutes: 1}\n")
    assert hparams["encoder"] == datetime.timedelta(1, hours=5, minutes=1)


def test_untagged_mapping_gives_a_bare_class_arguments(load):
    bare = load("bare: {a: 1}\n")["bare"]
    assert bare == {"a": 1} and type(bare) is collections.OrderedDict


def test_untagged_mapping_on_positional_arguments_is_refused(load):
    with pytest.raises(ValueError, match="mine.yaml:2: 'pair' takes a list"):
        load("pair: {a: 1}\n")


def test_plain_mappings_merge_at_any_depth(load):
    loss = load("loss: {parts: {backlog: 7, new: 8}}\n")["loss"]
    assert loss == {
        "weight": 0.5,
        "parts": {"cost": 1, "backlog": 7, "new": 8},
    }


def test_lists_and_scalars_replace(load):
    hparams = load("steps: [9]\nloss: 3\nshape: [1]\nrate:\n")
    assert hparams["steps"] == [9] and hparams["loss"] == 3
    assert hparams["shape"] == [1] and hparams["rate"] is None


def test_reference_replaces_and_is_resolved_afterwards(load):
    hparams = load("steps: !ref <seed> + 1\n", "data_folder: d\nseed: 4")
    assert hparams["steps"] == 5
    assert hparams["encoder"] == datetime.timedelta(4, hours=2)


def test_chain_of_bases_and_last_word_to_the_command_line(load, tmp_path):
    load("seed: 2\nsteps: [2]\nrate: 2\n")
    (tmp_path / "deep").mkdir()
    top = tmp_path / "deep" / "top.yaml"
    top.write_text("base: ../mine.yaml\nsteps: [3]\nrate: 3\n")
    hparams = load_hparams(top, {"data_folder": "d", "rate": 4})
    assert [hparams[k] for k in ("seed", "steps", "rate")] == [2, [3], 4]
    assert "base" not in hparams


def test_command_line_tag_replaces_whole_too(load):
    change = "data_folder: d\nencoder: !new:collections.Counter {a: 1}"
    assert load("", change)["encoder"] == collections.Counter(a=1)


def test_same_anchor_in_both_files(tmp_path):
    (tmp_path / "whole.yaml").write_text("a: &x [1]\nb: 0\nc: *x\nd: 0\n")
    mine = tmp_path / "mine.yaml"
    mine.write_text("base: whole.yaml\nb: &x [2]\nd: *x\n")
    assert load_hparams(mine) == {"a": [1], "b": [2], "c": [1], "d": [2]}


def test_what_an_alias_stands_for_stays_where_else_it_is(tmp_path):
    (tmp_path / "whole.yaml").write_text("a: &x {p: 1, q: {r: 2}}\nb: *x\n")
    mine = tmp_path / "mine.yaml"
    mine.write_text("base: whole.yaml\nb: {p: 3, q: {r: 4}}\n")
    one, other = {"p": 1, "q": {"r": 2}}, {"p": 3, "q": {"r": 4}}
    assert load_hparams(mine) == {"a": one, "b": other}
    mine.write_text("base: whole.yaml\na: {p: 3, q: {r: 4}}\n")
    assert load_hparams(mine) == {"a": other, "b": one}


def test_include_stands_beside_the_file_that_names_it(tmp_path):
    folder = tmp_path / "with blank"
    folder.mkdir()
    (folder / "part.yaml").write_text("x: 1\ny: !ref <x>\n")
    (folder / "whole.yaml").write_text("part: !include:part.yaml\nz: 0\n")
    mine = tmp_path / "mine.yaml"
    mine.write_text("base: with blank/whole.yaml\npart: {x: 5}\n")
    whole = load_hparams(folder / "whole.yaml")
    assert whole == {"part": {"x": 1, "y": 1}, "z": 0}
    assert load_hparams(mine) == {"part": {"x": 5, "y": 5}, "z": 0}
    moved = tmp_path / "deep.yaml"
    moved.write_text(resolve_hparams(mine))
    assert load_hparams(moved)["part"]["y"] == 5


def test_includes_in_a_list_stand_an_override(tmp_path):
    (tmp_path / "part.yaml").write_text("b: 1\nc: !ref <b>\n")
    mine = tmp_path / "mine.yaml"
    mine.write_text("a: [!include:part.yaml {b: 5}]\nz: 0\n")
    assert load_hparams(mine) == {"a": [{"b": 5, "c": 5}], "z": 0}
    assert load_hparams(mine, "z: 1") == {"a": [{"b": 5, "c": 5}], "z": 1}


@pytest.mark.parametrize(
    "text",
    [
        "a: [!include:part.yaml {b: 5}]\n",
        "a: [!mine {b: 5}, 2, [!other {c: 1}]]\n",
        "a: {b: [!new:a.B {c: [!name:a.C {d: 1}]}]}\n",
        "a: [&x {b: 5}]\nc: *x\n",
        "a: [!!set {b}]\n",
    ],
)
def test_mappings_in_lists_are_written_as_they_were(text):
    root = compose(text, "mine.yaml")
    again = compose(serialize(root), "mine.yaml")
    assert content(again) == content(root)


# The resolved text


def test_file_alone_keeps_its_own_text(load, tmp_path):
    load()
    assert resolve_hparams(tmp_path / "whole.yaml") == WHOLE


def test_resolved_text_is_whole_standard_and_keeps_tags(load, tmp_path):
    load("encoder: !new:collections.Counter\n    a: !ref <seed>\n")
    text = resolve_hparams(tmp_path / "mine.yaml", "seed: 7")
    first = text.splitlines()[0]
    assert first.startswith("# mine.yaml on whole.yaml")
    assert "encoder: !new:collections.Counter\n" in text
    for line in ("data_folder: !PLACEHOLDER", "seed: 7", "rate: 1e-3"):
        assert f"{line}\n" in text
    assert "folder: !ref <data_folder>/out\n" in text and "base" not in text
    plain = load_hyperpyyaml(text, "data_folder: d")
    assert plain["encoder"] == collections.Counter(a=7)
    saved = tmp_path / "saved.yaml"
    saved.write_text(text)
    assert load_hparams(saved, "data_folder: d") == plain


# Messages


@pytest.mark.parametrize(
    "experiment, message",
    [
        ("seed: 2\nsteeps: [1]\n", r"mine.yaml:3: unknown key 'steeps'; did"),
        ("zzz: 1\n", r"mine.yaml:2: unknown key 'zzz'$"),
        ("seed: [1\nrate: 2\n", r"mine.yaml: line 3: not YAML"),
        ("seed: 1\nseed: 2\n", r"mine.yaml:3: 'seed' stands twice"),
        (
            "encoder: !new:no.such.Class\n",
            r"mine.yaml: encoder: cannot import no.such.Class",
        ),
        (
            "loss: {parts: {cost: !name:datetime.nothing }}\n",
            r"loss\[parts\]\[cost\]: cannot import datetime.nothing",
        ),
        (
            "encoder: {fortnights: 1}\n",
            r"mine.yaml: encoder: .*datetime.timedelta.*fortnights",
        ),
        ("rate: !ref <sed>\n", r"mine.yaml: .*reference .*sed"),
        ("rate: !ref <rate>\n", r"mine.yaml: .*to itself"),
        ("bare: !new:datetime.date [1, 13, 1]\n", r"mine.yaml: month must"),
    ],
)
def test_mistakes_name_file_line_and_key(load, experiment, message):
    with pytest.raises(ValueError, match=message) as caught:
        load(experiment)
    assert "\n" not in str(caught.value)


def test_unknown_key_on_the_command_line(load):
    with pytest.raises(ValueError, match="command line.*'sed'.*seed"):
        load("", "data_folder: d\nsed: 2")


def test_missing_values_are_all_named(load):
    message = "to be given on the command line: --data_folder=..."
    with pytest.raises(ValueError, match=message):
        load("", "")


def test_missing_files(tmp_path):
    mine = tmp_path / "mine.yaml"
    with pytest.raises(FileNotFoundError, match="no such hparams.*mine.yaml"):
        load_hparams(mine)
    mine.write_text("base: gone.yaml\n")
    with pytest.raises(FileNotFoundError, match=r"gone.yaml \(the base of "):
        load_hparams(mine)


def test_text_in_another_encoding(tmp_path):
    (tmp_path / "mine.yaml").write_bytes(b"name: \xe9\n")
    with pytest.raises(ValueError, match="mine.yaml: not UTF-8"):
        load_hparams(tmp_path / "mine.yaml")


def test_circle_of_bases_is_refused(tmp_path):
    (tmp_path / "a.yaml").write_text("base: b.yaml\n")
    (tmp_path / "b.yaml").write_text("base: a.yaml\n")
    with pytest.raises(ValueError, match="a.yaml -> b.yaml -> a.yaml"):
        load_hparams(tmp_path / "a.yaml")


@pytest.mark.parametrize("text", ["", "- 1\n", "base: [a]\n", "base: !ref <x>"])
def test_files_without_keys_or_with_an_odd_base(tmp_path, text):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ValueError, match="mine.yaml.*(at the top|'base')"):
        load_hparams(tmp_path / "mine.yaml")


# The command line


@pytest.mark.parametrize(
    "argv, text",
    [
        (["--folder=/data/set=1"], "folder: /data/set=1"),
        (["--folder", "/data/set=1"], "folder: /data/set=1"),
        (["--lr=0.1", "--steps", "[1, 2]"], "lr: 0.1\nsteps: [1, 2]"),
        (["--expr={a: b=c}"], "expr: {a: b=c}"),
        (["--folder=/my set #1=a"], "folder: '/my set #1=a'"),
        (["--folder", "/it's: here"], "folder: '/it''s: here'"),
        (["--expr={a: '#b', c: 1}"], "expr: {a: '#b', c: 1}"),
        (["--expr= {a: 1}"], "expr:  {a: 1}"),
    ],
)
def test_values_with_equals_signs(argv, text):
    path, run_opts, overrides = parse_arguments(
        ["mine.yaml", *argv, "--device=cpu"]
    )
    assert path == "mine.yaml" and overrides == text
    assert run_opts["device"] == "cpu"


def test_options_of_speechbrain_that_are_hparams(root):
    """What it takes for short is no option; what it takes is recorded, too."""
    path, run_opts, overrides = parse_arguments(
        [
            str(root / "hparams" / "amnet.yaml"),
            "--optimizer=!name:torch.optim.SGD {lr: 0.1}",
            "--precision=bf16",
            "--grad_accumulation_factor=2",
            "--noprogressbar",
        ]
    )
    assert run_opts["optimizer_step_limit"] is None
    assert run_opts["precision"] == "bf16" and run_opts["noprogressbar"]
    lines = resolve_hparams(path, overrides).splitlines()
    assert "optimizer: !name:torch.optim.SGD {lr: 0.1}" in lines
    assert "precision: bf16" in lines
    assert "grad_accumulation_factor: 2" in lines


def test_a_training_goes_on_under_its_own_hparams(load, tmp_path):
    file = tmp_path / "hyperparams.yaml"
    file.write_text(
        "# as it was\ndata_folder: a\nlist: [1, 2]\nx: !new:a.B\n  c: 1\n"
        "gone: 1\n"
    )
    same = "list:\n- 1\n- 2\nx: !new:a.B {c: 1}\ngone: 1\ndata_folder: b\n"
    check_recorded(file, same)
    other = "list: [1, 2.0]\nx: !new:a.C {c: 1}\nnew: 1\ndata_folder: b\n"
    with pytest.raises(ValueError) as caught:
        check_recorded(file, other)
    said = str(caught.value)
    assert str(tmp_path) in said and "\n" not in said
    for change in (
        "gone (1 there, none now)",
        "list[1] (2 there, 2.0 now)",
        "new (none there, 1 now)",
        "x (!new:a.B {c: 1} there, !new:a.C {c: 1} now)",
    ):
        assert change in said


@pytest.mark.parametrize(
    "there, now",
    [
        ("True", "true"),
        ("0.003", "3.0e-3"),
        ("1e-3", "0.001"),
        ("null", ""),
        (".nan", ".NaN"),
        ("16", "0x10"),
        ("(3, 4)", "(3,4)"),
        ("a b", "'a b'"),
        ("'3'", '"3"'),
        ("[True, {b: &x 1e3}, *x]", "[true, {b: 1000.0}, 1.0e+3]"),
    ],
)
def test_equal_values_are_the_same_hparams(tmp_path, there, now):
    file = tmp_path / "hyperparams.yaml"
    file.write_text(f"a: {there}\n")
    check_recorded(file, f"a: {now}\n")


@pytest.mark.parametrize(
    "there, now, said",
    [
        ("'3'", "3", "'3' there, 3 now"),
        ("true", "'true'", "True there, 'true' now"),
        ("''", "null", "'' there, null now"),
        ("1", "true", "1 there, True now"),
        ("1", "1.0", "1 there, 1.0 now"),
        ("(3, 4)", "(3, 4.0)", r"\(3, 4\) there, \(3, 4.0\) now"),
        ("<b>", "!ref <b>", "<b> there, !ref <b> now"),
    ],
)
def test_other_types_are_other_hparams(tmp_path, there, now, said):
    file = tmp_path / "hyperparams.yaml"
    file.write_text(f"a: {there}\n")
    with pytest.raises(ValueError, match=rf": a \({said}\);"):
        check_recorded(file, f"a: {now}\n")


def test_tuples_are_plain_values():
    """Whether hyperpyyaml has loaded a file before, or not."""
    for _ in range(2):
        assert plain_values("a: (3, 4)\n") == {"a": (3, 4)}


def test_what_differs_within_a_list_of_branches_is_named(tmp_path):
    file = tmp_path / "hyperparams.yaml"
    text = "encoder: !new:E\n  branches: [!name:Dense , !name:Low {rank: 4}]\n"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"branches\[1\].rank \(4 there, 8 n"):
        check_recorded(file, text.replace("4", "8"))
    longer = text.replace("}]", "}, !name:Skip ]")
    with pytest.raises(ValueError, match=r"encoder.branches \(\[!name:Dense"):
        check_recorded(file, longer)


def test_shipped_experiments_resolve(root):
    """Each file of hparams/ merges into a whole text without a base."""
    for path in sorted((root / "hparams").glob("*.yaml")):
        text = resolve_hparams(path)
        assert "\nbase:" not in f"\n{text}", path


def test_the_whole_file_loads_with_plain_hyperpyyaml(root, tmp_path):
    overrides = {"data_folder": "d", "output_folder": str(tmp_path)}
    with open(root / "hparams" / "amnet.yaml") as file:
        plain = load_hyperpyyaml(file, overrides)
    ours = load_hparams(root / "hparams" / "amnet.yaml", overrides)
    assert plain.keys() == ours.keys()
    assert str(plain["modules"]) == str(ours["modules"])


def published(root, experiment, key):
    """Mean of a figure over the seeds of the AN4 table."""
    files = root.glob(f"recipes/LibriSpeech/results/an4/{experiment}-*.json")
    return mean(json.loads(file.read_text())[key] for file in files)


@pytest.mark.parametrize("name", ["small", "sparse", "random", "energy"])
def test_controls_cost_what_the_amortized_network_does(root, tmp_path, name):
    """Within 3 %, or errors are not comparable."""
    hparams = load_hparams(
        root / "hparams" / f"{name}.yaml",
        {"data_folder": "d", "output_folder": str(tmp_path)},
    )
    encoder = hparams["encoder"]
    costs = torch.tensor(encoder.branch_flops, dtype=torch.float64)
    dense = 1.0
    if name == "random":
        dense = hparams["arbitrator"].edges.item()
    elif name == "energy":
        dense = hparams["arbitrator"].share
    shares = [dense, 1 - dense][: len(costs)]
    flops = (costs * torch.tensor(shares, dtype=torch.float64)).sum()
    rival = "amnet_sparse_backlog" if name == "sparse" else "amnet"
    amnet = published(root, rival, "mflops_per_frame")
    assert flops.item() / 1e6 == pytest.approx(amnet, rel=0.03)


def test_the_cost_loss_alone_aims_at_what_both_save(root):
    text = resolve_hparams(root / "hparams" / "amnet_cost.yaml")
    target = float(re.search(r"saved_target: ([0-9.]+)", text)[1])
    saved = published(root, "amnet", "compute_saved")
    assert (1 - target) / (1 - saved) == pytest.approx(1, abs=0.03)


NAME = "!name:speechbrain_amnet"
DENSE = f"{NAME}.Dense"


@pytest.mark.parametrize(
    "override, message",
    [
        (
            "target_device: {load: 0}",
            "target_device: Device: load must be above 0, got 0",
        ),
        (
            "target_device: {load: fast}",
            "target_device: Device: load must be above 0, got fast",
        ),
        (
            f"encoder: {{branches: [{DENSE} , {NAME}.LowRank {{rank: 8.5}}]}}",
            r"encoder: AmortizedEncoder: branches\[1\]: LowRank: rank: "
            "expected 1 to 320 .* got 8.5",
        ),
        (
            f"encoder: {{branches: [{DENSE} , {NAME}.Sparse {{density: 2}}]}}",
            r"encoder: AmortizedEncoder: branches\[1\]: Sparse: density must",
        ),
        (
            "encoder: {branches: Dense}",
            "encoder: AmortizedEncoder: branches must list .* got Dense",
        ),
    ],
)
def test_a_value_that_cannot_be_is_found_in_the_file(override, message):
    amnet = Path(__file__).parents[1] / "hparams" / "amnet.yaml"
    with pytest.raises(ValueError, match=message):
        load_hparams(amnet, f"data_folder: d\noutput_folder: o\n{override}")
