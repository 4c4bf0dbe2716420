"""`amnet plot`: which pictures it draws, where, and what it says."""

from unittest.mock import patch

from speechbrain_amnet import cli
from speechbrain_amnet.report import plots


def test_command(runs, train_log, tmp_path, capsys):
    full, amnet = runs.make("full"), runs.make("amnet")
    train_log.rename(amnet / "train_log.txt")
    assert cli.main(["plot", str(full), str(amnet)]) == 0
    shown = capsys.readouterr().out.split()
    assert sorted(shown) == sorted(
        str(path)
        for path in (
            amnet / "training.png",
            amnet / "utterances_test.png",
            full / "utterances_test.png",
            runs.folder / "runs" / "tradeoff_toy_test.png",
        )
    )
    out = tmp_path / "pictures"
    assert cli.main(["plot", str(amnet), "--out", str(out)]) == 0
    assert sorted(path.name for path in out.iterdir()) == [
        "runs-amnet-1-training.png",
        "runs-amnet-1-utterances_test.png",
    ]


def test_command_draws_a_study_of_published_results(runs, tmp_path, capsys):
    for name in ("full", "amnet", "random"):
        runs.make(name)
    published, out = tmp_path / "published", tmp_path / "pictures"
    folder = str(runs.folder / "runs")
    assert cli.main(["table", folder, "--publish", str(published)]) == 0
    study = tmp_path / "study.yaml"
    lines = (
        "train: t.py\nhparams: h\nresults: r\nruns:\n    full: {seeds: [1]}\n"
    )
    study.write_text(lines + "    ours: {trained_as: amnet, seeds: [1]}\n")
    options = ["--study", str(study), "--out", str(out)]
    capsys.readouterr()
    assert cli.main(["plot", str(published), *options]) == 0
    assert [path.name for path in out.iterdir()] == ["tradeoff_toy_test.png"]
    with patch.object(plots, "plot_tradeoff") as drawn:
        cli.main(["plot", str(published), *options])
        cli.main(["plot", str(published), "--only", "random", "full"])
    study_of, only = (
        [r["experiment"] for r in c.args[0]] for c in drawn.call_args_list
    )
    assert study_of == ["full", "ours"] and sorted(only) == ["full", "random"]
    assert cli.main(["plot", str(published), "--only", "fully"]) == 2
    assert "fully: no result of it; there are amnet, full, random" in (
        capsys.readouterr().err
    )
    study.write_text(lines)  # one run is no trade-off
    assert cli.main(["plot", str(published), *options]) == 0
    study.write_text(lines.replace("[1]", "[7]"))
    assert cli.main(["plot", str(published), *options]) == 2
    assert str(study) in capsys.readouterr().err


def test_command_on_a_training_that_goes_on(train_log, capsys):
    assert cli.main(["plot", str(train_log.parent)]) == 0
    assert capsys.readouterr().out.endswith("training.png\n")


def test_command_says_what_is_missing(tmp_path, capsys):
    assert cli.main(["plot", str(tmp_path)]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("amnet: error: no results.json")
    assert shown.count("\n") == 1


def test_options_of_the_other_kind_are_refused(runs, capsys):
    run = str(runs.make("full"))
    for words, message in (
        (["--animate=a.gif", "--out=b"], "--out is for pictures"),
        (["--animate=a.gif", "--only", "full"], "--only is for pictures"),
        (["--split=dev"], "--split is for --animate"),
    ):
        assert cli.main(["plot", run, *words]) == 2
        assert message in capsys.readouterr().err
