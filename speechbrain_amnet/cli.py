"""The command `amnet`: one function pair a subcommand, `add_X` and `run_X`.

`add_X(subparsers)` declares the arguments and sets `run=run_X`; `run_X(args)`
does the work and prints. A module adds its own subcommand by listing it in
`COMMANDS`. Whatever is slow to import (torch) is imported inside `run_X`.
"""

import argparse
import importlib
import importlib.metadata
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

RECIPES = Path(__file__).parent / "recipes"

# What of a recipe an installed package holds; setup.cfg has the same list.
SHIPPED = ("*.py", "*.md", "hparams/*.yaml")

# Functions that declare a subcommand, as `module:function`.
COMMANDS = (
    "speechbrain_amnet.cli:add_names",
    "speechbrain_amnet.cli:add_ls",
    "speechbrain_amnet.cli:add_cp",
    "speechbrain_amnet.cli:add_corpus",
    "speechbrain_amnet.cli:add_transcribe",
    "speechbrain_amnet.cli:add_evaluate",
    "speechbrain_amnet.cli:add_table",
    "speechbrain_amnet.cli:add_plot",
    "speechbrain_amnet.demo:add_demo",
)


def main(argv: list[str] | None = None) -> int:
    """Runs one subcommand; what a user can mend ends with one line.

    Arguments
    ---------
    argv : list of str, optional
        The words after `amnet`; the process's own by default.

    Returns
    -------
    int
        Exit code: 0, or 2 after an error. With `AMNET_DEBUG=1` in the
        environment errors are raised with their traceback instead.

    Example
    -------
    >>> main(["cp", "NoSuchRecipe", "mine"])
    2
    """
    args = build_parser().parse_args(argv)
    try:
        args.run(args)
    except BrokenPipeError:  # `amnet names | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        print("amnet: stopped", file=sys.stderr)
        return 130
    except Exception as error:
        if os.environ.get("AMNET_DEBUG") == "1" or not is_users(error):
            raise
        print(f"amnet: error: {one_line(error)}", file=sys.stderr)
        return 2
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The parser with every subcommand of `COMMANDS`.

    Example
    -------
    >>> build_parser().parse_args(["names"]).markdown
    False
    """
    parser = argparse.ArgumentParser(
        prog="amnet",
        description="Amortized networks for speech recognition.",
    )
    parser.add_argument(
        "--version", action="version", version=f"amnet {version()}"
    )
    subparsers = parser.add_subparsers(
        title="subcommands", metavar="COMMAND", required=True
    )
    for command in COMMANDS:
        module, _, function = command.partition(":")
        getattr(importlib.import_module(module), function)(subparsers)
    return parser


def version() -> str:
    """The installed version; `unknown` when run from a bare checkout."""
    try:
        return importlib.metadata.version("speechbrain-amnet")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def is_users(error: Exception) -> bool:
    """Whether a user can mend it: then a line says more than a traceback.

    Example
    -------
    >>> is_users(ValueError("epochs: expected 1 or more, got 0"))
    True
    """
    return isinstance(error, (ValueError, OSError, LookupError, ImportError))


def one_line(error: BaseException) -> str:
    """An error's message on one line, without the quotes of a KeyError.

    Example
    -------
    >>> one_line(KeyError("no such branch: 3"))
    'no such branch: 3'
    """
    message: Any = error
    if isinstance(error, LookupError) and len(error.args) == 1:
        message = error.args[0]
    return " ".join(str(message).split()) or type(error).__name__


# names ---------------------------------------------------------------------


def add_names(subparsers: Any) -> None:
    """Declares `amnet names`."""
    parser = subparsers.add_parser(
        "names", help="list the names that hparams files may use"
    )
    parser.add_argument(
        "--markdown", action="store_true", help="print the reference page"
    )
    parser.set_defaults(run=run_names)


def run_names(args: argparse.Namespace) -> None:
    """Prints the catalogue."""
    from speechbrain_amnet import catalogue

    text = catalogue.markdown() if args.markdown else catalogue.plain()
    print(text, end="")


# ls, cp --------------------------------------------------------------------


def add_ls(subparsers: Any) -> None:
    """Declares `amnet ls`."""
    parser = subparsers.add_parser(
        "ls", help="list the recipes and hparams files that can be copied"
    )
    parser.set_defaults(run=run_ls)


def run_ls(args: argparse.Namespace) -> None:
    """Prints each file that `amnet cp` can copy."""
    for file in shipped_files(RECIPES):
        print(file)


def add_cp(subparsers: Any) -> None:
    """Declares `amnet cp`."""
    parser = subparsers.add_parser(
        "cp",
        help="copy a recipe, or one of its files, into a folder of your own",
    )
    parser.add_argument(
        "recipe",
        metavar="RECIPE",
        help="a name as `amnet ls` prints it: LibriSpeech for all of its "
        "files, or LibriSpeech/hparams/amnet.yaml for one",
    )
    parser.add_argument(
        "dest", metavar="DEST", type=Path, help="the new folder, or file"
    )
    parser.add_argument(
        "--force", action="store_true", help="overwrite files that exist"
    )
    parser.set_defaults(run=run_cp)


def run_cp(args: argparse.Namespace) -> None:
    """Copies a recipe's files, or one of them; refuses to overwrite."""
    for target in copy_recipe(args.recipe, args.dest, args.force):
        print(target)


def shipped_files(folder: Path) -> list[str]:
    """What can be copied, relative to the folder of all recipes.

    Arguments
    ---------
    folder : Path
        The folder that holds the recipes' folders.

    Returns
    -------
    list of str
        Sorted, for instance `LibriSpeech/train.py`.

    Example
    -------
    >>> shipped_files(Path("no/such/folder"))
    []
    """
    return sorted(
        path.relative_to(folder).as_posix()
        for pattern in SHIPPED
        for path in folder.glob(f"*/{pattern}")
    )


def copy_recipe(name: str, dest: Path, force: bool = False) -> list[Path]:
    """Copies the recipe `name`, or one file of it, to `dest`.

    Arguments
    ---------
    name : str
        A recipe (`LibriSpeech`) or a file as `amnet ls` prints it.
    dest : Path
        The new folder, or for a single file the new file, or a folder that
        exists.
    force : bool
        Whether files that exist are overwritten.

    Returns
    -------
    list of Path
        The files written.

    Raises
    ------
    FileNotFoundError
        If there is no such recipe or file.
    FileExistsError
        If a file is in the way; then nothing is written.

    Example
    -------
    >>> copy_recipe("NoSuchRecipe", Path("mine"))
    Traceback (most recent call last):
    ...
    FileNotFoundError: no such recipe: NoSuchRecipe (see `amnet ls`)
    """
    name = name.strip("/")
    files = shipped_files(RECIPES)
    if name in files:
        target = dest / Path(name).name if dest.is_dir() else dest
        pairs = [(RECIPES / name, target)]
    else:
        pairs = [
            (RECIPES / file, dest / Path(file).relative_to(name))
            for file in files
            if file.startswith(f"{name}/")
        ]
    if not pairs:
        raise FileNotFoundError(f"no such recipe: {name} (see `amnet ls`)")

    in_the_way = [target for _, target in pairs if target.exists()]
    if in_the_way and not force:
        raise FileExistsError(
            f"{in_the_way[0]} exists already; give another place, or --force"
        )
    for source, target in pairs:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    return [target for _, target in pairs]


# corpus --------------------------------------------------------------------


def add_corpus(subparsers: Any) -> None:
    """Declares `amnet corpus`."""
    parser = subparsers.add_parser(
        "corpus",
        help="make the built-in spoken corpus, in LibriSpeech layout",
    )
    parser.add_argument(
        "out", metavar="OUT", type=Path, help="the corpus's folder"
    )
    parser.add_argument(
        "--minutes",
        type=float,
        default=60,
        help="speech to make, in minutes (default: %(default)s)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="the same seed makes the same corpus (default: %(default)s)",
    )
    parser.set_defaults(run=run_corpus)


def run_corpus(args: argparse.Namespace) -> None:
    """Makes the corpus, or says that it is there already."""
    from speechbrain_amnet.corpus.spoken import make_spoken_corpus

    make_spoken_corpus(args.out, minutes=args.minutes, seed=args.seed)
    print(args.out)


# table, plot ---------------------------------------------------------------


def add_table(subparsers: Any) -> None:
    """Declares `amnet table`."""
    parser = subparsers.add_parser(
        "table", help="compare runs in a table, made from their results"
    )
    parser.add_argument(
        "folders",
        metavar="FOLDER",
        nargs="+",
        type=Path,
        help="a run, a folder of runs or of published results, or a results "
        "file",
    )
    parser.add_argument(
        "--markdown",
        metavar="FILE",
        type=Path,
        help="put the table into this Markdown file, between the lines "
        "`<!-- table: NAME -->` and `<!-- end -->`",
    )
    parser.add_argument("--name", help="of the table in the Markdown file")
    parser.add_argument(
        "--csv", metavar="FILE", type=Path, help="write the table as CSV too"
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="write nothing; exit 1 if the Markdown file's table is stale",
    )
    parser.set_defaults(run=run_table)


def run_table(args: argparse.Namespace) -> None:
    """Prints the table; puts it into files, or compares it with theirs."""
    from speechbrain_amnet.report import table

    if (args.markdown is None) != (args.name is None):
        raise ValueError("--markdown FILE and --name NAME go together")
    if args.check and args.markdown is None:
        raise ValueError("--check needs --markdown FILE --name NAME")
    rows = table.summarise(table.read_results(args.folders))
    text = table.markdown_text(rows)
    print(text)
    if args.csv and not args.check:
        table.write(args.csv, table.csv_table(rows))
    if args.markdown:
        stale = table.update_markdown(
            args.markdown, text, args.name, check=args.check
        )
        if stale and args.check:
            raise SystemExit(
                f"amnet: table {args.name} in {args.markdown} is stale; run "
                "the same command without --check"
            )


def add_plot(subparsers: Any) -> None:
    """Declares `amnet plot`."""
    parser = subparsers.add_parser(
        "plot", help="draw utterances, the trade-off and the training of runs"
    )
    parser.add_argument(
        "folders",
        metavar="RUN_FOLDER",
        nargs="+",
        type=Path,
        help="a run, finished or in training, or a folder of runs or of "
        "published results",
    )
    parser.add_argument(
        "--out",
        metavar="FOLDER",
        type=Path,
        help="for all pictures (default: each run's own folder)",
    )
    parser.set_defaults(run=run_plot)


def run_plot(args: argparse.Namespace) -> None:
    """Draws all that there is to draw, and names the pictures."""
    from speechbrain_amnet.report.plots import plot_runs

    for picture in plot_runs(args.folders, args.out):
        print(picture)


# transcribe, evaluate ------------------------------------------------------


def add_transcribe(subparsers: Any) -> None:
    """Declares `amnet transcribe`."""
    parser = subparsers.add_parser(
        "transcribe", help="stream recordings through a trained model"
    )
    parser.add_argument(
        "folder",
        metavar="FOLDER",
        type=Path,
        help="the output folder of a training, or the model folder in it",
    )
    parser.add_argument(
        "wavs", metavar="WAV", nargs="+", type=Path, help="recordings"
    )
    parser.add_argument(
        "--frames",
        action="store_true",
        help="one line a frame, with its branch and the backlog it finds",
    )
    parser.add_argument(
        "--chunk-ms",
        type=float,
        default=40,
        help="audio that arrives at once, in ms (default: %(default)s)",
    )
    parser.add_argument(
        "--load",
        type=float,
        help="frame durations that a dense frame takes on the device "
        "(default: as in training)",
    )
    parser.set_defaults(run=run_transcribe)


def run_transcribe(args: argparse.Namespace) -> None:
    """Prints words as they come, and what they cost."""
    import torch

    from speechbrain_amnet.evaluation import on_device
    from speechbrain_amnet.inference import load

    torch.set_num_threads(1)
    asr = load(args.folder, args.load, run_opts={"device": "cpu"})
    encoder, device = asr.mods.encoder, asr.mods.encoder.target_device
    seconds = spent = flops = frames = 0.0
    waits = []
    for wav in args.wavs:
        audio = asr.load_audio(wav)
        if len(args.wavs) > 1:
            print(f"{wav}:")
        start = time.perf_counter()
        last = None
        for text, routing, first in stream(asr, audio, args.chunk_ms):
            if args.frames:
                print_frames(text, routing, first, encoder.frame_duration)
            else:
                print(text, end="", flush=True)
            if routing is not None:
                flops += routing.flops.sum().item()
                frames += routing.flops.numel()
                last = routing
        spent += time.perf_counter() - start
        print(end="" if args.frames else "\n")
        seconds += len(audio) / asr.mods.features.sample_rate
        waits.append((last.backlog + last.time)[0, -1].item())
    speed = device.speed(encoder.dense_flops, encoder.frame_duration)
    print(
        f"{seconds:.1f} s of audio in {spent / seconds:.2f} times its duration;"
        f" {100 * (1 - flops / frames / encoder.dense_flops):.0f} % of the "
        f"dense encoder's computation saved; encoded "
        f"{1000 * sum(waits) / len(waits):.0f} ms after the last sample "
        f"{on_device(device.load, speed)}."
    )


def stream(asr: Any, audio: Any, chunk_ms: float) -> Any:
    """Yields for each chunk its text, routing, and the first frame's index."""
    context = asr.make_streaming_context()
    chunks = asr.chunks(audio, chunk_ms)
    first = 0
    for text in asr.transcribe_stream(chunks, context=context):
        yield text, context.encoder_context.routing, first
        first = context.encoder_context.first


def print_frames(
    text: str, routing: Any, first: int, frame_duration: float
) -> None:
    """One line a frame; the text of a chunk stands at its last frame."""
    lines = []
    if routing is not None:
        for n, (branch, backlog) in enumerate(
            zip(routing.choice[0].tolist(), routing.backlog[0].tolist())
        ):
            lines.append(
                f"{(first + n) * frame_duration:7.2f} s  branch {branch}  "
                f"backlog {1000 * backlog:5.0f} ms"
            )
    if text:
        lines[-1] += f"  {text}"
    for line in lines:
        print(line, flush=True)


def add_evaluate(subparsers: Any) -> None:
    """Declares `amnet evaluate`."""
    parser = subparsers.add_parser(
        "evaluate", help="measure a trained model on data with transcripts"
    )
    parser.add_argument(
        "folder",
        metavar="FOLDER",
        type=Path,
        help="the output folder of a training, or the model folder in it",
    )
    parser.add_argument(
        "--data_folder",
        "--data-folder",
        required=True,
        type=Path,
        help="data in LibriSpeech layout",
    )
    parser.add_argument(
        "--split",
        action="append",
        help="a split's folder; may be repeated (default: test)",
    )
    parser.add_argument(
        "--data", help="name of the data (default: of its folder)"
    )
    parser.add_argument(
        "--soft",
        action="store_true",
        help="also the word errors with all branches mixed",
    )
    parser.add_argument(
        "--load",
        type=float,
        help="frame durations that a dense frame takes on the device "
        "(default: as in training)",
    )
    parser.add_argument(
        "--resample",
        action="store_true",
        help="accept audio of another sample rate",
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="where results are written (default: FOLDER; for other data or "
        "another device than the training's, a folder in it)",
    )
    parser.set_defaults(run=run_evaluate)


def run_evaluate(args: argparse.Namespace) -> None:
    """Prints the table of the splits, and a sentence for each."""
    from speechbrain_amnet import evaluation

    results = evaluation.evaluate_folder(
        args.folder,
        args.data_folder,
        args.split or ["test"],
        args.load,
        data=args.data,
        resample=args.resample,
        out=args.out,
        soft=args.soft,
    )
    print(evaluation.table(results))
    for result in results:
        print(evaluation.sentence(result))


if __name__ == "__main__":
    sys.exit(main())
