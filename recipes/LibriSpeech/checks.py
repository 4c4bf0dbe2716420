"""What a training refuses before its first step."""

import hashlib
import math
from pathlib import Path

import torch
from speechbrain.utils.distributed import run_on_main

from speechbrain_amnet import files
from speechbrain_amnet.corpus.manifest import read_manifest, words_of
from speechbrain_amnet.corpus.prepare import read_transcripts
from speechbrain_amnet.export import inference_hparams
from speechbrain_amnet.inference import CTC_HEAD, MODULES


def check_schedules(hparams):
    """Refuse courses of a training that lead nowhere."""
    for key in ("lr", "router_lr", "routing_weight", "temperature", "pruning"):
        key = f"{key}_schedule"
        values, most = hparams[key].values, 1 if "pruning" in key else math.inf
        if not all(0 <= value <= most for value in values):
            raise ValueError(f"{key}: expected 0 to {most:g}, got {values}")
    pruning = hparams["pruning_schedule"]
    if pruning.shares[-1] == 1 and len(pruning.shares) > 1:
        raise ValueError(
            "pruning_schedule: expected its last point at a share below 1, or "
            "no matrix is ever at its density"
        )
    if pruning.values[-1] != 1 and any(
        getattr(form, "density", 1) < 1
        for form in hparams["encoder"].layers[0].input
    ):
        raise ValueError(
            "pruning_schedule: expected its last value to be 1, where every "
            f"matrix is at its density, got {pruning.values[-1]:g}"
        )
    check_forms(hparams, pruning.shares[-1])
    branches = len(hparams["encoder"].branch_flops)
    if branches > 1 and hparams["dense_warmup"] == 1:
        raise ValueError(
            "dense_warmup: expected a share below 1 where there are "
            f"{branches} branches, or only the first one learns"
        )


def check_exportable(text, modules):
    """Refuse hparams of which no model could be made in the end."""
    names = [*MODULES, *({CTC_HEAD} & set(modules))]
    inference_hparams(text, modules["features"].sample_rate, names)


def check_router_learns(hparams):
    """Refuse branches that are first mixed when their router is frozen."""
    encoder, schedule = hparams["encoder"], hparams["router_lr_schedule"]
    begin = max(hparams["dense_warmup"], hparams["starts_at"])
    later = [share for share in (begin, *schedule.shares) if share >= begin]
    learns = any(schedule(share) > 0 for share in later)
    if encoder.routed or learns or not list(encoder.router.parameters()):
        return
    raise ValueError(
        "dense_warmup and starts_at: expected a share at which "
        f"router_lr_schedule lets the arbitrator learn, got {begin}, and it is "
        "frozen from there on"
    )


def check_start(hparams):
    """Refuse to skip or to repeat what comes before branches are mixed."""
    encoder, warm_up = hparams["encoder"], hparams["dense_warmup"]
    if encoder.routed and warm_up > hparams["starts_at"]:
        raise ValueError(
            "dense_warmup: the branches of start_from are mixed already; "
            f"expected 0, or at most starts_at, {hparams['starts_at']}, got "
            f"{warm_up}"
        )
    branches = encoder.layers[0].input
    begin = hparams["starts_at"]
    if len(branches) > 1:
        begin = max(begin, warm_up)
    share = hparams["pruning_schedule"](begin)
    for k, form in enumerate(branches):
        if not hasattr(form, "density") or form.density == 1:
            continue
        copied = k and not encoder.routed and warm_up > 0
        if share > 0 and (copied or form.kept == form.mask.numel()):
            raise ValueError(
                f"encoder.branches[{k}]: pruning_schedule: expected its course "
                f"to begin at {begin} or later, where this branch does; there "
                f"it is at {100 * share:.0f} % already, and all of that would "
                "be pruned at once"
            )


def check_forms(hparams, pruned):
    """What branches take from a dense one comes before they are used."""
    warm_up = hparams["dense_warmup"]
    for k, form in enumerate(hparams["encoder"].layers[0].input):
        where = f"encoder.branches[{k}]"
        if getattr(form, "energy", None) is not None:
            if not hparams["start_from"] and not (k and 0 < warm_up < 1):
                raise ValueError(
                    f"{where}: LowRank takes its rank for the energy "
                    f"{form.energy} from a trained dense matrix, and there is "
                    "none: give start_from, "
                    + ("a dense_warmup above 0, " if k else "")
                    + "or a rank"
                )
        if hasattr(form, "density") and k and 0 < warm_up < 1:
            if form.density < 1 and pruned <= warm_up:
                raise ValueError(
                    f"{where}: pruning_schedule: expected a last point after "
                    f"dense_warmup, {warm_up}, which this branch begins with; "
                    f"got {pruned}, so that it would be pruned at once"
                )


def check_optimizer(hparams, rate_key="learning_rate"):
    """Refuse arguments that it does not have, before any speech is read.

    And another rate than the one that it is set to in each step.
    """
    try:
        made = hparams["optimizer"]([torch.nn.Parameter(torch.zeros(1))])
    except TypeError as error:
        raise ValueError(f"optimizer: {error}") from None
    rate, asked = made.defaults["lr"], hparams[rate_key]
    if rate != asked:
        raise ValueError(
            f"optimizer: its lr is {rate}, and {rate_key}, which is what it "
            f"learns with, {asked}; write `lr: !ref <{rate_key}>`"
        )


def check_told_twice(hparams):
    """Refuse an object that has another value than the key it stands for."""
    for key, name, attribute in (
        ("epochs", "epoch_counter", "limit"),
        ("sample_rate", "features", "sample_rate"),
        ("frame_duration", "encoder", "frame_duration"),
        ("frame_duration", "routing_loss", "frame_duration"),
    ):
        asked = hparams[key]
        found = getattr(hparams[name], attribute, asked)
        if found != asked:
            raise ValueError(
                f"{name}: its {attribute} is {found}, and {key} is {asked}; "
                f"write `{attribute}: !ref <{key}>`"
            )


def check_noise(hparams):
    """Refuse noise of another sample rate than the speech."""
    rate = getattr(hparams["noise"], "sample_rate", hparams["sample_rate"])
    if rate != hparams["sample_rate"]:
        raise ValueError(
            f"noise: of {rate} Hz, and the speech of "
            f"{hparams['sample_rate']} Hz; give it a recording of that rate "
            f"and `sample_rate: {hparams['sample_rate']}`"
        )


def check_processes(file, begun):
    """Refuse to go on in more processes, or fewer: an epoch's steps differ.

    What is done of a training is counted in them, and all schedules follow it.
    """
    now = 1
    if torch.distributed.is_initialized():
        now = torch.distributed.get_world_size()
    if begun and file.exists() and file.read_text() != str(now):
        raise ValueError(
            f"{file.parent.parent} began in {file.read_text()} processes, and "
            f"goes on in as many (torchrun --nproc_per_node), not in {now}"
        )
    run_on_main(files.write, args=(file, str(now)))


def check_words(hparams, splits):
    """Refuse to go on with other words, before anything of it is written.

    Arguments
    ---------
    hparams : dict
        With `data_folder` and `save_folder`.
    splits : dict
        Name of a manifest that a training has begun with to its folders.
    """
    for name, folders in splits.items():
        file = Path(hparams["save_folder"]) / "manifests" / f"{name}.csv"
        if not file.exists() or not Path(hparams["data_folder"]).is_dir():
            continue
        began = words_of(read_manifest(file))
        if read_transcripts(hparams["data_folder"], folders) != began:
            raise other_speech(file.parents[2])


def other_speech(folder):
    """What is said where a training is to go on with it."""
    return ValueError(
        "data_folder: its recordings are not those that this training "
        f"began with ({folder}); give another output_folder, "
        "or `amnet evaluate` the trained model on them"
    )


def check_data(sets, file, begun):
    """Refuse to go on with other speech; its folder may have moved."""
    rows = [
        f"{name} {key} {float(row['duration']):.3f} {row['text']}\n"
        for name, data in sets.items()
        for key, row in sorted(data.data.items())
    ]
    found = hashlib.sha256("".join(rows).encode()).hexdigest()
    if begun and file.exists() and file.read_text() != found:
        raise other_speech(file.parent.parent)
    run_on_main(files.write, args=(file, found))
