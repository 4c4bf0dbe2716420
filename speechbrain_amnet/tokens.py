"""Tokens of the transcripts, by sentencepiece.

Token 0 is the transducer's blank and token 1 the unknown piece, in every
model that is made here.
"""

import io
import os
from collections.abc import Iterable
from pathlib import Path

import sentencepiece

BLANK, UNKNOWN = 0, 1


def train_tokenizer(
    texts: Iterable[str],
    path: str | Path,
    model_type: str = "char",
    size: int = 1000,
) -> sentencepiece.SentencePieceProcessor:
    """Make a sentencepiece model from the training transcripts.

    Arguments
    ---------
    texts : iterable of str
        Transcripts of the training data.
    path : str or Path
        Where the model is written; one that is there is loaded instead.
    model_type : str
        "char", "bpe" or "unigram".
    size : int
        Tokens at most, blank and unknown included.

    Returns
    -------
    sentencepiece.SentencePieceProcessor

    Example
    -------
    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> tokenizer = train_tokenizer(["TEN TENTS"], folder.name + "/t.model")
    >>> tokenizer.decode(tokenizer.encode("NET"))
    'NET'
    >>> tokenizer.id_to_piece(0)
    '<blank>'
    """
    path = Path(path)
    if not path.exists():
        model = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=model,
            model_type=model_type,
            vocab_size=size,
            hard_vocab_limit=False,
            character_coverage=1.0,
            normalization_rule_name="identity",
            pad_id=BLANK,
            pad_piece="<blank>",
            unk_id=UNKNOWN,
            bos_id=-1,
            eos_id=-1,
            minloglevel=2,
            # Else a large corpus is thinned out at random.
            num_threads=1,
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(path.name + ".part")
        aside.write_bytes(model.getvalue())
        os.replace(aside, path)
    return load_tokenizer(path)


def load_tokenizer(
    path: str | Path,
) -> sentencepiece.SentencePieceProcessor:
    """Load a sentencepiece model, for YAML and for inference."""
    return sentencepiece.SentencePieceProcessor(model_file=str(path))
