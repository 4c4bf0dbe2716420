"""Speech in noise: cuts of a long recording of noise, mixed in by loudness.

The ratio is that of Picovoice's speech-to-intent benchmark
(github.com/Picovoice/speech-to-intent-benchmark), whose published figures a
model can then stand beside: the energy of the loudest 2,048 samples of the
speech over that of the loudest 2,048 of the noise, and a mixture with a peak of
one half. A ratio of means would depend on how much silence is around a
command.
"""

import math
import zlib
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from .audio import read_channels

WINDOW = 2048  # samples
PEAK = 0.5


class BackgroundNoise:
    """Mixes noise into speech, in training at random, else as it is told.

    Arguments
    ---------
    file : str or Path
        A recording of noise, mono.
    sample_rate : int
        Of the speech, and so of the noise.
    part : sequence of float
        From where to where in the recording cuts are taken, as shares of it;
        what a model is tested with should be another part.
    decibels : sequence of float
        Lowest and highest ratio of speech to noise in training.
    chance : float
        Share of the utterances of a training that get noise.

    Raises
    ------
    FileNotFoundError
        If there is no such recording.
    ValueError
        If it cannot be read, has another sample rate or more channels, or
        holds nothing; if `part`, `decibels` or `chance` is out of range.

    Example
    -------
    >>> import numpy, soundfile
    >>> from tempfile import NamedTemporaryFile
    >>> file = NamedTemporaryFile(suffix=".wav")
    >>> hiss = numpy.random.default_rng(0).normal(size=32000)
    >>> soundfile.write(file.name, hiss / 8, 16000)
    >>> noise = BackgroundNoise(file.name, decibels=[6, 24], chance=0.5)
    >>> noise(torch.ones(4, 16000) / 8, torch.ones(4)).shape
    torch.Size([4, 16000])
    >>> noise.mix(torch.ones(16000) / 8, 12, place=0.5).abs().max().item()
    0.5
    """

    def __init__(
        self,
        file: str | Path,
        sample_rate: int = 16000,
        part: tuple[float, float] = (0.0, 0.5),
        decibels: tuple[float, float] = (6.0, 24.0),
        chance: float = 0.8,
    ):
        start, end = pair("part", part)
        low, high = pair("decibels", decibels)
        if not 0 <= start < end <= 1:
            raise ValueError(f"part: expected 0 <= start < end <= 1: {part}")
        if not -math.inf < low <= high < math.inf:
            raise ValueError(f"decibels: expected low <= high: {decibels}")
        if not 0 <= chance <= 1:
            raise ValueError(f"chance: expected 0 to 1, got {chance}")
        wav = read_noise(file, sample_rate)
        self.wav = wav[int(start * len(wav)) : int(end * len(wav))]
        self.name, self.sample_rate = Path(file).name, sample_rate
        # The beginning of its SHA-256, as files may share a name.
        self.digest = sha256(self.wav.numpy().tobytes()).hexdigest()[:12]
        self.decibels, self.chance = (low, high), chance
        if loudest(self.wav) == 0:
            raise ValueError(f"{file}: no sound in this part of the noise")

    def __call__(
        self, wavs: torch.Tensor, lengths: torch.Tensor
    ) -> torch.Tensor:
        """Give some utterances of a batch noise, for training.

        Arguments
        ---------
        wavs : torch.Tensor
            ``[batch, samples]``
        lengths : torch.Tensor
            Relative, ``[batch]``; what is behind an utterance stays.

        Returns
        -------
        torch.Tensor
            ``[batch, samples]``
        """
        low, high = self.decibels
        draws = torch.rand(len(wavs), 3).tolist()
        counts = (lengths * wavs.shape[1]).round().int().tolist()
        mixed = wavs.clone()
        for i, (chance, ratio, place) in enumerate(draws):
            if chance < self.chance:
                n, decibels = counts[i], low + ratio * (high - low)
                mixed[i, :n] = self.mix(wavs[i, :n], decibels, place)
        return mixed

    def mix(
        self, wav: torch.Tensor, decibels: float, place: float
    ) -> torch.Tensor:
        """Speech with the noise that begins at a place of the part.

        Arguments
        ---------
        wav : torch.Tensor
            ``[samples]``
        decibels : float
            Loudest of the speech over loudest of the noise.
        place : float
            Where the cut begins, from 0 to below 1. Behind its end the part
            begins anew.

        Returns
        -------
        torch.Tensor
            ``[samples]``, its peak one half; silence stays silence.
        """
        if not len(wav):
            return wav
        start = int(place * len(self.wav))
        rounds = -(-(start + len(wav)) // len(self.wav))
        # Even once would be a copy, of a recording that may be long.
        whole = self.wav if rounds == 1 else self.wav.repeat(rounds)
        cut = whole[start : start + len(wav)].to(wav)
        speech, noise = loudest(wav), loudest(cut)
        if speech > 0 and noise > 0:
            ratio = speech / (noise * 10 ** (decibels / 10))
            wav = wav + ratio**0.5 * cut
        peak = wav.abs().max()
        return wav * (PEAK / peak) if peak > 0 else wav


def pair(name: str, value: Any) -> tuple[float, float]:
    """Two numbers of an argument."""
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise ValueError(f"{name}: expected two numbers, got {value}")
    return tuple(value)


def read_noise(file: str | Path, sample_rate: int) -> torch.Tensor:
    """The samples of a recording of noise, ``[samples]``, checked."""
    wav, rate = read_channels(file)
    if rate != sample_rate:
        raise ValueError(f"{file}: expected {sample_rate} Hz, got {rate} Hz")
    if wav.shape[1] > 1:
        raise ValueError(f"{file}: expected mono, got {wav.shape[1]} channels")
    return torch.from_numpy(wav[:, 0])


def loudest(wav: torch.Tensor) -> float:
    """Energy of the loudest 2,048 samples, as the benchmark cuts them.

    Example
    -------
    >>> loudest(torch.cat([torch.zeros(2048), torch.ones(2048)]))
    2048.0
    """
    whole = len(wav) // WINDOW * WINDOW
    windows = wav[:whole].reshape(-1, WINDOW) if whole else wav.reshape(1, -1)
    return windows.square().sum(1).max().item()


def place_of(name: str) -> float:
    """Where a recording's noise begins: the same in every run.

    Example
    -------
    >>> place_of("33-1-0001") == place_of("33-1-0001")
    True
    """
    return zlib.crc32(name.encode()) / 2**32
