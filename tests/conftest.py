"""What all tests share: one thread, fixed seeds, the folders of real speech."""

import os
import signal
import sys
from pathlib import Path

# Before torch is imported: tests run side by side, one thread each.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
# SpeechBrain lets a GPU round the factors of a float32 product to 10 bits;
# equalities to 1e-5 need all 23.
os.environ.setdefault("SB_DISABLE_QUIRKS", "allow_tf32")

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


@pytest.fixture(scope="session")
def tiny():
    """Makes the parts of a tiny network that chatters and switches branches."""

    def make(folder, texts, tags=(), tokens=30, **overrides):
        import torch

        from speechbrain_amnet.hparams import load_hparams, resolve_hparams
        from speechbrain_amnet.tokens import train_tokenizer

        amnet = ROOT / "hparams" / "amnet.yaml"
        overrides = {
            "data_folder": "nowhere",
            "output_folder": str(folder),
            "hidden_size": 40,
            "layers": 2,
            "predictor_size": 16,
            "joint_size": 16,
            "tokens": tokens,
            **overrides,
        }
        modules = load_hparams(amnet, overrides)["modules"]
        modules["features"].fit_statistics([0.1 * torch.randn(16000)])
        with torch.no_grad():
            modules["encoder"].router.out.weight.mul_(10)
            for name in ("encoder", "predictor", "joint"):
                for weight in modules[name].parameters():
                    weight.mul_(4)
            modules["joint"].output.bias[0] += 2
        tokenizer = folder / "save" / "tokenizer.model"
        train_tokenizer(texts, tokenizer, size=tokens, tags=tags)
        return resolve_hparams(amnet, overrides), modules, tokenizer

    return make


class Clock:
    """Time that passes when someone waits or works."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += max(seconds, 1e-4)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def clocks(clock):
    """What a live stream takes of it."""
    return {"clock": clock, "sleep": clock.sleep, "worked": clock}


TO_DISK = (
    "open",
    "os.mkdir",
    "os.rename",
    "os.symlink",
    "os.remove",
    "os.rmdir",
)


@pytest.fixture
def killed_at():
    """Kills work on files as a cut of the power may."""

    def killed_at(step, work):
        """Fork, kill the child at its n-th call of the system; was it?"""
        child = os.fork()
        if not child:
            seen = 0

            def count(event, arguments):
                nonlocal seen
                seen += event in TO_DISK
                if seen >= step and event in TO_DISK:
                    os.kill(os.getpid(), signal.SIGKILL)

            sys.addaudithook(count)
            code = 1
            try:
                work()
                code = 0
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            return True
        assert os.WEXITSTATUS(status) == 0
        return False

    return killed_at


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
