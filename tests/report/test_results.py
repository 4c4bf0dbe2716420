"""Results are read once each; what is none is refused."""

import json
import shutil

import pytest

from speechbrain_amnet.cli import main
from speechbrain_amnet.report.results import (
    publish,
    read_results,
    read_split,
)
from speechbrain_amnet.report.summary import summarise


def test_a_run_twice_is_refused(runs):
    run = runs.make("full")
    published = runs.make("full", published=True)
    assert len(read_results([run, run / "results.json"])) == 1
    (found,) = read_results([published, run])  # what it was published from
    assert found["path"] == run / "results.json"
    other = shutil.copytree(run, runs.folder / "other")
    with pytest.raises(ValueError, match="two results of full, seed 1"):
        read_results([run, other])


def test_what_is_not_results_is_refused(tmp_path, runs):
    with pytest.raises(FileNotFoundError, match="no such folder of results"):
        read_results([tmp_path / "none"])
    with pytest.raises(FileNotFoundError, match="no results.json and no"):
        read_results([runs.audio])
    file = runs.make("full") / "results.json"
    content = json.loads(file.read_text())
    del content["wer"], content["device"]
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="without wer, device"):
        read_results([file])
    file.write_text('{"wer": ')
    with pytest.raises(ValueError, match="is not JSON"):
        read_results([file])


def test_results_of_a_split(runs):
    run = runs.make("full")
    assert read_split(run, "test") == read_results([run])[0]
    with pytest.raises(FileNotFoundError) as caught:
        read_split(run, "dev")
    said = f"no results_dev.json in {run}; a run writes its results when"
    assert str(caught.value).startswith(said)
    with pytest.raises(FileNotFoundError, match="no such folder of results"):
        read_split(run / "none", "test")


@pytest.mark.parametrize("command", ["page", "learnt", "table"])
def test_folder_without_results(command, tmp_path, capsys):
    assert main([command, str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("amnet: error: no results.json ")
    assert f"in {tmp_path}; a run writes its results when" in said


def test_published_results_give_the_same_table(runs):
    runs.make("full")
    runs.make("amnet", 1)
    runs.make("amnet", 2, errors=(1, 1, 1, 0, 2))
    made = read_results([runs.folder / "runs"])
    publish(made, runs.folder / "kept")
    names = sorted(file.name for file in (runs.folder / "kept").iterdir())
    assert names == [
        f"{run}.{kind}"
        for run in ("amnet-1", "amnet-2", "full-1")
        for kind in ("csv", "json")
    ]
    kept = read_results([runs.folder / "kept"])
    assert summarise(kept) == summarise(made)
    for file in (runs.folder / "kept").iterdir():
        assert "LIGHTS" not in file.read_text(), "the corpus's words"
        assert str(runs.folder) not in file.read_text()


def test_held_to_a_grammar_is_another_measurement(runs):
    """Not the same run twice, and not to be compared with a free search."""
    made = [runs.make("full"), runs.make("amnet", grammar="lights.gram")]
    rows = summarise(read_results(made))
    said = {row["experiment"]: row["data"] for row in rows}
    assert said == {"full": "toy", "amnet": "toy, held to lights.gram"}
    held = made[1] / "grammar-lights"
    shutil.copytree(made[1], held)
    runs.make("amnet")
    assert len(read_results([made[1], held])) == 2


def test_runs_beside_published_results_are_read_too(runs):
    """As where one seed of a published study is trained again."""
    kept = runs.make("full", published=True).parent
    run = runs.make("amnet", 2)
    shutil.copytree(run, kept / "amnet" / "2")
    found = {(r["experiment"], r["seed"]) for r in read_results([kept])}
    assert found == {("full", 1), ("amnet", 2)}
    # What is there twice is the run's own.
    again = shutil.copytree(runs.make("full", wer=12.0), kept / "full" / "1")
    (found,) = [r for r in read_results([kept]) if r["seed"] == 1]
    assert found["path"] == again / "results.json" and found["wer"] == 12.0


def test_another_result_is_not_published_over(runs, tmp_path):
    """As of the same run on another device, in a second call."""
    kept = tmp_path / "kept"
    run = runs.make("amnet")
    publish(read_results([run]), kept)
    before = (kept / "amnet-1.json").read_bytes()
    publish(read_results([run]), kept)  # the same again
    assert (kept / "amnet-1.json").read_bytes() == before
    slow = {"load": 4.0, "flops_per_second": 3e7}
    other = runs.make("small"), runs.make("amnet", device=slow)
    with pytest.raises(ValueError, match=r"on toy test, r = 2, .* r = 4"):
        publish(read_results(other), kept)
    assert (kept / "amnet-1.json").read_bytes() == before
    assert not (kept / "small-1.json").exists()


def test_two_results_are_not_published_under_one_name(runs, tmp_path):
    made = [runs.make("full")]
    other = shutil.copytree(made[0], runs.folder / "other")
    content = json.loads((other / "results.json").read_text())
    content = json.dumps({**content, "data": "other"})
    (other / "results.json").write_text(content)
    results = read_results([*made, other])
    with pytest.raises(
        ValueError, match="full-1 is a result on toy test and o"
    ):
        publish(results, tmp_path / "kept")
    assert not (tmp_path / "kept").exists()
