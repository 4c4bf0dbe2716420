"""The branched LSTM: K sets of weights, one recurrent state.

    h[t] = sum_k p[t,k] * h_k[t]        h_k, c_k = LSTM_k(x[t], h[t-1], c[t-1])
    c[t] = sum_k p[t,k] * c_k[t]

Training mixes all branches (`mixed_lstm`); inference computes the chosen one
alone (`chosen_lstm`). Both give the same numbers when ``p`` is one-hot.

Autograd over the frames costs 10 to 30 times an `nn.LSTM`: slicing one big
tensor inside the loop makes the backward pass quadratic in the number of
frames. So the gradient is written by hand: what does not depend on ``dh`` and
``dc`` is computed for all frames at once, the loop carries only those two, and
the gradients of the weights are one product each at the end.

Gates are ordered cell, input, forget, output, so that the three whose gradient
flows through the cell state lie side by side. Tensors here are
``[time, batch, ...]``: a frame is then one contiguous block.
"""

from collections.abc import Sequence

import torch

Factors = tuple[torch.Tensor, ...]


def _product(h: torch.Tensor, factors: Factors) -> torch.Tensor:
    for factor in reversed(factors[1:]):
        h = torch.mm(h, factor.t())
    return h


class _MixedLSTM(torch.autograd.Function):
    @staticmethod
    def forward(ctx, state_h, state_c, weights, counts, *tensors):
        branches = len(counts)
        inputs, flat = tensors[:branches], tensors[branches:]
        factors, start = [], 0
        for count in counts:
            factors.append(flat[start : start + count])
            start += count
        time, batch, width = inputs[0].shape
        size = width // 4
        new = inputs[0].new_empty
        gates = new(branches, time, batch, width)
        # Output and cell state lie side by side, to be mixed in one go.
        both = new(branches, time, batch, 2, size)
        mixed = new(time, batch, 2, size)
        # All views of a frame are made in one call: inside the loop they
        # would cost as much as the arithmetic.
        x_t = [x.unbind(0) for x in inputs]
        last = [factor[0].t() for factor in factors]
        gates_t = gates.unbind(1)
        gate_kt = [gate.unbind(0) for gate in gates]
        g_t, i_t, f_t, o_t = (x.unbind(1) for x in gates.split(size, -1))
        out_t, cell_t = both[..., 0, :].unbind(1), both[..., 1, :].unbind(1)
        both_kt = [one.unbind(0) for one in both]
        mixed_t = mixed.unbind(0)
        h_t, c_t = mixed[:, :, 0].unbind(0), mixed[:, :, 1].unbind(0)
        if weights is not None:
            shares_kt = [
                share.unsqueeze(-1).unbind(0) for share in weights.unbind(1)
            ]
        h, c = state_h, state_c
        for t in range(time):
            g, cell, out = g_t[t], cell_t[t], out_t[t]
            for k in range(branches):
                torch.addmm(
                    x_t[k][t],
                    _product(h, factors[k]),
                    last[k],
                    out=gate_kt[k][t],
                )
            # tanh(x) = 2 sigmoid(2x) - 1: PyTorch's vectorised tanh costs
            # four times its sigmoid on a CPU.
            g.mul_(2)
            gates_t[t].sigmoid_()
            g.mul_(2).sub_(1)
            torch.mul(f_t[t], c, out=cell).addcmul_(i_t[t], g)
            torch.mul(cell, 2, out=out).sigmoid_().mul_(2).sub_(1)
            out.mul_(o_t[t])
            h, c = h_t[t], c_t[t]
            if weights is None:
                mixed_t[t].copy_(both_kt[0][t])
            else:
                torch.mul(both_kt[0][t], shares_kt[0][t], out=mixed_t[t])
                for k in range(1, branches):
                    mixed_t[t].addcmul_(both_kt[k][t], shares_kt[k][t])
        hidden = mixed[:, :, 0].contiguous()
        ctx.save_for_backward(
            state_h, state_c, weights, gates, both, mixed, *flat
        )
        ctx.counts = counts
        return hidden, mixed[-1, :, 1].clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_hidden, grad_last):
        # Autocast is off in here, whether the caller's is on or not.
        with torch.autocast(grad_hidden.device.type, enabled=False):
            return _backward(ctx, grad_hidden, grad_last)


def _backward(ctx, grad_hidden, grad_last):
    state_h, state_c, weights, gates, both, mixed, *flat = ctx.saved_tensors
    counts = ctx.counts
    branches, time, batch, width = gates.shape
    size = width // 4
    factors, start = [], 0
    for count in counts:
        factors.append(flat[start : start + count])
        start += count

    before_c = torch.cat([state_c[None], mixed[:-1, :, 1]])
    g, i, f, o = gates.split(size, -1)
    out, cell = both.unbind(-2)
    tanh = cell.tanh()
    # Slope of each gate's pre-activation, all frames at once; the loop
    # multiplies it in place by the gradient that arrives.
    slope = torch.empty_like(gates)
    dg, di, df, do = slope.split(size, -1)
    past_sigmoid = torch.ops.aten.sigmoid_backward.grad_input
    past_tanh = torch.ops.aten.tanh_backward.grad_input
    past_tanh(i, g, grad_input=dg)
    past_sigmoid(g, i, grad_input=di)
    past_sigmoid(before_c.expand_as(f), f, grad_input=df)
    past_sigmoid(tanh, o, grad_input=do)
    del before_c
    into_cell = past_tanh(o, tanh, grad_input=tanh)
    mixing = weights is not None and ctx.needs_input_grad[2]
    if weights is not None:
        share = weights.transpose(0, 1)
        do.mul_(share)
        into_cell.mul_(share)
    all_dh = torch.empty_like(grad_hidden)
    all_dc = torch.empty_like(grad_hidden)
    dh_t, dc_t = all_dh.unbind(0), all_dc.unbind(0)
    arriving_t = grad_hidden.unbind(0)
    into_t, do_t = into_cell.unbind(1), do.unbind(1)
    slope_kt = [one.unbind(0) for one in slope]
    f_kt = [one.unbind(0) for one in f]
    three_t = slope.unflatten(-1, (4, size))[..., :3, :].unbind(1)
    shares_t = None if weights is None else weights.unbind(0)
    dh_next = torch.zeros_like(state_h)
    dc_t[-1].copy_(grad_last)
    dc_first = torch.empty_like(state_c)
    for t in reversed(range(time)):
        dh, dc = torch.add(arriving_t[t], dh_next, out=dh_t[t]), dc_t[t]
        dc_k = dc[None] if shares_t is None else dc * shares_t[t]
        dc_k = torch.addcmul(dc_k, dh, into_t[t])
        three_t[t].mul_(dc_k.unsqueeze(-2))
        do_t[t].mul_(dh)
        dc_before = dc_t[t - 1] if t else dc_first
        dc_k = dc_k.unbind(0)
        torch.mul(f_kt[0][t], dc_k[0], out=dc_before)
        for k in range(branches):
            if k:
                dc_before.addcmul_(f_kt[k][t], dc_k[k])
            back = slope_kt[k][t]
            for factor in factors[k][:-1]:
                back = torch.mm(back, factor)
            if k:
                dh_next.addmm_(back, factors[k][-1])
            else:
                torch.mm(back, factors[k][-1], out=dh_next)

    grad_weights = None
    if mixing:
        torch.mul(out, all_dh, out=into_cell).addcmul_(cell, all_dc)
        grad_weights = into_cell.sum(-1).permute(1, 0, 2).unsqueeze(-1)
    del into_cell
    before_h = torch.cat([state_h[None], mixed[:-1, :, 0]])
    grads = []
    for k in range(branches):
        back = slope[k].reshape(-1, width)
        fronts = [before_h.reshape(-1, size)]
        for factor in reversed(factors[k][1:]):
            fronts.append(fronts[-1] @ factor.t())
        for factor, front in zip(factors[k], reversed(fronts), strict=True):
            grads.append(back.t() @ front)
            if len(factors[k]) > 1:
                back = back @ factor
    return (dh_next, dc_first, grad_weights, None, *slope.unbind(0), *grads)


def mixed_lstm(
    inputs: Sequence[torch.Tensor],
    recurrent: Sequence[Factors],
    weights: torch.Tensor | None,
    state: tuple[torch.Tensor, torch.Tensor],
) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
    """Run an LSTM layer whose state is a mixture of its branches' states.

    Runs in the precision of its weights: under autocast the inputs are cast
    to it, because a recurrence in bf16 loses the cell state's small changes.

    Arguments
    ---------
    inputs : sequence of torch.Tensor
        For each of K branches the projected input with biases, in the gate
        order cell, input, forget, output, ``[time, batch, 4 * size]``.
    recurrent : sequence of tuples of torch.Tensor
        For each branch the factors of its recurrent ``[4 * size, size]``
        matrix, left to right.
    weights : torch.Tensor or None
        Share of each branch, ``[time, K, batch, 1]``. None for K = 1.
    state : tuple of torch.Tensor
        Hidden and cell state, ``[batch, size]`` each.

    Returns
    -------
    hidden : torch.Tensor
        ``[time, batch, size]``
    state : tuple of torch.Tensor
        The state after the last frame, ``[batch, size]`` each.

    Example
    -------
    >>> inputs = [torch.randn(7, 2, 12), torch.randn(7, 2, 12)]
    >>> dense, left, right = map(torch.randn, [(12, 3), (12, 1), (1, 3)])
    >>> share = torch.full((7, 2, 2, 1), 0.5)
    >>> zeros = torch.zeros(2, 3)
    >>> hidden, state = mixed_lstm(
    ...     inputs, [(dense,), (left, right)], share, (zeros, zeros)
    ... )
    >>> hidden.shape
    torch.Size([7, 2, 3])
    """
    dtype = recurrent[0][0].dtype
    inputs = [x.to(dtype) for x in inputs]
    if weights is not None:
        weights = weights.to(dtype)
    counts = tuple(len(factors) for factors in recurrent)
    flat = [factor for factors in recurrent for factor in factors]
    with torch.autocast(inputs[0].device.type, enabled=False):
        hidden, cell = _MixedLSTM.apply(
            state[0], state[1], weights, counts, *inputs, *flat
        )
    return hidden, (hidden[-1], cell)


def lstm_cell(
    gates: torch.Tensor, cell: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """One LSTM update from pre-activations in this module's gate order.

    Arguments
    ---------
    gates : torch.Tensor
        ``[batch, 4 * size]``
    cell : torch.Tensor
        ``[batch, size]``

    Returns
    -------
    hidden, cell : tuple of torch.Tensor
        ``[batch, size]`` each.

    Example
    -------
    >>> hidden, cell = lstm_cell(torch.zeros(2, 12), torch.ones(2, 3))
    >>> cell[0, 0].item()
    0.5
    """
    size = cell.shape[-1]
    g = gates[:, :size].tanh()
    i, f, o = gates[:, size:].sigmoid().split(size, -1)
    cell = torch.addcmul(f * cell, i, g)
    return o * cell.tanh(), cell


@torch.no_grad()
def chosen_lstm(
    inputs: torch.Tensor,
    recurrent: Sequence[Factors],
    choice: torch.Tensor,
    state: tuple[torch.Tensor, torch.Tensor],
) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
    """Run an LSTM layer, computing only the chosen branch of each frame.

    Arguments
    ---------
    inputs : torch.Tensor
        The chosen branch's projected input, ``[time, batch, 4 * size]``.
    recurrent : sequence of tuples of torch.Tensor
        As for `mixed_lstm`.
    choice : torch.Tensor
        The branch of each frame, ``[time, batch]``, integers.
    state : tuple of torch.Tensor
        Hidden and cell state, ``[batch, size]`` each.

    Returns
    -------
    hidden : torch.Tensor
        ``[time, batch, size]``
    state : tuple of torch.Tensor
        The state after the last frame.
    """
    h, c = state
    hidden = []
    with torch.autocast(inputs.device.type, enabled=False):
        # Most frames of a batch disagree, most frames of a stream cannot.
        branches = [sorted(set(row)) for row in choice.tolist()]
        for t, present in enumerate(branches):
            if len(present) == 1:
                factors = recurrent[present[0]]
                gates = torch.addmm(
                    inputs[t], _product(h, factors), factors[0].t()
                )
            else:
                gates = inputs[t].clone()
                for k in present:
                    rows = (choice[t] == k).nonzero().squeeze(1)
                    factors = recurrent[k]
                    gates[rows] += _product(h[rows], factors) @ factors[0].t()
            h, c = lstm_cell(gates, c)
            hidden.append(h)
    if not hidden:
        return inputs.new_empty(0, *h.shape), state
    return torch.stack(hidden), (h, c)
