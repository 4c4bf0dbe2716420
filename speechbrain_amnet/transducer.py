"""The transducer: predictor, joint, loss and a greedy search that streams.

The search is one loop for a batch of whole utterances and for chunks of
streams. Each row walks through its own frames at its own pace, so its words
depend neither on its batch, nor on padding, nor on how it was cut.
"""

from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torchaudio.functional import rnnt_loss

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
        self.output_size = hidden
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
        """The LSTM's state [layers, batch, hidden], twice, before the start."""
        weight = self.lstm.weight_hh_l0
        shape = (self.lstm.num_layers, batch, self.lstm.hidden_size)
        zeros = torch.zeros(shape, dtype=weight.dtype, device=device)
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

    In float32 under autocast too. A logit of NaN or infinity gives a NaN loss,
    for the caller to report.

    Arguments
    ---------
    blank : int
        Index of blank.
    reduction : str
        "mean" averages the utterances' sums (nats per utterance), "none"
        gives each utterance's sum.

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
        frames = _absolute(frame_lengths, logits, "frames")
        counts = _absolute(token_lengths, tokens, "tokens of the transcript")
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


@dataclass
class SearchContext:
    """Where the greedy search of a batch of streams stands.

    Arguments
    ---------
    state : tuple
        The predictor's state after each row's last token.
    predicted : torch.Tensor
        The predictor's projected output [batch, hidden] for each row.
    frames : torch.Tensor
        Frames [batch] that each row has read.
    token_frames : list
        For each row, the frame (from the stream's start) of each token that
        the last call returned.
    """

    state: State
    predicted: torch.Tensor
    frames: torch.Tensor
    token_frames: list[list[int]] = field(default_factory=list)


class GreedySearch:
    """The likeliest token at each step, batched, whole or in a stream.

    Runs without gradients, dropout and autocast.

    Arguments
    ---------
    predictor : Predictor
        Or a module with the same `step`, `initial_state`, `select_rows`.
    joint : Joint
        Or a module with the same `project_encoder`, `project_predictor`,
        `join`.
    blank : int
        Index of blank.
    max_symbols : int
        Most tokens that one frame may give.

    Example
    -------
    >>> predictor = Predictor(vocabulary=30)
    >>> search = GreedySearch(predictor, Joint(16, 256, 32, 30))
    >>> encoded = torch.randn(2, 10, 16)
    >>> words = search(encoded, torch.tensor([1.0, 0.5]))
    >>> context = search.make_streaming_context(batch=2)
    >>> chunk = search.forward_streaming(encoded[:, :3], context)
    >>> chunk[0] == words[0][: len(chunk[0])]
    True
    """

    def __init__(
        self,
        predictor: torch.nn.Module,
        joint: torch.nn.Module,
        blank: int = 0,
        max_symbols: int = 10,
    ):
        if max_symbols < 1:
            raise ValueError(f"max_symbols must be >= 1, got {max_symbols}")
        self.predictor = predictor
        self.joint = joint
        self.blank = blank
        self.max_symbols = max_symbols

    def __call__(
        self,
        encoded: torch.Tensor,
        lengths: torch.Tensor,
        with_frames: bool = False,
    ) -> list[list[int]] | tuple[list[list[int]], list[list[int]]]:
        """Searches whole utterances.

        Arguments
        ---------
        encoded : torch.Tensor
            [batch, frames, features].
        lengths : torch.Tensor
            Relative lengths [batch].
        with_frames : bool
            Whether to return each token's frame too.

        Returns
        -------
        tokens : list
            The tokens of each utterance, without blanks.
        frames : list
            The frame of each token, with `with_frames` only.
        """
        frames = _absolute(lengths, encoded, "frames")
        context = self.make_streaming_context(len(encoded))
        tokens = self.forward_streaming(encoded, context, frames)
        return (tokens, context.token_frames) if with_frames else tokens

    def make_streaming_context(self, batch: int = 1) -> SearchContext:
        """A fresh context for a batch of streams, after the start token."""
        device = next(self.predictor.parameters()).device
        start = torch.full((batch,), self.blank, device=device)
        with self._inference(device):
            state = self.predictor.initial_state(batch, device)
            predicted, state = self.predictor.step(start, state)
            predicted = self.joint.project_predictor(predicted)
        return SearchContext(state, predicted, torch.zeros_like(start))

    def forward_streaming(
        self,
        encoded: torch.Tensor,
        context: SearchContext,
        frames: torch.Tensor | None = None,
    ) -> list[list[int]]:
        """Searches the next frames of each stream.

        Arguments
        ---------
        encoded : torch.Tensor
            The chunk [batch, frames, features]; it may have no frames.
        context : SearchContext
            From `make_streaming_context`; changed in place. Its
            `token_frames` then tells the frame of each token.
        frames : torch.Tensor
            How many of the chunk's frames are each row's own, [batch]; all
            of them when not given.

        Returns
        -------
        tokens : list
            The new tokens of each row.

        Raises
        ------
        ValueError
            If shapes do not fit, or if a row's own frames are not finite.
        """
        batch = len(context.predicted)
        if encoded.dim() != 3 or len(encoded) != batch:
            raise ValueError(
                f"encoded must be [batch, frames, features] with the batch "
                f"size of its context, {batch}, got {list(encoded.shape)}"
            )
        time = encoded.shape[1]
        if frames is None:
            frames = torch.full((batch,), time, device=encoded.device)
        if (
            frames.shape != (batch,)
            or not ((0 <= frames) & (frames <= time)).all()
        ):
            raise ValueError(
                f"frames must be {batch} numbers of 0 to {time}, "
                f"got {frames.tolist()}"
            )
        own = torch.arange(time, device=encoded.device) < frames[:, None]
        if not encoded[own].isfinite().all():
            raise ValueError(
                "encoded frames have NaN or infinity: the encoder's weights "
                "or its input are broken"
            )
        with self._inference(encoded.device):
            steps = self._walk(encoded, context, frames)
        context.frames = context.frames + frames
        tokens, context.token_frames = _by_row(batch, steps)
        return tokens

    def _walk(self, encoded, context, frames):
        """Steps: the tokens [batch], which rows emit, and at which frame."""
        encoded = self.joint.project_encoder(
            encoded.to(context.predicted.dtype)
        )
        rows = torch.arange(len(encoded), device=encoded.device)
        frame = torch.zeros_like(frames)  # where each row stands
        symbols = torch.zeros_like(frames)  # that its frame has given
        steps = []
        while (active := frame < frames).any():
            here = encoded[rows, frame.clamp(max=encoded.shape[1] - 1)]
            token = self.joint.join(here, context.predicted).argmax(-1)
            emits = active & (token != self.blank)
            steps.append((token, emits, context.frames + frame))
            if emits.any():
                self._read(token, emits, context)
            symbols = symbols + emits
            moves = active & (~emits | (symbols >= self.max_symbols))
            frame = frame + moves
            symbols = symbols.masked_fill(moves, 0)
        return steps

    def _read(self, token, emits, context):
        """The predictor reads the tokens of the rows that emit one."""
        predicted, state = self.predictor.step(token, context.state)
        context.state = self.predictor.select_rows(emits, state, context.state)
        context.predicted = torch.where(
            emits[:, None],
            self.joint.project_predictor(predicted),
            context.predicted,
        )

    @contextmanager
    def _inference(self, device):
        """No gradients, no dropout, and no rounding that autocast brings."""
        modules = (self.predictor, self.joint)
        training = [module.training for module in modules]
        for module in modules:
            module.eval()
        try:
            with (
                torch.no_grad(),
                torch.autocast(device.type, enabled=False),
            ):
                yield
        finally:
            for module, mode in zip(modules, training, strict=True):
                module.train(mode)


def _by_row(batch, steps):
    """Sorts the steps of a search to each row's tokens and their frames."""
    tokens = [[] for _ in range(batch)]
    frames = [[] for _ in range(batch)]
    for step in steps:
        columns = zip(*(column.tolist() for column in step), strict=True)
        for row, (token, emits, frame) in enumerate(columns):
            if emits:
                tokens[row].append(token)
                frames[row].append(frame)
    return tokens, frames


def _absolute(lengths, padded, what):
    """Relative lengths [batch] of [batch, time, ...] to numbers of 1..time."""
    if lengths.shape != padded.shape[:1]:
        raise ValueError(
            f"lengths of the {what} must be [batch] = [{len(padded)}], "
            f"got {list(lengths.shape)}"
        )
    time = padded.shape[1]
    numbers = torch.round(lengths.double() * time)
    if not ((numbers >= 1) & (numbers <= time)).all():
        raise ValueError(
            f"relative lengths of the {what} must give 1 to {time} (above 0, "
            f"at most 1): got {lengths.tolist()}"
        )
    return numbers.long()
