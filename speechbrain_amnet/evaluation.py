"""Evaluation: errors, computation and waiting of a model on a set of speech.

What each figure means is said at `evaluate`. One greedy search with hard
routing gives all of them; streaming would give the same words and routing.
Run as a program, this module measures a stream in a process of its own (see
`measure_stream`), as memory that was used before cannot be told apart.
"""

import csv
import io
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
import speechbrain
import torch
from tqdm import tqdm

from . import __version__, files
from .corpus.prepare import prepare_librispeech
from .device import frame_counts, timing
from .inference import AmortizedASR, load
from .report.summary import bootstrap as bootstrap_interval

SHARP = 0.9999  # probability of a decision that is sharp
STREAMED = 5  # utterances that time and memory are measured on
KINDS = ("substitutions", "deletions", "insertions")


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

    Returns
    -------
    dict
        experiment, data, split, seed : of the training and the recordings.
        wer, wer_interval, words, errors : word errors in percent (upper-case
            words), their 95 % bootstrap interval over utterances, the words
            of the references, the errors by kind.
        mflops_per_frame, dense_mflops_per_frame, compute_saved : MFLOPs of
            encoder and router, mean over real frames; those of the dense
            encoder; and 1 minus their ratio.
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
        real_time_factor, peak_memory_mb : see `measure_stream`, or null.
        parameters, megabytes : of the model, and of its files.
        epochs, command, date, versions : how it came about. Of absolute
            paths in the command the last part is kept.

    Raises
    ------
    FileNotFoundError
        If the manifest or a recording does not exist.
    ValueError
        If the manifest is empty or a recording unusable.
    """
    rows = read_manifest(manifest)
    ends = speech_ends(rows)
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
            measured = measure_batch(asr, [rows[i] for i in batch], soft)
            found.update(zip(batch, measured))
            bar.update(len(batch))
    utterances = [found[i] for i in range(len(rows))]
    for row, utterance in zip(rows, utterances):
        utterance["speech_end"] = ends.get(row["ID"])
    picked = np.linspace(0, len(rows) - 1, STREAMED).round().astype(int)
    wavs = [rows[order[i]]["wav"] for i in dict.fromkeys(picked.tolist())]
    about = vars(asr.hparams)
    results = {
        "experiment": about.get("experiment"),
        "data": data or about.get("dataset"),
        "split": split,
        "seed": about.get("seed"),
        **summarise(utterances, asr, bootstrap, seed),
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
    results = _rounded(results)
    if folder is not None:
        write(Path(folder), split, results, utterances, asr)
    return results


def evaluate_folder(
    folder: str | Path,
    data_folder: str | Path,
    splits: Sequence[str] = ("test",),
    device_load: float | None = None,
    data: str | None = None,
    resample: bool = False,
    out: str | Path | None = None,
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
        Names of split folders.
    device_load : float, optional
        Reckon with a device on which a dense frame takes this many frame
        durations.
    data : str, optional
        Name of the data; that of its folder if not given.
    resample : bool
        Whether to accept audio of another sample rate.
    out : str or Path, optional
        Where results are written. If not given: in `folder`, or where data or
        device are not the training's, in a folder in it that is named so.
    **options
        For `evaluate`.

    Returns
    -------
    list of dict
        The results of each split.
    """
    asr = load(folder, device_load)
    data = data or Path(data_folder).resolve().name
    if out is None:
        out = Path(folder)
        if data != getattr(asr.hparams, "dataset", data):
            out = out / data
        if device_load is not None:
            out = out / f"load-{device_load:g}"
    manifests = prepare_librispeech(
        data_folder,
        Path(out) / "manifests",
        {split: [split] for split in splits},
        asr.mods.features.sample_rate,
        resample,
    )
    return [
        evaluate(asr, manifest, split, out, data, **options)
        for split, manifest in manifests.items()
    ]


def read_manifest(path: str | Path) -> list[dict[str, str]]:
    """The rows of a manifest."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"no such manifest: {path}")
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    missing = {"ID", "duration", "wav", "wrd"} - set(rows[0] if rows else ())
    if missing:
        raise ValueError(
            f"{path}: no utterances, or no column {', '.join(sorted(missing))}"
        )
    return rows


def speech_ends(rows: Sequence[dict[str, str]]) -> dict[str, float]:
    """When the last word ends, in seconds, by id, where that is known."""
    ends = {}
    splits = {Path(os.path.abspath(row["wav"])).parents[2] for row in rows}
    for split in sorted(splits):
        file = split / "commands.jsonl"
        if file.is_file():
            for line in file.read_text(encoding="utf-8").splitlines():
                record = json.loads(line)
                if "speech_end" in record:
                    ends[record["id"]] = record["speech_end"]
    return ends


# Measuring -----------------------------------------------------------------


def measure_batch(
    asr: AmortizedASR, rows: Sequence[dict[str, str]], soft: bool = False
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

    Returns
    -------
    list of dict
        For each row its words, errors, and per frame the branch, backlog (in
        seconds), FLOPs, highest probability and entropy.
    """
    wavs = [asr.load_audio(row["wav"]) for row in rows]
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
    waits = timing(
        routing.time, lengths, encoder.frame_duration, routing.backlog
    )
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
            "flops": routing.flops[i, :n].cpu().double().numpy(),
            "highest": shares[i, :n].amax(-1).cpu().numpy(),
            "entropy": entropy[i, :n].cpu().double().numpy(),
            "latency": waits.latency[i].item(),
            "floor": waits.floor[i].item(),
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


def measure_stream(
    asr: AmortizedASR, wavs: Sequence[str | Path]
) -> dict[str, float | None]:
    """Time and memory of streaming, in a process of its own.

    One frame at a time, one thread, on the CPU, after the model was loaded
    and had one recording. Time is the process's own, which on a machine that
    does nothing else is the time that passes.

    Arguments
    ---------
    asr : AmortizedASR
        A model that was loaded from a folder.
    wavs : sequence of str or Path
        A few recordings.

    Returns
    -------
    dict
        real_time_factor : seconds of computation over seconds of audio.
        peak_memory_mb : peak of the resident set, less what it was when all
            was imported and nothing loaded. Null where there is no folder.
    """
    folder = model_folder(asr)
    if folder is None:
        return {"real_time_factor": None, "peak_memory_mb": None}
    device = asr.mods.encoder.target_device
    speed = device.speed(
        asr.mods.encoder.dense_flops, asr.mods.encoder.frame_duration
    )
    here = str(Path(__file__).resolve().parent.parent)
    paths = [here, os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "-m", __name__, str(folder), repr(speed)]
        + [str(wav) for wav in wavs],
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        },
        capture_output=True,
        text=True,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RuntimeError(f"streaming {folder} failed: {last}")
    return json.loads(done.stdout.splitlines()[-1])


def _stream_here(folder: str, speed: str, *wavs: str) -> dict[str, float]:
    """What `measure_stream` runs in another process."""
    from .device import Device

    torch.set_num_threads(1)
    idle = peak_memory_mb()
    asr = load(folder, run_opts={"device": "cpu"})
    asr.mods.encoder.target_device = Device(flops_per_second=float(speed))
    size = asr.mods.features.frame_samples
    audio = [asr.load_audio(wav) for wav in wavs]
    spent = []
    for wav in (audio[0], *audio):
        start = time.process_time()
        for _ in asr.transcribe_stream(wav.split(size)):
            pass
        spent.append(time.process_time() - start)
    seconds = sum(map(len, audio)) / asr.mods.features.sample_rate
    return {
        "real_time_factor": sum(spent[1:]) / seconds,
        "peak_memory_mb": peak_memory_mb() - idle,
    }


def peak_memory_mb() -> float:
    """Peak of this process's resident set so far, in MB."""
    try:
        # Linux's getrusage counts the process that started this one, too.
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    except OSError:
        pass
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e6


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


def spread_ms(seconds: np.ndarray) -> dict[str, float]:
    """Mean, p50, p90 and max, in ms.

    Example
    -------
    >>> spread_ms(np.array([0.5, 0.25, 0.0]))
    {'mean': 250.0, 'p50': 250.0, 'p90': 450.0, 'max': 500.0}
    """
    values = {
        "mean": seconds.mean(),
        "p50": np.percentile(seconds, 50),
        "p90": np.percentile(seconds, 90),
        "max": seconds.max(),
    }
    return {name: 1000 * float(value) for name, value in values.items()}


def model_folder(asr: AmortizedASR) -> Path | None:
    """Where a model was loaded from, if from a folder."""
    pretrainer = getattr(asr.hparams, "pretrainer", None)
    paths = getattr(pretrainer, "paths", {})
    return Path(paths["encoder"]).parent if "encoder" in paths else None


def model_size(asr: AmortizedASR) -> dict[str, float]:
    """Parameters of the model, and megabytes (1e6 bytes) of its files."""
    parameters = sum(p.numel() for p in asr.mods.parameters())
    folder = model_folder(asr)
    size = 4 * parameters
    if folder is not None:
        size = sum(file.stat().st_size for file in folder.glob("*.ckpt"))
    return {"parameters": parameters, "megabytes": size / 1e6}


def command(argv: Sequence[str]) -> str:
    """A command line; of absolute paths in it, the last part.

    Example
    -------
    >>> command(["/opt/bin/amnet", "evaluate", "--data_folder=/data/an4/"])
    'amnet evaluate --data_folder=an4'
    """
    words = [Path(argv[0]).name]
    for word in argv[1:]:
        name, equals, value = word.rpartition("=")
        if Path(value).is_absolute():
            value = Path(value).name
        words.append(name + equals + value)
    return " ".join(words)


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(v) for name, v in value.items()}
    if isinstance(value, list):
        return [_rounded(v) for v in value]
    if isinstance(value, float):  # NumPy's too
        return round(float(value), 6)
    return value


# Writing -------------------------------------------------------------------


def write(
    folder: Path,
    split: str,
    results: dict[str, Any],
    utterances: Sequence[dict[str, Any]],
    asr: AmortizedASR,
) -> None:
    """Write the results, utterances and frames, each aside and renamed."""
    encoder = asr.mods.encoder
    table, frames = io.StringIO(), io.StringIO()
    lines = [
        _utterance_row(u, encoder.dense_flops, encoder.router.branches)
        for u in utterances
    ]
    writer = csv.DictWriter(table, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    for u in utterances:
        record = {
            "id": u["id"],
            "wav": u["wav"],
            "branch": "".join(str(k) for k in u["branch"]),
            "backlog_ms": [round(1000 * b, 1) for b in u["backlog"].tolist()],
            "tokens": u["tokens"],
            "frame_ms": round(1000 * encoder.frame_duration, 6),
        }
        frames.write(json.dumps(record, ensure_ascii=False) + "\n")
    # The results last: who finds them, finds the rest.
    files.write(folder / f"frames_{split}.jsonl", frames.getvalue())
    files.write(folder / f"utterances_{split}.csv", table.getvalue())
    files.write(
        results_path(folder, split), json.dumps(results, indent=2) + "\n"
    )


def results_path(folder: str | Path, split: str) -> Path:
    """Where the results of a split are."""
    name = "results.json" if split == "test" else f"results_{split}.json"
    return Path(folder) / name


def _utterance_row(u, dense_flops, branches):
    flops = u["flops"].mean()
    shares = np.bincount(u["branch"], minlength=branches) / len(u["branch"])
    return {
        "id": u["id"],
        "reference": u["reference"],
        "hypothesis": u["hypothesis"],
        "words": u["words"],
        **{kind: u[kind] for kind in KINDS},
        "seconds": round(u["seconds"], 6),
        "frames": len(u["branch"]),
        "mflops_per_frame": round(flops / 1e6, 6),
        "compute_saved": round(1 - flops / dense_flops, 6),
        "latency_ms": round(1000 * u["latency"], 3),
        "floor_ms": round(1000 * u["floor"], 3),
        **{f"share_{k}": round(s, 6) for k, s in enumerate(shares.tolist())},
    }


# Telling -------------------------------------------------------------------


def table(results: Sequence[dict[str, Any]]) -> str:
    """The main figures of some results, one column each."""
    rows = [
        ("", [f"{r['data']} {r['split']}" for r in results]),
        ("word errors, %", [f"{r['wer']:.2f}" for r in results]),
        (
            "  95 % interval",
            ["{:.1f} - {:.1f}".format(*r["wer_interval"]) for r in results],
        ),
        ("  all branches mixed", [_show(r["soft_wer"], 2) for r in results]),
        ("MFLOPs a frame", [f"{r['mflops_per_frame']:.3f}" for r in results]),
        (
            "compute saved, %",
            [f"{100 * r['compute_saved']:.1f}" for r in results],
        ),
        (
            "frames on each branch, %",
            [
                " ".join(f"{100 * s:.0f}" for s in r["branch_shares"])
                for r in results
            ],
        ),
        (
            "sharp decisions, %",
            [f"{100 * r['sharp_share']:.2f}" for r in results],
        ),
        *(
            (
                f"latency, {name.replace('_', ' ')}, ms",
                [f"{r['latency_ms'][name]:.1f}" for r in results],
            )
            for name in ("mean", "p50", "p90", "max", "floor")
        ),
        (
            "after the last word, ms",
            [_show((r["last_word_ms"] or {}).get("mean"), 0) for r in results],
        ),
        (
            "real-time factor",
            [_show(r["real_time_factor"], 3) for r in results],
        ),
        ("peak memory, MB", [_show(r["peak_memory_mb"], 0) for r in results]),
    ]
    rows = [row for row in rows if any(value != "-" for value in row[1])]
    width = max(len(value) for _, values in rows for value in values)
    return "\n".join(
        f"{name:26}" + "".join(f"  {value:>{width}}" for value in values)
        for name, values in rows
    )


def _show(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def sentence(results: dict[str, Any]) -> str:
    """The results of a split, in one sentence."""
    low, high = results["wer_interval"]
    waits, device = results["latency_ms"], results["device"]
    return (
        f"{results['data']} {results['split']}: {results['wer']:.1f} % word "
        f"errors ({low:.1f} to {high:.1f}) in {results['words']} words, with "
        f"{100 * results['compute_saved']:.0f} % less computation than the "
        f"dense encoder, and {waits['mean']:.0f} ms of latency (floor "
        f"{waits['floor']:.0f} ms) {on_device(**device)}."
    )


def on_device(load: float | None, flops_per_second: float) -> str:
    """The device that latencies are reckoned for, in words.

    Example
    -------
    >>> on_device(2.0, 1.5e8)
    'on a device where a dense frame takes 2 times its duration'
    """
    if load is None:
        return f"on a device of {flops_per_second / 1e6:.0f} MFLOP/s"
    return f"on a device where a dense frame takes {load:g} times its duration"


if __name__ == "__main__":
    print(json.dumps(_stream_here(*sys.argv[1:])))
