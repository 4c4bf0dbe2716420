"""Text from token pieces, as they come."""

from collections.abc import Iterable, Sequence
from typing import Any

from .slots import Command, is_tag, understood

UNKNOWN = "▁⁇▁"  # as sentencepiece writes an unknown token


def pieces_of(tokenizer: Any) -> list[str]:
    """What each token of a sentencepiece model adds to a text.

    Arguments
    ---------
    tokenizer : sentencepiece.SentencePieceProcessor
        Whose pieces begin words with "▁".

    Returns
    -------
    list of str
        Nothing for control tokens.
    """
    pieces = []
    for token in range(tokenizer.get_piece_size()):
        piece = tokenizer.id_to_piece(token)
        if tokenizer.is_control(token):
            piece = ""
        elif tokenizer.is_unknown(token):
            piece = UNKNOWN
        pieces.append(piece)
    return pieces


def command_of(pieces: Sequence[str], tokens: Iterable[int]) -> Command:
    """What the tokens of an utterance say, tags and all.

    Arguments
    ---------
    pieces : sequence of str
        Of each token; see `pieces_of`.
    tokens : iterable of int
        What a search found.

    Example
    -------
    >>> command_of(["", "▁GO", "▁ON", "<way>"], [1, 2, 3]).slots
    {'way': 'ON'}
    """
    text = "".join(pieces[token] for token in tokens)
    return understood(text.replace("▁", " "))


class TextStream:
    """Joins token pieces to words, as they come.

    What it returns, joined, is the text of all tokens with one blank between
    words and none at the ends. Tags of slots and intents are left out.

    Arguments
    ---------
    pieces : sequence of str
        Of each token; see `pieces_of`. `decode_streaming` fills in what is
        not given.

    Example
    -------
    >>> stream = TextStream(["", "▁", "GO", "▁ON"])
    >>> [stream.add([1, 2]), stream.add([1]), stream.add([3, 0])]
    ['GO', '', ' ON']
    """

    def __init__(self, pieces: Sequence[str] = ()):
        self.pieces = pieces
        self.gap = ""  # what stands before the next letter
        self.pending = False

    def add(self, tokens: Sequence[int]) -> str:
        """The text that these tokens add."""
        new = ""
        for token in tokens:
            piece = self.pieces[token]
            for letter in "" if is_tag(piece) else piece:
                if letter in "▁ ":
                    self.pending = True
                else:
                    new += self.gap * self.pending + letter
                    self.gap, self.pending = " ", False
        return new


def decode_streaming(
    tokenizer: Any, tokens: Sequence[int], context: TextStream
) -> str:
    """The text that tokens add, as SpeechBrain's `StreamingASR` asks for it.

    Arguments
    ---------
    tokenizer : sentencepiece.SentencePieceProcessor
        Whose weights are not loaded yet when the hparams are.
    tokens : sequence of int
        The next ones of the stream.
    context : TextStream
        A fresh one for each stream; changed in place.

    Returns
    -------
    str

    Example
    -------
    >>> stream = TextStream(["", "▁GO", "▁ON"])  # so the tokenizer is not asked
    >>> [decode_streaming(None, tokens, stream) for tokens in ([1], [0, 2])]
    ['GO', ' ON']
    """
    context.pieces = context.pieces or pieces_of(tokenizer)
    return context.add(tokens)
