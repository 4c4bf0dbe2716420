"""DiffModel: any module with a diff beside each of its weights."""

import contextlib
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.utils import parametrize

from speechbrain_amnet.controls import EnergyRouting
from speechbrain_amnet.diff.applying import apply_diff
from speechbrain_amnet.diff.budget import fitted_diff, parse_budget
from speechbrain_amnet.diff.changes import Change
from speechbrain_amnet.diff.choice import (
    check_norm,
    check_type,
    chosen_names,
    scaled_by,
)
from speechbrain_amnet.diff.file import (
    Diff,
    make_diff,
    model_of,
    to_bytes,
    write_diff,
)
from speechbrain_amnet.diff.gating import thresholds
from speechbrain_amnet.diff.measured import hold_statistics
from speechbrain_amnet.diff.model_files import ModelFiles
from speechbrain_amnet.diff.positions import best_positions
from speechbrain_amnet.diff.sparse import SparseDiff
from speechbrain_amnet.diff.weights import WeightDiff


class DiffModel(nn.Module):
    """A frozen model whose weights are changed by a diff alone.

    Running statistics, and what spectral norms have found, stay as they are, in
    training too: they do not travel.

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
        If no weight fits, a pattern fits none, weights are tied, are neither
        float32 nor float16, or are scaled by their layer's `max_norm`, or the
        model has a diff already; nothing has changed.

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
            check_norm(name, model)
        made = {name: diff(named[name], name) for name in chosen}
        # Nothing is refused from here on, where the model changes.
        self.model = model
        model.requires_grad_(False)
        self.places: dict[str, tuple[nn.Module, str]] = {}
        self.diffs: dict[str, WeightDiff] = made
        self.bases: dict[str, torch.Tensor] = {}
        for name, one in made.items():
            path, _, leaf = name.rpartition(".")
            module = model.get_submodule(path)
            # unsafe: nothing is computed to check it. Shapes are the same.
            parametrize.register_parametrization(module, leaf, one, unsafe=True)
            self.places[name] = module, leaf
        for module in dict.fromkeys(
            module for module, _ in self.places.values()
        ):
            module.register_load_state_dict_pre_hook(under_the_diffs)
        self.holds = hold_statistics(model)
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
        for module in self.model.modules():
            if isinstance(module, EnergyRouting) and not self.merged:
                module.eval()  # it is asked, not called: no hook tells it
        try:
            with parametrize.cached():
                if not self.merged:
                    # Now, as the first one to ask may ask without gradients.
                    for module, leaf in self.places.values():
                        getattr(module, leaf)
                yield
        finally:
            if not self.merged:
                self.forget_computed()

    def forget_computed(self) -> None:
        """Let `nn.LSTM` and its like not hold on to the weights of a step.

        They take memory, and no copy can be made of what has a gradient. The
        next call finds others and takes those that are then.
        """
        for module, leaf in self.places.values():
            names = getattr(module, "_flat_weights_names", ())
            if leaf in names:
                place = names.index(leaf)
                frozen = module.parametrizations[leaf].original
                module._flat_weights[place] = frozen
                module._flat_weight_refs[place] = weakref.ref(frozen)

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
            What the modules have in common with them, also what has no diff,
            must be the same.

        Returns
        -------
        int
            Its size in bytes.

        Raises
        ------
        ValueError
            If nothing fits into the budget, or the deployed model's weights
            and buffers are not those that were trained with.
        """
        kind = type(next(iter(self.diffs.values())))
        said = {"method": kind.kind, "bits": bits}
        if budget is not None:
            said["budget"] = str(budget)
        about = said | (about or {})
        changes = self.changes(bits)
        old, model = self.base_arrays(changes), None
        if base is not None:
            files = tensors_of(base, old)
            self.check_deployed(files)
            old, model = files, model_of(files)
        if budget is None:
            return write_diff(make_diff(changes, old, about, model), path)
        size = parse_budget(budget, self.size)
        return write_diff(fitted_diff(changes, old, size, about, model), path)

    def check_deployed(self, files: Mapping[str, np.ndarray]) -> None:
        """Refuse files of which a tensor is another than in these modules.

        Also where nothing changes it: it was trained with. What files do not
        have (the head of another loss) is nobody's business, and what a layer
        scales in place it scales there, too.
        """
        own = dict(self.model.named_parameters())
        state = {
            name: ours
            for name, ours in self.model.state_dict().items()
            if not (name in own and scaled_by(name, self.model))
        }
        for name in self.places:
            state[name] = self.base(name)
        for name, ours in state.items():
            if (
                name not in files
                or not torch.is_tensor(ours)
                or not ours.is_floating_point()
            ):
                continue
            if not np.array_equal(
                files[name], as_array(ours.float()), equal_nan=True
            ):
                raise ValueError(
                    f"base: its {name} is not the one that was trained "
                    f"{'from' if name in self.places else 'with'}; load the "
                    "modules from these files, and let nothing that has no "
                    "diff move in training (eval())"
                )

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

        The module is then as any other, and as fast; it may measure again what
        it measures in training.

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
            If a diff is merged already, or `base` lacks a weight.
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
                files = tensors_of(base, self.places)
                arrays = {name: files[name] for name in self.places}
            # Of a whole model, of which this may be a part.
            apply_diff(replace(diff, model=None), arrays, finite=True)
        for name, (module, leaf) in self.places.items():
            base = self.base(name)
            if diff is None:
                new = getattr(module, leaf).detach().clone()
            else:
                new = torch.tensor(arrays[name]).to(base)
            parametrize.remove_parametrizations(module, leaf, False)
            self.bases[name] = base.detach()
            setattr(module, leaf, nn.Parameter(new, False))
        while self.holds:
            self.holds.pop().remove()
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
        self.holds = hold_statistics(self.model)
        self.merged = False


def tensors_of(
    base: str | Path | Mapping[str, np.ndarray], names: Iterable[str]
) -> Mapping[str, np.ndarray]:
    """A deployed model's tensors by name, of its folder where that is given.

    Raises
    ------
    ValueError
        If it has none of one of these names.
    """
    files = base if isinstance(base, Mapping) else ModelFiles(base)
    for name in names:
        if name not in files:
            raise ValueError(
                f"base: it has no {name}; it has "
                f"{', '.join(list(files)[:3])}, ...: give DiffModel a dict of "
                "modules by the names of its files"
            )
    return files


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


def as_array(tensor: torch.Tensor) -> np.ndarray:
    """A tensor's numbers, on the CPU."""
    return tensor.detach().cpu().numpy()
