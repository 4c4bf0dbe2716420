"""An update for a packed model: on the device itself, without PyTorch.

A diff is for the tensors that a training's files hold. A packed model has the
same numbers under other names, some of them in another order; so they can be
found, compared with the diff's base, changed, and put back.
"""

import os
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from speechbrain_amnet import files
from speechbrain_amnet.diff.applying import (
    NotTheBase,
    change_each,
    check_base,
)
from speechbrain_amnet.diff.file import read_diff
from speechbrain_amnet.runtime.packed import (
    Packed,
    read_packed,
    write_packed,
)

JOINT = {
    "encoder_projection.weight": "encoder",
    "encoder_projection.bias": "encoder_bias",
    "predictor_projection.weight": "predictor",
    "output.weight": "output",
    "output.bias": "output_bias",
}
ROUTER = {
    "frame.weight": "frame",
    "frame.bias": "bias",
    "out.weight": "out",
    "out.bias": "out_bias",
}
COLUMN = {"backlog.weight": "backlog", "device.weight": "device"}


@dataclass(frozen=True)
class Place:
    """Where a tensor lies in a packed model.

    Arguments
    ---------
    array : str
        Of the packed model.
    columns : tuple
        The first of its columns, and the one after the last.
    gates : bool
        Whether its rows are in the runtime's order of the gates and the
        tensor's in PyTorch's.
    column : bool
        Whether the tensor is a matrix of one column, and the array a vector.
    """

    array: str
    columns: tuple[int | None, int | None] = (None, None)
    gates: bool = False
    column: bool = False


class PackedTensors(MutableMapping):
    """A packed model's weights by the names of a training's files.

    What is put in takes the old one's place; the arrays that are given stay as
    they are. Pruned matrices are not there, as a packed model does not know
    what lies where they are zero.

    Arguments
    ---------
    packed : Packed
        The model, of 32 bits.

    Raises
    ------
    ValueError
        If it is of 8 bits, or was packed by a version that did not keep all.

    Example
    -------
    >>> rows = np.arange(8, dtype="float32")
    >>> layers = {"layers": 0, "branches": 0}
    >>> config = {"encoder": layers, "search": {"layers": 1}}
    >>> names = ("predictor.0.bias", "predictor.0.recurrent_bias")
    >>> tensors = PackedTensors(Packed(config, dict.fromkeys(names, rows)))
    >>> tensors["predictor.lstm.bias_hh_l0"].tolist()  # gates as PyTorch's
    [2.0, 3.0, 4.0, 5.0, 0.0, 1.0, 6.0, 7.0]
    """

    def __init__(self, packed: Packed):
        if packed.int8:
            raise ValueError(
                "its matrices are rounded to 8 bits, and an update is for what "
                "they were before; update one of 32 bits, or the folder that "
                "it was packed from, and pack that again"
            )
        if "predictor.0.recurrent_bias" not in packed.arrays:
            raise ValueError(
                "it was packed by an older version, which did not keep all "
                "that an update is for; pack it again"
            )
        self.arrays = dict(packed.arrays)
        self.places = places_of(packed.config, packed.arrays)

    def __getitem__(self, name: str) -> np.ndarray:
        place = self.places[name]
        tensor = self.arrays[place.array][..., slice(*place.columns)]
        if place.gates:
            g, i, f, o = np.split(tensor, 4)
            tensor = np.concatenate([i, f, g, o])
        if place.column:
            tensor = tensor[:, None]
        return np.ascontiguousarray(tensor)

    def __setitem__(self, name: str, tensor: np.ndarray) -> None:
        place = self.places[name]
        if place.gates:
            i, f, g, o = np.split(tensor, 4)
            tensor = np.concatenate([g, i, f, o])
        if place.column:
            tensor = tensor[:, 0]
        array = self.arrays[place.array].copy()
        array[..., slice(*place.columns)] = tensor
        self.arrays[place.array] = array

    def __delitem__(self, name: str) -> None:
        raise TypeError("a model's weights stay")

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)


def places_of(
    config: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
) -> dict[str, Place]:
    """Where each tensor lies that a packed model has whole."""
    encoder, places = config["encoder"], {}
    pruned = encoder.get("pruned", [])
    for n in range(encoder["layers"]):
        for k in range(encoder["branches"]):
            theirs, mine = f"encoder.layers.{n}", f"encoder.{n}.{k}"
            places[f"{theirs}.bias.{k}"] = Place(f"{mine}.bias")
            for part in ("input", "recurrent"):
                names = ["weight"]
                if f"{mine}.{part}.1" in arrays:
                    names = ["left", "right"]
                for i, name in enumerate(names):
                    if k not in pruned:
                        place = Place(f"{mine}.{part}.{i}")
                        places[f"{theirs}.{part}.{k}.{name}"] = place
    for n in range(config["search"]["layers"]):
        mine, lstm = f"predictor.{n}", "predictor.lstm"
        weight = arrays.get(f"{mine}.weight")
        if weight is not None:
            inputs = weight.shape[1] - weight.shape[0] // 4
            for part, columns in (
                ("ih", (0, inputs)),
                ("hh", (inputs, None)),
            ):
                place = Place(f"{mine}.weight", columns, gates=True)
                places[f"{lstm}.weight_{part}_l{n}"] = place
        for part, name in (("ih", "bias"), ("hh", "recurrent_bias")):
            place = Place(f"{mine}.{name}", gates=True)
            places[f"{lstm}.bias_{part}_l{n}"] = place
    for theirs, mine in (
        {"predictor.embedding.weight": "predictor.embedding"}
        | {"ctc_head.weight": "ctc.weight", "ctc_head.bias": "ctc.bias"}
        | {f"joint.{a}": f"joint.{b}" for a, b in JOINT.items()}
        | {f"encoder.router.{a}": f"router.{b}" for a, b in ROUTER.items()}
    ).items():
        places[theirs] = Place(mine)
    for theirs, mine in COLUMN.items():
        place = Place(f"router.{mine}", column=True)
        places[f"encoder.router.{theirs}"] = place
    return {name: p for name, p in places.items() if p.array in arrays}


def update_packed(
    model: str | Path, diff: str | Path, out: str | Path
) -> dict[str, Any]:
    """Write the updated model of a packed one.

    The old file stays, and is what undoes the update.

    Arguments
    ---------
    model : str or Path
        What `amnet pack` wrote, in 32 bits.
    diff : str or Path
        The file of an update of the folder that it was packed from.
    out : str or Path
        The new file: bit for bit what `amnet pack` makes of the updated folder.

    Returns
    -------
    dict
        `diff`, its name, and `bytes`, its size.

    Raises
    ------
    FileExistsError
        If `out` exists.
    ValueError
        If the model is of 8 bits, or packed by an older version.
    DiffError
        If the diff is damaged or not for this model.
    OSError
        If the disk is too full; nothing has changed.
    """
    if os.path.lexists(out):
        raise FileExistsError(f"{out} exists already; give another file")
    packed = read_packed(model)
    try:
        tensors = PackedTensors(packed)
    except ValueError as error:
        raise ValueError(f"{model}: {error}") from None
    weights = sum(array.size for array in packed.arrays.values())
    update = read_diff(diff, weights)
    # Of what it does not change a packed model has not all.
    update = replace(update, model=None)
    try:
        check_base(update, tensors, str(model))
    except NotTheBase as error:
        raise NotTheBase(
            f"{error}; if the folder that it was packed from takes the "
            "update, pack the updated folder"
        ) from None
    change_each(update, tensors, finite=True)
    files.check_space(out, Path(model).stat().st_size, "an update")
    write_packed(Packed(packed.config, tensors.arrays), out, replace=False)
    return {"diff": Path(diff).name, "bytes": Path(diff).stat().st_size}
