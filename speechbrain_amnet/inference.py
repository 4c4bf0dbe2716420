"""A trained folder as a SpeechBrain pretrained model, whole or streaming.

`export.export_model` writes the folder at the end of a training, `load` and
`AmortizedASR.from_hparams` read it. Streaming and batch give the same words
and the same routing.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ruamel.yaml.error import YAMLError
from speechbrain.inference.interfaces import Pretrained

from .arbitrator import Routing
from .audio import as_samples, read_audio
from .device import Device
from .encoder import EncoderContext
from .features import FeaturesContext
from .frames import check_frames
from .grammar import Grammar
from .grammar_search import GrammarContext, GrammarSearch
from .hparams import building, resolve_hparams
from .loading import load_weights  # noqa: F401  old folders name it here
from .search import GreedySearch, SearchContext
from .slots import Command, is_tag
from .text import TextStream, command_of, pieces_of

MODULES = ("features", "encoder", "predictor", "joint")
CTC_HEAD = "ctc_head"  # a model may have one; grammars are searched by it


@dataclass
class ASRStreamingContext:
    """What a stream, or a batch of streams in step, carries along.

    fea_extractor_context : samples that a coming frame still needs.
    encoder_context : states and backlog; its `routing` tells the decisions on
        the latest chunk, None if that completed no frame.
    decoder_context : of the search; its `token_frames` tell the frames of the
        latest tokens.
    tokenizer_context : for each stream, how its text ends; none before the
        first chunk.
    search : whose context that is; the next stream may have another, see
        `AmortizedASR.hold_to`.
    """

    fea_extractor_context: FeaturesContext
    encoder_context: EncoderContext
    decoder_context: SearchContext | GrammarContext
    tokenizer_context: list[TextStream]
    search: GreedySearch | GrammarSearch


class AmortizedASR(Pretrained):
    """A ready-to-use streaming recogniser with an amortized encoder.

    Used as any pretrained model of SpeechBrain: `transcribe_file` and
    `transcribe_batch` for whole recordings as in `EncoderDecoderASR`,
    `make_streaming_context` and `transcribe_chunk` for streams much as in
    `StreamingASR`, but with chunks of any size, and `final` instead of their
    lengths. SpeechBrain's `StreamingASR` loads the same folder.

    Arguments
    ---------
    modules : dict
        features, encoder, predictor and joint; ctc_head where there is one.
    hparams : dict
        tokenizer (sentencepiece) and search; `audio_normalizer` where audio
        is not 16 kHz.
    run_opts : dict
        Such as ``{"device": "cuda"}``.
    freeze_params : bool
        Whether parameters get no gradient. If they do, modules are left in
        training mode, as SpeechBrain does: `mods.eval()` before transcribing.

    Example
    -------
    >>> asr = AmortizedASR.from_hparams("OUTPUT_FOLDER/model")  # doctest: +SKIP
    >>> asr.transcribe_file("some.wav")  # doctest: +SKIP
    'GO FORWARD TEN METERS'
    >>> for words in asr.transcribe_stream("some.wav"):  # doctest: +SKIP
    ...     print(words, end="", flush=True)
    GO FORWARD TEN METERS
    """

    HPARAMS_NEEDED = ["tokenizer", "search"]
    grammar: Grammar | None = None
    MODULES_NEEDED = list(MODULES)

    @classmethod
    def from_hparams(
        cls,
        source: str | Path,
        hparams_file: str = "hyperparams.yaml",
        **options: Any,
    ) -> "AmortizedASR":
        """As SpeechBrain's; of a training's folder, `model` in it is read.

        Arguments
        ---------
        source : str or Path
            The folder of a model, or one with a folder `model`; or what
            SpeechBrain can fetch.
        hparams_file : str
            Its hparams.
        **options
            See `speechbrain.inference.interfaces.Pretrained`.

        Raises
        ------
        ValueError
            If it is a file.
        FileNotFoundError
            If it is the path of no folder.
        """
        if not isinstance(source, str | Path):  # SpeechBrain's FetchSource
            return super().from_hparams(
                source, hparams_file=hparams_file, **options
            )
        inside = Path(source, "model")
        if (inside / hparams_file).is_file():
            source = inside
        elif Path(source).is_file():
            raise ValueError(
                f"{source} is a file; expected the folder of a model. What "
                "`amnet pack` wrote is read by `amnet transcribe` and "
                "speechbrain_amnet.runtime"
            )
        elif Path(source).is_absolute() and not Path(source).exists():
            raise FileNotFoundError(f"{source}: there is no such folder")
        return super().from_hparams(
            str(source), hparams_file=hparams_file, **options
        )

    def load_audio(
        self, path: str | Path, savedir: str | None = None
    ) -> torch.Tensor:
        """Read a recording, as mono audio of the model's sample rate.

        Arguments
        ---------
        path : str or Path
            Audio of any sample rate and number of channels.
        savedir : str, optional
            Where SpeechBrain keeps a copy of what it downloads.

        Returns
        -------
        torch.Tensor
            ``[samples]``

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If it is no audio, empty, or has what cannot be in -1 to 1.
        """
        if "://" not in str(path):
            # As the runtime does: another filter gives other words.
            samples = read_audio(path, self.mods.features.sample_rate)
            return torch.from_numpy(samples).to(self.device)
        try:
            wav = super().load_audio(str(path), savedir)
        except RuntimeError as error:
            raise ValueError(f"{path}: unreadable audio ({error})") from error
        if not wav.numel():
            raise ValueError(f"{path}: empty audio (0 samples)")
        try:
            as_samples(wav.cpu().numpy())
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        return wav

    def encode_batch(
        self, wavs: torch.Tensor, wav_lens: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, Routing]:
        """Encode whole recordings, with hard routing.

        Arguments
        ---------
        wavs : torch.Tensor
            ``[batch, samples]``, at the model's sample rate.
        wav_lens : torch.Tensor
            Relative lengths, ``[batch]``.

        Returns
        -------
        encoded : torch.Tensor
            ``[batch, frames, hidden_size]``
        lengths : torch.Tensor
            Relative lengths of the frames, ``[batch]``.
        routing : Routing
        """
        wavs = self.on_device(wavs)
        wav_lens = torch.as_tensor(wav_lens).to(self.device)
        with torch.no_grad():
            features, lengths = self.mods.features(wavs, wav_lens)
            encoded, routing = self.mods.encoder(features, lengths, hard=True)
        return encoded, lengths, routing

    def on_device(self, wavs: torch.Tensor) -> torch.Tensor:
        """In float32; whole numbers stay as they are, and are refused."""
        wavs = torch.as_tensor(wavs)  # of NumPy, too
        return (wavs.float() if wavs.is_floating_point() else wavs).to(
            self.device
        )

    def transcribe_batch(
        self, wavs: torch.Tensor, wav_lens: torch.Tensor
    ) -> tuple[list[str], list[list[int]]]:
        """Transcribe whole recordings.

        Arguments
        ---------
        wavs : torch.Tensor
            ``[batch, samples]``, at the model's sample rate.
        wav_lens : torch.Tensor
            Relative lengths, ``[batch]``.

        Returns
        -------
        words : list of str
        tokens : list of list of int
        """
        encoded, lengths, _ = self.encode_batch(wavs, wav_lens)
        tokens = self.hparams.search(encoded, lengths)
        return [self.text(row) for row in tokens], tokens

    def transcribe_file(self, path: str | Path, **options) -> str:
        """Transcribe a recording; the options are `load_audio`'s."""
        wav = self.load_audio(path, **options)
        words, _ = self.transcribe_batch(wav[None], torch.ones(1))
        return words[0]

    def forward(
        self, wavs: torch.Tensor, wav_lens: torch.Tensor
    ) -> tuple[list[str], list[list[int]]]:
        """The same as `transcribe_batch`."""
        return self.transcribe_batch(wavs, wav_lens)

    def text(self, tokens: Sequence[int]) -> str:
        """The words of a recording's tokens."""
        return TextStream(self.pieces).add(tokens)

    def command(self, tokens: Sequence[int]) -> Command:
        """What a recording's tokens say: words, intent and slots."""
        if self.tagged or self.grammar is None:
            return command_of(self.pieces, tokens)
        return self.grammar.command(self.text(tokens))

    def hold_to(
        self, grammar: str | Path | None, width: int | None = None
    ) -> None:
        """Search only the sentences of a grammar, from the next stream on.

        A stream is one sentence: what was said is known when it ends.
        By what the encoder alone says, where the model has a CTC head, else by
        the transducer; see `beam`.

        Arguments
        ---------
        grammar : str, Path or None
            A file in JSGF, see `Grammar`; None lets go of it.
        width : int, optional
            Hypotheses that the search keeps; see `GrammarSearch`.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If it is no grammar, or the model cannot write its words or tags.
        """
        search = self.hparams.search
        search, held = getattr(search, "greedy", search), None
        if grammar is not None:
            held = Grammar.read(grammar, self.tagged)
            held.check(self.pieces)
            head = getattr(self.mods, CTC_HEAD, None)
            search = GrammarSearch(
                search, held, self.pieces, width, head, self.shares
            )
        self.grammar, self.hparams.search = held, search

    def understand_file(self, path: str | Path, **options) -> Command:
        """Understand a command; the options are `load_audio`'s.

        Arguments
        ---------
        path : str or Path
            A recording.

        Returns
        -------
        Command

        Raises
        ------
        ValueError
            If the model was not trained on commands (`slots: True`) and is
            not held to a grammar.
        """
        if not self.understands:
            raise ValueError(
                "this model writes words alone; one that is trained with "
                "`slots: True`, or held to a grammar, knows intents and slots"
            )
        wav = self.load_audio(path, **options)
        _, tokens = self.transcribe_batch(wav[None], torch.ones(1))
        return self.command(tokens[0])

    @property
    def understands(self) -> bool:
        """Whether slots and intents are known."""
        return self.tagged or self.grammar is not None

    @cached_property
    def tagged(self) -> bool:
        """Whether the model writes slots and intents itself."""
        return any(map(is_tag, self.pieces))

    @property
    def shares(self) -> list[float] | None:
        """Of the tokens in the training; None of models that do not know."""
        return getattr(self.hparams, "token_shares", None)

    @cached_property
    def pieces(self) -> list[str]:
        """What each token adds to a text."""
        return pieces_of(self.hparams.tokenizer)

    def make_streaming_context(self, batch: int = 1) -> ASRStreamingContext:
        """A fresh context, for one stream or several in step.

        One for a single stream takes as many as its first chunk has.
        """
        return ASRStreamingContext(
            self.mods.features.make_streaming_context(),
            self.mods.encoder.make_streaming_context(batch=batch),
            self.hparams.search.make_streaming_context(batch),
            [],
            self.hparams.search,
        )

    @torch.no_grad()
    def encode_chunk(
        self,
        context: ASRStreamingContext,
        chunk: torch.Tensor,
        final: bool = False,
    ) -> torch.Tensor:
        """Encode the frames that a chunk of audio completes.

        Arguments
        ---------
        context : ASRStreamingContext
            Changed in place.
        chunk : torch.Tensor
            The next samples, ``[batch, samples]``; any number of them.
        final : bool
            Whether the streams end with this chunk, which may be empty.

        Returns
        -------
        torch.Tensor
            ``[batch, frames, hidden_size]``; there may be no frame.
        """
        chunk, encoder_context = self.on_device(chunk), context.encoder_context
        rows = len(encoder_context.backlog)
        if chunk.dim() == 2 and len(chunk) != rows and rows > 1:
            # Before the features take it for one of theirs.
            raise ValueError(
                f"a chunk must have the batch size of its stream, {rows}, got "
                f"{len(chunk)}"
            )
        features = self.mods.features.forward_streaming(
            chunk, context.fea_extractor_context, final
        )
        encoded = self.mods.encoder.forward_streaming(features, encoder_context)
        if final and not encoder_context.first:
            context.fea_extractor_context.ended = False  # may still come
            raise ValueError("the stream has ended without any audio")
        return encoded

    def decode_chunk(
        self,
        context: ASRStreamingContext,
        x: torch.Tensor,
        final: bool = False,
    ) -> tuple[list[str], list[list[int]]]:
        """Search what `encode_chunk` gave: new text and tokens of each row."""
        search, decoder = context.search, context.decoder_context
        tokens = search.forward_streaming(x, decoder)
        if final:
            places = decoder.token_frames
            tokens = _joined(tokens, search.finish(decoder))
            decoder.token_frames = _joined(places, decoder.token_frames)
        texts = context.tokenizer_context
        if not texts:
            texts += [TextStream(self.pieces) for _ in tokens]
        return [t.add(row) for t, row in zip(texts, tokens)], tokens

    def transcribe_chunk(
        self,
        context: ASRStreamingContext,
        chunk: torch.Tensor,
        *,
        final: bool = False,
    ) -> list[str]:
        """Transcribe the next chunk of each stream.

        Arguments
        ---------
        context : ASRStreamingContext
            From `make_streaming_context`; changed in place.
        chunk : torch.Tensor
            The next samples, ``[batch, samples]``; any number of them.
        final : bool
            Whether the streams end with this chunk, which may be empty.

        Returns
        -------
        list of str
            The new text of each stream, often none. All of a stream's joined
            are what `transcribe_batch` gives.
        """
        words, _ = self.decode_chunk(
            context, self.encode_chunk(context, chunk, final), final
        )
        return words

    def transcribe_stream(
        self,
        source: str | Path | Iterable[torch.Tensor],
        chunk_ms: float = 40.0,
        context: ASRStreamingContext | None = None,
    ) -> Iterator[str]:
        """Transcribe one stream.

        Arguments
        ---------
        source : str, Path or iterable of torch.Tensor
            A recording, or chunks ``[samples]`` of any size at the model's
            sample rate.
        chunk_ms : float
            The size of the chunks that a recording is cut to.
        context : ASRStreamingContext, optional
            A fresh one, to look into between the chunks.

        Yields
        ------
        str
            The new text of each chunk, and of the end; often empty.

        Raises
        ------
        ValueError
            If a chunk has several channels, or what cannot be in -1 to 1.
        """
        if isinstance(source, str | Path):
            source = self.chunks(self.load_audio(source), chunk_ms)
        elif isinstance(source, torch.Tensor | np.ndarray):
            raise ValueError(
                "source: expected a recording's path or chunks, got samples "
                f"of shape {list(source.shape)}; give [samples]"
            )
        context = context or self.make_streaming_context()
        for chunk in map(torch.as_tensor, source):
            if chunk.dim() > 1 and chunk.numel() not in (0, max(chunk.shape)):
                raise ValueError(
                    "expected chunks of one channel, [samples], got one of "
                    f"shape {list(chunk.shape)}; take one channel, or their "
                    "mean"
                )
            yield self.transcribe_chunk(context, chunk.reshape(1, -1))[0]
        yield self.transcribe_chunk(context, torch.zeros(1, 0), final=True)[0]

    def chunks(self, wav: torch.Tensor, chunk_ms: float) -> Sequence:
        """Cut ``[samples]`` into chunks of so many milliseconds."""
        size = self.mods.features.sample_rate * chunk_ms / 1000
        if not 0.5 < size < math.inf:
            raise ValueError(
                f"a chunk must have at least one sample, got {chunk_ms} ms"
            )
        return wav.split(round(size))


def load(
    folder: str | Path, device_load: float | None = None, **options
) -> AmortizedASR:
    """Load a trained model.

    Arguments
    ---------
    folder : str or Path
        What a training wrote: its output folder, or the folder `model` in it,
        wherever that is now.
    device_load : float, optional
        Reckon the backlog for a device on which a dense frame takes this many
        frame durations, instead of the device of the training.
    **options
        For `AmortizedASR.from_hparams`, as ``run_opts={"device": "cpu"}``.

    Returns
    -------
    AmortizedASR

    Raises
    ------
    FileNotFoundError
        If there is no model, or a part of it is missing.
    ValueError
        If a file is not what it should be.
    """
    model = find_model(folder)
    try:
        asr = _load(model, options)
    except Exception:
        # An update takes the old version away, perhaps between two files.
        if find_model(folder) == model:
            raise
        asr = _load(find_model(folder), options)
    if device_load is not None:
        asr.mods.encoder.target_device = Device(load=device_load)
    return asr


def _load(model: Path, options: dict[str, Any]) -> AmortizedASR:
    """Load a folder that `find_model` gave."""
    file = model / "hyperparams.yaml"
    # Says what is wrong with a file; hyperpyyaml may only stumble over it.
    text = resolve_hparams(file)
    if "\npretrainer:" not in text:
        raise ValueError(
            f"{file}: not the hparams of a model, or not all of them: there "
            "is no pretrainer"
        )
    try:
        with building(text, file):
            asr = AmortizedASR.from_hparams(str(model), **options)
            check_frames(asr.mods.features, asr.mods.encoder)
    except YAMLError as error:
        said = " ".join(str(error).split())
        raise ValueError(f"{file}: {said}") from error
    return asr


def _joined(before: list[list[Any]], rest: list[list[Any]]) -> list[list[Any]]:
    """What each row has had, and the rest of it."""
    return [a + b for a, b in zip(before, rest, strict=True)]


def find_model(folder: str | Path) -> Path:
    """The folder that `from_hparams` reads, see `load`."""
    folder = Path(folder)
    for place in (folder / "model", folder):
        names = ("hyperparams.yaml", "tokenizer.ckpt")
        if all((place / name).is_file() for name in names):
            # `model` may be a link that an update replaces meanwhile.
            return place.resolve()
    raise FileNotFoundError(
        f"{folder}: no model; expected the output folder of a finished "
        "training, or the folder `model` in it"
    )
