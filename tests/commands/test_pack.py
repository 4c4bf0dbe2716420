"""`amnet pack`, and `amnet transcribe` of what it wrote, without PyTorch."""

import subprocess
import sys

import numpy as np
import soundfile

from speechbrain_amnet import cli


def test_a_packed_model_is_the_same(run, tmp_path, capsys):
    file, wav = tmp_path / "model.safetensors", tmp_path / "some.wav"
    soundfile.write(
        wav, 0.1 * np.random.default_rng(0).normal(size=20000), 16000
    )
    assert cli.main(["pack", str(run), str(file)]) == 0
    assert f"amnet transcribe {file}" in capsys.readouterr().out
    shown = []
    for model in (run, file):
        command = ["transcribe", str(model), str(wav), "--frames", "--load=3"]
        assert cli.main(command) == 0
        *frames, result = capsys.readouterr().out.splitlines()
        shown.append((frames, result.partition("duration;")[2]))
    assert shown[0] == shown[1]
    assert len(shown[0][0]) == 32 and "takes 3 times" in shown[0][1]

    # The same from a pipe, as a microphone's program writes it.
    samples, _ = soundfile.read(wav, dtype="int16")
    code = "import sys; from speechbrain_amnet import cli; sys.exit(cli.main())"
    options = ["transcribe", file, "-", "--frames", "--load=3"]
    done = subprocess.run(
        [sys.executable, "-c", code, *options],
        input=samples.astype("<i2").tobytes(),
        capture_output=True,
        check=True,
    )
    assert done.stdout.decode().splitlines()[:-1] == shown[0][0]

    small = tmp_path / "small.safetensors"
    assert cli.main(["pack", str(run), str(small), "--int8"]) == 0
    assert small.stat().st_size < file.stat().st_size / 2
    assert cli.main(["transcribe", str(small), str(wav)]) == 0

    # A device has NumPy, SciPy, safetensors and soundfile for it, no more.
    code = (
        "import sys; from speechbrain_amnet import cli; "
        f"code = cli.main(['transcribe', {str(file)!r}, {str(wav)!r}]); "
        "sys.exit(code or ' '.join(sys.modules.keys() & {'torch', "
        "'speechbrain', 'ruamel', 'hyperpyyaml', 'sentencepiece', 'jiwer', "
        "'zstandard', 'matplotlib', 'tqdm'}) or 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_is_no_model_is_refused(tmp_path, capsys):
    wav = tmp_path / "some.wav"
    soundfile.write(wav, np.zeros(700), 16000)
    for model, said in (
        (tmp_path / "nothing", "nothing: no model"),
        (wav, "some.wav: not a packed model"),
    ):
        assert cli.main(["transcribe", str(model), str(wav)]) == 2
        error = capsys.readouterr().err.strip()
        assert said in error and "\n" not in error


def test_what_is_said_where_there_is_no_pytorch(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "speechbrain_amnet.inference", None)
    monkeypatch.delattr("speechbrain_amnet.inference", raising=False)
    for model, said in (
        ("nothing", "nothing: no model; expected"),
        ("", "a training's folder needs PyTorch and SpeechBrain"),
    ):
        assert cli.main(["transcribe", str(tmp_path / model), "a.wav"]) == 2
        error = capsys.readouterr().err.strip()
        assert said in error and "\n" not in error
