"""Maps in input space: which part of an input a set of hidden units used.

Why this file exists: a contribution says how much a unit acted, a map says by what in the input.
One backward pass per path point gives the map of any weighted set of units at once, because a sum
over units of rows of a Jacobian is one vector–Jacobian product. It draws nothing.

Notation: b inputs, x input, x′ baseline, h units of a layer, g = ∂F/∂h, J = ∂h/∂x, m weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import nn

from retina_codec.contributions.runner import mean_input
from retina_codec.errors import RetinaCodecError
from retina_codec.methods.base import Method, at_least_float
from retina_codec.methods.baselines import resolve_baselines
from retina_codec.methods.gradients import ActGrad, ActNormGrad, InputGrad
from retina_codec.methods.integrated_gradients import IntegratedGradients
from retina_codec.methods.quadrature import rule
from retina_codec.networks.adapter import Adapter, as_adapter
from retina_codec.probing.batches import Batch, lerp, map_tensors, tensors_of, to_point
from retina_codec.probing.borrowed import open_device, reference_parameter, working_network
from retina_codec.probing.hooks import HookedFunction
from retina_codec.probing.inputs import Source, open_inputs
from retina_codec.probing.points import Bound, checked_value
from retina_codec.probing.survey import Layer
from retina_codec.reductions import SIGNS
from retina_codec.targets.base import Target, as_target, bind_at_input

__all__ = ["input_map"]


def input_map(
    network: nn.Module | Adapter,
    inputs: Any,
    layer: str,
    *,
    target: Target | Any,
    method: Method,
    weights: Any = None,
    positive_only: bool = False,
    steps: int = 20,
    batch_size: int = 8,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> xr.Dataset:
    """Map the contributions of a weighted set of units back to the input.

    ``M_i = Σ_j m_j C_ij`` with ``Σ_i C_ij = C_j``: `InputGrad` ``C_ij = g_j J_ji (x_i − x′_i)``;
    `ActGrad` ``C_ij = g_j(x) (x_i − x′_i) ∫ J_ji dα``; `IntegratedGradients` (input path)
    ``C_ij = (x_i − x′_i) ∫ g_j J_ji dα``. Every unit is included by one vector–Jacobian product
    with cotangent ``g ∘ m`` per path point.

    Parameters
    ----------
    network : torch.nn.Module or Adapter
    inputs : as in `contribute`
        The inputs to map; results are as large as they are, so pass the few that matter.
    layer : str
        The layer whose units are mapped; ``name@2``, say, where a module is called several times.
    target : Target or callable
        A `Surprisal` must be fitted.
    method : Method
        `InputGrad`, `ActGrad` (with no baseline: x′ = 0) or `IntegratedGradients`.
    weights : array-like, optional
        m: one weight per channel ``(channel,)``, per unit (the layer's shape), or a row of a mode
        dictionary, a DataArray (sign, channel): then a unit has the size of the entry of the sign
        of its contribution. All one when left out.
    positive_only : bool
        Only units with ``C_j > 0`` (per input).
    steps : int
        Intervals of the path for `ActGrad`; `IntegratedGradients` has its own.
    batch_size : int
        Inputs at a time.
    device, dtype
        As in `contribute`.

    Returns
    -------
    xr.Dataset
        ``map`` with the dims of the inputs, in the target's unit; ``total`` (sample), Σ_j m_j C_j;
        ``completeness_error`` (sample), sum of the map − total: quadrature error, zero up to
        rounding for `InputGrad`. One ``map_<name>`` each where the network takes several floating
        inputs.

    Raises
    ------
    RetinaCodecError
        If layer, weights, method or inputs do not fit the network.

    References
    ----------
    Melander et al. 2026, CODEC, input-space decomposition and visualisation.
    """
    target = as_target(target)
    if not isinstance(method, InputGrad | ActGrad | IntegratedGradients) or isinstance(
        method, ActNormGrad
    ):
        raise RetinaCodecError(
            "maps are defined for InputGrad(), ActGrad() and IntegratedGradients(); got "
            f"{method!r}."
        )
    if isinstance(method, IntegratedGradients) and (
        method.path != "input" or method.chords or method.tolerance is not None
    ):
        raise RetinaCodecError(
            "a map follows the input path with a fixed number of steps: use IntegratedGradients("
            "steps, quadrature='trapezoid', 'simpson' or 'gauss-legendre')."
        )
    module_name, _, call = layer.rpartition("@")
    adapter = as_adapter(network, [module_name if module_name and call.isdigit() else layer])
    if len(adapter.layers) != 1:
        raise RetinaCodecError(f"a map is of one layer; {layer!r} names {list(adapter.layers)}.")
    here = reference_parameter(adapter.module)
    place = here.device if device is None else open_device(device)
    dtype = dtype or here.dtype
    wide = dtype if dtype in (torch.float32, torch.float64) else torch.float32
    source = open_inputs(adapter, inputs, wide)
    target = target.prepare(cells=adapter.cells)
    pieces: dict[str, list[np.ndarray]] = {}
    with working_network(adapter.module, place, dtype) as module:
        function = HookedFunction(replace(adapter, module=module))
        method = method.prepare(partial(mean_input, function, source, place, dtype))
        for batch in source.batches(batch_size):
            point = function.enter(to_point(batch, place, dtype))
            mapper = _Mapper(function, layer, method, weights, positive_only, steps)
            for key, values in mapper.map(point, bind_at_input(target), target).items():
                if not bool(torch.isfinite(values).all()):
                    raise RetinaCodecError(
                        f"the map of layer {layer!r} is not finite. Look at the inputs and at the "
                        "network's outputs there, or use dtype=torch.float64."
                    )
                pieces.setdefault(key, []).append(at_least_float(values).cpu().numpy())
    found = {key: np.concatenate(parts) for key, parts in pieces.items()}
    return _label(found, source, inputs, method, target, mapper)


@dataclass
class _Mapper:
    """One layer of a function, and which of its units are wanted."""

    function: HookedFunction
    name: str
    method: Method
    weights: Any
    positive_only: bool
    steps: int

    def layer(self, x: Batch) -> Layer:
        """Return what is known of the layer; the first time, that takes a pass over one input."""
        known = self.function.look(x)
        if self.name not in known:
            raise RetinaCodecError(
                f"a map is of one call of a module, one of {list(known)}; got {self.name!r}."
            )
        return known[self.name]

    def map(self, x: Batch, bound: Bound, target: Target) -> dict[str, torch.Tensor]:
        """Return maps, the sums they should have, and what is missing."""
        baseline = getattr(self.method, "baseline", 0.0)
        starts = resolve_baselines(0.0 if baseline is None else baseline, x)
        maps: Any = None
        sums: list[torch.Tensor] = []
        for start in starts:
            begin = lerp(start, x, 0.0)  # token numbers and masks are those of the inputs
            one, total = self._from(x, begin, bound, target)
            maps = one if maps is None else map_tensors(torch.add, maps, one)
            sums.append(total)
        maps = map_tensors(lambda v: v / len(starts), maps)
        found = {"total": torch.stack(sums).mean(0)}
        if isinstance(maps, torch.Tensor):
            found["map"] = maps
        else:
            named: Any = x
            floating = [name for name, values in named.items() if values.is_floating_point()]
            only = len(floating) == 1
            found |= {"map" if only else f"map_{name}": maps[name] for name in floating}
        summed = [v.flatten(1).sum(1) for key, v in found.items() if key.startswith("map")]
        found["completeness_error"] = torch.stack(summed).sum(0) - found["total"]
        return found

    def _from(
        self, x: Batch, begin: Batch, bound: Bound, target: Target
    ) -> tuple[Batch, torch.Tensor]:
        """Return the map from one baseline and Σ_j m_j C_j."""
        change = map_tensors(lambda e, b: e - b if e.is_floating_point() else e, x, begin)
        if isinstance(self.method, InputGrad):
            return self._input_grad(x, change, bound)
        if isinstance(self.method, ActGrad):
            self.layer(x)
            here = self.function(x, bound)
            gradient = here.gradient[self.name]
            start = self.function.activations(begin)[self.name]
            change_of_units = at_least_float(here.activation[self.name]) - start
            contribution = change_of_units * gradient
            units = self._chosen(contribution, x)
            places = rule("trapezoid", self.steps)
            fixed = (gradient * units).to(gradient.dtype)
            cotangent = lambda _: fixed  # noqa: E731  # the same at every point
        else:
            self.layer(x)
            found = self.method.explain(self.function, _Fixed(bound, target), x)
            contribution = found.contribution[self.name]
            units = self._chosen(contribution, x)
            places = rule(self.method.quadrature, self.method.steps)  # type: ignore[attr-defined]
            cotangent = lambda gradient: (gradient * units).to(gradient.dtype)  # noqa: E731
        sums: Any = None
        for node, weight in zip(places.nodes, places.weights, strict=True):
            part = self._pull(lerp(begin, x, node), bound, cotangent, change)
            part = map_tensors(lambda v, w=weight: at_least_float(v) * w, part)
            sums = part if sums is None else map_tensors(torch.add, sums, part)
        return sums, (contribution * units).flatten(1).sum(1)

    def _input_grad(self, x: Batch, change: Batch, bound: Bound) -> tuple[Batch, torch.Tensor]:
        kept: dict[str, torch.Tensor] = {}

        def cotangent(gradient: torch.Tensor) -> torch.Tensor:
            tangent = self.function.tangent(self.name, x, change)
            kept["contribution"] = at_least_float(gradient) * tangent
            kept["units"] = self._chosen(kept["contribution"], x)
            return (gradient * kept["units"]).to(gradient.dtype)

        found = self._pull(x, bound, cotangent, change)
        return found, (kept["contribution"] * kept["units"]).flatten(1).sum(1)

    def _pull(self, point: Batch, bound: Bound, cotangent: Any, change: Batch) -> Batch:
        """Return ``(x − x′) ∘ Jᵀ(cotangent)`` at a point, by one pass forward and one backward."""
        leaf = map_tensors(
            lambda v: v.detach().requires_grad_() if v.is_floating_point() else v, point
        )
        output, seen = self.function.run_from(leaf)
        self.layer(point)  # or there is no such one
        units = seen[self.name]
        value = checked_value(bound, output)
        gradient = None
        if value.requires_grad:
            (gradient,) = torch.autograd.grad(
                value.sum(), units, retain_graph=True, allow_unused=True
            )
        if gradient is None:
            raise RetinaCodecError(
                f"the target does not depend on layer {self.name!r} through differentiable steps."
            )
        del output, value  # the graph above the layer has done its work
        leaves = [v for v in tensors_of(leaf) if v.requires_grad]
        found = torch.autograd.grad(units, leaves, cotangent(gradient), allow_unused=True)
        if all(one is None for one in found):
            raise RetinaCodecError(f"layer {self.name!r} does not depend on the input.")
        by_leaf = {id(leaf): one for leaf, one in zip(leaves, found, strict=True)}

        def times(values: torch.Tensor, way: torch.Tensor) -> torch.Tensor:
            pulled = by_leaf.get(id(values))
            return torch.zeros_like(way) if pulled is None else pulled * way

        pulled_back: Batch = map_tensors(times, leaf, change)
        return pulled_back

    def _chosen(self, contribution: torch.Tensor, x: Batch) -> torch.Tensor:
        """Return m for every unit, ``(b, ...)``."""
        layer = self.layer(x)
        units = _unit_weights(self.weights, contribution, layer, layer.channel_axis)
        return units * (contribution > 0) if self.positive_only else units


@dataclass(frozen=True)
class _Fixed(Target):
    """A target that was bound already."""

    bound: Bound
    origin: Target

    def __call__(self, outputs: torch.Tensor) -> torch.Tensor:
        return self.bound(outputs)

    @property
    def decides(self) -> bool:
        return self.origin.decides


def _unit_weights(
    weights: Any, contribution: torch.Tensor, layer: Layer, axis: int
) -> torch.Tensor:
    """Spread weights of channels, or of signs and channels, over the units."""
    ones = torch.ones_like(contribution)
    if weights is None:
        return ones
    view = [1] * contribution.ndim
    view[axis] = layer.channels
    if isinstance(weights, xr.DataArray) and "sign" in weights.dims:
        if set(weights.dims) != {"sign", "channel"} or weights.sizes["channel"] != layer.channels:
            raise RetinaCodecError(
                f"weights of a mode must be (sign, channel) with {layer.channels} channels; got "
                f"{dict(weights.sizes)}. Select one mode: dictionary.sel(mode=0)."
            )
        by_sign = [_like(np.abs(weights.sel(sign=sign).values), ones).view(view) for sign in SIGNS]
        return torch.where(contribution > 0, by_sign[1], by_sign[0]) * ones
    tensor = _like(weights.values if isinstance(weights, xr.DataArray) else weights, ones)
    if tensor.shape == (layer.channels,):
        return tensor.view(view) * ones
    if tuple(tensor.shape) == layer.shape:
        return tensor * ones
    raise RetinaCodecError(
        f"weights must be one per channel ({layer.channels},), one per unit {layer.shape}, or a "
        f"mode (sign, channel); got {tuple(tensor.shape)}."
    )


def _like(weights: Any, contribution: torch.Tensor) -> torch.Tensor:
    """Return weights in the dtype of contributions, which is changed first: MPS has no float64."""
    if isinstance(weights, torch.Tensor):
        weights = weights.detach().cpu().numpy()
    wide = np.float64 if contribution.dtype == torch.float64 else np.float32
    try:
        values = np.asarray(weights, wide)
    except (TypeError, ValueError):
        values = np.array(np.nan)
    if not np.isfinite(values).all():
        raise RetinaCodecError("weights must be finite numbers, one per channel or per unit.")
    return torch.from_numpy(values.copy()).to(contribution)


def _label(
    found: dict[str, np.ndarray],
    source: Source,
    inputs: Any,
    method: Method,
    target: Target,
    mapper: _Mapper,
) -> xr.Dataset:
    """Put dims and units on maps."""
    layer = mapper.name
    units = {"units": target.units}
    coords: dict[Any, Any] = dict(source.coords)
    data: dict[str, Any] = {}
    for key, values in found.items():
        if not key.startswith("map"):
            data[key] = (source.dim, values, units)
            continue
        dims = _input_dims(inputs, values.ndim, source)
        data[key] = ((source.dim, *dims), values, {**units, "long_name": f"map of {layer}"})
        if isinstance(inputs, xr.DataArray):
            for dim in dims:
                if dim in inputs.coords:
                    coords[dim] = inputs[dim].variable
    attrs = {"layer": layer, "target": target.describe(), **method.describe()}
    attrs["units_mapped"] = "positive" if mapper.positive_only else "all"
    if isinstance(method, ActGrad):
        attrs["steps"] = mapper.steps
    return xr.Dataset(data, coords=coords, attrs=attrs)


def _input_dims(inputs: Any, ndim: int, source: Source) -> Sequence[str]:
    if source.consecutive:
        return ("lag", "y", "x")
    if isinstance(inputs, xr.DataArray):
        dims = [str(dim) for dim in inputs.dims[1:]]
        return ("lag", "y", "x") if set(dims) == {"lag", "y", "x"} else dims
    if ndim == 4:
        return ("color", "y", "x")
    return tuple(f"axis{k}" for k in range(1, ndim))
