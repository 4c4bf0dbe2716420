"""DiffModel: any module with a diff beside each of its weights."""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import torch
from speechbrain.processing.features import GlobalNorm, InputNormalization
from torch import nn
from torch.nn.utils import parametrize

from speechbrain_amnet.diff.applying import apply_diff
from speechbrain_amnet.diff.budget import fitted_diff, parse_budget
from speechbrain_amnet.diff.changes import Change
from speechbrain_amnet.diff.file import (
    Diff,
    make_diff,
    model_of,
    to_bytes,
    write_diff,
)
from speechbrain_amnet.diff.gating import thresholds
from speechbrain_amnet.diff.model_files import ModelFiles
from speechbrain_amnet.diff.positions import best_positions
from speechbrain_amnet.diff.sparse import SparseDiff
from speechbrain_amnet.diff.weights import WeightDiff


class DiffModel(nn.Module):
    """A frozen model whose weights are changed by a diff alone.

    Running statistics stay as they are, in training too: they do not travel.

    Every weight is reached: of linear layers and convolutions, embeddings,
    `nn.LSTM` and `nn.GRU`, of the amortized encoder in all weight forms. The
    module itself is changed in place and used as before; this one passes calls
    on and knows the diffs.

    Arguments
    ---------
    model : nn.Module or dict of nn.Module
        Frozen by this. A dict's keys are the first part of the names, as the
        names of the files are in a trained folder.
    diff : callable
        Makes a `WeightDiff` of (weight, name), as
        ``!name:speechbrain_amnet.SparseDiff``.
    include : sequence of str
        Patterns of names, as `encoder.*`: the weights that get a diff.
    exclude : sequence of str
        Patterns of those that get none all the same.

    Raises
    ------
    ValueError
        If no weight fits, a pattern fits none, weights are tied, or are
        neither float32 nor float16, or the model has a diff already.

    Example
    -------
    >>> lstm = nn.LSTM(3, 4)
    >>> model = DiffModel(lstm, SparseDiff, exclude=["bias*"])
    >>> sorted(model.diffs)
    ['weight_hh_l0', 'weight_ih_l0']
    >>> model(torch.zeros(2, 1, 3))[0].shape
    torch.Size([2, 1, 4])
    """

    def __init__(
        self,
        model: nn.Module | dict[str, nn.Module],
        diff: Callable[[torch.Tensor, str], WeightDiff] = SparseDiff,
        include: Sequence[str] = ("*",),
        exclude: Sequence[str] = (),
    ):
        super().__init__()
        if not isinstance(model, nn.Module):
            model = nn.ModuleDict(model)
        if any(isinstance(part, WeightDiff) for part in model.modules()):
            raise ValueError(
                "the model has a diff already; load it anew, or unmerge and "
                "train that one on"
            )
        self.model = model
        model.requires_grad_(False)
        named = dict(model.named_parameters(remove_duplicate=False))
        chosen = [
            name
            for name in chosen_names(list(named), include, exclude)
            if named[name].numel()
        ]
        uses = Counter(map(id, named.values()))
        for name in chosen:
            if uses[id(named[name])] > 1:
                raise ValueError(
                    f"{name} is one weight with another name, too; a diff of "
                    "tied weights is not supported: untie or exclude them"
                )
            check_type(name, model.get_parameter(name))
        self.places: dict[str, tuple[nn.Module, str]] = {}
        self.diffs: dict[str, WeightDiff] = {}
        self.bases: dict[str, torch.Tensor] = {}
        for name in chosen:
            path, _, leaf = name.rpartition(".")
            module = model.get_submodule(path)
            one = diff(getattr(module, leaf), name)
            # unsafe: nothing is computed to check it. Shapes are the same.
            parametrize.register_parametrization(module, leaf, one, unsafe=True)
            self.places[name], self.diffs[name] = (module, leaf), one
        for module in dict.fromkeys(
            module for module, _ in self.places.values()
        ):
            module.register_load_state_dict_pre_hook(under_the_diffs)
        for module in model.modules():
            if has_statistics(module):
                module.register_forward_pre_hook(as_deployed)
        self.merged = False

    def forward(self, *inputs, **options):
        """Passes the call on, computing every weight once."""
        with self.computed():
            return self.model(*inputs, **options)

    @contextlib.contextmanager
    def computed(self) -> Iterator[None]:
        """Within it every updated weight is computed once.

        For a step of training that calls parts of the model.
        """
        with parametrize.cached():
            if not self.merged:
                # Now, as the first one to ask may ask without gradients.
                for module, leaf in self.places.values():
                    getattr(module, leaf)
            yield

    def diff_parameters(self) -> Iterator[nn.Parameter]:
        """What learns."""
        for diff in self.diffs.values():
            yield from (p for p in diff.parameters() if p.requires_grad)

    def base(self, name: str) -> torch.Tensor:
        """The frozen weight."""
        if self.merged:
            return self.bases[name]
        module, leaf = self.places[name]
        return module.parametrizations[leaf].original

    def base_arrays(self, names: Iterable[str]) -> dict[str, np.ndarray]:
        """Some frozen weights, as a file's fingerprints have them."""
        for name in names:
            check_type(name, self.base(name))
        return {name: as_array(self.base(name)) for name in names}

    @property
    def size(self) -> int:
        """Numbers in all parameters of the base model."""
        diffs = {id(p) for d in self.diffs.values() for p in d.parameters()}
        own = {id(p): p for p in self.model.parameters()}
        return sum(p.numel() for i, p in own.items() if i not in diffs)

    def changes(self, bits: int = 4) -> dict[str, Change]:
        """Every diff as it travels; those that are zero are left out."""
        found = {name: d.change(bits) for name, d in self.diffs.items()}
        return {name: one for name, one in found.items() if one is not None}

    def to_diff(self, bits: int = 4, about: dict | None = None) -> Diff:
        """The diff that turns the base model into this one.

        Arguments
        ---------
        bits : int
            2 to 8, 16 or 32 for each value.
        about : dict, optional
            What else the file says.

        Returns
        -------
        Diff
            See `file.write_diff`.
        """
        changes = self.changes(bits)
        return make_diff(changes, self.base_arrays(changes), about)

    def note_gradients(self) -> None:
        """Note after a backward pass which weights matter; clears gradients.

        Some batches of the training data, with the dense diffs as they were
        trained, are enough for `keep_best(..., score="fisher")`; `SparseDiff`
        only. Weights without a gradient count as before.
        """
        for diff in self.dense_diffs().values():
            if diff.dense.grad is not None:
                diff.note_gradient()

    def dense_diffs(self) -> dict[str, SparseDiff]:
        """All diffs, which must be a `SparseDiff` that is dense still.

        Raises
        ------
        ValueError
            If one is not.
        """
        for name, diff in self.diffs.items():
            if getattr(diff, "dense", None) is None:
                raise ValueError(
                    f"{name}: expected a SparseDiff that is dense still, got a "
                    f"{type(diff).__name__}; gradients are noted, and a gate "
                    "closes, before positions are kept"
                )
        return self.diffs

    def keep_best(
        self,
        budget: str | int,
        bits: int = 4,
        score: str = "relative",
        deltas: Mapping[str, np.ndarray] | None = None,
        about: dict | None = None,
    ) -> None:
        """Keep as many positions as fit into a budget; `SparseDiff` only.

        Arguments
        ---------
        budget : str or int
            A share of this model in 32 bits as `2%`, or bytes as `40kB`.
        bits : int
            Of a value.
        score : str
            See `positions.best_positions`.
        deltas : mapping, optional
            Name to what a full update changed; the diffs as they are by
            default.
        about : dict, optional
            What the file will say besides.
        """
        if deltas is None:
            deltas = {n: as_array(d.delta()) for n, d in self.diffs.items()}
        size = parse_budget(budget, self.size)
        importance = None
        if score == "fisher":
            importance = self.importance()
        where = best_positions(deltas, size, bits, score, about, importance)
        nowhere = np.zeros(0, dtype=np.int64)
        for name, diff in self.diffs.items():
            here = torch.from_numpy(where.get(name, nowhere))
            start = self.base(name).new_zeros(0)
            if len(here):
                start = torch.from_numpy(deltas[name]).to(start).flatten()
                start = start[here.to(start.device)]
            diff.keep(here.to(start.device), start)

    @torch.no_grad()
    def gate(
        self, share: float, temperature: float, score: str = "relative"
    ) -> None:
        """Let the largest changes through.

        For a training that prunes as it goes; `SparseDiff` only, while it is
        dense.

        Arguments
        ---------
        share : float
            Of all weights, above 0; 1 lets everything through.
        temperature : float
            How sharp, see `SparseDiff.gate`.
        score : str
            "relative" compares changes in units of their matrix's root mean
            square, so that a matrix that has changed much everywhere gets no
            more of the budget than one that has changed little; "matrix" lets
            the same share of each matrix through.

        Raises
        ------
        ValueError
            If the share is none, or the score another.
        """
        diffs = self.dense_diffs()
        dense = {name: diff.dense for name, diff in diffs.items()}
        for name, threshold in thresholds(dense, share, score).items():
            diffs[name].gate(threshold, temperature)

    def importance(self) -> dict[str, np.ndarray]:
        """What `note_gradients` has noted, by name.

        Raises
        ------
        ValueError
            If nothing was noted.
        """
        noted = {n: diff.importance for n, diff in self.dense_diffs().items()}
        if all(one is None for one in noted.values()):
            raise ValueError(
                "no gradients are noted: run backward() and note_gradients() "
                "on some batches before"
            )
        return {
            name: np.zeros(self.diffs[name].shape, dtype=np.float32)
            if one is None
            else as_array(one)
            for name, one in noted.items()
        }

    def round(self, bits: int) -> None:
        """From now on train with values as the file has them."""
        for diff in self.diffs.values():
            diff.round(bits)

    def save(
        self,
        path: str | Path,
        budget: str | int | None = None,
        bits: int = 4,
        about: dict | None = None,
        base: str | Path | Mapping[str, np.ndarray] | None = None,
    ) -> int:
        """Write the diff's file.

        Arguments
        ---------
        path : str or Path
            The file; replaced if it exists.
        budget : str or int, optional
            What it must fit into; its smallest values go if it does not.
        bits : int
            Of a value.
        about : dict, optional
            What else the file says; method and budget by default.
        base : str, Path or mapping, optional
            The deployed model's folder, or its tensors by name. The diff is
            then made for these files, in their types, and no other model takes
            it; without, any that has the same weights where it changes some.

        Returns
        -------
        int
            Its size in bytes.

        Raises
        ------
        ValueError
            If nothing fits into the budget, or the deployed model's weights
            are not those that were trained from.
        """
        kind = type(next(iter(self.diffs.values())))
        said = {"method": kind.kind, "bits": bits}
        if budget is not None:
            said["budget"] = str(budget)
        about = said | (about or {})
        changes = self.changes(bits)
        old, model = self.base_arrays(changes), None
        if base is not None:
            files = tensors_of(base)
            for name, array in old.items():
                if name not in files:
                    raise ValueError(
                        f"base: it has no {name}; it has "
                        f"{', '.join(list(files)[:3])}, ...: give DiffModel "
                        "a dict of modules by the names of its files"
                    )
                if not np.array_equal(files[name], array):
                    raise ValueError(
                        f"base: its {name} is not the weight that was trained "
                        "from; load the modules from these files"
                    )
            old, model = files, model_of(files)
        if budget is None:
            return write_diff(make_diff(changes, old, about, model), path)
        size = parse_budget(budget, self.size)
        return write_diff(fitted_diff(changes, old, size, about, model), path)

    def budget_used(self, bits: int = 4) -> float:
        """Bytes of the diff's file over those of the model in 32 bits."""
        return len(to_bytes(self.to_diff(bits))) / (4 * self.size)

    @torch.no_grad()
    def merge(
        self,
        diff: Diff | None = None,
        base: str | Path | Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """Put the updated weights in the place of base and diff.

        The module is then as any other, and as fast.

        Arguments
        ---------
        diff : Diff, optional
            What to apply instead of the diffs as they are: what has travelled,
            with rounded values.
        base : str, Path or mapping, optional
            As for `save`, where the diff was made for such files: those of
            half precision are changed as a device changes them.

        Raises
        ------
        ValueError
            If a diff is merged already.
        DiffError
            If the diff is not for this model; nothing has changed.
        """
        if self.merged:
            raise ValueError("the diff is merged already")
        arrays = {}
        if diff is not None:
            if base is None:
                arrays = self.base_arrays(self.places)
            else:
                files = tensors_of(base)
                arrays = {name: files[name] for name in self.places}
            # Of a whole model, of which this may be a part.
            apply_diff(replace(diff, model=None), arrays)
        for name, (module, leaf) in self.places.items():
            base = self.base(name)
            if diff is None:
                new = getattr(module, leaf).detach().clone()
            else:
                new = torch.tensor(arrays[name]).to(base)
            parametrize.remove_parametrizations(module, leaf, False)
            self.bases[name] = base.detach()
            setattr(module, leaf, nn.Parameter(new, False))
        self.merged = True

    @torch.no_grad()
    def unmerge(self) -> None:
        """Take the merged weights out again; the base's come back, exactly.

        Raises
        ------
        ValueError
            If no diff is merged, or weights have another type since.
        """
        if not self.merged:
            raise ValueError("the diff is not merged")
        for name, (module, leaf) in self.places.items():
            now, then = getattr(module, leaf).dtype, self.bases[name].dtype
            if now != then:
                raise ValueError(
                    f"{name} is {now} now and was {then} when the diff was "
                    "merged; unmerge before the model's type changes"
                )
        for name, (module, leaf) in self.places.items():
            # Where the model is now; a merged diff is no part of it.
            device = getattr(module, leaf).device
            self.diffs[name].to(device)
            base = nn.Parameter(self.bases.pop(name).to(device), False)
            setattr(module, leaf, base)
            parametrize.register_parametrization(
                module, leaf, self.diffs[name], unsafe=True
            )
        self.merged = False


def tensors_of(
    base: str | Path | Mapping[str, np.ndarray],
) -> Mapping[str, np.ndarray]:
    """A deployed model's tensors by name, of its folder where that is given."""
    return base if isinstance(base, Mapping) else ModelFiles(base)


def has_statistics(module: nn.Module) -> bool:
    """Whether it goes on to measure its input, as batch normalization does.

    Example
    -------
    >>> has_statistics(nn.BatchNorm1d(3)), has_statistics(nn.LayerNorm(3))
    (True, False)
    """
    return bool(getattr(module, "track_running_stats", False)) or isinstance(
        module, InputNormalization | GlobalNorm
    )


def as_deployed(module, *_) -> None:
    """Before each call, as a Brain sets modes of modules one by one."""
    module.eval()
    if isinstance(module, GlobalNorm):  # which measures in this mode, too
        module.freeze()


def under_the_diffs(module, state_dict, prefix, *_) -> None:
    """Load a weight that comes by its old name below its diff.

    As `Pretrainer` loads a deployed model; diffs that do not come stay as they
    are.
    """
    for leaf, one in getattr(module, "parametrizations", {}).items():
        inside = f"{prefix}parametrizations.{leaf}."
        if prefix + leaf in state_dict:
            state_dict[f"{inside}original"] = state_dict.pop(prefix + leaf)
            for key, value in one.state_dict(prefix=inside).items():
                state_dict.setdefault(key, value)


def chosen_names(
    names: Sequence[str], include: Sequence[str], exclude: Sequence[str]
) -> list[str]:
    """Those that fit a pattern of the first and none of the second.

    Raises
    ------
    ValueError
        If a pattern fits no name, none is left, or it is no list.

    Example
    -------
    >>> chosen_names(["a.weight", "a.bias"], ["a.*"], ["*bias"])
    ['a.weight']
    """
    for key, patterns in (("include", include), ("exclude", exclude)):
        if isinstance(patterns, str):
            raise ValueError(
                f'{key}: expected a list of patterns, as ["{patterns}"], got '
                f"{patterns!r}"
            )
    if not names:
        raise ValueError("the model has no weights, so a diff has none")
    for pattern in (*include, *exclude):
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ValueError(
                f"no weight is called '{pattern}'; there are, for instance, "
                f"{', '.join(names[:5])}"
            )
    left = [
        name
        for name in names
        if any(fnmatchcase(name, pattern) for pattern in include)
        and not any(fnmatchcase(name, pattern) for pattern in exclude)
    ]
    if not left:
        raise ValueError("include and exclude leave no weight for a diff")
    return left


def check_type(name: str, weight: torch.Tensor) -> None:
    """Refuse a weight of a type that no file of a diff has."""
    if weight.dtype not in (torch.float32, torch.float16):
        raise ValueError(
            f"{name} is {weight.dtype}, and a diff is for float32 or float16; "
            "deploy the model as .float(), and update that"
        )


def as_array(tensor: torch.Tensor) -> np.ndarray:
    """A tensor's numbers, on the CPU."""
    return tensor.detach().cpu().numpy()
