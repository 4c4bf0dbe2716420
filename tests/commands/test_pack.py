"""`amnet pack`, and what a device does with what it wrote, without PyTorch."""

import configparser
import re
import subprocess
import sys
from functools import cache
from importlib.metadata import packages_distributions

import numpy as np
import pytest
import soundfile
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from speechbrain_amnet import cli
from speechbrain_amnet.diff.changes import SparseChange, Values
from speechbrain_amnet.diff.file import make_diff, write_diff
from speechbrain_amnet.diff.model_files import ModelFiles
from speechbrain_amnet.runtime.packed import read_packed, write_packed

DEVICE = ["numpy", "scipy", "safetensors", "soundfile"]
ALONE = """
import sys

class Missing:
    names = sys.argv.pop(1).split()

    def find_spec(self, name, *_):
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}")

sys.meta_path.insert(0, Missing())
from speechbrain_amnet.cli import main
sys.exit(main(sys.argv[1:]))
"""
modules = cache(packages_distributions)


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


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda one: one.arrays.pop("features.window"), "KeyError: 'window'"),
        (lambda one: one.config.update(features=None), "TypeError: "),
    ],
)
def test_a_model_that_lacks_a_part_is_named(
    run, tmp_path, capsys, change, said
):
    model, wav = tmp_path / "model.safetensors", tmp_path / "some.wav"
    soundfile.write(wav, np.zeros(700), 16000)
    assert cli.main(["pack", str(run), str(model)]) == 0
    packed = read_packed(model)
    change(packed)
    write_packed(packed, model)
    assert cli.main(["transcribe", str(model), str(wav)]) == 2
    error = capsys.readouterr().err.strip()
    assert f"model.safetensors: not a whole model ({said}" in error


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


def without(root, there):
    """Modules that the package requires and that are not among `there`."""
    setup = configparser.ConfigParser()
    setup.read(root / "setup.cfg")
    lines = setup["options"]["install_requires"].split("\n")
    missing = {Requirement(line).name for line in lines if line} - set(there)
    missing, found = set(map(canonicalize_name, missing)), {"numba": set()}
    for module, names in modules().items():
        if here := missing.intersection(map(canonicalize_name, names)):
            found[module] = here
    assert set().union(*found.values()) == missing
    return list(found)


@pytest.mark.parametrize(
    "command, more, said",
    [
        ("transcribe {model} {wav} --grammar={grammar}", [], "^STOP$"),
        ("bench {model} {wav} --publish={json}", ["tqdm"], "^peak.* MB$"),
        ("diff apply {model} {diff} --out={new}", ["zstandard"], "new is .*"),
    ],
    ids=["grammar", "bench", "diff"],
)
def test_a_device_needs_no_more_than_is_said(
    command, more, said, run, root, tmp_path, capsys
):
    needs = f"pip install {' '.join(DEVICE)}`"
    assert needs in (root / "README.md").read_text()
    names = ("model", "wav", "grammar", "json", "diff", "new")
    files = {name: tmp_path / name for name in names}
    assert cli.main(["pack", str(run), str(files["model"])]) == 0
    samples = 0.1 * np.random.default_rng(0).normal(size=8000)
    soundfile.write(files["wav"], samples, 16000, format="WAV")
    grammar = "#JSGF V1.0; grammar g; public <order> = go | stop;"
    files["grammar"].write_text(grammar)
    tensors = {n: a for n, a in ModelFiles(run).items() if a.ndim == 2}
    name, tensor = next(iter(tensors.items()))
    deltas = Values.rounded([0.5], 4)
    change = SparseChange(tensor.shape, np.array([0]), deltas)
    write_diff(make_diff({name: change}, tensors), files["diff"])
    blocked = " ".join(without(root, DEVICE + more))
    words = command.format(**files).split()
    done = subprocess.run(
        [sys.executable, "-c", ALONE, blocked, *words],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(said, done.stdout, re.MULTILINE)
