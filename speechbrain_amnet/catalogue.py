"""The names that YAML may use, with one line, signature and snippet each.

SpeechBrain has no registry: a name after `!new:` is looked up as a Python
name. What makes a plugin dependable is therefore a list of short, stable,
public names: `speechbrain_amnet.__all__`. Their description is their
docstring; the snippets below show each one in an hparams file. `amnet names`
prints the catalogue, and `docs/reference.md` is made from it.
"""

import inspect
import pydoc
from typing import Any

import speechbrain_amnet

_SNIPPETS = {
    "AmortizedASR": """
features: !new:speechbrain_amnet.StreamingFeatures
encoder: !new:speechbrain_amnet.AmortizedEncoder
    input_size: 320
    hidden_size: 128
    layers: 2
    branches:
        - !name:speechbrain_amnet.Dense
predictor: !new:speechbrain_amnet.Predictor {vocabulary: 30, hidden: 128}
joint: !new:speechbrain_amnet.Joint
    encoder_size: 128
    predictor_size: 128
    hidden: 128
    vocabulary: 30
asr: !new:speechbrain_amnet.AmortizedASR  # from_hparams(FOLDER) does this
    modules:
        features: !ref <features>
        encoder: !ref <encoder>
        predictor: !ref <predictor>
        joint: !ref <joint>
    hparams:
        tokenizer: !new:sentencepiece.SentencePieceProcessor
        search: !new:speechbrain_amnet.GreedySearch
            predictor: !ref <predictor>
            joint: !ref <joint>
    run_opts: {device: cpu}
    freeze_params: true
""",
    "AmortizedEncoder": """
encoder: !new:speechbrain_amnet.AmortizedEncoder
    input_size: 320  # 4 stacked vectors of 80 mel bands
    hidden_size: 128
    layers: 2
    branches:  # the most expensive first
        - !name:speechbrain_amnet.Dense
        - !name:speechbrain_amnet.LowRank {rank: 16}
    router: !new:speechbrain_amnet.Arbitrator
        input_size: 320
        branches: 2
    target_device: !new:speechbrain_amnet.Device {load: 2}
    frame_duration: 0.04  # seconds
    dropout: 0.1
""",
    "Arbitrator": """
router: !new:speechbrain_amnet.Arbitrator
    input_size: 320
    branches: 2
    hidden: 16
    use_backlog: true
    use_device: false  # true: one model for devices of any speed
""",
    "BackgroundNoise": """
noise: !name:speechbrain_amnet.BackgroundNoise  # !new: where there is a file
    file: kitchen.flac
    sample_rate: 16000
    part: [0.0, 0.5]  # the other half is for tests
    decibels: [6, 24]
    chance: 0.8
""",
    "BacklogAwareLoss": """
routing_loss: !new:speechbrain_amnet.BacklogAwareLoss
    frame_duration: 0.04  # seconds
    cost_weight: 2
    idle_weight: 3
    end_weight: 3
    significant_backlog: 0.04  # seconds
    saved_target: 0.5  # moves cost_weight until half the compute is saved
    target_rate: 0.1
    target_gain: 40
""",
    "ChunkFeatures": """
features: !new:speechbrain_amnet.StreamingFeatures
fea_streaming_extractor: !new:speechbrain_amnet.ChunkFeatures
    features: !ref <features>
""",
    "DiffLinear": """
model: !new:speechbrain.lobes.models.VanillaNN.VanillaNN
    input_shape: [null, null, 40]
    dnn_blocks: 1
    dnn_neurons: 64
adapted: !new:speechbrain.nnet.adapters.AdaptedModel
    model_to_adapt: !ref <model>
    adapter_class: !name:speechbrain_amnet.DiffLinear
    all_linear: true
    adapter_kwargs:  # target_linear: each layer
        diff: !name:speechbrain_amnet.SparseDiff
        name: weight
adapter_class: !name:speechbrain_amnet.DiffLinear
""",
    "DiffModel": """
model: !new:torch.nn.LSTM [40, 64]
updated: !new:speechbrain_amnet.DiffModel
    model: !ref <model>
    diff: !name:speechbrain_amnet.SparseDiff
    include: ["weight*"]
    exclude: ["weight_hh*"]
""",
    "HashDiff": """
diff: !name:speechbrain_amnet.HashDiff  # DiffModel gives weight: and name:
    share: 0.02  # buckets, of the weights
    seed: 3  # a new one for each update
    alpha: 1
    beta: 1
    cache: true  # the hash, while it is trained
""",
    "LowRankDiff": """
diff: !name:speechbrain_amnet.LowRankDiff  # DiffModel gives weight: and name:
    rank: 4
    alpha: 1
    beta: 1
""",
    "SparseDiff": """
diff: !name:speechbrain_amnet.SparseDiff  # DiffModel gives weight: and name:
    alpha: 1
    beta: 1
""",
    "Dense": """
branches:
    - !name:speechbrain_amnet.Dense
form: !new:speechbrain_amnet.Dense
    rows: 128
    columns: 320
""",
    "Device": """
device: !new:speechbrain_amnet.Device
    load: 2  # the dense encoder is twice too slow to keep up
    train_loads: [0.8, 6]  # in training each utterance has its own
    train_ends: 0.5  # half of them the lowest or the highest
phone: !new:speechbrain_amnet.Device
    flops_per_second: 650.0e+6
""",
    "DistillationLoss": """
distillation_loss: !new:speechbrain_amnet.DistillationLoss
    blank: 0
    least: 0.001                # nodes that fewer alignments pass are left out
""",
    "EnergyRouting": """
router: !new:speechbrain_amnet.EnergyRouting
    share: 0.4  # the loudest 40 % of the frames, to the dense branch
    branches: 2
    momentum: 0.99
""",
    "FixedRouting": """
router: !new:speechbrain_amnet.FixedRouting
    branches: 2
    branch: 1
""",
    "GreedySearch": """
predictor: !new:speechbrain_amnet.Predictor {vocabulary: 30, hidden: 128}
joint: !new:speechbrain_amnet.Joint
    encoder_size: 128
    predictor_size: 128
    hidden: 128
    vocabulary: 30
search: !new:speechbrain_amnet.GreedySearch
    predictor: !ref <predictor>
    joint: !ref <joint>
    blank: 0
    max_symbols: 10
    blank_penalty: 0.5  # fewer words left out, more made up
""",
    "Joint": """
joint: !new:speechbrain_amnet.Joint
    encoder_size: 128
    predictor_size: 256
    hidden: 128
    vocabulary: 30
    dropout: 0.1
""",
    "LowRank": """
branches:
    - !name:speechbrain_amnet.LowRank {rank: 32}
form: !new:speechbrain_amnet.LowRank
    rows: 128
    columns: 320
    rank: 32
    energy: null  # or the share of the squared singular values to keep
""",
    "Predictor": """
predictor: !new:speechbrain_amnet.Predictor
    vocabulary: 30
    embedding: 128
    hidden: 256
    layers: 1
    dropout: 0.1
    blank: 0
    token_noise: 0.1
""",
    "RandomRouting": """
router: !new:speechbrain_amnet.RandomRouting
    shares: [0.4, 0.6]
    seed: 0
""",
    "SafeCheckpointer": """
checkpointer: !new:speechbrain_amnet.SafeCheckpointer
    checkpoints_dir: results/save
    recoverables: null  # name: object, of all that a resumed training needs
    custom_load_hooks: null
    custom_save_hooks: null
    allow_partial_load: False
""",
    "Schedule": """
temperature: !new:speechbrain_amnet.Schedule
    points: [[0.4, 1], [0.8, 100]]  # share of the training, value
    interpolation: geometric
""",
    "Skip": """
branches:
    - !name:speechbrain_amnet.Dense
    - !name:speechbrain_amnet.LowRank {rank: 32}
    - !name:speechbrain_amnet.Skip  # carries the state on
form: !new:speechbrain_amnet.Skip
    rows: 128
    columns: 320
""",
    "Sparse": """
branches:
    - !name:speechbrain_amnet.Sparse {density: 0.1}
form: !new:speechbrain_amnet.Sparse
    rows: 128
    columns: 320
    density: 0.1
    block: 16  # rows that are kept or lost together
""",
    "StreamingFeatures": """
features: !new:speechbrain_amnet.StreamingFeatures
    sample_rate: 16000  # Hz
    n_mels: 80
    stack: 4  # 40 ms a frame
    window_ms: 25
    hop_ms: 10
    floor: 1.0e-7
    mean_seconds: 3.0  # null: the mean of the training data alone
""",
    "TextStream": """
make_tokenizer_streaming_context: !name:speechbrain_amnet.TextStream
    pieces: []  # decode_streaming fills them in
""",
    "TransducerLoss": """
transducer_loss: !new:speechbrain_amnet.TransducerLoss
    blank: 0
    reduction: mean
""",
    "decode_streaming": """
# StreamingASR gives tokenizer:, tokens: and context:
tokenizer_decode_streaming: !name:speechbrain_amnet.decode_streaming
""",
    "load_weights": """
tokenizer: !new:sentencepiece.SentencePieceProcessor
load: !name:speechbrain_amnet.load_weights
pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer
    loadables:
        tokenizer: !ref <tokenizer>
    custom_hooks:  # the Pretrainer gives target: and path:
        tokenizer: !ref <load>
""",
}

# A whole hparams text for each name of `speechbrain_amnet.__all__`: it loads
# with plain hyperpyyaml and uses the name (a test makes sure of both).
EXAMPLES = {
    f"speechbrain_amnet.{name}": text.lstrip()
    for name, text in _SNIPPETS.items()
}


def names() -> list[str]:
    """The dotted names that YAML may use.

    Returns
    -------
    list of str
        For instance `speechbrain_amnet.AmortizedEncoder`, in the order of
        `speechbrain_amnet.__all__`.

    Example
    -------
    >>> all(name.startswith("speechbrain_amnet.") for name in names())
    True
    """
    public = getattr(speechbrain_amnet, "__all__", [])
    return [f"speechbrain_amnet.{name}" for name in public]


def describe() -> list[tuple[str, str, str]]:
    """The catalogue: what each name is and takes.

    Returns
    -------
    list of (str, str, str)
        Dotted name, signature such as `(size, rank=32)`, first line of the
        docstring.

    Raises
    ------
    ImportError
        If a name of `__all__` does not exist.

    Example
    -------
    >>> [len(entry) for entry in describe() if len(entry) != 3]
    []
    """
    entries = []
    for name in names():
        found = find(name)
        line = (inspect.getdoc(found) or "").partition("\n")[0]
        entries.append((name, signature(found), line))
    return entries


def find(name: str) -> Any:
    """The object of a dotted name, looked up as hyperpyyaml does.

    Arguments
    ---------
    name : str
        For instance `collections.Counter`.

    Returns
    -------
    object

    Raises
    ------
    ImportError
        If there is no such name.

    Example
    -------
    >>> find("collections.Counter").__name__
    'Counter'
    """
    found = pydoc.locate(name)
    if found is None:
        raise ImportError(f"no such public name: {name}")
    return found


def signature(function: Any) -> str:
    """Argument names and defaults, without types (the docstring has them).

    Example
    -------
    >>> def search(beam: int, *, blank: int = 0) -> list: ...
    >>> signature(search)
    '(beam, *, blank=0)'
    """
    if not callable(function):
        return ""
    full = inspect.signature(function)
    bare = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in full.parameters.values()
    ]
    return str(
        full.replace(parameters=bare, return_annotation=inspect.Signature.empty)
    )


def plain() -> str:
    """The catalogue for a terminal: a name and its line each.

    Example
    -------
    >>> plain().count("\\n") == len(names())
    True
    """
    entries = describe()
    width = max((len(name) for name, _, _ in entries), default=0)
    return "".join(f"{name:{width}}  {line}\n" for name, _, line in entries)


def markdown() -> str:
    """The reference page: line, signature, docstring and snippet of each name.

    Example
    -------
    >>> markdown().splitlines()[0]
    '# Reference'
    """
    parts = [
        "# Reference\n\n"
        "The names that an hparams file is made of. Made by `make docs` from\n"
        "the docstrings; edit those.\n"
    ]
    entries = describe()
    if entries:
        rows = [
            f"| [`{name}`](#{_short(name).lower()}) | {line} |\n"
            for name, _, line in entries
        ]
        parts.append("| name | what it is |\n|---|---|\n" + "".join(rows))
    for name, arguments, _ in entries:
        text = inspect.getdoc(find(name)) or ""
        parts.append(f"## {_short(name)}\n\n`{name}{arguments}`\n")
        parts.append(f"```text\n{text.strip()}\n```\n")
        if name in EXAMPLES:
            parts.append(f"```yaml\n{EXAMPLES[name].strip()}\n```\n")
    return "\n".join(parts)


def _short(name: str) -> str:
    return name.rpartition(".")[2]
