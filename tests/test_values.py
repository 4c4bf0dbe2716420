"""Values that would end a training late are refused before it begins."""

import pytest

from speechbrain_amnet.nodes import built_name, compose
from speechbrain_amnet.values import OBJECTS, check_values

CPU = {"device": "cpu"}


@pytest.mark.parametrize(
    "line, expected",
    [
        ("epochs: 0", "epochs: expected a whole number, 1 or more, got 0"),
        ("layers: 1.5", "layers: expected a whole number, 1 or more, got 1.5"),
        ("stack: 0", "stack: expected a whole number, 1 or more, got 0"),
        ("sample_rate: 0", "sample_rate: expected a whole number, 1 or more"),
        ("frame_duration: 0", "frame_duration: expected a number above 0"),
        ("seed: -1", "seed: expected a whole number from 0 to 4294967295"),
        ("seed: 4294967296", "seed: expected a whole number from 0 to 42949"),
        ("dataset: 2024", "dataset: expected a name, .* got 2024"),
        ("experiment: null", "experiment: expected a name, .* got None"),
        ("ckpt_interval_minutes: null", "_minutes: expected a whole number, 0"),
        ("ckpt_interval_minutes: 0.5", "_minutes: expected a whole number, 0"),
        ("batch_seconds: 0", "batch_seconds: expected a number above 0"),
        ("learning_rate: .nan", "learning_rate: expected a finite number"),
        ("learning_rate: abc", "learning_rate: expected a finite number"),
        ("starts_at: 1.0", "starts_at: expected a share of the training"),
        ("token_type: word", "token_type: expected char, bpe or unigram"),
        ("pruning_scope: global", "pruning_scope: expected matrix or all"),
        ("bits: 9", "bits: expected 2 to 8, 16 or 32, got 9"),
        ("bits: '4'", "bits: expected 2 to 8, 16 or 32, got '4'"),
        ("score: best", "score: expected relative, absolute, matrix or"),
        ("round_at: 1.5", "round_at: expected a share of the training"),
        ("generation: 0", "generation: expected a whole number, 1 or more"),
        ("include: encoder.*", "include: expected a list of patterns"),
        ("exclude: [1]", "exclude: expected a list of patterns"),
        ("augment: no", "augment: expected True or False, got 'no'"),
        ("resample: 'off'", "resample: expected True or False, got 'off'"),
        ("dense_warmup: 40", "dense_warmup: expected a share of the training"),
        ("ctc_warmup: 1.0", "ctc_warmup: expected a share of .* below 1"),
        ("teacher_weight: -3", "teacher_weight: expected a finite number, 0"),
        ("max_grad_norm: 0", "max_grad_norm: expected a number above 0, got"),
        ("blank_penalty: .nan", "blank_penalty: expected a finite number"),
        ("mean_seconds: 0", "mean_seconds: expected null or a number above"),
        ("floor: abc", "floor: expected a number above 0, got 'abc'"),
        ("dropout: 1.5", "dropout: expected a share, from 0 to below 1"),
        ("token_noise: abc", "token_noise: expected a share, .* got 'abc'"),
        ("train_splits: []", "train_splits: expected a list of folders"),
        ("test_splits: test", "test_splits: expected a list of folders"),
        ("old_splits: [1]", "old_splits: expected a list of folders"),
        ("noise: kitchen.flac", "noise: expected null or !new:speechbrain_a"),
        ("gate_schedule: 0.5", "gate_schedule: expected null or !new:speech"),
        ("optimizer: sgd", "optimizer: expected an object, .* got 'sgd'"),
        ("train_logger: null", "train_logger: expected an object, .* None"),
        ("teacher: 5", "teacher: expected null or a path, got 5"),
        ("start_from: True", "start_from: expected null or a path"),
        ("data_folder: ''", "data_folder: expected the path of a folder"),
    ],
)
def test_what_is_refused(line, expected):
    with pytest.raises(ValueError, match=expected):
        check_values(f"{line}\n", CPU)


def test_batches_are_not_split_over_devices():
    run_opts = {**CPU, "data_parallel_backend": True}
    with pytest.raises(ValueError, match="data_parallel_backend: .* torchrun"):
        check_values("epochs: 1\n", run_opts)


@pytest.mark.parametrize(
    "key, value, instead",
    [
        ("debug", True, "look like a whole one; .* --epochs=1"),
        ("optimizer_step_limit", 0, "--epochs=1"),
        ("optimizer_step_limit", "3", "--epochs=1"),
        ("test_only", True, "`amnet evaluate`"),
        # These are not recorded, and would be forgotten at a resumption.
        ("bfloat16_mix_prec", True, "use --precision=bf16"),
        ("auto_mix_prec", True, "use --precision=fp16"),
        ("skip_nonfinite_grads", True, "ends the training"),
        ("remove_vector_weight_decay", True, "--weight_decay=0"),
    ],
)
def test_options_of_speechbrain_that_spoil_a_training(key, value, instead):
    """Options or hparams: SpeechBrain takes it from both."""
    said = f"^{key}: expected none, got '?{value}'?: .*{instead}"
    with pytest.raises(ValueError, match=said):
        check_values("epochs: 1\n", {**CPU, key: value})
    with pytest.raises(ValueError, match=said):
        check_values(f"epochs: 1\n{key}: {value}\n", CPU)
    for no in (False, None):
        check_values("epochs: 1\n", {**CPU, key: no})


@pytest.mark.parametrize("file", ["amnet.yaml", "diff_sparse.yaml"])
def test_whatever_is_built_is_known_to_be(root, file):
    whole = compose((root / "hparams" / file).read_text(), file)
    built = {key.value for key, value in whole.value if built_name(value)}
    assert built - {"__set_seed"} <= set(OBJECTS)


def test_what_is_not():
    text = "epochs: 1\nlearning_rate: 0.0\nstarts_at: 0\nmine: -3\n"
    text += "noise: !new:a.B {file: c}\nteacher: null\nold_splits: []\n"
    check_values(text, CPU)
    check_values(text, {"device": None})


def test_an_accumulation_of_no_batches():
    with pytest.raises(ValueError, match="grad_accumulation_factor: expected"):
        check_values("epochs: 1\n", {**CPU, "grad_accumulation_factor": 0})
    run_opts = {**CPU, "grad_accumulation_factor": 1}  # SpeechBrain's own
    with pytest.raises(ValueError, match="grad_accumulation_factor: expected"):
        check_values("grad_accumulation_factor: 0\n", run_opts)


def test_a_device_that_is_not_there():
    with pytest.raises(ValueError, match="device: .* got 'nowhere'"):
        check_values("epochs: 1\n", {"device": "nowhere"})
