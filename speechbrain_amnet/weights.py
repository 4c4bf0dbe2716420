"""Forms that a weight matrix can take, and what a frame costs in each.

A branch of the encoder is told apart from the others by the *form* of its
matrices alone. A form is an ``nn.Module`` made as ``form(rows, columns)``; it
gives the matrix as a product of factors, and its cost in FLOPs (two for each
multiply-add), computed from the form itself because profilers count nothing
for recurrent layers.
"""

import math
import weakref

import torch
from torch import nn

COUNTS = ("kept", "budget")  # buffers that hold a whole number


class OtherBranchesError(ValueError):
    """Weights are of other branches than the hparams say."""


def _check_size(rows: int, columns: int) -> None:
    if rows < 1 or columns < 1:
        raise ValueError(
            f"A matrix needs at least one row and one column, got "
            f"{rows} x {columns}."
        )


def _uniform(rows: int, columns: int, bound: float) -> nn.Parameter:
    return nn.Parameter(torch.empty(rows, columns).uniform_(-bound, bound))


def _is_share(value: float) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and 0 < value <= 1


class WeightForm(nn.Module):
    """What every form of a ``[rows, columns]`` matrix offers.

    A new form has to give ``factors`` and ``flops``, and ``copy_from`` if it
    can start from a trained dense matrix.

    Arguments
    ---------
    rows : int
        Size of the output.
    columns : int
        Size of the input.
    """

    def __init__(self, rows: int, columns: int):
        super().__init__()
        _check_size(rows, columns)
        self.rows, self.columns = rows, columns

    def factors(self) -> tuple[torch.Tensor, ...]:
        """One or two matrices whose product is the matrix."""
        raise NotImplementedError

    @property
    def flops(self) -> int:
        """FLOPs of one product with a vector."""
        raise NotImplementedError

    def copy_from(self, matrix: torch.Tensor) -> None:
        """Take on the closest value to a dense ``[rows, columns]`` matrix."""
        raise NotImplementedError

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Multiply: ``[..., columns] -> [..., rows]``."""
        for factor in reversed(self.factors()):
            x = nn.functional.linear(x, factor)
        return x

    def _apply(self, fn, recurse=True):
        """Counts keep their type: float16 holds nothing above 65504."""
        counts = [(n, b) for n, b in self._buffers.items() if n in COUNTS]
        super()._apply(fn, recurse)
        for name, count in counts:
            moved = getattr(self, name)
            if moved.dtype != count.dtype:
                setattr(self, name, count.to(moved.device))
        return self

    def extra_repr(self) -> str:
        return f"rows={self.rows}, columns={self.columns}"


class Dense(WeightForm):
    """A full matrix, ``2 * rows * columns`` FLOPs.

    Arguments
    ---------
    rows : int
        Size of the output.
    columns : int
        Size of the input.

    Example
    -------
    >>> form = Dense(8, 4)
    >>> form(torch.ones(3, 4)).shape
    torch.Size([3, 8])
    >>> form.flops
    64
    """

    def __init__(self, rows: int, columns: int):
        super().__init__(rows, columns)
        self.weight = _uniform(rows, columns, 1 / math.sqrt(columns))

    def factors(self) -> tuple[torch.Tensor, ...]:
        """The matrix itself."""
        return (self.weight,)

    @property
    def flops(self) -> int:
        """FLOPs of one product with a vector."""
        return 2 * self.rows * self.columns

    @torch.no_grad()
    def copy_from(self, matrix: torch.Tensor) -> None:
        """Copy a dense ``[rows, columns]`` matrix."""
        self.weight.copy_(matrix)


class LowRank(WeightForm):
    """A product of two thin matrices, ``2 * rank * (rows + columns)`` FLOPs.

    Arguments
    ---------
    rows : int
        Size of the output.
    columns : int
        Size of the input.
    rank : int, optional
        Columns of the left factor, rows of the right one. With `energy` the
        most that there may be; by default as many as make it no dearer than
        the dense matrix.
    energy : float, optional
        When the form takes on a trained matrix (`copy_from`): the smallest
        rank that keeps this share of the squared singular values.

    Raises
    ------
    ValueError
        If neither is given, the rank is below 1 or above what the matrix can
        have, or the energy is not above 0 and at most 1.

    Example
    -------
    >>> form = LowRank(64, 32, rank=4)
    >>> form(torch.ones(3, 32)).shape
    torch.Size([3, 64])
    >>> form.flops
    768
    >>> form = LowRank(64, 32, energy=0.9)
    >>> form.copy_from(torch.outer(torch.ones(64), torch.ones(32)))
    >>> form.rank
    1
    """

    def __init__(
        self,
        rows: int,
        columns: int,
        rank: int | None = None,
        energy: float | None = None,
    ):
        super().__init__(rows, columns)
        if energy is not None and not _is_share(energy):
            raise ValueError(
                f"LowRank: energy must be above 0 and at most 1, got {energy}."
            )
        if rank is None:
            if energy is None:
                raise ValueError("LowRank: give rank, energy, or both.")
            rank = max(1, rows * columns // (rows + columns))
        whole = isinstance(rank, int) and not isinstance(rank, bool)
        if not whole or not 1 <= rank <= min(rows, columns):
            raise ValueError(
                f"LowRank: rank: expected 1 to {min(rows, columns)} for a "
                f"{rows} x {columns} matrix, got {rank}."
            )
        self.energy = energy
        # The product's entries get the variance of a dense matrix's.
        bound = (9 / (columns * rank)) ** 0.25 / 3**0.25
        self.left = _uniform(rows, rank, bound)
        self.right = _uniform(rank, columns, bound)
        if energy is not None:
            # A float, as checkpoint averaging divides whatever it finds.
            self.register_buffer("kept", torch.tensor(float(rank)))

    @property
    def rank(self) -> int:
        """Columns of the left factor, as it is used."""
        return self.left.shape[1] if self.energy is None else int(self.kept)

    def factors(self) -> tuple[torch.Tensor, ...]:
        """The left and the right factor."""
        if self.energy is None:
            return self.left, self.right
        return self.left[:, : self.rank], self.right[: self.rank]

    @property
    def flops(self) -> int:
        """FLOPs of one product with a vector."""
        return 2 * self.rank * (self.rows + self.columns)

    @torch.no_grad()
    def copy_from(self, matrix: torch.Tensor) -> None:
        """Take the truncated SVD of a ``[rows, columns]`` matrix.

        The singular values are shared evenly between the two factors.
        """
        u, s, v = torch.linalg.svd(matrix.float(), full_matrices=False)
        if self.energy is not None:
            share = s.square().cumsum(0) / s.square().sum()
            enough = int((share < self.energy * (1 - 1e-6)).sum()) + 1
            self.kept.fill_(min(enough, self.left.shape[1]))
        root = s[: self.rank].sqrt()
        self.left.zero_()
        self.right.zero_()
        self.left[:, : self.rank] = u[:, : self.rank] * root
        self.right[: self.rank] = root[:, None] * v[: self.rank]

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, rank={self.rank}"


class _Masked:
    """The product of a weight and its mask, made once while both are as then.

    They are known by identity, place and version, PyTorch's count of changes
    in place (which does not see those of `weight.data`), and not kept alive.
    Copies and pickles are empty.
    """

    def __init__(self):
        self.forget()

    def __reduce__(self):
        return _Masked, ()

    def forget(self):
        """Free the product."""
        self._made = None

    def product(self, weight, mask):
        """The one that there is, or a new one."""
        both = weight, mask
        if not isinstance(weight, nn.Parameter) or any(
            one.is_inference() for one in both
        ):
            # A parametrization computes it at each use; inference tensors
            # have no version.
            self.forget()
            return weight * mask
        seen = [(one.data_ptr(), one._version) for one in both]
        made = self._made  # read once: threads may share a model
        if (
            made is None
            or made[0] != seen
            or any(ref() is not one for ref, one in zip(made[1], both))
        ):
            refs = [weakref.ref(one) for one in both]
            made = self._made = seen, refs, weight * mask
        return made[2]


class Sparse(WeightForm):
    """A matrix of which few entries are kept, ``2 * kept`` FLOPs.

    Starts dense; `pruning.prune` takes its smallest entries away, step by
    step, while it learns. What is gone stays gone, the rest trains on.

    Arguments
    ---------
    rows : int
        Size of the output.
    columns : int
        Size of the input.
    density : float
        Share of the entries that is left in the end.
    block : int
        Rows that are kept or lost together, column by column.

    Raises
    ------
    ValueError
        If the density is not above 0 and at most 1, or the rows are no whole
        number of blocks.

    Example
    -------
    >>> form = Sparse(64, 32, density=0.1)
    >>> form.flops  # what is planned; in evaluation what there is
    410
    >>> form.eval().flops
    4096
    >>> form.keep(205)
    >>> form.flops
    410
    """

    def __init__(self, rows: int, columns: int, density: float, block: int = 1):
        super().__init__(rows, columns)
        if not _is_share(density):
            raise ValueError(
                f"Sparse: density must be above 0 and at most 1, got {density}."
            )
        whole = isinstance(block, int) and not isinstance(block, bool)
        if not whole or block < 1 or rows % block:
            raise ValueError(
                f"Sparse: block must divide the matrix's {rows} rows, got "
                f"{block}."
            )
        self.density, self.block = density, block
        self.weight = _uniform(rows, columns, 1 / math.sqrt(columns))
        # Floats, as checkpoint averaging divides whatever it finds.
        self.register_buffer("mask", torch.ones(rows, columns))
        self.register_buffer("budget", torch.tensor(0.0))
        self.register_buffer("kept", torch.tensor(float(rows * columns)))
        self.goal = block * max(1, round(density * rows * columns) // block)
        self.budget.fill_(self.goal)
        self._masked = _Masked()

    def factors(self) -> tuple[torch.Tensor, ...]:
        """The matrix, with zeros where it was pruned.

        Made once in inference: for a frame alone it costs more than all else.
        """
        # What is traced is not to have the product as a constant.
        traced = torch.jit.is_tracing() or torch.compiler.is_compiling()
        if self.training or torch.is_grad_enabled() or traced:
            self._masked.forget()
            return (self.weight * self.mask,)
        return (self._masked.product(self.weight, self.mask),)

    def train(self, mode=True):
        """Inference begins anew, whatever was done to `weight.data`."""
        self._masked.forget()
        return super().train(mode)

    def _apply(self, fn, recurse=True):
        """Tensors that are swapped by others may have no weak references."""
        self._masked.forget()
        return super()._apply(fn, recurse)

    @property
    def flops(self) -> int:
        """FLOPs of one product with a vector.

        In training those that are planned, so that the routing is learnt for
        the costs that it will meet; in evaluation those that there are.
        """
        return 2 * int(self.budget if self.training else self.kept)

    @torch.no_grad()
    def copy_from(self, matrix: torch.Tensor) -> None:
        """Copy a dense ``[rows, columns]`` matrix, and keep all of it."""
        self.weight.copy_(matrix)
        self.mask.fill_(1)
        self.kept.fill_(matrix.numel())
        self.budget.fill_(self.goal)  # not what an earlier pruning left it

    @torch.no_grad()
    def scores(self) -> torch.Tensor:
        """What each entry or block is worth: its root mean square."""
        squares = (self.weight * self.mask).float().square()
        return squares.unflatten(0, (-1, self.block)).mean(1).sqrt()

    @torch.no_grad()
    def keep(self, count: int) -> None:
        """Keep as many entries, those of the highest `scores`."""
        scores = self.scores().flatten()
        best = scores.topk(max(1, count // self.block)).indices
        kept = torch.zeros_like(scores).index_fill_(0, best, 1)
        kept = kept.reshape(-1, self.columns)
        self.mask.mul_(kept.repeat_interleave(self.block, 0))
        self.kept.copy_(self.mask.sum(dtype=self.kept.dtype))

    def _load_from_state_dict(self, state_dict, prefix, *args):
        """What another block size has pruned does not fit this one's blocks."""
        self._masked.forget()  # as `_apply`
        mask = state_dict.get(f"{prefix}mask")
        if mask is not None and mask.shape == self.mask.shape:
            blocks = mask.unflatten(0, (-1, self.block))
            if not (blocks == blocks[:, :1]).all():
                raise OtherBranchesError(
                    f"Sparse: the weights at {prefix.rstrip('.')} were not "
                    f"pruned in blocks of {self.block} rows; give the block "
                    "that they were trained with"
                )
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        return (
            f"{super().extra_repr()}, density={self.density}, "
            f"block={self.block}"
        )


class Skip(WeightForm):
    """A matrix of zeros, for nothing: of a branch that reads nothing.

    Its biases alone say how much of the cell's state is carried on: nearly all
    at first.

    Arguments
    ---------
    rows : int
        Size of the output.
    columns : int
        Size of the input.

    Example
    -------
    >>> form = Skip(8, 4)
    >>> form(torch.ones(4)).abs().sum().item(), form.flops
    (0.0, 0)
    """

    def __init__(self, rows: int, columns: int):
        super().__init__(rows, columns)
        self.register_buffer("left", torch.empty(rows, 0), persistent=False)
        self.register_buffer("right", torch.empty(0, columns), persistent=False)

    def factors(self) -> tuple[torch.Tensor, ...]:
        """Two matrices of rank 0."""
        return self.left, self.right

    @property
    def flops(self) -> int:
        """None."""
        return 0

    def copy_from(self, matrix: torch.Tensor) -> None:
        """Zeros stay zeros."""
