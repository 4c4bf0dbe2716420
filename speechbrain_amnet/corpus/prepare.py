"""Preparation: CSV manifests from any folders in LibriSpeech layout."""

import csv
import hashlib
import io
import json
import logging
import os
import shutil
import unicodedata
from collections.abc import Sequence
from math import gcd
from pathlib import Path

import numpy as np
import soundfile
from scipy.signal import resample_poly
from tqdm import tqdm

from speechbrain_amnet.audio import LOUDEST, is_cut
from speechbrain_amnet.corpus.manifest import COMMANDS, read_lines
from speechbrain_amnet.files import write
from speechbrain_amnet.slots import TAG

logger = logging.getLogger(__name__)

AUDIO = (".flac", ".wav")
TRANSCRIPT = ".trans.txt"
COLUMNS = ("ID", "duration", "wav", "spk_id", "wrd")
FORMAT = 2  # of the manifests: a new number makes all of them again
LEAST = 0.04  # seconds: one frame, the least that can be encoded
BLOCK = 2**16  # samples that are decoded at a time


class PreparationError(ValueError):
    """The data cannot be used as they are; the message names the file."""


def prepare_librispeech(
    data_folder: str,
    save_folder: str,
    splits: dict[str, list[str]],
    sample_rate: int = 16000,
    resample: bool = False,
) -> dict[str, str]:
    r"""Writes one CSV manifest for each entry of `splits`.

    The audio lie in `SPLIT/SPEAKER/CHAPTER/*.flac` (or `.wav`), the words in
    a `*.trans.txt` beside them in UTF-8, one `ID WORDS` a line. Other files are
    ignored. Every file is decoded once, so that none fails in training; a
    manifest whose sources did not change is left as it is.

    Arguments
    ---------
    data_folder : str
        The folder with the split folders.
    save_folder : str
        Where the manifests are written, with what tells that they are fresh.
    splits : dict
        Manifest name -> the split folders that it merges, as
        `{"train": ["train-clean-100", "train-clean-360"]}`; one that lies
        elsewhere by its path.
    sample_rate : int
        The sample rate that every file must have, in Hz.
    resample : bool
        Whether to write copies of files that have another rate into
        `save_folder` and to list these, instead of refusing them.

    Returns
    -------
    csv_paths : dict
        Manifest name -> path of its CSV, with the columns ID, duration (in
        seconds), wav (an absolute path), spk_id and wrd (in upper case).

    Raises
    ------
    PreparationError
        If something is missing, unreadable, cut off, shorter than a frame,
        double, of another sample rate, or has NaN, infinity or samples far
        above 1; if a transcript has what a slot's tag looks like; or if a
        split is named twice.

    Example
    -------
    >>> import tempfile, numpy, soundfile
    >>> root = Path(tempfile.mkdtemp())
    >>> folder = root / "data" / "dev" / "7" / "1"
    >>> folder.mkdir(parents=True)
    >>> _ = (folder / "7-1.trans.txt").write_text("7-1-0000 good morning\n")
    >>> soundfile.write(folder / "7-1-0000.flac", numpy.zeros(8000), 16000)
    >>> paths = prepare_librispeech(root / "data", root, {"valid": ["dev"]})
    >>> open(paths["valid"]).read().splitlines()[1].split(",")[-1]
    'GOOD MORNING'
    """
    data_folder = Path(os.path.abspath(data_folder))
    save_folder = Path(os.path.abspath(save_folder))
    _check_folder(data_folder)
    for name in splits:
        # A path would lead out of `save_folder`, where old copies are removed.
        if name != manifest_name(name):
            raise PreparationError(
                f"splits: a manifest's name is no path: {name!r}; "
                f"expected {manifest_name(name)!r}"
            )
    return {
        name: _prepare_csv(
            name,
            _split_folders(data_folder, folders),
            save_folder,
            sample_rate,
            resample,
        )
        for name, folders in splits.items()
    }


def manifest_name(split: str) -> str:
    """What the manifest and the results of a split are called.

    Example
    -------
    >>> [manifest_name(split) for split in ("dev/", "1/test", "/my/test")]
    ['dev', '1_test', 'my_test']
    """
    path = Path(os.path.normpath(split))
    parts = [p for p in path.parts if p not in (path.anchor, "..", ".")]
    return "_".join(parts) or "all"


def read_transcripts(
    data_folder: str | Path, splits: Sequence[str]
) -> dict[str, str]:
    """What was said in some splits, by id, without a look at the audio.

    Arguments
    ---------
    data_folder : str or Path
        As for `prepare_librispeech`.
    splits : sequence of str
        Names of its folders.

    Returns
    -------
    dict

    Raises
    ------
    PreparationError
        If there is no such split, one is named twice, or a transcript cannot
        be read.
    """
    _check_folder(Path(data_folder))
    folders = _split_folders(Path(data_folder), splits)
    found = [path for folder in folders for path in _files(folder)]
    found = [path for path in found if path.name.endswith(TRANSCRIPT)]
    words = _read_transcripts(sorted(found))
    return {name: text for (_, name), text in words.items()}


def _prepare_csv(name, folders, save_folder, sample_rate, resample):
    """Writes one manifest, unless it is fresh; gives its path."""
    csv_path = save_folder / f"{name}.csv"
    copies = save_folder / "resampled" / name
    record_path = save_folder / f"{name}.prepared.json"

    audio, transcripts = _find(folders)
    labels = [f / COMMANDS for f in folders if (f / COMMANDS).is_file()]
    source = _fingerprint(
        audio,
        [*transcripts, *labels],
        FORMAT,
        sample_rate,
        resample,
        copies,
    )
    if _is_fresh(record_path, source, csv_path, copies):
        logger.info("%s: nothing changed, preparation skipped", csv_path)
        return str(csv_path)

    words = _read_transcripts(transcripts)
    _check_pairs(audio, words)
    rows, others = [], []
    for path in tqdm(audio, desc=f"prepare {name}", unit="file"):
        frames, rate = _inspect(path)
        if rate != sample_rate and not resample:
            raise PreparationError(
                f"{path}: sample rate {rate} Hz, expected {sample_rate} Hz; "
                "resample it first, or ask for copies (in hparams "
                "`resample: True`, --resample where a command has it)"
            )
        listed = path
        if rate != sample_rate:
            listed = copies / path.parent.relative_to(path.parents[3])
            listed = listed / f"{path.stem}.flac"
            others.append((path, listed.relative_to(copies)))
            frames = _resampled_frames(frames, rate, sample_rate)
        rows.append(
            {
                "ID": _key(path)[1],
                "duration": frames / sample_rate,
                "wav": str(listed),
                "spk_id": path.parent.parent.name,
                "wrd": words[_key(path)],
            }
        )
    try:
        save_folder.mkdir(parents=True, exist_ok=True)
        _write_copies(others, labels, copies, sample_rate)
        _write_csv(csv_path, rows)
        record = {"source": source, "made": _made(csv_path, copies)}
        write(record_path, json.dumps(record, indent=2) + "\n")
    except OSError as error:
        raise PreparationError(
            f"{save_folder}: cannot be written ({error})"
        ) from error
    logger.info("%s: %d utterances prepared", csv_path, len(rows))
    return str(csv_path)


def _check_folder(data_folder):
    """It is there."""
    if not data_folder.is_dir():
        raise PreparationError(
            f"{data_folder}: no such folder; expected one with split folders"
        )


def _split_folders(data_folder, splits):
    """The folders of some splits, each once."""
    # YAML's `train: dev` means the same as `train: [dev]`.
    splits = [splits] if isinstance(splits, str) else splits
    folders = [_split_folder(data_folder, split) for split in splits]
    there = [folder.resolve() for folder in folders]
    for n, folder in enumerate(there):
        if folder in there[:n]:
            raise PreparationError(
                f"splits: {folder} is named twice; expected each split once, "
                f"got {', '.join(map(str, splits))}"
            )
    return folders


def _split_folder(data_folder, split):
    """The folder of a split, or an error with the splits that there are."""
    folder = data_folder / split
    if folder.is_dir():
        return folder
    there = sorted(p.name for p in data_folder.iterdir() if p.is_dir())
    raise PreparationError(
        f"{folder}: no such split; {data_folder} has "
        + (", ".join(there) or "no folders")
    )


def _files(folder):
    """All files in a folder, but for hidden ones."""
    return [
        Path(parent, name)
        for parent, _, names in os.walk(folder, followlinks=True)
        for name in names
        if name[0] != "."
    ]


def _find(folders):
    """All audio and all transcripts of the folders, sorted."""
    audio, transcripts = [], []
    for folder in folders:
        paths = _files(folder)
        found = [p for p in paths if p.suffix.lower() in AUDIO]
        transcripts += [p for p in paths if p.name.endswith(TRANSCRIPT)]
        if not found:
            raise PreparationError(
                f"{folder}: no audio; expected SPEAKER/CHAPTER/*.flac or *.wav"
            )
        for path in found:
            if len(path.relative_to(folder).parts) != 3:
                raise PreparationError(
                    f"{path}: audio out of place; expected "
                    f"{folder.name}/SPEAKER/CHAPTER/{path.name}"
                )
        audio += found
    return sorted(audio), sorted(transcripts)


def _read_transcripts(transcripts):
    """(folder, id) -> words in upper case."""
    words = {}
    for path in transcripts:
        try:
            lines = read_lines(path)
        except ValueError as error:  # not UTF-8
            raise PreparationError(str(error)) from None
        except OSError as error:
            raise PreparationError(f"{path}: unreadable ({error})") from error
        for line in filter(str.strip, lines):
            # Letters that look alike are alike, however they were typed.
            name, *rest = unicodedata.normalize("NFC", line).split()
            if not rest:
                raise PreparationError(
                    f"{path}: empty transcript of {name}; expected 'ID WORDS', "
                    "with a blank between them"
                )
            if (path.parent, name) in words:
                raise PreparationError(f"{path}: duplicate id {name}")
            said = unicodedata.normalize("NFC", " ".join(rest).upper())
            words[path.parent, name] = said
    return words


def _key(path):
    """An audio file's place among the transcripts."""
    return path.parent, unicodedata.normalize("NFC", path.stem)


def _check_pairs(audio, words):
    """Each audio has its transcript, each transcript its audio, once."""
    for (folder, name), said in words.items():
        if tag := TAG.search(said):
            raise PreparationError(
                f"{folder / name}: its transcript has {tag[0]}, which is how "
                "slots and intents are written; take it out, or write a word"
            )
    seen = {}
    for path in audio:
        name = _key(path)[1]
        if name in seen:
            raise PreparationError(
                f"{path}: duplicate id {name}, also {seen[name]}"
            )
        seen[name] = path
        if _key(path) not in words:
            raise PreparationError(
                f"{path}: audio without transcript; expected a line "
                f"'{path.stem} WORDS', with a blank between them, in a "
                f"*{TRANSCRIPT} beside it{_with_a_comma(path, words)}"
            )
    heard = {_key(path) for path in audio}
    for folder, name in words:
        if (folder, name) not in heard:
            raise PreparationError(
                f"{folder / name}: transcript without audio; expected "
                f"{name}.flac or {name}.wav there"
            )


def _with_a_comma(path, words):
    """Says what came for an audio file, where it has another separator."""
    for folder, name in words:
        rest = name.removeprefix(_key(path)[1])
        if folder == path.parent and rest != name and rest[0] in ",;:|":
            return f", got '{name} ...'"
    return ""


def _inspect(path):
    """Number of samples and sample rate; all of it is decoded."""
    try:
        with soundfile.SoundFile(path) as file:
            if file.frames == 0:
                raise PreparationError(f"{path}: empty audio (0 samples)")
            if file.channels != 1:
                raise PreparationError(
                    f"{path}: {file.channels} channels, expected 1 (mono)"
                )
            decoded = 0
            while len(block := file.read(BLOCK, dtype="float32")):
                decoded += len(block)
                if not np.isfinite(block).all():
                    raise PreparationError(
                        f"{path}: the audio has NaN or infinity"
                    )
                if (largest := np.abs(block).max()) > LOUDEST:
                    raise PreparationError(
                        f"{path}: a sample of {largest:g}, expected -1 to 1; "
                        "write it as 16 bits, or divide it by its full scale"
                    )
            rate = file.samplerate
            cut = is_cut(file, decoded)
    except (OSError, soundfile.SoundFileError) as error:
        raise PreparationError(
            f"{path}: unreadable, perhaps cut off ({error})"
        ) from error
    if cut:
        raise PreparationError(
            f"{path}: cut off: {decoded} samples, fewer than its header "
            "says; get the whole file, or remove it and its transcript"
        )
    if decoded < LEAST * rate:
        raise PreparationError(
            f"{path}: too short: {1000 * decoded / rate:.3g} ms, expected "
            f"{1000 * LEAST:g} ms or more; remove it and its transcript"
        )
    return decoded, rate


def _resampled_frames(frames, rate, sample_rate):
    """Length that `resample_poly` gives."""
    return -(-frames * sample_rate // rate)


def _write_copies(others, labels, copies, sample_rate):
    """Resamples (path, place in copies) into a folder aside, then renames.

    What says what was meant comes along, for what reads it beside the audio.
    """
    aside = copies.with_name(copies.name + ".part")
    for folder in (aside, copies):
        shutil.rmtree(folder, ignore_errors=True)
    if not others:
        return
    for path, place in tqdm(others, desc="resample", unit="file"):
        try:
            samples, rate = soundfile.read(path, dtype="float32")
        except soundfile.SoundFileError as error:
            raise PreparationError(f"{path}: unreadable ({error})") from error
        common = gcd(sample_rate, rate)
        samples = resample_poly(samples, sample_rate // common, rate // common)
        (aside / place).parent.mkdir(parents=True, exist_ok=True)
        file = io.BytesIO()  # written by Python, a full disk is an error
        soundfile.write(
            file, samples.clip(-1, 1), sample_rate, "PCM_16", format="FLAC"
        )
        (aside / place).write_bytes(file.getvalue())
    for path in labels:
        place = aside / path.parent.name
        if place.is_dir():
            with open(place / COMMANDS, "ab") as file:
                file.write(path.read_bytes().rstrip() + b"\n")
    os.replace(aside, copies)


def _write_csv(csv_path, rows):
    table = io.StringIO()
    writer = csv.DictWriter(table, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write(csv_path, table.getvalue())


def _is_fresh(record_path, source, csv_path, copies):
    """Whether the record is of these sources and of the files that lie here."""
    try:
        record = json.loads(record_path.read_text(encoding="utf-8"))
        made = _made(csv_path, copies)
    except (OSError, ValueError):
        return False
    return record == {"source": source, "made": made}


def _made(csv_path, copies):
    """Fingerprint of what a preparation wrote."""
    written = sorted(p for p in copies.rglob("*") if p.is_file())
    return _fingerprint(written, [csv_path])


def _fingerprint(by_stat, by_content, *options):
    """Hash of paths, sizes and times, of whole contents, and of options."""
    digest = hashlib.sha256(repr([str(o) for o in options]).encode())
    try:
        for path in by_stat:
            stat = path.stat()
            line = f"{path} {stat.st_size} {stat.st_mtime_ns}\n"
            digest.update(os.fsencode(line))
        for path in by_content:
            digest.update(os.fsencode(f"{path}\n"))
            digest.update(path.read_bytes())
    except OSError as error:  # for instance a link to nowhere
        raise PreparationError(
            f"{error.filename}: unreadable ({error.strerror})"
        ) from error
    return digest.hexdigest()
