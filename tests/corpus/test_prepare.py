"""The preparation: what it writes, what it refuses, when it skips."""

import csv
import logging
import os

import numpy as np
import pytest
import soundfile

from speechbrain_amnet.corpus import (
    PreparationError,
    prepare_librispeech,
)
from speechbrain_amnet.corpus.manifest import read_commands, words_of
from speechbrain_amnet.corpus.prepare import read_transcripts


def write_utterance(root, name, words="HELLO THERE", rate=16000, samples=1600):
    """Audio and its transcript, `name` being SPLIT/SPEAKER-CHAPTER-NUMBER."""
    split, name = name.split("/")
    speaker, chapter, _ = name.split("-")
    folder = root / split / speaker / chapter
    folder.mkdir(parents=True, exist_ok=True)
    soundfile.write(folder / f"{name}.flac", np.zeros(samples), rate)
    with open(folder / f"{speaker}-{chapter}.trans.txt", "a") as file:
        file.write(f"{name} {words}\n")
    return folder / f"{name}.flac"


@pytest.fixture
def data(tmp_path):
    root = tmp_path / "data"
    write_utterance(root, "train/7-1-0000", "turn on the light")
    write_utterance(root, "train/7-1-0001", "DON'T, PLEASE")
    write_utterance(root, "more/fa-an-0001", samples=8000)
    write_utterance(root, "dev/9-2-0000")
    (root / "train" / "commands.jsonl").write_text("{}\n")
    (root / "train" / "README.txt").write_text("ignored\n")
    return root


@pytest.fixture
def prepare(data, tmp_path):
    def run(splits=None, **options):
        splits = splits or {"train": ["train", "more"], "valid": ["dev"]}
        return prepare_librispeech(data, tmp_path / "save", splits, **options)

    return run


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def refused(run, *parts):
    """Runs; the error must be one line that holds all the parts."""
    with pytest.raises(PreparationError) as caught:
        run()
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert str(part) in message
    return message


def test_rows(prepare, data):
    paths = prepare()
    assert set(paths) == {"train", "valid"}
    rows = rows_of(paths["train"])
    assert list(rows[0]) == ["ID", "duration", "wav", "spk_id", "wrd"]
    assert {r["ID"]: r["wrd"] for r in rows} == {
        "7-1-0000": "TURN ON THE LIGHT",
        "7-1-0001": "DON'T, PLEASE",
        "fa-an-0001": "HELLO THERE",
    }
    last = next(r for r in rows if r["ID"] == "fa-an-0001")
    assert float(last["duration"]) == 0.5
    assert last["wav"] == str(data / "more/fa/an/fa-an-0001.flac")
    assert last["spk_id"] == "fa"
    assert [r["ID"] for r in rows_of(paths["valid"])] == ["9-2-0000"]


def test_a_split_may_lie_in_another_folder(prepare, data, tmp_path):
    write_utterance(tmp_path / "spoken", "train/7-9-0000")
    for other in (tmp_path / "spoken" / "train", "../spoken/train"):
        rows = rows_of(prepare({"all": ["train", str(other)]})["all"])
        ids = {r["ID"] for r in rows}
        assert ids == {"7-1-0000", "7-1-0001", "7-9-0000"}


def test_wav_and_a_single_split_as_a_string(prepare, data):
    folder = data / "dev/9/2"
    soundfile.write(folder / "9-2-0001.wav", np.zeros(640), 16000)
    with open(folder / "9-2.trans.txt", "a") as file:
        file.write("9-2-0001 yes\n")
    rows = rows_of(prepare({"valid": "dev"})["valid"])
    assert [r["wav"][-5:] for r in rows] == [".flac", "1.wav"]


def test_manifest_is_one_that_speechbrain_loads(prepare):
    dataio = pytest.importorskip("speechbrain.dataio.dataio")
    loaded = dataio.load_data_csv(prepare()["train"])
    assert loaded["7-1-0001"]["wrd"] == "DON'T, PLEASE"
    assert loaded["7-1-0001"]["duration"] == 0.1


def test_no_data_folder(tmp_path):
    folder = tmp_path / "nowhere"
    refused(lambda: prepare_librispeech(folder, tmp_path, {}), folder)
    refused(lambda: read_transcripts(folder, ["dev"]), folder, "no such folder")


def test_no_such_split_names_those_there_are(prepare, data):
    refused(
        lambda: prepare({"test": ["tset"]}), data / "tset", "dev, more, train"
    )


@pytest.mark.parametrize("again", ["train", "train/", "../data/train"])
def test_a_split_is_named_once(prepare, data, again):
    message = refused(
        lambda: prepare({"train": ["train", "dev", again]}),
        data / "train",
        "named twice",
        f"got train, dev, {again}",
    )
    assert "duplicate" not in message
    with pytest.raises(PreparationError, match="named twice"):
        read_transcripts(data, ["train", again])


def test_split_without_audio(prepare, data):
    (data / "empty").mkdir()
    refused(lambda: prepare({"test": ["empty"]}), data / "empty", "no audio")


def test_audio_without_transcript(prepare, data):
    path = data / "dev/9/2/9-2-0007.flac"
    soundfile.write(path, np.zeros(10), 16000)
    refused(prepare, path, "audio without transcript")


def test_audio_out_of_place(prepare, data):
    path = data / "dev/9/9-2-0007.flac"
    soundfile.write(path, np.zeros(10), 16000)
    refused(prepare, path, "SPEAKER/CHAPTER")


def test_transcript_without_audio(prepare, data):
    (data / "dev/9/2/9-2-0000.flac").rename(data / "dev/9/2/9-2-0000.mp3")
    write_utterance(data, "dev/9-2-0001")
    refused(prepare, data / "dev/9/2/9-2-0000", "transcript without audio")


@pytest.mark.parametrize("content", [b"", b"not audio at all"])
def test_unreadable_audio(prepare, data, content):
    path = data / "dev/9/2/9-2-0000.flac"
    path.write_bytes(content)
    refused(prepare, path, "unreadable")


def test_link_to_nowhere(prepare, data):
    path = data / "dev/9/2/9-2-0000.flac"
    path.unlink()
    path.symlink_to(data / "gone.flac")
    refused(prepare, path, "unreadable")


def test_empty_audio(prepare, data):
    path = data / "dev/9/2/9-2-0000.flac"
    path.unlink()
    path = path.with_suffix(".wav")
    soundfile.write(path, np.zeros(0), 16000)
    refused(prepare, path, "0 samples")


def test_stereo_audio(prepare, data):
    path = data / "dev/9/2/9-2-0000.flac"
    soundfile.write(path, np.zeros((10, 2)), 16000)
    refused(prepare, path, "2 channels")


@pytest.mark.parametrize("suffix", [".flac", ".wav"])
def test_audio_that_was_cut_off(prepare, data, suffix):
    whole = data / "dev/9/2/9-2-0000.flac"
    path = whole.with_suffix(suffix)
    whole.unlink()
    noise = np.random.default_rng(0).normal(size=16000) / 10
    soundfile.write(path, noise, 16000)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    refused(prepare, path, "cut off")


def test_header_that_says_more_than_there_is(prepare, data):
    """A FLAC cut between two of its blocks."""
    path = data / "dev/9/2/9-2-0000.flac"
    content = bytearray(path.read_bytes())
    content[25] += 7  # the lowest byte of the number of samples
    path.write_bytes(content)
    refused(prepare, path, "cut off")


def test_wav_from_a_pipe_states_no_length(prepare, data):
    path = data / "dev/9/2/9-2-0000.flac"
    path.unlink()
    path = path.with_suffix(".wav")
    soundfile.write(path, np.zeros(1600), 16000)
    content = bytearray(path.read_bytes())
    content[40:44] = b"\xff" * 4
    path.write_bytes(content)
    assert rows_of(prepare()["valid"])[0]["duration"] == "0.1"


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_audio_that_is_no_number(prepare, data, value):
    path = data / "dev/9/2/9-2-0000.flac"
    path.unlink()
    path = path.with_suffix(".wav")
    samples = np.zeros(200_000)
    samples[-1] = value
    soundfile.write(path, samples, 16000, "FLOAT")
    refused(prepare, path, "NaN or infinity")


def test_audio_of_whole_numbers_in_floats(prepare, data):
    path = data / "dev/9/2/9-2-0000.flac"
    path.unlink()
    path = path.with_suffix(".wav")
    soundfile.write(path, 3000.0 * np.ones(8000), 16000, "FLOAT")
    refused(prepare, path, "a sample of 3000", "expected -1 to 1")


def test_letters_that_look_alike_are_alike(prepare, data):
    """One letter, or a letter and its accent, as some systems type it."""
    folder = data / "dev" / "9" / "2"
    (folder / "9-2-0000.flac").rename(folder / "9-2-e\u0301.flac")
    (folder / "9-2.trans.txt").write_text("9-2-\u00e9 cafe\u0301\n")
    (row,) = rows_of(prepare()["valid"])
    assert (row["ID"], row["wrd"]) == ("9-2-\u00e9", "CAF\u00c9")
    assert read_transcripts(data, ["dev"]) == {row["ID"]: row["wrd"]}
    # A capital may be of several, where the letter was one.
    (folder / "9-2.trans.txt").write_text("9-2-\u00e9 \u0390\n")
    rows = rows_of(prepare()["valid"])
    assert read_transcripts(data, ["dev"]) == words_of(rows)


@pytest.mark.parametrize("word", ["<NOISE>", "UH<=a>"])
def test_words_that_look_like_slots(prepare, data, word):
    path = data / "dev/9/2/9-2.trans.txt"
    path.write_text(f"9-2-0000 YES {word} NO\n")
    refused(prepare, path.with_name("9-2-0000"), "has <", "take it out")


def test_audio_shorter_than_a_frame(prepare, data):
    path = data / "dev/9/2/9-2-0000.flac"
    soundfile.write(path, np.zeros(639), 16000)
    refused(prepare, path, "too short", "40 ms")
    soundfile.write(path, np.zeros(640), 16000)
    assert len(rows_of(prepare()["valid"])) == 1


def test_audio_is_decoded_once(prepare, monkeypatch):
    prepare()
    monkeypatch.setattr(soundfile, "SoundFile", None)
    prepare()


@pytest.mark.parametrize("line", ["9-2-0001", "9-2-0001   "])
def test_empty_transcript(prepare, data, line):
    path = data / "dev/9/2/9-2.trans.txt"
    with open(path, "a") as file:
        file.write(line + "\n")
    refused(prepare, path, "empty transcript", "9-2-0001")


def test_transcript_in_another_encoding(prepare, data):
    path = data / "dev/9/2/9-2.trans.txt"
    path.write_bytes("9-2-0000 NO\n9-2-0001 caf\xe9\n".encode("latin-1"))
    refused(prepare, f"{path}, line 2", "expected UTF-8", "0xe9", "iconv -f")


def test_a_transcript_s_line_ends_with_a_line_feed_alone(prepare, data):
    """What else Python takes for an end stands between two words."""
    path = data / "dev/9/2/9-2.trans.txt"
    said = "9-2-0000 A\u2028B\x0cC\x85D\r\n\r\n"
    path.write_bytes(said.encode("utf-8-sig"))
    (row,) = rows_of(prepare()["valid"])
    assert row["wrd"] == "A B C D"


@pytest.mark.parametrize(
    "line, parts",
    [
        ("9-2-0000,YES", ("empty transcript of 9-2-0000,YES",)),
        ("9-2-0000,YES NO", ("audio without", "'9-2-0000,YES ...'")),
        ("9-2-0000; YES NO", ("audio without", "'9-2-0000; ...'")),
    ],
)
def test_a_comma_is_no_blank(prepare, data, line, parts):
    (data / "dev/9/2/9-2.trans.txt").write_text(f"{line}\n")
    refused(prepare, *parts, "WORDS', with a blank between them")


def test_duplicate_id_in_a_transcript(prepare, data):
    path = data / "dev/9/2/9-2.trans.txt"
    path.write_text("9-2-0000 YES\n9-2-0000 NO\n")
    refused(prepare, path, "duplicate id 9-2-0000")


def test_duplicate_id_of_two_files(prepare, data):
    write_utterance(data, "more/7-1-0000")
    message = refused(prepare, "duplicate id 7-1-0000")
    assert str(data / "more/7/1/7-1-0000.flac") in message
    assert str(data / "train/7/1/7-1-0000.flac") in message


def test_same_id_as_flac_and_wav(prepare, data):
    soundfile.write(data / "dev/9/2/9-2-0000.wav", np.zeros(10), 16000)
    refused(prepare, "9-2-0000.wav", "duplicate id")


def test_other_sample_rate(prepare, data):
    path = write_utterance(data, "dev/9-2-0001", rate=8000)
    refused(
        prepare, path, "8000 Hz", "16000 Hz", "`resample: True`", "--resample"
    )


@pytest.mark.parametrize("name", ["dev/", "1/test", "/data/test", "", ".."])
def test_a_manifest_s_name_is_no_path(prepare, name):
    """Old copies are removed from a folder of this name."""
    with pytest.raises(PreparationError, match="a manifest's name is no path"):
        prepare({name: ["dev"]})


def test_resampled_copies(prepare, data):
    path = write_utterance(data, "dev/9-2-0001", rate=11025, samples=11025)
    tone = np.sin(np.arange(11025) * 2 * np.pi * 440 / 11025)
    soundfile.write(path, 0.5 * tone, 11025)
    same, copy = rows_of(prepare(resample=True)["valid"])
    assert same["wav"] == str(data / "dev/9/2/9-2-0000.flac")
    assert copy["wav"].endswith("save/resampled/valid/dev/9/2/9-2-0001.flac")
    samples, rate = soundfile.read(copy["wav"])
    assert rate == 16000
    assert len(samples) / rate == float(copy["duration"]) == 1.0
    assert np.argmax(np.abs(np.fft.rfft(samples))) == 440


def test_copies_have_their_commands(prepare, data):
    """Also where other files of the split need no copy; changed ones, too."""
    write_utterance(data, "dev/9-2-0001", rate=8000)
    file = data / "dev" / "commands.jsonl"
    for value in ("tea", "milk"):
        lines = [
            f'{{"id": "9-2-000{n}", "slots": {{"drink": "{value}"}}}}\n'
            for n in range(2)
        ]
        file.write_text("".join(lines).rstrip())
        rows = rows_of(prepare(resample=True)["valid"])
        assert "resampled" in rows[1]["wav"]
        for some in (rows, rows[1:]):
            found = read_commands(some)
            said = {found[row["ID"]]["slots"]["drink"] for row in some}
            assert said == {value}


def test_skips_when_nothing_changed(prepare, caplog):
    paths = prepare()
    before = {name: os.stat(p).st_mtime_ns for name, p in paths.items()}
    with caplog.at_level(logging.INFO):
        assert prepare() == paths
    assert caplog.text.count("skipped") == 2
    assert before == {name: os.stat(p).st_mtime_ns for name, p in paths.items()}


def new_words(data, csv_path):
    (data / "dev/9/2/9-2.trans.txt").write_text("9-2-0000 NO\n")


def new_file(data, csv_path):
    write_utterance(data, "dev/9-2-0001")


def longer_file(data, csv_path):
    soundfile.write(data / "dev/9/2/9-2-0000.flac", np.zeros(3200), 16000)


def touched_file(data, csv_path):
    os.utime(data / "dev/9/2/9-2-0000.flac", ns=(1, 1))


def csv_gone(data, csv_path):
    csv_path.unlink()


def csv_edited(data, csv_path):
    csv_path.write_text("ID\n")


def record_broken(data, csv_path):
    csv_path.with_name("valid.prepared.json").write_text("{")


@pytest.mark.parametrize(
    "change",
    [
        new_words,
        new_file,
        longer_file,
        touched_file,
        csv_gone,
        csv_edited,
        record_broken,
    ],
)
def test_redoes_when_something_changed(prepare, data, tmp_path, caplog, change):
    prepare()
    change(data, tmp_path / "save" / "valid.csv")
    with caplog.at_level(logging.INFO):
        rows = rows_of(prepare()["valid"])
    assert caplog.text.count("skipped") == 1  # train alone
    fresh = tmp_path / "fresh"
    assert rows == rows_of(
        prepare_librispeech(data, fresh, {"valid": ["dev"]})["valid"]
    )


def test_redoes_with_other_options_or_without_a_copy(prepare, data, caplog):
    path = write_utterance(data, "dev/9-2-0001", rate=8000)
    copy = rows_of(prepare({"valid": ["dev"]}, resample=True)["valid"])[1]
    refused(lambda: prepare({"valid": ["dev"]}), path)
    os.remove(copy["wav"])
    prepare({"valid": ["dev"]}, resample=True)
    assert os.path.exists(copy["wav"])


def test_nothing_is_left_aside(prepare, data, tmp_path):
    write_utterance(data, "dev/9-2-0001", rate=8000)
    prepare(resample=True)
    assert not list((tmp_path / "save").rglob("*.part"))


def test_save_folder_that_cannot_be(data, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    refused(
        lambda: prepare_librispeech(data, blocked, {"valid": ["dev"]}), blocked
    )


@pytest.mark.parametrize(
    "variable, splits",
    [
        ("AMNET_AN4", ["train", "dev", "test"]),
        ("AMNET_COFFEE", ["train", "dev", "test"]),
    ],
)
def test_real_corpora(variable, splits, tmp_path):
    folder = os.environ.get(variable)
    if not folder:
        pytest.skip(f"{variable} is not set")
    paths = prepare_librispeech(
        folder, tmp_path, {split: [split] for split in splits}
    )
    counts = {split: len(rows_of(paths[split])) for split in splits}
    assert (
        counts
        == {
            "AMNET_AN4": {"train": 848, "dev": 100, "test": 130},
            "AMNET_COFFEE": {"train": 363, "dev": 61, "test": 93},
        }[variable]
    )
