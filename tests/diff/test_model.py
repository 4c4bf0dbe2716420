"""DiffModel reaches every weight, and takes itself out again."""

import copy
from functools import partial

import numpy as np
import pytest
import torch
from speechbrain.nnet.CNN import Conv2d
from speechbrain.nnet.linear import Linear
from speechbrain.processing.features import GlobalNorm, InputNormalization
from torch import nn

from speechbrain_amnet import (
    AmortizedEncoder,
    Arbitrator,
    Dense,
    Device,
    EnergyRouting,
    LowRank,
    Sparse,
)
from speechbrain_amnet.diff.applying import apply_diff
from speechbrain_amnet.diff.file import (
    DiffError,
    fingerprint,
    from_bytes,
    new_tensors,
    read_diff,
    to_bytes,
)
from speechbrain_amnet.diff.folder import apply_update
from speechbrain_amnet.diff.hashed import HashDiff
from speechbrain_amnet.diff.lowrank import LowRankDiff
from speechbrain_amnet.diff.model import DiffModel
from speechbrain_amnet.diff.model_files import ModelFiles
from speechbrain_amnet.diff.sparse import SparseDiff
from speechbrain_amnet.weights import OtherBranchesError

KINDS = {
    "sparse": SparseDiff,
    "hash": partial(HashDiff, share=0.3),
    "lowrank": partial(LowRankDiff, rank=2),
}


class Net(nn.Module):
    """One of each kind of layer."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(10, 6)
        self.conv = nn.Conv1d(6, 8, 3, padding=1)
        self.lstm = nn.LSTM(8, 5, 2, batch_first=True)
        self.gru = nn.GRU(5, 4, batch_first=True, bidirectional=True)
        self.linear = nn.Linear(8, 3)

    def forward(self, tokens):
        x = self.conv(self.embedding(tokens).transpose(1, 2)).transpose(1, 2)
        return self.linear(self.gru(self.lstm(x)[0])[0])


@pytest.fixture(params=["net", "encoder"])
def net(request):
    """A model, and something to put in."""
    torch.manual_seed(0)
    if request.param == "net":
        return Net(), torch.randint(10, (2, 7))
    encoder = AmortizedEncoder(
        input_size=6,
        hidden_size=8,
        layers=2,
        branches=[
            Dense,
            partial(LowRank, rank=3),
            partial(Sparse, density=0.25),
        ],
        router=Arbitrator(6, branches=3, hidden=4),
        target_device=Device(load=6.0),  # there is a backlog
    )
    return encoder, torch.randn(2, 7, 6)


def output(model, x):
    """The first of what comes out."""
    found = model(x)
    return found[0] if isinstance(found, tuple) else found


def learn(model, x, steps=3):
    """A few steps of training the diff."""
    training = model.training
    model.train()
    optimizer = torch.optim.Adam(model.diff_parameters(), 0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        output(model, x).square().sum().backward()
        optimizer.step()
    model.train(training)


@pytest.mark.parametrize("kind", KINDS)
def test_every_weight_learns_and_the_base_does_not(net, kind):
    module, x = net
    before = {n: p.clone() for n, p in module.named_parameters()}
    plain = output(module, x)
    model = DiffModel(module, KINDS[kind])
    assert set(model.diffs) == set(before)
    assert torch.equal(output(model, x), plain)
    learn(model, x)
    for name, old in before.items():
        assert torch.equal(model.base(name), old)
        # A third branch of the mixture is one of many; all are reached.
        assert model.diffs[name].delta().any(), name
    assert not torch.equal(output(model, x), plain)
    learnt = {id(p) for p in model.diff_parameters()}
    for parameter in module.parameters():
        assert parameter.requires_grad == (id(parameter) in learnt)


@pytest.mark.parametrize("kind", KINDS)
def test_merged_is_equal_and_unmerged_is_the_base(net, kind):
    module, x = net
    module.eval()
    before = {n: p.clone() for n, p in module.named_parameters()}
    model = DiffModel(module, KINDS[kind])
    learn(model, x)
    now, plain = output(model, x), {}
    for name, (owner, leaf) in model.places.items():
        plain[name] = getattr(owner, leaf).clone()
    model.merge()
    # Exactly these weights; a product may depend on where they lie in memory.
    for name, parameter in module.named_parameters():
        assert torch.equal(parameter, plain[name])
    assert torch.allclose(output(module, x), now, atol=1e-6)
    assert set(dict(module.named_parameters())) == set(before)
    assert not any("Parametrized" in type(m).__name__ for m in module.modules())
    with pytest.raises(ValueError, match="merged already"):
        model.merge()
    model.unmerge()
    assert torch.allclose(output(model, x), now, atol=1e-6)
    for name, old in before.items():
        assert torch.equal(model.base(name), old)
    with pytest.raises(ValueError, match="not merged"):
        model.unmerge()


@pytest.mark.parametrize("kind", KINDS)
def test_file_makes_the_very_same_model(net, kind):
    module, x = net
    module.eval()
    model = DiffModel(module, KINDS[kind])
    learn(model, x)
    if kind == "sparse":
        for diff in model.diffs.values():
            count = diff.dense.numel()
            diff.keep(torch.arange(0, count, 3))
            diff.round(4)
    diff = from_bytes(to_bytes(model.to_diff(4, {"method": kind})))
    trained = {
        name: getattr(owner, leaf).detach().clone()
        for name, (owner, leaf) in model.places.items()
    }
    base = {n: model.base(n).numpy().copy() for n in model.diffs}
    apply_diff(diff, base)
    model.merge(diff)
    for name, (owner, leaf) in model.places.items():
        sent = getattr(owner, leaf)
        assert np.array_equal(sent.numpy(), base[name])
        # What was trained; but for the steps where these were not trained.
        step = 1e-6 if kind == "sparse" else 0.3
        assert torch.allclose(sent, trained[name], atol=step)


def test_budget_used_is_the_files(net):
    module, x = net
    model = DiffModel(module, KINDS["hash"])
    learn(model, x)
    weights = sum(model.base(name).numel() for name in model.diffs)
    assert model.size == weights
    assert model.budget_used(8) == len(to_bytes(model.to_diff(8))) / 4 / weights


def test_names_of_a_dict_are_those_of_its_files():
    model = DiffModel({"encoder": nn.Linear(2, 3), "joint": nn.Linear(3, 2)})
    assert sorted(model.diffs) == [
        "encoder.bias",
        "encoder.weight",
        "joint.bias",
        "joint.weight",
    ]


def test_patterns():
    model = DiffModel(Net(), include=["lstm*", "linear*"], exclude=["*bias*"])
    assert "linear.weight" in model.diffs and "lstm.weight_hh_l1" in model.diffs
    assert not any("bias" in n or "gru" in n for n in model.diffs)
    with pytest.raises(ValueError, match="no weight is called 'ltsm.*'"):
        DiffModel(Net(), include=["ltsm.*"])
    with pytest.raises(ValueError, match=r'a list of patterns, as \["lstm"\]'):
        DiffModel(Net(), include="lstm")
    with pytest.raises(ValueError, match="the model has no weights"):
        DiffModel({})
    with pytest.raises(ValueError, match="leave no weight"):
        DiffModel(Net(), include=["linear*"], exclude=["linear*"])


def test_moving_to_half_precision_moves_all():
    model = DiffModel(Net()).double()
    learn(model, torch.randint(10, (2, 7)), 1)
    assert all(p.dtype == torch.double for p in model.diff_parameters())


def test_a_type_that_changed_since_is_refused():
    model = DiffModel(Net())
    model.merge()
    model.double()
    with pytest.raises(ValueError, match="float64 now and was torch.float32"):
        model.unmerge()
    assert model.merged and len(model.bases) == len(model.places)
    model.float().unmerge()
    learn(model, torch.randint(10, (2, 7)), 1)


def test_tied_weights_are_refused():
    net = Net()
    net.linear.weight = net.conv.weight
    with pytest.raises(ValueError, match="weight is one weight with"):
        DiffModel(net)
    with pytest.raises(ValueError, match="conv.weight is one weight with"):
        DiffModel(net, exclude=["linear.*"])
    kept = ["linear.weight", "conv.weight"]
    assert not set(DiffModel(net, exclude=kept).diffs) & set(kept)


def test_running_statistics_stay_as_they_are():
    norm = nn.BatchNorm1d(3)
    model = DiffModel(nn.Sequential(norm, nn.Dropout())).train()
    model(torch.randn(8, 3))
    assert not norm.running_mean.any() and norm.num_batches_tracked == 0
    assert model.model[1].training
    # A Brain's modules, of which the diff is one, in any order.
    nn.ModuleDict({"updated": model, "norm": norm}).train()
    norm(torch.randn(8, 3))
    assert not norm.running_mean.any()


def test_statistics_of_speechbrain_stay_too():
    norm = InputNormalization(norm_type="global")
    norm(torch.randn(4, 10, 3), torch.ones(4))
    before = norm.glob_mean.clone()
    modules = {"norm": norm, "output": nn.Linear(3, 2)}
    DiffModel(modules).train()
    nn.ModuleDict(modules).train()
    norm(3 + torch.randn(4, 10, 3), torch.ones(4))
    assert torch.equal(norm.glob_mean, before)


def test_statistics_that_move_in_evaluation_stay_too():
    norm = GlobalNorm()
    norm(torch.randn(4, 10, 3), torch.ones(4))
    before = norm.running_mean.clone()
    DiffModel({"norm": norm, "output": nn.Linear(3, 2)})
    norm(3 + torch.randn(4, 10, 3), torch.ones(4))
    assert torch.equal(norm.running_mean, before)


@pytest.mark.parametrize("budget", [None, "90%"])
def test_a_diff_for_deployed_files_is_in_their_types(budget, tmp_path):
    """Of half precision, trained in whole; and for no other model."""
    folder = tmp_path / "deployed"
    folder.mkdir()
    net = nn.Linear(30, 20)
    state = {n: w.half() for n, w in net.state_dict().items()}
    torch.save(state | {"other": torch.ones(3)}, folder / "net.ckpt")
    net.load_state_dict(state)
    model = DiffModel({"net": net}, partial(HashDiff, share=0.3), ["*weight"])
    model.diffs["net.weight"].start(torch.randn(20, 30))
    file = tmp_path / "update.diff"
    model.save(file, budget, bits=8, base=folder)
    apply_update(folder, file, tmp_path / "new")
    new = ModelFiles(tmp_path / "new")
    assert new["net.weight"].dtype == np.float16
    assert not np.array_equal(new["net.weight"], state["weight"].numpy())
    assert np.array_equal(new["net.bias"], state["bias"].numpy())
    torch.save(state | {"other": torch.zeros(3)}, folder / "net.ckpt")
    with pytest.raises(DiffError, match="is that of another model"):
        apply_update(folder, file, tmp_path / "next")
    arrays = {"net.weight": (net.weight + 1).detach()}
    for wrong, message in (
        (arrays, "net.weight is not the one that was trained from"),
        ({"x.weight": arrays["net.weight"]}, "it has no net.weight; it has x."),
    ):
        with pytest.raises(ValueError, match=message):
            model.save(file, budget, bits=8, base=wrong)


def test_what_a_device_of_half_precision_gets_can_be_merged(tmp_path):
    net = nn.Linear(30, 20)
    state = {n: w.half() for n, w in net.state_dict().items()}
    base = tmp_path / "base"
    base.mkdir()
    torch.save(state, base / "net.ckpt")
    net.load_state_dict(state)
    model = DiffModel({"net": net}, partial(HashDiff, share=0.3), ["*weight"])
    model.diffs["net.weight"].start(torch.randn(20, 30))
    model.save(tmp_path / "a.diff", base=base)
    diff = read_diff(tmp_path / "a.diff")
    with pytest.raises(DiffError, match="not the base of this diff"):
        model.merge(diff)
    model.merge(diff, base=base)
    apply_update(base, tmp_path / "a.diff", tmp_path / "new")
    new = ModelFiles(tmp_path / "new")["net.weight"]
    assert np.array_equal(net.weight.numpy(), new.astype("float32"))


def deployed_and_trained(folder):
    """Two parts, one of which is not updated, and their deployed files."""
    parts = {"encoder": nn.Linear(4, 3), "output": nn.Linear(3, 2)}
    for name, part in parts.items():
        torch.save(part.state_dict(), folder / f"{name}.ckpt")
    model = DiffModel(parts, partial(HashDiff, share=0.5), ["encoder.*"])
    model.diffs["encoder.weight"].start(torch.ones(3, 4))
    return parts, model


def test_what_was_trained_with_other_files_is_not_saved_for_these(tmp_path):
    """Also where the difference is in what the diff does not change."""
    parts, model = deployed_and_trained(tmp_path)
    file = tmp_path / "update.diff"
    model.save(file, base=tmp_path)
    for name in ("output.weight", "encoder.bias"):  # no diff, and one of zero
        frozen = dict(model.model.named_parameters()).get(name)
        frozen = model.base(name) if frozen is None else frozen
        loaded = frozen.clone()
        frozen.data += 1
        message = f"base: its {name} is not the one that was trained"
        with pytest.raises(ValueError, match=message):
            model.save(file, base=tmp_path)
        frozen.data.copy_(loaded)
    parts["output"].register_buffer("mean", torch.zeros(2))
    model.save(file, base=tmp_path)  # files do not have it
    state = parts["output"].state_dict()
    torch.save(state | {"mean": torch.ones(2)}, tmp_path / "output.ckpt")
    with pytest.raises(ValueError, match="its output.mean is not the one"):
        model.save(file, base=tmp_path)


def test_a_diff_for_files_without_a_weight_is_not_merged(tmp_path):
    _, model = deployed_and_trained(tmp_path)
    diff = model.to_diff(8)
    (tmp_path / "encoder.ckpt").unlink()
    with pytest.raises(ValueError, match="no encoder.*; it has output.weight"):
        model.merge(diff, base=tmp_path)
    assert not model.merged


@pytest.mark.parametrize(
    "spectral_norm",
    [nn.utils.spectral_norm, nn.utils.parametrizations.spectral_norm],
)
def test_what_a_spectral_norm_has_found_stays(spectral_norm, tmp_path):
    torch.manual_seed(0)
    part = spectral_norm(nn.Linear(8, 6))
    state = {n: t.clone() for n, t in part.state_dict().items()}
    base, file = tmp_path / "base", tmp_path / "update.diff"
    base.mkdir()
    torch.save(state, base / "part.ckpt")
    model = DiffModel({"part": part}, HashDiff).train()
    optimizer = torch.optim.Adam(model.diff_parameters(), 0.05)
    for _ in range(3):
        model.train()
        part(torch.randn(3, 8)).square().sum().backward()
        optimizer.step()
    model.save(file, bits=32, base=base)
    apply_update(base, file, tmp_path / "new")
    new = spectral_norm(nn.Linear(8, 6))
    new.load_state_dict(ModelFiles(tmp_path / "new").states["part"])
    x = torch.randn(3, 8)
    assert torch.equal(new.eval()(x), part(x))


def test_a_threshold_for_loud_frames_stays():
    """It follows what is heard in training, and no diff brings it."""
    encoder = AmortizedEncoder(
        6, 8, 1, [Dense, partial(LowRank, rank=2)], EnergyRouting(0.5)
    )
    encoder(torch.randn(2, 9, 6))  # in training
    before = encoder.router.threshold.clone()
    model = DiffModel(encoder).train()
    model(torch.randn(2, 9, 6))
    assert encoder.training and torch.equal(encoder.router.threshold, before)
    model.merge()
    model.train()
    model(torch.randn(2, 9, 6))
    assert not torch.equal(encoder.router.threshold, before)


@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_what_is_scaled_in_place_gets_no_diff(kind, tmp_path):
    if kind == "linear":
        layer = Linear(n_neurons=4, input_size=8, max_norm=0.5)
        x = torch.randn(2, 8)
    else:
        layer = Conv2d(4, (3, 3), input_shape=(1, 8, 8, 2), max_norm=0.5)
        x = torch.randn(1, 8, 8, 2)
    torch.save(layer.state_dict(), tmp_path / "layer.ckpt")
    with pytest.raises(ValueError, match="has max_norm=0.5 and scales it"):
        DiffModel({"layer": layer})
    assert all(p.requires_grad for p in layer.parameters())
    model = DiffModel({"layer": layer}, HashDiff, exclude=["*weight"])
    for diff in model.diffs.values():
        diff.start(torch.ones(diff.shape))
    layer(x)  # and so it does, as the deployed one will
    model.save(tmp_path / "update.diff", base=tmp_path)


def test_tables_that_scale_what_they_look_up_get_one():
    table = nn.Embedding(5, 4, max_norm=0.5)
    model = DiffModel(table)
    model.diffs["weight"].start(torch.randn(5, 4))
    tokens = torch.arange(5)
    found = [model(tokens), table(tokens)]
    model.merge()
    found.append(table(tokens))
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_after_a_step_is_the_same_model(kind):
    torch.manual_seed(0)
    tokens = torch.randint(10, (2, 7))
    model = DiffModel(Net(), KINDS[kind], exclude=["lstm.bias_hh_l0"])
    learn(model, tokens)
    with model.computed():
        model(tokens)  # which ends within
        inside = model.model(tokens)
    again = copy.deepcopy(model)
    now = model(tokens)
    assert torch.equal(inside, now) and torch.equal(again(tokens), now)
    learn(again, tokens, 1)
    assert torch.equal(model(tokens), now)
    assert not torch.equal(again(tokens), now)
    model.merge()
    assert torch.equal(copy.deepcopy(model)(tokens), model(tokens))


def test_numbers_that_are_none_are_not_merged():
    model = DiffModel(nn.Linear(3, 2), HashDiff)
    model.diffs["weight"].start(torch.ones(2, 3))
    diff = model.to_diff(8)
    diff.changes["weight"].buckets.scale = np.float32(np.nan)
    diff.result = fingerprint(
        new_tensors(diff.changes, model.base_arrays(diff.changes))
    )
    with pytest.raises(DiffError, match="makes NaN or infinity of weight"):
        model.merge(diff)
    assert not model.merged


@pytest.mark.parametrize("wrong", ["type", "diff"])
def test_a_refused_model_is_as_it_was(wrong):
    net = Net()
    if wrong == "type":
        net.linear.double()

    def diff(weight, name):
        if wrong == "diff" and "linear" in name:
            raise ValueError("is float64")
        return SparseDiff(weight, name)

    before = list(net.state_dict())
    with pytest.raises(ValueError, match="is .*float64"):
        DiffModel(net, diff)
    assert list(net.state_dict()) == before
    assert all(p.requires_grad for p in net.parameters())


def test_statistics_move_again_when_merged():
    norm = nn.BatchNorm1d(3)
    model = DiffModel(norm)
    model.merge()
    norm.train()
    norm(torch.randn(8, 3))
    assert norm.num_batches_tracked == 1
    model.unmerge()
    norm.train()
    norm(torch.randn(8, 3))
    assert norm.num_batches_tracked == 1


def test_a_model_has_one_diff():
    net = Net()
    DiffModel(net, include=["linear*"])
    with pytest.raises(ValueError, match="has a diff already; load it anew"):
        DiffModel(net)


def test_what_has_no_numbers_gets_no_diff():
    net = nn.Sequential(nn.Linear(3, 2))
    net.empty = nn.Parameter(torch.zeros(0, 3))
    assert sorted(DiffModel(net).diffs) == ["0.bias", "0.weight"]


def test_what_is_dense_is_not_rounded():
    model = DiffModel(nn.Linear(2, 3))
    with pytest.raises(ValueError, match="keep\\(\\) comes first"):
        model.round(4)
    with pytest.raises(ValueError, match="bits must be 2 to 8"):
        model.round(12)


def test_best_positions_are_kept_within_the_budget():
    torch.manual_seed(0)
    model = DiffModel(nn.Linear(100, 100))
    with torch.no_grad():
        for diff in model.diffs.values():
            diff.dense.normal_()
    learnt = model.diffs["weight"].dense.detach().flatten().clone()
    dense = learnt.abs()
    model.keep_best("3%", bits=4)
    kept = model.diffs["weight"].positions
    assert torch.equal(model.diffs["weight"].values, learnt[kept])
    rest = torch.ones(len(dense), dtype=torch.bool)
    rest[kept] = False
    assert dense[kept].min() >= dense[rest].max()
    assert 0.9 * 0.03 < model.budget_used(4) <= 0.03


def test_a_diff_of_another_base_is_not_merged():
    torch.manual_seed(0)
    models = [DiffModel(nn.Linear(3, 2), LowRankDiff) for _ in range(2)]
    for model in models:
        learn(model, torch.ones(1, 3))
    other = models[1].to_diff(8)
    with pytest.raises(DiffError, match="not the base of this diff"):
        models[0].merge(other)
    other.changes["third"] = other.changes.pop("bias")
    with pytest.raises(DiffError, match="has no third"):
        models[0].merge(other)
    assert not models[0].merged
    models[0].merge(models[0].to_diff(8))


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float64])
def test_types_that_no_file_has_are_refused(kind, tmp_path):
    message = f"weight is {kind}, and a diff is for float32 or float16"
    with pytest.raises(ValueError, match=message):
        DiffModel(nn.Linear(3, 2).to(kind))
    model = DiffModel(nn.Linear(3, 2, bias=False), HashDiff)
    learn(model, torch.ones(1, 3))
    with pytest.raises(ValueError, match=message):
        model.to(kind).save(tmp_path / "update.diff")
    assert not list(tmp_path.iterdir())


def test_what_a_sparse_diff_alone_can():
    model = DiffModel(nn.Linear(3, 2), HashDiff)
    deltas = {name: np.ones(diff.shape) for name, diff in model.diffs.items()}
    with pytest.raises(ValueError, match="a HashDiff has no positions to keep"):
        model.keep_best(1000, deltas=deltas)
    model = DiffModel(nn.Linear(3, 2))
    for diff in model.diffs.values():
        diff.keep(torch.zeros(1, dtype=torch.long))
    with pytest.raises(ValueError, match="bits must be 2 to 8, 16 or 32"):
        model.round(12)


@pytest.mark.parametrize("budget", range(520, 1000, 30))
def test_a_saved_diff_is_within_its_budget_to_the_byte(
    budget, tmp_path, monkeypatch
):
    """Also where the real fingerprints compress worse than was reckoned."""
    monkeypatch.setattr("speechbrain_amnet.diff.budget.SPARE", -20)
    torch.manual_seed(budget)
    model = DiffModel(nn.Linear(40, 30))
    for diff in model.diffs.values():
        diff.dense.data.normal_()
        diff.keep(torch.arange(diff.dense.numel()))
    file = tmp_path / "update.diff"
    size = model.save(file, budget)
    assert size == file.stat().st_size and 0.9 * budget < size <= budget
    said = {"method": "sparse", "bits": 4, "budget": str(budget)}
    assert read_diff(file).about == said


def test_a_gate_lets_a_share_of_all_through_by_each_matrix_own_measure():
    torch.manual_seed(0)
    model = DiffModel(nn.Sequential(nn.Linear(40, 50), nn.Linear(50, 60)))
    for name, diff in model.diffs.items():
        diff.dense.data.normal_().mul_(100 if name == "0.weight" else 1)
    before = {name: d.delta() for name, d in model.diffs.items()}
    model.gate(0.1, 1000.0)
    through = {
        name: diff.delta().abs() > diff.dense.abs() / 2
        for name, diff in model.diffs.items()
    }
    total = sum(t.sum().item() for t in through.values())
    assert total == pytest.approx(0.1 * model.size, rel=0.02)
    for name in ("0.weight", "1.weight"):
        assert 0.08 < through[name].float().mean() < 0.12
    model.diffs["0.weight"].dense.data[:, :1].mul_(1000)  # few changed a lot
    shares = {}
    for score in ("relative", "matrix"):
        model.gate(0.1, 1000.0, score)
        for name, diff in model.diffs.items():
            through = diff.delta().abs() > diff.dense.abs() / 2
            shares[score, name] = through.float().mean().item()
    for name in ("0.weight", "1.weight"):
        assert 0.08 < shares["matrix", name] < 0.12
    assert shares["relative", "1.weight"] > 3 * shares["relative", "0.weight"]
    with pytest.raises(ValueError, match='relative or matrix, got "fisher"'):
        model.gate(0.1, 1.0, "fisher")
    model.diffs["0.weight"].dense.data[:, :1].div_(1000)
    model.gate(1.0, 1.0)
    assert all(
        torch.equal(d.delta(), before[n]) for n, d in model.diffs.items()
    )
    with pytest.raises(ValueError, match="share must be above 0"):
        model.gate(0.0, 1.0)


def test_a_gate_is_found_from_some_of_many_weights(monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr("speechbrain_amnet.diff.gating.SAMPLE", 2000)
    model = DiffModel(nn.ModuleDict({"a": nn.Linear(300, 40)}))
    large = model.diffs["a.weight"].dense.data.normal_()
    large[:, ::3] *= 0.01  # every third column, which no even step may miss
    model.diffs["a.bias"].dense.data.normal_()
    for score in ("relative", "matrix"):
        model.gate(0.2, 1000.0, score)
        diff = model.diffs["a.weight"]
        through = diff.delta().abs() > diff.dense.abs() / 2
        assert through.float().mean().item() == pytest.approx(0.2, abs=0.03)


def test_a_gate_in_half_precision():
    model = DiffModel(nn.Linear(30, 20).half())
    model.gate(0.1, 10.0)  # nothing has been learnt yet
    assert all(not diff.delta().any() for diff in model.diffs.values())
    for diff in model.diffs.values():
        diff.dense.data.normal_().mul_(1e-4)  # whose squares half does not hold
    model.gate(0.1, 1000.0)
    through = model.diffs["weight"].delta().abs() > 0
    assert 0.05 < through.float().mean() < 0.2


def test_what_matters_is_kept_and_not_what_is_large():
    """A large change of an input that is always silent is worth nothing."""
    torch.manual_seed(0)
    model = DiffModel(nn.Linear(60, 50, bias=False))
    diff = model.diffs["weight"]
    diff.dense.data.normal_()
    diff.dense.data[:, 30:] *= 10
    x = torch.randn(4, 8, 60)
    x[..., 30:] = 0
    with pytest.raises(ValueError, match="no gradients are noted"):
        model.keep_best(1000, score="fisher")
    squares = 0
    for batch in x:
        model(batch).square().sum().backward()
        squares = squares + diff.dense.grad.square()
        model.note_gradients()
        assert diff.dense.grad is None
    assert torch.equal(diff.importance, squares)
    wanted = diff.dense.detach().abs() * squares.sqrt()
    model.keep_best(1000, score="fisher")
    kept = torch.zeros(diff.shape, dtype=torch.bool)
    kept.view(-1)[diff.positions] = True
    assert kept[:, :30].any() and not kept[:, 30:].any()
    assert wanted[kept].min() >= wanted[~kept].max()
    assert diff.importance is None
    with pytest.raises(ValueError, match="no gradient of a dense diff"):
        diff.note_gradient()


def test_a_deployed_encoder_may_be_loaded_under_its_diffs():
    """Which compares branches before any names."""

    def encoder(rank=2):
        router = Arbitrator(6, 2)
        forms = [Dense, partial(LowRank, rank=rank)]
        return AmortizedEncoder(6, 8, 1, forms, router)

    deployed, model = encoder(), encoder()
    DiffModel(model)
    model.load_state_dict(deployed.state_dict())
    x = torch.randn(1, 5, 6)
    assert torch.equal(model.eval()(x)[0], deployed.eval()(x)[0])
    with pytest.raises(OtherBranchesError, match="rank 2 in the hparams, Low"):
        model.load_state_dict(encoder(rank=3).state_dict())


@pytest.mark.parametrize("kind", KINDS)
def test_a_deployed_model_may_be_loaded_under_its_diffs(kind, tmp_path):
    """As `Pretrainer` does, when all of the YAML is there."""
    from speechbrain.utils.parameter_transfer import Pretrainer

    torch.manual_seed(0)
    tokens = torch.randint(10, (2, 7))
    deployed = Net()
    torch.save(deployed.state_dict(), tmp_path / "net.ckpt")
    net = Net()
    model = DiffModel(net, KINDS[kind])
    pretrainer = Pretrainer(
        tmp_path, loadables={"net": net}, paths={"net": tmp_path / "net.ckpt"}
    )
    pretrainer.load_collected()
    assert torch.equal(model(tokens), deployed(tokens))
    for name, old in deployed.named_parameters():
        assert torch.equal(model.base(name), old)
    # Its own state has diffs, too, which stay in their places.
    for diff in model.diffs.values():
        diff.start(torch.randn(diff.shape))
    other = Net()
    again = DiffModel(other, KINDS[kind])
    again.load_state_dict(model.state_dict())
    other.load_state_dict(net.state_dict())
    assert torch.equal(again(tokens), model(tokens))
    # What misses a weight is refused as ever.
    short = deployed.state_dict()
    del short["linear.weight"]
    with pytest.raises(RuntimeError, match="linear.*weight.original"):
        net.load_state_dict(short)


def test_what_is_not_dense_has_no_gradients_and_no_gate():
    kept = DiffModel(nn.Linear(6, 5))
    for diff in kept.diffs.values():
        diff.start(torch.ones(diff.shape))
    kept.keep_best(2000)
    hashed = DiffModel(nn.Linear(6, 5), KINDS["hash"])
    for model in (kept, hashed):
        for call in (
            model.note_gradients,
            partial(model.gate, 0.5, 1.0),
            partial(model.keep_best, 2000, score="fisher"),
        ):
            with pytest.raises(ValueError, match="SparseDiff that is dense"):
                call()
