"""DiffLinear: a diff as an adapter of SpeechBrain's AdaptedModel."""

from collections.abc import Callable

import torch
from torch import nn

from speechbrain_amnet.diff.sparse import SparseDiff
from speechbrain_amnet.diff.weights import WeightDiff


class DiffLinear(nn.Module):
    """A frozen linear layer and a diff of its matrix.

    What `AdaptedModel` takes as `adapter_class`. Weight and bias keep their
    names in the state dict. `AdaptedModel` saves parameters alone: a
    `SparseDiff` that keeps positions is saved and loaded by `state_dict`, and
    refuses the other. For layers that are not linear, and to write an update's
    file, use `DiffModel`.

    Arguments
    ---------
    target_linear : nn.Linear
        The layer to wrap; its parameters are frozen.
    diff : callable
        Makes a `WeightDiff` of (weight, name).
    name : str
        The weight's name in the diff's file, part of a `HashDiff`'s hash.

    Raises
    ------
    ValueError
        If the layer is not linear.

    Example
    -------
    >>> from speechbrain.nnet.adapters import AdaptedModel
    >>> net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> adapted = AdaptedModel(net, DiffLinear, all_linear=True)
    >>> adapted(torch.zeros(5, 4)).shape
    torch.Size([5, 2])
    >>> [n for n, p in adapted.named_parameters() if p.requires_grad]
    ['adapted_model.0.diff.dense', 'adapted_model.2.diff.dense']
    """

    def __init__(
        self,
        target_linear: nn.Linear,
        diff: Callable[[torch.Tensor, str], WeightDiff] = SparseDiff,
        name: str = "weight",
    ):
        super().__init__()
        if not isinstance(target_linear, nn.Linear):
            raise ValueError(
                "DiffLinear: expected a linear layer, got "
                f"{type(target_linear).__name__}; DiffModel takes any."
            )
        target_linear.requires_grad_(False)
        self.weight, self.bias = target_linear.weight, target_linear.bias
        self.diff = diff(self.weight, name)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[..., inputs] -> [..., outputs]``, with the updated matrix."""
        return nn.functional.linear(x, self.diff(self.weight), self.bias)
