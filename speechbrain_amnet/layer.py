"""An LSTM layer that has the weights of every branch."""

import re
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn
from torch.nn.utils.parametrize import type_before_parametrizations

from .weights import (
    Dense,
    LowRank,
    OtherBranchesError,
    Skip,
    Sparse,
    WeightForm,
)

KNOWN = (Dense, LowRank, Sparse, Skip)
CARRY = 4.0  # of a skip's forget and input gates: 98 % are kept, 2 % come in


class BranchedLayer(nn.Module):
    """One LSTM layer with the weights of every branch.

    Arguments
    ---------
    input_size : int
        Features of a frame.
    hidden_size : int
        Size of the state.
    branches : sequence of callables
        For each branch what makes a `WeightForm` from (rows, columns).
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        branches: Sequence[Callable[[int, int], WeightForm]],
    ):
        super().__init__()
        gates = 4 * hidden_size
        self.input = nn.ModuleList(_made(branches, gates, input_size))
        self.recurrent = nn.ModuleList(_made(branches, gates, hidden_size))
        self.bias = nn.ParameterList(torch.zeros(gates) for _ in branches)
        with torch.no_grad():
            for bias in self.bias:
                # Remember by default (Jozefowicz et al., 2015). Gate order:
                # cell, input, forget, output.
                bias[2 * hidden_size : 3 * hidden_size] = 1
        for branch in range(len(branches)):
            self._carry(branch)

    def flops(self, branch: int) -> int:
        """FLOPs of a frame on one branch."""
        return self.input[branch].flops + self.recurrent[branch].flops

    def project(self, x: torch.Tensor, branch: int) -> torch.Tensor:
        """The branch's input to the gates, ``[..., 4 * hidden_size]``."""
        *rest, last = reversed(self.input[branch].factors())
        for factor in rest:
            x = nn.functional.linear(x, factor)
        return nn.functional.linear(x, last, self.bias[branch])

    def project_mixed(
        self, x: torch.Tensor, shares: torch.Tensor
    ) -> torch.Tensor:
        """The branches' inputs to the gates, mixed.

        One product for all branches: each branch's share goes to the input of
        its left factor, which is thin, and not to its output, which is wide.

        Arguments
        ---------
        x : torch.Tensor
            ``[..., input_size]``
        shares : torch.Tensor
            ``[..., K]``

        Returns
        -------
        torch.Tensor
            ``[..., 4 * hidden_size]``
        """
        fronts, lefts = [shares], [torch.stack(list(self.bias), 1)]
        for form, share in zip(self.input, shares.split(1, -1), strict=True):
            left, *rights = form.factors()
            front = x * share
            for right in reversed(rights):
                front = nn.functional.linear(front, right)
            fronts.append(front)
            lefts.append(left)
        return nn.functional.linear(torch.cat(fronts, -1), torch.cat(lefts, 1))

    def start_from(
        self, source: int, target: int, layer: "BranchedLayer | None" = None
    ) -> None:
        """Give one branch the closest weights to another's.

        Arguments
        ---------
        source, target : int
            Branches.
        layer : BranchedLayer, optional
            Whose `source`, if not this layer's.
        """
        layer = layer or self
        with torch.no_grad():
            for theirs, mine in (
                (layer.input, self.input),
                (layer.recurrent, self.recurrent),
            ):
                matrix = theirs[source].factors()
                matrix = (
                    matrix[0] if len(matrix) == 1 else matrix[0] @ matrix[1]
                )
                mine[target].copy_from(matrix)
            self.bias[target].copy_(layer.bias[source])
        self._carry(target)

    @torch.no_grad()
    def _carry(self, branch: int) -> None:
        """Let a branch that reads nothing begin with handing its state on.

        With the biases of the dense branch it would forget it within frames.
        """
        if isinstance(self.input[branch], Skip):
            _, come, keep, _ = self.bias[branch].chunk(4)
            come.fill_(-CARRY)
            keep.fill_(CARRY)


def _made(branches, rows, columns):
    """A matrix of each form; an error names the branch."""
    forms = []
    for k, form in enumerate(branches):
        try:
            forms.append(form(rows, columns))
        except (TypeError, ValueError) as error:
            message = f"AmortizedEncoder: branches[{k}]: {error}"
            raise ValueError(message) from error
    return forms


def check_branches(
    ours: Mapping[str, torch.Tensor],
    theirs: Mapping[str, torch.Tensor],
    forms: Sequence[nn.Module] = (),
) -> None:
    """Refuse weights of other branches than the hparams say.

    Arguments
    ---------
    ours : Mapping
        The state dict of the encoder that was built from the hparams.
    theirs : Mapping
        The one that it is to take on.
    forms : sequence of nn.Module, optional
        The encoder's own form of each branch; its class names one that
        tensors alone do not tell.

    Raises
    ------
    OtherBranchesError
        If their branches are of other forms, sizes, or not as many.

    Example
    -------
    >>> bias = torch.zeros(8)
    >>> one = {"layers.0.bias.0": bias}
    >>> try:
    ...     check_branches(one, {**one, "layers.0.bias.1": bias})
    ... except OtherBranchesError as error:
    ...     print(error)
    encoder: 1 branches in the hparams, 2 in the weights
    """
    ours, theirs = branch_forms(ours), branch_forms(theirs)
    if len(ours) != len(theirs):
        raise OtherBranchesError(
            f"encoder: {len(ours)} branches in the hparams, {len(theirs)} in "
            "the weights"
        )
    for k, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        if one != other:
            if forms and not isinstance(forms[k], KNOWN):
                one = type_before_parametrizations(forms[k]).__name__
            raise OtherBranchesError(
                f"encoder: branches[{k}] is {one} in the hparams, {other} in "
                "the weights"
            )


def unwrapped(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A state dict by the names that it has without parametrizations.

    Example
    -------
    >>> wrapped = "layers.0.bias.parametrizations.1.original"
    >>> list(unwrapped({wrapped: torch.zeros(8)}))
    ['layers.0.bias.1']
    """
    inside = re.compile(r"parametrizations\.([^.]+)\.original$")
    return {
        inside.sub(r"\1", name): value
        for name, value in state.items()
        if "parametrizations." not in name or name.endswith(".original")
    }


def branch_forms(state: Mapping[str, torch.Tensor]) -> list[str]:
    """What the branches of an encoder's state dict are, in words.

    A state dict has no classes: forms that are not of this package are told by
    their tensors.

    Example
    -------
    >>> bias = torch.zeros(8)
    >>> branch_forms({"layers.0.bias.0": bias, "layers.0.bias.1": bias})
    ['Skip', 'Skip']
    """
    biases = [n for n in state if re.fullmatch(r"layers\.0\.bias\.\d+", n)]
    return [_form(state, k) for k in range(len(biases))]


def _form(state, branch):
    place = re.compile(rf"layers\.\d+\.(?:input|recurrent)\.{branch}\.(.+)")
    parts: dict[str, list[torch.Tensor]] = {}
    for name, value in state.items():
        if found := place.fullmatch(name):
            parts.setdefault(found[1], []).append(value)
    names = set(parts)
    if names == {"weight", "mask", "budget", "kept"}:
        size = sum(weight.numel() for weight in parts["weight"])
        kept = sum(float(budget) for budget in parts["budget"])
        return f"Sparse, density {kept / size:.3g}"
    if names - {"kept"} == {"left", "right"}:
        by = " by energy, at most" if "kept" in names else ","
        return f"LowRank{by} rank {parts['left'][0].shape[1]}"
    if names == {"weight"}:
        return "Dense"
    return f"a form of {', '.join(sorted(names))}" if names else "Skip"
