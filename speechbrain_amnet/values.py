"""Values of hparams that are checked before anything is built or written."""

import math
from typing import Any

import torch

from .diff.positions import SCORES
from .hparams import plain_values


def is_number(value: Any) -> bool:
    """Whether it is one, and finite."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value)


def is_whole(value: Any) -> bool:
    """Whether it is a whole number."""
    return is_number(value) and isinstance(value, int)


def is_names(value: Any) -> bool:
    """Whether it is a list of texts."""
    return isinstance(value, list) and all(isinstance(v, str) for v in value)


def is_device(value: Any) -> bool:
    """Whether tensors can be there; None is SpeechBrain's choice."""
    try:
        return value is None or torch.empty(1, device=value).numel() == 1
    except (RuntimeError, AssertionError):  # PyTorch without CUDA asserts
        return False


OBJECTS = (
    "lr_schedule",
    "temperature_schedule",
    "router_lr_schedule",
    "routing_weight_schedule",
    "pruning_schedule",
    "routing_loss",
    "features",
    "speed_perturb",
    "drop_frequencies",
    "drop_times",
    "target_device",
    "arbitrator",
    "encoder",
    "predictor",
    "joint",
    "ctc_head",
    "transducer_loss",
    "distillation_loss",
    "search",
    "optimizer",
    "epoch_counter",
    "generator",
    "checkpointer",
    "train_logger",
    "tensorboard",
)

# SpeechBrain's options that are not taken, with what to do instead. Of the
# first three what comes would be written as if all epochs were done; the others
# would not be among the recorded hparams, so that a training that was stopped
# would go on without them.
WHOLE = "a training that ends early would look like a whole one; "
REFUSED = {
    "debug": f"{WHOLE}a short training is --epochs=1",
    "optimizer_step_limit": f"{WHOLE}a short training is --epochs=1",
    "test_only": f"{WHOLE}`amnet evaluate` measures a model that is trained",
    "data_parallel_backend": "not with these losses, which need the frames of "
    "a batch in one place; use torchrun",
    "auto_mix_prec": "use --precision=fp16",
    "bfloat16_mix_prec": "use --precision=bf16",
    "skip_nonfinite_grads": "a loss that is no number ends the training",
    "remove_vector_weight_decay": "all weights decay alike; --weight_decay=0 "
    "switches that off",
}

# In words, the condition, and the keys of train.py and train_diff.py. A
# learning rate of 0 keeps the weights.
EXPECTED = (
    (
        "a whole number, 1 or more",
        lambda value: is_whole(value) and value >= 1,
        (
            "epochs",
            "average_checkpoints",
            "buckets",
            "threads",
            "layers",
            "hidden_size",
            "predictor_size",
            "joint_size",
            "tokens",
            "sample_rate",
            "n_mels",
            "stack",
            "generation",
            "grad_accumulation_factor",
        ),
    ),
    (
        "a whole number, 0 or more",
        lambda value: is_whole(value) and value >= 0,
        (
            "num_workers",
            "find_epochs",
            "tune_epochs",
            "halvings",
            "ckpt_interval_minutes",  # SpeechBrain's option takes no others
        ),
    ),
    (
        f"a whole number from 0 to {2**32 - 1}",  # NumPy's; others train as 0
        lambda value: is_whole(value) and 0 <= value < 2**32,
        ("seed",),
    ),
    (
        "a number above 0",
        lambda value: is_number(value) and value > 0,
        (
            "batch_seconds",
            "max_seconds",
            "frame_duration",
            "floor",
            "max_grad_norm",  # 0 would keep the weights
        ),
    ),
    (
        "a finite number, 0 or more",
        lambda value: is_number(value) and value >= 0,
        (
            "learning_rate",
            "find_rate",
            "tune_rate",
            "ctc_weight",
            "teacher_weight",
            "weight_decay",
            "gain_db",
        ),
    ),
    ("a finite number", is_number, ("blank_penalty",)),
    (
        "null or a number above 0",
        lambda value: value is None or is_number(value) and value > 0,
        ("mean_seconds",),
    ),
    (
        "a share, from 0 to below 1",
        lambda value: is_number(value) and 0 <= value < 1,
        ("dropout", "token_noise"),
    ),
    (
        "True or False",
        lambda value: value is None or isinstance(value, bool),
        ("augment", "resample", "slots"),
    ),
    (
        "a share of the training, from 0 to below 1",
        lambda value: is_number(value) and 0 <= value < 1,
        ("starts_at", "ctc_warmup"),
    ),
    (
        "a share of the training, from 0 to 1",
        lambda value: is_number(value) and 0 <= value <= 1,
        ("round_at", "dense_warmup"),
    ),
    (
        "2 to 8, 16 or 32",
        lambda value: is_whole(value) and value in (*range(2, 9), 16, 32),
        ("bits",),
    ),
    (
        f"{', '.join(SCORES[:-1])} or {SCORES[-1]}",
        lambda value: value in SCORES,
        ("score",),
    ),
    (
        'a list of patterns, as ["encoder.*"]',
        is_names,
        ("include", "exclude"),
    ),
    (
        "a list of folders' names, as [train]",
        lambda value: is_names(value) and bool(value),
        ("train_splits", "valid_splits", "test_splits"),
    ),
    ("a list of folders' names, or []", is_names, ("old_splits",)),
    (
        "null or !new:speechbrain_amnet.BackgroundNoise {file: FILE}",
        lambda value: value is None,
        ("noise",),
    ),
    (
        "null or !new:speechbrain_amnet.Schedule {points: ...}",
        lambda value: value is None,
        ("gate_schedule",),
    ),
    (
        "an object, as !new:CLASS or !name:CLASS, as in the base",
        lambda value: False,
        OBJECTS,
    ),
    (
        "null or a path",
        lambda value: value is None or isinstance(value, str) and bool(value),
        ("start_from", "teacher", "grammar", "full_model"),
    ),
    (
        "char, bpe or unigram",
        lambda value: value in ("char", "bpe", "unigram"),
        ("token_type",),
    ),
    (
        "matrix or all",
        lambda value: value in ("matrix", "all"),
        ("pruning_scope",),
    ),
    (
        "the path of a folder",
        lambda value: isinstance(value, str) and bool(value),
        ("data_folder", "output_folder"),
    ),
    (
        "a name, which is text (of digits alone in quotes within quotes)",
        lambda value: isinstance(value, str) and bool(value.strip()),
        ("dataset", "experiment"),
    ),
    ("a device of this machine, as cpu", is_device, ("device",)),
)


def check_values(text: str, run_opts: dict[str, Any]) -> None:
    """Refuse, in one line, what would end a training later or spoil it.

    Arguments
    ---------
    text : str
        The whole hparams, see `resolve_hparams`.
    run_opts : dict
        SpeechBrain's options, with the `device`.

    Raises
    ------
    ValueError
        If a value is none that its key can have.
    """
    values = plain_values(text)
    for key, instead in REFUSED.items():
        for asked in (run_opts.get(key), values.get(key)):
            if asked is not None and asked is not False:
                raise ValueError(
                    f"{key}: expected none, got {asked!r}: {instead}"
                )
    for key in ("device", "grad_accumulation_factor"):
        if key in run_opts:
            values.setdefault(key, run_opts[key])  # else it is in the text
    for words, holds, keys in EXPECTED:
        for key in keys:
            if key in values and not holds(values[key]):
                raise ValueError(
                    f"{key}: expected {words}, got {values[key]!r}"
                )
