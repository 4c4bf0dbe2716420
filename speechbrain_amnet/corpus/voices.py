"""Pseudo-speakers: a few synthetic voices, made into many.

Resampling changes pitch and vocal tract together; a filter then moves the
formants alone. Pauses and noise are added as a device would hear them.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from scipy.signal import istft, resample_poly, stft

SAMPLE_RATE = 16000


@dataclass(frozen=True)
class Speaker:
    """A pseudo-speaker; ratios are relative to the synthetic voice.

    Arguments
    ---------
    number : int
        The name of the speaker's folder.
    pitch : float
        Ratio of the fundamental frequencies.
    formants : float
        Ratio of the formant frequencies: above 1 for a shorter vocal tract.
    pace : float
        Ratio of the speaking rates.
    blend : mapping, optional
        Of a synthesizer with many voices: name -> share.
    """

    number: int
    pitch: float
    formants: float
    pace: float
    blend: Mapping[str, float] = field(default_factory=dict)


def make_speakers(seed: int, count: int) -> list[Speaker]:
    """Speakers spread evenly over each ratio, so that no two are alike.

    Arguments
    ---------
    seed : int
        Another seed gives other speakers.
    count : int
        How many.

    Returns
    -------
    speakers : list of Speaker
        Their numbers start at 100.

    Example
    -------
    >>> len({speaker.pitch for speaker in make_speakers(0, 5)})
    5
    """
    rng = np.random.default_rng([seed, count])
    strata = np.stack([rng.permutation(count) for _ in range(3)])
    place = (strata + rng.uniform(size=strata.shape)) / count
    low = np.log([0.94, 0.98, 0.97])
    high = np.log([1.07, 1.02, 1.05])
    ratios = np.exp(low[:, None] + place * (high - low)[:, None])
    # In people, low voices and long vocal tracts go together.
    ratios[1] *= ratios[0] ** 0.15
    return [
        Speaker(100 + i, *map(float, ratio))
        for i, ratio in enumerate(zip(*ratios, strict=True))
    ]


def utter(voice, phrases, speaker: Speaker, rng) -> tuple[np.ndarray, float]:
    """Speaks a sentence, with pauses, noise and silence around it.

    Arguments
    ---------
    voice : callable
        `voice(text, speed=, seed=)` gives speech at 24 kHz; with `blend=`,
        if the speaker has one.
    phrases : sequence of str
        Words; between phrases the speaker may pause.
    speaker : Speaker
        Who speaks.
    rng : numpy.random.Generator
        The source of chance.

    Returns
    -------
    audio : numpy.ndarray
        Samples [time] in [-1, 1] at 16 kHz.
    end : float
        End of the last word, in seconds.
    """
    pieces = [_silence(rng.uniform(0.1, 0.6))]
    for words, pause in _with_pauses(phrases, rng):
        words += "," if pause else "."  # the melody goes on, or ends
        pieces += [_say(voice, words, speaker, rng), _silence(pause)]
    pieces[-1] = _silence(rng.uniform(0.2, 1.0))
    audio = np.concatenate(pieces)
    end = (len(audio) - len(pieces[-1])) / SAMPLE_RATE

    loudness = np.sqrt(np.mean(audio[audio != 0] ** 2))
    audio += loudness * 10 ** (-rng.uniform(25, 40) / 20) * _noise(audio, rng)
    peak = 10 ** (rng.uniform(-18, -2) / 20)
    return audio * (peak / np.abs(audio).max()), end


def _with_pauses(phrases, rng):
    """(words, seconds of the pause after them); most phrases run on."""
    groups, pauses = [[phrases[0]]], []
    for phrase in phrases[1:]:
        chance = rng.uniform()
        if chance > 0.45:
            groups[-1].append(phrase)
            continue
        # One pause in four is a hesitation.
        hesitates = chance < 0.11
        pauses.append(
            rng.uniform(0.5, 1.3) if hesitates else rng.uniform(0.08, 0.4)
        )
        groups.append([phrase])
    return [
        (" ".join(g), p) for g, p in zip(groups, [*pauses, 0.0], strict=True)
    ]


def _silence(seconds):
    return np.zeros(round(seconds * SAMPLE_RATE), dtype=np.float32)


def _say(voice, words, speaker, rng):
    """The words as this speaker says them, silence trimmed."""
    words = re.sub(r"\bi\b", "I", words.lower())
    # Resampling by the pitch ratio also changes the pace: undone here.
    pace = speaker.pace * rng.uniform(0.95, 1.05) / speaker.pitch
    blend = {"blend": speaker.blend} if speaker.blend else {}
    audio = voice(words, speed=pace, seed=int(rng.integers(2**31)), **blend)
    # 24 kHz to 16 kHz with the ratio on top, in hundredths.
    down = round(150 * speaker.pitch)
    audio = resample_poly(audio, 100, down).astype(np.float32)
    audio = _move_formants(audio, speaker.formants / speaker.pitch)
    return _trim(audio)


def _move_formants(audio, ratio):
    """Stretches the spectral envelope by the ratio; pitch stays."""
    size, kept = 512, 32
    frames = {"window": "hann", "nperseg": size, "noverlap": size * 3 // 4}
    spectrum = stft(audio, **frames)[2]
    # Smooth log envelope: the first coefficients of the cepstrum.
    cepstrum = np.fft.irfft(np.log(np.abs(spectrum) + 1e-7), axis=0)
    cepstrum[kept : size - kept + 1] = 0
    envelope = np.fft.rfft(cepstrum, axis=0).real
    bins = np.arange(len(envelope))
    from_bins = np.minimum(bins / ratio, bins[-1])
    below = np.floor(from_bins).astype(int)
    above = np.minimum(below + 1, bins[-1])
    share = (from_bins - below)[:, None]
    moved = envelope[below] * (1 - share) + envelope[above] * share
    gain = np.exp(np.clip(moved - envelope, -3, 3))
    return istft(spectrum * gain, **frames)[1].astype(np.float32)


def _trim(audio):
    """Cuts what lies 45 dB below the loudest 10 ms, with faded edges."""
    size = SAMPLE_RATE // 100
    blocks = audio[: len(audio) // size * size].reshape(-1, size)
    power = np.mean(blocks**2, axis=1)
    loud = np.flatnonzero(power > power.max() * 10**-4.5)
    audio = audio[loud[0] * size : (loud[-1] + 1) * size].copy()
    fade = np.linspace(0, 1, size // 2, dtype=np.float32)
    audio[: len(fade)] *= fade
    audio[-len(fade) :] *= fade[::-1]
    return audio


def _noise(audio, rng):
    """Noise of unit power, between white and pink."""
    spectrum = np.fft.rfft(rng.standard_normal(len(audio)))
    hertz = np.fft.rfftfreq(len(audio), 1 / SAMPLE_RATE)
    spectrum *= np.maximum(hertz, 50) ** -rng.uniform(0, 0.5)
    noise = np.fft.irfft(spectrum, len(audio))
    return (noise / noise.std()).astype(np.float32)
