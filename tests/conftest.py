"""What all tests share: one thread, fixed seeds, the folders of real speech."""

import os
import sys
from pathlib import Path

# Before torch is imported: tests run side by side, one thread each.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def root() -> Path:
    """The repository's root folder."""
    return ROOT


@pytest.fixture(autouse=True)
def fixed_seed():
    """Same random numbers for each test, alone or among others."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


def corpus_folder(variable: str) -> Path:
    folder = os.environ.get(variable)
    if not folder:
        pytest.skip(f"{variable} does not name a folder of real speech")
    if not Path(folder).is_dir():
        pytest.fail(f"{variable}={folder}: no such folder")
    return Path(folder)


@pytest.fixture
def an4() -> Path:
    """The AN4 corpus."""
    return corpus_folder("AMNET_AN4")


@pytest.fixture
def coffee() -> Path:
    """The coffee commands corpus."""
    return corpus_folder("AMNET_COFFEE")


@pytest.fixture
def digits() -> Path:
    """The spoken digits corpus."""
    return corpus_folder("AMNET_DIGITS")
