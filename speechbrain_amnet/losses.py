"""What the routing costs: average compute, idle time, backlog at the end.

    L_cost = mean_t tau[t] / d                              average compute
    L_idle = mean_t sum_k p[t,k] * faster(k) * slack(b[t])  unused time
    L_end  = b[T] / d                                       backlog at the end

The last two are the backlog-aware part, L_amr. A term is per utterance, its
mean over the batch is what counts; all are in frame durations or shares, of
the order of 1, so a weight says how many nats of an utterance's transducer
loss one unit is worth.
"""

import math

import torch
from torch import nn

from .arbitrator import Routing
from .frames import check_lengths, frame_mean, last_frame


class BacklogAwareLoss(nn.Module):
    """Weighted sum of compute, idle time and backlog at the end.

    Source: Amortized Neural Networks for Low-Latency Speech Recognition,
    Interspeech 2021, https://arxiv.org/abs/2108.01553. The article names the
    penalty for the fast branch without backlog; the formulas are this
    project's.

    Arguments
    ---------
    frame_duration : float
        Seconds.
    cost_weight : float
        Of the average compute; 0 switches it off. A checkpoint has it, too, and
        a training that goes on takes that one.
    idle_weight : float
        Of time that a faster branch leaves unused; 0 switches it off.
    end_weight : float
        Of the backlog that the last frame finds; 0 switches it off.
    significant_backlog : float
        Seconds from which on a backlog is a good reason for a fast branch.
    saved_target : float, optional
        The share of compute to save against the dense encoder. Instead of
        holding `cost_weight`, each step of training sets it to `target_gain`
        times what is missing, on top of a part that begins at `cost_weight`
        and moves by `target_rate` times what is missing.
    target_rate : float
        See `saved_target`: the integral part of a controller.
    target_gain : float
        See `saved_target`: its proportional part.

    Raises
    ------
    ValueError
        For a weight that is negative or no number, a target that is not from 0
        to below 1, or a duration or backlog that is not above 0.

    Example
    -------
    >>> from speechbrain_amnet.arbitrator import Routing
    >>> routing = Routing(
    ...     shares=torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]),
    ...     backlog=torch.tensor([[0.0, 0.04]]),
    ...     time=torch.tensor([[0.08, 0.01]]),
    ...     flops=torch.tensor([[8.0, 1.0]]),
    ...     branch_time=torch.tensor([0.08, 0.01]),
    ... )
    >>> loss = BacklogAwareLoss(frame_duration=0.04)
    >>> parts = loss(routing, torch.ones(1), dense_flops=8.0)
    >>> {name: round(part.item(), 3) for name, part in parts.items()}
    {'cost': 1.125, 'idle': 0.0, 'end': 1.0, 'saved': 0.438, 'total': 5.25}
    """

    def __init__(
        self,
        frame_duration: float,
        cost_weight: float = 2.0,
        idle_weight: float = 3.0,
        end_weight: float = 3.0,
        significant_backlog: float = 0.04,
        saved_target: float | None = None,
        target_rate: float = 0.1,
        target_gain: float = 40.0,
    ):
        super().__init__()
        for name, value in (
            ("cost_weight", cost_weight),
            ("idle_weight", idle_weight),
            ("end_weight", end_weight),
            ("target_rate", target_rate),
            ("target_gain", target_gain),
        ):
            number = isinstance(value, int | float)
            if not (number and 0 <= value < math.inf):
                raise ValueError(
                    f"BacklogAwareLoss: {name} must be a finite number, 0 or "
                    f"more, got {value}."
                )
        if saved_target is not None and not 0 <= saved_target < 1:
            raise ValueError(
                "BacklogAwareLoss: saved_target must be 0 or more and below "
                f"1, got {saved_target}."
            )
        if not (significant_backlog > 0 and frame_duration > 0):
            raise ValueError(
                "BacklogAwareLoss: significant_backlog and frame_duration "
                f"must be above 0, got {significant_backlog} and "
                f"{frame_duration}."
            )
        self.frame_duration = frame_duration
        self.idle_weight, self.end_weight = idle_weight, end_weight
        self.significant_backlog = significant_backlog
        self.saved_target = saved_target
        self.target_rate, self.target_gain = target_rate, target_gain
        # Buffers, so that an adapted weight is in the checkpoint.
        self.register_buffer("cost_weight", torch.tensor(float(cost_weight)))
        self.register_buffer("integral", torch.tensor(float(cost_weight)))

    def forward(
        self, routing: Routing, lengths: torch.Tensor, dense_flops: float
    ) -> dict[str, torch.Tensor]:
        """The parts and their weighted sum.

        Arguments
        ---------
        routing : Routing
            What the encoder returned.
        lengths : torch.Tensor
            Relative lengths, ``[batch]``.
        dense_flops : float
            Cost of a frame on the dense encoder.

        Returns
        -------
        dict
            Scalars `cost`, `idle`, `end`, `saved` (the share of compute) and
            `total`.
        """
        check_lengths(lengths, *routing.time.shape)
        times = routing.branch_time.unsqueeze(-2)  # the same for all frames
        slow, fast = times[..., :1], times[..., -1:]
        # A sparse branch that is not pruned yet may be the slowest.
        faster = ((slow - times) / (slow - fast).clamp(min=1e-12)).clamp(0, 1)
        slack = (1 - routing.backlog / self.significant_backlog).clamp(min=0)
        idle = (routing.shares * faster).sum(-1) * slack
        parts = {
            "cost": frame_mean(routing.time, lengths).mean()
            / self.frame_duration,
            "idle": frame_mean(idle, lengths).mean(),
            "end": last_frame(routing.backlog, lengths).mean()
            / self.frame_duration,
            "saved": 1
            - frame_mean(routing.flops, lengths).mean() / dense_flops,
        }
        parts["total"] = (
            self.cost_weight.clone() * parts["cost"]
            + self.idle_weight * parts["idle"]
            + self.end_weight * parts["end"]
        )
        return parts

    @torch.no_grad()
    def adapt(self, saved: torch.Tensor, share: float = 1.0) -> None:
        """Move the weight of the compute towards the target, if there is one.

        The arbitrator needs a while to follow the weight. A controller that
        only sums up what is missing winds itself up meanwhile: on AN4 it saved
        77 % where 60.5 were asked for.

        Arguments
        ---------
        saved : torch.Tensor
            Of a step of training; call this once for each.
        share : float
            How much of the routing loss counts in this step, where its own
            weight rises from 0 to 1.
        """
        if self.saved_target is not None:
            if torch.distributed.is_initialized():
                # Else each process would follow its own batches.
                saved = saved.detach().clone()
                torch.distributed.all_reduce(saved)
                saved /= torch.distributed.get_world_size()
            missing = self.saved_target - float(saved)
            self.integral.add_(share * self.target_rate * missing)
            self.integral.clamp_(min=0)
            now = float(self.integral) + self.target_gain * missing
            self.cost_weight.fill_(max(0.0, now))
