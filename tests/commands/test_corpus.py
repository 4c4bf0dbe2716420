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
