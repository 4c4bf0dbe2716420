"""Benchmarks run to their end and say their headline in the last line."""

import os
import re
import subprocess
import sys

import pytest

RIVALS = ("nn.LSTM", "K=1", "K=2")


@pytest.mark.parametrize(
    "name, contenders",
    [
        ("training_step", RIVALS),
        ("streaming_frame", RIVALS),
        ("runtime_frame", ("dense", "rank 2", "sparse 0.02")),
        ("runtime_frame --int8", ("dense", "rank 2", "sparse 0.02")),
    ],
)
def test_the_last_line_is_the_ratio(root, name, contenders):
    name, *options = name.split()
    program = root / "benchmarks" / f"{name}.py"
    done = subprocess.run(
        [sys.executable, program, "--quick", *options],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-1]
    assert re.fullmatch(r"ratio: \d+\.\d\d", last), done.stdout
    for contender in contenders:
        assert f"\n{contender}" in done.stdout
