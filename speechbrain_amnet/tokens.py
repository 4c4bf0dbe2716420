"""Tokens of the transcripts, by sentencepiece.

Token 0 is the transducer's blank and token 1 the unknown piece, in every
model that is made here.
"""

import io
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import sentencepiece
from sentencepiece import sentencepiece_model_pb2

from .files import write

BLANK, UNKNOWN = 0, 1


def train_tokenizer(
    texts: Iterable[str],
    path: str | Path,
    model_type: str = "char",
    size: int = 30,
    tags: Sequence[str] = (),
) -> sentencepiece.SentencePieceProcessor:
    """Make a sentencepiece model of exactly `size` tokens.

    Where the transcripts do not fill it, the rest are spare tokens that decode
    to nothing, so that the size of a recogniser does not depend on its data.

    Arguments
    ---------
    texts : iterable of str
        Transcripts of the training data.
    path : str or Path
        Where the model is written; one that is there is loaded instead.
    model_type : str
        "char", "bpe" or "unigram".
    size : int
        Tokens, blank, unknown and tags included.
    tags : sequence of str
        Symbols that are tokens of their own, such as ``<room>``.

    Returns
    -------
    sentencepiece.SentencePieceProcessor

    Raises
    ------
    ValueError
        If the transcripts have more characters than there are tokens, or such
        as sentencepiece keeps for itself; or if a model that is there has
        another size.

    Example
    -------
    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = folder.name + "/tokenizer.model"
    >>> tokenizer = train_tokenizer(["TEN TENTS"], path, size=10)
    >>> tokenizer.decode(tokenizer.encode("NET"))
    'NET'
    >>> tokenizer.id_to_piece(0), tokenizer.get_piece_size()
    ('<blank>', 10)
    """
    path = Path(path)
    if not path.exists():
        texts = list(texts)
        if not any(text.strip() for text in texts):
            raise ValueError(
                f"tokens: no transcript to make {path} from; check that the "
                "training data is not empty."
            )
        letters = set("".join(texts)) - {" "}
        needed = len(letters) + 3 + len(tags)
        if needed > size:
            raise ValueError(
                f"tokens: the transcripts need at least {needed} (their "
                f"characters, the word's beginning, blank, unknown and "
                f"{len(tags)} tags), got {size}."
            )
        model = _train(texts, model_type, size - len(tags))
        lost = missing_letters(model, texts)
        if lost:
            raise ValueError(
                "tokens: expected one for each letter of the transcripts, but "
                f"sentencepiece makes none of {', '.join(lost)} (it skips "
                "lines with characters of its own, as \u2585); take them out"
            )
        write(path, add_symbols(model, tags, size))
    tokenizer = load_tokenizer(path)
    if tokenizer.get_piece_size() != size:
        raise ValueError(
            f"tokens: {path} has {tokenizer.get_piece_size()}, expected "
            f"{size}; remove it or set tokens to its size."
        )
    return tokenizer


def missing_letters(model: bytes, texts: Iterable[str]) -> list[str]:
    """The letters of transcripts that a sentencepiece model cannot write.

    Arguments
    ---------
    model : bytes
        The model.
    texts : iterable of str
        Transcripts, without tags.

    Returns
    -------
    list of str
        Sorted.
    """
    tokenizer = sentencepiece.SentencePieceProcessor(model_proto=model)
    letters = set("".join(texts)) - {" "}
    return sorted(one for one in letters if UNKNOWN in tokenizer.encode(one))


def without_tokens(model: bytes, texts: Iterable[str]) -> str:
    """What to say of letters that are in speech, and not in a model.

    Arguments
    ---------
    model : bytes
        A sentencepiece model.
    texts : iterable of str
        Transcripts that it is measured with, without tags.

    Returns
    -------
    str
        The letters and in how many utterances they are; empty if none is.

    Example
    -------
    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> tokenizer = train_tokenizer(["TEN"], folder.name + "/m", size=10)
    >>> without_tokens(tokenizer.serialized_model_proto(), ["TÉN", "NET"])
    'no tokens for É, in 1 of 2 utterances, where it counts as an error'
    """
    texts = list(texts)
    lost = missing_letters(model, texts)
    if not lost:
        return ""
    count = sum(not set(lost).isdisjoint(text) for text in texts)
    return (
        f"no tokens for {', '.join(lost)}, in {count} of {len(texts)} "
        f"utterances, where {'each' if len(lost) > 1 else 'it'} counts as an "
        "error"
    )


def token_shares(
    transcripts: Iterable[Sequence[int]], frames: float, size: int
) -> list[float]:
    """How much of the speech each token is: a CTC head's prior.

    Arguments
    ---------
    transcripts : iterable of sequence of int
        Tokens of the training data.
    frames : float
        In all of it.
    size : int
        Tokens, blank included.

    Returns
    -------
    list of float
        Occurrences over frames, counting one at least; blank has the rest.

    Example
    -------
    >>> token_shares([[1, 2, 1]], frames=8, size=4)
    [0.5, 0.25, 0.125, 0.125]
    """
    counts = Counter(token for row in transcripts for token in row)
    del counts[BLANK]
    shares = [max(counts[token], 1) / frames for token in range(size)]
    shares[BLANK] = max(1 - sum(shares[BLANK + 1 :]), shares[BLANK])
    return shares


def add_symbols(model: bytes, symbols: Sequence[str], size: int) -> bytes:
    """Give a sentencepiece model further tokens; those it has stay as they are.

    Arguments
    ---------
    model : bytes
        The model.
    symbols : sequence of str
        Tags or letters, which are tokens of their own from now on; those that
        are so already are not added again.
    size : int
        Tokens in all. Spare ones that decode to nothing fill it.

    Returns
    -------
    bytes

    Raises
    ------
    ValueError
        If there are more than `size`.
    """
    proto = sentencepiece_model_pb2.ModelProto.FromString(model)
    kinds = proto.SentencePiece
    known = {piece.piece for piece in proto.pieces}
    new = [symbol for symbol in symbols if symbol not in known]
    for symbol in new:
        proto.pieces.add(piece=symbol, score=0, type=kinds.USER_DEFINED)
    if len(proto.pieces) > size:
        raise ValueError(
            f"tokens: with what the transcripts have besides ("
            f"{' '.join(new)}) there are {len(proto.pieces)}, got {size}; set "
            "tokens to that or more"
        )
    spare = sum(piece.startswith("<spare") for piece in known)
    while len(proto.pieces) < size:
        proto.pieces.add(piece=f"<spare{spare}>", score=0, type=kinds.CONTROL)
        spare += 1
    proto.trainer_spec.vocab_size = size
    return proto.SerializeToString()


def _train(texts, model_type, size):
    model = io.BytesIO()
    # Longer ones would be left out. Not less than sentencepiece's own: it is
    # written into the model.
    longest = max(4192, max(len(text.encode()) for text in texts))
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=model,
            model_type=model_type,
            vocab_size=size,
            hard_vocab_limit=False,
            max_sentence_length=longest,
            character_coverage=1.0,
            normalization_rule_name="identity",
            pad_id=BLANK,
            pad_piece="<blank>",
            unk_id=UNKNOWN,
            bos_id=-1,
            eos_id=-1,
            minloglevel=2,
            num_threads=1,
        )
    except RuntimeError as error:
        raise ValueError(
            "tokens: expected transcripts of which sentencepiece can make "
            f"{size} of type {model_type}, got {' '.join(str(error).split())}; "
            "look at them, or set another token_type"
        ) from error
    return model.getvalue()


def load_tokenizer(
    path: str | Path,
) -> sentencepiece.SentencePieceProcessor:
    """Load a sentencepiece model, for YAML and for inference."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"tokens: no model at {path}.")
    return sentencepiece.SentencePieceProcessor(model_file=str(path))
