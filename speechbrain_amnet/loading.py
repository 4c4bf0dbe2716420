"""Weights from a file into a module, where every name must fit."""

from pathlib import Path

import torch
from sentencepiece import SentencePieceProcessor

from .checkpoints import first_sentence


class WeightsError(ValueError):
    """A file does not hold the weights that the hparams ask for."""


def load_weights(
    target: torch.nn.Module | SentencePieceProcessor, path: str | Path
) -> None:
    """Load a file into a module or tokenizer; every name must fit.

    SpeechBrain's own hook only warns when names differ.

    Arguments
    ---------
    target : torch.nn.Module or sentencepiece.SentencePieceProcessor
        Changed in place.
    path : str or Path
        The file.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    WeightsError
        If it does not hold what the target needs.

    Example
    -------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp(), "one.ckpt")
    >>> one, other = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    >>> torch.save(one.state_dict(), file)
    >>> load_weights(other, file)
    >>> torch.equal(one.weight, other.weight)
    True
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no such file: {path}")
    try:
        if isinstance(target, SentencePieceProcessor):
            target.load(str(path))
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
            target.load_state_dict(state)
    except Exception as error:  # what a broken file makes of its reader
        raise WeightsError(
            f"{path}: not the weights of {type(target).__name__} "
            f"({first_sentence(error)})"
        ) from error
