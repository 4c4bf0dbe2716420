"""The search depends on one utterance only, whole or in a stream."""

import pytest
import torch

from speechbrain_amnet import GreedySearch, Joint, Predictor

VOCABULARY = 7


@pytest.fixture
def search():
    """Random weights under which blanks and tokens are both frequent."""
    torch.manual_seed(0)
    predictor = Predictor(VOCABULARY, embedding=8, hidden=12, layers=2)
    joint = Joint(5, 12, hidden=16, vocabulary=VOCABULARY)
    with torch.no_grad():
        for weight in [*predictor.parameters(), *joint.parameters()]:
            weight.mul_(3)
        joint.output.bias[0] += 3
    return GreedySearch(predictor, joint, max_symbols=3)


@pytest.fixture
def utterances():
    torch.manual_seed(1)
    return [2 * torch.randn(frames, 5) for frames in (40, 1, 17, 33, 8)]


def padded(utterances, value=100.0):
    batch = torch.nn.utils.rnn.pad_sequence(
        utterances, batch_first=True, padding_value=value
    )
    frames = torch.tensor([len(u) for u in utterances])
    return batch, frames


class Echo(Predictor):
    """Predicts with nothing but the last token, as a one-hot vector."""

    def step(self, token, state):
        return torch.nn.functional.one_hot(token, VOCABULARY).float(), state


class OnceEach(Joint):
    """A frame's strongest token, unless it was the last one; else blank."""

    def __init__(self):
        super().__init__(1, 1, 1, 1)

    def project_encoder(self, encoded):
        return encoded

    def project_predictor(self, predicted):
        return predicted

    def join(self, encoded, predicted):
        logits = encoded - 10 * predicted
        logits[:, 0] = 0.5
        return logits


def test_search_on_a_joint_made_by_hand():
    frames = torch.zeros(2, 5, VOCABULARY)
    frames[0, 0, 3] = frames[0, 1, 3] = 1  # the same once more: not again
    frames[0, 3, 4], frames[0, 4, 3] = 1, 1
    frames[1, 1, 6], frames[1, 1, 2] = 2, 1  # two tokens in turns, bounded
    frames[1, 4, 5] = 1  # behind the length
    search = GreedySearch(Echo(VOCABULARY), OnceEach(), max_symbols=4)
    tokens, places = search(frames, torch.tensor([1.0, 0.8]), with_frames=True)
    assert tokens == [[3, 4, 3], [6, 2, 6, 2]]
    assert places == [[0, 3, 4], [1, 1, 1, 1]]


def test_a_frame_gives_at_most_max_symbols(search, utterances):
    with torch.no_grad():
        search.joint.output.bias[0] = -1e3  # never blank
    batch, frames = padded(utterances)
    tokens, places = search(batch, frames / 40, with_frames=True)
    for n, row, where in zip(frames, tokens, places, strict=True):
        assert len(row) == 3 * n
        assert where == [frame for frame in range(n) for _ in range(3)]


def test_search_depends_on_one_utterance_only(search, utterances):
    alone = [search(u[None], torch.ones(1))[0] for u in utterances]
    found = sum(map(len, alone)) / sum(map(len, utterances))
    assert 0.3 < found < 2  # blanks and tokens are both frequent
    assert len({token for row in alone for token in row}) > 3
    for size in (2, 3, 5):
        for start in range(0, 5, size):
            part = utterances[start : start + size]
            batch, frames = padded([*part, torch.zeros(50, 5)])
            tokens = search(batch, frames / 50)
            assert tokens[:-1] == alone[start : start + size]


@pytest.mark.parametrize("size", [1, 2, 7, 40])
def test_streaming_equals_batch(search, utterances, size):
    batch, frames = padded(utterances)
    whole, where = search(batch, frames / 40, with_frames=True)
    context = search.make_streaming_context(batch=5)
    tokens, places = [[] for _ in range(5)], [[] for _ in range(5)]
    for start in range(0, 40, size):
        chunk = batch[:, start : start + size]
        own = (frames - start).clamp(0, chunk.shape[1])
        new = search.forward_streaming(chunk, context, own)
        for row in range(5):
            tokens[row] += new[row]
            places[row] += context.token_frames[row]
    assert tokens == whole
    assert places == where
    # The end brings nothing more, and so no frames.
    assert search.finish(context) == context.token_frames == [[]] * 5
    assert context.frames.tolist() == frames.tolist()


def test_search_follows_the_training_view(search, utterances):
    """Its tokens are the best choices of the whole joint, place by place."""
    tokens, places = search(utterances[0][None], torch.ones(1), True)
    with torch.no_grad():
        predicted = search.predictor(torch.tensor(tokens))
        best = search.joint(utterances[0][None], predicted).argmax(-1)[0]
    read = 0
    for frame in range(40):
        for _ in range(3):
            if best[frame, read] == 0:
                break
            assert best[frame, read] == tokens[0][read]
            assert places[0][read] == frame
            read += 1
    assert read == len(tokens[0])


def test_an_empty_chunk_gives_nothing(search):
    context = search.make_streaming_context(batch=2)
    assert search.forward_streaming(torch.zeros(2, 0, 5), context) == [[], []]


def test_a_fresh_context_takes_the_batch_of_its_first_chunk(search, utterances):
    batch, _ = padded(utterances)
    expected = search(batch, torch.ones(5))
    context = search.make_streaming_context()
    tokens = [[] for _ in range(5)]
    for chunk in (batch[:, :0], batch[:, :7], batch[:, 7:]):
        new = search.forward_streaming(chunk, context)
        tokens = [a + b for a, b in zip(tokens, new, strict=True)]
    assert tokens == expected
    context = search.make_streaming_context()
    search.forward_streaming(batch[:1], context)
    with pytest.raises(ValueError, match="batch size of its context, 1"):
        search.forward_streaming(batch, context)


def test_search_leaves_training_mode_and_gradients_alone(search, utterances):
    expected = search(utterances[0][None], torch.ones(1))
    search.predictor.dropout.p = search.joint.dropout.p = 0.9
    search.predictor.train(), search.joint.train()
    encoded = utterances[0][None].requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        assert search(encoded, torch.ones(1)) == expected
        context = search.make_streaming_context()
    assert context.predicted.dtype == torch.float32  # not autocast's
    assert search.predictor.training and search.joint.dropout.training
    assert not context.predicted.requires_grad


def test_search_gives_each_submodule_its_own_mode_back(search, utterances):
    """As of a model in training a part of which is frozen, dropout and all."""
    search.predictor.train(), search.predictor.lstm.eval()
    search.joint.eval(), search.joint.dropout.train()
    parts = [*search.predictor.modules(), *search.joint.modules()]
    before = [part.training for part in parts]
    search(utterances[0][None], torch.ones(1))
    assert [part.training for part in parts] == before
    assert not search.predictor.lstm.training and search.joint.dropout.training


def test_bad_input_of_the_search_is_refused(search):
    with pytest.raises(ValueError, match="max_symbols"):
        GreedySearch(search.predictor, search.joint, max_symbols=0)
    with pytest.raises(ValueError, match=r"got \[1.0, 0.0\] of 4 frames"):
        search(torch.zeros(2, 4, 5), torch.tensor([1.0, 0.0]))
    context = search.make_streaming_context(batch=2)
    with pytest.raises(ValueError, match="batch size"):
        search.forward_streaming(torch.zeros(3, 4, 5), context)
    with pytest.raises(ValueError, match="0 to 4"):
        search.forward_streaming(
            torch.zeros(2, 4, 5), context, torch.tensor([5, 4])
        )
    with pytest.raises(ValueError, match="NaN"):
        search.forward_streaming(torch.full((2, 4, 5), torch.nan), context)


def test_a_penalty_on_blank_is_a_lower_bias(search, utterances):
    batch, frames = padded(utterances)
    lengths = frames / frames.max()
    plain = search(batch, lengths)
    search.blank_penalty = 1.5
    with_penalty = search(batch, lengths)
    search.blank_penalty = 0.0
    with torch.no_grad():
        search.joint.output.bias[0] -= 1.5
    assert with_penalty == search(batch, lengths)
    assert sum(map(len, with_penalty)) > sum(map(len, plain))
