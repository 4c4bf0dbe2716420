"""Log-mel frames of a stream; the same as `StreamingFeatures`."""

import numpy as np
import scipy.fft

from speechbrain_amnet.runtime.packed import Packed


class Features:
    """What makes frames of samples.

    Arguments
    ---------
    packed : Packed
        The model.
    """

    def __init__(self, packed: Packed):
        config, arrays = packed.config["features"], packed.part("features")
        self.sample_rate = config["sample_rate"]
        self.hop, self.stack = config["hop"], config["stack"]
        self.n_fft, self.floor = config["n_fft"], config["floor"]
        self.window = arrays["window"]
        self.filters = arrays["filters"]
        # 10 log10(x), normalised: one factor and one shift.
        self.scale = 10 / np.log(10) / arrays["std"]
        self.shift = -arrays["mean"] / arrays["std"]
        self.mean_rate = config.get("mean_rate", 0.0)
        self.frame_samples = self.hop * self.stack
        self.overlap = len(self.window) - self.hop

    def start(self) -> np.ndarray:
        """The running mean of a new stream, ``[mels]``."""
        return np.zeros_like(self.shift)

    def frames(self, samples: np.ndarray, mean: np.ndarray) -> np.ndarray:
        """Frames of samples.

        Arguments
        ---------
        samples : np.ndarray
            ``[overlap + frames * frame_samples]``, float32.
        mean : np.ndarray
            The stream's running mean, from `start`; changed in place.

        Returns
        -------
        np.ndarray
            ``[frames, stack * mels]``
        """
        # Overlapping windows without a copy; sliding_window_view says the same
        # and takes longer than the spectrum.
        samples, size = np.ascontiguousarray(samples), len(self.window)
        windows = np.ndarray(
            (1 + (len(samples) - size) // self.hop, size),
            samples.dtype,
            samples,
            strides=(self.hop * samples.itemsize, samples.itemsize),
        )
        spectrum = scipy.fft.rfft(windows * self.window, self.n_fft)
        power = spectrum.real**2 + spectrum.imag**2
        mels = np.maximum(power @ self.filters, np.float32(self.floor))
        np.log(mels, out=mels)
        mels *= self.scale
        mels += self.shift
        if self.mean_rate:
            for frame in mels.reshape(-1, self.stack, mels.shape[1]):
                mean += self.mean_rate * (frame.mean(0) - mean)
                frame -= mean
        return mels.reshape(-1, self.stack * mels.shape[1])
