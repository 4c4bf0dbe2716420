"""Pruning by magnitude, step by step, while the rest trains on.

Source: Zhu and Gupta, To prune, or not to prune, arXiv 1710.01878: how much is
pruned follows a cubic curve, fast at first, slow at the end.
"""

from collections.abc import Iterable

import torch

from .weights import Sparse

SCOPES = ("matrix", "all")


def prune(forms: Iterable[Sparse], share: float, scope: str = "matrix") -> None:
    """Prune sparse matrices up to a share of the way to their density.

    Arguments
    ---------
    forms : iterable of Sparse
        Changed in place.
    share : float
        0 keeps everything, 1 leaves each its density.
    scope : str
        "matrix": each matrix has its density. "all": together they have it,
        and those whose entries are large keep more.

    Raises
    ------
    ValueError
        If there is no such scope, or the share is not 0 to 1.

    Example
    -------
    >>> form = Sparse(64, 32, density=0.1)
    >>> for share in (0.0, 0.5, 1.0):
    ...     prune([form], share)
    ...     print(int(form.mask.sum()))
    2048
    1126
    205
    """
    forms = list(forms)
    if scope not in SCOPES:
        raise ValueError(
            f"pruning: scope must be one of {', '.join(SCOPES)}, got {scope!r}."
        )
    if not 0 <= share <= 1:
        raise ValueError(f"pruning: share must be 0 to 1, got {share}.")
    sizes = [form.rows * form.columns for form in forms]
    goals = [form.goal for form in forms]
    counts = [round(n - share * (n - goal)) for n, goal in zip(sizes, goals)]
    if scope == "all" and forms:
        counts = shared_out(forms, sum(counts))
        if share == 1:
            for form, count in zip(forms, counts):
                form.budget.fill_(count)
    for form, count in zip(forms, counts):
        form.keep(count)


def shared_out(forms: list[Sparse], total: int) -> list[int]:
    """How many entries each form keeps of a total, by their scores."""
    scores = [form.scores().flatten() for form in forms]
    blocks = [torch.full_like(s, f.block) for s, f in zip(scores, forms)]
    order = torch.cat(scores).argsort(descending=True, stable=True)
    taken = torch.cat(blocks)[order].cumsum(0) <= total
    kept = torch.zeros(len(order), dtype=torch.bool, device=order.device)
    kept[order[taken]] = True
    parts = kept.split([len(s) for s in scores])
    return [
        max(form.block, int(part.sum()) * form.block)
        for part, form in zip(parts, forms)
    ]
