"""A teacher's alignments and opinions, against sums over every alignment."""

from itertools import combinations

import pytest
import torch

from speechbrain_amnet.distillation import (
    DistillationLoss,
    Teacher,
    occupancy,
)
from speechbrain_amnet.export import export_model
from speechbrain_amnet.features import StreamingFeatures
from speechbrain_amnet.tokens import train_tokenizer

VOCABULARY = 7
TEXTS = ["GO ON", "STOP", "GO BACK TWO METERS"]


def enumerated_occupancy(scores, tokens):
    """Each alignment's probability, added to the nodes that it passes."""
    frames, count = len(scores), len(tokens)
    passed = torch.zeros(frames, count + 1, dtype=torch.double)
    total = 0.0
    for places in combinations(range(frames - 1 + count), count):
        frame = token = 0
        nodes, path = [(0, 0)], 0.0
        for move in range(frames - 1 + count):
            if move in places:
                path += scores[frame, token, tokens[token]]
                token += 1
            else:
                path += scores[frame, token, 0]
                frame += 1
            nodes.append((frame, token))
        weight = (path + scores[frame, token, 0]).exp()
        total += weight
        for node in nodes:
            passed[node] += weight
    return passed / total


def batch():
    """Logits of teacher and student, transcripts, and their lengths."""
    teacher, student = torch.randn(2, 3, 4, 4, VOCABULARY)
    tokens = torch.tensor([[3, 1, 4], [2, 2, 0], [6, 0, 0]])
    return student, teacher, tokens, [4, 3, 1], [3, 2, 1]


def relative(frames, counts):
    return torch.tensor(frames) / 4, torch.tensor(counts) / 3


def test_loss_is_the_divergence_over_the_teacher_s_alignments():
    student, teacher, tokens, frames, counts = batch()
    expected = 0.0
    for row, (t, u) in enumerate(zip(frames, counts, strict=True)):
        theirs, mine = (
            logits[row, :t, : u + 1].double().log_softmax(-1)
            for logits in (teacher, student)
        )
        weight = enumerated_occupancy(theirs, tokens[row, :u].tolist())
        assert float(weight.sum()) == pytest.approx(t + u)
        torch.testing.assert_close(
            occupancy(
                theirs[None].float(),
                tokens[row : row + 1, :u],
                torch.tensor([t]),
                torch.tensor([u]),
            )[0],
            weight.float(),
        )
        apart = (theirs.exp() * (theirs - mine)).sum(-1)
        expected += (weight * apart).sum() / 3
    loss = DistillationLoss(least=0.0)(
        student, teacher, tokens, *relative(frames, counts)
    )
    torch.testing.assert_close(loss, expected.float())


def test_a_student_that_agrees_has_neither_loss_nor_gradient():
    student, _, tokens, frames, counts = batch()
    student.requires_grad_()
    loss = DistillationLoss()(
        student, student.detach(), tokens, *relative(frames, counts)
    )
    assert loss == 0
    (gradient,) = torch.autograd.grad(loss, student)
    torch.testing.assert_close(
        gradient, torch.zeros_like(gradient), atol=1e-6, rtol=0
    )


def test_unlikely_nodes_change_next_to_nothing():
    student, teacher, tokens, frames, counts = batch()
    all_nodes, most = (
        DistillationLoss(least=least)(
            student, teacher, tokens, *relative(frames, counts)
        )
        for least in (0.0, 0.001)
    )
    torch.testing.assert_close(most, all_nodes, rtol=0.01, atol=0)


def test_padding_is_not_read():
    student, teacher, tokens, frames, counts = batch()
    loss = DistillationLoss()
    lengths = relative(frames, counts)
    before = loss(student, teacher, tokens, *lengths)
    for logits in (student, teacher):
        logits[1, 3:], logits[2, 1:] = torch.nan, torch.inf
        logits[1, :, 3:], logits[2, :, 2:] = 99, -torch.inf
    tokens[1, 2], tokens[2, 1:] = -1, 99
    assert torch.equal(loss(student, teacher, tokens, *lengths), before)


def test_gradient_of_a_student_in_half_precision():
    student, teacher, tokens, frames, counts = batch()
    student = student.bfloat16().requires_grad_()
    loss = DistillationLoss()(
        student, teacher, tokens, *relative(frames, counts)
    )
    assert loss.dtype == torch.float32
    loss.backward()
    assert student.grad.isfinite().all() and student.grad.any()


def test_other_shapes_are_refused():
    student, teacher, tokens, frames, counts = batch()
    with pytest.raises(ValueError, match="one shape"):
        DistillationLoss()(
            student[..., :-1], teacher, tokens, *relative(frames, counts)
        )


@pytest.fixture
def trained(tiny, tmp_path):
    """A trained folder, its modules and its tokenizer."""
    hparams, modules, tokenizer = tiny(tmp_path, TEXTS)
    export_model(hparams, modules, tokenizer, tmp_path / "model")
    return tmp_path, modules, train_tokenizer(TEXTS, tokenizer)


def test_teacher_says_what_the_trained_model_says(trained):
    folder, modules, tokenizer = trained
    teacher = Teacher(folder)
    teacher.check(modules["features"], tokenizer)
    features, lengths = torch.randn(2, 9, 320), torch.tensor([1.0, 2 / 3])
    tokens = torch.tensor([[3, 4], [5, 0]])
    for module in modules.values():
        module.eval()
    encoded, _ = modules["encoder"](features, lengths, hard=True)
    expected = modules["joint"](encoded, modules["predictor"](tokens))
    said = teacher(features, lengths, tokens)
    torch.testing.assert_close(said, expected)
    assert not said.requires_grad


def test_teacher_of_other_features_or_tokens_is_refused(trained, tmp_path):
    folder, modules, tokenizer = trained
    teacher = Teacher(folder)
    features = StreamingFeatures()
    features.fit_statistics([torch.randn(16000)])
    with pytest.raises(ValueError, match="other features"):
        teacher.check(features, tokenizer)
    for other in ({"mean_seconds": 3.0}, {"floor": 1e-3}):
        features = StreamingFeatures(**other)
        features.load_state_dict(modules["features"].state_dict())
        with pytest.raises(ValueError, match="other features"):
            teacher.check(features, tokenizer)
    other = train_tokenizer(["YES", "NO"], tmp_path / "other.model")
    with pytest.raises(ValueError, match="other tokens"):
        teacher.check(modules["features"], other)
