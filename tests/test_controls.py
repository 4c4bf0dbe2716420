"""Routers that learn nothing: how often each branch is taken, and when."""

import json
import math
from types import SimpleNamespace

import pytest
import torch

from speechbrain_amnet import EnergyRouting, FixedRouting, RandomRouting
from speechbrain_amnet.runtime.convert import router_of
from speechbrain_amnet.runtime.routers import Energy


@pytest.mark.parametrize("branch", [0, 1, 2])
def test_fixed_routing(branch):
    shares = FixedRouting(3, branch).prepare(torch.randn(2, 4, 5))
    assert shares.argmax(-1).unique().tolist() == [branch]
    assert torch.equal(shares.sum(-1), torch.ones(2, 4))
    assert FixedRouting(3, branch).flops == 0


@pytest.mark.parametrize(
    "shares", [[1.0], [0.5, 0.5], [0.1, 0.9], [0.2, 0.5, 0.3], [0.0, 1.0]]
)
@pytest.mark.parametrize("training", [True, False])
def test_random_routing_keeps_its_rate(shares, training):
    router = RandomRouting(shares).train(training)
    drawn = router.prepare(torch.zeros(1, 20000, 4))[0]
    assert torch.equal(drawn.sum(-1), torch.ones(20000))
    expected = torch.tensor(shares)
    torch.testing.assert_close(drawn.mean(0), expected, atol=0.015, rtol=0)
    # A frame's draw tells nothing of the next one's.
    pairs = (drawn[1:].unsqueeze(-1) * drawn[:-1].unsqueeze(-2)).mean(0)
    independent = expected[:, None] * expected
    torch.testing.assert_close(pairs, independent, atol=0.015, rtol=0)


def test_random_routing_is_fixed_after_training():
    router = RandomRouting([0.5, 0.5], seed=1).eval()
    whole = router.prepare(torch.randn(3, 50, 4))
    assert torch.equal(whole[0], whole[2])
    assert torch.equal(whole[:1], router.prepare(torch.randn(1, 50, 4)))
    parts = [
        router.prepare(torch.randn(1, 10, 4), first=10 * n) for n in range(5)
    ]
    assert torch.equal(whole[:1], torch.cat(parts, 1))
    other = RandomRouting([0.5, 0.5], seed=2).eval()
    assert not torch.equal(whole, other.prepare(torch.randn(3, 50, 4)))


def test_random_routing_draws_anew_in_training():
    router, features = RandomRouting([0.5, 0.5]), torch.randn(2, 50, 4)
    first, second = router.prepare(features), router.prepare(features)
    assert not torch.equal(first, second)
    assert not torch.equal(first[0], first[1])
    torch.manual_seed(5)
    first = router.prepare(features)
    torch.manual_seed(5)
    assert torch.equal(first, router.prepare(features))


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_energy_routing_follows_its_share_in_training(share):
    router = EnergyRouting(share, momentum=0.9)
    for _ in range(200):
        router.prepare(3 + 2 * torch.randn(8, 50, 1))
    threshold = router.threshold.clone()
    routed = router.eval().prepare(3 + 2 * torch.randn(1, 10000, 1))
    assert abs(routed[..., 0].mean().item() - share) < 0.03
    assert torch.equal(router.threshold, threshold)
    assert "threshold" in router.state_dict()


def test_an_older_threshold_of_all_is_not_kept():
    router = EnergyRouting(1.0).eval()
    router.load_state_dict(
        {"threshold": torch.tensor(2.0), "seen": torch.tensor(7)}
    )
    shares = router.prepare(torch.full((1, 3, 4), -5.0))
    assert shares[..., 0].tolist() == [[1, 1, 1]]


@pytest.mark.parametrize("share, branch", [(0, 1), (1.0, 0)])
@pytest.mark.parametrize("momentum", [0.0, 0.99])
def test_none_and_all_are_no_few(share, branch, momentum):
    """Of frames louder and quieter than all before; on a device, too."""
    router = EnergyRouting(share, momentum=momentum)
    features = torch.arange(20.0).reshape(1, 20, 1) - 10
    for _ in range(3):
        for scale in (1, 100):
            choice = router.eval().prepare(scale * features).argmax(-1)
            assert (choice == branch).all()
        router.train().prepare(features)
    about = json.loads(json.dumps(router_of(router)[0]))
    config = {"router": about, "encoder": {"branches": 2}}
    device = Energy(SimpleNamespace(config=config))
    for frame in 100 * features[0].numpy():
        assert device.choose(frame, 0.0, 0, 1.0) == branch
    # One that was trained before this held is told again.
    router.threshold.fill_(3)
    router.prepare(features)
    assert (router.prepare(features).argmax(-1) == branch).all()


def test_energy_routing_sends_loud_frames_to_the_first_branch():
    router = EnergyRouting(0.5, branches=3).eval()
    router.threshold.fill_(2.0)
    levels = torch.tensor([1.0, 3.0, -5.0, 2.5])
    shares = router.prepare(levels.reshape(1, 4, 1).expand(1, 4, 6))
    assert shares.argmax(-1)[0].tolist() == [2, 0, 2, 0]


def test_energy_routing_learns_nothing_from_padding():
    """Padding reaches the router as zeros."""
    speech = 1 + torch.rand(4, 20, 6)
    plain, padded = EnergyRouting(0.5), EnergyRouting(0.5)
    plain.prepare(torch.zeros(1, 4, 10))  # nothing but padding
    plain.prepare(speech)
    padded.prepare(torch.nn.functional.pad(speech, (0, 0, 0, 30)))
    torch.testing.assert_close(padded.threshold, plain.threshold)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: FixedRouting(2, 2), "must be 0 to 1, got 2"),
        (lambda: FixedRouting(2, -1), "must be 0 to 1, got -1"),
        (lambda: RandomRouting([0.5, 0.6]), r"sum to 1, got \[0.5, 0.6\]"),
        (lambda: RandomRouting([1.5, -0.5]), r"got \[1.5, -0.5\]"),
        (lambda: RandomRouting([]), "RandomRouting: .* got 0"),
        (
            lambda: RandomRouting([1.0], seed=-1),
            "whole number from 0 .* got -1",
        ),
        (lambda: RandomRouting([1.0], seed=1.5), "whole number .* got 1.5"),
        (lambda: RandomRouting([0.5, math.nan]), "sum to 1, got .*nan"),
        (lambda: RandomRouting([math.nan, 0.5]), "sum to 1, got .*nan"),
        (lambda: EnergyRouting(0.3, branches=1), "branches .* more, got 1"),
        (lambda: EnergyRouting(1.2), "share must be 0 to 1, got 1.2"),
        (lambda: EnergyRouting(0.5, momentum=1.5), "momentum must be .* 1.5"),
    ],
)
def test_what_cannot_be_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
