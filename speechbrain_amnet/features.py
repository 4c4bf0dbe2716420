"""Log-mel features that are the same whether audio streams or is whole.

SpeechBrain's `Fbank` looks at the whole utterance twice: it clips 80 dB below
the utterance's maximum, and it centres its windows. Here the floor is fixed,
windows end where their frame ends, and the statistics that normalise are
measured once on the training data and then frozen. So a frame depends on no
sample that comes after it, and on no other utterance of its batch. A running
mean may follow the microphone and the room, as Kaldi's online cepstral mean
normalisation does.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from speechbrain.processing.features import (
    STFT,
    Filterbank,
    spectral_magnitude,
)
from speechbrain.utils.filter_analysis import FilterProperties
from torch.nn.functional import pad

from .audio import DIVIDE, LOUDEST


@dataclass
class FeaturesContext:
    """What a stream of audio leaves behind for its next chunk.

    Arguments
    ---------
    samples : torch.Tensor
        Samples [batch, few] that a coming frame still needs; None before
        the first chunk.
    mean : torch.Tensor
        Running mean [batch, n_mels] so far; None before the first frame.
    ended : bool
        Whether the stream was flushed with `final=True`.
    """

    samples: torch.Tensor | None = None
    mean: torch.Tensor | None = None
    ended: bool = False


class StreamingFeatures(torch.nn.Module):
    """Normalised log-mel filterbanks in stacks, whole or in a stream.

    A frame joins `stack` filterbank vectors; frame t reads nothing after
    sample (t + 1) * stack * hop. Zeros complete an utterance's last frame.
    Mean and standard deviation of each mel band come from `fit_statistics`
    and are saved with the weights.

    Arguments
    ---------
    sample_rate : int
        In Hz.
    n_mels : int
        Mel bands of one filterbank vector.
    stack : int
        Filterbank vectors joined to one frame.
    window_ms : float
        Length of the analysis window, in ms.
    hop_ms : float
        From one window to the next, in ms.
    floor : float
        Least power of a band, for samples in -1..1. 1e-7 (-70 dB) is just
        above the rounding noise of 16-bit audio (-77 dB) and below the
        silence of real recordings (about -60 dB), so that digital silence
        looks like a quiet room, and not like an outlier. Of microphones that
        fall silent between words, each in its way, 1e-3 hides the difference
        (measured: docs/decisions.md, Coffee commands).
    mean_seconds : float, optional
        Memory of a running mean of each band, in s, which is subtracted, too;
        none is if not given. It begins with that of the training data. A
        stream of another microphone is then soon like all others.

    Raises
    ------
    ValueError
        If `hop_ms` is no whole number of samples or above `window_ms`,
        `mean_seconds` is not above 0, or `floor` not above 0 and at most 1.

    Example
    -------
    >>> features = StreamingFeatures()
    >>> features.fit_statistics([torch.randn(16000) * 0.1])
    >>> frames, lengths = features(
    ...     torch.randn(2, 16000) * 0.1, torch.tensor([1.0, 0.5])
    ... )
    >>> frames.shape, lengths
    (torch.Size([2, 25, 320]), tensor([1.0000, 0.5200]))
    >>> context = features.make_streaming_context()
    >>> features.forward_streaming(torch.randn(1, 1600), context).shape
    torch.Size([1, 2, 320])
    """

    def __init__(
        self,
        sample_rate: int = 16000,
        n_mels: int = 80,
        stack: int = 4,
        window_ms: float = 25,
        hop_ms: float = 10,
        floor: float = 1e-7,
        mean_seconds: float | None = None,
    ):
        super().__init__()
        hop = sample_rate * hop_ms / 1000
        if hop != int(hop) or not 0 < hop_ms <= window_ms:
            raise ValueError(
                f"hop_ms must be a whole number of samples and at most "
                f"window_ms: {hop_ms} ms is {hop:g} samples at {sample_rate} "
                f"Hz, and window_ms is {window_ms}"
            )
        if mean_seconds is not None and not 0 < mean_seconds < math.inf:
            raise ValueError(
                f"mean_seconds must be above 0, or null for no running mean, "
                f"got {mean_seconds}"
            )
        if not 0 < floor <= 1:
            raise ValueError(
                f"floor must be above 0 and at most 1, got {floor}"
            )
        self.sample_rate = sample_rate
        self.stack = stack
        self.frame_samples = int(hop) * stack
        # What a frame counts in the running mean.
        self.mean_rate = 0.0
        if mean_seconds is not None:
            self.mean_rate = 1 - math.exp(-self.frame_duration / mean_seconds)
        self.feature_size = n_mels * stack
        window = round(sample_rate * window_ms / 1000)
        # A power of two is fast, and narrow bins reach the lowest mel bands.
        n_fft = 2 ** math.ceil(math.log2(window))
        self.overlap = window - int(hop)  # samples from before the frame
        # torch.stft centres a short window in n_fft samples. What lies beside
        # the window is multiplied by zero, so it may be padding.
        before = (n_fft - window) // 2
        self.margin = (before, n_fft - window - before)
        self.stft = STFT(sample_rate, window_ms, hop_ms, n_fft, center=False)
        self.filterbank = Filterbank(
            n_mels,
            n_fft=n_fft,
            f_max=sample_rate / 2,
            sample_rate=sample_rate,
            amin=floor,
            top_db=math.inf,
        )
        self.register_buffer("mean", torch.zeros(n_mels))
        self.register_buffer("std", torch.ones(n_mels))
        self.register_buffer("fitted", torch.tensor(False))

    @property
    def frame_duration(self) -> float:
        """Seconds of audio that one frame stands for."""
        return self.frame_samples / self.sample_rate

    def forward(
        self, wav: torch.Tensor, lengths: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Computes the features of whole utterances.

        Arguments
        ---------
        wav : torch.Tensor
            Samples [batch, samples] in -1..1.
        lengths : torch.Tensor
            Relative lengths [batch] (0..1); all 1 when not given. What lies
            behind an utterance's own length is not read.

        Returns
        -------
        features : torch.Tensor
            [batch, frames, stack * n_mels]; an utterance's own frames number
            ceil(own samples / frame_samples).
        lengths : torch.Tensor
            Relative lengths [batch] of the features.

        Raises
        ------
        ValueError
            If an utterance is empty or not finite, if lengths do not fit, or
            if the statistics were never fitted.
        """
        self._check(wav)
        if lengths is None:
            lengths = torch.ones(len(wav), device=wav.device)
        if lengths.shape != wav.shape[:1]:
            raise ValueError(
                f"lengths must be [batch] = [{len(wav)}] as wav's batch, "
                f"got {list(lengths.shape)}"
            )
        samples = torch.round(lengths.double() * wav.shape[1]).long()
        if not ((samples >= 1) & (samples <= wav.shape[1])).all():
            raise ValueError(
                f"every utterance needs at least one sample and a relative "
                f"length of at most 1: got {wav.shape[1]} samples and "
                f"lengths {lengths.tolist()}"
            )
        wav = _zero_behind(wav, samples)
        self._check_samples(wav)
        missing = -wav.shape[1] % self.frame_samples
        features = self._frames(pad(wav, (self.overlap, missing)))
        frames = (samples + self.frame_samples - 1) // self.frame_samples
        return features, (frames / features.shape[1]).to(lengths.dtype)

    def make_streaming_context(self) -> FeaturesContext:
        """A fresh context, for one stream or a batch of them in step."""
        return FeaturesContext()

    def forward_streaming(
        self,
        chunk: torch.Tensor,
        context: FeaturesContext,
        final: bool = False,
    ) -> torch.Tensor:
        """Computes the frames that a chunk of audio completes.

        Arguments
        ---------
        chunk : torch.Tensor
            The next samples [batch, samples], any number of them.
        context : FeaturesContext
            From `make_streaming_context`; changed in place.
        final : bool
            Completes the last frame with zeros and ends the stream. The chunk
            may then be empty.

        Returns
        -------
        features : torch.Tensor
            [batch, new frames, stack * n_mels]; new frames may be 0.

        Raises
        ------
        ValueError
            If the chunk does not fit the stream or is not finite, if the
            stream has ended, or if the statistics were never fitted.
        """
        self._check(chunk, empty=True)
        self._check_samples(chunk)
        if context.ended:
            raise ValueError(
                "the stream has ended (final=True): start another with "
                "make_streaming_context()"
            )
        if context.samples is None:
            context.samples = chunk.new_zeros(len(chunk), self.overlap)
        if len(chunk) != len(context.samples):
            raise ValueError(
                f"a chunk must have the batch size of its stream, "
                f"{len(context.samples)}, got {len(chunk)}"
            )
        samples = torch.cat((context.samples, chunk), dim=1)
        if final:
            missing = (self.overlap - samples.shape[1]) % self.frame_samples
            samples = pad(samples, (0, missing))
        frames = (samples.shape[1] - self.overlap) // self.frame_samples
        used = frames * self.frame_samples
        # A copy, so that a long chunk does not stay in memory for its end.
        context.samples = samples[:, used:].clone()
        context.ended = final
        if frames == 0:
            return samples.new_zeros(len(chunk), 0, self.feature_size)
        return self._frames(samples[:, : self.overlap + used], context)

    @torch.no_grad()
    def fit_statistics(self, wavs: Iterable[torch.Tensor]) -> None:
        """Measures mean and standard deviation of each band, once.

        Arguments
        ---------
        wavs : Iterable[torch.Tensor]
            The training data, one [samples] in -1..1 after another.

        Raises
        ------
        ValueError
            If there is no audio, or one is empty or not finite.
        """
        count = 0
        total = torch.zeros_like(self.mean, dtype=torch.double)
        squares = torch.zeros_like(total)
        for wav in wavs:
            wav = wav.to(self.mean.device)[None]
            self._check(wav, fitted=False)
            self._check_samples(wav)
            missing = -wav.shape[1] % self.frame_samples
            mels = self._log_mel(pad(wav, (self.overlap, missing)))[0].double()
            count += len(mels)
            total += mels.sum(0)
            squares += mels.square().sum(0)
        if count == 0:
            raise ValueError("no audio to measure the statistics on")
        mean = total / count
        variance = (squares / count - mean.square()).clamp(min=0)
        self.mean.copy_(mean)
        # A band that hardly moves (all silence) must not be blown up: 1 dB.
        self.std.copy_(variance.sqrt().clamp(min=1.0))
        self.fitted.fill_(True)

    def _frames(self, samples, context=None):
        """[batch, overlap + frames * frame_samples] to normalised frames."""
        mels = (self._log_mel(samples) - self.mean) / self.std
        if self.mean_rate:
            mels = self._centred(mels, context or FeaturesContext())
        return mels.reshape(len(mels), -1, self.feature_size)

    def _centred(self, mels, context):
        """Without the running mean, which a frame itself has part in."""
        frames = mels.unflatten(1, (-1, self.stack))
        mean = context.mean
        if mean is None:
            mean = torch.zeros_like(mels[:, 0])
        means = []
        for own in frames.mean(2).unbind(1):
            mean = mean.lerp(own, self.mean_rate)
            means.append(mean)
        context.mean = mean
        return frames - torch.stack(means, 1).unsqueeze(2)

    def _log_mel(self, samples):
        """[batch, overlap + vectors * hop] to dB [batch, vectors, n_mels]."""
        # Autocast would round the powers to three digits.
        with torch.autocast(samples.device.type, enabled=False):
            spectrum = self.stft(pad(samples.float(), self.margin))
            return self.filterbank(spectral_magnitude(spectrum))

    def _check(self, wav, empty=False, fitted=True):
        """Refuses what is no audio, and audio before the statistics."""
        if wav.dim() != 2 or not wav.is_floating_point():
            raise ValueError(
                f"audio must be a floating-point tensor [batch, samples], "
                f"got {wav.dtype} of shape {list(wav.shape)}"
            )
        if len(wav) == 0 or (wav.shape[1] == 0 and not empty):
            raise ValueError(f"the audio is empty: shape {list(wav.shape)}")
        if fitted and not self.fitted:
            raise ValueError(
                "the statistics of the features are not fitted: call "
                "fit_statistics(training audio) or load a checkpoint"
            )

    @staticmethod
    def _check_samples(wav):
        """Refuses what cannot be in -1 to 1; `wav` is [batch, samples]."""
        if not wav.numel():
            return
        largest = wav.abs().amax(dim=1)
        if (largest <= LOUDEST).all():
            return
        row = int((~(largest <= LOUDEST)).nonzero()[0])
        if not largest[row].isfinite():
            raise ValueError(f"the audio of row {row} has NaN or infinity")
        raise ValueError(
            f"the audio of row {row} has a sample of {largest[row]:g}: "
            f"expected -1 to 1; {DIVIDE}"
        )


def _zero_behind(wav, samples):
    """[batch, samples] with zeros behind each row's own number of samples."""
    behind = torch.arange(wav.shape[1], device=wav.device) >= samples[:, None]
    # Filled and not multiplied: what lies behind may be NaN.
    return wav.masked_fill(behind, 0)


class ChunkFeatures:
    """`StreamingFeatures` as the feature extractor of `StreamingASR`.

    SpeechBrain's `StreamingASR` does not say when a stream ends: it sends
    chunks of zeros behind it. So the frames are those of the audio with
    silence behind it, and the last one that has any sample of the audio is
    always among them.

    Arguments
    ---------
    features : StreamingFeatures
        With their statistics.

    Example
    -------
    >>> features = StreamingFeatures()
    >>> features.fit_statistics([torch.randn(16000) * 0.1])
    >>> extractor = ChunkFeatures(features)
    >>> context = extractor.make_streaming_context()
    >>> extractor(torch.randn(1, 1600), context).shape
    torch.Size([1, 2, 320])
    >>> extractor.get_recommended_final_chunk_count(320)
    2
    """

    def __init__(self, features: StreamingFeatures):
        self.features = features
        self.make_streaming_context = features.make_streaming_context

    @property
    def properties(self) -> FilterProperties:
        """Samples that a frame reads, and samples from frame to frame."""
        features = self.features
        return FilterProperties(
            window_size=features.overlap + features.frame_samples,
            stride=features.frame_samples,
            causal=True,
        )

    def get_recommended_final_chunk_count(self, chunk_size: int) -> int:
        """How many chunks of so many zeros surely complete the last frame."""
        # It may have got as little as one sample. More would only be silence.
        return math.ceil((self.features.frame_samples - 1) / chunk_size)

    def __call__(
        self,
        chunk: torch.Tensor,
        context: FeaturesContext,
        lengths: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Computes the frames that a chunk of audio completes.

        Arguments
        ---------
        chunk : torch.Tensor
            The next samples [batch, samples], any number of them.
        context : FeaturesContext
            From `make_streaming_context`; changed in place.
        lengths : torch.Tensor
            Relative lengths [batch] (0..1) of the chunk's rows; all 1 when
            not given. What lies behind is silence, whatever it is.

        Returns
        -------
        features : torch.Tensor
            [batch, new frames, stack * n_mels]; new frames may be 0.
        """
        if lengths is not None:
            samples = torch.round(lengths.double() * chunk.shape[1])
            chunk = _zero_behind(chunk, samples)
        return self.features.forward_streaming(chunk, context)
