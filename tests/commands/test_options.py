"""Options whose loss nobody would be told of: each does what it says."""

import csv
import json
import re
import subprocess
import sys
from importlib.metadata import version

import numpy as np
import pytest
import soundfile
from PIL import Image

from speechbrain_amnet import cli, evaluation
from speechbrain_amnet.commands import names
from speechbrain_amnet.corpus.manifest import read_manifest
from speechbrain_amnet.folder_evaluation import evaluate_folder
from speechbrain_amnet.grammar import Grammar
from speechbrain_amnet.report.learnt import read_counts

SAID = {  # seconds and words of each split's recordings
    "dev": [(0.9, "GO WEST"), (0.8, "GO EAST")],
    "test": [(0.2, "STOP"), (0.3, "STOP NOW")],
}
TIMES = {"real_time_factor": 0.1, "peak_memory_mb": 9.0}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """What streaming takes is not measured, in a process of its own."""
    monkeypatch.setattr(evaluation, "measure_stream", lambda *some: TIMES)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Noises in LibriSpeech layout; of each somebody says what was meant."""
    folder, random = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for split, recordings in SAID.items():
        chapter = folder / split / "1" / split
        chapter.mkdir(parents=True)
        words, commands = [], []
        for n, (seconds, text) in enumerate(recordings):
            name = f"1-{split}-{n}"
            samples = 0.1 * random.normal(size=round(16000 * seconds))
            soundfile.write(chapter / f"{name}.wav", samples, 16000)
            intent, *rest = text.split()
            slots = {"rest": " ".join(rest)} if rest else {}
            record = {"id": name, "slots": slots, "intent": intent.lower()}
            commands.append(f"{json.dumps(record)}\n")
            words.append(f"{name} {text}\n")
        (chapter / f"1-{split}.trans.txt").write_text("".join(words))
        (folder / split / "commands.jsonl").write_text("".join(commands))
    return folder


@pytest.fixture(scope="module")
def evaluated(run, data, tmp_path_factory):
    """The folder of a model that was evaluated on both splits."""
    out = tmp_path_factory.mktemp("evaluated")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "measure_stream", lambda *some: TIMES)
        evaluate_folder(run, data, list(SAID), out=out, progress=False)
    return out


@pytest.fixture
def wavs(data):
    """The recordings of the test split, as words of a command."""
    return [str(path) for path in sorted((data / "test").rglob("*.wav"))]


def done(*words):
    """A command that ends well."""
    assert cli.main(list(map(str, words))) == 0


def test_version(capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["--version"])
    assert stopped.value.code == 0
    said = capsys.readouterr().out
    assert said == f"amnet {version('speechbrain-amnet')}\n"


def test_ctrl_c_ends_with_a_line(monkeypatch, capsys):
    def stop(args):
        raise KeyboardInterrupt

    monkeypatch.setattr(names, "run", stop)
    assert cli.main(["names"]) == 130
    assert capsys.readouterr().err == "amnet: stopped\n"


@pytest.mark.parametrize("flush", [True, False], ids=["lines", "at the end"])
def test_a_reader_that_has_gone_is_no_error(flush, monkeypatch):
    """As `head` has, when it has seen enough; whatever is short is written
    when all has been said."""
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    code = (
        "import sys; from speechbrain_amnet import cli;"
        f"cli.names.run = lambda args: print('words', flush={flush});"
        "sys.exit(cli.main(['names']))"
    )
    pipes = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as shown:
        shown.stdout.close()
        assert shown.stderr.read() == b"" and shown.wait(timeout=60) == 0


def test_several_recordings_each_by_its_name(run, wavs, capsys):
    alone = []
    for wav in wavs:
        done("transcribe", run, wav)
        words, sentence = capsys.readouterr().out.splitlines()
        alone += [f"{wav}:", words]
        assert re.match(r"0\.[23] s of audio", sentence)
    done("transcribe", run, *wavs)
    *lines, sentence = capsys.readouterr().out.splitlines()
    assert lines == alone and len(alone) == 4
    assert sentence.startswith("0.5 s of audio")


def test_chunks_of_nothing_are_refused(run, wavs, capsys):
    assert cli.main(["transcribe", str(run), wavs[0], "--chunk-ms=0"]) == 2
    said = capsys.readouterr()
    assert "--chunk-ms: expected 0.0625 (a sample) to 60000 ms" in said.err
    assert not said.out


def test_a_packed_model_knows_its_device(run, wavs, tmp_path, capsys):
    for options, times in (((), "2 times"), (("--load=3",), "3 times")):
        done("pack", run, tmp_path / "model", *options)
        done("transcribe", tmp_path / "model", wavs[0])
        assert f"a dense frame takes {times}" in capsys.readouterr().out


def test_a_grammar_of_several_splits(data, tmp_path):
    file = tmp_path / "some.gram"
    done("grammar", data, file, "--split=dev", "--split=test")
    both = Grammar.read(file)
    done("grammar", data, file, "--split=dev")
    one = Grammar.read(file)
    for words, intent in (("GO EAST", "go"), ("STOP NOW", "stop")):
        assert both.command(words).intent == intent
    assert one.command("STOP NOW").intent is None


def test_audio_of_another_rate(run, data, tmp_path, capsys):
    here = tmp_path / "slow"
    for wav in sorted((data / "test").rglob("*")):
        place = here / wav.relative_to(data)
        if wav.is_dir():
            place.mkdir(parents=True)
        elif wav.suffix == ".wav":
            samples, rate = soundfile.read(wav)
            soundfile.write(place, samples[::2], rate // 2)
        else:
            place.write_bytes(wav.read_bytes())
    out = tmp_path / "out"
    line = ["evaluate", str(run), f"--data_folder={here}", f"--out={out}"]
    assert cli.main(line) == 2
    assert "8000" in capsys.readouterr().err
    assert not (out / "results.json").exists()
    done(*line, "--resample")
    for row in read_manifest(out / "manifests" / "test.csv"):
        assert soundfile.info(row["wav"]).samplerate == 16000
    assert json.loads((out / "results.json").read_text())["words"] == 3


def test_with_all_branches_mixed(run, data, tmp_path):
    line = ["evaluate", run, f"--data_folder={data}", f"--out={tmp_path}"]
    for options, known in (((), False), (("--soft",), True)):
        done(*line, *options)
        results = json.loads((tmp_path / "results.json").read_text())
        assert (results["soft_wer"] is not None) == known


def test_a_table_of_a_study_alone(evaluated, tmp_path):
    result = json.loads((evaluated / "results.json").read_text())
    for name in ("amnet", "small"):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        text = json.dumps({**result, "experiment": name})
        (folder / "results.json").write_text(text)
        rows = (evaluated / "utterances_test.csv").read_bytes()
        (folder / "utterances_test.csv").write_bytes(rows)
    study = tmp_path / "study.yaml"
    study.write_text(
        "train: t.py\nhparams: h\nresults: r\n"
        "runs:\n    ours: {trained_as: amnet, seeds: [1]}\n"
    )
    shown = []
    for options in ([], [f"--study={study}"]):
        file = tmp_path / "table.csv"
        done("table", tmp_path / "runs", f"--csv={file}", *options)
        with open(file, newline="") as lines:
            shown.append([row["experiment"] for row in csv.DictReader(lines)])
    assert sorted(shown[0]) == ["amnet", "small"] and shown[1] == ["ours"]


def test_a_page_of_another_split_and_place(evaluated, tmp_path, capsys):
    def heard(page):
        (text,) = re.findall(r'id="data" type="[^"]*">(.*?)</script>', page)
        return sorted(u["seconds"] for u in json.loads(text)["utterances"])

    done("page", evaluated, "--split=dev")
    page = evaluated / "page_dev.html"
    assert str(page) in capsys.readouterr().out
    assert heard(page.read_text("utf-8")) == [0.8, 0.9]
    page.unlink()
    done("page", evaluated, f"--out={tmp_path / 'new.html'}", "--split=dev")
    assert heard((tmp_path / "new.html").read_text("utf-8")) == [0.8, 0.9]
    assert not page.exists()


def test_what_was_learnt_is_of_another_split(evaluated, tmp_path):
    for split, recordings in SAID.items():
        file = tmp_path / f"{split}.json"
        done("learnt", evaluated, f"--split={split}", f"--publish={file}")
        (count,) = read_counts(file)
        frames = sum(seconds / 0.04 for seconds, _ in recordings)
        assert np.sum(count["frames"]) == pytest.approx(frames, abs=1.5)


def test_a_film_is_of_another_split(evaluated, tmp_path):
    lengths = []
    for split in SAID:
        film = tmp_path / f"{split}.gif"
        done("plot", evaluated, f"--animate={film}", f"--split={split}")
        with Image.open(film) as opened:
            lengths.append(opened.n_frames)
    assert lengths[0] > lengths[1] + 5  # half a second, of 0.08 s each
