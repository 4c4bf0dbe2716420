"""Benchmarks run to their end and say their headline in the last line."""

import os
import re
import subprocess
import sys

import pytest


@pytest.mark.parametrize("name", ["training_step", "streaming_frame"])
def test_the_last_line_is_the_ratio(root, name):
    done = subprocess.run(
        [sys.executable, root / "benchmarks" / f"{name}.py", "--quick"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-1]
    assert re.fullmatch(r"ratio: \d+\.\d\d", last), done.stdout
    for contender in ("nn.LSTM", "K=1", "K=2"):
        assert f"\n{contender}" in done.stdout
