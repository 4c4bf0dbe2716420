#!/usr/bin/env python3
"""Train a streaming transducer with an amortized encoder.

    python train.py hparams/amnet.yaml --data_folder=FOLDER

FOLDER holds splits in LibriSpeech's layout. A training that was interrupted
goes on when the same command is given again. At its end the last checkpoints
are averaged, the model is written to OUTPUT_FOLDER/model, and dev and test are
evaluated.
"""

import logging
import shlex
from pathlib import Path

import speechbrain as sb
import torch
from checks import (
    check_data,
    check_exportable,
    check_noise,
    check_optimizer,
    check_processes,
    check_router_learns,
    check_schedules,
    check_start,
    check_told_twice,
    check_words,
)
from data import fit_statistics, make_data, make_loaders, splits_of
from speechbrain.utils.distributed import if_main_process, run_on_main
from starting import is_begun, record, start_from

from speechbrain_amnet import files
from speechbrain_amnet.averaging import last_epochs, mean_state, settled
from speechbrain_amnet.cli import run_script
from speechbrain_amnet.distillation import Teacher
from speechbrain_amnet.evaluation import evaluate
from speechbrain_amnet.export import export_model
from speechbrain_amnet.frames import (
    check_frames,
    frame_counts,
    frame_mask,
    last_frame,
)
from speechbrain_amnet.hparams import (
    check_recorded,
    load_hparams,
    parse_arguments,
    resolve_hparams,
)
from speechbrain_amnet.inference import load
from speechbrain_amnet.report.page import write_page
from speechbrain_amnet.report.text import table
from speechbrain_amnet.slots import understood
from speechbrain_amnet.tokens import BLANK, token_shares
from speechbrain_amnet.trainings import epochs_before
from speechbrain_amnet.values import check_values

logger = logging.getLogger("train")

MOST_GAIN = 30  # decibels
PRUNE_EVERY = 10  # steps; sorting a matrix takes a while


class Recogniser(sb.Brain):
    """The transducer, its losses, and what is logged of them."""

    rate_key = "learning_rate"  # in the YAML

    def compute_forward(self, batch, stage):
        """Encode, and in training predict every token at every frame."""
        batch = batch.to(self.device)
        train = stage == sb.Stage.TRAIN
        features, lengths = self.frames(batch, train)
        branch = None if self.routed else 0
        encoded, routing = self.modules.encoder(
            features, lengths, branch=branch
        )
        logits = ctc = taught = None
        if train:
            ctc = self.modules.ctc_head(encoded)
        if not (train and self.warming_up):
            tokens, _ = batch.tokens
            predicted = self.modules.predictor(tokens)
            logits = self.modules.joint(encoded, predicted)
            if train and self.teacher:
                taught = self.teacher(features, lengths, tokens)
        return encoded, lengths, routing, logits, ctc, taught

    def frames(self, batch, train):
        """Features of a batch; in training another speed, gain and gaps."""
        wavs, lengths = batch.sig
        if train and self.hparams.augment:
            wavs = self.hparams.speed_perturb(wavs)
        if train and self.hparams.noise:
            wavs = self.hparams.noise(wavs, lengths)
        if train and self.hparams.augment:
            gain = self.hparams.gain_db * torch.randn(len(wavs), 1)
            # No louder than features take, however large it is.
            gain = gain.clamp(-MOST_GAIN, MOST_GAIN)
            wavs = wavs * 10 ** (gain / 20).to(wavs)
        features, lengths = self.modules.features(wavs, lengths)
        if train and self.hparams.augment:
            # [batch, frames, stack * mels] -> [batch, 10 ms steps, mels]
            shape = features.shape
            features = features.reshape(len(wavs), -1, self.hparams.n_mels)
            features = self.hparams.drop_frequencies(features)
            features = self.hparams.drop_times(features).reshape(shape)
        return features, lengths

    def compute_objectives(self, outputs, batch, stage):
        """Transducer, CTC and routing losses; words and routing on dev."""
        encoded, lengths, routing, logits, ctc, taught = outputs
        parts, loss = {}, 0.0
        routing_parts = self.hparams.routing_loss(
            routing, lengths, self.hparams.encoder.dense_flops
        )
        if logits is not None:
            loss = parts["transducer"] = self.hparams.transducer_loss(
                logits, batch.tokens.data, lengths, batch.tokens.lengths
            )
        if taught is not None:
            parts["teacher"] = self.hparams.distillation_loss(
                logits, taught, batch.tokens.data, lengths, batch.tokens.lengths
            )
            loss = loss + self.hparams.teacher_weight * parts["teacher"]
        if stage == sb.Stage.TRAIN:
            parts["ctc"] = self.ctc_loss(ctc, batch, lengths)
            weight = 1.0 if self.warming_up else self.hparams.ctc_weight
            loss = loss + weight * parts["ctc"]
            if self.routed:
                weight = self.hparams.routing_weight_schedule.value
                loss = loss + weight * routing_parts["total"]
                self.saved.append(routing_parts["saved"].detach())
        elif not self.warming_up:  # before, predictor and joint know nothing
            self.keep_words(encoded, lengths, batch)
        self.check_finite(loss, batch)
        parts.update(routing_parts)
        self.note(parts, routing, lengths)
        return loss

    def check_finite(self, loss, batch):
        """Stop at once where the loss is no number."""
        if not torch.isfinite(loss):
            raise ValueError(
                f"The loss is {loss.item()} on the batch with "
                f"{', '.join(batch.id[:4])}...; lower {self.rate_key}, or look "
                "at these recordings."
            )

    def ctc_loss(self, logits, batch, lengths):
        """Nats per utterance, mean over the batch."""
        tokens, token_lengths = batch.tokens
        frames = frame_counts(lengths, logits.shape[1])
        counts = (token_lengths * tokens.shape[1]).round().long()
        loss = torch.nn.functional.ctc_loss(
            logits.float().log_softmax(-1).transpose(0, 1),
            tokens,
            frames,
            counts,
            blank=BLANK,
            reduction="none",
            zero_infinity=True,  # speech too fast for one token a frame
        )
        return loss.mean()

    def note(self, parts, routing, lengths):
        """Add a batch to the stage's means."""
        mask = frame_mask(lengths, routing.shares.shape[1])
        shares = routing.shares.detach().float()[mask]
        said = routing.probabilities.detach().float()[mask]
        entropy = -(said * said.clamp(min=1e-12).log()).sum(-1)
        now = {name: value.item() for name, value in parts.items()}
        now["entropy"] = entropy.mean().item()
        for k, share in enumerate(shares.mean(0).tolist()):
            now[f"branch_{k}"] = share
        waits = last_frame(routing.wait, lengths)
        now["latency_ms"] = 1000 * waits.mean().item()
        size = len(lengths)
        for name, value in now.items():
            total, seen = self.sums.get(name, (0.0, 0))
            self.sums[name] = total + size * value, seen + size

    def keep_words(self, encoded, lengths, batch):
        """Search, and count the errors."""
        found = self.hparams.search(encoded, lengths)
        texts = [self.hparams.tokenizer.decode(ids) for ids in found]
        words = [understood(text).words.split() for text in texts]
        self.errors.append(batch.id, words, [w.split() for w in batch.wrd])

    @property
    def done(self):
        """Share of the training that is done."""
        return min(1.0, self.optimizer_step / self.total_steps)

    @property
    def warming_up(self):
        """Whether the encoder learns from CTC alone yet."""
        return self.done < self.hparams.ctc_warmup

    @property
    def routed(self):
        """Whether the branches are mixed yet."""
        return bool(self.hparams.encoder.routed)

    def _should_save_intra_epoch_ckpt(self, *args):
        """Between two steps: gradients of half a group are not saved."""
        due = super()._should_save_intra_epoch_ckpt(*args)
        return due and self.step % self.grad_accumulation_factor == 0

    def steps_of_an_epoch(self):
        """SpeechBrain drops what is left of its last group of batches."""
        batches, factor = len(self.train_sampler), self.grad_accumulation_factor
        if batches < factor:
            raise ValueError(
                "grad_accumulation_factor: expected at most the "
                f"{batches} batches of an epoch, got {factor}; lower it or "
                "batch_seconds"
            )
        return batches // factor

    def on_fit_start(self):
        """Load the checkpoint, if there is one; else skip what is done."""
        super().on_fit_start()
        steps = self.steps_of_an_epoch()
        self.total_steps = self.hparams.epochs * steps
        counter = self.hparams.epoch_counter
        if counter.current == 0 and self.optimizer_step == 0:
            counter.current = epochs_before(
                self.hparams.starts_at, self.hparams.epochs
            )
            self.optimizer_step = counter.current * steps

    def init_optimizers(self):
        """One optimizer; the router's learning rate is its own.

        So is the norm of its gradient, see `clip_router`.
        """
        router = list(self.hparams.encoder.router.parameters())
        mine = {id(p) for p in router}
        rest = [p for p in self.modules.parameters() if id(p) not in mine]
        groups = [{"params": rest, "router": False}]
        if router:
            groups.append({"params": router, "router": True})
        self.optimizer = self.opt_class(groups)
        self.optimizer.register_step_pre_hook(self.clip_router)
        self.optimizers_dict = {"optimizer": self.optimizer}
        self.checkpointer.add_recoverable("optimizer", self.optimizer)

    def clip_router(self, optimizer, *_):
        """SpeechBrain clips the gradient of the first group alone.

        The router's goes back through all frames of a backlog, and may grow
        with each. Where it is none any more, this step is not the router's.
        """
        for group in optimizer.param_groups:
            if group["router"]:
                norm = torch.nn.utils.clip_grad_norm_(
                    group["params"], self.max_grad_norm
                )
                if not torch.isfinite(norm):
                    for parameter in group["params"]:
                        parameter.grad = None

    def on_fit_batch_start(self, batch, should_step):
        """Move everything that follows a schedule."""
        hparams, done = self.hparams, self.done
        rate = hparams.learning_rate * hparams.lr_schedule.update(done)
        hparams.routing_weight_schedule.update(done)
        temperature = hparams.temperature_schedule.update(done)
        router_rate = rate * hparams.router_lr_schedule.update(done)
        for group in self.optimizer.param_groups:
            group["lr"] = router_rate if group["router"] else rate
        if hasattr(hparams.encoder.router, "temperature"):
            hparams.encoder.router.temperature.fill_(temperature)
        if not self.routed and done >= hparams.dense_warmup:
            hparams.encoder.start_routing(copy=hparams.dense_warmup > 0)
        share = hparams.pruning_schedule.update(done)
        last = self.optimizer_step == self.total_steps - 1
        if self.optimizer_step % PRUNE_EVERY == 0 or last:
            hparams.encoder.prune(share, hparams.pruning_scope)

    def on_fit_batch_end(self, batch, outputs, loss, should_step):
        """Move the weight of the compute, once a step."""
        if not (should_step and self.saved):
            return
        saved, self.saved = torch.stack(self.saved).mean(), []
        # A frozen router does not follow any more.
        if self.hparams.router_lr_schedule.value > 0:
            self.hparams.routing_loss.adapt(
                saved, self.hparams.routing_weight_schedule.value
            )

    def on_stage_start(self, stage, epoch):
        """Start the means anew."""
        self.sums, self.saved = {}, []
        if stage != sb.Stage.TRAIN:
            self.errors = sb.utils.metric_stats.ErrorRateStats()

    def on_stage_end(self, stage, stage_loss, epoch):
        """Log, and keep a checkpoint of every epoch."""
        stats = {k: total / seen for k, (total, seen) in self.sums.items()}
        if stage == sb.Stage.TRAIN:
            self.train_stats = {"loss": stage_loss, **stats}
            return
        if self.errors.ids:
            stats["wer"] = self.errors.summarize("error_rate")
        meta = {
            "epoch": epoch,
            "lr": self.optimizer.param_groups[0]["lr"],
            "temperature": self.hparams.temperature_schedule.value,
            "routing_weight": self.hparams.routing_weight_schedule.value,
            "cost_weight": float(self.hparams.routing_loss.cost_weight),
        }
        # Its own count of epochs would begin anew where a training goes on.
        steps = getattr(self.tensorboard, "global_step", {})
        steps["meta"] = epoch - 1
        for name, some in (("train", self.train_stats), ("valid", stats)):
            steps[name] = dict.fromkeys(["loss", *some], epoch - 1)
        # These two run on the main process alone, but all must call them.
        for log in (self.hparams.train_logger, self.tensorboard):
            log.log_stats(
                stats_meta=meta,
                train_stats=self.train_stats,
                valid_stats={"loss": stage_loss, **stats},
            )
        self.checkpointer.save_and_keep_only(
            meta={"epoch": epoch},
            num_to_keep=self.hparams.average_checkpoints,
            keep_recent=True,
            # One within an epoch must not take an epoch's place: what is
            # averaged would depend on how fast the machine is.
            ckpt_predicate=lambda c: "epoch" in c.meta,
        )

    def average(self):
        """Load the mean of the last epochs' weights."""
        checkpoints = settled(
            last_epochs(self.checkpointer, self.hparams.average_checkpoints)
        )
        for name, module in self.hparams.modules.items():
            module.load_state_dict(mean_state(checkpoints, name, module))
        return len(checkpoints)


def make_brain(argv):
    """Everything that a training needs, from the command line."""
    path, run_opts, overrides = parse_arguments(argv)
    text = resolve_hparams(path, overrides)
    check_values(text, run_opts)
    sb.utils.distributed.ddp_init_group(run_opts)
    hparams = load_hparams(path, overrides)
    torch.set_num_threads(hparams["threads"])
    check_frames(hparams["features"], hparams["encoder"])
    check_schedules(hparams)
    check_exportable(text, hparams["modules"])
    check_noise(hparams)
    check_optimizer(hparams)
    check_told_twice(hparams)
    folder, save_folder = (
        Path(hparams[f"{name}_folder"]) for name in ("output", "save")
    )
    # Not the output folder: who updates the model locks that.
    run_on_main(files.claim, args=(save_folder,))
    recorded = folder / "hyperparams.yaml"
    # In every process, before the main one may write.
    begun = recorded.exists() and is_begun(folder, save_folder)
    if begun:
        check_recorded(recorded, text)
        check_words(hparams, splits_of(hparams))
    run_on_main(sb.create_experiment_directory, args=(folder,))
    if not begun:
        run_on_main(record, args=(recorded, text, save_folder))
    if not (folder / "model").exists():
        check_processes(save_folder / "processes.txt", begun)
    sets = make_data(hparams)
    check_data(sets, save_folder / "data.txt", begun)
    start = hparams["start_from"]
    if start and any(save_folder.glob("CKPT*")):
        # What was taken from there is in a checkpoint; it may be gone.
        hparams["checkpointer"].recover_if_possible()
    elif start:
        start_from(hparams)
    elif hparams["starts_at"]:
        raise ValueError(
            "starts_at skips what another training has done; name its output "
            "folder as start_from."
        )
    if not begun:
        check_start(hparams)
    check_router_learns(hparams)
    fit_statistics(hparams["features"], sets["train"])
    brain = Recogniser(
        modules=hparams["modules"],
        opt_class=hparams["optimizer"],
        hparams=hparams,
        run_opts=run_opts,
        checkpointer=hparams["checkpointer"],
    )
    # Branches that a step does not use get no gradient.
    brain.find_unused_parameters = True
    brain.tensorboard = hparams["tensorboard"]()
    brain.teacher = None
    if hparams["teacher"]:
        brain.teacher = Teacher(hparams["teacher"], brain.device)
        brain.teacher.check(hparams["features"], hparams["tokenizer"])
    return brain, hparams, sets


def shares_of(train, hparams):
    """How much of the training speech each token is."""
    rows = [train.data[name] for name in train.data_ids]  # not too long
    seconds = sum(float(row["duration"]) for row in rows)
    tokenizer = hparams["tokenizer"]
    return token_shares(
        (tokenizer.encode(row["text"]) for row in rows),
        seconds / hparams["encoder"].frame_duration,
        tokenizer.get_piece_size(),
    )


def main(argv):
    """Prepare, train, average, write the model, evaluate."""
    brain, hparams, sets = make_brain(argv)
    brain.train_sampler, train_kwargs, valid_kwargs = make_loaders(
        sets, hparams
    )
    brain.fit(
        hparams["epoch_counter"],
        sets["train"],
        sets["valid"],
        train_loader_kwargs=train_kwargs,
        valid_loader_kwargs=valid_kwargs,
    )
    count = brain.average()
    logger.info("The weights are the mean of %d checkpoints.", count)
    main_process = if_main_process()
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
    if main_process:
        folder, save_folder = (
            Path(hparams[f"{name}_folder"]) for name in ("output", "save")
        )
        export_model(
            (folder / "hyperparams.yaml").read_text(),
            hparams["modules"],
            save_folder / "tokenizer.model",
            folder / "model",
            shares_of(sets["train"], hparams),
        )
        asr = load(folder, run_opts={"device": str(brain.device)})
        manifests = save_folder / "manifests"
        results = [
            evaluate(
                asr,
                manifests / f"{name}.csv",
                split,
                folder,
                soft=True,
                progress=not brain.noprogressbar,
            )
            for name, split in (("valid", "dev"), ("test", "test"))
        ]
        print(table(results))
        page = write_page([folder], folder / "page_test.html")
        print(f"Page: {page}; open it in a browser")
        print(f"To draw pictures of it: amnet plot {shlex.quote(str(folder))}")


if __name__ == "__main__":
    run_script("train.py", main)
