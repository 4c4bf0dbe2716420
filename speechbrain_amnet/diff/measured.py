"""What a model measures in training, which a diff does not bring."""

from speechbrain.processing.features import GlobalNorm, InputNormalization
from torch import nn
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.utils.hooks import RemovableHandle


def has_statistics(module: nn.Module) -> bool:
    """Whether it measures what it gets in training, as batch normalization.

    Example
    -------
    >>> has_statistics(nn.BatchNorm1d(3)), has_statistics(nn.LayerNorm(3))
    (True, False)
    """
    return (
        bool(getattr(module, "track_running_stats", False))
        or isinstance(module, InputNormalization | GlobalNorm | _SpectralNorm)
        or any(  # as PyTorch had the spectral norm before
            isinstance(hook, SpectralNorm)
            for hook in module._forward_pre_hooks.values()
        )
    )


def hold_statistics(model: nn.Module) -> list[RemovableHandle]:
    """Keep what a model measures as it is; gives what ends that."""
    return [
        module.register_forward_pre_hook(as_deployed, prepend=True)
        for module in model.modules()
        if has_statistics(module)
    ]


def as_deployed(module, *_) -> None:
    """Before each call, as a Brain sets modes of modules one by one."""
    module.eval()
    if isinstance(module, GlobalNorm):  # which measures in this mode, too
        module.freeze()
