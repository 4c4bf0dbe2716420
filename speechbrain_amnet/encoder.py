"""The amortized encoder: stacked branched LSTM layers behind one router.

One routing decision per frame holds for the whole stack. The branches share
their recurrent state, so a frame may go to any branch whatever came before.
"""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from .arbitrator import Router, Routing
from .controls import FixedRouting
from .device import Device
from .frames import check_lengths, frame_mask
from .layer import BranchedLayer, check_branches, unwrapped
from .pruning import prune
from .recurrence import chosen_lstm, mixed_lstm
from .weights import Sparse, WeightForm

logger = logging.getLogger(__name__)


@dataclass
class EncoderContext:
    """What streaming carries from chunk to chunk.

    state : for each layer its hidden and cell state, ``[batch, size]``.
    backlog : seconds that the next frame will find, ``[batch]``. A live run
        overwrites it with what its clock says.
    first : how many frames came before.
    device : what the backlog is reckoned for, if not the encoder's
        `target_device`; may change between chunks, as a phone's that throttles.
    routing : the decisions on the latest chunk.
    """

    state: list[tuple[torch.Tensor, torch.Tensor]]
    backlog: torch.Tensor
    first: int = 0
    device: Device | None = None
    routing: Routing | None = field(default=None, repr=False)


class AmortizedEncoder(nn.Module):
    """Stacked LSTM layers with branches of differing cost for each frame.

    In training every branch is computed and their gates are mixed by the
    router's probabilities; in evaluation only the chosen branch is computed.
    Both give the same numbers when the probabilities are one-hot.

    Source: Amortized Neural Networks for Low-Latency Speech Recognition,
    Interspeech 2021, https://arxiv.org/abs/2108.01553

    Arguments
    ---------
    input_size : int
        Features of a frame.
    hidden_size : int
        Size of the state.
    layers : int
        How many are stacked.
    branches : list of callables
        For each branch its weight form, the most expensive first, such as
        ``!name:speechbrain_amnet.LowRank {rank: 32}``. One branch or more.
    router : Router, optional
        What chooses among the branches. May be left out for one branch.
    target_device : Device, optional
        The device that the backlog is reckoned for; twice too slow for the
        dense encoder if not given.
    frame_duration : float
        Seconds from frame to frame.
    dropout : float
        Between layers and after the last.

    Raises
    ------
    ValueError
        If there is no branch, the branches are not ordered by cost, a size is
        no whole number above 0, or the router chooses among another number of
        branches or reads frames of another size.

    Example
    -------
    >>> from functools import partial
    >>> from speechbrain_amnet import Arbitrator, Dense, LowRank
    >>> encoder = AmortizedEncoder(
    ...     input_size=20,
    ...     hidden_size=16,
    ...     layers=2,
    ...     branches=[Dense, partial(LowRank, rank=2)],
    ...     router=Arbitrator(20, branches=2),
    ... ).eval()
    >>> encoded, routing = encoder(torch.randn(3, 9, 20))
    >>> encoded.shape, routing.shares.shape
    (torch.Size([3, 9, 16]), torch.Size([3, 9, 2]))
    >>> context = encoder.make_streaming_context(batch=3)
    >>> encoder.forward_streaming(torch.randn(3, 2, 20), context).shape
    torch.Size([3, 2, 16])
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        layers: int,
        branches: Sequence[Callable[[int, int], WeightForm]],
        router: Router | None = None,
        target_device: Device | None = None,
        frame_duration: float = 0.04,
        dropout: float = 0.0,
    ):
        super().__init__()
        listed = isinstance(branches, Sequence) and all(map(callable, branches))
        if not branches or not listed:
            raise ValueError(
                "AmortizedEncoder: branches must list at least one weight "
                f"form, got {branches if branches else 'none'}; write them as "
                "`- !name:speechbrain_amnet.Dense`."
            )
        if not 0 < frame_duration < math.inf:
            raise ValueError(
                "AmortizedEncoder: frame_duration must be above 0, got "
                f"{frame_duration}."
            )
        if router is None:
            if len(branches) > 1:
                raise ValueError(
                    "AmortizedEncoder: router must be given for "
                    f"{len(branches)} branches."
                )
            router = FixedRouting(branches=1)
        for name, size in (
            ("input_size", input_size),
            ("hidden_size", hidden_size),
            ("layers", layers),
        ):
            if not isinstance(size, int) or size < 1:
                raise ValueError(
                    f"AmortizedEncoder: {name} must be a whole number, 1 or "
                    f"more, got {size!r}."
                )
        if not isinstance(target_device, Device | None):
            raise ValueError(
                "AmortizedEncoder: target_device must be a Device, as "
                "`!new:speechbrain_amnet.Device {load: 2}`, got "
                f"{target_device!r}."
            )
        if router.input_size not in (None, input_size):
            raise ValueError(
                f"AmortizedEncoder: router reads frames of {router.input_size} "
                f"features, but input_size is {input_size}."
            )
        if router.branches != len(branches):
            raise ValueError(
                f"AmortizedEncoder: router chooses among {router.branches} "
                f"branches, but branches lists {len(branches)}."
            )
        self.input_size, self.hidden_size = input_size, hidden_size
        self.target_device = target_device or Device(load=2.0)
        self.frame_duration = frame_duration
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(
            BranchedLayer(
                hidden_size if n else input_size, hidden_size, branches
            )
            for n in range(layers)
        )
        self.router = router
        if getattr(router, "use_device", False) and not (
            self.target_device.train_loads
        ):
            raise ValueError(
                "AmortizedEncoder: router reads the device's speed "
                "(use_device), which it can only learn where the device in "
                "training is drawn: give target_device train_loads."
            )
        _tell_loads(self)
        self.register_load_state_dict_post_hook(_tell_loads)
        # Whether the branches are mixed yet; a float, as checkpoint averaging
        # divides whatever it finds.
        self.register_buffer("routed", torch.zeros(()))
        self._warned = False
        self._check_order()

    def _load_from_state_dict(self, state_dict, prefix, *args):
        """Refuse other branches before names and sizes are compared."""
        theirs = {
            name.removeprefix(prefix): value
            for name, value in state_dict.items()
            if name.startswith(prefix)
        }
        if any(name.startswith("layers.") for name in theirs):
            check_branches(
                unwrapped(self.state_dict()),
                unwrapped(theirs),
                self.layers[0].input,
            )
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _check_order(self) -> None:
        """The router, device and losses count on the first being dearest."""
        costs = self.branch_flops
        if any(a < b for a, b in zip(costs, costs[1:], strict=False)):
            forms = self.layers[0].recurrent
            said = ", ".join(
                f"{type(form).__name__} {cost:,}"
                for form, cost in zip(forms, costs, strict=True)
            )
            raise ValueError(
                "AmortizedEncoder: branches must be ordered by cost, the most "
                f"expensive first, got {said} FLOPs a frame (low rank by "
                "energy counts with the most that its rank may be)."
            )

    @property
    def branch_flops(self) -> list[int]:
        """FLOPs of a frame on each branch, the router's included."""
        return [
            self.router.flops + sum(layer.flops(k) for layer in self.layers)
            for k in range(self.router.branches)
        ]

    @property
    def dense_flops(self) -> int:
        """FLOPs of a frame on a dense encoder of this size, unrouted.

        What the device's load and the compute saved refer to.
        """
        size = self.hidden_size
        return sum(
            8 * size * ((size if n else self.input_size) + size)
            for n in range(len(self.layers))
        )

    def _branch_costs(
        self, like: torch.Tensor, device: Device, draw: bool = False
    ):
        """Seconds ([K]; [batch, K] of drawn devices) and FLOPs of a frame."""
        flops = torch.tensor(
            self.branch_flops, dtype=torch.float32, device=like.device
        )
        load = None
        if draw and device.train_loads:
            low, high = map(math.log, device.train_loads)
            drawn = torch.rand(len(like), 1, device=like.device)
            if device.train_ends:
                drawn = 0.5 + (drawn - 0.5) / (1 - device.train_ends)
                drawn = drawn.clamp(0, 1)
            load = (low + (high - low) * drawn).exp()
        time = device.seconds(
            flops, self.dense_flops, self.frame_duration, load
        )
        return time, flops

    def start_routing(self, copy: bool = True) -> None:
        """Note that the branches are mixed from now on.

        Arguments
        ---------
        copy : bool
            Give every branch the weights closest to the first branch's, which
            has learnt alone so far: low-rank branches then start from its
            truncated singular value decomposition.
        """
        self.routed.fill_(1)
        if copy:
            for layer in self.layers:
                for k in range(1, self.router.branches):
                    layer.start_from(0, k)
            if torch.distributed.is_initialized():
                # Factors of a matrix need not be the same on every machine.
                for tensor in self.state_dict().values():
                    torch.distributed.broadcast(tensor, 0)
            self._look_again()

    def start_from(self, other: "AmortizedEncoder") -> None:
        """Give every branch the weights closest to another encoder's first.

        That is how a trained dense encoder becomes an amortized or a
        compressed one. The router keeps what it has.

        Arguments
        ---------
        other : AmortizedEncoder
            Of the same sizes.

        Raises
        ------
        ValueError
            If its sizes are others.
        """
        sizes = [
            (e.input_size, e.hidden_size, len(e.layers)) for e in (self, other)
        ]
        if sizes[0] != sizes[1]:
            raise ValueError(
                "An encoder can start from one of its own input size, hidden "
                f"size and layers, {sizes[0]}, only; got {sizes[1]}."
            )
        for mine, theirs in zip(self.layers, other.layers, strict=True):
            for k in range(self.router.branches):
                mine.start_from(0, k, theirs)

        self._look_again()

    def _look_again(self) -> None:
        """A rank by energy is known only now, perhaps hours into a training."""
        _tell_loads(self)
        try:
            self._check_order()
        except ValueError as error:
            logger.warning("%s", error)

    def _warn_unpruned(self) -> None:
        """Once: sparse branches of which nothing was ever pruned."""
        forms = [form for form in self.modules() if isinstance(form, Sparse)]
        size = sum(form.rows * form.columns for form in forms)
        goal = sum(form.goal for form in forms)
        if not self.routed or goal == size or sum(f.kept for f in forms) < size:
            return
        self._warned = True
        logger.warning(
            "So far the sparse branches keep all of their %d weights, not %d: "
            "call encoder.prune(share) in training, with a share that rises "
            "to 1.",
            size,
            goal,
        )

    def prune(self, share: float, scope: str = "matrix") -> None:
        """Prune the branches of sparse matrices; nothing if there are none.

        Arguments
        ---------
        share : float
            Of the way from all entries to the matrices' density, 0 to 1.
        scope : str
            "matrix", or "all" for the matrices of a branch together; see
            `pruning.prune`.
        """
        for k in range(self.router.branches):
            forms = [
                part[k]
                for layer in self.layers
                for part in (layer.input, layer.recurrent)
            ]
            prune(
                [form for form in forms if isinstance(form, Sparse)],
                share,
                scope,
            )

    def route(
        self,
        x: torch.Tensor,
        hard: bool,
        branch: int | None = None,
        context: EncoderContext | None = None,
    ) -> tuple[Routing, torch.Tensor]:
        """Decide on every frame; see `Router.route`."""
        router, device = self.router, self.target_device
        if branch is not None:
            router = FixedRouting(router.branches, branch)
        if context and context.device:
            device = context.device
        # What learns meets many devices; a stream, or a measure, its own.
        draw = self.training and not hard and context is None
        time, flops = self._branch_costs(x, device, draw)
        return router.route(
            x,
            time,
            flops,
            self.frame_duration,
            hard,
            backlog=context.backlog if context else None,
            first=context.first if context else 0,
        )

    def forward(
        self,
        x: torch.Tensor,
        lengths: torch.Tensor | None = None,
        hard: bool | None = None,
        branch: int | None = None,
    ) -> tuple[torch.Tensor, Routing]:
        """Encode a batch.

        Arguments
        ---------
        x : torch.Tensor
            ``[batch, frames, input_size]``
        lengths : torch.Tensor, optional
            Relative lengths, ``[batch]``. Frames beyond them are encoded as
            zeros.
        hard : bool, optional
            Compute the chosen branch only (no gradient). By default in
            evaluation, not in training.
        branch : int, optional
            Compute this branch alone, whatever the router says.

        Returns
        -------
        encoded : torch.Tensor
            ``[batch, frames, hidden_size]``
        routing : Routing

        Raises
        ------
        ValueError
            If the features do not fit, or the lengths are not relative.
        """
        self._check(x)
        if lengths is not None:
            check_lengths(lengths, *x.shape[:2])
            mask = frame_mask(lengths.to(x.device), x.shape[1]).unsqueeze(-1)
            x = x.masked_fill(~mask, 0.0)
        if hard is None:
            hard = not self.training
        if hard:
            if not self._warned:
                self._warn_unpruned()
            encoded, routing, _, _ = self._run_hard(x, branch)
        else:
            encoded, routing = self._run_soft(x, branch)
        if lengths is not None:
            encoded = encoded.masked_fill(~mask, 0.0)
        return encoded, routing

    def _check(self, x: torch.Tensor, empty: bool = False) -> None:
        few = not empty and x.shape[1:2] == (0,)
        if x.dim() != 3 or x.shape[-1] != self.input_size or few:
            raise ValueError(
                "AmortizedEncoder: expected features [batch, frames, "
                f"{self.input_size}]{' with at least one frame' * (not empty)}"
                f", got {list(x.shape)}."
            )

    def _run_soft(self, x, branch):
        routing, _ = self.route(x, hard=False, branch=branch)
        like = self.layers[0].bias[0]  # may be of half precision, or double
        x = x.transpose(0, 1).to(like.dtype)
        shares = None
        if branch is None and self.router.branches > 1:
            shares = routing.shares.transpose(0, 1).contiguous()
            shares = shares.to(like.dtype)
        zeros = like.new_zeros(x.shape[1], self.hidden_size)
        for layer in self.layers:
            forms = layer.recurrent
            if shares is None:
                inputs, forms = (
                    layer.project(x, branch or 0),
                    [forms[branch or 0]],
                )
            else:
                inputs = layer.project_mixed(x, shares)
            x, _ = mixed_lstm(
                inputs,
                [form.factors() for form in forms],
                shares,
                (zeros, zeros),
            )
            x = self.dropout(x)
        return x.transpose(0, 1), routing

    @torch.no_grad()
    def _run_hard(self, x, branch=None, context=None):
        routing, backlog = self.route(x, True, branch, context)
        x = x.transpose(0, 1).to(self.layers[0].bias[0].dtype)
        choice = routing.choice.t()
        chosen = choice.unique().tolist()
        state = []
        for n, layer in enumerate(self.layers):
            # As in training, the recurrence is in float32 under autocast.
            like = layer.bias[0]
            inputs = like.new_empty(*choice.shape, 4 * self.hidden_size)
            for k in chosen:
                frames = choice == k
                inputs[frames] = layer.project(x[frames], k).to(inputs)
            if context:
                before = context.state[n]
            else:
                zeros = like.new_zeros(x.shape[1], self.hidden_size)
                before = (zeros, zeros)
            x, after = chosen_lstm(
                inputs,
                {k: layer.recurrent[k].factors() for k in chosen},
                choice,
                before,
            )
            state.append(after)
        return x.transpose(0, 1), routing, state, backlog

    def make_streaming_context(
        self, config: Any = None, batch: int = 1
    ) -> EncoderContext:
        """A fresh context for `forward_streaming`.

        Arguments
        ---------
        config : DynChunkTrainConfig, optional
            What SpeechBrain's `StreamingASR` gives. Not read: chunks may have
            any size.
        batch : int
            How many streams go in step. A fresh context of one takes as many
            as its first chunk has, since `StreamingASR` cannot say it before.

        Returns
        -------
        EncoderContext
        """
        zeros = (
            self.layers[0].bias[0].detach().new_zeros(batch, self.hidden_size)
        )
        # Routing is in float32, whatever the weights are in.
        backlog = zeros.new_zeros(batch, dtype=torch.float32)
        return EncoderContext([(zeros, zeros) for _ in self.layers], backlog)

    def forward_streaming(
        self, x: torch.Tensor, context: EncoderContext
    ) -> torch.Tensor:
        """Encode the next frames of a stream, any number of them.

        Arguments
        ---------
        x : torch.Tensor
            ``[batch, frames, input_size]``; there may be no frame.
        context : EncoderContext
            Changed in place; its `routing` then tells the decisions, and is
            None if there was no frame.

        Returns
        -------
        torch.Tensor
            ``[batch, frames, hidden_size]``

        Raises
        ------
        ValueError
            If the features do not fit the encoder or the stream.
        """
        self._check(x, empty=True)
        rows = len(context.backlog)
        if len(x) != rows:
            if context.first or rows > 1:
                raise ValueError(
                    "AmortizedEncoder: a chunk must have the batch size of "
                    f"its stream, {rows}, got {len(x)}."
                )
            context.backlog = context.backlog.expand(len(x)).clone()
            context.state = [
                tuple(part.expand(len(x), -1) for part in state)
                for state in context.state
            ]
        if not x.shape[1]:
            context.routing = None
            like = self.layers[0].bias[0]
            return like.new_zeros(len(x), 0, self.hidden_size)
        encoded, context.routing, context.state, context.backlog = (
            self._run_hard(x, context=context)
        )
        context.first += x.shape[1]
        return encoded


def _tell_loads(encoder: AmortizedEncoder, *_) -> None:
    """A router reads what the first branch takes, which need not be dense.

    That may be known late: a rank by energy is, when weights are loaded. With
    a device that no training draws it keeps what it was told before.
    """
    loads = encoder.target_device.train_loads
    if loads is not None:
        share = encoder.branch_flops[0] / encoder.dense_flops
        encoder.router.loads = [share * load for load in loads]
