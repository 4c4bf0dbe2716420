"""A trained model -> arrays and numbers for the runtime."""

import copy

import numpy as np
import torch

from speechbrain_amnet.arbitrator import Arbitrator, Router
from speechbrain_amnet.controls import (
    EnergyRouting,
    FixedRouting,
    RandomRouting,
)
from speechbrain_amnet.features import StreamingFeatures
from speechbrain_amnet.inference import CTC_HEAD, AmortizedASR
from speechbrain_amnet.runtime.int8 import from_int8, scales_of, to_int8
from speechbrain_amnet.runtime.packed import Packed
from speechbrain_amnet.transducer import Joint, Predictor
from speechbrain_amnet.weights import Sparse

EXACT = ("features.", "router.", "ctc.")  # small, and never rounded


class UnknownRouter(ValueError):
    """The model has a router that the runtime does not know."""


def pack(asr: AmortizedASR) -> Packed:
    """Make a model for the runtime of a trained one.

    Arguments
    ---------
    asr : AmortizedASR
        From `load` or `from_hparams`.

    Returns
    -------
    Packed

    Raises
    ------
    UnknownRouter
        If the model has a router that the runtime does not know.
    ValueError
        If its weights have NaN or infinity.
    """
    modules, search = asr.mods, asr.hparams.search
    held = {}
    if asr.grammar is not None:
        held = {
            "grammar": asr.grammar.text,
            "width": search.width,
        }
        search = search.greedy
    if hasattr(modules, CTC_HEAD) and asr.shares is not None:
        held["shares"] = asr.shares
    encoder, device = modules.encoder, modules.encoder.target_device
    router, router_arrays = router_of(encoder.router)
    features, features_arrays = features_of(modules.features)
    config = {
        "features": features,
        "encoder": {
            "input_size": encoder.input_size,
            "hidden_size": encoder.hidden_size,
            "layers": len(encoder.layers),
            "branches": encoder.router.branches,
            "pruned": pruned_branches(encoder),
            "branch_flops": encoder.branch_flops,
            "dense_flops": encoder.dense_flops,
            "frame_duration": encoder.frame_duration,
        },
        "device": {
            "load": device.load,
            "flops_per_second": device.flops_per_second,
        },
        "router": router,
        "search": {
            "blank": search.blank,
            "max_symbols": search.max_symbols,
            "blank_penalty": search.blank_penalty,
            "layers": modules.predictor.lstm.num_layers,
            "pieces": asr.pieces,
            **held,
        },
    }
    arrays = {
        **{f"features.{k}": v for k, v in features_arrays.items()},
        **{f"router.{k}": v for k, v in router_arrays.items()},
        **encoder_arrays(encoder),
        **search_arrays(modules.predictor, modules.joint),
    }
    head = getattr(modules, CTC_HEAD, None)
    if head is not None:
        arrays |= {"ctc.weight": head.weight, "ctc.bias": head.bias}
    arrays = {k: as_array(v) for k, v in arrays.items()}
    for name, array in arrays.items():
        if not np.isfinite(array).all():  # 8 bits would make zeros of them
            raise ValueError(
                f"{name}: the model's weights have NaN or infinity"
            )
    return Packed(config, arrays)


def as_int8(packed: Packed) -> Packed:
    """The model with its matrices rounded to 8 bits, row by row.

    Arguments
    ---------
    packed : Packed
        From `pack`.

    Returns
    -------
    Packed
        A quarter of the size on disk. Biases, features, router and CTC head
        stay.
    """
    arrays, scales = dict(packed.arrays), {}
    for name, array in packed.arrays.items():
        if array.ndim == 2 and not name.startswith(EXACT):
            scales[name] = scales_of(rows_of(name, packed.arrays))
            steps = to_int8(array, scales[name])
            arrays[name] = from_int8(steps, scales[name])
    return Packed(packed.config, arrays, scales)


def rows_of(name, arrays):
    """A matrix, beside it the one that it is multiplied together with."""
    place, _, part = name.removesuffix(".0").rpartition(".")
    pair = [f"{place}.input", f"{place}.recurrent"]
    if name.endswith(".0") and f"{place}.{part}" in pair:
        low_rank = [f"{one}.1" in arrays for one in pair]
        if low_rank[0] == low_rank[1]:
            return np.hstack([arrays[f"{one}.0"] for one in pair])
    return arrays[name]


def as_array(value: torch.Tensor) -> np.ndarray:
    """A tensor's own copy in float32, row by row."""
    return value.detach().float().cpu().contiguous().numpy().copy()


def features_of(features: StreamingFeatures):
    """Numbers and arrays of the features."""
    stft = features.stft
    filterbank = copy.deepcopy(features.filterbank)
    filterbank.log_mel = False
    bins = stft.n_fft // 2 + 1
    # What the filterbank makes of each bin alone: its matrix.
    filters = filterbank(torch.eye(bins, device=features.mean.device)[None])[0]
    numbers = {
        "sample_rate": features.sample_rate,
        "stack": features.frame_samples // stft.hop_length,
        "hop": stft.hop_length,
        "n_fft": stft.n_fft,
        "floor": filterbank.amin,
        "mean_rate": features.mean_rate,
    }
    arrays = {
        "window": stft.window,
        "filters": filters,
        "mean": features.mean,
        "std": features.std,
    }
    return numbers, arrays


def router_of(router: Router):
    """Numbers and arrays of a router."""
    kind = type(router)
    if kind is Arbitrator:
        arrays = {
            "frame": router.frame.weight,
            "bias": router.frame.bias,
            "out": router.out.weight,
            "out_bias": router.out.bias,
        }
        if router.use_backlog:
            arrays["backlog"] = router.backlog.weight[:, 0]
        if router.use_device:
            arrays["device"] = router.device.weight[:, 0]
        return {"kind": "arbitrator", "loads": router.loads}, arrays
    if kind is FixedRouting:
        return {"kind": "fixed", "branch": router.branch}, {}
    if kind is RandomRouting:
        edges = router.edges.tolist()
        return {"kind": "random", "edges": edges, "seed": router.seed}, {}
    if kind is EnergyRouting:
        threshold = float(router.threshold)
        return {"kind": "energy", "threshold": threshold}, {}
    raise UnknownRouter(
        f"the runtime has no router of the kind {kind.__name__}, only those "
        "of speechbrain_amnet"
    )


def pruned_branches(encoder):
    """Those whose matrices have zeros in the place of pruned weights."""
    forms = encoder.layers[0].input
    return [k for k, form in enumerate(forms) if isinstance(form, Sparse)]


def encoder_arrays(encoder):
    """The factors of every matrix, and the biases."""
    arrays = {}
    for n, layer in enumerate(encoder.layers):
        for k in range(encoder.router.branches):
            place = f"encoder.{n}.{k}"
            arrays[f"{place}.bias"] = layer.bias[k]
            for name in ("input", "recurrent"):
                for i, factor in enumerate(getattr(layer, name)[k].factors()):
                    arrays[f"{place}.{name}.{i}"] = factor
    return arrays


def search_arrays(predictor: Predictor, joint: Joint):
    """The weights of predictor and joint."""
    arrays = {
        "predictor.embedding": predictor.embedding.weight,
        "joint.encoder": joint.encoder_projection.weight,
        "joint.encoder_bias": joint.encoder_projection.bias,
        "joint.predictor": joint.predictor_projection.weight,
        "joint.output": joint.output.weight,
        "joint.output_bias": joint.output.bias,
    }
    lstm = predictor.lstm
    for n in range(lstm.num_layers):
        weights = [getattr(lstm, f"weight_{x}_l{n}") for x in ("ih", "hh")]
        # From PyTorch's order of the gates (i, f, g, o) to that of the
        # encoder (g, i, f, o).
        arrays[f"predictor.{n}.weight"] = reordered(torch.cat(weights, 1))
        for x, name in (("ih", "bias"), ("hh", "recurrent_bias")):
            bias = getattr(lstm, f"bias_{x}_l{n}")
            arrays[f"predictor.{n}.{name}"] = reordered(bias)
    return arrays


def reordered(gates: torch.Tensor) -> torch.Tensor:
    """Gates i, f, g, o as g, i, f, o.

    Example
    -------
    >>> reordered(torch.arange(8)).tolist()
    [4, 5, 0, 1, 2, 3, 6, 7]
    """
    i, f, g, o = gates.chunk(4)
    return torch.cat([g, i, f, o])
