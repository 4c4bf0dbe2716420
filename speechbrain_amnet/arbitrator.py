"""Routers: what decides, frame by frame, which branch encodes it.

The `Arbitrator` is the learnt one: it reads the frame and the backlog; those
that learn nothing are in `controls`. A router never reads the encoder's state,
so all decisions of an utterance can be made before its first frame is encoded.

A router is asked in two steps. `prepare` does, for all frames at once, what
needs no backlog; `decide` does the small rest.
"""

from typing import NamedTuple

import torch
from torch import nn

from .device import next_backlog, wait

HOTTEST = 1e5  # temperature; beyond 65504 a float16 buffer has infinity


class Routing(NamedTuple):
    """One decision per frame, and what followed from it.

    shares : [batch, frames, K], the probability of each branch; one-hot when
        the decision is hard.
    backlog : [batch, frames] seconds, what each frame found on its arrival.
    time : [batch, frames] seconds, what each frame takes to encode.
    flops : [batch, frames], what each frame costs.
    branch_time : [K] seconds of a frame on each branch; [batch, K] where each
        utterance has a device of its own.
    probabilities : [batch, frames, K], what the router said; the shares
        before they were made hard.
    """

    shares: torch.Tensor
    backlog: torch.Tensor
    time: torch.Tensor
    flops: torch.Tensor
    branch_time: torch.Tensor
    probabilities: torch.Tensor | None = None

    @property
    def wait(self) -> torch.Tensor:
        """Seconds from each frame's arrival until it is encoded."""
        return wait(self.backlog, self.time)

    @property
    def choice(self) -> torch.Tensor:
        """The likeliest branch of each frame, ``[batch, frames]``."""
        return self.shares.argmax(-1)


class Router(nn.Module):
    """What every router offers.

    Arguments
    ---------
    branches : int
        How many there are to choose from, the most expensive first.
    """

    def __init__(self, branches: int):
        super().__init__()
        if not 1 <= branches <= 36:  # records have a digit for each
            raise ValueError(
                f"{type(self).__name__}: branches must be 1 to 36, got "
                f"{branches}."
            )
        self.branches = branches
        self.input_size: int | None = None  # of those that need one
        # Loads of the devices that a training met; the encoder says which.
        self.loads: list[float] | None = None

    @property
    def flops(self) -> int:
        """FLOPs a frame."""
        return 0

    def prepare(
        self,
        features: torch.Tensor,
        first: int = 0,
        load: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """What can be done for all frames at once.

        Arguments
        ---------
        features : torch.Tensor
            ``[batch, frames, size]``
        first : int
            Index of the first of these frames in its utterance.
        load : torch.Tensor, optional
            Frame durations that the first branch takes on the device,
            ``[batch]`` or ``[1]``.

        Returns
        -------
        torch.Tensor
            ``[batch, frames, ...]``, what `decide` reads of each frame.
        """
        raise NotImplementedError

    def decide(
        self, prepared: torch.Tensor, backlog: torch.Tensor
    ) -> torch.Tensor:
        """Shares of the branches for one frame, or for several.

        Arguments
        ---------
        prepared : torch.Tensor
            One frame of what `prepare` gave, ``[batch, ...]``, or several,
            ``[batch, frames, ...]``.
        backlog : torch.Tensor
            In frame durations, ``[batch]`` or ``[batch, frames]``.

        Returns
        -------
        torch.Tensor
            ``[batch, K]`` or ``[batch, frames, K]``
        """
        return prepared

    def route(
        self,
        features: torch.Tensor,
        branch_time: torch.Tensor,
        branch_flops: torch.Tensor,
        frame_duration: float,
        hard: bool,
        backlog: torch.Tensor | None = None,
        first: int = 0,
    ) -> tuple[Routing, torch.Tensor]:
        """Decide on every frame, following the backlog.

        Arguments
        ---------
        features : torch.Tensor
            ``[batch, frames, size]``
        branch_time : torch.Tensor
            Seconds of a frame on each branch, ``[K]`` or ``[batch, K]``.
        branch_flops : torch.Tensor
            FLOPs of a frame on each branch, ``[K]``.
        frame_duration : float
            Seconds.
        hard : bool
            Give the likeliest branch a share of 1.
        backlog : torch.Tensor, optional
            What the first frame finds, in seconds, ``[batch]``; 0 if not
            given.
        first : int
            Index of the first of these frames in its utterance.

        Returns
        -------
        routing : Routing
        backlog : torch.Tensor
            What the next frame will find, in seconds, ``[batch]``; without a
            gradient.
        """
        times = branch_time.reshape(-1, self.branches)  # [batch or 1, K]
        load = times[:, 0] / frame_duration
        if self.loads:  # a still faster device is as the fastest known
            load = load.clamp(*self.loads)
        # Autocast would keep what it casts without a gradient, and use it again
        # (PyTorch before 2.10); and bf16 is coarse, times a high temperature.
        with torch.autocast(features.device.type, enabled=False):
            prepared = self.prepare(features, first, load).float()
            if backlog is None:
                backlog = prepared.new_zeros(len(features))
            with torch.no_grad():
                said, found, backlog = self._follow(
                    prepared, times, frame_duration, hard, backlog
                )
            if torch.is_grad_enabled() and not hard:
                said, found = self._learning(
                    prepared, found, times, frame_duration
                )
        shares = said
        if hard:
            shares = nn.functional.one_hot(said.argmax(-1), self.branches)
            shares = shares.to(said)
        routing = Routing(
            shares,
            found,
            (shares * times[:, None]).sum(-1),
            (shares * branch_flops).sum(-1),
            branch_time,
            said,
        )
        return routing, backlog

    def _follow(self, prepared, times, frame_duration, hard, backlog):
        """Frame by frame: shares, the backlog found, and what is left."""
        said, found = [], []
        each = times.expand(len(prepared), -1)
        for now in prepared.unbind(1):
            share = self.decide(now, backlog / frame_duration)
            said.append(share)
            found.append(backlog)
            if hard:
                time = each.gather(1, share.argmax(-1, keepdim=True))[:, 0]
            else:
                time = (share * each).sum(-1)
            backlog = next_backlog(backlog, time, frame_duration)
        return torch.stack(said, 1), torch.stack(found, 1), backlog

    def _learning(self, prepared, found, times, frame_duration):
        """The same shares and backlogs, with their gradient.

        Once the backlogs are known, all frames can be decided at once. Of the
        recurrence only the slope of each frame's time to its backlog is left,
        one number: autograd over the frames took four times as long.
        """
        leaf = found.detach().requires_grad_()
        share = self.decide(prepared, leaf / frame_duration)
        time = (share * times[:, None]).sum(-1)
        if not time.requires_grad:
            return self.decide(prepared, found / frame_duration), found
        (slope,) = torch.autograd.grad(
            time.sum(), leaf, retain_graph=True, materialize_grads=True
        )
        found = _Backlog.apply(time, slope, found)
        return self.decide(prepared, found / frame_duration), found


class _Backlog(torch.autograd.Function):
    """The backlog that each frame finds, and its gradient to their times.

    ``b[t+1] = max(0, b[t] + time[t] - d)``, where ``time[t]`` depends on
    ``b[t]`` itself with ``slope[t]``. All are ``[batch, frames]``.
    """

    @staticmethod
    def forward(ctx, time, slope, found):
        ctx.save_for_backward(slope, found)
        return found.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        slope, found = ctx.saved_tensors
        # Whether a change of b[t] + time[t] reaches the next frame.
        passes = torch.zeros_like(found)
        passes[:, :-1] = (found[:, 1:] > 0).to(found)
        gain = (passes * (1 + slope)).unbind(1)
        total = [torch.zeros_like(grad[:, 0])]
        for t, now in reversed(list(enumerate(grad.unbind(1)))):
            total.append(torch.addcmul(now, gain[t], total[-1]))
        # total[-1] is of the first frame; a time changes the next frame's.
        return passes * torch.stack(total[-2::-1], 1), None, None


class Arbitrator(Router):
    """A small network on the frame and the backlog.

    ``softmax(temperature * V tanh(W x[t] + w log(1 + b[t]) + v log r))``, with
    the backlog ``b`` in frame durations; ``r``, the frame durations that the
    first branch takes on the device, is read if `use_device` says so. The
    product with ``W`` is done for all frames at once; what is left to do
    frame by frame is tiny.

    Arguments
    ---------
    input_size : int
        Features of a frame.
    branches : int
        How many there are to choose from.
    hidden : int
        Size of the hidden layer.
    use_backlog : bool
        False shows what the arbitrator is without it (an ablation).
    use_device : bool
        Read how fast the device is. One model then serves every device that
        it was trained for (`Device`'s `train_loads`).

    Raises
    ------
    ValueError
        If `hidden` is no whole number above 0.

    Example
    -------
    >>> arbitrator = Arbitrator(input_size=320, branches=2)
    >>> prepared = arbitrator.prepare(torch.randn(3, 7, 320))
    >>> arbitrator.decide(prepared[:, 0], torch.zeros(3)).shape
    torch.Size([3, 2])
    """

    def __init__(
        self,
        input_size: int,
        branches: int = 2,
        hidden: int = 16,
        use_backlog: bool = True,
        use_device: bool = False,
    ):
        super().__init__(branches)
        if not isinstance(hidden, int) or hidden < 1:
            raise ValueError(
                "Arbitrator: hidden must be a whole number, 1 or more, got "
                f"{hidden}."
            )
        self.input_size = input_size
        self.use_backlog, self.use_device = use_backlog, use_device
        self.frame = nn.Linear(input_size, hidden)
        self.backlog = nn.Linear(1, hidden, bias=False)
        self.out = nn.Linear(hidden, branches)
        if use_device:
            self.device = nn.Linear(1, hidden, bias=False)
        # Starts undecided, so that every branch is heard from.
        nn.init.zeros_(self.out.bias)
        self.register_buffer("temperature", torch.ones(()))

    @property
    def flops(self) -> int:
        """FLOPs a frame."""
        hidden = self.frame.out_features
        inputs = self.frame.in_features + self.use_backlog + self.use_device
        return 2 * hidden * (inputs + self.branches)

    def prepare(
        self,
        features: torch.Tensor,
        first: int = 0,
        load: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The frame's part of the hidden layer, ``[batch, frames, hidden]``."""
        prepared = _linear(self.frame, features)
        if self.use_device:
            if load is None:
                raise ValueError(
                    "Arbitrator: use_device needs the device's load."
                )
            known = load.log().reshape(-1, 1, 1)
            prepared = prepared + _linear(self.device, known)
        return prepared

    def decide(
        self, prepared: torch.Tensor, backlog: torch.Tensor
    ) -> torch.Tensor:
        """Shares of the branches, ``[..., K]``."""
        if self.use_backlog:
            known = torch.log1p(backlog).unsqueeze(-1)
            weight = self.backlog.weight[:, 0]
            prepared = torch.addcmul(prepared, known, weight.to(prepared))
        logits = _linear(self.out, prepared.tanh()).float()
        # Infinity times a logit of 0 would be no number.
        temperature = self.temperature.float().clamp(max=HOTTEST)
        return torch.softmax(temperature * logits, -1)


def _linear(layer, x):
    """A linear layer in float32 at least, whatever its weights are stored in.

    Half precision is coarse, times a high temperature.
    """
    kind = torch.promote_types(layer.weight.dtype, torch.float32)
    bias = None if layer.bias is None else layer.bias.to(kind)
    return nn.functional.linear(x.to(kind), layer.weight.to(kind), bias)
