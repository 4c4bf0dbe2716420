"""A greedy search for batches of whole utterances and chunks of streams.

Both are one loop. Each row walks through its own frames at its own pace, so its
words depend neither on its batch, nor on padding, nor on how it was cut.
"""

from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from .frames import absolute_lengths
from .transducer import State


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
    blank_penalty : float
        Taken from the logit of blank. A transducer that has little to learn
        from leaves out more than it makes up; choose it on dev.

    Example
    -------
    >>> from speechbrain_amnet import Joint, Predictor
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
        blank_penalty: float = 0.0,
    ):
        if max_symbols < 1:
            raise ValueError(f"max_symbols must be >= 1, got {max_symbols}")
        self.predictor = predictor
        self.joint = joint
        self.blank = blank
        self.max_symbols = max_symbols
        self.blank_penalty = blank_penalty

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
        frames = absolute_lengths(lengths, encoded, "frames")
        context = self.make_streaming_context(len(encoded))
        tokens = self.forward_streaming(encoded, context, frames)
        return (tokens, context.token_frames) if with_frames else tokens

    def make_streaming_context(self, batch: int = 1) -> SearchContext:
        """A fresh context for a batch of streams, after the start token.

        One for a single stream takes as many as its first chunk has.
        """
        device = next(self.predictor.parameters()).device
        start = torch.full((batch,), self.blank, device=device)
        with self.inference(device):
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
        fresh = batch == 1 and not context.frames.any()
        if fresh and encoded.dim() == 3 and len(encoded) > 1:
            batch = len(encoded)
            vars(context).update(vars(self.make_streaming_context(batch)))
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
        with self.inference(encoded.device):
            steps = self._walk(encoded, context, frames)
        context.frames = context.frames + frames
        tokens, context.token_frames = _by_row(batch, steps)
        return tokens

    def finish(self, context: SearchContext) -> list[list[int]]:
        """What is left when the streams have ended: nothing, for each row."""
        context.token_frames = [[] for _ in context.predicted]
        return [[] for _ in context.predicted]

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
            logits = self.joint.join(here, context.predicted)
            logits[:, self.blank] -= self.blank_penalty
            token = logits.argmax(-1)
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
    def inference(self, device):
        """No gradients, no dropout, and no rounding that autocast brings."""
        parts = (self.predictor, self.joint)
        # Each part's own, as some of them may be frozen in another mode.
        modules = [module for part in parts for module in part.modules()]
        training = [module.training for module in modules]
        for part in parts:
            part.eval()
        try:
            with (
                torch.no_grad(),
                torch.autocast(device.type, enabled=False),
            ):
                yield
        finally:
            for module, mode in zip(modules, training, strict=True):
                module.training = mode


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
