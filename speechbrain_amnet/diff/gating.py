"""How large a change must be to come through a gate."""

from collections.abc import Mapping

import torch

SAMPLE = 1 << 20  # weights from which a threshold is found


def thresholds(
    changes: Mapping[str, torch.Tensor], share: float, score: str = "relative"
) -> dict[str, float]:
    """The thresholds that let such a share of all changes through.

    Arguments
    ---------
    changes : mapping
        Name to a dense change.
    share : float
        Above 0; 1 lets everything through.
    score : str
        "relative" or "matrix", see `DiffModel.gate`.

    Returns
    -------
    dict
        Name to the absolute value from which on a change comes through.

    Raises
    ------
    ValueError
        If the share is none, or the score another.

    Example
    -------
    >>> thresholds({"w": torch.tensor([3.0, 1.0, 2.0, 4.0, 5.0])}, 0.5)
    {'w': 3.0}
    """
    if not 0 < share <= 1:
        raise ValueError(
            f"gate: share must be above 0 and at most 1, got {share}"
        )
    if score not in ("relative", "matrix"):
        raise ValueError(
            f'gate: score must be relative or matrix, got "{score}"'
        )
    if share == 1:
        return dict.fromkeys(changes, 0.0)
    most, total = SAMPLE, sum(one.numel() for one in changes.values())
    sizes, scores = {}, {}
    for name, one in changes.items():
        flat = one.flatten()
        sizes[name] = flat.float().square().mean().sqrt()
        if score == "relative":  # so many of each that they weigh the same
            most = max(1, round(SAMPLE * len(flat) / max(SAMPLE, total)))
        some = sample_of(flat, most).float().abs()
        scores[name] = some / sizes[name].clamp(min=1e-30)
    if score == "relative":
        least = least_of(torch.cat(list(scores.values())), share)
        found = dict.fromkeys(scores, least)
    else:
        found = {name: least_of(one, share) for name, one in scores.items()}
    return {name: float(found[name] * sizes[name]) for name in changes}


def sample_of(values: torch.Tensor, most: int) -> torch.Tensor:
    """Some values of a flat tensor, the same places each time; or all.

    Example
    -------
    >>> len(sample_of(torch.arange(10), 4)), len(sample_of(torch.ones(3), 4))
    (4, 3)
    """
    if len(values) <= most:
        return values
    # Drawn: even steps would meet the same columns of a matrix.
    draws = torch.Generator().manual_seed(0)
    places = torch.randint(len(values), (most,), generator=draws)
    return values[places.to(values.device)]


def least_of(scores: torch.Tensor, share: float) -> torch.Tensor:
    """What the largest ones, such a share of all, are at least.

    Example
    -------
    >>> least_of(torch.tensor([3.0, 1.0, 2.0, 4.0, 5.0]), 0.5)
    tensor(3.)
    """
    place = 1 + int((1 - share) * (len(scores) - 1))
    return scores.kthvalue(place).values
