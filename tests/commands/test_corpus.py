"""`amnet corpus` passes its arguments on."""

import pytest

from speechbrain_amnet import cli


def test_corpus_passes_its_arguments_on(tmp_path, monkeypatch, capsys):
    spoken = pytest.importorskip("speechbrain_amnet.corpus.spoken")
    calls = []
    monkeypatch.setattr(
        spoken, "make_spoken_corpus", lambda *a, **k: calls.append((a, k))
    )
    out = tmp_path / "corpus"
    arguments = ["corpus", str(out), "--minutes", "2.5", "--seed", "7"]
    assert cli.main(arguments) == 0
    assert calls == [((out,), {"minutes": 2.5, "seed": 7})]


@pytest.mark.parametrize(
    "options, wrong",
    [
        (["--seed=-1"], "--seed: expected 0 or more, got -1"),
        (["--by=size"], "--by says nothing about the built-in corpus"),
        (["--fold=1/5"], "--fold says nothing"),
        (["--grammar=x", "--releases"], "--releases says nothing about sen"),
        (["--from=x", "--minutes=3"], "--minutes says nothing about releases"),
        (["--from=x", "--minutes=0"], "--minutes says nothing about releases"),
        (["--from=x", "--grammar=x"], "--grammar says nothing about releases"),
        (["--from=x", "--fold=1/5"], "--fold says nothing about releases by s"),
    ],
)
def test_options_that_say_nothing(options, wrong, tmp_path, capsys):
    assert cli.main(["corpus", str(tmp_path / "out"), *options]) == 2
    assert wrong in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
