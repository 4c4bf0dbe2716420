"""The transducer: predictor, joint and loss; the search is in `search`."""

import torch
from torchaudio.functional import rnnt_loss

from .frames import absolute_lengths

State = tuple[torch.Tensor, torch.Tensor]


class Predictor(torch.nn.Module):
    """An LSTM over the tokens so far: the transducer's language side.

    Arguments
    ---------
    vocabulary : int
        Number of tokens, blank included.
    embedding : int
        Size of a token's embedding.
    hidden : int
        Size of the LSTM, and of the output.
    layers : int
        Number of LSTM layers.
    dropout : float
        Share dropped from the embeddings, between layers, and from the
        output.
    blank : int
        Index of blank, which also stands for the start.
    token_noise : float
        Share of the tokens read in training that are replaced by random ones.
        Without it a small corpus teaches the predictor its sentences by
        heart: after one wrong token the search goes on with another sentence.

    Raises
    ------
    ValueError
        If `token_noise` is not from 0 to 1.

    Example
    -------
    >>> predictor = Predictor(vocabulary=30)
    >>> predictor(torch.tensor([[3, 1, 4], [1, 5, 0]])).shape
    torch.Size([2, 4, 256])
    """

    def __init__(
        self,
        vocabulary: int,
        embedding: int = 128,
        hidden: int = 256,
        layers: int = 1,
        dropout: float = 0.0,
        blank: int = 0,
        token_noise: float = 0.0,
    ):
        super().__init__()
        if not 0 <= token_noise <= 1:
            raise ValueError(
                f"Predictor: token_noise must be 0 to 1, got {token_noise}."
            )
        self.blank = blank
        self.token_noise = token_noise
        self.embedding = torch.nn.Embedding(vocabulary, embedding)
        self.lstm = torch.nn.LSTM(
            embedding,
            hidden,
            layers,
            batch_first=True,
            dropout=dropout if layers > 1 else 0.0,  # else torch warns
        )
        self.dropout = torch.nn.Dropout(dropout)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Reads whole transcripts.

        Arguments
        ---------
        tokens : torch.Tensor
            [batch, tokens]. Output u reads the first u tokens only, so what
            pads a transcript does not matter.

        Returns
        -------
        predicted : torch.Tensor
            [batch, tokens + 1, hidden]; the first is before any token.
        """
        if self.training and self.token_noise:
            random = torch.randint_like(tokens, self.embedding.num_embeddings)
            chosen = torch.rand(tokens.shape, device=tokens.device)
            tokens = torch.where(chosen < self.token_noise, random, tokens)
        tokens = torch.nn.functional.pad(tokens, (1, 0), value=self.blank)
        return self._run(tokens, None)[0]

    def step(
        self, token: torch.Tensor, state: State
    ) -> tuple[torch.Tensor, State]:
        """Reads one more token of each row.

        Arguments
        ---------
        token : torch.Tensor
            [batch]; blank for the start.
        state : tuple
            From `initial_state` or the step before.

        Returns
        -------
        predicted : torch.Tensor
            [batch, hidden].
        state : tuple
            The state after the token.
        """
        predicted, state = self._run(token[:, None], state)
        return predicted[:, 0], state

    def initial_state(
        self, batch: int, device: torch.device | str | None = None
    ) -> State:
        """The LSTM's state [layers, batch, hidden], twice, before the start.

        On the weights' device, if no other is given.
        """
        weight = self.lstm.weight_hh_l0
        shape = (self.lstm.num_layers, batch, self.lstm.hidden_size)
        zeros = weight.new_zeros(shape, device=device)
        return zeros, zeros

    @staticmethod
    def select_rows(mask: torch.Tensor, new: State, old: State) -> State:
        """Takes the rows of `new` where mask [batch] holds, else of `old`."""
        return tuple(
            torch.where(mask[:, None], n, o)
            for n, o in zip(new, old, strict=True)
        )

    def _run(self, tokens, state):
        embedded = self.dropout(self.embedding(tokens))
        # In full precision: not every CPU has an LSTM for bfloat16.
        with torch.autocast(tokens.device.type, enabled=False):
            output, state = self.lstm(embedded, state)
        return self.dropout(output), state


class Joint(torch.nn.Module):
    """Adds an encoder's frame and a predictor's output to token logits.

    logits = W tanh(A frame + B predicted), each projected before the sum, so
    the large [batch, frames, tokens + 1, hidden] is held once.

    Arguments
    ---------
    encoder_size : int
        Features of an encoded frame.
    predictor_size : int
        Size of the predictor's output.
    hidden : int
        Size of the sum.
    vocabulary : int
        Number of tokens, blank included.
    dropout : float
        Share dropped from each projection.

    Example
    -------
    >>> joint = Joint(16, 8, hidden=32, vocabulary=30)
    >>> joint(torch.randn(2, 10, 16), torch.randn(2, 4, 8)).shape
    torch.Size([2, 10, 4, 30])
    """

    def __init__(
        self,
        encoder_size: int,
        predictor_size: int,
        hidden: int,
        vocabulary: int,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.encoder_projection = torch.nn.Linear(encoder_size, hidden)
        self.predictor_projection = torch.nn.Linear(
            predictor_size,
            hidden,
            bias=False,  # the encoder's serves both
        )
        self.output = torch.nn.Linear(hidden, vocabulary)
        self.dropout = torch.nn.Dropout(dropout)

    def forward(
        self, encoded: torch.Tensor, predicted: torch.Tensor
    ) -> torch.Tensor:
        """Logits of every frame with every place in the transcript.

        Arguments
        ---------
        encoded : torch.Tensor
            [batch, frames, encoder_size].
        predicted : torch.Tensor
            [batch, tokens + 1, predictor_size].

        Returns
        -------
        logits : torch.Tensor
            [batch, frames, tokens + 1, vocabulary].
        """
        return self.join(
            self.project_encoder(encoded)[:, :, None],
            self.project_predictor(predicted)[:, None],
        )

    def project_encoder(self, encoded: torch.Tensor) -> torch.Tensor:
        """[..., encoder_size] to [..., hidden], once per frame."""
        return self.dropout(self.encoder_projection(encoded))

    def project_predictor(self, predicted: torch.Tensor) -> torch.Tensor:
        """[..., predictor_size] to [..., hidden], once per token."""
        return self.dropout(self.predictor_projection(predicted))

    def join(
        self, encoded: torch.Tensor, predicted: torch.Tensor
    ) -> torch.Tensor:
        """Projections that broadcast to [..., hidden], to [..., vocabulary]."""
        return self.output((encoded + predicted).tanh_())


class TransducerLoss(torch.nn.Module):
    """Minus the log probability of a transcript, over all alignments.

    In float32 under autocast too. A logit of NaN or +infinity gives a NaN loss,
    for the caller to report.

    Arguments
    ---------
    blank : int
        Index of blank.
    reduction : str
        "mean" averages the utterances' sums (nats per utterance), "none"
        gives each utterance's sum.

    Raises
    ------
    ValueError
        If `reduction` is another word.

    Example
    -------
    >>> loss = TransducerLoss(reduction="none")
    >>> logits = torch.zeros(1, 1, 2, 4)  # one frame, one token, 4 choices
    >>> value = loss(
    ...     logits, torch.tensor([[3]]), torch.ones(1), torch.ones(1)
    ... )
    >>> torch.allclose(value, 2 * torch.log(torch.tensor([4.0])))
    True
    """

    def __init__(self, blank: int = 0, reduction: str = "mean"):
        super().__init__()
        if reduction not in ("mean", "none"):
            raise ValueError(
                f'reduction must be "mean" or "none", got "{reduction}"'
            )
        self.blank = blank
        self.reduction = reduction

    def forward(
        self,
        logits: torch.Tensor,
        tokens: torch.Tensor,
        frame_lengths: torch.Tensor,
        token_lengths: torch.Tensor,
    ) -> torch.Tensor:
        """Computes the loss.

        Arguments
        ---------
        logits : torch.Tensor
            [batch, frames, tokens + 1, vocabulary], before softmax.
        tokens : torch.Tensor
            Transcripts [batch, tokens], without blanks.
        frame_lengths : torch.Tensor
            Relative lengths [batch] of the frames.
        token_lengths : torch.Tensor
            Relative lengths [batch] of the transcripts.

        Returns
        -------
        loss : torch.Tensor
            In nats; a scalar, or [batch] with reduction "none".

        Raises
        ------
        ValueError
            If shapes or lengths do not fit, if a transcript is empty, or if
            a token is blank or outside the vocabulary.
        """
        if (
            logits.dim() != 4
            or tokens.dim() != 2
            or logits.shape[::2] != (len(tokens), tokens.shape[1] + 1)
        ):
            raise ValueError(
                f"logits must be [batch, frames, tokens + 1, vocabulary] for "
                f"tokens [batch, tokens]: got {list(logits.shape)} and "
                f"{list(tokens.shape)}"
            )
        frames = absolute_lengths(frame_lengths, logits, "frames")
        counts = absolute_lengths(
            token_lengths, tokens, "tokens of the transcript"
        )
        # torchaudio wants tensors no longer than the longest utterance.
        tokens = tokens[:, : int(counts.max())]
        logits = logits[:, : int(frames.max()), : tokens.shape[1] + 1]
        places = torch.arange(tokens.shape[1], device=tokens.device)
        own = places < counts[:, None]
        wrong = (tokens < 0) | (tokens >= logits.shape[-1])
        wrong = own & (wrong | (tokens == self.blank))
        if wrong.any():
            row, place = wrong.nonzero()[0].tolist()
            raise ValueError(
                f"token {int(tokens[row, place])} in row {row} of the "
                f"transcripts is blank or outside the vocabulary of "
                f"{logits.shape[-1]}"
            )
        loss = rnnt_loss(
            logits.float().contiguous(),
            tokens.masked_fill(~own, 0).int().contiguous(),
            frames.int(),
            counts.int(),
            blank=self.blank,
            reduction="none",
            fused_log_softmax=True,
        )
        return loss.mean() if self.reduction == "mean" else loss
