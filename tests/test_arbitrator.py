"""The arbitrator: what it reads, what follows, and what it learns from."""

import copy

import pytest
import torch

from speechbrain_amnet import (
    Arbitrator,
)
from speechbrain_amnet.arbitrator import Router

FRAME = 0.04  # seconds
TIMES, FLOPS = torch.tensor([0.09, 0.02]), torch.tensor([900.0, 200.0])


def route(router, features, hard=True, **known):
    times = TIMES[: router.branches]
    flops = FLOPS[: router.branches]
    return router.route(features, times, flops, FRAME, hard, **known)


def undecided(router=None):
    """An arbitrator whose choices depend on the frame and on the backlog."""
    torch.manual_seed(3)
    router = router or Arbitrator(5, branches=2)
    with torch.no_grad():
        router.backlog.weight.mul_(3)
    return router


def test_a_route_is_what_follows_from_its_shares():
    routing, after = route(undecided(), torch.randn(3, 20, 5), hard=False)
    sums = routing.shares.sum(-1)
    torch.testing.assert_close(sums, torch.ones_like(sums))
    assert routing.shares.min() > 0
    torch.testing.assert_close(routing.time, routing.shares @ TIMES)
    torch.testing.assert_close(routing.flops, routing.shares @ FLOPS)
    backlog = torch.zeros(3)
    for t in range(20):
        torch.testing.assert_close(routing.backlog[:, t], backlog)
        backlog = (backlog + routing.time[:, t] - FRAME).clamp(min=0)
    torch.testing.assert_close(after, backlog)


def test_a_hard_route_takes_the_likeliest_branch():
    features = torch.randn(3, 1, 5)
    router = undecided()
    soft, _ = route(router, features, hard=False)
    hard, _ = route(router, features, hard=True)
    assert set(hard.shares.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(hard.choice, soft.choice)


def test_the_backlog_is_read_and_left_out_without():
    features = torch.randn(1, 1, 5).expand(4, 1, 5)
    backlog = torch.tensor([0.0, 0.02, 0.1, 1.0])
    for use_backlog in (True, False):
        router = undecided(Arbitrator(5, use_backlog=use_backlog))
        routing, _ = route(router, features, hard=False, backlog=backlog)
        differ = len(routing.shares[:, 0, 0].unique())
        assert differ == (4 if use_backlog else 1)
        # It is followed all the same.
        assert torch.equal(routing.backlog[:, 0], backlog)
        routing.shares[:, 0, 0].sum().backward()
        assert (router.backlog.weight.grad is None) is not use_backlog


def test_the_device_is_read_and_left_out_without():
    """As log r, r the frame durations of the first branch; at 1 it is 0."""
    features = torch.randn(1, 1, 5).expand(3, 1, 5)
    loads = torch.tensor([1.0, 2.0, 4.0])
    times = loads[:, None] * FRAME * TIMES / TIMES[0]
    for use_device in (True, False):
        torch.manual_seed(0)
        router = Arbitrator(5, use_device=use_device)
        shares = router.route(features, times, FLOPS, FRAME, False)[0].shares
        assert len(shares[:, 0, 0].unique()) == (3 if use_device else 1)
        if use_device:
            hidden = router.frame(features[0])
            hidden = hidden + router.device.weight[:, 0] * loads[2].log()
            expected = router.out(hidden.tanh()).softmax(-1)
            torch.testing.assert_close(shares[2], expected)
            with pytest.raises(ValueError, match="needs the device's load"):
                router.prepare(features)


def test_a_device_that_no_training_met_is_read_as_the_nearest():
    """A phone at 0.01 must not be guessed at; its backlog is its own."""
    features = torch.randn(1, 3, 5).expand(4, 3, 5)
    loads = torch.tensor([0.01, 1.0, 4.0, 40.0])
    times = loads[:, None] * FRAME * TIMES / TIMES[0]
    router = Arbitrator(5, use_device=True, use_backlog=False)
    free = router.route(features, times, FLOPS, FRAME, False)[0]
    assert len(free.shares[:, 0, 0].unique()) == 4
    router.loads = [1.0, 4.0]
    known = router.route(features, times, FLOPS, FRAME, False)[0]
    assert torch.equal(known.shares[0], known.shares[1])
    assert torch.equal(known.shares[1], free.shares[1])
    assert torch.equal(known.shares[2], known.shares[3])
    assert torch.equal(known.shares[2], free.shares[2])
    assert known.time[3, 0] == 10 * known.time[2, 0]


def test_each_utterance_s_device_has_its_own_backlog():
    loads = torch.tensor([1.0, 2.0, 4.0])
    times = loads[:, None] * torch.tensor([FRAME, FRAME / 4])
    features = torch.randn(3, 12, 5)
    for hard in (True, False):
        router = undecided()
        whole, after = router.route(features, times, FLOPS, FRAME, hard)
        for n in range(3):
            alone, left = router.route(
                features[n : n + 1], times[n], FLOPS, FRAME, hard
            )
            torch.testing.assert_close(whole.backlog[n], alone.backlog[0])
            torch.testing.assert_close(whole.time[n], alone.time[0])
            torch.testing.assert_close(after[n], left[0])


def test_the_backlog_is_read_in_frame_durations():
    router = undecided()
    prepared = router.prepare(torch.randn(2, 1, 5))
    shares = router.decide(prepared[:, 0], torch.tensor([0.0, 2.5]))
    hidden = prepared[:, 0].clone()
    hidden[1] += router.backlog.weight[:, 0] * torch.tensor(3.5).log()
    torch.testing.assert_close(shares, router.out(hidden.tanh()).softmax(-1))


def test_the_gradient_of_a_late_backlog_reaches_early_shares():
    features = torch.randn(1, 10, 5, requires_grad=True)
    routing, _ = route(undecided(), features, hard=False)
    assert routing.backlog[0, 9] > 0
    routing.backlog[0, 9].backward()
    reached = features.grad[0].abs().sum(-1) > 0
    assert reached.tolist() == [True] * 9 + [False]


@pytest.mark.parametrize("branches", [2, 3])
@pytest.mark.parametrize("use_backlog", [True, False])
@pytest.mark.parametrize("own_devices", [True, False])
def test_gradient_is_that_of_autograd_over_the_frames(
    branches, use_backlog, own_devices
):
    router = Arbitrator(
        5, branches, use_backlog=use_backlog, use_device=own_devices
    )
    torch.nn.init.normal_(router.backlog.weight, std=2)
    torch.nn.init.normal_(router.out.weight, std=2)
    times = torch.tensor([0.09, 0.05, 0.01][:branches])
    flops, load = times, None
    if own_devices:
        times = torch.tensor([[1.0], [0.6], [1.7]]) * times
        load = times[:, 0] / FRAME
    features = torch.randn(3, 30, 5, requires_grad=True)
    start = torch.tensor([0.0, 0.1, 0.3])
    routing, after = router.route(
        features, times, flops, FRAME, hard=False, backlog=start
    )
    shares, found, backlog = [], [], start
    for now in router.prepare(features, load=load).unbind(1):
        found.append(backlog)
        shares.append(router.decide(now, backlog / FRAME))
        time = (shares[-1] * times).sum(-1)
        backlog = (backlog + time - FRAME).clamp(min=0)
    plain = torch.stack(shares, 1), torch.stack(found, 1)
    torch.testing.assert_close(after, backlog)
    assert (plain[1] == 0).any() and (plain[1] > 0).any()
    gradients = []
    wanted = [features, *router.parameters()]
    for shares, found in (plain, (routing.shares, routing.backlog)):
        torch.testing.assert_close(shares, plain[0])
        torch.testing.assert_close(found, plain[1])
        loss = (shares[..., 0] * 10 * found).sin().sum() + found[:, -1].sum()
        gradients.append(
            torch.autograd.grad(
                loss, wanted, allow_unused=True, materialize_grads=True
            )
        )
    for one, other in zip(*gradients):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_a_decision_s_gradient_reaches_those_that_made_its_backlog():
    features = torch.randn(1, 10, 5, requires_grad=True)
    routing, _ = route(undecided(), features, hard=False)
    routing.shares[0, 9, 0].backward()
    assert (features.grad[0].abs().sum(-1) > 0).all()


def test_temperature_sharpens_up_to_a_split_of_9999_to_1():
    router, features = undecided(), torch.randn(2, 50, 5)
    largest = []
    for temperature in (1.0, 10.0, 1e6):
        router.temperature.fill_(temperature)
        prepared = router.prepare(features)
        shares = router.decide(prepared.flatten(0, 1), torch.zeros(100))
        largest.append(shares.max(-1).values)
    assert (largest[0] < largest[1]).all() and (largest[1] <= largest[2]).all()
    assert largest[2].min() > 0.9999
    assert "temperature" in router.state_dict()


@pytest.mark.parametrize("hidden, branches", [(16, 2), (8, 3)])
def test_flops_of_the_arbitrator(hidden, branches):
    with_it = Arbitrator(20, branches, hidden)
    without = Arbitrator(20, branches, hidden, use_backlog=False)
    assert with_it.flops == 2 * (20 * hidden + hidden + hidden * branches)
    assert with_it.flops - without.flops == 2 * hidden
    knows = Arbitrator(20, branches, hidden, use_device=True)
    assert knows.flops - with_it.flops == 2 * hidden


def test_starts_undecided():
    shares = Arbitrator(320, 2).decide(torch.randn(1000, 16), torch.zeros(1000))
    assert abs(shares[:, 0].mean().item() - 0.5) < 0.1


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Router(0), "Router: branches must be 1 to 36, got 0"),
        (lambda: Arbitrator(5, branches=0), "Arbitrator: .* got 0"),
        (lambda: Arbitrator(5, hidden=0), "hidden must be .* got 0"),
        (lambda: Arbitrator(5, hidden=-1), "hidden must be .* got -1"),
    ],
)
def test_what_cannot_be_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("hard", [True, False])
def test_half_precision_routes_by_its_weights_alone(kind, hard):
    """Not by the rounding of what is computed, nor by a temperature of inf."""
    plain = undecided(Arbitrator(5, use_device=True))
    plain.temperature.fill_(1e5)
    with torch.no_grad():
        plain.frame.weight.mul_(5)
    half = copy.deepcopy(plain).to(kind)
    assert half.temperature.isinf() == (kind is torch.float16)
    for name, weight in plain.named_parameters():
        weight.data.copy_(half.get_parameter(name))
    features = torch.randn(4, 100, 5)
    expected, _ = route(plain, features, hard)
    found, _ = route(half, features, hard)
    assert len(expected.choice.unique()) == 2
    assert torch.equal(found.choice, expected.choice)
    # A temperature of bfloat16 is 99840.
    torch.testing.assert_close(found.shares, expected.shares, atol=1e-2, rtol=0)


def test_no_temperature_is_too_high():
    router = undecided()
    prepared = torch.zeros(1, 16)
    with torch.no_grad():
        router.out.weight.zero_()  # infinity times its 0 is no number
    for temperature in (1e5, 1e38, torch.inf):
        router.temperature.fill_(temperature)
        shares = router.decide(prepared, torch.zeros(1))
        assert shares.tolist() == [[0.5, 0.5]]
