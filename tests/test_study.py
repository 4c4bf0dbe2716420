"""Studies: what is read, and what is refused."""

from pathlib import Path

import pytest

from speechbrain_amnet.cli import main
from speechbrain_amnet.study import as_named, read_study

ROOT = Path(__file__).parents[1]
AN4 = ROOT / "recipes" / "LibriSpeech" / "studies" / "an4.yaml"

STUDY = """\
train: train.py
hparams: {hparams}
results: out
runs:
    full: {{seeds: [1, 2]}}
    amnet:
        seeds: [2]
        overrides: {{start_from: "out/full/{{seed}}", epochs: 10}}
"""


@pytest.fixture
def study(tmp_path, monkeypatch):
    """The path of a small study, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "study.yaml"
    path.write_text(STUDY.format(hparams=ROOT / "hparams"))
    return path


def test_study_becomes_command_lines(study):
    first, second, third = read_study(study, "data", ["layers=2"])
    assert [first.name, third.name] == ["full/1", "amnet/2"]
    assert third.folder == Path("out/amnet/2")
    assert third.after == [second.folder]
    assert not Path("out").exists()
    assert not first.after and first.epochs == 90 and third.epochs == 10
    for option in (
        "--data_folder=data",
        "--output_folder=out/amnet/2",
        "--experiment=amnet",
        "--seed=2",
        "--start_from=out/full/2",
        "--layers=2",
    ):
        assert option in third.command


def test_nothing_is_null(study):
    text = study.read_text()
    study.write_text(
        text.replace('start_from: "out/full/{seed}"', "teacher: null")
    )
    *_, third = read_study(study, "data")
    assert "--teacher=null" in third.command and not third.after


@pytest.fixture(scope="module")
def an4():
    """The trainings of the study of AN4; each loads its hparams."""
    return {t.name: t for t in read_study(AN4, "data")}


def test_settings_replace_what_a_run_has_of_its_own(study):
    *_, third = read_study(study, "data", ["epochs=2"])
    assert third.epochs == 2 and third.command.count("--epochs=2") == 1
    assert "--epochs=10" not in third.command
    assert {t.epochs for t in read_study(AN4, "data", ["epochs=2"])} == {2}


def test_the_papers_table_is_a_study(an4):
    paper = AN4.with_name("paper.yaml")
    trainings = {t.name: t for t in read_study(paper, "data")}
    assert "amnet_sparse_backlog/7" in trainings
    assert trainings["amnet_any_device/8"].loads == [1, 1.5, 3, 4]
    fast = trainings["amnet_load_1.5/8"].command
    assert '--target_device={"load": 1.5}' in fast
    # What both tables have is trained once, by the same command.
    for name, other in (
        ("amnet_factorized_backlog/3", "amnet/3"),
        ("amnet_factorized_cost/5", "amnet_cost/5"),
        ("factorized/2", "small/2"),
    ):
        assert trainings[name].command == an4[other].command
        assert trainings[name].row == name.partition("/")[0]


def test_the_table_of_an4_is_a_study(an4):
    assert an4["full/3"].epochs == 90
    # The second leg skips what the dense model stands for.
    assert an4["amnet/3"].epochs == 45
    assert Path("results/an4/full/3") in an4["amnet/3"].after
    assert "full.yaml" in an4["full_longer/1"].command[2]


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("runs:", "rums:", "no runs"),
        ("seeds: [2]", "sedes: [2]", "unknown key 'sedes'"),
        ("epochs: 10", "dropout: 2", "yaml: amnet/2: .*dropout.* got 2"),
        ("{seeds: [1, 2]}", "{}", "'seeds' is missing"),
        ("{seeds: [1, 2]}", "{seeds: 1}", "seeds must be a list"),
        ("{seeds: [1, 2]}", "{seeds: [1, 1]}", "a list of different ones"),
        ("seeds: [2]", "seeds: [2]\n        trained_as: full", "are both tr"),
        ("results: out", "results: [out]", "results must be a path"),
        ("epochs: 10", "epoch: 10", "unknown key 'epoch'"),
        ("seeds: [2]", "seeds: [2]\n        loads: 2", "loads must be a"),
        ("seeds: [2]", "seeds: [2]\n        loads: [1, 0]", "above 0, got 0"),
        ("out/full/{seed}", "elsewhere", "starts from elsewhere"),
        ("out/full/{seed}", "out/amnet/2", "wait for each other: amnet/2"),
        ("[1, 2]", "[1, 2", "not YAML"),
        ("epochs: 10", "seed: 5", "overrides: seed is what the study gives"),
        ("epochs: 10", "output_folder: x", "output_folder is what the study"),
        ("seeds: [2]", "seeds: [2]\n        file: 5", "file must be the name"),
        ("full:", "fool:", "no such hparams file"),
    ],
)
def test_mistakes_are_named(study, old, new, message):
    text = study.read_text()
    assert old in text
    study.write_text(text.replace(old, new))
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        read_study(study, "data")


def test_a_study_without_runs(study):
    study.write_text(study.read_text().partition("runs:")[0] + "runs: {}\n")
    with pytest.raises(ValueError, match="there are no runs"):
        read_study(study, "data")


@pytest.mark.parametrize("key", ["seed", "experiment", "data_folder"])
def test_settings_leave_what_tells_runs_apart(study, key):
    with pytest.raises(ValueError, match=f"--set: {key} is what the study"):
        read_study(study, "data", [f"{key}=5"])


def test_a_value_within_another_may_be_null(study):
    null = "overrides: {routing_loss: {saved_target: null}, "
    study.write_text(study.read_text().replace("overrides: {", null))
    assert null in study.read_text()
    (one,) = [t for t in read_study(study, "data") if t.name == "amnet/2"]
    assert '--routing_loss={"saved_target": null}' in one.command


def test_a_table_s_study_is_checked_too(study):
    results = [{"experiment": "full", "seed": 1}]
    good = study.read_text()
    for bad in ("full: [1, 2]", "full: {seeds: 1}", "full: {seed: [1]}"):
        study.write_text(good.replace("full: {seeds: [1, 2]}", bad))
        with pytest.raises(ValueError, match=": full: "):
            as_named(results, study)


def test_no_such_study(tmp_path, capsys):
    for path in (tmp_path, tmp_path / "none.yaml"):
        assert main(["study", str(path), "--data_folder=data"]) == 2
        said = capsys.readouterr().err
        assert said == f"amnet: error: no such study: {path}\n"


def test_run_of_other_hparams_is_refused(study):
    folder = read_study(study, "data")[0].folder
    folder.mkdir(parents=True)
    (folder / "results.json").write_text("{}")
    assert read_study(study, "data")[0].done
    (folder / "hyperparams.yaml").write_text("epochs: 3\n")
    with pytest.raises(ValueError, match="other hparams than are asked for"):
        read_study(study, "data")


def test_published_results_by_the_names_of_a_study(study):
    text = study.read_text().replace("    amnet:", "    mine:")
    study.write_text(text + "        trained_as: amnet\n")
    results = [
        {"experiment": name, "seed": seed}
        for name in ("full", "amnet", "small")
        for seed in (1, 2, 3)
    ]
    named = [(r["experiment"], r["seed"]) for r in as_named(results, study)]
    assert named == [("full", 1), ("full", 2), ("mine", 2)]
    with pytest.raises(ValueError, match="none of its runs is among"):
        as_named(results[-1:], study)
