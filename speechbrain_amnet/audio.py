"""Recordings as mono samples of one rate, and live ones."""

import re
import sys
from collections.abc import Iterator
from math import gcd
from pathlib import Path
from select import select
from typing import BinaryIO

import numpy as np
import soundfile

LOUDEST = 100
"""40 dB above full scale: whatever is louder is no audio in -1 to 1."""
LONGEST = 1e6  # seconds that the system may be asked to wait
RATES = (1_000, 768_000)  # Hz; others are of damaged headers
AT_ONCE = 1 << 20  # samples; a damaged header may promise any number of them
HEADERS = {
    b"RIFF": "a WAV file",
    b"RF64": "a WAV file",
    b"fLaC": "a FLAC file",
    b"OggS": "an Ogg file",
    b"FORM": "an AIFF file",
    b"ID3\x03": "an MP3 file",
    b"ID3\x04": "an MP3 file",
}
ESTIMATED = ("MP3", "OGG")  # what their headers say of their length is
WAV_LENGTHS = re.compile(r"^data : (\d+) \(should be (\d+)\)", re.MULTILINE)
DIVIDE = "divide 16-bit samples by 32768"


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
        If it is no audio, empty, cut off, or has what cannot be in -1 to 1.
    """
    samples, rate = read_channels(path)
    samples = samples.mean(1)
    if rate != sample_rate:
        from scipy.signal import resample_poly  # takes a while to load

        shared = gcd(rate, sample_rate)
        samples = resample_poly(samples, sample_rate // shared, rate // shared)
    return samples


def read_channels(path: str | Path) -> tuple[np.ndarray, int]:
    """Read a recording as it is.

    Arguments
    ---------
    path : str or Path
        Audio of any sample rate and number of channels.

    Returns
    -------
    np.ndarray
        ``[samples, channels]``, float32 in -1 to 1.
    int
        The sample rate, in Hz.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no audio, of a rate that none has, empty, cut off, or has what
        cannot be in -1 to 1.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no such audio file: {path}")
    try:
        with soundfile.SoundFile(path) as file:
            rate = file.samplerate
            if not RATES[0] <= rate <= RATES[1]:
                raise ValueError(
                    f"{path}: expected a sample rate of {RATES[0]} to "
                    f"{RATES[1]} Hz, got {rate}"
                )
            parts = [file.read(AT_ONCE, dtype="float32", always_2d=True)]
            while len(parts[-1]):
                parts.append(file.read(AT_ONCE, "float32", always_2d=True))
            samples = np.concatenate(parts)
            cut = is_cut(file, len(samples))
    # A TypeError for files of samples alone, as *.raw.
    except (soundfile.SoundFileError, TypeError) as error:
        raise ValueError(f"{path}: unreadable audio ({error})") from None
    if not len(samples):
        raise ValueError(f"{path}: empty audio (0 samples)")
    if cut:
        raise ValueError(
            f"{path}: cut off: {len(samples)} samples, fewer than its header "
            "says; get the whole file"
        )
    try:
        as_samples(samples.reshape(-1))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return samples, rate


def is_cut(file: soundfile.SoundFile, count: int) -> bool:
    """Whether a WAV or FLAC file has fewer samples than its header says.

    libsndfile takes what there is, and only notes it. Programs that write
    into a pipe do not know the length, and state about 2 or 4 GiB.

    Arguments
    ---------
    file : soundfile.SoundFile
        Of which all has been read.
    count : int
        Samples that were there, of each channel.
    """
    found = WAV_LENGTHS.search(file.extra_info)
    if found and int(found[2]) < int(found[1]) < 0x7FFF0000:
        return True
    return file.format not in ESTIMATED and count < file.frames


def read_pcm(
    file: BinaryIO, count: int, timeout: float | None = None
) -> Iterator[np.ndarray]:
    """Read raw samples of 16 bits as they come.

    Arguments
    ---------
    file : binary file
        A pipe, for instance: mono, the first byte of a sample the lower one.
        Half a sample at its end is left out.
    count : int
        Samples that are read at once, at most. What is there is not kept
        waiting for more.
    timeout : float, optional
        Seconds without any after which it ends, as if it were closed. None
        waits as long as it is open.

    Yields
    ------
    np.ndarray
        ``[samples]``, float32 in -1 to 1, one sample at least.

    Raises
    ------
    ValueError
        If it begins as a file of audio does.

    Example
    -------
    >>> import io
    >>> pipe = io.BytesIO(bytes([0, 0, 0, 64, 0]))
    >>> [part.tolist() for part in read_pcm(pipe, 1)]
    [[0.0], [0.5]]
    """
    half, first = b"", b""
    # Nothing to read is the end, but not where others made a pipe non-blocking.
    while has_come(file, timeout) and (read := file.read1(2 * count)):
        if len(first) < 4:
            first += read[:4]
            # `arecord` writes one, too. Its rate and channels may be any.
            if kind := HEADERS.get(first[:4]):
                raise ValueError(
                    f"the stream begins with the header of {kind}: expected "
                    "raw samples, as of `arecord -t raw` or `ffmpeg -f s16le`"
                )
        read = half + read
        whole = len(read) // 2 * 2
        half = read[whole:]
        if whole:
            samples = np.frombuffer(read[:whole], "<i2")
            yield samples.astype("float32") / 32768


def has_come(file: BinaryIO, wait: float | None = 0) -> bool:
    """Whether something lies there to be read, or the end.

    Arguments
    ---------
    file : binary file
        A pipe, for instance; of what cannot tell, all lies there.
    wait : float or None
        Seconds to wait until it does; None waits as long as it takes.

    Example
    -------
    >>> import os
    >>> reader, writer = os.pipe()
    >>> with os.fdopen(reader, "rb") as file:
    ...     before = has_come(file)
    ...     os.close(writer)
    ...     before, has_come(file)
    (False, True)
    """
    try:
        wait = wait if wait is None else min(wait, LONGEST)
        return bool(select([file], [], [], wait)[0])
    # No descriptor; on Windows, no socket.
    except (OSError, TypeError, ValueError):
        return True


def waiting(file: BinaryIO) -> int:
    """Bytes that lie there to be read; 0 where the system does not tell.

    Example
    -------
    >>> import os
    >>> reader, writer = os.pipe()
    >>> os.write(writer, bytes(3))
    3
    >>> with os.fdopen(reader, "rb") as file:
    ...     waiting(file)
    3
    """
    try:
        from fcntl import ioctl
        from termios import FIONREAD

        return int.from_bytes(ioctl(file, FIONREAD, bytes(4)), sys.byteorder)
    except (ImportError, OSError, TypeError, ValueError):
        return 0


def as_samples(samples: np.ndarray) -> np.ndarray:
    """Samples in float32.

    Arguments
    ---------
    samples : np.ndarray
        ``[samples]``, or ``[samples, 1]``, in -1 to 1; some that were clipped,
        or not, are fine.

    Raises
    ------
    ValueError
        If there is NaN, infinity, or what cannot be in -1 to 1, if they are
        whole numbers, or of several channels.

    Example
    -------
    >>> as_samples([0.5, -1, 1.25])
    array([ 0.5 , -1.  ,  1.25], dtype=float32)
    """
    samples = np.asarray(samples)
    if samples.ndim > 1 and samples.shape[1:] != (1,):
        raise ValueError(
            f"expected the samples of one channel, [samples], got an array of "
            f"shape {list(samples.shape)}; take one channel, or their mean"
        )
    if samples.dtype.kind in "iub" and samples.size:
        raise ValueError(
            f"expected samples in -1 to 1, got whole numbers ({samples.dtype})"
            f"; {DIVIDE}"
        )
    with np.errstate(over="ignore"):  # infinity says it
        samples = samples.astype("float32", copy=False).reshape(-1)
    largest = np.abs(samples).max(initial=0)
    if not np.isfinite(largest):
        raise ValueError("the audio has NaN or infinity")
    if largest > LOUDEST:
        raise ValueError(
            f"the audio has a sample of {largest:g}: expected -1 to 1; {DIVIDE}"
        )
    return samples
