"""Text from pieces: that of sentencepiece, whole or piece by piece."""

from speechbrain_amnet.text import TextStream, decode_streaming, pieces_of
from speechbrain_amnet.tokens import train_tokenizer


def test_text_of_pieces(tmp_path):
    texts = ["GO FORWARD TEN METERS", "STOP", "TURN LEFT THEN RIGHT"]
    tokenizer = train_tokenizer(texts, tmp_path / "tokenizer.model")
    size = tokenizer.get_piece_size()
    spare = max(i for i in range(size) if tokenizer.is_control(i))
    ids = [
        *tokenizer.encode("STOP TEN"),
        tokenizer.piece_to_id("▁"),
        tokenizer.unk_id(),
        spare,
        *tokenizer.encode("GO"),
        tokenizer.piece_to_id("▁"),
    ]
    pieces = pieces_of(tokenizer)
    whole = TextStream(pieces).add(ids)
    assert whole == " ".join(tokenizer.decode(ids).split()) == "STOP TEN ⁇ GO"
    stream = TextStream(pieces)
    assert "".join(stream.add([i]) for i in ids) == whole
    stream = TextStream()
    parts = [decode_streaming(tokenizer, [i], stream) for i in ids]
    assert "".join(parts) == whole
