"""A weight's diff that is zero but at few positions."""

import torch
from torch import nn

from speechbrain_amnet.diff.changes import SparseChange
from speechbrain_amnet.diff.weights import WeightDiff


class _AddAt(torch.autograd.Function):
    """A tensor with values added at flat positions."""

    @staticmethod
    def forward(ctx, weight, values, positions):
        ctx.save_for_backward(positions)
        new = weight.clone(memory_format=torch.contiguous_format)
        new.view(-1)[positions] += values
        return new

    @staticmethod
    def backward(ctx, gradient):
        (positions,) = ctx.saved_tensors
        mine = None
        if ctx.needs_input_grad[1]:
            mine = gradient.reshape(-1)[positions]
        whole = gradient if ctx.needs_input_grad[0] else None
        return whole, mine, None


class _AddGated(torch.autograd.Function):
    """A tensor with a dense diff added behind its gate.

    One function, as autograd would keep five tensors of the weight's size.
    """

    @staticmethod
    def forward(ctx, weight, dense, beta, threshold, temperature):
        ctx.save_for_backward(dense)
        ctx.numbers = beta, threshold, temperature
        return (
            _gate(dense, threshold, temperature)
            .mul_(dense)
            .mul_(beta)
            .add_(weight)
        )

    @staticmethod
    def backward(ctx, gradient):
        (dense,) = ctx.saved_tensors
        beta, threshold, temperature = ctx.numbers
        whole = gradient if ctx.needs_input_grad[0] else None
        if not ctx.needs_input_grad[1]:
            return whole, None, None, None, None
        open_ = _gate(dense, threshold, temperature)
        # d(x s)/dx = s + |x| s (1 - s) temperature / threshold
        slope = torch.addcmul(open_, open_, open_, value=-1)
        # Far above the threshold the slope is none, whatever half precision
        # makes of the ratio.
        size = dense.abs().div_(threshold).clamp_(max=1e4)
        slope.mul_(size).mul_(temperature).add_(open_)
        return whole, slope.mul_(gradient).mul_(beta), None, None, None


def _gate(dense, threshold, temperature):
    """How far each entry is let through."""
    size = dense.abs().div_(threshold)
    return size.sub_(1).mul_(temperature).sigmoid_()


class SparseDiff(WeightDiff):
    """A diff that is zero but at few positions.

    It begins dense, at zero, and learns all of `D`. While it is pruned, a gate
    opens for the entries above a threshold, the sharper the higher its
    temperature (`gate`); or the best positions are found after that alone
    (`keep`). From then on nothing dense is left: `D` is its values at the
    kept positions.

    Source: Learning a Neural Diff for Speech Models, Interspeech 2021,
    https://arxiv.org/abs/2108.01561

    Arguments
    ---------
    weight : torch.Tensor
        The tensor of the base model.
    name : str
        Its name.
    alpha : float
        What the base's weight is multiplied by.
    beta : float
        What the diff is multiplied by.

    Example
    -------
    >>> diff = SparseDiff(torch.ones(2, 2))
    >>> diff.dense.data = torch.tensor([[0.1, -3.0], [0.2, 0.0]])
    >>> diff.keep(torch.tensor([1]))
    >>> diff(torch.ones(2, 2)).tolist()
    [[1.0, -2.0], [1.0, 1.0]]
    >>> diff.change(bits=4).positions.tolist()
    [1]
    """

    kind = "sparse"

    def __init__(
        self,
        weight: torch.Tensor,
        name: str = "",
        alpha: float = 1.0,
        beta: float = 1.0,
    ):
        super().__init__(weight, name, alpha, beta)
        self.dense = nn.Parameter(torch.zeros_like(weight))
        self.values: nn.Parameter | None = None
        self.register_buffer("importance", None, persistent=False)
        self.register_buffer("positions", None)
        self.threshold = self.temperature = 0.0

    def note_gradient(self) -> None:
        """Add the dense diff's squared gradient to `importance`, and clear it.

        Raises
        ------
        ValueError
            If it is not dense any more, or has no gradient.
        """
        if self.dense is None or self.dense.grad is None:
            raise ValueError(
                f"{self.name}: no gradient of a dense diff; run backward() "
                "before, and keep() after it"
            )
        square = self.dense.grad.square()
        if self.importance is not None:
            square += self.importance
        self.importance, self.dense.grad = square, None

    def gate(self, threshold: float, temperature: float) -> None:
        """Let through what is above a threshold.

        Arguments
        ---------
        threshold : float
            Of the absolute values; 0 lets everything through.
        temperature : float
            How sharp: a value of twice the threshold is let through by
            `sigmoid(temperature)`.
        """
        self.threshold, self.temperature = threshold, temperature

    def keep(
        self, positions: torch.Tensor, start: torch.Tensor | None = None
    ) -> None:
        """Keep these positions alone; the dense diff is gone after it.

        Arguments
        ---------
        positions : torch.Tensor
            Flat, int64.
        start : torch.Tensor, optional
            Their values to begin with; those that they have by default.
        """
        with torch.no_grad():
            positions, order = positions.sort()
            if start is None:
                start = self.delta().reshape(-1)[positions]
            else:
                start = start[order]
            start = start.detach().clone()
        self.positions = positions
        self.values = nn.Parameter(start)
        self.dense = self.importance = None
        self.round_again()

    def get_extra_state(self) -> torch.Tensor:
        """Where the gate is."""
        return torch.tensor(
            [self.threshold, self.temperature], dtype=torch.double
        )

    def set_extra_state(self, state: torch.Tensor) -> None:
        """Put the gate where it was."""
        self.threshold, self.temperature = state.tolist()

    def _load_from_state_dict(self, state, prefix, *others):
        """Keep the positions of the state, too.

        What a state leaves out stays zero without a word, where it is loaded
        as `AdaptedModel` does, which saves no positions.
        """
        names = ("dense", "values", "positions")
        dense, values, positions = (state.get(prefix + n) for n in names)
        errors, wrong = others[-1], None
        if values is not None and positions is None:
            wrong = "has values and not where they are; save its state_dict()"
        elif dense is not None and self.dense is None:
            wrong = "is of a diff that was dense; load it before keep()"
        if wrong:
            errors.append(f"{self.name}: the state {wrong}")
            return
        if values is not None and not (
            self.dense is None and self.values.shape == values.shape
        ):
            device = (self.values if self.dense is None else self.dense).device
            self.keep(positions.to(device), values.to(device))
        super()._load_from_state_dict(state, prefix, *others)

    @torch.no_grad()
    def start(self, delta: torch.Tensor) -> None:
        """Begin with this diff."""
        if self.dense is None:
            self.values.copy_(delta.reshape(-1)[self.positions])
            self.round_again()
        else:
            self.dense.copy_(delta)

    def parts(self) -> list[tuple[torch.Tensor, float]]:
        """The values at the kept positions."""
        if self.values is None:
            raise ValueError(
                f"{self.name}: the diff is dense still; keep() comes first"
            )
        return [(self.values, self.beta)]

    def delta(self) -> torch.Tensor:
        """The diff, dense."""
        if self.values is None:
            if not self.threshold:
                return self.dense
            return self._add_gated(torch.zeros_like(self.dense), 1.0)
        zeros = self.values.new_zeros(self.shape)
        return _AddAt.apply(zeros, self.rounded(0), self.positions)

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """The updated weight."""
        if self.values is None and not self.threshold:
            return super().forward(weight)
        if self.alpha != 1:
            weight = self.alpha * weight
        if self.values is None:
            return self._add_gated(weight, self.beta)
        return _AddAt.apply(weight, self.beta * self.rounded(0), self.positions)

    def _add_gated(self, weight, beta):
        return _AddGated.apply(
            weight, self.dense, beta, self.threshold, self.temperature
        )

    def change(self, bits: int = 4) -> SparseChange | None:
        """How it travels; None if nothing is kept."""
        values = self.travelling(0, bits)
        if not len(self.positions):
            return None
        return SparseChange(self.shape, self.positions.cpu().numpy(), values)
