"""A model evaluated on a data folder: which data it is, where results go."""

import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .corpus.manifest import digest_of, read_manifest
from .corpus.prepare import (
    manifest_name,
    prepare_librispeech,
    read_transcripts,
)
from .device import Device
from .evaluation import check_noise, evaluate
from .hparams import plain_values
from .inference import AmortizedASR, load
from .noise import BackgroundNoise
from .records import results_path
from .tokens import without_tokens
from .values import is_names

logger = logging.getLogger(__name__)


def evaluate_folder(
    folder: str | Path,
    data_folder: str | Path,
    splits: Sequence[str] = ("test",),
    device_load: float | None = None,
    data: str | None = None,
    resample: bool = False,
    out: str | Path | None = None,
    noise: str | Path | None = None,
    noise_db: float | None = None,
    grammar: str | Path | None = None,
    **options,
) -> list[dict[str, Any]]:
    """Prepare data in LibriSpeech layout and evaluate a trained folder on it.

    Arguments
    ---------
    folder : str or Path
        A training's output folder, or a model's.
    data_folder : str or Path
        The folder with the split folders.
    splits : sequence of str
        Names of split folders, or paths of folders elsewhere; results are
        named as `manifest_name` says.
    device_load : float, optional
        Reckon with a device on which a dense frame takes this many frame
        durations.
    data : str, optional
        Name of the data; if not given that of the training, where it is the
        training's folder, else that of the folder.
    resample : bool
        Whether to accept audio of another sample rate.
    out : str or Path, optional
        Where results are written. If not given: in `folder`, or where data or
        device are not the training's, in a folder in it that is named so.
        (Data that have moved are the training's, where the old folder is gone.)
    noise : str or Path, optional
        A recording of noise; its second half is mixed in.
    noise_db : float, optional
        Decibels of speech over noise; results are then in a folder named by
        both.
    grammar : str or Path, optional
        A file in JSGF, whose sentences alone are searched; results are then in
        a folder named so.
    **options
        For `evaluate`.

    Returns
    -------
    list of dict
        The results of each split.

    Raises
    ------
    ValueError
        If there are results of another grammar, noise or data of the same
        name where these would be written, or a split is named twice; as
        `evaluate` and `prepare_librispeech`.
    """
    names = [manifest_name(split) for split in splits]
    if len(set(names)) < len(names):
        raise ValueError(
            f"splits: expected each once, got {', '.join(map(str, splits))}"
        )
    check_noise(noise, noise_db)
    asr = load(folder)
    encoder = asr.mods.encoder
    other_device = device_load not in (None, encoder.target_device.load)
    if other_device:
        encoder.target_device = Device(load=device_load)
    asr.hold_to(grammar)
    data_folder, known = Path(data_folder).resolve(), trained_on(folder)
    dataset = getattr(asr.hparams, "dataset", None)
    if data is None:
        data = (known == data_folder and dataset) or data_folder.name
    if out is None:
        out = Path(folder)
        # Of one name, and yet others, where those of the training are there.
        other = known and known != data_folder and known.exists()
        if data != (dataset or data) or other:
            out = out / data
        if other_device:
            out = out / f"load-{device_load:g}"
        if noise is not None:
            out = out / f"noise-{Path(noise).stem}-{noise_db:g}"
        if grammar is not None:
            out = out / f"grammar-{Path(grammar).stem}"
    if noise is not None:
        rate = asr.mods.features.sample_rate
        noise = BackgroundNoise(noise, rate, part=(0.5, 1.0))
    for name, split in zip(names, splits):
        file = results_path(out, name)
        if not file.is_file():
            continue
        for key, one in (("grammar", asr.grammar), ("noise", noise)):
            if one is not None:
                check_same(file, key, Path(one.name).name, one.digest)
        words = read_transcripts(data_folder, [split])
        check_same(file, "data", data, digest_of(words))
    manifests = prepare_librispeech(
        data_folder,
        Path(out) / "manifests",
        {name: [split] for name, split in zip(names, splits)},
        asr.mods.features.sample_rate,
        resample,
    )
    for split, manifest in manifests.items():
        warn_of_letters(asr, split, manifest)
    return [
        evaluate(
            asr,
            manifest,
            split,
            out,
            data,
            noise=noise,
            noise_db=noise_db,
            **options,
        )
        for split, manifest in manifests.items()
    ]


def check_same(file: Path, key: str, name: str, digest: str) -> None:
    """Refuse to write over results of another of its name.

    Those that were written before there were digests are taken for its own.
    """
    known = json.loads(file.read_text(encoding="utf-8"))
    if known.get(key) != name:
        return
    if known.get(f"{key}_digest") not in (None, digest):
        other, what = f"another {key}", "rename one of them"
        if key == "data":
            other, what = "other data", "name these (--data)"
        raise ValueError(
            f"{file} is of {other} called {name}, too; give another --out, or "
            f"{what}"
        )


def warn_of_letters(
    asr: AmortizedASR, split: str, manifest: str | Path
) -> None:
    """Say which words a model can never find, as it has no such letters."""
    words = [row["wrd"] for row in read_manifest(manifest)]
    model = asr.hparams.tokenizer.serialized_model_proto()
    if said := without_tokens(model, words):
        logger.warning("%s: %s", split, said)


def trained_on(folder: str | Path) -> Path | None:
    """The data folder of a training, if its output folder tells.

    Where the recordings of its manifests are: they may have moved since it
    began, and a path in its hparams may be from another directory.
    """
    file = Path(folder) / "hyperparams.yaml"
    if not file.is_file():
        return None
    values = plain_values(file.read_text(encoding="utf-8"))
    for name in ("train", "valid", "test"):
        manifest = Path(folder) / "save" / "manifests" / f"{name}.csv"
        if manifest.is_file():
            chapter = Path(read_manifest(manifest)[0]["wav"]).parent
            splits = values.get(f"{name}_splits")
            for split in splits if is_names(splits) else ():
                home = folder_around(chapter.parent.parent, split)
                # Not copies of another sample rate, which lie elsewhere.
                if home and home.parts[-2:] != ("resampled", name):
                    return home.resolve()
    named = values.get("data_folder")
    return Path(named).resolve() if isinstance(named, str) else None


def folder_around(place: Path, split: str) -> Path | None:
    """The folder in which a place has the name of a split; None if it has not.

    Example
    -------
    >>> str(folder_around(Path("/data/1/test"), "1/test/"))
    '/data'
    >>> folder_around(Path("/data/1/test"), "../test")
    """
    name = os.path.normpath(split)
    if os.path.isabs(name):
        return None
    parts = Path(name).parts
    if place.parts[len(place.parts) - len(parts) :] != parts:
        return None
    return place.parents[len(parts) - 1] if parts else place
