"""Weights from a file into a module, where every name must fit."""

from collections.abc import Mapping
from pathlib import Path

import torch
from sentencepiece import SentencePieceProcessor

from .checkpoints import first_sentence
from .encoder import AmortizedEncoder
from .layer import branch_forms


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
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no such file: {path}")
    try:
        if isinstance(target, SentencePieceProcessor):
            target.load(str(path))
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
            if isinstance(target, AmortizedEncoder):
                check_branches(target, state)
            target.load_state_dict(state)
    except Exception as error:  # what a broken file makes of its reader
        raise WeightsError(
            f"{path}: not the weights of {type(target).__name__} "
            f"({first_sentence(error)})"
        ) from error


def check_branches(
    encoder: AmortizedEncoder, state: Mapping[str, torch.Tensor]
) -> None:
    """Refuse weights of other branches than the hparams say."""
    ours, theirs = branch_forms(encoder.state_dict()), branch_forms(state)
    if len(ours) != len(theirs):
        raise ValueError(
            f"encoder: {len(ours)} branches in the hparams, {len(theirs)} in "
            "the weights"
        )
    for k, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        if one != other:
            raise ValueError(
                f"encoder: branches[{k}] is {one} in the hparams, {other} in "
                "the weights"
            )
