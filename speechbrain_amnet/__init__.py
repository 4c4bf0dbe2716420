"""Amortized networks and neural diffs for SpeechBrain.

The names exported here are those that hparams files use, as
``!new:speechbrain_amnet.AmortizedEncoder``. `amnet names` lists them.
"""

import importlib

__version__ = "0.1.0"

# Name -> module. Imported when asked for: PyTorch takes seconds to load.
_HOMES = {
    "AmortizedASR": "inference",
    "AmortizedEncoder": "encoder",
    "Arbitrator": "arbitrator",
    "BackgroundNoise": "noise",
    "BacklogAwareLoss": "losses",
    "ChunkFeatures": "features",
    "Dense": "weights",
    "Device": "device",
    "DiffLinear": "diff.linear",
    "DiffModel": "diff.model",
    "DistillationLoss": "distillation",
    "EnergyRouting": "controls",
    "FixedRouting": "controls",
    "GreedySearch": "search",
    "HashDiff": "diff.hashed",
    "Joint": "transducer",
    "LowRank": "weights",
    "LowRankDiff": "diff.lowrank",
    "Predictor": "transducer",
    "RandomRouting": "controls",
    "SafeCheckpointer": "checkpoints",
    "Schedule": "schedules",
    "Skip": "weights",
    "Sparse": "weights",
    "SparseDiff": "diff.sparse",
    "StreamingFeatures": "features",
    "TextStream": "text",
    "TransducerLoss": "transducer",
    "decode_streaming": "text",
    "load_weights": "loading",
}

__all__ = list(_HOMES)


def __getattr__(name):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f".{_HOMES[name]}", __name__)
    return getattr(module, name)


def __dir__():
    return [*globals(), *__all__]
