"""`amnet demo`, on a corpus too small to learn from."""

import pytest

from speechbrain_amnet.cli import main
from speechbrain_amnet.commands.demo import RUNS


def test_demo_runs_from_nothing_to_pictures(tmp_path, capsys, monkeypatch):
    pytest.importorskip("hibari", reason="hibari-tts is not installed")
    monkeypatch.chdir(tmp_path)
    assert main(["demo", "--minutes", "0.6", "--epochs", "1"]) == 0
    said = capsys.readouterr().out
    assert "word error rate" in said and "transcribe --frames" in said
    for name in RUNS:
        assert (tmp_path / "demo" / name / "1" / "results.json").exists()
    assert (tmp_path / "demo" / "tradeoff_spoken_test.png").stat().st_size
    assert (tmp_path / "demo" / "live.gif").stat().st_size
    for picture in ("training.png", "utterances_test.png"):
        assert (tmp_path / "demo" / "amnet" / "1" / picture).stat().st_size
