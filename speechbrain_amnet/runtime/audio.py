"""Recordings for the runtime, as mono samples of one rate."""

from math import gcd
from pathlib import Path

import numpy as np
import soundfile

from speechbrain_amnet.runtime.features import as_samples


def read_audio(path: str | Path, sample_rate: int) -> np.ndarray:
    """Read a recording.

    Arguments
    ---------
    path : str or Path
        Audio of any sample rate and number of channels.
    sample_rate : int
        That is wanted, in Hz.

    Returns
    -------
    np.ndarray
        ``[samples]``, float32 in -1 to 1, the mean of all channels.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no audio, empty, or has what cannot be in -1 to 1.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no such audio file: {path}")
    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    # A TypeError for files of samples alone, as *.raw.
    except (soundfile.LibsndfileError, TypeError) as error:
        raise ValueError(f"{path}: unreadable audio ({error})") from None
    if not len(samples):
        raise ValueError(f"{path}: empty audio (0 samples)")
    try:
        as_samples(samples)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    samples = samples.mean(1)
    if rate != sample_rate:
        from scipy.signal import resample_poly  # takes a while to load

        shared = gcd(rate, sample_rate)
        samples = resample_poly(samples, sample_rate // shared, rate // shared)
    return samples
