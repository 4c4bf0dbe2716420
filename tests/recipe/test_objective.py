"""What a step of a training minimises, and what it reads of a batch."""

from itertools import combinations, product
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from speechbrain import Stage
from speechbrain.augment.time_domain import SpeedPerturb
from speechbrain.dataio.batch import PaddedBatch
from torch.nn.functional import ctc_loss
from torchaudio.functional import rnnt_loss

from speechbrain_amnet import BackgroundNoise, DistillationLoss

ROOT = Path(__file__).parents[2]
TINY = {
    "hidden_size": 40,  # above the rank: a mixture is not the first branch
    "layers": 2,
    "predictor_size": 8,
    "joint_size": 8,
    "augment": False,
    "dropout": 0.0,
    "token_noise": 0.0,
    "ctc_weight": 0.3,
    "teacher_weight": 0.7,
}


@pytest.fixture
def prepared(train, tones, tmp_path):
    """A training before its first step, and three utterances of it."""
    values = {**TINY, "data_folder": tones, "output_folder": tmp_path / "out"}
    arguments = [f"--{key}={value}" for key, value in values.items()]
    file = ROOT / "hparams" / "amnet.yaml"
    brain, _, sets = train.make_brain([str(file), *arguments])
    brain.train_sampler = range(1)
    brain.on_fit_start()
    # One of each length, so that there is padding.
    rows = list({len(row["sig"]): row for row in sets["train"]}.values())
    assert len(rows) == len({len(row["tokens"]) for row in rows}) == 3
    return brain, rows


def loss_of(brain, rows, stage, done):
    """Of a batch, when a share of the training is done."""
    brain.total_steps, brain.optimizer_step = 100, round(100 * done)
    brain.on_fit_batch_start(None, True)
    brain.modules.train(stage == Stage.TRAIN)
    brain.on_stage_start(stage, 1)
    batch = PaddedBatch(rows)
    outputs = brain.compute_forward(batch, stage)
    return brain.compute_objectives(outputs, batch, stage).item()


def taught(features, lengths, tokens):
    """Logits of a teacher, other ones at each frame and place."""
    frames = torch.arange(features.shape[1])[:, None, None]
    places = torch.arange(tokens.shape[1] + 1)[:, None]
    logits = torch.sin(frames + 2.0 * places + torch.arange(30) ** 2)
    return logits.expand(len(tokens), -1, -1, -1)


@torch.no_grad()
def parts_of(brain, row):
    """The losses of one utterance alone, without padding."""
    modules, hparams, whole = brain.modules, brain.hparams, torch.ones(1)
    features, _ = modules.features(row["sig"][None])
    tokens = row["tokens"][None]
    branch = None if hparams.encoder.routed else 0
    encoded, routing = modules.encoder(features, branch=branch)
    logits = modules.joint(encoded, modules.predictor(tokens))
    ctc = modules.ctc_head(encoded).log_softmax(-1).transpose(0, 1)
    sizes = [torch.tensor([n]) for n in (encoded.shape[1], tokens.shape[1])]
    return {
        "transducer": rnnt_loss(
            logits, tokens.int(), *(n.int() for n in sizes), blank=0
        ),
        "ctc": ctc_loss(ctc, tokens, *sizes, blank=0, reduction="sum"),
        "teacher": DistillationLoss()(
            logits, taught(features, whole, tokens), tokens, whole, whole
        ),
        "routing": hparams.routing_loss(
            routing, whole, hparams.encoder.dense_flops
        )["total"],
    }


def mean_of(brain, rows, weights):
    """The weighted sum of the utterances' losses, mean over them."""
    return sum(
        weight * parts_of(brain, row)[name].item() / len(rows)
        for row in rows
        for name, weight in weights.items()
    )


ALL = {"transducer": 1.0, "ctc": 0.3, "teacher": 0.7}


@pytest.mark.parametrize(
    "done, teacher, weights",
    [
        (0.04, taught, {"ctc": 1.0}),
        (0.05, taught, ALL),
        (0.4, taught, ALL),
        (0.45, taught, {**ALL, "routing": 0.5}),
        (0.5, None, {"transducer": 1.0, "ctc": 0.3, "routing": 1.0}),
    ],
    ids=["CTC alone", "one branch", "mixed", "half routing", "no teacher"],
)
def test_what_a_step_minimises(prepared, done, teacher, weights):
    """The means of each utterance's own; on dev the transducer's alone."""
    brain, rows = prepared
    brain.teacher = teacher
    loss = loss_of(brain, rows, Stage.TRAIN, done)
    assert bool(brain.hparams.encoder.routed) == (done >= 0.4)
    assert loss == pytest.approx(mean_of(brain, rows, weights), rel=1e-5)
    loss = loss_of(brain, rows, Stage.VALID, done)
    expected = mean_of(brain, rows, {"transducer": 1.0})
    assert loss == pytest.approx(expected, rel=1e-5)
    # Words of a predictor that has learnt nothing yet are not counted.
    assert len(brain.errors.ids) == (3 if done >= 0.05 else 0)


def read(brain, rows, train):
    """Features of a batch, as the audio has them and as a stage reads them."""
    batch = PaddedBatch(rows)
    return brain.modules.features(*batch.sig)[0], brain.frames(batch, train)[0]


def test_dev_reads_the_speech_as_it_is(prepared, tmp_path):
    """And a step does where nothing else is asked for."""
    brain, rows = prepared
    hiss = np.random.default_rng(0).normal(size=32000) / 8
    soundfile.write(tmp_path / "hiss.wav", hiss, 16000)
    noise = BackgroundNoise(tmp_path / "hiss.wav", chance=1.0)
    for augment, brain.hparams.noise in product((True, False), (noise, None)):
        brain.hparams.augment = augment
        assert torch.equal(*read(brain, rows, train=False))
        changed = augment or brain.hparams.noise is not None
        assert torch.equal(*read(brain, rows, train=True)) != changed


def test_each_part_of_the_augmentation(prepared):
    brain, rows = prepared
    hparams, nothing = brain.hparams, torch.nn.Identity()
    parts = vars(hparams).copy()
    off = ("speed_perturb", "drop_frequencies", "drop_times")
    off = {**dict.fromkeys(off, nothing), "gain_db": 0.0, "augment": True}
    vars(hparams).update(off)
    assert torch.equal(*read(brain, rows, train=True))
    # Bands and moments of 10 ms, not of the frames that four of them make.
    for name, along in (("drop_frequencies", 1), ("drop_times", 2)):
        vars(hparams).update({**off, name: parts[name]})
        clean, dropped = (x.reshape(3, -1, 80) for x in read(brain, rows, True))
        gone = (dropped == 0).all(along, keepdim=True)
        assert gone.flatten(1).any(1).all() and not gone.all()
        assert torch.equal(dropped, clean.masked_fill(gone, 0))
    # One gain for an utterance; its last frame may end in silence.
    vars(hparams).update({**off, "gain_db": parts["gain_db"]})
    clean, louder = (x.reshape(3, -1, 80) for x in read(brain, rows, True))
    decibels = (louder - clean) * brain.modules.features.std
    gains = []
    for row, each in zip(rows, decibels):
        own = each[: len(row["sig"]) // 160 - 4]
        gains.append(own.mean().item())
        assert (own - gains[-1]).abs().max() < 0.01
    assert min(abs(a - b) for a, b in combinations(gains, 2)) > 0.1
    # Slower is longer.
    slower = SpeedPerturb(orig_freq=16000, speeds=[80])
    vars(hparams).update({**off, "speed_perturb": slower})
    clean, longer = read(brain, rows, True)
    assert longer.shape[1] == pytest.approx(clean.shape[1] / 0.8, abs=1)


def test_the_router_s_gradient_has_a_norm_of_its_own(prepared):
    """SpeechBrain clips that of the first group; this may grow by the frame."""
    brain, _ = prepared
    rest, router = (g["params"] for g in brain.optimizer.param_groups)
    for parameter in (*rest, *router):
        parameter.grad = torch.full_like(parameter, 100.0)
    brain.optimizer.step()
    norm = torch.cat([p.grad.flatten() for p in router]).norm()
    assert norm == pytest.approx(brain.max_grad_norm, rel=1e-4)
    assert all((p.grad == 100).all() for p in rest)
    # Of what is no number it makes no step; the others make theirs.
    router[0].grad.flatten()[0] = float("inf")
    before = [p.clone() for p in (*rest, *router)]
    brain.optimizer.step()
    same = [torch.equal(a, b) for a, b in zip(before, (*rest, *router))]
    assert all(same[len(rest) :]) and not any(same[: len(rest)])


def test_a_large_gain_is_as_loud_as_features_take(prepared):
    brain, rows = prepared
    brain.hparams.augment, brain.hparams.gain_db = True, 1000.0
    for seed in range(3):
        torch.manual_seed(seed)
        features, _ = brain.frames(PaddedBatch(rows), True)
        assert features.isfinite().all()
