"""Transducer: steps equal the whole; the loss is the sum over alignments."""

from itertools import combinations

import pytest
import torch

from speechbrain_amnet.transducer import (
    Joint,
    Predictor,
    TransducerLoss,
)

VOCABULARY = 7


def test_predictor_steps_equal_forward():
    torch.manual_seed(0)
    predictor = Predictor(VOCABULARY, hidden=16, layers=2)
    tokens = torch.tensor([[3, 1, 4, 1], [2, 6, 5, 0]])
    state = predictor.initial_state(batch=2)
    steps = []
    for token in torch.nn.functional.pad(tokens, (1, 0)).unbind(1):
        predicted, state = predictor.step(token, state)
        steps.append(predicted)
    torch.testing.assert_close(torch.stack(steps, 1), predictor(tokens))


def test_a_first_state_is_where_the_weights_are():
    predictor = Predictor(VOCABULARY, hidden=4).double().to("meta")
    for part in predictor.initial_state(batch=2):
        assert (part.device.type, part.dtype) == ("meta", torch.float64)
    assert predictor.initial_state(2, "cpu")[0].device.type == "cpu"


def test_select_rows_takes_the_new_state_where_the_mask_holds():
    predictor = Predictor(VOCABULARY, hidden=4)
    old = predictor.initial_state(batch=3)
    new = tuple(s + 1 for s in old)
    mask = torch.tensor([True, False, True])
    for state in predictor.select_rows(mask, new, old):
        assert state[0, :, 0].tolist() == [1, 0, 1]


def test_joint_is_additive():
    torch.manual_seed(0)
    joint = Joint(5, 4, hidden=6, vocabulary=VOCABULARY)
    encoded, predicted = torch.randn(2, 3, 5), torch.randn(2, 4, 4)
    logits = joint(encoded, predicted)
    assert logits.shape == (2, 3, 4, VOCABULARY)
    total = (
        encoded[1, 2] @ joint.encoder_projection.weight.T
        + joint.encoder_projection.bias
        + predicted[1, 3] @ joint.predictor_projection.weight.T
    )
    torch.testing.assert_close(logits[1, 2, 3], joint.output(total.tanh()))


def test_dropout_drops_in_training_only():
    torch.manual_seed(0)
    predictor = Predictor(VOCABULARY, dropout=0.5)
    joint = Joint(5, 256, hidden=64, vocabulary=VOCABULARY, dropout=0.5)
    tokens, encoded = torch.tensor([[1, 2]]), torch.randn(1, 3, 5)

    def run():
        return joint(encoded, predictor(tokens))

    assert not torch.equal(run(), run())
    predictor.eval(), joint.eval()
    assert torch.equal(run(), run())


def enumerated_loss(logits, tokens):
    """Minus log of the sum over every alignment, one by one, in double."""
    scores = logits.double().log_softmax(-1)
    frames, count = len(scores), len(tokens)
    paths = []
    # The last move is the blank that leaves the last frame.
    for places in combinations(range(frames - 1 + count), count):
        frame = token = 0
        path = 0
        for move in range(frames - 1 + count):
            if move in places:
                path = path + scores[frame, token, tokens[token]]
                token += 1
            else:
                path = path + scores[frame, token, 0]
                frame += 1
        paths.append(path + scores[frame, token, 0])
    return -torch.stack(paths).logsumexp(0)


def test_loss_and_gradient_equal_the_sum_over_alignments():
    torch.manual_seed(0)
    logits = torch.randn(3, 4, 4, VOCABULARY, requires_grad=True)
    tokens = torch.tensor([[3, 1, 4], [2, 2, 0], [6, 0, 0]])
    frames, counts = [4, 3, 1], [3, 2, 1]
    lengths = torch.tensor(frames) / 4, torch.tensor(counts) / 3
    expected = torch.stack(
        [
            enumerated_loss(logits[row, :t], tokens[row, :u].tolist())
            for row, (t, u) in enumerate(zip(frames, counts, strict=True))
        ]
    )
    loss = TransducerLoss(reduction="none")(logits, tokens, *lengths)
    torch.testing.assert_close(loss, expected.float())
    mean = TransducerLoss()(logits, tokens, *lengths)
    torch.testing.assert_close(mean, expected.mean().float())
    torch.testing.assert_close(
        torch.autograd.grad(mean, logits)[0],
        torch.autograd.grad(expected.mean(), logits)[0],
    )


def test_loss_does_not_read_the_padding():
    torch.manual_seed(0)
    logits = torch.randn(2, 5, 4, VOCABULARY)
    tokens = torch.tensor([[3, 1, 0], [2, 0, 0]])
    lengths = torch.tensor([0.8, 0.4]), torch.tensor([2 / 3, 1 / 3])
    loss = TransducerLoss(reduction="none")
    before = loss(logits, tokens, *lengths)
    logits[:, 4:], logits[1, 2:], logits[:, :, 3:] = torch.nan, 9, torch.nan
    tokens[:, 2], tokens[1, 1] = -1, 99
    assert torch.equal(loss(logits, tokens, *lengths), before)
    torch.testing.assert_close(
        loss(logits[1:, :2, :2], tokens[1:, :1], *torch.ones(2, 1)), before[1:]
    )


def test_gradient_is_finite_under_autocast():
    torch.manual_seed(0)
    predictor = Predictor(VOCABULARY, hidden=16)
    joint = Joint(5, 16, hidden=32, vocabulary=VOCABULARY)
    encoded = torch.randn(2, 9, 5)
    tokens = torch.tensor([[3, 1, 4], [2, 6, 0]])
    lengths = torch.ones(2), torch.tensor([1, 2 / 3])

    def loss():
        logits = joint(encoded, predictor(tokens))
        return logits, TransducerLoss()(logits, tokens, *lengths)

    exact = loss()[1]
    with torch.autocast("cpu", torch.bfloat16):
        logits, value = loss()
    assert logits.dtype == torch.bfloat16 and value.dtype == torch.float32
    torch.testing.assert_close(value, exact, rtol=0.01, atol=0)
    value.backward()
    for weight in [*predictor.parameters(), *joint.parameters()]:
        assert weight.grad.isfinite().all() and weight.grad.any()


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_broken_logits_give_a_nan_loss(value):
    logits = torch.zeros(1, 3, 2, VOCABULARY)
    logits[0, 1, 0, 3] = value
    ones = torch.ones(1)
    assert TransducerLoss()(logits, torch.tensor([[2]]), ones, ones).isnan()


def test_a_length_above_0_is_one_frame_and_one_token_as_for_the_encoder():
    torch.manual_seed(0)
    logits = torch.randn(1, 10, 11, VOCABULARY)
    tokens, little = torch.full((1, 10), 3), torch.tensor([0.01])
    loss = TransducerLoss()(logits, tokens, little, little)
    one = TransducerLoss()(logits[:, :1, :2], tokens[:, :1], *torch.ones(2, 1))
    assert torch.equal(loss, one)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"tokens": torch.tensor([[1, 2, 3]])}, "logits must be"),
        ({"frame_lengths": torch.tensor([1.2])}, "got .1.2.* of 4 frames"),
        ({"frame_lengths": torch.tensor([torch.nan])}, "nan. of 4 frames"),
        ({"frame_lengths": torch.ones(2)}, r"must be \[1\]"),
        ({"token_lengths": torch.zeros(1)}, "got .0.0. of 2 tokens of the tr"),
        ({"tokens": torch.tensor([[1, 0]])}, "token 0 in row 0"),
        ({"tokens": torch.tensor([[1, 7]])}, "token 7 in row 0"),
        ({"tokens": torch.zeros(1, 0)}, "logits must be"),
    ],
)
def test_bad_input_of_the_loss_is_refused(change, says):
    fine = {
        "logits": torch.zeros(1, 4, 3, VOCABULARY),
        "tokens": torch.tensor([[1, 2]]),
        "frame_lengths": torch.ones(1),
        "token_lengths": torch.ones(1),
    }
    TransducerLoss()(**fine)
    with pytest.raises(ValueError, match=says) as error:
        TransducerLoss()(**{**fine, **change})
    assert "\n" not in str(error.value)


def test_token_noise_is_for_training_only():
    predictor = Predictor(vocabulary=9, hidden=8, token_noise=0.5)
    tokens = torch.randint(1, 9, (4, 30))
    clean = predictor.eval()(tokens)
    assert torch.equal(clean, predictor(tokens))
    noisy = predictor.train()(tokens)
    assert torch.equal(clean[:, 0], noisy[:, 0])
    assert not torch.allclose(clean, noisy)


def test_token_noise_outside_of_its_range():
    with pytest.raises(ValueError, match="token_noise.*1.5"):
        Predictor(vocabulary=9, token_noise=1.5)
