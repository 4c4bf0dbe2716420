"""Evaluation: the arithmetic of every figure, the files, the command."""

import csv
import json
import logging
import shutil
from pathlib import Path
from types import SimpleNamespace

import jiwer
import numpy as np
import pytest
import soundfile
import torch

from speechbrain_amnet import Device, cli, evaluation, folder_evaluation
from speechbrain_amnet.arbitrator import Arbitrator
from speechbrain_amnet.corpus.manifest import read_manifest
from speechbrain_amnet.evaluation import evaluate, has_slots, summarise
from speechbrain_amnet.export import export_model
from speechbrain_amnet.folder_evaluation import evaluate_folder, trained_on
from speechbrain_amnet.footprint import flops_around
from speechbrain_amnet.inference import load
from speechbrain_amnet.records import KINDS
from speechbrain_amnet.report.results import read_results, read_utterances

RATE = 16000
WORDS = ["STOP", "GO FORWARD TEN METERS", "TURN LEFT", "TURN RIGHT", "GO"]


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    """The output folder of a tiny network that chatters and switches."""
    folder = tmp_path_factory.mktemp("run")
    about = {"dataset": "noises", "epochs": 7, "seed": 3}
    export_model(*tiny(folder, WORDS, **about), folder / "model")
    return folder


@pytest.fixture
def asr(run):
    return load(run, run_opts={"device": "cpu"})


@pytest.fixture(scope="module")
def noises(tmp_path_factory):
    """Data in LibriSpeech layout; the words end 0.3 s before the audio."""
    folder = tmp_path_factory.mktemp("data") / "noises"
    random = np.random.default_rng(0)
    for split, count in (("test", 5), ("dev", 2)):
        chapter = folder / split / "7" / "1"
        chapter.mkdir(parents=True)
        lines, commands = [], []
        for n in range(count):
            seconds = 1.5 - 0.21 * n
            loud = np.repeat(random.random(16) ** 4, 1600)
            wav = 0.3 * random.standard_normal(round(seconds * RATE))
            wav *= loud[: len(wav)]
            soundfile.write(chapter / f"7-1-{n}.flac", wav.clip(-1, 1), RATE)
            lines.append(f"7-1-{n} {WORDS[n]}\n")
            record = {"id": f"7-1-{n}", "speech_end": seconds - 0.3}
            record["slots"] = {"action": WORDS[n].split()[0].lower()}
            commands.append(json.dumps(record) + "\n")
        (chapter / "7-1.trans.txt").write_text("".join(lines))
        if split == "test":
            (folder / split / "commands.jsonl").write_text("".join(commands))
    return folder


@pytest.fixture(scope="module")
def measured(run, noises, tmp_path_factory):
    """An evaluation of both splits, and where it was written."""
    out = tmp_path_factory.mktemp("out")
    real = evaluation.measure_stream
    measured = []

    def once(asr, wavs):  # it starts a process, which takes seconds
        measured.append(measured[0] if measured else real(asr, wavs))
        return measured[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "measure_stream", once)
        results = evaluate_folder(
            run, noises, ["test", "dev"], out=out, soft=True, progress=False
        )
    return results, out


KEYS = {
    "experiment",
    "data",
    "data_digest",
    "split",
    "seed",
    "noise_db",
    "noise_digest",
    "wer",
    "wer_interval",
    "words",
    "errors",
    "mflops_per_frame",
    "compute_saved",
    "recogniser_mflops_per_frame",
    "recogniser_saved",
    "latency_ms",
    "last_word_ms",
    "commands_matched",
    "grammar",
    "grammar_digest",
    "noise",
    "command_accuracy",
    "slot_f1",
    "intent_accuracy",
    "branch_shares",
    "sharp_share",
    "routing_entropy",
    "soft_wer",
    "real_time_factor",
    "peak_memory_mb",
    "device",
    "dense_mflops_per_frame",
    "parameters",
    "megabytes",
    "epochs",
    "command",
    "date",
    "versions",
}


def test_the_whole_recogniser_saves_less(measured):
    """As features and search are the same on every branch."""
    for found in measured[0]:
        saved, of_all = found["compute_saved"], found["recogniser_saved"]
        assert saved * of_all > 0 and abs(of_all) < abs(saved)
        whole, encoder = (
            found[f"{name}mflops_per_frame"] for name in ("recogniser_", "")
        )
        around = whole - encoder
        dense = around + found["dense_mflops_per_frame"]
        assert found["recogniser_saved"] == pytest.approx(
            1 - whole / dense, abs=1e-5
        )


def test_results_are_whole_and_written(measured, run, asr):
    (test, dev), out = measured
    for results, name in ((test, "results.json"), (dev, "results_dev.json")):
        assert results["path"] == out / name
        written = json.loads((out / name).read_text())
        assert {**written, "path": out / name} == results
    assert not list(out.glob("*.part"))
    assert set(test) - {"path"} == KEYS == set(dev) - {"path"}
    assert [test[k] for k in ("experiment", "data", "split", "seed")] == [
        "amnet",
        "noises",
        "test",
        3,
    ]
    assert dev["split"] == "dev" and test["epochs"] == 7
    assert test["words"] == sum(len(words.split()) for words in WORDS)
    assert test["device"]["load"] == 2
    assert 0 < test["real_time_factor"] < 5
    assert 0 < test["peak_memory_mb"] < 500
    assert test["soft_wer"] > 0
    assert dev["last_word_ms"] is None
    wait = test["latency_ms"]["mean"] + 300
    assert test["last_word_ms"]["mean"] == pytest.approx(wait, abs=1)
    packed = out / "packed"
    assert cli.main(["pack", str(run), str(packed)]) == 0
    assert test["megabytes"] == packed.stat().st_size / 1e6
    assert test["parameters"] == sum(p.numel() for p in asr.parameters())


def test_files_agree_with_the_results(measured, asr):
    (results, _), out = measured
    with open(out / "utterances_test.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    lines = (out / "frames_test.jsonl").read_text().splitlines()
    frames = [json.loads(line) for line in lines]
    assert [r["id"] for r in rows] == [f"7-1-{n}" for n in range(5)]
    assert [r["reference"] for r in rows] == WORDS
    assert len({r["hypothesis"] for r in rows}) > 2

    errors = sum(int(r[k]) for r in rows for k in KINDS)
    assert errors == sum(results["errors"].values())
    assert results["wer"] == pytest.approx(100 * errors / results["words"])
    counts, said = np.array([int(r["frames"]) for r in rows]), []
    mflops = np.array([float(r["mflops_per_frame"]) for r in rows])
    assert results["mflops_per_frame"] == pytest.approx(
        (counts * mflops).sum() / counts.sum(), abs=1e-5
    )
    for row, line in zip(rows, frames):
        assert line["id"] == row["id"] and Path(line["wav"]).is_file()
        wav = asr.load_audio(line["wav"])[None]
        words, tokens = asr(wav, torch.ones(1))
        assert row["hypothesis"] == words[0], "alone as in its batch"
        assert "".join(p for p, _ in line["tokens"]) == "".join(
            asr.hparams.tokenizer.id_to_piece(t) for t in tokens[0]
        )
        routing = asr.encode_batch(wav, torch.ones(1))[2]
        choice = routing.choice[0].tolist()
        assert line["branch"] == "".join(map(str, choice))
        assert len(choice) == int(row["frames"])
        assert np.allclose(
            line["backlog_ms"], 1000 * routing.backlog[0], atol=0.06
        )
        waits = 1000 * (routing.backlog + routing.time)[0].numpy()
        assert np.allclose(line["wait_ms"], waits, atol=0.06)
        assert float(row["latency_ms"]) == pytest.approx(waits[-1], abs=0.01)
        assert float(row["share_1"]) == pytest.approx(np.mean(choice), abs=1e-5)
        assert line["frame_ms"] == 40
        said.append(routing.probabilities[0].double().numpy())
    said = np.concatenate(said)
    sharp = np.mean(said.max(1) >= 0.9999)
    assert results["sharp_share"] == pytest.approx(sharp, abs=1e-6)
    entropy = -(said * np.log(said.clip(1e-12))).sum(1).mean()
    assert results["routing_entropy"] == pytest.approx(entropy, abs=1e-5)
    tokens = sum(len(line["tokens"]) for line in frames)
    around = flops_around(asr, counts.sum(), tokens) / counts.sum() / 1e6
    assert results["recogniser_mflops_per_frame"] == pytest.approx(
        results["mflops_per_frame"] + around, abs=1e-5
    )


def test_the_report_reads_them(measured):
    (results, _), out = measured
    (found,) = read_results([out])
    assert found["wer"] == results["wer"]
    assert read_utterances(found) is not None


def test_no_figure_depends_on_the_batch(measured, asr, monkeypatch):
    (results, _), out = measured
    monkeypatch.setattr(evaluation, "measure_stream", lambda asr, wavs: {})
    manifest = out / "manifests" / "test.csv"
    again = evaluate(
        asr, manifest, batch_size=1, soft=True, progress=False, bootstrap=10
    )
    for key in ("wer", "errors", "soft_wer", "branch_shares", "sharp_share"):
        assert again[key] == results[key], key
    for key in (
        "mflops_per_frame",
        "compute_saved",
        "recogniser_saved",
        "routing_entropy",
    ):
        assert again[key] == pytest.approx(results[key], rel=1e-4), key
    assert again["latency_ms"] == pytest.approx(results["latency_ms"], abs=0.1)


def test_soft_errors_are_those_of_all_branches_mixed(
    measured, asr, tmp_path, monkeypatch
):
    """Of a model that is not sure, against what its decisions alone gave."""
    monkeypatch.setattr(evaluation, "measure_stream", lambda asr, wavs: {})
    asr.mods.encoder.router.temperature.fill_(0.05)
    with open(measured[1] / "utterances_test.csv", newline="") as file:
        said = [f"{r['hypothesis']} STOP" for r in csv.DictReader(file)]
    manifest, mixed = tmp_path / "m.csv", []
    lines = ["ID,duration,wav,wrd"]
    for row, words in zip(
        read_manifest(measured[1] / "manifests" / "test.csv"), said
    ):
        lines.append(f"{row['ID']},{row['duration']},{row['wav']},{words}")
        wav = asr.load_audio(row["wav"])[None]
        with torch.no_grad():
            features, lengths = asr.mods.features(wav, torch.ones(1))
            encoded, _ = asr.mods.encoder(features, lengths, hard=False)
            (tokens,) = asr.hparams.search(encoded, lengths)
        mixed.append(asr.hparams.tokenizer.decode(tokens))
    manifest.write_text("\n".join(lines))
    found = evaluate(asr, manifest, soft=True, progress=False)
    assert found["wer"] == pytest.approx(100 * 5 / found["words"])
    assert found["soft_wer"] == pytest.approx(100 * jiwer.wer(said, mixed))
    assert found["soft_wer"] > found["wer"]


def utterance(branch, seconds_of, **changes):
    """What `measure_batch` says, of a routing made by hand."""
    branch = np.array(branch)
    time = np.array(seconds_of)[branch]
    backlog = [0.0]
    for t in time[:-1]:
        backlog.append(max(0.0, backlog[-1] + t - 0.04))
    return {
        "id": "x",
        "words": 4,
        "substitutions": 0,
        "deletions": 0,
        "insertions": 0,
        "seconds": 0.04 * len(branch),
        "branch": branch,
        "backlog": np.array(backlog),
        "flops": np.array([1000.0, 250.0])[branch],
        "highest": np.ones(len(branch)),
        "entropy": np.zeros(len(branch)),
        "latency": backlog[-1] + time[-1],
        "floor": time[-1],
        **changes,
    }


@pytest.fixture
def model():
    """The few numbers of a model that the arithmetic needs."""
    encoder = SimpleNamespace(
        target_device=Device(load=2.0),
        frame_duration=0.04,
        dense_flops=1000,
        router=Arbitrator(4, branches=2),
    )
    return SimpleNamespace(mods=SimpleNamespace(encoder=encoder))


def test_arithmetic_on_a_routing_made_by_hand(model):
    utterances = [
        utterance(
            [0, 0, 1, 1],  # backlog 0, 40, 80, 60 ms; then 20 ms of its own
            (0.08, 0.02),
            id="b",
            substitutions=1,
            insertions=2,
            speech_end=0.1,
            highest=np.array([0.9999, 0.99989, 1, 1]),
            entropy=np.array([0.4, 0, 0, 0]),
        ),
        utterance([1], (0.08, 0.02), id="a", deletions=1),
    ]
    found = summarise(utterances, model)
    assert found["words"] == 8
    assert found["errors"] == {
        "substitutions": 1,
        "deletions": 1,
        "insertions": 2,
    }
    assert found["wer"] == 50
    assert found["mflops_per_frame"] == pytest.approx(2750 / 5 / 1e6)
    assert found["compute_saved"] == pytest.approx(0.45)
    assert found["branch_shares"] == [0.4, 0.6]
    assert found["sharp_share"] == 0.8
    assert found["routing_entropy"] == pytest.approx(0.08)
    assert found["soft_wer"] is None
    assert found["device"] == {"load": 2.0, "flops_per_second": 12500}
    assert found["latency_ms"] == pytest.approx(
        {
            "mean": 50,
            "p50": 50,
            "p90": 74,
            "max": 80,
            "floor": 20,
            "above_floor": 30,
        }
    )
    # Only one knows when its last word ended: 60 ms before its end.
    assert found["last_word_ms"]["mean"] == pytest.approx(80 + 60)


def test_the_interval_is_sane_and_repeats(model):
    utterances = [
        utterance([0], (0.08, 0.02), id=str(n), substitutions=n % 3)
        for n in range(60)
    ]
    first = summarise(utterances, model)
    low, high = first["wer_interval"]
    assert 0 < low < first["wer"] == 25 < high < 50
    assert 8 < high - low < 14  # 1.96 * 2 * 20.4 / sqrt(60) = 10.3
    again = summarise(utterances[::-1], model)
    assert again["wer_interval"] == first["wer_interval"]
    same = [{**u, "substitutions": 1} for u in utterances]
    assert summarise(same, model)["wer_interval"] == [25, 25]


def test_probabilities_are_those_behind_the_decisions(asr):
    encoder = asr.mods.encoder
    features = torch.randn(2, 30, 320)
    _, routing = encoder(features, hard=True)
    shares = routing.probabilities
    assert torch.allclose(shares.sum(-1), torch.ones(2, 30))
    assert torch.equal(shares.argmax(-1), routing.choice)
    prepared = encoder.router.prepare(features)
    for t in (0, 7, 29):
        one = encoder.router.decide(
            prepared[:, t], routing.backlog[:, t] / encoder.frame_duration
        )
        assert torch.allclose(one, shares[:, t], atol=1e-6)


def test_words_are_compared_in_upper_case(asr, noises, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation, "measure_stream", lambda asr, wavs: {})
    wavs = sorted((noises / "dev").rglob("*.flac"))
    wav = max(wavs, key=lambda wav: len(asr.transcribe_file(wav)))
    said = asr.transcribe_file(wav).lower()
    manifest = tmp_path / "m.csv"
    manifest.write_text(f"ID,duration,wav,spk_id,wrd\nx,1.5,{wav},7,{said}\n")
    results = evaluate(asr, manifest, progress=False)
    assert said != said.upper() and results["wer"] == 0
    assert results["wer_interval"] == [0, 0]


def test_silence_is_all_deletions(asr):
    assert evaluation.count_errors("GO ON", "") == {
        "words": 2,
        "substitutions": 0,
        "deletions": 2,
        "insertions": 0,
    }


def test_commands_are_matched_by_their_phrases(measured):
    (test, dev), out = measured
    assert dev["commands_matched"] is None, "nobody said its slots"
    with open(out / "utterances_test.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    right = [
        row["reference"].split()[0] in row["hypothesis"].split() for row in rows
    ]
    assert [int(row["matched"]) for row in rows] == right
    assert test["commands_matched"] == pytest.approx(20 * sum(right))


def test_half_of_the_commands_are_matched(
    measured, run, noises, tmp_path, monkeypatch
):
    """Of those whose slots are known: the model's own words, or others."""
    monkeypatch.setattr(evaluation, "measure_stream", lambda asr, wavs: {})
    with open(measured[1] / "utterances_test.csv", newline="") as file:
        heard = {row["id"]: row["hypothesis"] for row in csv.DictReader(file)}
    names = sorted(heard, key=lambda name: len(heard[name]))
    assert heard[names[2]]  # of the others nothing may be heard
    slots = [None, {"word": "go"}, {"all": f"{heard[names[2]]} and more"}]
    slots += [{"all": heard[name].lower()} for name in names[3:]]
    lines = [
        json.dumps({"id": name, "slots": one})
        for name, one in zip(names, slots)
    ]
    data = shutil.copytree(noises, tmp_path / "data")
    (data / "test" / "commands.jsonl").write_text("\n".join(lines))
    (found,) = evaluate_folder(run, data, out=tmp_path / "out")
    assert found["commands_matched"] == 50


def test_phrases_are_whole_words_in_any_order():
    slots = {"size": "eight ounce", "milk": "some  milk"}
    assert has_slots("SOME MILK IN AN EIGHT OUNCE LATTE", slots)
    assert not has_slots("SOME MILK IN AN EIGHT OUNCES LATTE", slots)
    assert not has_slots("AN EIGHT LARGE OUNCE LATTE SOME MILK", slots)
    assert not has_slots("", slots)
    assert has_slots("ANYTHING", {})


def test_bad_manifests_are_refused(asr, tmp_path):
    with pytest.raises(FileNotFoundError, match="no such manifest"):
        evaluate(asr, tmp_path / "no.csv")
    with pytest.raises(ValueError, match="^noise_db: expected .* got nan"):
        evaluate(asr, tmp_path / "no.csv", noise="any", noise_db=np.nan)
    (tmp_path / "m.csv").write_text("ID,duration,wav,wrd\n")
    with pytest.raises(ValueError, match="no utterances"):
        evaluate(asr, tmp_path / "m.csv")
    (tmp_path / "m.csv").write_text("ID,duration,wav,wrd\nx,1,no.wav,GO\n")
    with pytest.raises(FileNotFoundError, match="no such audio file: no.wav"):
        evaluate(asr, tmp_path / "m.csv")


def test_command_writes_beside_the_training(
    run, noises, tmp_path, capsys, monkeypatch
):
    times = {"real_time_factor": 0.125, "peak_memory_mb": 12.0}
    monkeypatch.setattr(evaluation, "measure_stream", lambda *a: times)
    monkeypatch.setattr("sys.argv", ["/opt/bin/amnet", "evaluate", str(run)])
    line = ["evaluate", str(run), "--data_folder", str(noises)]
    assert cli.main([*line, "--split", "dev", "--split", "test"]) == 0
    shown = capsys.readouterr().out.splitlines()
    dev, test = (
        json.loads((run / name).read_text())
        for name in ("results_dev.json", "results.json")
    )
    assert shown[0].split() == ["noises", "dev", "noises", "test"]
    (errors,) = (
        line.split()[-2:] for line in shown if "word errors, %" in line
    )
    assert errors == [f"{dev['wer']:.2f}", f"{test['wer']:.2f}"]
    assert shown[-2].startswith("noises dev: ")
    assert shown[-1].startswith(f"noises test: {test['wer']:.1f} % word errors")
    assert test["command"] == f"amnet evaluate {run.name}"

    # Other data, another device: not in place of the training's own.
    before = (run / "results.json").read_bytes()
    assert cli.main([*line, "--data", "others", "--load", "0.5"]) == 0
    other = json.loads((run / "others/load-0.5/results.json").read_text())
    assert other["device"]["load"] == 0.5 and other["data"] == "others"
    assert other["latency_ms"]["mean"] < test["latency_ms"]["mean"]
    assert (run / "results.json").read_bytes() == before

    # The training's own device is no other one.
    assert cli.main([*line, "--load", f"{test['device']['load']:g}"]) == 0
    assert not list(run.rglob("load-*/results.json"))[1:]
    again = json.loads((run / "results.json").read_text())
    assert again["latency_ms"] == test["latency_ms"]

    # A path elsewhere: its recordings stay, and the test's results do.
    elsewhere = tmp_path / "mine" / "test"
    shutil.copytree(noises / "test", elsewhere)
    there = sorted(elsewhere.rglob("*"))
    before = (run / "results.json").read_bytes()
    assert cli.main([*line, "--split", f"{elsewhere}/"]) == 0
    assert sorted(elsewhere.rglob("*")) == there
    assert sorted(p.name for p in elsewhere.parent.iterdir()) == ["test"]
    (named,) = run.glob("results_*_mine_test.json")
    assert json.loads(named.read_text())["wer"] == test["wer"]
    assert (run / "results.json").read_bytes() == before
    assert cli.main([*line, "--split", "dev", "--split", "dev/"]) == 2
    assert "expected each once" in capsys.readouterr().err
    assert cli.main([*line, "--split", "eval"]) == 2
    assert "no such split" in capsys.readouterr().err.splitlines()[-1]


def test_noise_is_mixed_in_and_said(run, noises, measured, tmp_path, capsys):
    hiss = np.random.default_rng(1).normal(scale=0.1, size=4 * RATE)
    hiss[: 2 * RATE] = 0  # the first half is for training
    soundfile.write(tmp_path / "hiss.wav", hiss, RATE)
    line = ["evaluate", str(run), f"--data_folder={noises}"]
    line += [f"--out={tmp_path / 'out'}", f"--noise={tmp_path / 'hiss.wav'}"]
    assert cli.main(line) == 2
    assert "--noise_db DECIBELS go together" in capsys.readouterr().err
    for loudness in ("nan", "inf", "-4000"):  # 1e-400 is 0
        assert cli.main([*line, f"--noise_db={loudness}"]) == 2
        said = capsys.readouterr().err.splitlines()[-1]
        assert "noise_db: expected -200 to 200 decibels, got" in said
    assert not (tmp_path / "out").exists()
    assert cli.main([*line, "--noise_db=6"]) == 0
    (clean, _), _ = measured
    (noisy,) = read_results([tmp_path / "out"])
    assert clean["noise_db"] is None and noisy["noise_db"] == 6
    assert noisy["routing_entropy"] != clean["routing_entropy"]
    assert noisy["words"] == clean["words"]
    again = evaluate_folder(
        run,
        noises,
        out=tmp_path / "again",
        noise=tmp_path / "hiss.wav",
        noise_db=6,
        batch_size=2,
    )
    assert again[0]["routing_entropy"] == noisy["routing_entropy"]


def test_the_training_s_own_data_keeps_its_name(
    run, noises, tmp_path, monkeypatch
):
    folder = tmp_path / "run"
    shutil.copytree(run / "model", folder / "model")
    monkeypatch.setattr(
        folder_evaluation, "evaluate", lambda *found, **options: found[3:]
    )
    speech = tmp_path / "speech"
    shutil.copytree(noises, speech)
    (found,) = evaluate_folder(folder, speech)
    assert found == (folder / "speech", "speech")
    (folder / "hyperparams.yaml").write_text(f"data_folder: {speech}\n")
    (found,) = evaluate_folder(folder, speech)
    assert found == (folder, "noises")  # as the training called it
    (found,) = evaluate_folder(folder, speech, data="mine")
    assert found == (folder / "mine", "mine")
    hiss = np.random.default_rng(1).normal(scale=0.1, size=RATE)
    soundfile.write(tmp_path / "hiss.wav", hiss, RATE)
    noise = {"noise": tmp_path / "hiss.wav", "noise_db": 6}
    (found,) = evaluate_folder(folder, speech, **noise)
    assert found == (folder / "noise-hiss-6", "noises")
    with pytest.raises(ValueError, match="go together"):
        evaluate_folder(folder, speech, noise=tmp_path / "hiss.wav")
    # Of the training's name, and yet not what it was trained on ...
    other = shutil.copytree(speech, tmp_path / "other" / "noises")
    (found,) = evaluate_folder(folder, other)
    assert found == (folder / "noises", "noises")
    # ... but where that has moved.
    shutil.rmtree(speech)
    (found,) = evaluate_folder(folder, other)
    assert found == (folder, "noises")


def test_a_grammar_does_not_write_over_another_of_its_name(
    run, noises, tmp_path, monkeypatch
):
    folder = tmp_path / "run"
    shutil.copytree(run / "model", folder / "model")
    texts = ("STOP", "STOP | GO")
    files = [tmp_path / str(n) / "a.gram" for n in range(2)]
    for file, text in zip(files, texts):
        file.parent.mkdir()
        file.write_text(f"#JSGF V1.0;\ngrammar a;\npublic <a> = {text};\n")
    (found,) = evaluate_folder(folder, noises, grammar=files[0])
    assert found["path"] == folder / "grammar-a" / "results.json"
    evaluate_folder(folder, noises, grammar=files[0])
    with pytest.raises(ValueError, match="another grammar called a.gram, too"):
        evaluate_folder(folder, noises, grammar=files[1])


def test_data_do_not_write_over_others_of_their_name(
    run, noises, tmp_path, monkeypatch
):
    monkeypatch.setattr(evaluation, "measure_stream", lambda asr, wavs: {})
    folder = tmp_path / "run"
    shutil.copytree(run / "model", folder / "model")
    places = [tmp_path / name / "new" for name in "ABC"]
    for place in places:
        shutil.copytree(noises, place)
    words = next((places[2] / "test").rglob("*.trans.txt"))
    words.write_text(words.read_text().replace("STOP", "GO"))
    (found,) = evaluate_folder(folder, places[0])
    file, kept = found["path"], found["path"].parent / "manifests" / "test.csv"
    assert file == folder / "new" / "results.json"
    evaluate_folder(folder, places[1])  # the same in another place
    before = file.read_bytes(), kept.read_bytes()
    with pytest.raises(
        ValueError, match=r"results.json is of other data called new.*--out"
    ):
        evaluate_folder(folder, places[2])
    assert (file.read_bytes(), kept.read_bytes()) == before
    (named,) = evaluate_folder(folder, places[2], data="newer")
    assert named["data_digest"] != found["data_digest"]
    # Older ones do not say which data they are of.
    older = json.loads(file.read_text())
    del older["data_digest"]
    file.write_text(json.dumps(older))
    (again,) = evaluate_folder(folder, places[2])
    assert again["data_digest"] == named["data_digest"]


def test_letters_that_a_model_has_not_are_said(
    run, noises, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(
        folder_evaluation, "evaluate", lambda *found, **_: found
    )
    data = shutil.copytree(noises, tmp_path / "data")
    words = next((data / "test").rglob("*.trans.txt"))
    words.write_text(words.read_text().replace("STOP", "ST\u00d6P"))
    with caplog.at_level(logging.WARNING):
        evaluate_folder(run, data, ["test", "dev"], out=tmp_path / "out")
    (said,) = (
        record.getMessage()
        for record in caplog.records
        if record.name == folder_evaluation.__name__
    )
    assert said.startswith("test: no tokens for \u00d6, in 1 of 5 utterances")


@pytest.mark.parametrize(
    "line",
    ["data", "'data'  # mine", '"d\\x61ta"', "&here data", "../run/data"],
)
def test_the_training_s_data_however_written(line, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    folder.mkdir()
    assert trained_on(folder) is None
    (folder / "hyperparams.yaml").write_text(f"data_folder: {line}\n")
    monkeypatch.chdir(folder)
    assert trained_on(folder) == folder / "data"
    (folder / "hyperparams.yaml").write_text("data_folder: !ref <other>\n")
    assert trained_on(folder) is None


@pytest.mark.parametrize(
    "splits, wav, expected",
    [
        ("[train]", "/data/a/train/1/1/a.flac", "/data/a"),
        ("[dev, 1/train/]", "/data/a/1/train/1/1/a.flac", "/data/a"),
        ("[.]", "/data/a/1/1/a.flac", "/data/a"),
        # These do not say where the data folder is.
        ("[/data/a/train]", "/data/a/train/1/1/a.flac", None),
        ("[../a/train]", "/data/a/train/1/1/a.flac", None),
        ("[train]", "/m/resampled/train/train/1/1/a.flac", None),
        ("[train]", "a.flac", None),
        ("train", "/data/t/1/1/a.flac", None),
    ],
)
def test_a_training_s_recordings_say_where_its_data_are(
    splits, wav, expected, tmp_path, monkeypatch
):
    """Of a path that was given in another directory, or is another by now."""
    file = tmp_path / "save" / "manifests" / "train.csv"
    file.parent.mkdir(parents=True)
    file.write_text(f"ID,duration,wav,wrd\na,1,{wav},GO\n")
    text = f"data_folder: elsewhere\ntrain_splits: {splits}\n"
    (tmp_path / "hyperparams.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    assert trained_on(tmp_path) == Path(expected or tmp_path / "elsewhere")


def test_a_recipe_need_not_name_its_data(run, noises, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    shutil.copytree(run / "model", folder / "model")
    (folder / "hyperparams.yaml").write_text(f"data_folder: {noises}\n")
    monkeypatch.setattr(
        folder_evaluation, "evaluate", lambda *found, **options: found[3:]
    )
    nameless = load(folder)
    monkeypatch.delattr(nameless.hparams, "dataset")
    monkeypatch.setattr(folder_evaluation, "load", lambda *_: nameless)
    (found,) = evaluate_folder(folder, noises)
    assert found == (folder, noises.name)
