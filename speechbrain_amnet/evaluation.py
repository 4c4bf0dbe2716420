"""Evaluation: errors, computation and waiting of a model on a set of speech.

What each figure means is said at `evaluate`. One greedy search with hard
routing gives all of them; streaming would give the same words and routing.
"""

import platform
import sys
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
import speechbrain
import torch
from tqdm import tqdm

from . import __version__
from .corpus.manifest import (
    digest_of,
    has_slots,
    read_commands,
    read_manifest,
    words_of,
)
from .footprint import flops_around, measure_stream, model_size
from .frames import frame_counts, timing
from .inference import AmortizedASR
from .noise import BackgroundNoise, place_of
from .records import KINDS, command, rounded, spread_ms, write
from .report.summary import bootstrap as bootstrap_interval
from .slots import SCORES, score

SHARP = 0.9999  # probability of a decision that is sharp
STREAMED = 5  # utterances that time and memory are measured on
MOST_DB = 200  # of speech over noise; far beyond, their ratio is no number


def evaluate(
    asr: AmortizedASR,
    manifest: str | Path,
    split: str = "test",
    folder: str | Path | None = None,
    data: str | None = None,
    batch_size: int = 16,
    soft: bool = False,
    bootstrap: int = 10_000,
    seed: int = 0,
    progress: bool = True,
    noise: BackgroundNoise | None = None,
    noise_db: float | None = None,
) -> dict[str, Any]:
    """Evaluate a model on the recordings of a manifest.

    Arguments
    ---------
    asr : AmortizedASR
        From `load` or `from_hparams`.
    manifest : str or Path
        A CSV as `prepare_librispeech` writes it.
    split : str
        What the manifest is. The results are written to `results.json` for
        "test", to `results_<split>.json` for any other.
    folder : str or Path, optional
        Where they are written, with `utterances_<split>.csv` and
        `frames_<split>.jsonl`; nowhere if not given.
    data : str, optional
        Name of the data; that of the training if not given.
    batch_size : int
        Recordings at once; no figure depends on it.
    soft : bool
        Also give the WER with all branches mixed, as in training.
    bootstrap : int
        Resamples of the WER's interval.
    seed : int
        Of the resamples.
    progress : bool
        Whether to show a bar.
    noise : BackgroundNoise, optional
        Mixed into every recording, the same cut in every run.
    noise_db : float, optional
        Decibels of speech over noise, see `noise.py`.

    Returns
    -------
    dict
        experiment, data, split, seed : of the training and the recordings.
        data_digest : what tells the recordings from others of the data's name,
            by their ids and words.
        noise, noise_digest, noise_db : the recording's name, what tells it
            from others of its name, and decibels of speech over noise, or null
            where none was mixed in.
        grammar, grammar_digest : the file whose sentences alone were searched,
            and what tells it from others of its name, or null.
        wer, wer_interval, words, errors : word errors in percent (upper-case
            words), their 95 % bootstrap interval over utterances, the words
            of the references, the errors by kind.
        commands_matched : percent of the utterances in whose words every
            slot's phrase is found, where `commands.jsonl` beside the audio
            has slots, or null.
        command_accuracy, slot_f1, intent_accuracy : where the model knows
            slots and intents and `commands.jsonl` has them, in percent; a
            command is right with its intent and every slot; or null.
        mflops_per_frame, dense_mflops_per_frame, compute_saved : MFLOPs of
            encoder and router, mean over real frames; those of the dense
            encoder; and 1 minus their ratio.
        recogniser_mflops_per_frame, recogniser_saved : the same with features,
            predictor and joint, see `flops_around`; null where these are
            another's, or the search is held to a grammar.
        branch_shares, sharp_share, routing_entropy : share of the real frames
            on each branch; of those on which a branch had a probability of at
            least 0.9999; mean entropy of the probabilities, in nats.
        soft_wer : in percent, or null.
        device, latency_ms : the device that is reckoned with, and the wait
            from the end of the recording until its last frame is encoded:
            mean, p50, p90, max; the mean `floor` that the last frame itself
            takes, and the mean of what is `above_floor`.
        last_word_ms : the same from the end of the last word, where
            `commands.jsonl` beside the audio says when that was, or null.
        real_time_factor, peak_memory_mb : of the runtime, see
            `runtime.measure`.
        parameters, megabytes : of the model, without what was pruned, and of
            its packed file.
        epochs, command, date, versions : how it came about; see `command`.
        path : of the file that all this was written to, if it was.

    Raises
    ------
    FileNotFoundError
        If the manifest or a recording does not exist.
    ValueError
        If the manifest is empty or a recording unusable, or `noise_db` no
        loudness of a noise.
    """
    check_noise(noise, noise_db)
    mixed = None
    if noise is not None:

        def mixed(wav, name):
            return noise.mix(wav, noise_db, place_of(name))

    rows = read_manifest(manifest)
    commands = read_commands(rows)
    # Of similar length in a batch; shown and written in their own order.
    order = sorted(range(len(rows)), key=lambda i: float(rows[i]["duration"]))
    found: dict[int, dict] = {}
    bar = tqdm(
        total=len(rows),
        desc=f"evaluate {split}",
        unit="utterance",
        disable=not progress,
    )
    with bar:
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            measured = measure_batch(asr, [rows[i] for i in batch], soft, mixed)
            found.update(zip(batch, measured))
            bar.update(len(batch))
    utterances = [found[i] for i in range(len(rows))]
    for utterance in utterances:
        record = commands.get(utterance["id"], {})
        utterance["speech_end"] = record.get("speech_end")
        if "slots" in record:
            utterance["matched"] = has_slots(
                utterance["hypothesis"], record["slots"]
            )
            if asr.understands:
                utterance["said"] = record
    picked = np.linspace(0, len(rows) - 1, STREAMED).round().astype(int)
    wavs = [rows[order[i]]["wav"] for i in dict.fromkeys(picked.tolist())]
    about = vars(asr.hparams)
    results = {
        "experiment": about.get("experiment"),
        "data": data or about.get("dataset"),
        "data_digest": digest_of(words_of(rows)),
        "split": split,
        "seed": about.get("seed"),
        "noise": noise and noise.name,
        "noise_digest": noise and noise.digest,
        "noise_db": noise_db,
        "grammar": asr.grammar and Path(asr.grammar.name).name,
        "grammar_digest": asr.grammar and asr.grammar.digest,
        **summarise(utterances, asr, bootstrap, seed),
        **of_recogniser(utterances, asr),
        **measure_stream(asr, wavs),
        **model_size(asr),
        "epochs": about.get("epochs"),
        "command": command(sys.argv),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "speechbrain": speechbrain.__version__,
            "speechbrain_amnet": __version__,
        },
    }
    results = rounded(results)
    if folder is not None:
        results["path"] = write(folder, split, results, utterances, asr)
    return results


def check_noise(noise: Any, noise_db: float | None) -> None:
    """Refuse noise of no loudness, and loudness of no noise."""
    if (noise is None) != (noise_db is None):
        raise ValueError("noise and noise_db go together")
    # What is no number is not between two.
    if noise_db is not None and not -MOST_DB <= noise_db <= MOST_DB:
        raise ValueError(
            f"noise_db: expected {-MOST_DB} to {MOST_DB} decibels, got "
            f"{noise_db}"
        )


# Measuring -----------------------------------------------------------------


def measure_batch(
    asr: AmortizedASR,
    rows: Sequence[dict[str, str]],
    soft: bool = False,
    mixed: Callable[[torch.Tensor, str], torch.Tensor] | None = None,
) -> list[dict[str, Any]]:
    """Transcribe the recordings of some rows, and note what each frame did.

    Arguments
    ---------
    asr : AmortizedASR
        The model.
    rows : sequence of dict
        Rows of a manifest.
    soft : bool
        Whether to search the mixture of all branches too.
    mixed : callable, optional
        Gets the samples and the id of a recording; what is then heard.

    Returns
    -------
    list of dict
        For each row its words, errors, and per frame the branch, the backlog
        that it finds and how long it waits (in seconds), FLOPs, highest
        probability and entropy.
    """
    wavs = [asr.load_audio(row["wav"]) for row in rows]
    if mixed is not None:
        wavs = [mixed(wav, row["ID"]) for wav, row in zip(wavs, rows)]
    samples = torch.tensor([len(wav) for wav in wavs])
    batch = torch.nn.utils.rnn.pad_sequence(wavs, batch_first=True)
    encoder, search = asr.mods.encoder, asr.hparams.search
    with torch.no_grad():
        features, lengths = asr.mods.features(
            batch, (samples.double() / batch.shape[1]).to(batch.device)
        )
        encoded, routing = encoder(features, lengths, hard=True)
        tokens, places = search(encoded, lengths, with_frames=True)
        shares = routing.probabilities
        if soft:
            mixed, _ = encoder(features, lengths, hard=False)
            soft_tokens = search(mixed, lengths)
    waits = timing(routing.time, lengths, routing.backlog)
    entropy = -(shares * shares.clamp(min=1e-12).log()).sum(-1)
    counts = frame_counts(lengths, features.shape[1])
    utterances = []
    for i, (row, n) in enumerate(zip(rows, counts.tolist())):
        reference, hypothesis = row["wrd"].upper(), asr.text(tokens[i]).upper()
        pieces = [asr.hparams.tokenizer.id_to_piece(t) for t in tokens[i]]
        utterance = {
            "id": row["ID"],
            "wav": row["wav"],
            "reference": reference,
            "hypothesis": hypothesis,
            **count_errors(reference, hypothesis),
            "seconds": len(wavs[i]) / asr.mods.features.sample_rate,
            "branch": routing.choice[i, :n].cpu().numpy(),
            "backlog": routing.backlog[i, :n].cpu().double().numpy(),
            "wait": waits.wait[i, :n].cpu().double().numpy(),
            "flops": routing.flops[i, :n].cpu().double().numpy(),
            "highest": shares[i, :n].amax(-1).cpu().numpy(),
            "entropy": entropy[i, :n].cpu().double().numpy(),
            "latency": waits.latency[i].item(),
            "floor": waits.floor[i].item(),
            "command": asr.command(tokens[i]),
            "tokens": [list(pair) for pair in zip(pieces, places[i])],
        }
        if soft:
            text = asr.text(soft_tokens[i]).upper()
            errors = count_errors(reference, text)
            utterance["soft_errors"] = sum(errors[kind] for kind in KINDS)
        utterances.append(utterance)
    return utterances


def count_errors(reference: str, hypothesis: str) -> dict[str, int]:
    """Words of the reference, and errors by kind.

    Example
    -------
    >>> count_errors("GO FORWARD TEN", "GO FORWARDS")
    {'words': 3, 'substitutions': 1, 'deletions': 1, 'insertions': 0}
    """
    result = jiwer.process_words(reference, hypothesis)
    return {
        "words": len(reference.split()),
        **{kind: getattr(result, kind) for kind in KINDS},
    }


# Arithmetic ----------------------------------------------------------------


def summarise(
    utterances: Sequence[dict[str, Any]],
    asr: AmortizedASR,
    bootstrap: int = 10_000,
    seed: int = 0,
) -> dict[str, Any]:
    """The figures of a set, from those of its utterances; see `evaluate`."""
    encoder = asr.mods.encoder
    device, duration = encoder.target_device, encoder.frame_duration
    speed = device.speed(encoder.dense_flops, duration)
    # In the order of the ids, so that the interval is the tables' own.
    utterances = sorted(utterances, key=lambda u: u["id"])
    words = np.array([u["words"] for u in utterances])
    errors = np.array([sum(u[kind] for kind in KINDS) for u in utterances])
    branch = np.concatenate([u["branch"] for u in utterances])
    highest = np.concatenate([u["highest"] for u in utterances])
    flops = np.concatenate([u["flops"] for u in utterances]).mean()
    latency = np.array([u["latency"] for u in utterances])
    floor = np.array([u["floor"] for u in utterances])
    last_word = [
        u["latency"] + u["seconds"] - u["speech_end"]
        for u in utterances
        if u.get("speech_end") is not None
    ]
    matched = [u["matched"] for u in utterances if "matched" in u]
    known = [u for u in utterances if "said" in u]
    soft_wer = None
    if all("soft_errors" in u for u in utterances):
        soft_errors = sum(u["soft_errors"] for u in utterances)
        soft_wer = 100 * soft_errors / words.sum()
    shares = np.bincount(branch, minlength=encoder.router.branches)
    return {
        "wer": 100 * errors.sum() / words.sum(),
        "wer_interval": list(
            bootstrap_interval(errors, words, bootstrap, seed)
        ),
        "words": int(words.sum()),
        "errors": {kind: sum(u[kind] for u in utterances) for kind in KINDS},
        "commands_matched": 100 * np.mean(matched) if matched else None,
        **(
            score([u["said"] for u in known], [u["command"] for u in known])
            if known
            else dict.fromkeys(SCORES)
        ),
        "soft_wer": soft_wer,
        "mflops_per_frame": flops / 1e6,
        "dense_mflops_per_frame": encoder.dense_flops / 1e6,
        "compute_saved": 1 - flops / encoder.dense_flops,
        "branch_shares": (shares / len(branch)).tolist(),
        "sharp_share": (highest >= SHARP).mean(),
        "routing_entropy": np.concatenate(
            [u["entropy"] for u in utterances]
        ).mean(),
        "device": {
            "load": device.load,
            "flops_per_second": speed,
        },
        "latency_ms": {
            **spread_ms(latency),
            "floor": 1000 * floor.mean(),
            "above_floor": 1000 * (latency - floor).mean(),
        },
        "last_word_ms": spread_ms(np.array(last_word)) if last_word else None,
    }


def of_recogniser(
    utterances: Sequence[dict[str, Any]], asr: AmortizedASR
) -> dict[str, float | None]:
    """MFLOPs a frame of all there is, and what of them is saved."""
    frames = sum(len(u["branch"]) for u in utterances)
    tokens = sum(len(u["tokens"]) for u in utterances)
    around = flops_around(asr, frames, tokens)
    mflops = saved = None
    if around is not None:
        flops = around + sum(u["flops"].sum() for u in utterances)
        mflops = flops / frames / 1e6
        saved = 1 - flops / (around + frames * asr.mods.encoder.dense_flops)
    return {"recogniser_mflops_per_frame": mflops, "recogniser_saved": saved}
