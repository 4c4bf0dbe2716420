"""When each word of a recording is said."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

RATE = 16000
FRAMES = 100  # a second, of the recogniser


class Word(NamedTuple):
    """A word and when it is said, in seconds."""

    text: str
    start: float
    end: float


class Aligner:
    """Finds the words of English transcripts with PocketSphinx's own model.

    Arguments
    ---------
    None

    Raises
    ------
    ValueError
        If PocketSphinx is not installed.

    Example
    -------
    >>> aligner = Aligner()
    >>> aligner.unknown("A LATTE WITH XYLQ")
    ['XYLQ']
    """

    def __init__(self) -> None:
        try:
            from pocketsphinx import Config, Decoder, get_model_path
        except ImportError as error:
            raise ValueError(
                "words are found in recordings by pocketsphinx: "
                "pip install speechbrain_amnet[align]"
            ) from error
        folder = Path(get_model_path()) / "en-us"
        dictionary = folder / "cmudict-en-us.dict"
        with dictionary.open(encoding="utf-8") as lines:
            self.known = {line.split(maxsplit=1)[0] for line in lines}
        self.decoder = Decoder(
            Config(
                hmm=str(folder / "en-us"),
                dict=str(dictionary),
                lm=None,
                loglevel="FATAL",
            )
        )

    def unknown(self, text: str) -> list[str]:
        """The words that its dictionary lacks."""
        return [w for w in text.split() if w.lower() not in self.known]

    def words(self, audio: np.ndarray, text: str) -> list[Word]:
        """The words of a transcript in its recording.

        Arguments
        ---------
        audio : np.ndarray
            ``[samples]``, int16, 16 kHz.
        text : str
            What is said, of known words.

        Returns
        -------
        list of Word
            None where it does not hear them.
        """
        said = text.split()
        self.decoder.reinit_feat()  # or the last recording's mean is in it
        self.decoder.set_align_text(" ".join(said).lower())
        self.decoder.start_utt()
        self.decoder.process_raw(audio.tobytes(), False, True)
        self.decoder.end_utt()
        found = [s for s in self.decoder.seg() or () if s.word[0] not in "<["]
        if len(found) != len(said):
            return []
        return [
            Word(word, s.start_frame / FRAMES, (s.end_frame + 1) / FRAMES)
            for word, s in zip(said, found)
        ]
