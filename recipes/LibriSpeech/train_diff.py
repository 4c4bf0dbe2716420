#!/usr/bin/env python3
"""Train a neural diff: a small file that updates a deployed model.

    python train_diff.py hparams/diff_sparse.yaml --base=FOLDER --budget=2% \\
        --data_folder=FOLDER

OUTPUT_FOLDER/update.diff is the file, OUTPUT_FOLDER/updated the model that
`amnet diff apply` makes of it, which is evaluated on what is new and on what is
old. An interrupted training goes on when the same command is given again.
"""

import json
import logging
import shutil
from functools import partial
from pathlib import Path

import speechbrain as sb
import torch
from data import make_loaders, read_data, with_items
from speechbrain.utils.epoch_loop import EpochCounter
from speechbrain.utils.repro import SaveableGenerator
from train import Recogniser

from speechbrain_amnet import files
from speechbrain_amnet.checkpoints import SafeCheckpointer
from speechbrain_amnet.cli import run_script
from speechbrain_amnet.corpus.prepare import prepare_librispeech
from speechbrain_amnet.diff.budget import (
    fitted,
    parse_budget,
    rank_that_fits,
    share_that_fits,
)
from speechbrain_amnet.diff.file import (
    fingerprint,
    make_diff,
    values_at,
    write_diff,
)
from speechbrain_amnet.diff.folder import ModelFiles, apply_update
from speechbrain_amnet.diff.model import DiffModel, as_array
from speechbrain_amnet.diff.weights import HashDiff, LowRankDiff, SparseDiff
from speechbrain_amnet.evaluation import evaluate
from speechbrain_amnet.hparams import (
    check_recorded,
    load_hparams,
    parse_arguments,
    resolve_hparams,
)
from speechbrain_amnet.inference import MODULES, load
from speechbrain_amnet.slots import tags_of
from speechbrain_amnet.values import check_values

logger = logging.getLogger("train_diff")


class Updater(Recogniser):
    """Trains a diff alone, with the transducer's loss alone."""

    def compute_forward(self, batch, stage):
        """Encode, and predict every token at every frame."""
        batch = batch.to(self.device)
        features, lengths = self.frames(batch, stage == sb.Stage.TRAIN)
        encoded, routing = self.modules.encoder(features, lengths)
        predicted = self.modules.predictor(batch.tokens.data)
        logits = self.modules.joint(encoded, predicted)
        return encoded, lengths, routing, logits

    def compute_objectives(self, outputs, batch, stage):
        """The transducer's loss; words on dev."""
        encoded, lengths, routing, logits = outputs
        loss = self.hparams.transducer_loss(
            logits, batch.tokens.data, lengths, batch.tokens.lengths
        )
        if stage != sb.Stage.TRAIN:
            self.keep_words(encoded, lengths, batch)
        self.check_finite(loss, batch)
        self.note({"transducer": loss}, routing, lengths)
        return loss

    def fit_batch(self, batch):
        """A step; every updated weight is computed once in it."""
        if self.round_bits and self.done >= self.hparams.round_at:
            self.modules.updated.round(self.round_bits)
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
        steps = len(self.train_sampler) // self.grad_accumulation_factor
        self.total_steps = self.epochs * max(1, steps)

    def on_fit_batch_start(self, batch, should_step):
        """Move the learning rate."""
        rate = self.rate * self.hparams.lr_schedule.update(self.done)
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def on_stage_start(self, stage, epoch):
        """An arbitrator that learns from what it reads must not: it stays."""
        super().on_stage_start(stage, epoch)
        self.modules.encoder.router.eval()

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
    modules = {name: getattr(asr.mods, name) for name in MODULES}
    brain = Updater(
        modules={**modules, "updated": updated},
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
    brain.part, brain.epochs, brain.rate = part, epochs, rate
    brain.rate_key = f"{part}_rate"
    brain.round_bits = bits
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


def load_base(hparams, run_opts):
    """The deployed model."""
    return load(hparams["base_model"], run_opts=run_opts)


def wrap(asr, hparams, diff=SparseDiff):
    """A diff beside each weight of a model, but for the arbitrator's."""
    modules = {name: getattr(asr.mods, name) for name in MODULES}
    router = []
    if any(True for _ in asr.mods.encoder.router.parameters()):
        router = ["encoder.router.*"]
    return DiffModel(
        modules, diff, hparams["include"], [*hparams["exclude"], *router]
    )


def full(hparams, run_opts, sets, budget, about):
    """New values for every weight: what an update could be at best."""
    deltas = all_deltas(hparams, run_opts, sets)
    old = ModelFiles(hparams["base_model"]).tensors()
    return {
        name: values_at(old[name] + delta, None)
        for name, delta in deltas.items()
    }


def all_deltas(hparams, run_opts, sets):
    """What an update of all weights changes, by name."""
    asr = load_base(hparams, run_opts)
    updated = wrap(asr, hparams)
    if hparams["full_model"]:
        new, deltas = ModelFiles(hparams["full_model"]).tensors(), {}
        for name in updated.diffs:
            old = as_array(updated.base(name))
            if name not in new or new[name].shape != old.shape:
                raise ValueError(
                    f"full_model: {hparams['full_model']} is no update of "
                    f"{hparams['base_model']}: {name} does not fit"
                )
            deltas[name] = new[name] - old
        return deltas
    fit(updated, asr, "find", hparams, run_opts, sets)
    return {n: as_array(diff.delta()) for n, diff in updated.diffs.items()}


def sparse(hparams, run_opts, sets, budget, about):
    """The weights that a full update changes most, trained on their own.

    With halvings first more of them, twice as many for each.
    """
    bits = hparams["bits"]
    deltas = all_deltas(hparams, run_opts, sets)
    for halving in range(hparams["halvings"], -1, -1):
        asr = load_base(hparams, run_opts)
        updated = wrap(asr, hparams)
        updated.keep_best(
            budget * 2**halving, bits, hparams["score"], deltas, about
        )
        kept = sum(p.numel() for p in updated.diff_parameters()) / updated.size
        rate = hparams["tune_rate"] / kept**0.5
        place = f"tune-{halving}" if halving else "tune"
        fit(updated, asr, "tune", hparams, run_opts, sets, bits, rate, place)
        # By the final values, also where it goes on from them.
        updated.round(bits)
        deltas = {n: as_array(d.delta()) for n, d in updated.diffs.items()}
    return updated.changes(bits)


def hashed(hparams, run_opts, sets, budget, about):
    """As many buckets as the budget allows, evenly for all weights."""
    asr, bits = load_base(hparams, run_opts), hparams["bits"]
    shapes = shapes_of(hparams, run_opts)
    share = share_that_fits(shapes, budget, bits, about)
    updated = wrap(
        asr, hparams, partial(HashDiff, share=share, seed=hparams["seed"])
    )
    fit(updated, asr, "tune", hparams, run_opts, sets)
    return updated.changes(bits)


def lowrank(hparams, run_opts, sets, budget, about):
    """The rank that the budget allows, for every matrix."""
    asr, bits = load_base(hparams, run_opts), hparams["bits"]
    shapes = shapes_of(hparams, run_opts)
    rank = rank_that_fits(shapes, budget, bits, about)
    updated = wrap(asr, hparams, partial(LowRankDiff, rank=rank))
    fit(updated, asr, "tune", hparams, run_opts, sets)
    return updated.changes(bits)


def shapes_of(hparams, run_opts):
    """The shapes of the weights that may change, by name."""
    updated = wrap(load_base(hparams, run_opts), hparams)
    return {name: diff.shape for name, diff in updated.diffs.items()}


METHODS = {
    "sparse": sparse,
    "hash": hashed,
    "lowrank": lowrank,
    "last": sparse,  # of few layers; the hparams say which
    "full": full,
}


def make_update(hparams, run_opts):
    """Train the diff and write its file; gives what is known of it."""
    method = hparams["method"]
    if method not in METHODS:
        raise ValueError(
            f"method: expected {', '.join(METHODS)}, got {method!r}"
        )
    asr = load_base(hparams, run_opts)
    weights = wrap(asr, hparams).size
    budget = parse_budget(hparams["budget"], weights)
    about = {"method": method, "seed": hparams["seed"]}
    if method != "full":
        about["budget"] = str(hparams["budget"])
    if hparams["augment"] is None:
        # What a model never heard in its training undoes more than it teaches.
        hparams["augment"] = getattr(asr.hparams, "augment", True)
    sets = read_data({**hparams, "slots": asr.understands})
    check_tags(sets, asr)
    sets = with_items(sets, asr.hparams.tokenizer, hparams["max_seconds"])
    changes = METHODS[method](hparams, run_opts, sets, budget, about)
    if method != "full":
        changes = fitted(changes, budget, about)
    path = Path(hparams["output_folder"]) / "update.diff"
    old = ModelFiles(hparams["base_model"]).tensors()
    size = write_diff(make_diff(changes, old, about), path)
    logger.info("%s: %d bytes of %d", path, size, budget)
    return {
        "task": "asr",
        "data": hparams["dataset"],
        "generation": hparams["generation"],
        "method": method,
        "budget": budget / (4 * weights),
        "bytes": size,
        "model_bytes": 4 * weights,
        "seed": hparams["seed"],
    }


def check_tags(sets, asr):
    """A diff changes weights, and no tokens."""
    texts = (
        row["text"] for data in sets.values() for row in data.data.values()
    )
    unknown = sorted(set(tags_of(texts)) - set(asr.pieces))
    if unknown:
        raise ValueError(
            f"{', '.join(unknown)}: no tokens of the base, and a diff brings "
            "none; train the base with commands that have them"
        )


def measure(hparams, run_opts):
    """Errors on what is new and what is old, before the update and after."""
    folder, save = (
        Path(hparams[f"{name}_folder"]) for name in ("output", "save")
    )
    updated = folder / "updated"
    shutil.rmtree(updated, ignore_errors=True)
    apply_update(hparams["base_model"], folder / "update.diff", updated)
    manifests = {"wer": save / "manifests" / "test.csv"}
    if hparams["old_splits"]:
        prepare_librispeech(
            hparams["data_folder"],
            save / "old",
            {"old": hparams["old_splits"]},
            sample_rate=hparams["sample_rate"],
            resample=hparams["resample"],
        )
        manifests["old_wer"] = save / "old" / "old.csv"
    record = {"old_wer": None, "base_old_wer": None}
    for prefix, model in (("base_", hparams["base_model"]), ("", updated)):
        asr = load(model, run_opts=run_opts)
        for name, manifest in manifests.items():
            split = "test" if name == "wer" else "old"
            found = evaluate(
                asr, manifest, prefix + split, folder, hparams["dataset"]
            )
            record[prefix + name] = found["wer"]
    return record


def main(argv):
    """Train, write the file, apply it, evaluate."""
    argv = [a.replace("--base=", "--base_model=", 1) for a in argv]
    path, run_opts, overrides = parse_arguments(argv)
    text = resolve_hparams(path, overrides)
    check_values(text, run_opts)
    hparams = load_hparams(path, overrides)
    torch.set_num_threads(hparams["threads"])
    folder = Path(hparams["output_folder"])
    check_folder(folder, hparams, text)
    if (folder / "diff.json").exists():
        record = json.loads((folder / "diff.json").read_text())
    else:
        sb.create_experiment_directory(folder)
        record = make_update(hparams, run_opts)
        record.update(measure(hparams, run_opts))
        files.write(folder / "diff.json", f"{json.dumps(record, indent=1)}\n")
    share = record["bytes"] / record["model_bytes"]
    print(
        f"{folder / 'update.diff'}: {record['bytes']:,} bytes, "
        f"{100 * share:.2f} % of the model; WER on what is new "
        f"{record['base_wer']:.1f} -> {record['wer']:.1f} %"
        + (
            f", on what is old {record['base_old_wer']:.1f} -> "
            f"{record['old_wer']:.1f} %"
            if record["old_wer"] is not None
            else ""
        )
    )


def check_folder(folder, hparams, text):
    """A folder is for one update of one base; what is there must be that."""
    for key in ("base_model", "full_model"):
        other = hparams[key] and Path(hparams[key]).resolve()
        if other and other.is_relative_to(folder.resolve()):
            raise ValueError(
                f"{key} {other} is in the output_folder, where it would be "
                "overwritten; give another output_folder"
            )
    recorded, based = folder / "hyperparams.yaml", folder / "base.txt"
    base = fingerprint(ModelFiles(hparams["base_model"]).tensors())
    if based.exists() and based.read_text() != f"{base}\n":
        raise ValueError(
            f"{folder} holds an update of another base (see {based.name}); "
            "give another output_folder, or remove it"
        )
    if recorded.exists():
        check_recorded(recorded, text)
    else:
        files.write(recorded, text)
    files.write(based, f"{base}\n")


if __name__ == "__main__":
    run_script("train_diff.py", main)
