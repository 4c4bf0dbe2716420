"""The model folder that a training leaves, as `from_hparams` reads it."""

import io
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from . import __version__
from .ctc_beam import prior_of
from .inference import CTC_HEAD, MODULES, load
from .nodes import compose, serialize, walk

# What of a training's hparams the model's own file says about it.
ABOUT = ("experiment", "dataset", "seed", "epochs", "augment")

# What SpeechBrain's StreamingASR asks for, beside the modules enc and proj_enc.
STREAMING_ASR = (
    "# The same for speechbrain.inference.ASR.StreamingASR:",
    "fea_streaming_extractor: !new:speechbrain_amnet.ChunkFeatures",
    "  features: !ref <features>",
    "make_decoder_streaming_context: !apply:getattr",
    "  [!ref <search>, make_streaming_context]",
    "decoding_function: !apply:getattr [!ref <search>, forward_streaming]",
    "make_tokenizer_streaming_context: !name:speechbrain_amnet.TextStream",
    "tokenizer_decode_streaming: !name:speechbrain_amnet.decode_streaming",
)


def export_model(
    hparams: str,
    modules: Mapping[str, torch.nn.Module],
    tokenizer: str | Path,
    folder: str | Path,
    shares: Sequence[float] | None = None,
) -> Path:
    """Write a trained model as SpeechBrain's `from_hparams` reads it.

    The folder may be moved anywhere. It is written aside, loaded once to
    see that it is whole, and then takes its place.

    Arguments
    ---------
    hparams : str
        The training's whole hparams text, with keys features, encoder,
        predictor, joint and search; see `resolve_hparams`.
    modules : mapping
        The trained features, encoder, predictor and joint, and ctc_head where
        there is one; others are left out.
    tokenizer : str or Path
        The sentencepiece model.
    folder : str or Path
        Replaced if it exists.
    shares : sequence of float, optional
        Of the tokens, see `tokens.token_shares`; what a search by the CTC head
        takes as its prior.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    ValueError
        If a key or a module is missing, or there is not a share of each token.
    """
    missing = [name for name in MODULES if name not in modules]
    if missing:
        raise ValueError(f"export_model: no module {', '.join(missing)}")
    folder = Path(folder)
    aside = folder.with_name(folder.name + ".part")
    old = folder.with_name(folder.name + ".old")
    if old.exists() and not folder.exists():
        os.replace(old, folder)  # killed between the two renames below
    remove(aside)
    aside.mkdir(parents=True)
    try:
        _fill(aside, hparams, modules, tokenizer, shares)
    except BaseException:
        remove(aside)
        raise
    remove(old)
    if folder.exists():
        os.replace(folder, old)
    os.replace(aside, folder)
    remove(old)
    return folder


def _fill(aside, hparams, modules, tokenizer, shares):
    """Write all files, and load them once."""
    names = [*MODULES, *({CTC_HEAD} & set(modules))]
    sample_rate = modules["features"].sample_rate
    text = inference_hparams(hparams, sample_rate, names)
    if shares is not None:
        text += f"token_shares: {[float(f'{one:.4g}') for one in shares]}\n"
    (aside / "hyperparams.yaml").write_text(text, encoding="utf-8")
    (aside / "tokenizer.ckpt").write_bytes(Path(tokenizer).read_bytes())
    for name in names:
        weights = {k: v.cpu() for k, v in modules[name].state_dict().items()}
        file = io.BytesIO()  # written by Python, a full disk is an OSError
        torch.save(weights, file)
        (aside / f"{name}.ckpt").write_bytes(file.getvalue())
    asr = load(aside, run_opts={"device": "cpu"})
    prior_of(asr.shares, len(asr.pieces))


def remove(folder: Path) -> None:
    """A folder, or a link to one, which an update leaves."""
    if folder.is_symlink():
        folder.unlink()
    else:
        shutil.rmtree(folder, ignore_errors=True)


def inference_hparams(
    text: str, sample_rate: int, modules: Sequence[str] = MODULES
) -> str:
    """What inference needs of a training's hparams, as a file of its own.

    Arguments
    ---------
    text : str
        The training's hparams.
    sample_rate : int
        Of the audio, in Hz.
    modules : sequence of str
        Whose weights there are.

    Returns
    -------
    str
        The nodes of the model, all that they refer to, and what SpeechBrain's
        `from_hparams` wants.
    """
    root = compose(text, "the training's hparams")
    nodes = {str(key.value): value for key, value in root.value}
    kept: set[str] = set()
    needed = [*modules, "search", *(key for key in ABOUT if key in nodes)]
    while needed:
        name = needed.pop()
        if name in kept:
            continue
        if name not in nodes:
            raise ValueError(
                f"the training's hparams have no key '{name}', which the "
                "model's inference needs"
            )
        kept.add(name)
        for where, node in walk(nodes[name], name):
            if str(node.tag).startswith("!include:"):
                raise ValueError(
                    f"{where} includes a file; write it out, so that the "
                    "model can be moved"
                )
            if str(node.tag) in ("!ref", "!copy"):
                inside = re.findall(r"<([^<>]+)>", node.value)
                needed += [re.split(r"[.\[]", ref)[0] for ref in inside]
    root.value = [pair for pair in root.value if str(pair[0].value) in kept]
    loadables = (*modules, "tokenizer")
    lines = [
        f"# Inference, exported by speechbrain_amnet {__version__}:",
        "# speechbrain_amnet.AmortizedASR.from_hparams(THIS_FOLDER)",
        serialize(root).rstrip(),
        "tokenizer: !new:sentencepiece.SentencePieceProcessor",
        "audio_normalizer: !new:speechbrain.dataio.preprocess.AudioNormalizer",
        f"  sample_rate: {sample_rate}",
        "modules:",
        *(f"  {name}: !ref <{name}>" for name in modules),
        "  enc: !ref <encoder>",
        "  proj_enc: !new:torch.nn.Identity",
        *STREAMING_ASR,
        "pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer",
        "  loadables:",
        *(f"    {name}: !ref <{name}>" for name in loadables),
        "  custom_hooks:",
        *(
            f"    {name}: !name:speechbrain_amnet.load_weights"
            for name in loadables
        ),
    ]
    return "\n".join(lines) + "\n"
