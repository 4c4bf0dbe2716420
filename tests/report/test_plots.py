"""`amnet plot`: which pictures it draws, where, and what it says."""

from speechbrain_amnet import cli


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


def test_command_on_a_training_that_goes_on(train_log, capsys):
    assert cli.main(["plot", str(train_log.parent)]) == 0
    assert capsys.readouterr().out.endswith("training.png\n")


def test_command_says_what_is_missing(tmp_path, capsys):
    assert cli.main(["plot", str(tmp_path)]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("amnet: error: no results.json")
    assert shown.count("\n") == 1
