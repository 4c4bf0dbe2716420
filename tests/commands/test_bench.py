"""`amnet bench`: what it prints, and what it refuses."""

import re

import numpy as np
import soundfile

from speechbrain_amnet import cli


def test_measured_beside_reckoned(run, tmp_path, capsys):
    file, wav = tmp_path / "model.safetensors", tmp_path / "some.wav"
    soundfile.write(
        wav, 0.1 * np.random.default_rng(0).normal(size=5000), 16000
    )
    assert cli.main(["pack", str(run), str(file)]) == 0
    capsys.readouterr()
    assert cli.main(["bench", str(file), str(wav), "--load=0.5"]) == 0
    lines = capsys.readouterr().out.splitlines()
    dense = next(line for line in lines if line.startswith("dense"))
    # Held back to some half of a frame of 40 ms; how exactly, the machine says.
    once, held = map(float, dense.split()[2:4])
    assert held > 5 * once
    for name in ("measured", "reckoned"):
        (line,) = [line for line in lines if line.startswith(name)]
        mean, *_ = map(float, line.split()[1:])
        assert 0 < mean < 1000
    assert "0.3 s of audio, 1 recordings: encoded" in lines[-1]
    assert re.search(r"taking 0\.\d\d frame durations", lines[-1])


def test_a_device_faster_than_this_machine(run, tmp_path, capsys):
    wav = tmp_path / "some.wav"
    soundfile.write(wav, np.zeros(1000), 16000)
    assert cli.main(["bench", str(run), str(wav), "--load=1e-5"]) == 2
    assert "which a dense frame takes here already" in capsys.readouterr().err
