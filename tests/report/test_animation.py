"""An utterance goes by, in several runs at once."""

import numpy as np
import pytest
from PIL import Image

from speechbrain_amnet import cli
from speechbrain_amnet.report import animation


def test_the_curtain_opens(runs, tmp_path, capsys, monkeypatch):
    full, amnet = (runs.make(n, errors=(0, 0, 1)) for n in ("full", "amnet"))
    out = tmp_path / "new" / "live.gif"
    command = ["plot", str(amnet), str(full), f"--animate={out}"]
    assert cli.main(command) == 0
    assert capsys.readouterr().out.strip() == str(out)
    # A folder of both stands for both.
    told = []
    monkeypatch.setattr(
        animation, "animate_utterance", lambda *a: told.append(a)
    )
    both = ["plot", str(full.parents[1]), f"--animate={out}"]
    assert cli.main(both) == 0
    assert told == [([amnet, full], "test", out)]
    with Image.open(out) as film:
        ink, durations = [], []
        for number in range(film.n_frames):
            film.seek(number)
            grey = np.asarray(film.convert("L"))
            ink.append(int((grey < 128).sum()))
            durations.append(film.info["duration"])
    assert set(durations[:-1]) == {80} and durations[-1] == 2000
    # All is there at the end, when the slower run is ready.
    assert ink[0] < ink[len(ink) // 2] < ink[-1]
    seconds = 0.08 * (len(ink) - 1)
    # Of the two without errors the longer one, of 50 frames.
    u = animation.read_frames(full, "test")[1]
    assert seconds == pytest.approx(2.0 + u["latency_ms"] / 1000, abs=0.1)


def test_an_utterance_that_all_got_right():
    def run(**right):
        return {
            name: {"hypothesis": "YES", "reference": "YES" if ok else "NO"}
            for name, ok in right.items()
        }

    one = run(a=True, b=True, c=True, d=False)
    assert animation.choose([one, run(a=False, b=True, c=True)]) == "c"
    assert animation.choose([run(a=False), run(a=False, b=True)]) == "a"
    with pytest.raises(ValueError, match="in common"):
        animation.choose([run(a=True), run(b=True)])
