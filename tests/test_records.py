"""Records: what an evaluation leaves."""

from speechbrain_amnet.records import command


def test_a_command_names_runs_by_data_experiment_and_seed(tmp_path):
    run = tmp_path / "results" / "an4" / "full" / "2"
    run.mkdir(parents=True)
    words = ["/x/train.py", "a.yaml", f"--teacher={run}", "--data=/x/an4"]
    assert command(words) == "train.py a.yaml --teacher=2 --data=an4"
    (run / "hyperparams.yaml").touch()
    assert command(words) == "train.py a.yaml --teacher=an4/full/2 --data=an4"
