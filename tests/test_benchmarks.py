"""Benchmarks run to their end and say their headline in the last line."""

import argparse
import doctest
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch

from speechbrain_amnet.diff.changes import SparseChange, Values
from speechbrain_amnet.diff.file import make_diff, write_diff
from speechbrain_amnet.diff.model_files import ModelFiles
from speechbrain_amnet.export import export_model
from speechbrain_amnet.inference import load
from speechbrain_amnet.report.figures import markdown_text, read_figures
from speechbrain_amnet.runtime.convert import pack
from speechbrain_amnet.runtime.packed import write_packed

RIVALS = ("nn.LSTM", "K=1", "K=2", "K=3")


@pytest.mark.parametrize(
    "name, contenders",
    [
        ("training_step", RIVALS),
        ("streaming_frame", RIVALS),
        (
            "diff_step --out=kept.json",
            ("plain", "sparse, kept", "hash", "low rank"),
        ),
        (
            "diff_apply --out=kept.json",
            ("copy", "apply", "apply in place", "undo"),
        ),
        ("diff_apply --density 0", ("copy", "apply", "undo")),
        ("runtime_frame", ("dense", "rank 2", "sparse 0.02", "blocks 0.02")),
        ("runtime_frame --int8", ("dense", "rank 2", "sparse 0.02")),
        ("runtime_frame --routed 0.4", ("dense", "0.4 dense, rank 2")),
    ],
)
def test_the_last_line_is_the_ratio(root, name, contenders, tmp_path):
    """And what is kept is what is printed."""
    name, *options = name.split()
    program = root / "benchmarks" / f"{name}.py"
    done = subprocess.run(
        [sys.executable, program, "--quick", *options],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-1]
    assert re.fullmatch(r"ratio: \d+\.\d\d", last), done.stdout
    for contender in contenders:
        assert f"\n{contender}" in done.stdout
    if "--out=kept.json" in options:
        rows = read_figures(tmp_path / "kept.json")["rows"]
        assert len(rows) >= len(contenders)
        for label, *kept in (row.values() for row in rows):
            (line,) = re.findall(rf"^{label}  .*$", done.stdout, re.M)
            printed = map(float, line.split()[-len(kept) :])
            assert list(printed) == pytest.approx(kept, abs=0.051)


def program(root, name):
    """A benchmark as a module."""
    file = root / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_frames_took_is_kept(root, tmp_path, monkeypatch, capsys):
    out = tmp_path / "frames.json"
    words = ["frames", "--quick", "--routed=0.4", f"--out={out}"]
    monkeypatch.setattr(sys, "argv", words)
    program(root, "runtime_frame").main()
    rows = read_figures(out)["rows"]
    dense, cheap, *_ = rows
    assert (dense["Frames"], cheap["Frames"]) == ("dense", "0.4 dense, rank 2")
    assert dense["Times as fast"] == dense["Of what FLOPs promise"] == 1
    kept = cheap["Of what FLOPs promise"]
    assert dense["Whole: of what FLOPs promise"] == 1
    assert cheap["Whole: of what FLOPs promise"] > 0
    # Timed in turns, the whole is longer than its part.
    assert all(row["Whole: ms a frame"] > row["ms a frame"] for row in rows)
    assert capsys.readouterr().out.endswith(f"ratio: {kept:.2f}\n")


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_routed_frames_are_timed_as_they_come(root, share, clock, monkeypatch):
    """A frame takes longer after another branch: that is in their time."""
    frames = program(root, "runtime_frame")

    class Encoder:
        products = [None, None]

        def start(self):
            return []

        def step(self, frame, branch, cells):
            clock.now += (4.0, 1.0)[branch] + (cells[-1:] != [branch])
            cells.append(branch)

    monkeypatch.setattr(frames.time, "perf_counter", clock)
    both = [Encoder(), Encoder()]
    (seconds, same), flops = frames.routed(both, np.array([8, 2]), share, 400)
    assert same.tolist() == seconds.tolist()
    dense = (flops[1] - 2) / 6
    assert dense == pytest.approx(share, abs=0.05)
    assert seconds[0] == pytest.approx(4) and flops[0] == 8
    # 60 % of the dense frames follow a cheap one, 40 % of the cheap a dense.
    wanted = {0.0: 1.0, 0.4: dense * 5 + (1 - dense) * 1, 1.0: 4.0}[share]
    assert seconds[1] == pytest.approx(wanted)


def test_what_was_reached_is_judged_as_its_examples_say(root):
    found = doctest.testmod(program(root, "targets"))
    assert found.attempted > 10 and not found.failed


@pytest.fixture
def peers(root):
    """The others' packages are not here, and are not needed."""
    return program(root, "peers")


@pytest.fixture
def run(tiny, tmp_path):
    """A model that learnt nothing, and data beside it."""
    noise = 0.1 * np.random.default_rng(0).standard_normal(20001)
    for split in ("train", "test"):
        folder = tmp_path / split / "a" / "b"
        folder.mkdir(parents=True)
        soundfile.write(folder / "a-b-0.wav", noise, 16000)
        (folder / "a-b.trans.txt").write_text("a-b-0 GO ON\n")
    parts = tiny(tmp_path, ["GO ON", "STOP"], hidden_size=256, layers=1)
    export_model(*parts, tmp_path / "model")
    return tmp_path


@pytest.mark.parametrize(
    "said, words",
    [
        ("Enter 42, P-I-T-T.", "ENTER FORTY TWO P I T T"),
        (
            "5213, 504 and 07",
            "FIVE TWO ONE THREE FIVE ZERO FOUR AND ZERO SEVEN",
        ),
        ("I'd like a 12-ounce; 20%", "I'D LIKE A TWELVE OUNCE TWENTY"),
        ("  ", ""),
    ],
)
def test_transcripts_of_peers_are_made_alike(peers, said, words):
    assert peers.normal(said) == words


def test_unigrams_of_known_words(peers):
    model = peers.unigrams(["go go on", "on zzyzx"], {"go", "on"})
    assert "ngram 1=4\n" in model and "zzyzx" not in model
    assert "\n-0.4771 go 0.0\n" in model  # 2 of 6


def test_peers_take_turns(peers, tmp_path, monkeypatch):
    """What they took are medians, and errors those of any turn."""
    folder = tmp_path / "test" / "a" / "b"
    folder.mkdir(parents=True)
    soundfile.write(folder / "a-b-0.wav", np.ones(160), 16000)
    (folder / "a-b.trans.txt").write_text("a-b-0 GO HOME\n")
    took = iter([3.0, 1.0, 2.0])

    def run(command, **_):
        turn = next(took) if "--one=ours" in command else 7.0
        row = {"wait_ms": turn, "texts": {"a-b-0": "go"}}
        return subprocess.CompletedProcess(command, 0, json.dumps(row))

    monkeypatch.setattr(peers.subprocess, "run", run)
    args = argparse.Namespace(
        data="an4", folder=tmp_path, split="test", grammar=None, turns=3
    )
    args.models = ["amnet=model.safetensors"]
    ours, *others = peers.compare(args)
    assert ours["name"] == "amnet" and ours["wait_ms"] == 2.0
    assert ours["wer"] == 50.0 and len(others) == 3
    assert all(other["wait_ms"] == 7.0 for other in others)
    args.models *= 2
    with pytest.raises(SystemExit, match="two of one name"):
        peers.compare(args)


def test_peers_read_our_model(peers, run, capsys):
    """The part of it that needs no package of others."""
    model = run / "model.safetensors"
    write_packed(pack(load(run, run_opts={"device": "cpu"})), model)
    peers.measure("ours", model, run, "test", None)
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["texts"].keys() == {"a-b-0"} and found["texts"]["a-b-0"]
    assert found["wait_ms"] > 0 and found["real_time_factor"] > 0


def test_peers_read_a_dense_run_with_nn_lstm(peers, run, capsys):
    peers.measure("torch", run, run, "test", None)
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    asr = load(run, run_opts={"device": "cpu"})
    wav = asr.load_audio(run / "test" / "a" / "b" / "a-b-0.wav")
    with torch.no_grad():
        features, lengths = asr.mods.features(wav[None], torch.ones(1))
        encoded, _ = asr.mods.encoder(features, lengths, branch=0, hard=True)
        (tokens,) = asr.hparams.search(encoded, lengths)
    assert found["texts"] == {"a-b-0": asr.text(tokens)} and tokens


def test_routing_at_the_paper_s_size(root, run, monkeypatch, capsys):
    out = run / "figures.json"
    monkeypatch.setattr(
        sys,
        "argv",
        ["paper_size.py", str(run), f"--data_folder={run}"]
        + [f"--manifests={run}/manifests", f"--out={out}"],
    )
    program(root, "paper_size").main()
    found = read_figures(out)
    assert markdown_text(found) in capsys.readouterr().out
    one, two = found["rows"]
    # 8 weights a unit, 320 features and 9 inputs and states of 1024.
    flops = 8 * 1024 * (320 + 9 * 1024)
    for row, counted in ((one, 1), (two, 2)):
        load = counted * flops / 2 / 650e6 / 0.04
        assert row["Dense frame, frame durations"] == pytest.approx(load)
        assert 0 < row["MFLOPs a frame"] < 1.01 * flops / 1e6
    assert one["Latency ms: mean"] < two["Latency ms: mean"]


def test_bytes_of_an_update(root, run, tmp_path_factory, monkeypatch, capsys):
    other = tmp_path_factory.mktemp("other")
    shutil.copytree(run / "model", other / "model")
    torch.manual_seed(0)
    path = other / "model" / "encoder.ckpt"
    state = torch.load(path, weights_only=True)
    name = "layers.0.input.0.weight"
    state[name] += 1e-3 * torch.randn_like(state[name])
    torch.save(state, path)
    old, new = (ModelFiles(folder) for folder in (run, other))
    delta = (new[f"encoder.{name}"] - old[f"encoder.{name}"]).ravel()
    where = np.sort(np.argsort(-np.abs(delta))[:1000])
    sparse = SparseChange(
        state[name].shape, where, Values.rounded(delta[where], 4)
    )
    ours = other / "update.diff"
    size = write_diff(make_diff({f"encoder.{name}": sparse}, old), ours)
    tools = ["full, zstandard from the old model", "full, XOR and zstandard"]
    argv = ["diff_bytes.py", str(run), str(other), str(ours)]
    data = [f"--data_folder={run}"]
    monkeypatch.setattr(sys, "argv", [*argv, *data, "--tools", *tools])
    program(root, "diff_bytes").main()
    *table, ratio = capsys.readouterr().out.splitlines()
    cells = [r.split("|") for r in table[-5:]]
    sizes = [int(c[2].replace(",", "")) for c in cells]
    # What changed cannot be told in much less than its bytes.
    changed = 4 * state[name].numel()
    assert all(0.6 * changed < size < 1.1 * changed for size in sizes[:2])
    assert changed / 32 < sizes[2] < changed / 32 + 1000  # a bit of 32
    assert 6000 < sizes[3] < 6400  # four bytes and two for each of 1000
    assert sizes[4] == size < 2500
    assert ratio == f"ratio: {min(sizes[:2]) / size:.2f}"
    *others, positions = [c[6].strip() for c in cells]
    assert others == 4 * ["–"] and 1 <= float(positions) < 1.05
    errors = [float(c[4]) for c in cells]
    # Lossless ones give the same model, and plain ones that of the file.
    assert errors[0] == errors[1] and errors[3] == errors[4]


def test_bytes_by_xdelta3(root, monkeypatch, capsys):
    benchmark = program(root, "diff_bytes")
    random = np.random.default_rng(0)
    old = random.normal(size=50_000).astype("f4")
    new = old.copy()
    new[::100] += 1
    monkeypatch.setattr(sys, "argv", ["diff_bytes.py", "a", "b", "c.diff"])
    with monkeypatch.context() as without, pytest.raises(SystemExit):
        without.setattr(shutil, "which", lambda name: None)
        benchmark.main()
    assert "apt install xdelta3" in capsys.readouterr().err
    if shutil.which("xdelta3") is None:
        pytest.skip("xdelta3 is not installed")
    made, back = benchmark.xdelta(old.tobytes(), new.tobytes())
    assert back == new.tobytes()
    assert 4 * 500 < len(made) < 50_000


@pytest.fixture
def in_noise(root, monkeypatch):
    """Two others that hear one sentence clean and another in noise."""
    monkeypatch.syspath_prepend(root / "benchmarks")
    benchmark = program(root, "commands_in_noise")
    peers = benchmark.peers

    class Other:
        def __init__(self, told, rows, prompt):
            self.spoken = "Go, on" if told is None else "go on"

        def start(self):
            self.heard = None

        def feed(self, samples, final):
            self.heard = final and abs(abs(samples).max() - 0.5) < 1e-3

        def result(self):
            return "stop" if self.heard else self.spoken

    kinds = {"whisper": Other, "pocketsphinx": Other}
    monkeypatch.setattr(peers, "KINDS", kinds)
    return benchmark


def test_commands_in_noise_beside_others(in_noise, run, monkeypatch):
    """Once clean and once in noise; the grammar has one sentence alone."""
    evaluate, evaluated = in_noise.evaluate_folder, []

    def kept(*args, **kwargs):
        evaluated.extend(evaluate(*args, **kwargs))
        return evaluated[-1:]

    monkeypatch.setattr(in_noise, "evaluate_folder", kept)
    test = run / "test" / "a" / "b"
    (test / "a-b-0.wav").rename(test / "wav")
    noise, _ = soundfile.read(test / "wav")
    soundfile.write(test / "a-b-0.flac", noise, 16000)
    (test / "wav").unlink()
    record = {"id": "a-b-0", "intent": "go", "slots": {"where": "on"}}
    (run / "test" / "commands.jsonl").write_text(json.dumps(record))
    soundfile.write(run / "noise.flac", noise, 16000)
    grammar = run / "go.gram"
    rule = "public <go> = GO ON {where};"
    grammar.write_text(f"#JSGF V1.0;\ngrammar go;\n{rule}\n")
    page = run / "page.md"
    page.write_text("<!-- table: commands_in_noise from x -->\n<!-- end -->\n")
    argv = [f"ours={run}", f"--data_folder={run}", f"--grammar={grammar}"]
    argv += [f"--noise={run / 'noise.flac'}", "--decibels", "12"]
    argv += [f"--out={run / 'n.json'}", f"--markdown={page}"]
    in_noise.main(argv)
    others = ["--peers", "pocketsphinx", "whisper"]
    in_noise.main([*argv[1:], *others])  # what was measured stays
    found = read_figures(run / "n.json")
    ours, sphinx, whisper, rhino, *_ = found["rows"]
    scores = ours.pop("scores")
    assert ours == {"Engine": "`ours`", "clean": 100.0, "12 dB": 100.0}
    right = {"command_accuracy": 100.0, "slot_f1": 100.0}
    right["intent_accuracy"] = 100.0
    assert scores == {"clean": right, "12 dB": right}
    for other in (sphinx, whisper):
        assert (other["clean"], other["12 dB"]) == (100.0, 0.0)
    assert len(found["rows"]) == 3 + len(in_noise.PUBLISHED)
    assert rhino["12 dB"] == 98.0 and rhino["clean"] is None
    assert "| Amazon Lex, published | – | 85.0 |" in page.read_text()
    assert "of the 1 of `test`" in found["sentence"]
    heard = [(one["noise"], one["noise_db"]) for one in evaluated]
    assert heard == [(None, None), ("noise.flac", 12)]
    assert not list(run.rglob("results*.json"))  # which are a training's
    with pytest.raises(ValueError, match="of other columns.* another file"):
        in_noise.main([*argv, "--decibels", "6"])
    other = (run / "noise.flac").rename(run / "other.flac")
    with pytest.raises(ValueError, match="of other noise, noise.flac instead"):
        in_noise.main([*argv, f"--noise={other}"])


def test_updates_in_words_become_updates_in_commands(root, run, capsys):
    """The grammar has one sentence: right on `test`, wrong on `train`."""
    for split, intent in (("test", "go"), ("train", "stop")):
        record = {"id": "a-b-0", "intent": intent, "slots": {}}
        (run / split / "commands.jsonl").write_text(json.dumps(record))
    for name in ("go", "go.1", "go.2"):
        rule = "<stop> = STOP" if name == "go.2" else "<go> = GO ON"
        text = f"#JSGF V1.0;\ngrammar go;\npublic {rule};\n"
        (run / f"{name}.gram").write_text(text)
    for generation in (1, 2):
        folder = run / "updates" / "full" / "1" / str(generation)
        folder.mkdir(parents=True)
        (folder / "updated").symlink_to(run)
        (folder / "hyperparams.yaml").write_text(
            f"base_model: {run}\ndata_folder: {run}\n"
            "test_splits: [test]\nold_splits: [train]\n"
        )
        words = {"wer": 10.0, "words": 2, "base_old_wer_interval": [1, 2]}
        known = {"task": "asr", "data": "mine", "generation": generation}
        known |= {"method": "full", "budget": 1.0, "bytes": 9, "seed": 1}
        (folder / "diff.json").write_text(json.dumps(known | words))
    argv = [str(run / "updates"), f"--grammar={run / 'go.gram'}"]
    argv += [f"--out={run / 'commands'}"]
    benchmark = program(root, "updates_as_commands")
    benchmark.main(argv)
    line = "| full | 9 | 0.0 | 0.0, 0.0 | – | 100.0 | 100.0 | 50.0 | 1 |"
    assert capsys.readouterr().out.splitlines()[-1] == line
    first, last = (
        json.loads((run / f"commands/full/1/{n}/diff.json").read_text())
        for n in (1, 2)
    )
    assert not any("wer" in key or "words" in key for key in first)
    assert first["old_command_error"] == last["base_old_command_error"]
    assert last["base_old_command_error"] == 100.0
    assert (last["commands"], last["old_commands"]) == (1, 1)
    made = (run / "commands/full/1/1/diff.json").stat().st_mtime_ns
    benchmark.main(argv)  # measures nothing twice
    again = (run / "commands/full/1/1/diff.json").stat().st_mtime_ns
    assert made == again
    grammar = run / "go.gram"
    grammar.write_text(grammar.read_text().replace("GO ON", "GO"))
    with pytest.raises(ValueError, match="measured with another grammar"):
        benchmark.main(argv)
    argv[1:] = [f"--grammar={run / 'go.{generation}.gram'}"]
    argv += [f"--out={run / 'each'}"]
    benchmark.main(argv)
    each = [
        json.loads((run / f"each/full/1/{n}/diff.json").read_text())
        for n in (1, 2)
    ]
    # Nobody can say GO ON any more in the second release.
    assert [one["command_error"] for one in each] == [0.0, 100.0]
    assert [one["grammar"] for one in each] == ["go.1.gram", "go.2.gram"]
