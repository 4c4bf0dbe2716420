"""The routing's loss: each part by hand, and what it moves."""

import pytest
import torch

from speechbrain_amnet import Arbitrator, BacklogAwareLoss, Schedule
from speechbrain_amnet.arbitrator import Router, Routing

FRAME = 0.04  # seconds
ONLY = {"cost_weight": 0.0, "idle_weight": 0.0, "end_weight": 0.0}


def routing(shares, backlog):
    """By hand, branches of 0.08, 0.04 and 0.02 s and 8, 4 and 2 FLOPs."""
    shares = torch.tensor(shares)
    seconds = torch.tensor([0.08, 0.04, 0.02])
    return Routing(
        shares,
        torch.tensor(backlog),
        shares @ seconds,
        shares @ torch.tensor([8.0, 4.0, 2.0]),
        seconds,
    )


def learnt(frames=12, **router):
    torch.manual_seed(0)
    arbitrator = Arbitrator(5, branches=2, **router)
    route, _ = arbitrator.route(
        torch.randn(3, frames, 5),
        torch.tensor([0.08, 0.03]),
        torch.tensor([8.0, 3.0]),
        FRAME,
        hard=False,
    )
    return arbitrator, route


def test_parts_by_hand():
    # Two utterances, the second one frame shorter: its last is padding.
    case = routing(
        [
            [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
            [[0.5, 0.5, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]],
        ],
        [[0.0, 0.04, 0.06], [0.0, 0.02, 9.0]],
    )
    loss = BacklogAwareLoss(
        FRAME,
        cost_weight=2.0,
        idle_weight=3.0,
        end_weight=5.0,
        significant_backlog=0.08,
    )
    parts = loss(case, torch.tensor([1.0, 2 / 3]), dense_flops=10.0)
    # Means over frames, then over utterances; times in frame durations.
    cost = ((2 + 1 + 0.5) / 3 + (1.5 + 0.5) / 2) / 2
    # faster(k): 0, 2/3, 1. slack: 1, 1/2, 1/4 and 1, 3/4.
    idle = ((0 + 2 / 3 / 2 + 1 / 4) / 3 + (1 / 3 + 3 / 4) / 2) / 2
    end = (0.06 + 0.02) / 2 / FRAME
    saved = 1 - ((8 + 4 + 2) / 3 + (6 + 2) / 2) / 2 / 10
    expected = {
        "cost": cost,
        "idle": idle,
        "end": end,
        "saved": saved,
        "total": 2 * cost + 3 * idle + 5 * end,
    }
    got = {name: part.item() for name, part in parts.items()}
    assert got == pytest.approx(expected, rel=1e-5)


def test_a_backlog_from_the_significant_one_on_excuses_a_fast_branch():
    fast = [[[0.0, 0.0, 1.0]]]
    loss = BacklogAwareLoss(FRAME, significant_backlog=0.08)
    idle = [
        loss(routing(fast, [[b]]), torch.ones(1), 8.0)["idle"].item()
        for b in (0.0, 0.02, 0.08, 0.5)
    ]
    assert idle == pytest.approx([1.0, 0.75, 0.0, 0.0])


def test_a_last_branch_that_is_still_the_slowest_leaves_no_time_unused():
    """As a sparse one in evaluation, before it is pruned."""
    mixed = routing([[[0.0, 1.0, 0.0]]], [[0.0]])
    times = mixed.branch_time.clone()
    times[..., -1] = 2 * times[..., 0]
    mixed = mixed._replace(branch_time=times)
    idle = BacklogAwareLoss(FRAME)(mixed, torch.ones(1), 8.0)["idle"]
    assert 0 <= idle <= 1


def test_one_branch_has_no_idle_time():
    only = Routing(
        torch.ones(1, 2, 1),
        torch.zeros(1, 2),
        torch.full((1, 2), 0.08),
        torch.full((1, 2), 8.0),
        torch.tensor([0.08]),
    )
    parts = BacklogAwareLoss(FRAME)(only, torch.ones(1), 8.0)
    assert parts["idle"] == 0 and parts["saved"] == 0
    assert parts["total"].isfinite()


@pytest.mark.parametrize("part", ["cost", "idle", "end"])
def test_a_weight_of_zero_switches_a_part_off(part):
    def gradient(weigh):
        arbitrator, route = learnt()
        loss = BacklogAwareLoss(FRAME, **{**ONLY, **weigh})
        parts = loss(route, torch.ones(3), 8.0)
        parts["total"].backward()
        return parts, arbitrator.frame.weight.grad

    parts, nothing = gradient({})
    assert parts["total"] == 0 and not nothing.any()
    assert parts[part] > 0
    parts, some = gradient({f"{part}_weight": 2.0})
    torch.testing.assert_close(parts["total"], 2 * parts[part])
    assert some.any()
    # The other two add nothing to it.
    arbitrator, route = learnt()
    loss = BacklogAwareLoss(FRAME)
    (2 * loss(route, torch.ones(3), 8.0)[part]).backward()
    torch.testing.assert_close(arbitrator.frame.weight.grad, some)


@pytest.mark.parametrize("part", ["cost", "idle", "end", "saved"])
def test_padding_has_neither_value_nor_gradient(part):
    _, route = learnt()
    shares = route.shares.detach().requires_grad_()
    time = shares @ route.branch_time
    backlog = torch.nn.functional.pad(time.cumsum(1)[:, :-1], (1, 0)) * 0.1
    lengths = torch.tensor([1.0, 0.5, 0.25])
    frames = [12, 6, 3]

    def parts(shares, backlog, time, lengths):
        flops = shares @ torch.tensor([8.0, 3.0])
        one = Routing(shares, backlog, time, flops, route.branch_time)
        return BacklogAwareLoss(FRAME)(one, lengths, 8.0)[part]

    together = parts(shares, backlog, time, lengths)
    alone = [
        parts(
            shares[n : n + 1, :count],
            backlog[n : n + 1, :count],
            time[n : n + 1, :count],
            torch.ones(1),
        )
        for n, count in enumerate(frames)
    ]
    torch.testing.assert_close(together, sum(alone) / 3)
    together.backward()
    for n, count in enumerate(frames):
        assert shares.grad[n, :count].any()
        assert not shares.grad[n, count:].any()


@pytest.mark.parametrize("part, faster", [("cost", 1), ("idle", 0), ("end", 1)])
def test_which_branch_a_part_pulls_to(part, faster):
    arbitrator, route = learnt(use_backlog=False)
    parts = BacklogAwareLoss(FRAME)(route, torch.ones(3), 8.0)
    parts[part].backward()
    # Against the gradient: the branch whose bias should rise.
    assert arbitrator.out.bias.grad.argmin() == faster


class Given(Router):
    """Shares that are known beforehand."""

    def prepare(self, features, first=0, load=None):
        return features


def test_the_end_s_gradient_flows_through_the_backlog_into_the_shares():
    # The queue is empty again when the third and the fourth frame arrive.
    shares = torch.tensor([[1.0, 0], [0, 1], [0.5, 0.5], [0.9, 0.1], [1, 0]])
    shares = shares[None].requires_grad_()
    seconds = torch.tensor([0.06, 0.01])
    route, _ = Given(2).route(shares, seconds, seconds, FRAME, hard=False)
    found = [0.0, 0.02, 0.0, 0.0, 0.015]
    assert route.backlog[0].tolist() == pytest.approx(found, abs=1e-6)
    end = BacklogAwareLoss(FRAME)(route, torch.ones(1), 8.0)["end"]
    end.backward()
    reached = torch.zeros(1, 5, 2)
    reached[0, 3] = seconds / FRAME
    torch.testing.assert_close(shares.grad, reached)


def test_without_a_pause_the_end_s_gradient_reaches_the_first_frame():
    shares = torch.full((1, 6, 2), 0.5, requires_grad=True)
    seconds = torch.tensor([0.08, 0.03])
    route, _ = Given(2).route(shares, seconds, seconds, FRAME, hard=False)
    BacklogAwareLoss(FRAME)(route, torch.ones(1), 8.0)["end"].backward()
    reached = (seconds / FRAME).expand(1, 6, 2).clone()
    reached[:, -1] = 0
    torch.testing.assert_close(shares.grad, reached)


def test_utterances_with_devices_of_their_own_count_as_if_alone():
    """Branch times as `train_loads` gives them, ``[batch, K]``."""
    shares = torch.rand(3, 5, 3)
    shares /= shares.sum(-1, keepdim=True)
    seconds = torch.tensor(
        [[0.03, 0.01, 0.004], [0.08, 0.06, 0.01], [0.24, 0.1, 0.03]]
    )
    flops = torch.tensor([8.0, 4.0, 1.0])
    frames, loss = [4, 5, 2], BacklogAwareLoss(FRAME)

    def parts(rows, seconds, lengths):
        route, _ = Given(3).route(rows, seconds, flops, FRAME, hard=False)
        return loss(route, torch.tensor(lengths), 8.0)

    together = parts(shares, seconds, [count / 5 for count in frames])
    alone = [
        parts(shares[n : n + 1, :count], seconds[n], [1.0])
        for n, count in enumerate(frames)
    ]
    for name, part in together.items():
        each = torch.stack([one[name] for one in alone])
        assert each.unique().numel() > 1
        torch.testing.assert_close(part, each.mean(), msg=name)


@pytest.mark.parametrize(
    "saved, share, weight",
    [(0.3, 1.0, 1.42), (0.3, 0.5, 1.41), (0.5, 1.0, 1.0), (0.8, 1.0, 0.37)],
    ids=["too little", "counts half", "right", "too much"],
)
def test_a_target_moves_the_weight_of_the_compute(saved, share, weight):
    loss = BacklogAwareLoss(
        FRAME,
        cost_weight=1.0,
        saved_target=0.5,
        target_rate=0.1,
        target_gain=2.0,
    )
    loss.adapt(torch.tensor(saved), share)
    assert loss.cost_weight.item() == pytest.approx(weight)
    loss.adapt(torch.tensor(0.5))  # what was summed up stays
    integral = 1 + 0.1 * share * (0.5 - saved)
    assert loss.cost_weight.item() == pytest.approx(integral)


def test_a_weight_that_is_moved_stays_at_zero_or_above():
    loss = BacklogAwareLoss(FRAME, 0.01, saved_target=0.0, target_rate=1.0)
    loss.adapt(torch.tensor(0.9))
    assert loss.cost_weight == 0
    # Nor is it in debt: what is missing next counts at once.
    loss.saved_target = 0.9
    loss.adapt(torch.tensor(0.8))
    assert loss.cost_weight.item() == pytest.approx(0.1 + 40 * 0.1)


def test_the_target_is_that_of_all_processes(monkeypatch):
    """Two of them, and the other saves as much."""
    one, two = (BacklogAwareLoss(FRAME, saved_target=0.5) for _ in range(2))
    one.adapt(torch.tensor(0.3))
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda t: t.mul_(2))
    saved = torch.tensor(0.3)
    two.adapt(saved)
    assert two.cost_weight == one.cost_weight and saved == 0.3


@pytest.mark.parametrize("target", [0.3, 0.6])
def test_a_training_ends_at_its_target(target):
    """Some frames lose much on the cheap branch, and the rest little."""
    torch.manual_seed(0)
    router = Arbitrator(5, branches=2, use_backlog=False)
    loss = BacklogAwareLoss(
        FRAME,
        0.5,
        0.0,
        0.0,
        saved_target=target,
        target_rate=0.3,
        target_gain=1.0,
    )
    optimizer = torch.optim.Adam(router.parameters(), lr=0.03)
    seconds, flops = torch.tensor([0.04, 0.004]), torch.tensor([10.0, 1.0])

    def step(hard):
        x, all_of_it = torch.randn(16, 30, 5), torch.ones(16)
        route, _ = router.route(x, seconds, flops, FRAME, hard)
        parts = loss(route, all_of_it, dense_flops=10.0)
        lost = (route.shares[..., 1] * x[..., 0].exp()).mean()
        return lost, parts

    for _ in range(300):
        lost, parts = step(hard=False)
        optimizer.zero_grad()
        (lost + parts["total"]).backward()
        optimizer.step()
        loss.adapt(parts["saved"])
    router.temperature.fill_(1000.0)
    assert abs(step(hard=True)[1]["saved"].item() - target) < 0.05


@pytest.mark.parametrize("gain, off", [(40.0, 0.03), (0.0, None)])
def test_an_arbitrator_that_is_slow_does_not_wind_it_up(gain, off):
    """The schedules of hparams/amnet.yaml, and frames that differ in worth."""
    torch.manual_seed(0)
    steps, inputs = 500, 20
    router = Arbitrator(inputs, 2)
    loss = BacklogAwareLoss(
        FRAME,
        idle_weight=0.0,
        end_weight=0.0,
        saved_target=0.6,
        target_rate=0.1 * 5580 / steps,
        target_gain=gain,
    )
    optimizer = torch.optim.Adam(router.parameters(), 0.007)
    temperature = Schedule([[0.45, 1.0], [0.65, 30.0], [0.7, 1e5]], "geometric")
    rate = Schedule([[0.45, 1.0], [0.6, 0.1], [0.65, 0.0]])
    weight = Schedule([[0.4, 0.0], [0.5, 1.0]])
    flops, worth = torch.tensor([3.3e6, 0.5e6]), torch.randn(inputs)
    seconds = flops / 3.3e6 * 2 * FRAME
    for step in range(steps):
        done = 0.4 + 0.6 * step / steps
        x = torch.randn(8, 40, inputs)
        router.temperature.fill_(temperature(done))
        optimizer.param_groups[0]["lr"] = 0.007 * rate(done)
        route, _ = router.route(x, seconds, flops, FRAME, hard=False)
        parts = loss(route, torch.ones(8), 3.3e6)
        gained = torch.nn.functional.softplus(x @ worth) * route.shares[..., 0]
        optimizer.zero_grad()
        (weight(done) * parts["total"] - 8 * gained.mean()).backward()
        optimizer.step()
        if rate(done) > 0:
            # As it was before, without either.
            loss.adapt(parts["saved"], weight(done) if gain else 1.0)
    missed = abs(parts["saved"].item() - 0.6)
    assert missed < off if off else missed > 0.06


def test_without_a_target_the_weight_holds():
    loss = BacklogAwareLoss(FRAME, cost_weight=1.5)
    loss.adapt(torch.tensor(0.0))
    assert loss.cost_weight == 1.5


def test_the_moved_weight_is_in_the_checkpoint_and_in_the_total():
    loss = BacklogAwareLoss(FRAME, saved_target=0.5)
    arbitrator, route = learnt()
    total = loss(route, torch.ones(3), 8.0)["total"]
    # Between forward and backward: does no harm.
    loss.adapt(torch.tensor(0.0))
    total.backward()
    again = BacklogAwareLoss(FRAME, cost_weight=7.0, saved_target=0.5)
    again.load_state_dict(loss.state_dict())
    assert again.cost_weight == loss.cost_weight == 22.05
    assert again.integral == loss.integral == pytest.approx(2.05)
    parts = again(learnt()[1], torch.ones(3), 8.0)
    change = parts["total"] - total
    torch.testing.assert_close(change, 20.05 * parts["cost"])


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"cost_weight": -1.0}, "cost_weight must be a finite .* got -1.0"),
        ({"cost_weight": float("nan")}, "cost_weight must be .* got nan"),
        ({"idle_weight": -0.5}, "idle_weight must be .* 0 or more, got -0.5"),
        ({"end_weight": None}, "end_weight must be a finite .* got None"),
        # YAML's 4e1 is text: it wants a point.
        ({"target_gain": "4e1"}, "target_gain must be a finite .* got 4e1"),
        ({"target_rate": -0.1}, "target_rate must be .* 0 or more, got -0.1"),
        ({"saved_target": 1.0}, "below 1, got 1.0"),
        ({"saved_target": -0.1}, "below 1, got -0.1"),
        ({"significant_backlog": 0.0}, "above 0, got 0.0"),
        ({"frame_duration": 0.0}, "above 0, got 0.04 and 0.0"),
    ],
)
def test_what_cannot_be_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        BacklogAwareLoss(**{"frame_duration": FRAME, **arguments})
