"""Recordings for the runtime, as mono samples of one rate."""

from collections.abc import Iterator
from math import gcd
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile


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
        If it is no audio, empty, or has NaN or infinity.
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
    if not np.isfinite(samples).all():
        raise ValueError(f"{path}: the audio has NaN or infinity")
    samples = samples.mean(1)
    if rate != sample_rate:
        from scipy.signal import resample_poly  # takes a while to load

        shared = gcd(rate, sample_rate)
        samples = resample_poly(samples, sample_rate // shared, rate // shared)
    return samples


def read_pipe(pipe: BinaryIO, most: int) -> Iterator[np.ndarray]:
    """Samples as they come: 16 bits, little-endian, mono, without a header.

    That is what `arecord -f S16_LE -t raw` and `ffmpeg -f s16le` write. Waits
    for a source that stalls; ends with it, or with Ctrl-C.

    Arguments
    ---------
    pipe : binary file
        With `read1`, as `sys.stdin.buffer`.
    most : int
        Samples that are given at once, at most.

    Yields
    ------
    np.ndarray
        ``[samples]``, float32 in -1 to 1, never empty.

    Example
    -------
    >>> import io
    >>> found = read_pipe(io.BytesIO(b"\\0\\x40\\0\\xc0\\0"), 640)
    >>> [samples.tolist() for samples in found]
    [[0.5, -0.5]]
    """
    left = b""
    while True:
        try:
            some = pipe.read1(2 * most - len(left))
        except KeyboardInterrupt:
            return
        if not some:
            return  # half a sample at the end is none
        some = left + some
        whole = len(some) // 2 * 2
        left = some[whole:]
        if whole:
            yield np.frombuffer(some[:whole], "<i2").astype("float32") / 32768
