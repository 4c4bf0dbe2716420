"""The branched LSTM: K sets of weights, one recurrent state.

    a_k[t] = W_k x[t] + b_k + U_k h[t-1]        h[t], c[t] = cell(a[t], c[t-1])
    a[t] = sum_k p[t,k] * a_k[t]

Training mixes all branches (`mixed_lstm`); inference computes the chosen one
alone (`chosen_lstm`). Both give the same numbers when ``p`` is one-hot.

The branches meet before the nonlinearities, so that all that is not a matrix
product is done once and not K times.

Autograd over the frames costs 10 to 30 times an `nn.LSTM`: slicing one big
tensor inside the loop makes the backward pass quadratic in the number of
frames. So the gradient is written by hand: what does not depend on ``dh`` and
``dc`` is computed for many frames at once, the loop carries only those two, and
the gradients of the weights are one product each at the end.

Gates are ordered cell, input, forget, output, so that the three whose gradient
flows through the cell state lie side by side. Tensors here are
``[time, batch, ...]``: a frame is then one contiguous block.
"""

from collections.abc import Mapping, Sequence

import torch

Factors = tuple[torch.Tensor, ...]

BLOCK = 8  # frames whose slopes still lie in the cache when they are used


def _product(h: torch.Tensor, factors: Factors) -> torch.Tensor:
    for factor in reversed(factors[1:]):
        h = torch.mm(h, factor.t())
    return h


def _grouped(flat: Sequence[torch.Tensor], counts: Sequence[int]):
    """The factors of each branch, from those of all."""
    flat = iter(flat)
    return [tuple(next(flat) for _ in range(count)) for count in counts]


class _MixedLSTM(torch.autograd.Function):
    @staticmethod
    def forward(ctx, inputs, state_h, state_c, shares, counts, *flat):
        factors = _grouped(flat, counts)
        time, batch, width = inputs.shape
        size = width // 4
        gates = torch.empty_like(inputs)
        hidden, cell, tanh = (
            gates.new_empty(time, batch, size) for _ in range(3)
        )
        # All views of a frame are made in one call: inside the loop they
        # would cost as much as the arithmetic.
        x_t, gates_t = inputs.unbind(0), gates.unbind(0)
        g_t, i_t, f_t, o_t = (x.unbind(0) for x in gates.split(size, -1))
        h_t, c_t, tanh_t = hidden.unbind(0), cell.unbind(0), tanh.unbind(0)
        last = [factor[0].t() for factor in factors]
        if shares is not None:
            # The right factors of all branches, in one product.
            stems = torch.cat([factor[-1] for factor in factors]).t()
            product = gates.new_empty(batch, stems.shape[1])
            parts = product.split([len(factor[-1]) for factor in factors], 1)
            share_kt = _each_share(shares)
        h, c = state_h, state_c
        one = inputs.new_ones(())  # a number would be converted each time
        for t in range(time):
            gate, g = gates_t[t], g_t[t]
            if shares is None:
                torch.addmm(x_t[t], _product(h, factors[0]), last[0], out=gate)
            else:
                torch.mm(h, stems, out=product)
                sum_so_far = x_t[t]  # then in place, in `gate`
                for k, part in enumerate(parts):
                    share = share_kt[k][t]
                    if len(factors[k]) == 1:
                        torch.addcmul(sum_so_far, part, share, out=gate)
                    else:
                        part.mul_(share)
                        torch.addmm(sum_so_far, part, last[k], out=gate)
                    sum_so_far = gate
            # tanh(x) = 2 sigmoid(2x) - 1: PyTorch's vectorised tanh costs
            # four times its sigmoid on a CPU.
            g.add_(g)
            gate.sigmoid_()
            g.add_(g).sub_(one)
            c = torch.mul(f_t[t], c, out=c_t[t]).addcmul_(i_t[t], g)
            out = torch.add(c, c, out=tanh_t[t]).sigmoid_()
            out.add_(out).sub_(one)
            h = torch.mul(out, o_t[t], out=h_t[t])
        ctx.save_for_backward(
            state_h, state_c, shares, gates, hidden, cell, tanh, *flat
        )
        ctx.counts = counts
        return hidden, cell[-1].clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_hidden, grad_last):
        # Autocast is off in here, whether the caller's is on or not.
        with torch.autocast(grad_hidden.device.type, enabled=False):
            return _backward(ctx, grad_hidden, grad_last)


def _each_share(shares):
    """By branch and frame, ``[batch, 1]``."""
    return [share.contiguous().unbind(0) for share in shares.split(1, -1)]


def _slopes(gates, tanh, before_c, slope, into_cell):
    """Slope of each gate, and of the output to the cell state."""
    past_sigmoid = torch.ops.aten.sigmoid_backward.grad_input
    past_tanh = torch.ops.aten.tanh_backward.grad_input
    size = tanh.shape[-1]
    g, i, f, o = gates.split(size, -1)
    dg, di, df, do = slope.split(size, -1)
    past_tanh(i, g, grad_input=dg)
    past_sigmoid(g, i, grad_input=di)
    past_sigmoid(before_c, f, grad_input=df)
    past_sigmoid(tanh, o, grad_input=do)
    past_tanh(o, tanh, grad_input=into_cell)


def _backward(ctx, grad_hidden, grad_last):
    state_h, state_c, shares, gates, hidden, cell, tanh, *flat = (
        ctx.saved_tensors
    )
    factors = _grouped(flat, ctx.counts)
    time, batch, width = gates.shape
    size = width // 4
    before_c = torch.cat([state_c[None], cell[:-1]])
    # First the slope of each gate, then multiplied in place by the gradient
    # that arrives: the gradient of the pre-activations.
    slope, into_cell = torch.empty_like(gates), torch.empty_like(cell)
    slope_t, into_t = slope.unbind(0), into_cell.unbind(0)
    three_t = slope.unflatten(-1, (4, size))[:, :, :3].unbind(0)
    f_t = gates.split(size, -1)[2].unbind(0)
    do_t = slope.split(size, -1)[3].unbind(0)
    arriving_t = grad_hidden.unbind(0)
    # The gradient before the left factors, of all branches in one product.
    roots = torch.cat([factor[0] for factor in factors], 1)
    widths = [factor[0].shape[1] for factor in factors]
    back = gates.new_empty(time, batch, sum(widths))
    back_t = back.unbind(0)
    back_k = back.split(widths, -1)
    back_kt = [one.unbind(0) for one in back_k]
    share_kt = [[None] * time] if shares is None else _each_share(shares)
    dh, dc = torch.zeros_like(state_h), grad_last
    for t in reversed(range(time)):
        if (t + 1) % BLOCK == 0 or t == time - 1:
            now = slice(t - t % BLOCK, t + 1)
            _slopes(
                gates[now], tanh[now], before_c[now], slope[now], into_cell[now]
            )
        dh.add_(arriving_t[t])
        dc = torch.addcmul(dc, dh, into_t[t])
        three_t[t].mul_(dc.unsqueeze(-2))
        do_t[t].mul_(dh)
        dc.mul_(f_t[t])
        torch.mm(slope_t[t], roots, out=back_t[t])
        dh.zero_()
        for k, factor in enumerate(factors):
            own, share = back_kt[k][t], share_kt[k][t]
            if share is not None:
                own = own * share
            if len(factor) == 1:
                dh.add_(own)
            else:
                dh.addmm_(own, factor[1])

    before_h = torch.cat([state_h[None], hidden[:-1]])
    fronts = [
        before_h if len(factor) == 1 else before_h @ factor[1].t()
        for factor in factors
    ]
    grad_shares = None
    if shares is not None:
        if ctx.needs_input_grad[3]:
            grad_shares = torch.stack(
                [(b * f).sum(-1) for b, f in zip(back_k, fronts)], -1
            )
        each = shares.split(1, -1)
        fronts = [front * share for front, share in zip(fronts, each)]
        back_k = [one * share for one, share in zip(back_k, each)]
    lefts = slope.flatten(0, 1).t() @ torch.cat(fronts, -1).flatten(0, 1)
    grads = []
    for left, own, factor in zip(lefts.split(widths, 1), back_k, factors):
        grads.append(left)
        if len(factor) > 1:
            grads.append(own.flatten(0, 1).t() @ before_h.flatten(0, 1))
    return slope, dh, dc, grad_shares, None, *grads


def mixed_lstm(
    inputs: torch.Tensor,
    recurrent: Sequence[Factors],
    shares: torch.Tensor | None,
    state: tuple[torch.Tensor, torch.Tensor],
) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
    """Run an LSTM layer whose gates are mixtures of its branches' gates.

    Runs in the precision of its weights: under autocast the inputs are cast
    to it, because a recurrence in bf16 loses the cell state's small changes.

    Arguments
    ---------
    inputs : torch.Tensor
        The branches' projected inputs with biases, mixed already, in the gate
        order cell, input, forget, output, ``[time, batch, 4 * size]``.
    recurrent : sequence of tuples of torch.Tensor
        For each branch the one or two factors of its recurrent
        ``[4 * size, size]`` matrix, left to right.
    shares : torch.Tensor or None
        Share of each of the K branches, ``[time, batch, K]``. None for K = 1.
    state : tuple of torch.Tensor
        Hidden and cell state, ``[batch, size]`` each.

    Returns
    -------
    hidden : torch.Tensor
        ``[time, batch, size]``
    state : tuple of torch.Tensor
        The state after the last frame, ``[batch, size]`` each.

    Raises
    ------
    ValueError
        If a branch has no factors or more than two.

    Example
    -------
    >>> dense, left, right = map(torch.randn, [(12, 3), (12, 1), (1, 3)])
    >>> shares = torch.full((7, 2, 2), 0.5)
    >>> zeros = torch.zeros(2, 3)
    >>> hidden, state = mixed_lstm(
    ...     torch.randn(7, 2, 12), [(dense,), (left, right)], shares,
    ...     (zeros, zeros),
    ... )
    >>> hidden.shape
    torch.Size([7, 2, 3])
    """
    if any(len(factors) not in (1, 2) for factors in recurrent):
        raise ValueError(
            "mixed_lstm: expected one or two factors for each branch, got "
            f"{[len(factors) for factors in recurrent]}."
        )
    dtype = recurrent[0][0].dtype
    if shares is not None:
        shares = shares.to(dtype)
    counts = tuple(len(factors) for factors in recurrent)
    flat = [factor for factors in recurrent for factor in factors]
    with torch.autocast(inputs.device.type, enabled=False):
        hidden, cell = _MixedLSTM.apply(
            inputs.to(dtype).contiguous(), *state, shares, counts, *flat
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
    recurrent: Mapping[int, Factors] | Sequence[Factors],
    choice: torch.Tensor,
    state: tuple[torch.Tensor, torch.Tensor],
) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
    """Run an LSTM layer, computing only the chosen branch of each frame.

    Arguments
    ---------
    inputs : torch.Tensor
        The chosen branch's projected input, ``[time, batch, 4 * size]``.
    recurrent : mapping or sequence of tuples of torch.Tensor
        As for `mixed_lstm`; of the branches that are chosen.
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
