"""The encoder: soft is hard is streamed; nothing looks ahead."""

import copy
import math
from functools import partial

import pytest
import torch
from speechbrain.utils.dynamic_chunk_training import DynChunkTrainConfig

from speechbrain_amnet import (
    AmortizedEncoder,
    Arbitrator,
    BacklogAwareLoss,
    Dense,
    Device,
    FixedRouting,
    LowRank,
    RandomRouting,
    Sparse,
)

INPUT, HIDDEN, LAYERS = 10, 8, 2
BRANCHES = [Dense, partial(LowRank, rank=4), partial(LowRank, rank=1)]
CLOSE = {"atol": 1e-5, "rtol": 0}
DEVICES = ["cpu"] + ["cuda"] * torch.cuda.is_available()


@pytest.fixture(params=DEVICES)
def device(request):
    return request.param


def build(branches=2, router=None, **others):
    torch.manual_seed(0)
    if router is None:
        router = Arbitrator(INPUT, branches)
        with torch.no_grad():  # Frame and backlog both have a say.
            router.frame.weight.mul_(3)
            router.backlog.weight.mul_(3)
    return AmortizedEncoder(
        INPUT, HIDDEN, LAYERS, BRANCHES[:branches], router, **others
    )


def one_hot(encoder):
    """Probabilities of exactly 0 and 1, the backlog still read."""
    encoder.router.temperature.fill_(1e6)
    return encoder


@pytest.mark.parametrize("branches", [1, 2, 3])
def test_soft_equals_hard_when_one_hot(branches, device):
    encoder = one_hot(build(branches)).to(device).eval()
    x = torch.randn(4, 30, INPUT, device=device)
    soft, soft_routing = encoder(x, hard=False)
    hard, hard_routing = encoder(x)
    torch.testing.assert_close(soft, hard, **CLOSE)
    for one, other in zip(soft_routing, hard_routing):
        torch.testing.assert_close(one, other)
    assert len(hard_routing.choice.unique()) == branches
    assert soft.requires_grad and not hard.requires_grad


@pytest.mark.parametrize("kind", [torch.float64, torch.float16, torch.bfloat16])
def test_a_model_of_another_precision(kind):
    """As `asr.half()`, or doubles for a check of gradients."""
    encoder = build().to(kind).eval()
    x = torch.randn(2, 6, INPUT, dtype=kind)
    hard, _ = encoder(x)
    soft, _ = encoder(x, hard=False)
    assert hard.dtype == soft.dtype == kind
    soft.sum().backward()
    assert encoder.router.frame.weight.grad.isfinite().all()


@pytest.mark.parametrize("kind", [torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("branch", [None, 1])
def test_features_of_float32_for_a_model_of_another_precision(kind, branch):
    """The same as one in float32 of the weights as they were rounded."""
    encoder = build()
    encoder.router.temperature.fill_(1e5)
    encoder = encoder.to(kind).eval()
    plain = copy.deepcopy(encoder).float()
    x = torch.randn(4, 40, INPUT)
    for hard in (True, False):
        expected, routing = plain(x, hard=hard, branch=branch)
        found, own = encoder(x, hard=hard, branch=branch)
        assert found.dtype == kind
        torch.testing.assert_close(found.float(), expected, atol=0.05, rtol=0)
        assert torch.equal(own.shares, routing.shares)
        assert torch.equal(own.backlog, routing.backlog)
    found.sum().backward()
    if branch is not None:
        return
    assert len(routing.choice.unique()) == 2
    whole, routing = encoder(x)
    context = encoder.make_streaming_context(batch=4)
    assert context.backlog.dtype == torch.float32
    parts = [encoder.forward_streaming(c, context) for c in x.split(7, 1)]
    assert torch.equal(context.routing.shares, routing.shares[:, -5:])
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=0.02, rtol=0)


def test_half_precision_routes_all_forms_alike():
    """What a frame costs is no whole number of float16."""
    branches = [Dense, partial(Sparse, density=0.3), partial(LowRank, rank=9)]
    torch.manual_seed(0)
    encoder = AmortizedEncoder(300, 100, 1, branches, Arbitrator(300, 3))
    encoder.start_routing()
    encoder.prune(1.0)
    costs = encoder.eval().branch_flops
    with torch.no_grad():
        encoder.router.backlog.weight.mul_(3)
    assert encoder.half().branch_flops == costs and costs[0] > 65504
    x = torch.randn(2, 60, 300)
    _, routing = encoder(x)
    _, plain = copy.deepcopy(encoder).float()(x)
    assert torch.equal(routing.shares, plain.shares)
    assert torch.equal(routing.backlog, plain.backlog)


def test_a_part_of_the_weights_may_be_loaded():
    one, other = build(), build()
    with torch.no_grad():
        one.router.frame.weight.add_(1)
    part = {k: v for k, v in one.state_dict().items() if "router" in k}
    other.load_state_dict(part, strict=False)
    assert torch.equal(one.router.frame.weight, other.router.frame.weight)


@pytest.mark.parametrize("branch", [0, 1, 2])
def test_one_branch_alone_is_fixed_routing(branch):
    fixed = build(3, FixedRouting(3, branch))
    x = torch.randn(2, 12, INPUT)
    expected, routing = fixed(x, hard=False)
    for hard in (False, True):
        encoded, other = fixed(x, hard=hard, branch=branch)
        torch.testing.assert_close(encoded, expected, **CLOSE)
        assert torch.equal(other.choice, routing.choice)
        torch.testing.assert_close(fixed(x, hard=hard)[0], expected, **CLOSE)


def test_training_is_soft_and_evaluation_hard():
    encoder, x = build(), torch.randn(2, 12, INPUT)
    assert encoder(x)[0].requires_grad
    assert 0 < encoder(x)[1].shares.min() < 0.5
    assert not encoder.eval()(x)[0].requires_grad
    assert set(encoder(x)[1].shares.unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("hard", [True, False])
def test_only_the_branch_asked_for_is_computed(hard):
    encoder, x = build(3), torch.randn(2, 12, INPUT)
    clean, _ = encoder(x, hard=hard, branch=1)
    for layer in encoder.layers:
        for k in (0, 2):
            for module in (layer.input[k], layer.recurrent[k]):
                for parameter in module.parameters():
                    torch.nn.init.constant_(parameter, torch.nan)
            torch.nn.init.constant_(layer.bias[k], torch.nan)
    encoded, _ = encoder(x, hard=hard, branch=1)
    assert torch.equal(encoded, clean)
    if not hard:
        encoded.sum().backward()
        assert encoder.layers[0].bias[1].grad.isfinite().all()
        assert encoder.layers[0].bias[0].grad is None


@pytest.mark.parametrize(
    "router", [None, RandomRouting([0.5, 0.5])], ids=["arbitrator", "random"]
)
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("seed", range(3))
def test_streaming_equals_batch(router, batch, seed, device):
    encoder = build(2, router).to(device).eval()
    x = torch.randn(batch, 40, INPUT, device=device)
    expected, routing = encoder(x)
    generator = torch.Generator().manual_seed(seed)
    context = encoder.make_streaming_context(batch)
    encoded, routings = [], []
    while context.first < 40:
        size = torch.randint(1, 8, (), generator=generator).item()
        chunk = x[:, context.first : context.first + size]
        encoded.append(encoder.forward_streaming(chunk, context))
        routings.append(context.routing)
    torch.testing.assert_close(torch.cat(encoded, 1), expected, **CLOSE)
    for name in ("shares", "backlog", "time"):
        parts = torch.cat([getattr(one, name) for one in routings], 1)
        torch.testing.assert_close(parts, getattr(routing, name), **CLOSE)
    assert routing.backlog.max() > 0
    last = routing.backlog[:, -1] + routing.time[:, -1] - 0.04
    torch.testing.assert_close(context.backlog, last.clamp(min=0), **CLOSE)


def test_a_live_run_may_say_the_backlog():
    encoder, x = build().eval(), torch.randn(1, 1, INPUT)
    context = encoder.make_streaming_context()
    context.backlog.fill_(0.3)
    encoder.forward_streaming(x, context)
    assert context.routing.backlog.item() == pytest.approx(0.3)


@pytest.mark.parametrize("hard", [True, False])
def test_neither_batch_nor_padding_matters(hard, device):
    encoder = build().to(device).eval()
    frames = [20, 1, 13, 7]
    rows = [torch.randn(1, n, INPUT, device=device) for n in frames]
    batch = torch.full((4, 20, INPUT), torch.nan, device=device)
    for n, row in enumerate(rows):
        batch[n, : row.shape[1]] = row[0]
    lengths = torch.tensor(frames, device=device) / 20
    encoded, routing = encoder(batch, lengths, hard=hard)
    for n, row in enumerate(rows):
        count = frames[n]
        alone, own = encoder(row, hard=hard)
        torch.testing.assert_close(encoded[n, :count], alone[0], **CLOSE)
        assert not encoded[n, count:].any()
        for name in ("shares", "backlog", "time"):
            ours = getattr(routing, name)[n, :count]
            torch.testing.assert_close(ours, getattr(own, name)[0], **CLOSE)


def test_padding_has_no_gradient():
    encoder = build()
    x = torch.randn(2, 10, INPUT, requires_grad=True)
    encoded, _ = encoder(x, torch.tensor([1.0, 0.6]))
    encoded.sin().sum().backward()
    reached = x.grad.abs().sum(-1) > 0
    assert reached.sum(1).tolist() == [10, 6]
    assert not reached[1, 6:].any()


@pytest.mark.parametrize("mode", ["soft", "hard", "fixed"])
def test_a_frame_reaches_no_earlier_one(mode):
    encoder = build(2, FixedRouting(2, 1) if mode == "fixed" else None).eval()
    x = torch.randn(2, 15, INPUT)
    other = x.clone()
    other[0, 6] += 1
    before, routing = encoder(x, hard=mode != "soft")
    after, moved = encoder(other, hard=mode != "soft")
    # Not for equality: a product's rounding depends on its rows.
    differs = ((before - after).abs() > 1e-6).any(-1)
    assert not differs[0, :6].any() and differs[0, 6:].all()
    assert not differs[1].any()
    if mode == "soft":
        shares = ((routing.shares - moved.shares).abs() > 1e-6).any(-1)
        assert not shares[0, :6].any() and shares[0, 6:].all()


@pytest.mark.parametrize("hard", [True, False])
def test_autocast_stays_close_to_float32(hard):
    encoder, x = build(), torch.randn(3, 25, INPUT)
    plain, plain_routing = encoder(x, hard=hard, branch=0)
    with torch.autocast("cpu", torch.bfloat16):
        cast, _ = encoder(x, hard=hard, branch=0)
        routed, routing = encoder(x, hard=hard)
    torch.testing.assert_close(cast.float(), plain, atol=0.03, rtol=0)
    assert routing.shares.dtype == routing.backlog.dtype == torch.float32
    assert routed.isfinite().all() and routing.shares.isfinite().all()
    if not hard:
        exact, _ = encoder(x)
        torch.testing.assert_close(routed.float(), exact, atol=0.03, rtol=0)


def test_autocast_takes_what_it_made_itself():
    """A layer in front of the encoder gives it bfloat16."""
    encoder, x = build().eval(), torch.randn(3, 25, INPUT)
    expected, _ = encoder(x, branch=0)
    with torch.autocast("cpu", torch.bfloat16):
        front = torch.nn.functional.linear(x, torch.eye(INPUT))
        assert front.dtype == torch.bfloat16
        cast, _ = encoder(front, branch=0)
        whole, _ = encoder(front)
        context = encoder.make_streaming_context(batch=3)
        parts = [
            encoder.forward_streaming(part, context)
            for part in (front[:, :0], front[:, :9], front[:, 9:])
        ]
    torch.testing.assert_close(cast, expected, atol=0.03, rtol=0)
    torch.testing.assert_close(torch.cat(parts, 1), whole, **CLOSE)


@pytest.mark.parametrize(
    "lengths", [[25, 10, 3], [0.4], [0.0, 1.0, 1.0], [1.0, math.nan, 1.0]]
)
def test_lengths_are_relative_and_one_for_each(lengths):
    encoder, x = build(), torch.randn(3, 25, INPUT)
    with pytest.raises(ValueError, match=r"lengths must be \[3\], above 0"):
        encoder(x, torch.tensor(lengths))
    _, routing = encoder(x, torch.tensor([1.0, 0.4, 0.1]))
    with pytest.raises(ValueError, match=r"lengths must be \[3\], above 0"):
        BacklogAwareLoss(0.04)(routing, torch.tensor(lengths), 8.0)


def test_autocast_has_a_gradient():
    encoder, x = build(), torch.randn(3, 25, INPUT)
    grads = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            encoded, routing = encoder(x)
            loss = encoded.float().square().sum() + routing.backlog.sum()
        encoder.zero_grad()
        loss.backward()
        grads.append([p.grad for p in encoder.parameters()])
    for exact, cast in zip(*grads):
        assert cast.isfinite().all()
        error = torch.linalg.norm(cast - exact) / torch.linalg.norm(exact)
        assert error < 0.05


def test_every_parameter_learns():
    encoder = build(3)
    encoded, _ = encoder(torch.randn(2, 12, INPUT))
    encoded.sin().sum().backward()
    idle = [n for n, p in encoder.named_parameters() if not p.grad.any()]
    assert not idle


def test_dropout_only_in_training():
    encoder, x = build(dropout=0.5), torch.randn(2, 12, INPUT)
    assert 0.3 < (encoder(x)[0] == 0).float().mean() < 0.7
    assert (encoder.eval()(x, hard=False)[0] != 0).all()


def test_start_routing_gives_every_branch_the_first_one_s_weights():
    encoder = build(3)
    for layer in encoder.layers:
        torch.nn.init.normal_(layer.bias[0])
        # Of rank 3: a rank of 4 holds it all, one of 1 does not.
        for form in (layer.input[0], layer.recurrent[0]):
            form.copy_from(
                torch.randn(form.rows, 3) @ torch.randn(3, form.columns)
            )
    x = torch.randn(2, 12, INPUT)
    assert encoder.routed == 0
    encoder.start_routing()
    dense, full, thin = (encoder(x, branch=k, hard=False)[0] for k in range(3))
    torch.testing.assert_close(full, dense, atol=1e-4, rtol=0)
    assert (thin - dense).abs().max() > 1e-3
    for layer in encoder.layers:
        assert all(torch.equal(bias, layer.bias[0]) for bias in layer.bias)
        u, s, v = torch.linalg.svd(layer.input[0].weight)
        torch.testing.assert_close(
            torch.mm(*layer.input[2].factors()), s[0] * u[:, :1] @ v[:1]
        )
    assert encoder.state_dict()["routed"] == 1


def test_every_branch_can_start_from_another_encoder():
    dense = AmortizedEncoder(INPUT, HIDDEN, LAYERS, [Dense])
    for layer in dense.layers:
        torch.nn.init.normal_(layer.bias[0])
    encoder = build(3)
    router = [p.clone() for p in encoder.router.parameters()]
    encoder.start_from(dense)
    x = torch.randn(2, 12, INPUT)
    expected, _ = dense(x, hard=True)
    torch.testing.assert_close(encoder(x, branch=0, hard=True)[0], expected)
    for layer, theirs in zip(encoder.layers, dense.layers, strict=True):
        u, s, v = torch.linalg.svd(theirs.input[0].weight)
        torch.testing.assert_close(
            torch.mm(*layer.input[2].factors()), s[0] * u[:, :1] @ v[:1]
        )
        assert all(torch.equal(b, theirs.bias[0]) for b in layer.bias)
    assert all(map(torch.equal, router, encoder.router.parameters()))
    small = AmortizedEncoder(INPUT, HIDDEN, LAYERS, [partial(LowRank, rank=2)])
    small.start_from(encoder)
    torch.testing.assert_close(small.layers[0].bias[0], dense.layers[0].bias[0])


def test_an_encoder_of_another_size_is_no_start():
    with pytest.raises(ValueError, match="hidden size"):
        build().start_from(AmortizedEncoder(INPUT, HIDDEN + 1, LAYERS, [Dense]))


def test_start_routing_may_leave_the_weights():
    encoder = build()
    before = [p.clone() for p in encoder.parameters()]
    encoder.start_routing(copy=False)
    assert encoder.routed == 1
    assert all(map(torch.equal, before, encoder.parameters()))


def test_costs_equal_those_by_hand():
    encoder = AmortizedEncoder(
        input_size=320,
        hidden_size=256,
        layers=3,
        branches=[Dense, partial(LowRank, rank=32)],
        router=Arbitrator(320, branches=2, hidden=16),
    )
    dense = 2 * 1024 * (320 + 5 * 256)
    low = 2 * 32 * ((1024 + 320) + 5 * (1024 + 256))
    router = 2 * 16 * (320 + 1 + 2)
    assert encoder.dense_flops == dense == 3_276_800
    assert encoder.branch_flops == [dense + router, low + router]
    routing = encoder(torch.randn(1, 2, 320), branch=1)[1]
    assert routing.flops.unique().tolist() == [low + router]


@pytest.mark.parametrize(
    "device, seconds",
    [
        (None, 0.08),
        (Device(load=1.5), 0.06),
        (Device(flops_per_second=1e3), 8 * HIDDEN * (INPUT + 3 * HIDDEN) / 1e3),
    ],
)
def test_time_of_a_frame_is_that_of_the_target_device(device, seconds):
    encoder = build(1, FixedRouting(1), target_device=device)
    routing = encoder(torch.randn(2, 3, INPUT))[1]
    torch.testing.assert_close(routing.time, torch.full((2, 3), seconds))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"branches": []}, "at least one weight form, got none"),
        ({"branches": BRANCHES[:2], "router": None}, "given for 2 branches"),
        (
            {"branches": BRANCHES[1::-1], "router": FixedRouting(2)},
            r"most expensive first, got LowRank [\d,]+, Dense [\d,]+ FLOPs",
        ),
        (
            {"branches": BRANCHES[:2], "router": FixedRouting(3)},
            "router chooses among 3 branches, but branches lists 2",
        ),
        (
            {"branches": [partial(LowRank, rank=9)]},
            r"branches\[0\]: LowRank: rank: expected 1 to 8 for a 32 x 8 "
            "matrix, got 9",
        ),
        (
            {
                "branches": [Dense, partial(Sparse, density="a")],
                "router": FixedRouting(2),
            },
            r"branches\[1\]: Sparse: density must be above 0 .* got a",
        ),
        ({"branches": "Dense"}, "at least one weight form, got Dense"),
        ({"layers": 0}, "layers must be a whole number, 1 or more, got 0"),
        ({"hidden_size": "8"}, "hidden_size must be a whole .* got '8'"),
        ({"target_device": 2.0}, "target_device must be a Device.* got 2.0"),
        (
            {"branches": BRANCHES[:2], "router": Arbitrator(INPUT + 1)},
            f"frames of {INPUT + 1} features, but input_size is {INPUT}",
        ),
    ],
)
def test_what_cannot_be_built_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        AmortizedEncoder(
            **{
                "input_size": INPUT,
                "hidden_size": HIDDEN,
                "layers": LAYERS,
                "branches": BRANCHES[:1],
                **arguments,
            }
        )


@pytest.mark.parametrize(
    "shape", [(2, 5, INPUT + 1), (2, 0, INPUT), (5, INPUT)]
)
def test_features_of_another_shape_are_named(shape):
    encoder, x = build().eval(), torch.zeros(shape)
    context = encoder.make_streaming_context(2)
    runs = [encoder]
    if x.numel():  # a chunk of a stream may have no frame
        runs.append(partial(encoder.forward_streaming, context=context))
    for run in runs:
        with pytest.raises(ValueError, match=r"frames, 10\]") as error:
            run(x)
        assert f"got {list(shape)}" in str(error.value)


@pytest.mark.parametrize("before", [0, 3])
def test_a_chunk_without_frames_changes_nothing(before):
    encoder, x = build().eval(), torch.randn(2, 8, INPUT)
    expected, routing = encoder(x)
    context = encoder.make_streaming_context(batch=2)
    parts = []
    for chunk in (x[:, :before], x[:, :0], x[:, before:]):
        parts.append(encoder.forward_streaming(chunk, context))
        assert (context.routing is None) is not chunk.numel()
    assert parts[1].shape == (2, 0, HIDDEN)
    torch.testing.assert_close(torch.cat(parts, 1), expected, **CLOSE)
    backlog = routing.backlog[:, before:]
    torch.testing.assert_close(context.routing.backlog, backlog, **CLOSE)


@pytest.mark.parametrize("first", [0, 2])
def test_a_fresh_context_takes_the_batch_of_its_first_chunk(first):
    encoder, x = build().eval(), torch.randn(3, 8, INPUT)
    expected, _ = encoder(x)
    context = encoder.make_streaming_context(DynChunkTrainConfig(4))
    chunks = x[:, :first], x[:, first:]
    parts = [encoder.forward_streaming(chunk, context) for chunk in chunks]
    torch.testing.assert_close(torch.cat(parts, 1), expected, **CLOSE)
    with pytest.raises(ValueError, match="batch size of its stream, 3, got 1"):
        encoder.forward_streaming(x[:1], context)
    context = encoder.make_streaming_context(batch=2)
    with pytest.raises(ValueError, match="batch size of its stream, 2, got 3"):
        encoder.forward_streaming(x, context)


def test_utterances_of_a_training_meet_devices_of_their_own():
    device = Device(load=2.0, train_loads=[1.0, 4.0])
    encoder = AmortizedEncoder(
        4, 3, 1, [Dense], target_device=device, frame_duration=0.04
    )
    x = torch.zeros(2000, 1, 4)
    _, routing = encoder(x)
    loads = routing.time[:, 0] / 0.04
    assert 1.0 <= loads.min() < 1.01 and 3.96 < loads.max() <= 4.0
    # Evenly over the logarithm: half of them below the geometric mean.
    assert 0.45 < (loads < 2.0).float().mean() < 0.55
    _, routing = encoder.eval()(x)
    assert (routing.time / 0.04).allclose(torch.tensor(2.0))
    assert encoder.router.loads == [1.0, 4.0]
    # It reads what the first branch takes, whatever that is.
    cheap = AmortizedEncoder(
        4, 3, 1, [partial(LowRank, rank=1)], target_device=device
    )
    share = cheap.branch_flops[0] / cheap.dense_flops
    assert cheap.router.loads == [share, 4 * share] and share < 0.7


@pytest.mark.parametrize("warm_up", [True, False])
def test_only_what_learns_meets_other_devices(warm_up):
    """A hard run or a stream in training has the device that it is for."""
    device = Device(load=2.0, train_loads=[3.0, 4.0])
    encoder = build(target_device=device, frame_duration=0.04).train()
    flops = torch.tensor(encoder.branch_flops) / encoder.dense_flops
    x = torch.randn(3, 4, INPUT)
    branch = 0 if warm_up else None
    state = torch.get_rng_state()
    _, hard = encoder(x, hard=True, branch=branch)
    torch.testing.assert_close(hard.branch_time, 0.08 * flops)
    context = encoder.make_streaming_context(batch=3)
    slow = Device(load=8.0, train_loads=[3.0, 4.0])
    for context.device, load in ((None, 2.0), (slow, 8.0)):
        encoder.forward_streaming(x, context)
        times = context.routing.branch_time
        torch.testing.assert_close(times, 0.04 * load * flops)
    routing, _ = encoder.route(x, hard=False, context=context)
    assert torch.equal(routing.branch_time, times)
    _, soft = encoder.eval()(x, hard=False, branch=branch)
    assert torch.equal(soft.branch_time, hard.branch_time)
    assert torch.equal(torch.get_rng_state(), state), "nothing was drawn"
    _, soft = encoder.train()(x, hard=False, branch=branch)
    assert soft.branch_time.shape == (3, 2)
    assert (soft.branch_time > 0.119 * flops).all()


def test_a_router_keeps_the_loads_that_it_learnt():
    """On a device that is no training's, whatever is loaded or started."""
    device = Device(load=2.0, train_loads=[1.0, 4.0])
    router = Arbitrator(INPUT, 2, use_device=True, use_backlog=False)
    encoder = build(2, router, target_device=device).eval()
    learnt = encoder.router.loads
    assert learnt[1] == 4 * learnt[0]
    encoder.target_device = Device(load=4.0)
    x = torch.randn(2, 5, INPUT)
    _, routing = encoder(x)
    encoder.target_device = Device(load=80.0)
    encoder.load_state_dict(encoder.state_dict())
    assert encoder.router.loads == learnt
    _, slow = encoder(x)
    assert torch.equal(slow.probabilities, routing.probabilities)
    encoder.start_routing()
    assert encoder.router.loads == learnt
    # Of a device that a training draws, what it draws.
    encoder.target_device = Device(load=2.0, train_loads=[2.0, 4.0])
    encoder.load_state_dict(encoder.state_dict())
    assert encoder.router.loads == [2 * learnt[0], learnt[1]]
    assert build().router.loads is None


def test_loads_are_those_of_the_rank_that_energy_leaves():
    """Which is known when weights are there, and not before."""

    def made():
        device = Device(load=2.0, train_loads=[1.0, 4.0])
        branches = [partial(LowRank, energy=0.5)]
        return AmortizedEncoder(12, 12, 1, branches, target_device=device)

    encoder, dense = made(), AmortizedEncoder(12, 12, 1, [Dense])
    before = encoder.router.loads
    with torch.no_grad():
        for part in (dense.layers[0].input, dense.layers[0].recurrent):
            part[0].weight.copy_(torch.outer(torch.ones(48), torch.ones(12)))
    encoder.start_from(dense)
    share = encoder.branch_flops[0] / encoder.dense_flops
    assert encoder.router.loads == [share, 4 * share]
    assert encoder.router.loads[0] < 0.5 * before[0]
    again = made()
    again.load_state_dict(encoder.state_dict())
    assert again.router.loads == encoder.router.loads


def test_a_rank_that_makes_a_branch_the_dearest_is_told(caplog):
    """Hours into a training it is too late to refuse it."""
    branches = [partial(LowRank, rank=8), partial(LowRank, energy=1.0)]
    with pytest.raises(ValueError, match="must be ordered by cost"):
        AmortizedEncoder(12, 12, 1, branches, Arbitrator(12))
    encoder = AmortizedEncoder(12, 12, 1, branches[::-1], Arbitrator(12))
    dense = AmortizedEncoder(12, 12, 1, [Dense])
    with torch.no_grad():
        for part in (dense.layers[0].input, dense.layers[0].recurrent):
            part[0].weight.copy_(torch.outer(torch.ones(48), torch.ones(12)))
    encoder.start_from(dense)
    assert "branches must be ordered by cost" in caplog.text


def test_a_speed_that_is_never_drawn_is_not_learnt():
    router = Arbitrator(INPUT, 2, use_device=True)
    with pytest.raises(ValueError, match="give target_device train_loads"):
        AmortizedEncoder(INPUT, 4, 1, [Dense, Dense], router)


@pytest.mark.parametrize("hard", [True, False])
def test_autocast_routes_as_float32_does(hard):
    """Rounded to 8 bits, frames near a decision would take another branch."""
    encoder, x = build(), torch.randn(8, 200, INPUT)
    encoder.router.temperature.fill_(1e5)
    _, plain = encoder(x, hard=hard)
    with torch.autocast("cpu", torch.bfloat16):
        _, cast = encoder(x, hard=hard)
    assert torch.equal(cast.shares, plain.shares)


def test_a_training_meets_the_ends_more_often():
    device = Device(load=2.0, train_loads=[1.0, 4.0], train_ends=0.5)
    encoder = AmortizedEncoder(
        4, 3, 1, [Dense], target_device=device, frame_duration=0.04
    )
    _, routing = encoder(torch.zeros(4000, 1, 4))
    loads = routing.time[:, 0] / 0.04
    for end in (1.0, 4.0):
        share = loads.isclose(torch.tensor(end)).float().mean()
        assert share == pytest.approx(0.25, abs=0.03)
    assert 1.0 <= loads.min() and loads.max() <= 4.0001
    assert (loads < 2.0).float().mean() == pytest.approx(0.5, abs=0.04)


def test_a_sparse_branch_that_nobody_prunes_is_noticed(caplog):
    branches = [Dense, partial(Sparse, density=0.1)]
    router = Arbitrator(INPUT, 2)
    encoder = AmortizedEncoder(INPUT, 8, 1, branches, router).eval()
    x = torch.randn(1, 3, INPUT)
    encoder(x)  # nothing is mixed yet
    assert not caplog.messages
    encoder.start_routing()
    encoder(x)
    encoder(x)
    (said,) = caplog.messages
    assert "keep all of their" in said and "encoder.prune(share)" in said
    caplog.clear()
    encoder = AmortizedEncoder(INPUT, 8, 1, branches, router).eval()
    encoder.start_routing()
    encoder.prune(0.5)
    encoder(x)
    assert not caplog.messages
