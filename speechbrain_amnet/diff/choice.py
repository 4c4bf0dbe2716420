"""Which weights of a model a diff changes, and which it cannot."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

import torch
from torch import nn


def chosen_names(
    names: Sequence[str], include: Sequence[str], exclude: Sequence[str]
) -> list[str]:
    """Those that fit a pattern of the first and none of the second.

    Raises
    ------
    ValueError
        If a pattern fits no name, none is left, or it is no list.

    Example
    -------
    >>> chosen_names(["a.weight", "a.bias"], ["a.*"], ["*bias"])
    ['a.weight']
    """
    for key, patterns in (("include", include), ("exclude", exclude)):
        if isinstance(patterns, str):
            raise ValueError(
                f'{key}: expected a list of patterns, as ["{patterns}"], got '
                f"{patterns!r}"
            )
    if not names:
        raise ValueError("the model has no weights, so a diff has none")
    for pattern in (*include, *exclude):
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ValueError(
                f"no weight is called '{pattern}'; there are, for instance, "
                f"{', '.join(names[:5])}"
            )
    left = [
        name
        for name in names
        if any(fnmatchcase(name, pattern) for pattern in include)
        and not any(fnmatchcase(name, pattern) for pattern in exclude)
    ]
    if not left:
        raise ValueError("include and exclude leave no weight for a diff")
    return left


def check_type(name: str, weight: torch.Tensor) -> None:
    """Refuse a weight of a type that no file of a diff has."""
    if weight.dtype not in (torch.float32, torch.float16):
        raise ValueError(
            f"{name} is {weight.dtype}, and a diff is for float32 or float16; "
            "deploy the model as .float(), and update that"
        )


def scaled_by(name: str, model: nn.Module) -> nn.Module | None:
    """The layer that scales a weight in place at every call (`max_norm`)."""
    path, _, leaf = name.rpartition(".")
    if leaf != "weight":
        return None
    # SpeechBrain's layers have it, and PyTorch's inside of them the weight.
    for place in (path, path.rpartition(".")[0]):
        layer = model.get_submodule(place)
        if getattr(layer, "max_norm", None) is not None:
            return layer
    return None


def check_norm(name: str, model: nn.Module) -> None:
    """Refuse a weight that a layer scales in place.

    It would scale what is computed of base and diff once and then use what is
    computed anew. PyTorch's tables look up what they have scaled.
    """
    layer = scaled_by(name, model)
    if layer and not isinstance(layer, nn.Embedding | nn.EmbeddingBag):
        raise ValueError(
            f"{name}: its {type(layer).__name__} has max_norm="
            f"{layer.max_norm} and scales it in place, which a diff of it does "
            "not survive: exclude it, or build the layer without max_norm"
        )
