"""Time and memory of applying an update, and of undoing it.

A model of random weights (by default of the size of the paper's encoder, 5
layers of 1024), a sparse diff of so much of its weights (0: a
hashed one, with a bucket for fifty of them), and `amnet diff
apply` and `undo` as a device runs them, each in a process of its own: seconds
from reading the model to the flushed and renamed folder, without the start of
Python and PyTorch, and the largest memory above what the model itself takes,
in units of its largest matrix. Before that, so much memory is touched and given
back: a virtual machine gets pages from its host one by one, which took up to a
second for 168 MB. The rival is reading the model and writing it to another
folder, flushed: the last line is the ratio of the times of `apply` and that.

    python benchmarks/diff_apply.py
    python benchmarks/diff_apply.py --size 256 --layers 3 --density 0.1
    python benchmarks/diff_apply.py --out FILE    # keeps the figures as JSON
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import numpy as np
import torch

from speechbrain_amnet.diff.changes import (
    Change,
    HashChange,
    SparseChange,
    Values,
)
from speechbrain_amnet.diff.file import make_diff, write_diff
from speechbrain_amnet.diff.model_files import ModelFiles
from speechbrain_amnet.report.figures import write_figures

ACTIONS = {
    "copy": "model = ModelFiles(a); Path(b).mkdir(); model.write(Path(b))",
    "apply": "apply_update(a, diff, b)",
    "apply in place": "apply_update(b, second)",
    "undo": "undo_update(b)",
}
COLUMNS = {"Action": 0, "Seconds": 2, "Memory, largest matrices": 1}
PROGRAM = """
import json, os, re, sys, time
from pathlib import Path
import numpy
from speechbrain_amnet.diff.folder import (
    ModelFiles, apply_update, undo_update,
)
a, b, diff, second = sys.argv[2:]
size = sum(path.stat().st_size for path in Path(a).iterdir())
child = os.fork()
if not child:
    numpy.ones(4 * size, "uint8")
    os._exit(0)
os.waitpid(child, 0)
# Not getrusage: what a process's parent needed counts as its own there.
status = lambda: Path("/proc/self/status").read_text()
peak = lambda: 1024 * int(re.search("VmHWM:\\s*(\\d+)", status())[1])
begin, start = peak(), time.perf_counter()
exec(sys.argv[1])
print(json.dumps([time.perf_counter() - start, peak() - begin]))
"""


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--layers", type=int, default=5)
    parser.add_argument("--density", type=float, default=0.03)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, help="a JSON file to write")
    parser.add_argument("--quick", action="store_true", help="a tiny trial")
    args = parser.parse_args()
    if args.quick:
        args.size, args.layers, args.repeats = 16, 2, 1
    with tempfile.TemporaryDirectory() as folder:
        report(args, Path(folder))


def report(args: argparse.Namespace, folder: Path) -> None:
    """Make model and diffs, measure, print."""
    model = make_model(folder / "model", args.size, args.layers)
    weights, largest = (
        f(array.nbytes for array in model.values()) for f in (sum, max)
    )
    rng = np.random.default_rng(0)
    changes = {
        name: change(rng, name, a, args.density) for name, a in model.items()
    }
    diffs = [folder / "1.diff", folder / "2.diff"]
    for path in diffs:
        diff = make_diff(changes, model)
        size = write_diff(diff, path)
        for name, one in diff.changes.items():
            model[name] = one.apply(model[name])
    print(
        f"{weights / 1e6:.1f} MB of weights, largest matrix "
        f"{largest / 1e6:.1f} MB, diff {size / 1e6:.2f} MB"
    )
    found: dict[str, list] = {action: [] for action in ACTIONS}
    for number in range(args.repeats):
        for action, code in ACTIONS.items():
            out = folder / ("copy" if action == "copy" else "new")
            found[action].append(
                measured(code, folder / "model", f"{out}{number}", *diffs)
            )
    print(f"{'':15}  seconds  memory above the model, in largest matrices")
    rows = []
    for action, runs in found.items():
        seconds, memory = (median(values) for values in zip(*runs))
        above = (memory - weights) / largest
        rows.append(dict(zip(COLUMNS, (action, seconds, above))))
        print(f"{action:15}  {seconds:7.3f}  {above:.1f}")
    times = [row["Seconds"] for row in rows]
    if args.out:
        write_figures(
            args.out,
            COLUMNS,
            rows,
            f"A model of {weights / 1e6:.0f} MB, its largest matrix "
            f"{largest / 1e6:.0f} MB, a diff of {size / 1e6:.2f} MB; medians "
            f"of {args.repeats}.",
        )
    print(f"ratio: {times[1] / times[0]:.2f}")


def make_model(folder: Path, size: int, layers: int) -> ModelFiles:
    """The folder of a model of random weights."""
    folder.mkdir()
    lstm = torch.nn.LSTM(size, size, layers)
    torch.save(lstm.state_dict(), folder / "encoder.ckpt")
    return ModelFiles(folder)


def change(rng, name: str, array: np.ndarray, density: float) -> Change:
    """Some positions change, or all."""
    if density == 0:
        buckets = rng.normal(size=-(-array.size // 50))
        return HashChange(array.shape, Values.rounded(buckets, 8), 0, name)
    count = max(1, round(density * array.size))
    where = None
    if count < array.size:
        where = np.sort(rng.choice(array.size, count, replace=False))
    return SparseChange(
        array.shape, where, Values.rounded(rng.normal(size=count), 4)
    )


def measured(code: str, *arguments) -> list[float]:
    """Seconds and bytes of one run."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, code, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


if __name__ == "__main__":
    main()
