"""How the weights of an update are found: each method, and its training.

A method gets the base model and a budget, and gives the changes of the file
that `train_diff.py` writes.
"""

import glob
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import speechbrain as sb
import torch
from data import make_loaders
from speechbrain.utils.epoch_loop import EpochCounter
from speechbrain.utils.repro import SaveableGenerator
from train import Recogniser

from speechbrain_amnet.checkpoints import SafeCheckpointer
from speechbrain_amnet.diff.applying import values_at
from speechbrain_amnet.diff.budget import (
    check_budget,
    parse_budget,
    ranks_that_fit,
    share_that_fits,
)
from speechbrain_amnet.diff.file import fingerprint
from speechbrain_amnet.diff.hashed import HashDiff
from speechbrain_amnet.diff.lowrank import LowRankDiff
from speechbrain_amnet.diff.model import DiffModel, as_array
from speechbrain_amnet.diff.model_files import ModelFiles
from speechbrain_amnet.diff.sparse import SparseDiff
from speechbrain_amnet.inference import CTC_HEAD, MODULES, load

BITS = 10  # of a position and its value, about
SMALL_BATCH = 4  # seconds


class Updater(Recogniser):
    """Trains a diff alone, with the losses of what the model has."""

    def compute_forward(self, batch, stage):
        """Encode, and predict every token at every frame."""
        batch = batch.to(self.device)
        features, lengths = self.frames(batch, stage == sb.Stage.TRAIN)
        encoded, routing = self.modules.encoder(features, lengths)
        predicted = self.modules.predictor(batch.tokens.data)
        logits = self.modules.joint(encoded, predicted)
        ctc = None
        if stage == sb.Stage.TRAIN and CTC_HEAD in self.modules:
            ctc = self.modules[CTC_HEAD](encoded)
        return encoded, lengths, routing, logits, ctc

    def compute_objectives(self, outputs, batch, stage):
        """The transducer's loss and that of a CTC head; words on dev."""
        encoded, lengths, routing, logits, ctc = outputs
        loss = self.hparams.transducer_loss(
            logits, batch.tokens.data, lengths, batch.tokens.lengths
        )
        parts = {"transducer": loss}
        if ctc is not None:
            parts["ctc"] = self.ctc_loss(ctc, batch, lengths)
            loss = loss + self.hparams.ctc_weight * parts["ctc"]
        if stage != sb.Stage.TRAIN:
            self.keep_words(encoded, lengths, batch)
        self.check_finite(loss, batch)
        self.note(parts, routing, lengths)
        return loss

    def fit_batch(self, batch):
        """A step; every updated weight is computed once in it."""
        if self.round_bits and self.done >= self.hparams.round_at:
            self.modules.updated.round(self.round_bits)
        # One that moves with what it reads, or draws, must do here what the
        # deployed one will; SpeechBrain has just set all modules to training.
        self.modules.encoder.router.eval()
        with self.modules.updated.computed():
            return super().fit_batch(batch)

    def evaluate_batch(self, batch, stage):
        """The same for dev."""
        with self.modules.updated.computed():
            return super().evaluate_batch(batch, stage)

    def init_optimizers(self):
        """What the diff is made of."""
        parameters = list(self.modules.updated.diff_parameters())
        self.optimizer = self.opt_class(parameters)
        self.optimizers_dict = {"optimizer": self.optimizer}
        self.checkpointer.add_recoverable("optimizer", self.optimizer)

    def on_fit_start(self):
        """Load the checkpoint, if there is one."""
        sb.Brain.on_fit_start(self)
        self.total_steps = self.epochs * self.steps_of_an_epoch()

    def on_fit_batch_start(self, batch, should_step):
        """Move the learning rate."""
        rate = self.rate * self.hparams.lr_schedule.update(self.done)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.prune(self.done)

    def prune(self, done):
        """Close the gate for all but so many weights, if there is one."""
        gate = self.hparams.gate_schedule
        if self.part == "find" and gate:
            share = 1 - (1 - self.kept) * (1 - (1 - done) ** 3)
            score = self.hparams.score
            score = score if score == "matrix" else "relative"
            self.modules.updated.gate(share, gate.update(done), score)

    def on_stage_end(self, stage, stage_loss, epoch):
        """Log, and keep the last checkpoint."""
        stats = {k: total / seen for k, (total, seen) in self.sums.items()}
        if stage == sb.Stage.TRAIN:
            self.train_stats = {"loss": stage_loss, **stats}
            return
        stats["wer"] = self.errors.summarize("error_rate")
        self.hparams.train_logger.log_stats(
            stats_meta={
                "part": self.part,
                "epoch": epoch,
                "lr": self.optimizer.param_groups[0]["lr"],
            },
            train_stats=self.train_stats,
            valid_stats={"loss": stage_loss, **stats},
        )
        self.checkpointer.save_and_keep_only(meta={"epoch": epoch})


def fit(
    updated,
    asr,
    part,
    hparams,
    run_opts,
    sets,
    bits=None,
    rate=None,
    place=None,
):
    """Train a diff.

    Arguments
    ---------
    updated : DiffModel
        What is trained.
    asr : AmortizedASR
        The model that it is in.
    part : str
        "find" or "tune": which epochs and rate, and where checkpoints go.
    hparams : dict
    run_opts : dict
    sets : dict
        Data with audio and tokens.
    bits : int, optional
        Of rounded values, from `round_at` on.
    rate : float, optional
        Instead of the part's in the hparams.
    place : str, optional
        Where checkpoints go, if not to the part's name.
    """
    epochs = hparams[f"{part}_epochs"]
    rate = hparams[f"{part}_rate"] if rate is None else rate
    counter = EpochCounter(epochs)
    checkpointer = SafeCheckpointer(
        Path(hparams["save_folder"]) / (place or part),
        {
            "updated": updated,
            "epoch_counter": counter,
            "generator": SaveableGenerator(),
        },
    )
    brain = make_updater(updated, asr, part, hparams, run_opts, checkpointer)
    brain.epochs, brain.rate, brain.round_bits = epochs, rate, bits
    share = parse_budget(hparams["budget"], updated.size) / updated.size
    brain.kept = min(1.0, 8 * share / BITS)
    brain.train_sampler, train_kwargs, valid_kwargs = make_loaders(
        sets, hparams
    )
    brain.fit(
        counter,
        sets["train"],
        sets["valid"],
        train_loader_kwargs=train_kwargs,
        valid_loader_kwargs=valid_kwargs,
    )
    # A checkpoint has the gate of its last step, and older ones have none.
    brain.prune(1.0)


def make_updater(updated, asr, part, hparams, run_opts, checkpointer=None):
    """What trains a diff in a model, or asks for its gradients."""
    brain = Updater(
        modules={**parts_of(asr), "updated": updated},
        opt_class=hparams["optimizer"],
        hparams={
            **hparams,
            "encoder": asr.mods.encoder,
            "search": asr.hparams.search,
            "tokenizer": asr.hparams.tokenizer,
        },
        run_opts=run_opts,
        checkpointer=checkpointer,
    )
    brain.part, brain.rate_key = part, f"{part}_rate"
    return brain


def note_gradients(updated, asr, hparams, run_opts, sets):
    """Which weights matter, by the gradients of all that it learns from.

    In small batches: over many utterances gradients cancel each other.
    """
    # The same after an interruption.
    sb.utils.seed_everything(hparams["seed"])
    brain = make_updater(updated, asr, "find", hparams, run_opts)
    brain.sums = {}
    small = {**hparams, "batch_seconds": SMALL_BATCH}
    _, options, _ = make_loaders(sets, small)
    brain.modules.train()
    asr.mods.encoder.router.eval()
    loader = brain.make_dataloader(sets["train"], sb.Stage.TRAIN, **options)
    for batch in loader:
        with updated.computed():
            outputs = brain.compute_forward(batch, sb.Stage.TRAIN)
            loss = brain.compute_objectives(outputs, batch, sb.Stage.TRAIN)
            loss.backward()
        updated.note_gradients()


def parts_of(asr):
    """The modules of a model that learn."""
    names = [*MODULES, *({CTC_HEAD} & set(asr.mods))]
    return {name: getattr(asr.mods, name) for name in names}


def load_base(hparams, run_opts):
    """The deployed model."""
    return load(hparams["base_model"], run_opts=run_opts)


def wrap(asr, hparams, diff=SparseDiff):
    """A diff beside each weight of a model, but for the arbitrator's."""
    modules = parts_of(asr)
    router = []
    if any(True for _ in asr.mods.encoder.router.parameters()):
        router = ["encoder.router.*"]
    return DiffModel(
        modules, diff, hparams["include"], [*hparams["exclude"], *router]
    )


def full(hparams, run_opts, sets, budget, about):
    """New values for every weight: what an update could be at best."""
    deltas = all_deltas(hparams, run_opts, sets)
    old = ModelFiles(hparams["base_model"])
    return {
        name: values_at(old[name] + delta, None)
        for name, delta in deltas.items()
    }


def all_deltas(hparams, run_opts, sets):
    """What an update of all weights changes, by name."""
    asr = load_base(hparams, run_opts)
    updated = wrap(asr, hparams)
    if hparams["full_model"]:
        return known_deltas(updated, hparams)
    fit(updated, asr, "find", hparams, run_opts, sets)
    return {n: as_array(diff.delta()) for n, diff in updated.diffs.items()}


def known_deltas(updated, hparams):
    """What a finished full update changed, by name."""
    new, deltas = ModelFiles(hparams["full_model"]), {}
    for name in updated.diffs:
        old = as_array(updated.base(name))
        if name not in new or new[name].shape != old.shape:
            raise ValueError(
                f"full_model: {hparams['full_model']} is no update of "
                f"{hparams['base_model']}: {name} does not fit"
            )
        deltas[name] = new[name] - old
    return deltas


def sparse(hparams, run_opts, sets, budget, about):
    """The weights of a full update that matter most, trained on their own.

    With halvings first more of them, twice as many for each.
    """
    bits, score = hparams["bits"], hparams["score"]
    deltas = all_deltas(hparams, run_opts, sets)
    for halving in range(hparams["halvings"], -1, -1):
        asr = load_base(hparams, run_opts)
        updated = wrap(asr, hparams)
        for name, delta in deltas.items():
            updated.diffs[name].start(torch.from_numpy(delta))
        if score == "fisher":
            note_gradients(updated, asr, hparams, run_opts, sets)
        updated.keep_best(budget * 2**halving, bits, score, about=about)
        place = f"tune-{halving}" if halving else "tune"
        fit_kept(updated, asr, hparams, run_opts, sets, place)
        deltas = {n: as_array(d.delta()) for n, d in updated.diffs.items()}
    return updated.changes(bits)


def shira(hparams, run_opts, sets, budget, about):
    """Random positions, fixed from the beginning."""
    asr, bits = load_base(hparams, run_opts), hparams["bits"]
    updated = wrap(asr, hparams)
    random = np.random.default_rng(hparams["seed"])
    noise = {
        name: random.random(diff.shape, dtype=np.float32)
        for name, diff in updated.diffs.items()
    }
    updated.keep_best(budget, bits, "absolute", noise, about)
    for diff in updated.diffs.values():
        diff.start(torch.zeros(diff.shape))
    fit_kept(updated, asr, hparams, run_opts, sets, "tune")
    return updated.changes(bits)


def fit_kept(updated, asr, hparams, run_opts, sets, place):
    """Train what is kept, in steps as long as a full update's."""
    kept = sum(p.numel() for p in updated.diff_parameters()) / updated.size
    rate, bits = hparams["tune_rate"] / kept**0.5, hparams["bits"]
    fit(updated, asr, "tune", hparams, run_opts, sets, bits, rate, place)
    # By the final values, also where it goes on from them.
    updated.round(bits)


def check_room(updated, hparams, budget, about):
    """Refuse a budget for no diff before a training, not after it."""
    shapes = {name: diff.shape for name, diff in updated.diffs.items()}
    fits = {
        "hash": share_that_fits,
        "lora": ranks_that_fit,
        "lora_linear": ranks_that_fit,
        "lowrank": ranks_that_fit,
    }.get(hparams["method"].removeprefix("compressed_"), check_budget)
    found = fits(shapes, budget, hparams["bits"], about)
    if hparams["method"] == "compressed_lowrank" and len(found) < len(shapes):
        raise ValueError(
            f"budget: {budget} bytes are too few for a rank of every matrix, "
            "and a model without some of them is none"
        )


def hashed(hparams, run_opts, sets, budget, about):
    """As many buckets as the budget allows, evenly for all weights."""
    shapes = shapes_of(hparams, run_opts)
    share = share_that_fits(shapes, budget, hparams["bits"], about)
    # Another one for each update of a chain.
    base = fingerprint(ModelFiles(hparams["base_model"]))
    seed = int(base[:8], 16) + hparams["seed"]
    # Cached: a step takes 1.04 to 1.13 times plain fine-tuning, not 1.3 to 1.8
    # (benchmarks/diff_step.py).
    diff = partial(HashDiff, share=share, seed=seed, cache=True)
    return tuned(diff, hparams, run_opts, sets)


def lowrank(hparams, run_opts, sets, budget, about):
    """The ranks that the budget allows: the same for all, or one more.

    Where it is too small for one of each, the last matrices have none.
    """
    shapes = shapes_of(hparams, run_opts)
    ranks = ranks_that_fit(shapes, budget, hparams["bits"], about)
    none = [glob.escape(name) for name in shapes if name not in ranks]
    hparams = {**hparams, "exclude": [*hparams["exclude"], *none]}

    def diff(weight, name):
        return LowRankDiff(weight, name, rank=ranks[name])

    return tuned(diff, hparams, run_opts, sets)


def tuned(diff, hparams, run_opts, sets):
    """A diff of few numbers, from zero or as near to a full update as it is."""
    asr = load_base(hparams, run_opts)
    updated = wrap(asr, hparams, diff)
    if hparams["full_model"]:
        for name, delta in known_deltas(updated, hparams).items():
            updated.diffs[name].start(torch.from_numpy(delta))
    bits = hparams["bits"]
    fit(updated, asr, "tune", hparams, run_opts, sets, bits)
    # By the final values, also where it goes on from them.
    updated.round(bits)
    return updated.changes(bits)


def shapes_of(hparams, run_opts):
    """The shapes of the weights that may change, by name."""
    updated = wrap(load_base(hparams, run_opts), hparams)
    return {name: diff.shape for name, diff in updated.diffs.items()}


def compressed(method, hparams, run_opts, sets, budget, about):
    """The updated model itself in so few bytes, as a diff of zeros.

    The article's baselines: first all weights are trained, then what is left of
    them is, pruned, factorized or hashed.
    """
    base = ModelFiles(hparams["base_model"])
    whole, nothing = (Path(hparams["save_folder"]) / n for n in PARTS)
    if hparams["full_model"]:
        whole = hparams["full_model"]
    elif not whole.exists():
        changes = full(hparams, run_opts, sets, budget, about)
        write_model(
            base, whole, {n: c.apply(base[n]) for n, c in changes.items()}
        )
    shapes = shapes_of(hparams, run_opts)
    write_model(
        base, nothing, {n: np.zeros(s, np.float32) for n, s in shapes.items()}
    )
    hparams = {**hparams, "base_model": nothing, "full_model": whole}
    # The same whether `whole` has just been trained or was there.
    sb.utils.seed_everything(hparams["seed"])
    return method(hparams, run_opts, sets, budget, about)


PARTS = "full", "zeros"


def write_model(model, folder, tensors):
    """A model's files with other weights, whole or not at all."""
    aside = folder.with_name(f"{folder.name}.part")
    for old in (aside, folder):
        shutil.rmtree(old, ignore_errors=True)
    aside.mkdir(parents=True)
    for name, array in tensors.items():
        model[name] = array
    model.write(aside)
    aside.rename(folder)


def base_of(hparams):
    """The model that the update's file is for."""
    if hparams["method"].startswith("compressed"):
        return Path(hparams["save_folder"]) / PARTS[1]
    return hparams["base_model"]


METHODS = {
    "sparse": sparse,
    "sparse_gated": sparse,  # with a gate_schedule
    "hash": hashed,
    "lora": lowrank,
    "lora_linear": lowrank,  # of few layers; the hparams say which
    "last": sparse,  # the same
    "shira": shira,  # the same
    "full": full,
    "compressed_sparse": partial(compressed, sparse),
    "compressed_hash": partial(compressed, hashed),
    "compressed_lowrank": partial(compressed, lowrank),
}
