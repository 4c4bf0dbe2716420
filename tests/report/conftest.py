"""Runs made by hand: what an evaluated run leaves, in small."""

import csv
import json
import re
import shutil
import subprocess
import wave

import matplotlib.colors
import matplotlib.image
import numpy as np
import pytest

WORDS = "LIGHTS ON IN THE KITCHEN PLEASE SET A TIMER FOR TEN MINUTES".split()
FRAME_MS = 40
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
LOAD = {0: 2.0, 1: 0.5}  # frame durations that a branch takes


def route(frames, period):
    """Every `period`-th frame dense; period 1 is the dense baseline."""
    return "".join("0" if t % period == 0 else "1" for t in range(frames))


def waits(branch):
    """Backlog that each frame finds, and how long it waits, in ms."""
    backlog, wait, now = [], [], 0.0
    for b in branch:
        backlog.append(now)
        wait.append(now + FRAME_MS * LOAD[int(b)])
        now = max(0.0, wait[-1] - FRAME_MS)
    return backlog, wait


def write_wav(path, seconds):
    time = np.arange(int(16000 * seconds)) / 16000
    samples = np.sin(2 * np.pi * 220 * time) * np.sin(2 * np.pi * time) ** 2
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes((8000 * samples).astype("<i2").tobytes())


def tokens_of(hypothesis, frames):
    """The letters, at even distances."""
    pieces = list("▁" + hypothesis.replace(" ", "▁"))
    step = (frames - 2) / len(pieces)
    return [[piece, int(1 + i * step)] for i, piece in enumerate(pieces)]


class Runs:
    """Makes runs below a folder."""

    def __init__(self, folder):
        self.folder = folder
        self.audio = folder / "audio"
        self.audio.mkdir()

    def make(
        self,
        experiment,
        seed=1,
        errors=(0, 1, 2, 0, 1),
        period=None,
        published=False,
        **changes,
    ):
        """One run, of as many utterances as numbers of errors are given."""
        period = period or (1 if experiment == "full" else 2)
        rows, lines = [], []
        for i, wrong in enumerate(errors):
            reference = WORDS[: 3 + 2 * i]
            hypothesis = reference[: len(reference) - wrong]
            frames = 25 * (i + 1)
            branch = route(frames, period)
            backlog, wait = waits(branch)
            sound = self.audio / f"u{i}.wav"
            if not sound.exists():
                write_wav(sound, frames * FRAME_MS / 1000)
            share = branch.count("0") / frames
            rows.append(
                {
                    "id": f"u{i}",
                    "reference": " ".join(reference),
                    "hypothesis": " ".join(hypothesis),
                    "words": len(reference),
                    "substitutions": 0,
                    "deletions": wrong,
                    "insertions": 0,
                    "seconds": frames * FRAME_MS / 1000,
                    "frames": frames,
                    "mflops_per_frame": 3.2 * share + 0.8 * (1 - share),
                    "compute_saved": 0.75 * (1 - share),
                    "latency_ms": wait[-1],
                    "floor_ms": wait[-1] - backlog[-1],
                    "share_0": share,
                    **({} if period == 1 else {"share_1": 1 - share}),
                }
            )
            lines.append(
                {
                    "id": f"u{i}",
                    "wav": str(sound),
                    "branch": branch,
                    "backlog_ms": backlog,
                    "wait_ms": wait,
                    "tokens": tokens_of(" ".join(hypothesis), frames),
                    "frame_ms": FRAME_MS,
                }
            )
        words = sum(row["words"] for row in rows)
        latency = np.array([row["latency_ms"] for row in rows])
        floor = np.array([row["floor_ms"] for row in rows])
        result = {
            "experiment": experiment,
            "data": "toy",
            "split": "test",
            "seed": seed,
            "wer": 100 * sum(errors) / words,
            "wer_interval": [1.0, 30.0],
            "words": words,
            "mflops_per_frame": 3.2 if period == 1 else 2.0,
            "compute_saved": 0.0 if period == 1 else 0.375,
            "branch_shares": [1.0] if period == 1 else [0.5, 0.5],
            "latency_ms": {
                "mean": latency.mean(),
                "p50": float(np.median(latency)),
                "p90": float(np.percentile(latency, 90)),
                "max": latency.max(),
                "floor": floor.mean(),
                "above_floor": (latency - floor).mean(),
            },
            "real_time_factor": 0.05,
            "device": {"load": 2.0, "flops_per_second": 4e7},
            "parameters": 1_500_000,
            "megabytes": 6.0,
            **changes,
        }
        if published:
            folder, name = self.folder / "published" / result["data"], ""
            name = table = f"{experiment}-{seed}"
        else:
            folder = self.folder / "runs" / experiment / str(seed)
            name, table = "results", f"utterances_{result['split']}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.json").write_text(json.dumps(result))
        with open(folder / f"{table}.csv", "w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        if not published:
            frames_file = folder / f"frames_{result['split']}.jsonl"
            frames_file.write_text("\n".join(map(json.dumps, lines)) + "\n")
        return folder / f"{name}.json" if published else folder


@pytest.fixture
def runs(tmp_path):
    return Runs(tmp_path)


@pytest.fixture
def train_log(tmp_path):
    """A training of six epochs; the fourth was trained again."""
    file = tmp_path / "train_log.txt"
    lines = []
    for epoch in (1, 2, 3, 4, 4, 5, 6):
        dense = 1.0 if epoch < 3 else 0.5
        lines.append(
            f"epoch: {epoch}, lr: 2.00e-03, temperature: {4.0**epoch:.2e}, "
            f"routing_weight: 0.00e+00 - train loss: {90 / epoch:.2f}, "
            f"train transducer: {60 / epoch:.2f}, train saved: -3.15e-03, "
            f"train entropy: {0.6 / epoch:.2e}, train branch_0: {dense:.2e}, "
            f"train branch_1: {1 - dense:.2e} - "
            f"valid loss: {80 / epoch:.2f}, "
            f"valid transducer: {len(lines) + 10:.2f}, "
            f"valid entropy: {0.5 / epoch:.2e}, valid branch_0: 4.50e-01, "
            f"valid branch_1: 5.50e-01, valid wer: {100 / epoch:.2f}"
        )
    file.write_text("\n".join(lines) + "\n")
    return file


@pytest.fixture
def errors():
    """Word errors of each experiment's seeds, in each utterance."""
    return {
        "full": [(0, 1, 2, 0, 1), (1, 1, 1, 0, 0)],
        "amnet": [(1, 1, 3, 0, 1)],
    }


@pytest.fixture
def published(runs, errors):
    """`full` with two seeds, `amnet` and two others with one."""
    for experiment, seeds in errors.items():
        for seed, wrong in enumerate(seeds, 1):
            runs.make(experiment, seed, wrong, published=True)
    runs.make("small", errors=(2, 2, 2, 2, 2), published=True)
    runs.make("energy", errors=(1, 2, 2, 2, 2), published=True)
    return runs.folder / "published"


@pytest.fixture
def picture():
    """Gives a picture's pixels, after a look that it is one and not blank."""

    def look(path):
        assert path.is_file() and not list(path.parent.glob("*.part"))
        pixels = matplotlib.image.imread(path)
        assert min(pixels.shape[:2]) > 300 and pixels.std() > 0.01
        return pixels

    return look


@pytest.fixture
def has_color():
    """Says whether so many pixels of a picture have a colour."""

    def look(pixels, color, least=1):
        wanted = np.array(matplotlib.colors.to_rgb(color))
        same = (np.abs(pixels[..., :3] - wanted) < 0.02).all(-1)
        return int(same.sum()) >= least

    return look


@pytest.fixture
def browse(tmp_path):
    """Opens a page in Chromium, and gives what that says of it."""
    if not BROWSER:
        pytest.skip("there is no Chromium here")

    def opened(page, *options):
        done = subprocess.run(
            [
                BROWSER,
                *("--headless", "--no-sandbox", "--disable-gpu"),
                *("--no-first-run", "--disable-background-networking"),
                "--autoplay-policy=no-user-gesture-required",
                f"--user-data-dir={tmp_path / 'profile'}",
                "--window-size=1000,1200",
                *options,
                page.as_uri(),
            ],
            check=True,
            capture_output=True,
            text=True,
            timeout=120,
        )
        return done.stdout

    return opened


@pytest.fixture
def data_of():
    """Reads the data that a page holds."""

    def read(page):
        found = re.findall(
            r'<script id="data" type="application/json">(.*?)</script>',
            page.read_text(encoding="utf-8"),
            re.S,
        )
        (text,) = found
        return json.loads(text)

    return read
