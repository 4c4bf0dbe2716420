"""Learning from a trained model, too: a teacher and what it says.

A transcript says which tokens are right; a teacher says at each place how
likely every token is. The student is asked to agree where the teacher's
alignments pass:

    L = sum_{t,u} gamma(t,u) KL(teacher(.|t,u) || student(.|t,u))

gamma(t,u) is the probability that the teacher's alignment of the transcript
passes frame t with u tokens emitted. Elsewhere in the lattice neither model
has learnt anything worth copying.
"""

from pathlib import Path

import torch
from torchaudio.functional import rnnt_loss

from .frames import absolute_lengths
from .inference import load


class Teacher:
    """A trained recogniser that tells what it would say.

    Arguments
    ---------
    folder : str or Path
        Output folder of a training, with the same tokens and features as the
        student's.
    device : str or torch.device
        Where to run it.

    Raises
    ------
    FileNotFoundError
        If the folder holds no model.

    Example
    -------
    >>> teacher = Teacher("results/an4/full/1")  # doctest: +SKIP
    >>> teacher(features, lengths, tokens).shape  # doctest: +SKIP
    torch.Size([2, 100, 21, 30])
    """

    def __init__(self, folder: str | Path, device: str | torch.device = "cpu"):
        self.folder = Path(folder)
        self.asr = load(self.folder, run_opts={"device": str(device)})
        self.asr.mods.eval()

    def check(self, features: torch.nn.Module, tokenizer) -> None:
        """See that the student's inputs and outputs mean the same.

        Arguments
        ---------
        features : StreamingFeatures
            The student's, with their statistics.
        tokenizer : SentencePieceProcessor
            The student's.

        Raises
        ------
        ValueError
            If features or tokens differ.
        """
        taught = self.asr.mods.features
        mine, theirs = features.state_dict(), taught.state_dict()
        same = (
            features.mean_rate == taught.mean_rate
            and features.filterbank.amin == taught.filterbank.amin
        )
        if not same or any(
            theirs[name].shape != value.shape
            or not torch.allclose(theirs[name].cpu(), value.cpu())
            for name, value in mine.items()
        ):
            raise ValueError(
                f"The teacher {self.folder} reads other features; give one "
                "trained on the same train_splits with the same features, or "
                "start_from it."
            )
        if (
            self.asr.hparams.tokenizer.serialized_model_proto()
            != tokenizer.serialized_model_proto()
        ):
            raise ValueError(
                f"The teacher {self.folder} has other tokens; give one trained "
                "on the same transcripts with the same tokens, or start_from "
                "it."
            )

    @torch.no_grad()
    def __call__(
        self,
        features: torch.Tensor,
        lengths: torch.Tensor,
        tokens: torch.Tensor,
    ) -> torch.Tensor:
        """Logits of every frame with every place in the transcript.

        Arguments
        ---------
        features : torch.Tensor
            [batch, frames, input_size], as the student reads them.
        lengths : torch.Tensor
            Relative lengths [batch] of the frames.
        tokens : torch.Tensor
            Transcripts [batch, tokens], without the student's token noise.

        Returns
        -------
        torch.Tensor
            [batch, frames, tokens + 1, vocabulary]
        """
        mods = self.asr.mods
        encoded, _ = mods.encoder(features, lengths, hard=True)
        return mods.joint(encoded, mods.predictor(tokens))


def occupancy(
    log_probs: torch.Tensor,
    tokens: torch.Tensor,
    frames: torch.Tensor,
    counts: torch.Tensor,
    blank: int = 0,
) -> torch.Tensor:
    """How probably an alignment of the transcript passes each node.

    The loss's derivative by an arc's log probability is minus the posterior of
    that arc; a node's is the sum of those that leave it.

    Arguments
    ---------
    log_probs : torch.Tensor
        [batch, frames, tokens + 1, vocabulary]
    tokens : torch.Tensor
        Transcripts [batch, tokens].
    frames, counts : torch.Tensor
        How many of each are an utterance's own, [batch].
    blank : int
        Index of blank.

    Returns
    -------
    torch.Tensor
        [batch, frames, tokens + 1], without gradient; an utterance's sum is
        frames + tokens.

    Example
    -------
    >>> log_probs = torch.full((1, 2, 2, 3), 1 / 3).log()
    >>> occupancy(
    ...     log_probs,
    ...     torch.tensor([[1]]),
    ...     torch.tensor([2]),
    ...     torch.tensor([1]),
    ... )
    tensor([[[1.0000, 0.5000],
             [0.5000, 1.0000]]])
    """
    with torch.enable_grad():
        log_probs = log_probs.detach().float().contiguous().requires_grad_()
        loss = rnnt_loss(
            log_probs,
            tokens.int().contiguous(),
            frames.int(),
            counts.int(),
            blank=blank,
            reduction="sum",
            fused_log_softmax=False,
        )
        (gradient,) = torch.autograd.grad(loss, log_probs)
    return -gradient.sum(-1)


class DistillationLoss(torch.nn.Module):
    """How far a student is from its teacher, along the teacher's alignments.

    Source: the posterior of the alignments as weight is this project's; for
    the most likely alignment alone see Yang et al., Knowledge Distillation
    for Neural Transducers from Large Self-Supervised Pre-trained Models,
    https://arxiv.org/abs/2110.03334; for the whole lattice Panchapagesan et
    al., Efficient Knowledge Distillation for RNN-Transducer Models,
    https://arxiv.org/abs/2011.06110.

    Arguments
    ---------
    blank : int
        Index of blank.
    least : float
        Nodes that fewer alignments pass are left out.

    Example
    -------
    >>> loss = DistillationLoss()
    >>> logits = torch.randn(2, 9, 4, 5)
    >>> tokens = torch.tensor([[1, 2, 3], [4, 1, 0]])
    >>> lengths = torch.ones(2), torch.tensor([1.0, 2 / 3])
    >>> loss(logits, logits, tokens, *lengths)
    tensor(0.)
    """

    def __init__(self, blank: int = 0, least: float = 0.001):
        super().__init__()
        self.blank, self.least = blank, least

    def forward(
        self,
        student: torch.Tensor,
        teacher: torch.Tensor,
        tokens: torch.Tensor,
        frame_lengths: torch.Tensor,
        token_lengths: torch.Tensor,
    ) -> torch.Tensor:
        """Computes the loss.

        Arguments
        ---------
        student, teacher : torch.Tensor
            Logits [batch, frames, tokens + 1, vocabulary].
        tokens : torch.Tensor
            Transcripts [batch, tokens], without blanks.
        frame_lengths, token_lengths : torch.Tensor
            Relative lengths, [batch].

        Returns
        -------
        torch.Tensor
            Nats per utterance, a scalar.

        Raises
        ------
        ValueError
            If the two have different shapes.
        """
        if student.shape != teacher.shape:
            raise ValueError(
                "student and teacher must have one shape, got "
                f"{list(student.shape)} and {list(teacher.shape)}"
            )
        frames = absolute_lengths(frame_lengths, teacher, "frames")
        counts = absolute_lengths(
            token_lengths, tokens, "tokens of the transcript"
        )
        # torchaudio wants tensors no longer than the longest utterance.
        tokens = tokens[:, : int(counts.max())]
        most = int(frames.max()), tokens.shape[1] + 1
        teacher = teacher[:, : most[0], : most[1]].float().log_softmax(-1)
        student = student[:, : most[0], : most[1]]
        places = torch.arange(tokens.shape[1], device=tokens.device)
        tokens = tokens.masked_fill(places >= counts[:, None], 0)
        weight = occupancy(teacher, tokens, frames, counts, self.blank)
        passed = weight > self.least
        teacher, weight = teacher[passed], weight[passed]
        student = student[passed].float().log_softmax(-1)
        apart = (teacher.exp() * (teacher - student)).sum(-1)
        return (weight * apart).sum() / len(tokens)
