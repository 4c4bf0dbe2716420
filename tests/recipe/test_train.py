"""The recipe as a user runs it: whole, killed, on two processes, and wrong."""

import csv
import fcntl
import json
import os
import pickle
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from speechbrain.utils.checkpoints import Checkpointer
from tensorboard.backend.event_processing.event_accumulator import (
    EventAccumulator,
)

from speechbrain_amnet.features import StreamingFeatures
from speechbrain_amnet.inference import load
from speechbrain_amnet.tokens import load_tokenizer

ROOT = Path(__file__).parents[2]
TORCHRUN = (
    "-m",
    "torch.distributed.run",
    "--standalone",
    "--nproc_per_node=2",
)
TRAIN = ROOT / "recipes" / "LibriSpeech" / "train.py"
# A training that kills itself halfway through a checkpoint.
KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv.pop(1))
import torch, train
save, count = train.Recogniser._save_intra_epoch_ckpt, 0
def save_or_die(brain):
    global count
    count += brain.hparams.epoch_counter.current == 2
    if count == 2:
        torch.save = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    save(brain)
train.Recogniser._save_intra_epoch_ckpt = save_or_die
train.main(sys.argv[1:])
"""
TINY = {
    "epochs": 2,
    "batch_seconds": 3,
    "buckets": 2,
    "average_checkpoints": 2,
    "hidden_size": 32,  # the rank of amnet.yaml must fit
    "layers": 2,
    "predictor_size": 8,
    "joint_size": 8,
    "num_workers": 0,
}


def command(hparams, data, out, *options, **values):
    """The command line of a tiny training."""
    values = {**TINY, "data_folder": data, "output_folder": out, **values}
    return [
        str(TRAIN),
        str(ROOT / "hparams" / hparams),
        "--noprogressbar",
        *(f"--{key}={value}" for key, value in values.items()),
        *options,
    ]


def run(arguments, launcher=(), cwd=None, timeout=240):
    """Run it as a user does; gives the finished process."""
    return subprocess.run(
        [sys.executable, *launcher, *arguments],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=timeout,
    )


@pytest.fixture
def here(run_here):
    """As `run`, without the seconds of a new Python."""
    return lambda arguments: run_here("train.py", *arguments[1:])


def weights(folder):
    """Every module's tensors in the newest checkpoint of an epoch's end."""
    newest = max(
        (folder / "save").glob("CKPT*"),
        key=lambda c: (c / "CKPT.yaml").read_text().count("epoch: 2"),
    )
    return {
        file.stem: torch.load(file)
        for file in sorted(newest.glob("*.ckpt"))
        if file.stem in ("encoder", "predictor", "joint", "ctc_head")
    }


def assert_same(a, b):
    """The same tensors, bit for bit."""
    assert a.keys() == b.keys() and a
    for module in a:
        for name, value in a[module].items():
            assert torch.equal(value, b[module][name]), (module, name)


@pytest.fixture(scope="session")
def whole(tones, tmp_path_factory):
    """A training from beginning to end."""
    out = tmp_path_factory.mktemp("whole") / "out"
    done = run(command("amnet.yaml", tones, out), cwd=out.parent)
    assert done.returncode == 0, done.stderr[-3000:]
    return out


def test_log_shows_what_matters(whole):
    log = (whole / "train_log.txt").read_text().splitlines()
    assert len(log) == 2
    for name in (
        "train transducer",
        "train ctc",
        "train cost",
        "train idle",
        "train end",
        "valid entropy",
        "valid branch_0",
        "valid branch_1",
        "valid saved",
        "valid latency_ms",
        "valid wer",
        "temperature",
        "routing_weight",
    ):
        assert f"{name}: " in log[-1], name
    assert list((whole / "tensorboard").glob("events*"))


def test_a_model_knows_how_frequent_its_tokens_are(whole, tones):
    asr = load(whole, run_opts={"device": "cpu"})
    with open(whole / "save" / "manifests" / "train.csv") as file:
        rows = list(csv.DictReader(file))
    words = " ".join(row["wrd"] for row in rows)
    frames = sum(float(row["duration"]) for row in rows) / 0.04
    for piece, share in zip(asr.pieces, asr.shares, strict=True):
        if len(piece) == 1 and piece in words:
            assert share == pytest.approx(words.count(piece) / frames, rel=1e-3)
    assert sum(asr.shares) == pytest.approx(1, abs=1e-3)
    assert asr.shares[0] == max(asr.shares)


def test_what_is_too_long_to_learn_from_is_not_counted(train):
    """Filtered data keep what was filtered out beside the ids."""
    rows = {
        "a": {"text": "AB", "duration": "0.4"},
        "long": {"text": "BBBB", "duration": "99"},
    }
    tokenizer = SimpleNamespace(
        encode=lambda text: ["_AB".index(one) for one in text],
        get_piece_size=lambda: 3,
    )
    hparams = {
        "tokenizer": tokenizer,
        "encoder": SimpleNamespace(frame_duration=0.04),
    }
    kept = SimpleNamespace(data=rows, data_ids=["a"])
    shares = train.shares_of(kept, hparams)
    assert shares == pytest.approx([0.8, 0.1, 0.1])


def test_killed_training_ends_with_the_same_weights(whole, tones, tmp_path):
    """Killed while it writes the second checkpoint within its last epoch."""
    out = tmp_path / "out"
    arguments = command(
        "amnet.yaml",
        tones,
        out,
        "--ckpt_interval_minutes=0",
        "--ckpt_interval_steps=1",
    )
    killed = run(arguments[1:], ("-c", KILLED, str(TRAIN.parent)))
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-3000:]
    assert len((out / "train_log.txt").read_text().splitlines()) == 1
    assert in_second_epoch(out) and list((out / "save").glob(".part+*"))
    done = run(arguments)
    assert done.returncode == 0, done.stderr[-3000:]
    assert_same(weights(whole), weights(out))
    log = EventAccumulator(str(out / "tensorboard")).Reload()
    for name in ("lr", "loss/train", "cost/valid"):
        assert [one.step for one in log.Scalars(name)] == [1, 2]


def in_second_epoch(out):
    """Whether a checkpoint within epoch 2 is complete."""
    for checkpoint in (out / "save").glob("CKPT*"):
        try:
            meta = (checkpoint / "CKPT.yaml").read_text()
            counter = (checkpoint / "epoch_counter.ckpt").read_text()
        except OSError:
            continue
        if "intra" in meta and counter.strip() == "2":
            return True
    return False


def test_checkpoints_within_epochs_take_no_epochs_place(tones, tmp_path, here):
    """What is averaged is the same on a slow machine, which writes more."""
    often = {"ckpt_interval_minutes": 0, "ckpt_interval_steps": 2}
    # No arbitrator: all of its epochs may be averaged.
    done = here(command("full.yaml", tones, tmp_path, epochs=3, **often))
    assert done.returncode == 0, done.stderr[-3000:]
    log = (tmp_path / "log.txt").read_text()
    assert "The weights are the mean of 2 checkpoints." in log
    kept = [p.read_text() for p in (tmp_path / "save").glob("*/CKPT.yaml")]
    assert sum("intra" in text for text in kept) == 1


def test_other_speech_is_no_resumption(whole, tones, tmp_path, here):
    """The same of another place is."""
    out, data = tmp_path / "out", tmp_path / "data"
    shutil.copytree(whole, out)
    shutil.copytree(tones, data)
    arguments = command("amnet.yaml", data, out)
    done = here(arguments)
    assert done.returncode == 0, done.stderr[-3000:]
    kept = out / "results.json", out / "save" / "manifests" / "test.csv"
    before = [file.read_bytes() for file in kept]
    for file in (data / "test").rglob("*.trans.txt"):
        file.write_text(file.read_text().replace("DO", "SO"))
    done = here(arguments)
    assert "are not those that this training began with" in one_line(done)
    assert [file.read_bytes() for file in kept] == before


def test_as_many_processes_to_the_end(train, tmp_path, monkeypatch):
    """An epoch's steps are fewer in more of them, and schedules follow."""
    from checks import check_processes

    file = tmp_path / "out" / "save" / "processes.txt"
    check_processes(file, begun=False)
    check_processes(file, begun=True)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 4)
    with pytest.raises(ValueError, match="out began in 1 processes.* not in 4"):
        check_processes(file, begun=True)
    assert file.read_text() == "1"


def test_an_optimizer_without_such_an_argument(train, tones, tmp_path):
    _, *arguments = command("amnet.yaml", tones, tmp_path / "out")
    with pytest.raises(ValueError, match="^optimizer: .*weigth_decay"):
        train.make_brain([*arguments, "--optimizer={weigth_decay: 0}"])


@pytest.mark.parametrize(
    "option, said",
    [
        (
            "--optimizer=!name:torch.optim.SGD {lr: 0.1}",
            "optimizer: its lr is 0.1, and learning_rate, .* with, 0.003",
        ),
        (
            "--epoch_counter={limit: 3}",
            "epoch_counter: its limit is 3, and epochs is 2; write `limit: ",
        ),
        (
            "--routing_loss={frame_duration: 0.01}",
            "routing_loss: its frame_duration is 0.01, and frame_duration is",
        ),
        ("--features={sample_rate: 8000}", "features: its sample_rate is 8000"),
    ],
)
def test_what_is_told_twice_is_told_alike(option, said, train, tones, tmp_path):
    _, *arguments = command("amnet.yaml", tones, tmp_path / "out")
    with pytest.raises(ValueError, match=f"^{said}"):
        train.make_brain([*arguments, option])


def test_noise_of_another_rate(train, tones, tmp_path):
    noise = "!new:speechbrain_amnet.BackgroundNoise"
    file = next((tones / "train").rglob("*.flac"))
    _, *arguments = command("amnet.yaml", tones, tmp_path / "out")
    arguments += ["--sample_rate=8000", f"--noise={noise} {{file: {file}}}"]
    with pytest.raises(ValueError, match="noise: of 16000 Hz.* 8000 Hz; give"):
        train.make_brain(arguments)


def test_sets_can_be_read_in_other_processes(train, tones, tmp_path):
    """Where these are not forked, a set is sent to them."""
    _, *arguments = command("amnet.yaml", tones, tmp_path / "out")
    _, _, sets = train.make_brain(arguments)
    here, there = sets["train"], pickle.loads(pickle.dumps(sets["train"]))
    assert torch.equal(here[0]["sig"], there[0]["sig"])
    assert torch.equal(here[0]["tokens"], there[0]["tokens"])


def test_start_from_another_training(whole, tones, tmp_path, here):
    out = tmp_path / "out"
    values = {"epochs": 1, "learning_rate": 0.0, "dense_warmup": 0.0}
    source = shutil.copytree(whole, tmp_path / "source")
    arguments = command("amnet.yaml", tones, out, start_from=source, **values)
    done = here(arguments)
    assert done.returncode == 0, done.stderr[-3000:]
    # Its checkpoint has what it took from there.
    shutil.rmtree(source / "save")
    done = here(arguments)
    assert done.returncode == 0, done.stderr[-3000:]
    assert not (source / "save").exists()
    first, other = weights(whole)["encoder"], weights(out)["encoder"]
    # Its epochs at the final temperature count: of two the second.
    checkpoints = [
        torch.load(c / "encoder.ckpt") for c in (whole / "save").glob("CKPT*")
    ]
    heat = [c["router.temperature"].item() for c in checkpoints]
    before = torch.stack(
        [
            c["layers.0.recurrent.0.weight"]
            for c in checkpoints
            if c["router.temperature"].item() == max(heat)
        ]
    )
    assert len(before) == 1 and len(checkpoints) == 2
    assert first.keys() == other.keys()
    torch.testing.assert_close(
        other["layers.0.recurrent.0.weight"], before.mean(0)
    )


@pytest.mark.parametrize(
    "file, values, words",
    [
        ("amnet.yaml", {}, "dense_warmup: the branches .* mixed already"),
        ("amnet_sparse.yaml", {"starts_at": 0.5}, r"\[1\]: .* begin at 0.5"),
        ("sparse.yaml", {"starts_at": 0.6}, r"\[0\]: .* at 100 % already"),
    ],
)
def test_nothing_is_skipped_unseen(file, values, words, whole, train, tones):
    """Nor pruned at once, as what would be pruned meanwhile was skipped."""
    out = whole.with_name(f"skips_{file}")
    values = {"epochs": 4, "start_from": whole, **values}
    _, *arguments = command(file, tones, out, **values)
    with pytest.raises(ValueError, match=words):
        train.make_brain(arguments)


def test_a_model_that_could_not_be_written_is_not_trained(train):
    from checks import check_exportable

    names = ("features", "encoder", "predictor", "joint", "search")
    text = "".join(f"{name}: 1\n" for name in names)
    modules = {"features": SimpleNamespace(sample_rate=16000)}
    check_exportable(text, modules)
    with pytest.raises(ValueError, match="encoder includes a file"):
        check_exportable(text.replace("r: 1", "r: !include:e.yaml", 1), modules)
    with pytest.raises(ValueError, match="no key 'search'"):
        check_exportable(text.replace("search", "find"), modules)


def test_what_learns_nothing_is_not_averaged(train, tmp_path):
    """A mean of equal statistics would differ in the last digits."""
    features = StreamingFeatures()
    features.fit_statistics([0.1 * torch.randn(16000)])
    before = {k: v.clone() for k, v in features.state_dict().items()}
    modules = {"features": features, "encoder": torch.nn.Linear(1, 1)}
    checkpointer = Checkpointer(tmp_path, modules)
    for epoch in range(7):
        torch.nn.init.constant_(modules["encoder"].weight, epoch)
        checkpointer.save_checkpoint(meta={"epoch": epoch}, name=f"{epoch}")
    brain = object.__new__(train.Recogniser)
    hparams = SimpleNamespace(modules=modules, average_checkpoints=7)
    vars(brain).update(hparams=hparams, checkpointer=checkpointer)
    features.mean.zero_()
    assert brain.average() == 7
    assert modules["encoder"].weight.item() == 3
    for name, value in features.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_the_weight_of_the_compute_moves_once_a_step(train):
    """Also where a step is of several batches."""
    moved = []
    brain = object.__new__(train.Recogniser)
    hparams = SimpleNamespace(
        router_lr_schedule=SimpleNamespace(value=1.0),
        routing_weight_schedule=SimpleNamespace(value=0.5),
        routing_loss=SimpleNamespace(adapt=lambda *said: moved.append(said)),
    )
    vars(brain).update(hparams=hparams, saved=[])
    for should_step in (False, True, False, True):
        brain.saved.append(torch.tensor(1.0 if should_step else 0.0))
        brain.on_fit_batch_end(None, None, None, should_step)
    assert moved == [(0.5, 0.5), (0.5, 0.5)]


def test_start_from_one_that_lacks_a_letter(whole, tones, tmp_path, here):
    data, out = tmp_path / "data", tmp_path / "out"
    shutil.copytree(tones, data)
    for file in data.rglob("*.trans.txt"):
        file.write_text(file.read_text().replace("DO", "D'OH"))
    values = {"epochs": 1, "start_from": whole, "dense_warmup": 0.0}
    done = here(command("amnet.yaml", data, out, **values))
    assert done.returncode == 2
    assert "besides (' H) there are 32, got 30" in done.stderr
    shutil.copytree(whole / "save", tmp_path / "begun" / "save")
    shutil.copy(whole / "hyperparams.yaml", tmp_path / "begun")
    values["start_from"] = tmp_path / "begun"
    done = here(command("amnet.yaml", data, out, tokens=32, **values))
    assert done.returncode == 0, done.stderr[-3000:]
    said = f"start_from: {tmp_path / 'begun'} has not ended, its last epoch is"
    assert said in done.stdout
    tokenizer = load_tokenizer(out / "save" / "tokenizer.model")
    assert tokenizer.decode(tokenizer.encode("D'OH SO")) == "D'OH SO"
    assert weights(out)["joint"]["output.weight"].shape[0] == 32


def test_amortized_from_dense_which_is_its_teacher(tones, tmp_path, here):
    dense, out = tmp_path / "dense", tmp_path / "out"
    done = here(command("full.yaml", tones, dense, epochs=1))
    assert done.returncode == 0, done.stderr[-3000:]
    values = {"learning_rate": 0.0, "start_from": dense, "starts_at": 0.5}
    values |= {"teacher": dense}
    done = here(command("amnet.yaml", tones, out, **values))
    assert done.returncode == 0, done.stderr[-3000:]
    (checkpoint,) = (dense / "save").glob("CKPT*")
    before = torch.load(checkpoint / "encoder.ckpt")
    after = weights(out)["encoder"]
    for name in ("input.0.weight", "recurrent.0.weight", "bias.0"):
        name = f"layers.1.{name}"
        assert torch.equal(before[name], after[name])
    assert torch.equal(after["layers.1.bias.1"], after["layers.1.bias.0"])
    assert after["layers.1.input.1.left"].shape == (128, 32)
    assert after["routed"] == 1
    (log,) = (out / "train_log.txt").read_text().splitlines()
    assert "epoch: 2," in log and "train teacher: " in log
    # Where they start from the same weights, the dense student agrees.
    out = tmp_path / "again"
    values |= {"dropout": 0.0, "token_noise": 0.0, "average_checkpoints": 1}
    done = here(command("full.yaml", tones, out, **values))
    assert done.returncode == 0, done.stderr[-3000:]
    log = (out / "train_log.txt").read_text()
    assert float(log.split("train teacher: ")[1].split(",")[0]) < 1e-3


def test_another_seed_gives_other_weights(whole, tones, tmp_path, here):
    out = tmp_path / "out"
    done = here(command("amnet.yaml", tones, out, seed=2, epochs=1))
    assert done.returncode == 0, done.stderr[-3000:]
    first = torch.load(next((out / "save").glob("CKPT*")) / "encoder.ckpt")
    other = weights(whole)["encoder"]
    assert any(not torch.equal(first[n], other[n]) for n in first)


def gradients(tones, out, processes):
    """Loss and gradients of the first step of a fixed batch of four."""
    script = ROOT / "tests" / "recipe" / "first_step.py"
    launcher = TORCHRUN if processes > 1 else ()
    options = ["--distributed_backend=gloo"] if processes > 1 else []
    _, *arguments = command("amnet.yaml", tones, out, *options, augment=False)
    done = run([str(script), *arguments], launcher)
    assert done.returncode == 0, done.stderr[-3000:]
    return torch.load(out / "first_step.pt")


def test_two_processes_agree_with_one(tones, tmp_path):
    one = gradients(tones, tmp_path / "one", 1)
    two = gradients(tones, tmp_path / "two", 2)
    assert one["loss"] == pytest.approx(two["loss"], rel=1e-5)
    assert one["gradients"].keys() == two["gradients"].keys()
    for name, value in one["gradients"].items():
        torch.testing.assert_close(
            value, two["gradients"][name], rtol=1e-3, atol=1e-5, msg=name
        )


def test_two_processes_train(tones, tmp_path):
    out = tmp_path / "out"
    done = run(
        command("amnet.yaml", tones, out, "--distributed_backend=gloo"),
        TORCHRUN,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (out / "results.json").exists()
    assert len((out / "train_log.txt").read_text().splitlines()) == 2


@pytest.mark.parametrize(
    "hparams, values, said",
    [
        ("full.yaml", {"hidden_size": 8}, r"valid branch_0: 1\.00e\+00"),
        ("small.yaml", {"hidden_size": 96}, r"valid branch_0: 1\.00e\+00"),
        ("random.yaml", {}, r"valid branch_1: [5-9]\.\d\de-01"),
        ("energy.yaml", {}, r"train branch_1: [1-9]"),
        ("always.yaml", {}, r"valid branch_1: 1\.00e\+00"),
        ("amnet_any_device_ends.yaml", {}, r"train cost: [3-5]"),
        ("amnet_target.yaml", {}, r"cost_weight: (?!2\.00)"),
        (
            "amnet.yaml",
            {"precision": "bf16", "grad_accumulation_factor": 2},
            r"precision=bf16(?s:.*)optimizer_step: [2-4]\n",
        ),
    ],
    ids="full small random energy always any_device_ends target bf16".split(),
)
def test_experiments_train(hparams, values, said, tones, tmp_path, here):
    """In an epoch of five batches, the last of them with mixed branches."""
    values = {"epochs": 1, "hidden_size": 40, "batch_seconds": 2, **values}
    done = here(command(hparams, tones, tmp_path, **values))
    assert done.returncode == 0, done.stderr[-3000:]
    (state,) = (tmp_path / "save").glob("CKPT*/brain.ckpt")
    files = tmp_path / "log.txt", tmp_path / "train_log.txt", state
    assert re.search(said, "".join(file.read_text() for file in files))


def one_line(done):
    """The error that a user sees."""
    assert done.returncode == 2, done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    return done.stderr.strip().splitlines()[-1]


def test_missing_folder(tmp_path, here):
    done = here(command("amnet.yaml", tmp_path / "no", tmp_path / "out"))
    assert str(tmp_path / "no") in one_line(done)


def test_missing_split(tones, tmp_path, here):
    done = here(
        command("amnet.yaml", tones, tmp_path / "out", train_splits="[x]")
    )
    assert "train" in one_line(done) and "dev" in one_line(done)


@pytest.mark.parametrize(
    "values, said",
    [({"starts_at": 0.4}, "start_from"), ({"starts_at": 1.0}, "below 1")],
)
def test_what_is_skipped_must_have_been_done(
    values, said, tones, tmp_path, here
):
    done = here(command("amnet.yaml", tones, tmp_path / "out", **values))
    assert "starts_at" in one_line(done) and said in one_line(done)


def test_only_tokens_may_be_more_than_at_the_start(monkeypatch):
    monkeypatch.syspath_prepend(str(TRAIN.parent))
    import starting

    old, new = torch.zeros(30, 8), torch.ones(32, 8)
    state = starting.with_new_rows("ctc_head", {"weight": old}, {"weight": new})
    assert state["weight"].sum(1).tolist() == [0] * 30 + [8] * 2
    for module, name, fresh in (
        ("features", "mean", torch.ones(160)),
        ("joint", "output.weight", torch.ones(32, 16)),
        ("joint", "output.weight", torch.ones(28, 8)),
    ):
        here = torch.zeros(30, 8) if module == "joint" else torch.zeros(80)
        with pytest.raises(ValueError, match=f"start_from: there {module}"):
            starting.with_new_rows(module, {name: here}, {name: fresh})
    with pytest.raises(ValueError, match="predictor.more has the shape none"):
        starting.with_new_rows("predictor", {}, {"more": old})


def test_branches_that_never_meet_are_refused(tones, tmp_path, here):
    values = {"dense_warmup": 1.0}
    done = here(command("amnet.yaml", tones, tmp_path / "out", **values))
    assert "dense_warmup: expected a share below 1" in one_line(done)


@pytest.mark.parametrize(
    "file, values, words",
    [
        (
            "amnet_sparse.yaml",
            {"dense_warmup": 0.6},
            r"\[1\]: pruning_schedule",
        ),
        (
            "amnet_sparse.yaml",
            {"dense_warmup": 0.55},  # where 98 % is to be pruned already
            r"\[1\]: pruning_schedule: .* begin at 0.55 .* at 98 % already",
        ),
        ("amnet_energy.yaml", {"dense_warmup": 0.0}, r"\[1\]: LowRank .* 0.5 "),
    ],
)
def test_branches_take_on_a_dense_one(
    file, values, words, train, root, tones, tmp_path
):
    if not (root / "hparams" / file).exists():
        file = tmp_path / file
        file.write_text(
            f"base: {root}/hparams/amnet.yaml\nencoder:\n    branches:\n"
            "        - !name:speechbrain_amnet.Dense\n"
            "        - !name:speechbrain_amnet.LowRank {energy: 0.5}\n"
        )
    _, *arguments = command(file, tones, tmp_path / "out", **values)
    with pytest.raises(ValueError, match=rf"^encoder.branches{words}"):
        train.make_brain(arguments)


@pytest.mark.parametrize(
    "points, words",
    [
        ("[[0.4, 0], [0.6, 2]]", "0 to 1"),
        ("[[0.4, 0], [1, 1]]", "below 1"),
        ("[[0.4, 0], [0.6, 0.5]]", "last value to be 1, .* got 0.5"),
    ],
)
def test_pruning_must_come_to_its_end(points, words, train, tones, tmp_path):
    schedule = f"!new:speechbrain_amnet.Schedule {{points: {points}}}"
    values = {"pruning_schedule": schedule}
    hparams = "amnet_sparse.yaml"
    _, *arguments = command(hparams, tones, tmp_path / "out", **values)
    with pytest.raises(ValueError, match=f"^pruning_schedule: .*{words}"):
        train.make_brain(arguments)


@pytest.mark.parametrize(
    "key, value, words",
    [
        ("epochs", 0, "1 or more"),
        ("average_checkpoints", 0, "1 or more"),
        ("buckets", 0, "1 or more"),
        ("threads", 0, "1 or more"),
        ("layers", 0, "1 or more"),
        ("layers", 1.5, "a whole number"),
        ("num_workers", -1, "0 or more"),
        ("batch_seconds", 0, "above 0"),
        ("batch_seconds", "abc", "a number"),
        ("max_seconds", -3, "above 0"),
        ("learning_rate", "abc", "a finite number"),
        ("learning_rate", "nan", "a finite number"),
        ("learning_rate", ".inf", "a finite number"),
        ("learning_rate", -0.1, "0 or more"),
        ("starts_at", 1.0, "below 1"),
        ("token_type", "word", "char, bpe or unigram"),
        ("data_folder", "", "a folder, got None"),
        ("device", "cuda:99", "a device of this machine"),
    ],
)
def test_values_are_checked_before_anything_is_written(
    key, value, words, train, tones, tmp_path
):
    _, *arguments = command(
        "amnet.yaml", tones, tmp_path / "out", **{key: value}
    )
    with pytest.raises(ValueError, match=f"^{key}: expected .*{words}"):
        train.make_brain(arguments)
    assert not (tmp_path / "out").exists()


def test_a_whole_run_keeps_its_hparams(whole, tones, here):
    recorded = (whole / "hyperparams.yaml").read_bytes()
    model = (whole / "model" / "encoder.ckpt").read_bytes()
    values = {"hidden_size": 48, "epochs": 3}
    done = here(command("amnet.yaml", tones, whole, **values))
    said = one_line(done)
    assert (
        "other hparams than are asked for now: epochs (2 there, 3 now), "
        "hidden_size (32 there, 48 now); see hyperparams.yaml in it"
    ) in said
    assert "another folder (output_folder" in said
    assert (whole / "hyperparams.yaml").read_bytes() == recorded
    # It goes on where the data lie now, and in another manner.
    moved = f"{tones}/../{tones.name}"
    values = {"threads": 2, "num_workers": 1}
    done = run(command("amnet.yaml", moved, whole, **values))
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"amnet plot {whole}" in done.stdout
    assert "torchvision" not in done.stderr
    assert (whole / "hyperparams.yaml").read_bytes() == recorded
    assert (whole / "model" / "encoder.ckpt").read_bytes() == model


def test_one_training_at_a_time_in_a_folder(train, tones, tmp_path):
    """Another one's hparams and tokens would take the place of its own."""
    _, *arguments = command("amnet.yaml", tones, tmp_path)
    (tmp_path / "save").mkdir()
    handle = os.open(tmp_path / "save", os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)  # as one that runs has it
    with pytest.raises(ValueError, match="another process trains there"):
        train.make_brain(arguments)
    os.close(handle)
    assert list(tmp_path.iterdir()) == [tmp_path / "save"]


def test_what_came_to_no_checkpoint_may_begin_again(train, tones, tmp_path):
    out = tmp_path / "out"
    for kind, tokens in (("char", 15), ("bpe", 15)):
        _, *arguments = command("amnet.yaml", tones, out)
        arguments += [f"--token_type={kind}", f"--tokens={tokens}"]
        _, hparams, _ = train.make_brain(arguments)
        assert kind in (out / "hyperparams.yaml").read_text()
        pieces = hparams["tokenizer"].encode("MI MI", out_type=str)
        assert (len(max(pieces, key=len)) > 1) == (kind == "bpe")


def test_tokens_are_those_of_the_words_that_it_begins_with(
    train, tones, tmp_path
):
    """A letter that is new is one of them, where nothing was trained yet."""
    data = shutil.copytree(tones, tmp_path / "data")
    _, *arguments = command("amnet.yaml", data, tmp_path / "out")
    train.make_brain(arguments)
    said = next((data / "train").rglob("*.trans.txt"))
    said.write_text(said.read_text().rstrip() + "Ö\n")
    _, hparams, _ = train.make_brain(arguments)
    assert hparams["tokenizer"].piece_to_id("Ö") != 0


def test_dollars_are_words_like_others(train, tones, tmp_path):
    data = shutil.copytree(tones, tmp_path / "data $x")
    said = next((data / "train").rglob("*.trans.txt"))
    said.write_text(said.read_text().rstrip() + " $5\n")
    _, *arguments = command("amnet.yaml", data, tmp_path / "out")
    _, hparams, _ = train.make_brain(arguments)
    assert "$" in hparams["tokenizer"].encode("DO $5", out_type=str)


def test_other_slots_are_other_speech(train, tmp_path):
    from checks import check_data

    def sets(text):
        row = {"duration": 1.0, "wrd": "DO RE", "text": text}
        return {"train": SimpleNamespace(data={"1-1-1": row})}

    check_data(sets("DO<a> RE"), tmp_path / "data.txt", begun=False)
    check_data(sets("DO<a> RE"), tmp_path / "data.txt", begun=True)
    with pytest.raises(ValueError, match="not those that this training"):
        check_data(sets("DO RE<a>"), tmp_path / "data.txt", begun=True)


def test_broken_checkpoint_is_named(tones, tmp_path, here):
    out = tmp_path / "out"
    arguments = command("amnet.yaml", tones, out, epochs=1)
    assert here(arguments).returncode == 0
    (file,) = (out / "save").glob("CKPT*/predictor.ckpt")
    file.write_bytes(file.read_bytes()[:100])
    said = one_line(here(arguments))
    assert f"{file.parent}: a checkpoint that cannot be read" in said


def test_stopped_by_its_user(tones, tmp_path):
    process = subprocess.Popen(
        [sys.executable, *command("amnet.yaml", tones, tmp_path, epochs=500)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background job ignores it, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    end = time.monotonic() + 120
    while time.monotonic() < end and not (tmp_path / "train_log.txt").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in said
    assert said.endswith("train.py: stopped; the same command goes on\n")


def test_loss_that_is_not_a_number(tones, tmp_path, here):
    done = here(
        command("amnet.yaml", tones, tmp_path / "out", learning_rate=1e30)
    )
    assert "loss" in one_line(done) and "learning_rate" in one_line(done)


def test_full_disk(tones, tmp_path):
    """A limit on the size of a file stands in for the disk."""
    arguments = command("amnet.yaml", tones, tmp_path / "out", epochs=1)
    done = subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(
            resource.RLIMIT_FSIZE, (20000, 20000)
        ),
    )
    assert "is the disk full?" in one_line(done)
    assert not list((tmp_path / "out" / "save").glob("CKPT*"))


def test_sparse_branches_reach_their_density(tones, tmp_path, here):
    """Pruned after the dense warm-up, and counted as what is left."""
    file, out = tmp_path / "sparse.yaml", tmp_path / "out"
    file.write_text(
        f"base: {ROOT / 'hparams' / 'amnet.yaml'}\n"
        "encoder:\n"
        "    branches:\n"
        "        - !name:speechbrain_amnet.Dense\n"
        "        - !name:speechbrain_amnet.Sparse {density: 0.1}\n"
        "        - !name:speechbrain_amnet.Skip\n"
        "arbitrator:\n"
        "    branches: 3\n"
    )
    done = here(command(file, tones, out, epochs=12))
    assert done.returncode == 0, done.stderr[-3000:]
    state = torch.load(out / "model" / "encoder.ckpt")
    masks = {name: mask for name, mask in state.items() if "mask" in name}
    assert len(masks) == 4
    for name, mask in masks.items():
        assert int(mask.sum()) == round(0.1 * mask.numel()), name
    results = json.loads((out / "results.json").read_text())
    assert len(results["branch_shares"]) == 3
