"""The search that is held to a grammar: likelihoods, streams, batches."""

import copy
import math
import os

import numpy as np
import pytest
import torch

from speechbrain_amnet import (
    GreedySearch,
    Joint,
    Predictor,
    TransducerLoss,
)
from speechbrain_amnet.beam import Beam
from speechbrain_amnet.ctc_beam import CtcBeam
from speechbrain_amnet.grammar import Grammar
from speechbrain_amnet.grammar_search import GrammarSearch
from speechbrain_amnet.inference import AmortizedASR, ASRStreamingContext
from speechbrain_amnet.text import TextStream

PIECES = ["", "▁A", "▁B", "▁", "C", "⁇"]
SENTENCES = {"A B": [1, 2], "B": [2], "A C": [1, 3, 4], "B C A": [2, 3, 4, 1]}
TEXT = "#JSGF V1.0; grammar g; public <say> = " + " | ".join(SENTENCES) + ";"


@pytest.fixture
def parts():
    """A transducer that is fairly sure of things, and frames."""
    torch.manual_seed(3)
    predictor = Predictor(len(PIECES), embedding=8, hidden=12)
    joint = Joint(10, 12, 16, len(PIECES))
    with torch.no_grad():
        for weight in (*predictor.parameters(), *joint.parameters()):
            weight.mul_(2)
    predictor.eval()
    return predictor, joint, 3 * torch.randn(4, 9, 10)


def search_of(parts, width=None, head=None, shares=None):
    greedy = GreedySearch(*parts[:2], max_symbols=10)
    return GrammarSearch(greedy, Grammar(TEXT), PIECES, width, head, shares)


@pytest.fixture
def head():
    """A CTC head that is fairly sure of things."""
    torch.manual_seed(4)
    head = torch.nn.Linear(10, len(PIECES))
    with torch.no_grad():
        head.weight.mul_(2)
    return head


def likelihoods(parts, frames, sentences):
    """Log probabilities of whole sentences, by the loss."""
    predictor, joint, _ = parts
    found = []
    for tokens in sentences:
        tokens = torch.tensor([tokens])
        with torch.no_grad():
            logits = joint(frames[None], predictor(tokens))
            loss = TransducerLoss()(
                logits, tokens, torch.ones(1), torch.ones(1)
            )
        found.append(-loss.item())
    return found


def test_it_finds_the_likeliest_sentence_with_its_likelihood(parts):
    """All alignments are added up: scores are those of the training's loss."""
    for frames in parts[2]:
        search = search_of(parts, width=1000)
        wanted = likelihoods(parts, frames, SENTENCES.values())
        context = search.make_streaming_context()
        context.beams[0].margin = math.inf
        search.forward_streaming(frames[None], context)
        scores = {h.tokens: h.score for h in context.beams[0].hypotheses}
        found = [scores[tuple(tokens)] for tokens in SENTENCES.values()]
        np.testing.assert_allclose(
            np.array(found) - max(found),
            np.array(wanted) - max(wanted),
            atol=1e-4,
        )
        best = list(SENTENCES.values())[int(np.argmax(wanted))]
        assert search(frames[None], torch.ones(1)) == [best]


def test_by_the_encoder_alone_scores_are_those_of_ctc(parts, head):
    """All alignments are added up, also of a letter that comes twice."""
    doubled = {**SENTENCES, "A C C": [1, 3, 4, 3, 4], "B B": [2, 2]}
    text = TEXT.rstrip(";") + " | A C C | B B;"
    for frames in parts[2]:
        search = search_of(parts, width=1000, head=head)
        search.grammar = Grammar(text)
        scores = head(frames).log_softmax(-1).detach()
        wanted = [
            -torch.nn.functional.ctc_loss(
                scores[:, None],
                torch.tensor([tokens]),
                [len(scores)],
                [len(tokens)],
                reduction="sum",
            ).item()
            for tokens in doubled.values()
        ]
        context = search.make_streaming_context()
        context.beams[0].margin = math.inf
        search.forward_streaming(frames[None], context)
        found = {h.tokens: h.score for h in context.beams[0].hypotheses}
        found = np.array([found[tuple(one)] for one in doubled.values()])
        np.testing.assert_allclose(
            found - found.max(), np.array(wanted) - max(wanted), atol=1e-4
        )
        best = list(doubled.values())[int(np.argmax(wanted))]
        assert search(frames[None], torch.ones(1)) == [best]


def test_a_ctc_stream_gives_tokens_as_soon_as_nothing_else_is_left():
    # B, then perhaps C A: the grammar has B and B C A.
    sure = [[2], [0], [0, 3], [0, 4], [0, 1]]
    rows = np.full((5, len(PIECES)), 1e-9)
    for row, tokens in zip(rows, sure):
        row[tokens] = 1 / len(tokens)
    beam = CtcBeam(Grammar(TEXT), PIECES, margin=10.0)
    assert [beam.step(np.log(row)) for row in rows] == [[2], [], [], [], []]
    # Nothing but blanks is an eighth, and so is C A.
    assert beam.finish() in ([], [3, 4, 1])


@pytest.mark.parametrize("ctc", [True, False])
def test_a_long_stream_forgets_what_it_has_given(parts, head, ctc, monkeypatch):
    """The same tokens and scores, and hypotheses stay short."""
    text = "#JSGF V1.0; grammar g; public <g> = (A | B | A C)+;"

    spoken = 3 * torch.randn(1, 120, 1, 10)
    with torch.no_grad():
        head.weight.mul_(3)  # sure enough that others fall behind

    def search():
        greedy = GreedySearch(*parts[:2], max_symbols=10)
        head_ = head if ctc else None
        found = GrammarSearch(greedy, Grammar(text), PIECES, 4, head_)
        context = found.make_streaming_context()
        (beam,) = context.beams
        beam.margin = 3.0
        tokens, frames = [], []
        for frame in spoken.unbind(1):
            tokens += found.forward_streaming(frame, context)[0]
            frames += context.token_frames[0]
        longest = max(len(one.tokens) for one in beam.hypotheses)
        scores = sorted(one.score for one in beam.hypotheses)
        return tokens + found.finish(context)[0], frames, scores, longest

    *whole, longest = search()
    assert len(whole[0]) > 12
    monkeypatch.setattr("speechbrain_amnet.beam.LONG", 2)
    *short, shorter = search()
    assert short == whole and shorter < longest


class OnceAFrame(Joint):
    """Encoded frames are log probabilities, of one token each."""

    def project_encoder(self, encoded):
        return encoded

    def project_predictor(self, predicted):
        return predicted

    def join(self, encoded, predicted):
        said = (encoded.exp() * predicted).sum(-1, keepdim=True) > 0.1
        blank = torch.eye(len(PIECES))[0]
        return torch.where(said, (blank + 1e-9).log(), encoded)


class LastToken(Predictor):
    """Predicts with nothing but the last token, as a one-hot vector."""

    def step(self, token, state):
        return torch.eye(len(PIECES))[token], state


def looping(ctc):
    """A search of words that go on for ever, and such a stream of them.

    The first word is either of two, for ever; the others are clear.
    """
    words = 90
    rows = torch.full((words, len(PIECES)), 1e-9)
    rows[0, 1], rows[0, 2] = 0.5, 0.48
    rows[1::2, 4], rows[2::2, 1] = 1, 1
    greedy = GreedySearch(LastToken(6), OnceAFrame(1, 1, 1, 1))
    text = "#JSGF V1.0; grammar g; public <g> = (A | B | <c>)+; <c> = C;"
    head = torch.nn.Linear(6, 6, bias=False)
    torch.nn.init.eye_(head.weight)
    pieces = ["", "▁A", "▁B", "▁", "▁C", "⁇"]
    search = GrammarSearch(
        greedy, Grammar(text), pieces, 8, head if ctc else None
    )
    return search, rows.log()[None], [1, *[4, 1] * words][:words]


@pytest.mark.parametrize("ctc", [True, False])
def test_a_word_that_stays_unsure_does_not_hold_up_a_stream(ctc, monkeypatch):
    """Words are given, hypotheses are short, whatever the chunks."""
    monkeypatch.setattr("speechbrain_amnet.beam.LONG", 16)
    monkeypatch.setattr("speechbrain_amnet.beam.LATE", 24)
    search, frames, said = looping(ctc)
    whole, places = search(frames, torch.ones(1), with_frames=True)
    assert whole == [said]
    for size in (1, 7, 90):
        context = search.make_streaming_context()
        (beam,) = context.beams
        tokens, where = [], []
        for chunk in frames.split(size, 1):
            tokens += search.forward_streaming(chunk, context)[0]
            where += context.token_frames[0]
            # At most those of `LATE` are due.
            assert len(tokens) >= beam.count - 24
            carried = max(len(one.tokens) for one in beam.hypotheses)
            assert carried <= 16 + 24 + 1
        tokens += search.finish(context)[0]
        where += context.token_frames[0]
        assert tokens == said and where == places[0]
    assert where[0] == 24  # the first is decided as late as may be


@pytest.mark.parametrize("ctc", [True, False])
def test_a_command_may_stay_unsure_to_its_end(ctc):
    """Nothing is given up that the rest may speak for."""
    search, frames, said = looping(ctc)
    context = search.make_streaming_context()
    assert search.forward_streaming(frames, context) == [[]]
    (beam,) = context.beams
    kept = {one.tokens: one.score for one in beam.hypotheses}
    other = kept[(2, *said[1:])] - kept[tuple(said)]
    assert other == pytest.approx(math.log(0.48 / 0.5), abs=1e-3)
    assert search.finish(context) == [said]


@pytest.mark.parametrize("ctc", [True, False])
def test_frames_may_have_another_dtype_than_the_model(parts, head, ctc):
    head = head if ctc else None
    wanted = search_of(parts, head=head)(parts[2], torch.ones(4))
    for module in (*parts[:2], *([head] if ctc else [])):
        module.double()
    assert search_of(parts, head=head)(parts[2], torch.ones(4)) == wanted


@torch.no_grad()
def test_scores_of_a_model_in_bfloat16(parts, head):
    """NumPy has none of it; what the search reads is float32."""
    frame, states = parts[2][0, 0], [(None, torch.randn(16))]
    search = search_of(parts)
    wanted = search.scores(search._prepared(frame), states)
    parts[1].bfloat16(), head.bfloat16()
    states = [(None, states[0][1].bfloat16())]
    read = search._prepared(frame)
    assert read.dtype == torch.bfloat16
    scores = search.scores(read, states)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, wanted, atol=0.2)
    assert np.isfinite(search_of(parts, head=head)._prepared(frame)).all()


@pytest.mark.parametrize("ctc", [True, False])
def test_words_do_not_depend_on_batch_padding_or_chunks(parts, head, ctc):
    search, frames = search_of(parts, head=head if ctc else None), parts[2]
    lengths = torch.tensor([1.0, 5 / 9, 1.0, 7 / 9])
    together, places = search(frames, lengths, with_frames=True)
    for row, (one, share) in enumerate(zip(frames, lengths)):
        one = one[None, : round(9 * share.item())]
        assert search(one, torch.ones(1)) == [together[row]]
        context, tokens, where = search.make_streaming_context(), [], []
        for chunk in (*one.split(2, 1), one[:, :0]):
            tokens += search.forward_streaming(chunk, context)[0]
            where += context.token_frames[0]
        tokens += search.finish(context)[0]
        where += context.token_frames[0]
        assert tokens == together[row] and where == places[row]
        assert len(where) == len(tokens) and where == sorted(where)
    assert len(set(map(tuple, together))) > 1


def test_the_last_chunk_s_tokens_have_their_frames(parts, head):
    """Those of the chunk, and those that only its end makes sure."""
    search, frames = search_of(parts, head=head), parts[2][:1]
    (tokens,), (places,) = search(frames, torch.ones(1), with_frames=True)
    context = ASRStreamingContext(
        None,
        None,
        search.make_streaming_context(),
        [TextStream(PIECES)],
        search,
    )
    _, found = AmortizedASR.decode_chunk(None, context, frames, final=True)
    assert found == [tokens] and len(tokens)
    assert context.decoder_context.token_frames == [places]


class Table:
    """Scores by frame and number of tokens; a state is that number."""

    def __init__(self, sure):
        self.sure = sure

    def start(self):
        return 0

    def read(self, tokens, states):
        return [state + 1 for state in states]

    def scores(self, frame, states):
        rows = np.full((len(states), len(PIECES)), 1e-6)
        for row, state in zip(rows, states):
            for token in self.sure[frame].get(state, [0]):
                row[token] = 1 / len(self.sure[frame].get(state, [0]))
        return np.log(rows / rows.sum(-1, keepdims=True))


def test_a_stream_gives_tokens_as_soon_as_nothing_else_is_left():
    # B in the first frame, then perhaps C A, and at last it is said or not.
    sure = [{0: [2]}, {}, {1: [0, 3], 2: [4]}, {1: [0, 3], 2: [4], 3: [1]}]
    beam = Beam(Table(sure), Grammar(TEXT), PIECES, margin=10.0)
    assert [beam.step(frame) for frame in range(4)] == [[2], [], [], []]
    assert beam.finish() == [3, 4, 1] and beam.token_frames == [3, 3, 3]
    sure[3] = {3: []}  # the frame of A does not come
    beam = Beam(Table(sure), Grammar(TEXT), PIECES, margin=10.0)
    assert [beam.step(frame) for frame in range(4)] == [[2], [], [], []]
    assert beam.finish() == []  # B was the whole sentence


def test_without_a_whole_sentence_there_is_what_was_heard(parts):
    search = search_of(parts, width=1)
    beam = search._beam()
    # A blank for sure at every frame: nothing was said.
    search.scores = lambda frame, states: np.log(
        np.tile([1 - 5e-9] + 5 * [1e-9], (len(states), 1))
    )
    assert beam.step(parts[2][0, 0]) == [] and beam.finish() == []


def test_mistakes(parts, head):
    with pytest.raises(ValueError, match="width must be 1 or more, got 0"):
        search_of(parts, width=0).make_streaming_context()
    search = search_of(parts)
    with pytest.raises(ValueError, match="NaN or infinity"):
        search(parts[2] * math.nan, torch.ones(4))
    with pytest.raises(ValueError, match="NaN or infinity"):
        search_of(parts, head=head)(parts[2] * math.nan, torch.ones(4))
    with pytest.raises(ValueError, match="width must be 1 or more, got 0"):
        search_of(parts, 0, head).make_streaming_context()
    context = search.make_streaming_context(3)
    with pytest.raises(ValueError, match="batch size of its context, 3"):
        search.forward_streaming(parts[2], context)


def test_the_greedy_search_s_penalty_is_not_used(parts):
    plain, other = search_of(parts), search_of(parts)
    other.greedy.blank_penalty = 5.0
    everything = parts[2], torch.ones(4)
    assert plain(*everything) == other(*everything)
    assert plain.greedy(*everything) != other.greedy(*everything)


def test_shares_of_tokens_are_half_taken_from_the_head(parts, head):
    shares = [0.5, 0.2, 0.001, 0.1, 0.1, 0.099]
    found = search_of(parts, head=head, shares=shares)(parts[2], torch.ones(4))
    other = copy.deepcopy(head)
    with torch.no_grad():
        other.bias -= torch.tensor(shares).log() / 2
    wanted = search_of(parts, head=other)(parts[2], torch.ones(4))
    plain = search_of(parts, head=head)(parts[2], torch.ones(4))
    assert found == wanted != plain


@pytest.mark.parametrize("shares", [[0.5, 0.5], [0.0] + 5 * [0.2], []])
def test_there_is_a_share_of_each_token(parts, head, shares):
    with pytest.raises(ValueError, match="token_shares: expected 6 numbers"):
        search_of(parts, head=head, shares=shares)


def plain_search(grammar, rows, width, margin):
    """Prefixes one by one, in a dict: tokens to (blank, token, where).

    Their scores at the end, and what all of them begin with at each frame.
    """
    found, sure = {(): (0.0, -math.inf, grammar.start)}, []
    for row in rows:
        heard = np.max(row) - margin
        longer = {}

        def add(tokens, blank, token, where, longer=longer):
            before = longer.get(tokens, (-math.inf, -math.inf))
            longer[tokens] = (
                np.logaddexp(blank, before[0]),
                np.logaddexp(token, before[1]),
                where,
            )

        for tokens, (blank, token, where) in found.items():
            total = np.logaddexp(blank, token)
            stays = token + row[tokens[-1]] if tokens else -math.inf
            add(tokens, total + row[0], stays, where)
            for next_, piece in enumerate(PIECES):
                to = piece and grammar.advance(where, piece)
                if to and row[next_] >= heard:
                    again = tokens and tokens[-1] == next_
                    score = (blank if again else total) + row[next_]
                    add((*tokens, next_), -math.inf, score, to)
        score = {t: np.logaddexp(*one[:2]) for t, one in longer.items()}
        best = sorted(longer, key=lambda t: -score[t])[:width]
        found = {
            t: longer[t] for t in best if score[t] >= score[best[0]] - margin
        }
        sure.append(os.path.commonprefix(list(found)))
    return {t: np.logaddexp(*one[:2]) for t, one in found.items()}, sure


@pytest.mark.parametrize(
    "likely, other, given",
    [
        ("▁TU", "▁RO", ""),
        ("▁TURN", "▁ROLL", "TURN"),
        ("▁TURN▁", "▁ROLL▁", "TURN"),
        ("▁TURN▁OF", "▁ROLL▁FL", "TURN"),
        ("▁TURN▁OFF", "▁ROLL▁FLY", "TURN OFF"),
    ],
)
@pytest.mark.parametrize("tags", [False, True])
def test_who_stops_in_a_sentence_has_said_its_words(tags, likely, other, given):
    """No half ones, no intent, and no command that was not given."""
    pieces = ["", *"▁TURNOFLY", "<b>", "<=g>"]
    way = "(turn | roll) (on | off | fly) {b}"
    text = f"#JSGF V1.0; grammar g; public <g> = {way} turn;"
    rows = np.full((2 * len(likely), len(pieces)), 1e-30)
    rows[1::2, 0] = 1  # a blank behind each letter
    for row, one, two in zip(rows[::2], likely, other):
        row[pieces.index(two)] = 0.4
        row[pieces.index(one)] = 0.6
    grammar = Grammar(text, tags)
    beam = CtcBeam(grammar, pieces)
    tokens = sum((beam.step(row) for row in np.log(rows)), [])
    words = "".join(pieces[token] for token in tokens + beam.finish())
    assert words.replace("▁", " ").strip() == given
    assert grammar.command(given).intent is None


@pytest.mark.parametrize("said", ["(A | B | A C C | C <NULL>)*", "A"])
@pytest.mark.parametrize("width, margin", [(1, 9.0), (3, 40.0), (9, 4.0)])
def test_arrays_of_prefixes_are_prefixes_one_by_one(width, margin, said):
    """Also behind the end of a sentence, where nothing may follow."""
    text = f"#JSGF V1.0; grammar g; public <g> = {said};"
    random, kept = np.random.default_rng(0), set()
    for _ in range(20):
        rows = random.normal(size=(12, len(PIECES))) * 3
        rows -= np.log(np.exp(rows).sum(-1, keepdims=True))
        grammar = Grammar(text)
        beam = CtcBeam(grammar, PIECES, 0, width, margin)
        wanted, sure = plain_search(grammar, rows, width, margin)
        given, frames = (), []
        for frame, row in enumerate(rows):
            given += tuple(beam.step(row))
            frames += beam.token_frames
            assert given == max(sure[: frame + 1], key=len)
            assert all(place <= frame for place in frames)
        assert frames == sorted(frames) and len(frames) == len(given)
        found = {one.tokens: one.score for one in beam.hypotheses}
        assert found.keys() == wanted.keys()
        top = max(wanted.values())
        for tokens, score in found.items():
            assert score == pytest.approx(wanted[tokens] - top, abs=1e-9)
        kept.add(len(found))
    assert max(kept) > 1 or width == 1
