"""The branched LSTM: values, hand-written gradient, the chosen branch alone."""

import itertools

import pytest
import torch

from speechbrain_amnet.recurrence import chosen_lstm, lstm_cell, mixed_lstm

TIME, BATCH, SIZE, RANK = 9, 3, 4, 2  # more frames than a block has
DEVICES = ["cpu"] + ["cuda"] * torch.cuda.is_available()
FORMS = [
    ("dense",),
    ("low",),
    ("dense", "low"),
    ("low", "low"),
    ("dense", "low", "low"),
]


@pytest.fixture(params=DEVICES)
def device(request):
    return request.param


def layer(forms, device, time=TIME, dtype=torch.float64):
    """Inputs, factors, shares and state that all want a gradient."""

    def leaf(*shape):
        value = torch.randn(shape, dtype=dtype, device=device)
        return value.requires_grad_()

    inputs = leaf(time, BATCH, 4 * SIZE)
    recurrent = [
        (leaf(4 * SIZE, SIZE),)
        if form == "dense"
        else (leaf(4 * SIZE, RANK), leaf(RANK, SIZE))
        for form in forms
    ]
    shares = leaf(time, BATCH, len(forms)).softmax(-1).detach()
    return (
        inputs,
        recurrent,
        shares.requires_grad_(),
        (leaf(BATCH, SIZE), leaf(BATCH, SIZE)),
    )


def by_the_formula(inputs, recurrent, shares, state):
    """a[t] = x[t] + sum_k p[t,k] U_k h[t-1], one LSTM cell, by autograd."""
    h, c = state
    hidden = []
    for t in range(len(inputs)):
        mixed = inputs[t]
        for k, factors in enumerate(recurrent):
            matrix = factors[0] @ factors[1] if factors[1:] else factors[0]
            own = h @ matrix.t()
            mixed = mixed + (
                own if shares is None else shares[t, :, k, None] * own
            )
        g, i, f, o = mixed.chunk(4, -1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        hidden.append(h)
    return torch.stack(hidden), (h, c)


def leaves(inputs, recurrent, shares, state):
    shares = [] if shares is None else [shares]
    return [inputs, *itertools.chain(*recurrent), *shares, *state]


def gradients(function, arguments):
    hidden, (h, c) = function(*arguments)
    weigh = torch.linspace(-1, 2, hidden.numel()).to(hidden).view_as(hidden)
    loss = (hidden * weigh).sum() + h.square().sum() + (3 * c).sin().sum()
    return hidden, h, c, *torch.autograd.grad(loss, leaves(*arguments))


@pytest.mark.parametrize("forms", FORMS)
@pytest.mark.parametrize("learns", ["all", "all but state", "all but shares"])
def test_gradcheck(forms, learns, device):
    inputs, recurrent, shares, state = layer(forms, device, time=3)
    counts = [len(factors) for factors in recurrent]
    if learns == "all but state":
        state = tuple(torch.zeros_like(one) for one in state)
    if learns == "all but shares":
        shares.requires_grad_(False)

    def run(*flat):
        flat = iter(flat)
        take = lambda n: [next(flat) for _ in range(n)]  # noqa: E731
        (inputs,) = take(1)
        recurrent = [tuple(take(count)) for count in counts]
        hidden, (h, c) = mixed_lstm(inputs, recurrent, *take(1), take(2))
        return hidden, h, c

    # fast_mode probes random directions instead of every entry.
    assert torch.autograd.gradcheck(
        run, leaves(inputs, recurrent, shares, state), fast_mode=True
    )


@pytest.mark.parametrize("forms", FORMS)
def test_equals_the_formula_with_its_gradient(forms, device):
    arguments = layer(forms, device)
    ours = gradients(mixed_lstm, arguments)
    for one, other in zip(ours, gradients(by_the_formula, arguments)):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("form", ["dense", "low"])
def test_one_branch_needs_no_shares(form, device):
    inputs, recurrent, shares, state = layer([form], device)
    arguments = inputs, recurrent, None, state
    ours = gradients(mixed_lstm, arguments)
    for one, other in zip(ours, gradients(by_the_formula, arguments)):
        torch.testing.assert_close(one, other)


def test_a_single_frame_has_its_gradient(device):
    arguments = layer(("dense", "low"), device, time=1)
    ours = gradients(mixed_lstm, arguments)
    for one, other in zip(ours, gradients(by_the_formula, arguments)):
        torch.testing.assert_close(one, other)


def test_equals_nn_lstm_with_its_gradient(device):
    """There the gates are ordered input, forget, cell, output."""
    rival = torch.nn.LSTM(6, SIZE).double().to(device)
    x = torch.randn(TIME, BATCH, 6, dtype=torch.double, device=device)
    state = torch.randn(2, BATCH, SIZE, dtype=torch.double, device=device)
    x.requires_grad_()
    state.requires_grad_()
    order = [2, 0, 1, 3]

    def ours():
        w, r, *biases = (
            torch.cat([p.chunk(4)[gate] for gate in order])
            for p in rival.parameters()
        )
        inputs = torch.nn.functional.linear(x, w, sum(biases))
        hidden, (h, c) = mixed_lstm(inputs, [(r,)], None, tuple(state))
        return hidden, h, c

    def theirs():
        hidden, (h, c) = rival(x, tuple(state.unsqueeze(1)))
        return hidden, h[0], c[0]

    results = []
    for run in (ours, theirs):
        out = run()
        loss = sum((n + 1) * one.sin().sum() for n, one in enumerate(out))
        wanted = [x, state, *rival.parameters()]
        results.append([*out, *torch.autograd.grad(loss, wanted)])
    for one, other in zip(*results):
        torch.testing.assert_close(one, other)


def test_cell_is_one_frame_of_the_layer():
    inputs, _, _, (h, c) = layer(["dense"], "cpu", time=1)
    nothing = torch.zeros(4 * SIZE, SIZE, dtype=torch.double)
    hidden, (_, cell) = mixed_lstm(inputs, [(nothing,)], None, (h, c))
    for one, other in zip((hidden[0], cell), lstm_cell(inputs[0], c)):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("forms", FORMS)
@pytest.mark.parametrize("batch", [1, BATCH])
def test_chosen_equals_mixed_with_one_hot_shares(forms, batch, device):
    inputs, recurrent, _, state = layer(forms, device, 9, torch.float32)
    inputs = inputs[:, :batch]
    state = tuple(one[:batch] for one in state)
    choice = torch.randint(len(forms), (9, batch), device=device)
    one_hot = torch.nn.functional.one_hot(choice, len(forms)).float()
    mixed, (h, c) = mixed_lstm(inputs, recurrent, one_hot, state)
    chosen, (chosen_h, chosen_c) = chosen_lstm(inputs, recurrent, choice, state)
    close = {"atol": 1e-5, "rtol": 0}
    torch.testing.assert_close(chosen, mixed, **close)
    torch.testing.assert_close(chosen_h, h, **close)
    torch.testing.assert_close(chosen_c, c, **close)
    assert not chosen.requires_grad


def test_more_than_two_factors_are_refused():
    inputs, recurrent, _, state = layer(["low"], "cpu")
    left, right = recurrent[0]
    middle = torch.eye(RANK, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"one or two factors.*\[3\]"):
        mixed_lstm(inputs, [(left, middle, right)], None, state)


def test_chosen_computes_no_other_branch():
    inputs, recurrent, _, state = layer(["dense", "low"], "cpu")
    poison = tuple(torch.full_like(x, torch.nan) for x in recurrent[1])
    choice = torch.zeros(TIME, BATCH, dtype=torch.long)
    hidden, (h, c) = chosen_lstm(inputs, [recurrent[0], poison], choice, state)
    assert all(x.isfinite().all() for x in (hidden, h, c))
    # One row takes the poison at frame 2: nobody else, and not before.
    choice[2, 1] = 1
    hidden, _ = chosen_lstm(inputs, [recurrent[0], poison], choice, state)
    bad = hidden.isnan().any(-1)
    assert bad[:, 1].tolist() == [False, False, *[True] * (TIME - 2)]
    assert not bad[:, [0, 2]].any()


def test_no_frames_change_no_state():
    inputs, recurrent, _, state = layer(["dense"], "cpu")
    hidden, after = chosen_lstm(
        inputs[:0], recurrent, torch.zeros(0, BATCH).long(), state
    )
    assert hidden.shape == (0, BATCH, SIZE)
    assert all(one is other for one, other in zip(after, state))


@pytest.mark.parametrize("scale", [100.0, 1e4])
def test_saturated_gates_stay_finite(scale):
    arguments = layer(("dense", "low"), "cpu", dtype=torch.float32)
    with torch.no_grad():
        arguments[0].mul_(scale)
    assert all(x.isfinite().all() for x in gradients(mixed_lstm, arguments))


@pytest.mark.parametrize("forms", FORMS)
def test_autocast_keeps_the_recurrence_in_its_weights_precision(forms):
    arguments = layer(forms, "cpu", dtype=torch.float32)
    plain = gradients(mixed_lstm, arguments)
    # The backward pass stands inside, too.
    with torch.autocast("cpu", torch.bfloat16):
        cast = gradients(mixed_lstm, arguments)
    for one, other in zip(cast, plain):
        torch.testing.assert_close(one, other)


def test_inputs_in_bf16_are_cast_up():
    inputs, *others = layer(("dense", "low"), "cpu", dtype=torch.float32)
    plain = gradients(mixed_lstm, (inputs, *others))
    inputs = inputs.detach().bfloat16().requires_grad_()
    rounded = gradients(mixed_lstm, (inputs, *others))
    assert rounded[0].dtype == torch.float32
    for one, other in zip(rounded, plain):
        torch.testing.assert_close(one.float(), other, atol=0.05, rtol=0.05)


def test_chosen_keeps_that_precision_under_autocast():
    forms = ["dense", "low"]
    inputs, recurrent, _, state = layer(forms, "cpu", 9, torch.float32)
    arguments = inputs, recurrent, torch.randint(2, (9, BATCH)), state
    plain, _ = chosen_lstm(*arguments)
    with torch.autocast("cpu", torch.bfloat16):
        cast, _ = chosen_lstm(*arguments)
    torch.testing.assert_close(cast, plain)
