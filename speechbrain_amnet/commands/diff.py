"""`amnet diff`: files that turn a deployed model into the next one."""

import argparse
from pathlib import Path
from typing import Any

from speechbrain_amnet.commands import arguments


def add(subparsers: Any) -> None:
    """Declares `amnet diff` and its own subcommands."""
    parser = subparsers.add_parser(
        "diff", help="update a deployed model by a small file, and undo it"
    )
    actions = parser.add_subparsers(
        title="actions", metavar="ACTION", required=True
    )
    inspect = actions.add_parser("inspect", help="what a diff changes")
    inspect.add_argument("file", metavar="DIFF", type=Path)
    inspect.set_defaults(run=run_inspect)

    apply = actions.add_parser("apply", help="update a model")
    add_folder(
        apply,
        "the model: an output folder, a model's folder, or what `amnet pack` "
        "wrote",
    )
    apply.add_argument("file", metavar="DIFF", type=Path)
    apply.add_argument(
        "--out",
        metavar="FOLDER",
        type=Path,
        help="the new model's folder, or file; without it a folder that "
        "`apply` made is updated itself",
    )
    apply.add_argument(
        "--keep",
        metavar="N",
        type=int,
        help="undo the last N updates only (default: all of them)",
    )
    apply.set_defaults(run=run_apply)

    undo = actions.add_parser("undo", help="put the weights back")
    add_folder(undo, "a folder that `apply` made")
    undo.set_defaults(run=run_undo)

    squash = actions.add_parser(
        "squash", help="several diffs as one, for a device that missed some"
    )
    add_folder(squash, "the model that the first diff is for")
    squash.add_argument("files", metavar="DIFF", nargs="+", type=Path)
    squash.add_argument("--out", metavar="FILE", type=Path, required=True)
    squash.set_defaults(run=run_squash)

    touched = actions.add_parser(
        "map", help="draw which weights each update of a chain changes"
    )
    touched.add_argument("files", metavar="DIFF", nargs="+", type=Path)
    touched.add_argument(
        "--out", metavar="FILE", type=Path, default=Path("touched.png")
    )
    touched.set_defaults(run=run_map)

    table = actions.add_parser("table", help="compare updates")
    table.add_argument(
        "records",
        metavar="RESULTS",
        nargs="+",
        type=Path,
        help="folders of updates, or files with records of them",
    )
    arguments.add_markdown(table)
    table.add_argument(
        "--publish", metavar="FILE", type=Path, help="write all records there"
    )
    table.add_argument(
        "--plot",
        metavar="FILE",
        type=Path,
        help="draw them, as a PNG file (default: updates.png in the first "
        "folder that is given, if all are of one data set)",
    )
    table.set_defaults(run=run_table)

    page = actions.add_parser(
        "page", help="an HTML page of updates: figures, plots, what they touch"
    )
    page.add_argument(
        "records",
        metavar="RESULTS",
        nargs="+",
        type=Path,
        help="folders of updates, or files with records of them",
    )
    page.add_argument(
        "--out", metavar="FILE", type=Path, default=Path("updates.html")
    )
    page.set_defaults(run=run_page)


def add_folder(parser, what):
    """FOLDER: a model."""
    parser.add_argument("folder", metavar="FOLDER", type=Path, help=what)


def run_inspect(args: argparse.Namespace) -> None:
    """Prints what a diff changes, and what its bytes are for."""
    from speechbrain_amnet.diff.coding import entropy_bits
    from speechbrain_amnet.diff.file import parts_of, plain, read_diff

    diff = read_diff(args.file)
    size = args.file.stat().st_size
    width = max((len(plain(name)) for name in diff.changes), default=0)
    print(f"{'tensor':{width}}  kind      shape          changed  bits")
    weights, drawn = 0, 0.0
    for name, change in diff.changes.items():
        weights += change.size
        where = change.positions if change.sparse else None
        count = change.size if where is None else len(where)
        drawn += entropy_bits(count, change.size) / 8
        shape = "x".join(map(str, change.shape))
        bits = bits_of(change.values[0].stored)
        print(
            f"{plain(name):{width}}  {change.kind:8}  {shape:12}  "
            f"{100 * count / max(1, change.size):6.2f} %  {bits:4}"
        )
    for key, value in diff.about.items():
        print(f"{plain(key)}: {plain(str(value))}")
    parts = {part: len(some) for part, some in parts_of(diff).items()}
    told = ", ".join(f"{part} {count:,}" for part, count in parts.items())
    print(f"bytes: {told}")
    if "positions" in parts and drawn:
        print(
            f"positions: {parts['positions'] / drawn:.3f} times the "
            f"{drawn:,.0f} bytes that as many drawn ones need at least"
        )
    print(f"base:   {diff.base}\nresult: {diff.result}")
    print(
        f"{size:,} bytes for {weights:,} weights in {len(diff.changes)} "
        f"tensors: {100 * size / max(1, 4 * weights):.2f} % of their 32 bits"
    )


def bits_of(stored):
    """Of a value; steps are in bytes, whatever their number."""
    if stored.dtype.kind == "f":
        return 8 * stored.itemsize
    return 1 + int(abs(stored.astype(int)).max()).bit_length()


def run_apply(args: argparse.Namespace) -> None:
    """Updates a model."""
    if args.folder.is_file():
        apply_to_file(args)
        return
    from speechbrain_amnet.diff.folder import (
        apply_update,
        deployed,
        history,
    )

    # The version in use is gone afterwards; the folder around it is not.
    folder = args.out or deployed(args.folder)
    entry = apply_update(args.folder, args.file, args.out, args.keep)
    print(
        f"{args.out or args.folder} has its update {len(history(folder))}, "
        f"{entry['diff']} of {entry['bytes']:,} bytes; to undo it "
        f"{entry['undo_bytes']:,} bytes are kept"
    )


def apply_to_file(args: argparse.Namespace) -> None:
    """Updates a packed model, without PyTorch."""
    from speechbrain_amnet.runtime.updating import update_packed

    if args.out is None or args.keep is not None:
        raise ValueError(
            f"{args.folder} is a packed model: give the new file as --out, and "
            "no --keep; the old file is what undoes the update"
        )
    entry = update_packed(args.folder, args.file, args.out)
    print(
        f"{args.out} is {args.folder} with {entry['diff']} of "
        f"{entry['bytes']:,} bytes"
    )


def run_undo(args: argparse.Namespace) -> None:
    """Puts the weights back."""
    from speechbrain_amnet.diff.folder import deployed, history, undo_update

    folder = deployed(args.folder)
    entry = undo_update(folder)
    print(
        f"{args.folder} is as it was before {entry['diff']}; it has "
        f"{len(history(folder))} updates"
    )


def run_squash(args: argparse.Namespace) -> None:
    """Makes one diff of several, and says which way is smaller."""
    from speechbrain_amnet.diff.file import read_diff, write_diff
    from speechbrain_amnet.diff.model_files import ModelFiles
    from speechbrain_amnet.diff.squash import squash
    from speechbrain_amnet.files import check_name

    check_name(args.out)
    if args.out.resolve() in [file.resolve() for file in args.files]:
        raise ValueError(
            f"--out {args.out} is one of the diffs; give another file"
        )
    model = ModelFiles(args.folder)
    diffs = [read_diff(file, model.weights) for file in args.files]
    one = squash(diffs, model)
    size = write_diff(one, args.out)
    each = sum(file.stat().st_size for file in args.files)
    whole = [
        name
        for diff in diffs
        for name, change in diff.changes.items()
        if not change.sparse
    ]
    if whole:
        print(f"{whole[0]} changes everywhere, so all of its values are sent")
    better = "send it" if size < each else "send these"
    print(
        f"{args.out}: {size:,} bytes, the {len(diffs)} diffs {each:,}: {better}"
    )


def run_map(args: argparse.Namespace) -> None:
    """Draws the touched weights, and prints how much updates share."""
    from speechbrain_amnet.report.touched import (
        overlaps,
        plot_touched,
        read_touched,
    )

    updates = read_touched(args.files)
    for file, row in zip(args.files, overlaps(updates)):
        line = f"{file}: touches {100 * row['share']:.2f} % of the weights"
        if row["again"] is not None:
            line += (
                f", {100 * row['again']:.0f} % of them as the one before "
                f"({100 * row['chance']:.0f} % by chance)"
            )
        print(line)
    names = [file.name for file in args.files]
    print(f"Picture: {plot_touched(updates, names, args.out)}")


def run_table(args: argparse.Namespace) -> None:
    """Prints the table; writes records, table and picture where asked."""
    import json

    from speechbrain_amnet.files import write
    from speechbrain_amnet.report.markdown import update_markdown
    from speechbrain_amnet.report.updates import (
        markdown_table,
        plot_updates,
        read_updates,
        summarise_updates,
    )

    arguments.check_markdown(args)
    records = read_updates(args.records)
    rows = summarise_updates(records)
    table = markdown_table(rows)
    print(table)
    if args.publish:
        write(args.publish, json.dumps(records, indent=1) + "\n")
    if args.markdown:
        update_markdown(args.markdown, table, args.name)
    folder = next(filter(Path.is_dir, args.records), None)
    several = len({(row["task"], row["data"]) for row in rows}) > 1
    if args.plot or (folder and not several):
        picture = args.plot or folder / "updates.png"
        try:
            print(f"Picture: {plot_updates(rows, picture)}")
        except OSError as error:
            if args.plot:
                raise
            print(f"No picture: {error}")  # of others' folder


def run_page(args: argparse.Namespace) -> None:
    """Writes the page."""
    from speechbrain_amnet.report.updates_page import write_updates_page

    page = write_updates_page(args.records, args.out)
    print(f"Page: {page}; open it in a browser")
