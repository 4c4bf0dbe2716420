"""Data: the preparation of manifests and the built-in spoken corpus."""

from speechbrain_amnet.corpus.prepare import (
    PreparationError,
    prepare_librispeech,
)
from speechbrain_amnet.corpus.spoken import CorpusError, make_spoken_corpus

__all__ = [
    "CorpusError",
    "PreparationError",
    "make_spoken_corpus",
    "prepare_librispeech",
]
