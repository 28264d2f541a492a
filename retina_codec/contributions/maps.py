"""Maps in input space: which part of an input a weighted set of hidden units used.

One backward pass per point of the path gives the map of all units together.

Notation: b inputs, x input, x′ baseline, h units of a layer, g = ∂F/∂h, J = ∂h/∂x, m weights.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import nn

from retina_codec.contributions.runner import first_input, mean_input
from retina_codec.errors import RetinaCodecError
from retina_codec.methods.base import (
    InputPath,
    Method,
    UnitContributions,
    at_least_float,
    units_of,
)
from retina_codec.methods.baselines import names_inputs, resolve_baselines
from retina_codec.networks.adapter import Adapter, as_adapter
from retina_codec.networks.borrowed import borrow, open_device, reference_parameter
from retina_codec.probing.batches import Batch, lerp, map_tensors, tensors_of, to_point
from retina_codec.probing.checks import check_network
from retina_codec.probing.hooks import HookedFunction
from retina_codec.probing.inputs import Source, open_inputs
from retina_codec.probing.points import Bound, checked_value, gradients
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
    ``C_ij = (x_i − x′_i) ∫ g_j J_ji dα``. One vector–Jacobian product with cotangent ``g ∘ m`` per
    point of the path includes every unit. C_j and C_ij are means over the baselines.

    Parameters
    ----------
    network : torch.nn.Module or Adapter
    inputs : as in `contribute`
        The inputs to map; every map is as large as its input.
    layer : str
        The layer whose units are mapped; ``name@2``, say, where a module is called several times.
    target : Target or callable
        A `Surprisal` must be fitted.
    method : Method
        `InputGrad`, `ActGrad` or `IntegratedGradients`, or your own with `Method.input_path`.
        Where its baseline is None, x′ is that of "auto".
    weights : array-like, optional
        m: one weight per channel ``(channel,)``, per unit (the layer's shape), or a row of a mode
        dictionary, a DataArray (sign, channel): then a unit has the size of the entry of the sign
        of its contribution. All one when left out.
    positive_only : bool
        Only units with ``C_j > 0`` (per input).
    steps : int
        Intervals of the path, for a method that has none of its own (`ActGrad`).
    batch_size : int
        Inputs at a time.
    device, dtype
        As in `contribute`.

    Returns
    -------
    xr.Dataset
        ``map`` with the dims of the inputs, in the unit of the contributions; ``total`` (sample),
        Σ_j m_j C_j; ``completeness_error`` (sample), sum of the map − total: quadrature error,
        zero up to rounding for `InputGrad`. One ``map_<name>`` each where the network takes
        several floating inputs.

    Raises
    ------
    RetinaCodecError
        If layer, weights, method or inputs do not fit the network.

    References
    ----------
    Melander et al. 2026, CODEC, input-space decomposition and visualisation.
    """
    target = as_target(target)
    path = method.input_path(steps) if isinstance(method, Method) else None
    if path is None:
        raise RetinaCodecError(
            "maps are defined for methods with an input path, such as InputGrad(), ActGrad() and "
            f"IntegratedGradients(); got {method!r}. Use one of these."
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
    with borrow(adapter.module, place, dtype) as module:
        first = to_point(first_input(source), place, dtype)
        function = HookedFunction.open(replace(adapter, module=module), first)
        if layer not in function.survey:
            raise RetinaCodecError(
                f"a map is of one call of a module, one of {list(function.survey)}; got {layer!r}."
            )
        together, baseline = min(batch_size, len(source)), getattr(method, "baseline", 0.0)
        check_network(
            function, source, place, dtype, batch_size=together, classes=target.classes,
            follows_path=baseline is None or not names_inputs(baseline),
        )  # fmt: skip
        method = method.settle(function.entry)
        described = method.describe()
        if getattr(method, "baseline", "") is None:
            method = replace(method, baseline="auto")  # type: ignore[type-var]  # a dataclass
        mean = partial(mean_input, function, source, place, dtype)
        method = method.prepare(mean, function)
        mapper = _Mapper(function, layer, method, path, weights, positive_only)
        for batch in source.batches(batch_size):
            point = function.enter(to_point(batch, place, dtype))
            for key, values in mapper.map(point, target).items():
                if not bool(torch.isfinite(values).all()):
                    raise RetinaCodecError(
                        f"the map of layer {layer!r} is not finite. Look at the inputs and at the "
                        "network's outputs there, or use another baseline (norms of zeros have no "
                        "finite gradient) or dtype=torch.float64."
                    )
                pieces.setdefault(key, []).append(at_least_float(values).cpu().numpy())
    found = {key: _joined(parts, key) for key, parts in pieces.items()}
    attrs = {"layer": layer, "target": target.describe(), **described}
    if len(path.rule.nodes) > 1:
        attrs.setdefault("steps", steps)
    attrs["units_mapped"] = "positive" if positive_only else "all"
    return _label(found, source, inputs, units_of(method, target, adapter.output_units), attrs)


def _joined(parts: list[np.ndarray], what: str) -> np.ndarray:
    """Join batches along the inputs."""
    shapes = sorted({part.shape[1:] for part in parts})
    if len(shapes) > 1:
        raise RetinaCodecError(
            f"all inputs must have the same shape, so that their maps stand in one array; {what!r} "
            f"has {shapes[0]} and {shapes[1]}. Pad all inputs to one length."
        )
    return np.concatenate(parts)


@dataclass
class _Mapper:
    """One layer of a function, and the weights of its units."""

    function: HookedFunction
    name: str
    method: Method
    path: InputPath
    weights: Any
    positive_only: bool

    def map(self, x: Batch, target: Target) -> dict[str, torch.Tensor]:
        """Return maps, Σ_j m_j C_j and the difference between their sums."""
        method = self.method
        # token numbers and masks are those of the inputs
        begins = [
            lerp(start, x, 0.0) for start in resolve_baselines(getattr(method, "baseline", 0.0), x)
        ]
        if self.path.rule.nodes == (1.0,):
            maps, total = self._at_input(x, begins, bind_at_input(target))
        else:
            maps, total = self._along_path(x, begins, method, target)
        found = {"total": total}
        if isinstance(maps, torch.Tensor):
            found["map"] = maps
        else:
            named: Any = x
            floating = [name for name, values in named.items() if values.is_floating_point()]
            only = len(floating) == 1
            found |= {"map" if only else f"map_{name}": maps[name] for name in floating}
        summed = [v.flatten(1).sum(1) for key, v in found.items() if key.startswith("map")]
        found["completeness_error"] = torch.stack(summed).sum(0) - total
        return found

    def _at_input(self, x: Batch, begins: list[Batch], bound: Bound) -> tuple[Batch, torch.Tensor]:
        """Map at x alone, where ``C_j = g_j Σ_i J_ji (x_i − x′_i)`` is linear in x′."""
        change = map_tensors(
            lambda e, *b: e - sum(b) / len(b) if e.is_floating_point() else e, x, *begins
        )
        kept: dict[str, torch.Tensor] = {}
        tangent = self.function.tangent(self.name, x, change)

        def cotangent(gradient: torch.Tensor) -> torch.Tensor:
            contribution = at_least_float(gradient) * tangent
            units = self._unit_weights(contribution)
            kept["total"] = (contribution * units).flatten(1).sum(1)
            return (gradient * units).to(gradient.dtype)

        return self._pull(x, bound, cotangent, change), kept["total"]

    def _along_path(
        self, x: Batch, begins: list[Batch], method: Method, target: Target
    ) -> tuple[Batch, torch.Tensor]:
        """Map along the paths from every baseline; C_j is what the method says."""
        found = method.explain(self.function, target, x)
        contribution, bound = found.contribution[self.name], target.bind(found.output)
        units = self._unit_weights(contribution)
        at_x: torch.Tensor | None = None
        if self.path.gradient_at_input:
            at_x = self.function(x, bound).gradient[self.name]

        def cotangent(gradient: torch.Tensor) -> torch.Tensor:
            return ((gradient if at_x is None else at_x) * units).to(gradient.dtype)

        sums: Any = None
        for number, begin in enumerate(begins):
            change = map_tensors(lambda e, b: e - b if e.is_floating_point() else e, x, begin)
            for node, weight in self._nodes(found, number):
                part = self._pull(lerp(begin, x, node), bound, cotangent, change)
                part = map_tensors(partial(_weighted, weight / len(begins)), part)
                sums = part if sums is None else map_tensors(torch.add, sums, part)
        return sums, (contribution * units).flatten(1).sum(1)

    def _nodes(self, found: UnitContributions, baseline: int) -> Iterator[tuple[Any, Any]]:
        """Yield nodes and weights of the path from a baseline, numbers or one for every input."""
        if not self.path.own_points:
            yield from zip(self.path.rule.nodes, self.path.rule.weights, strict=True)
            return
        nodes = found.places[baseline]
        steps = nodes.diff(dim=1) / 2
        weights = nn.functional.pad(steps, (0, 1)) + nn.functional.pad(steps, (1, 0))
        yield from zip(nodes.T, weights.T, strict=True)

    def _pull(self, point: Batch, bound: Bound, cotangent: Any, change: Batch) -> Batch:
        """Return ``(x − x′) ∘ Jᵀ(cotangent)`` at a point, by one pass forward and one backward."""
        leaf = map_tensors(
            lambda v: v.detach().requires_grad_() if v.is_floating_point() else v, point
        )
        output, seen = self.function.run_from(leaf)
        units = seen[self.name]
        value = checked_value(bound, output)
        gradient = None
        if value.requires_grad:
            (gradient,) = gradients(value.sum(), [units], keep=True)
        if gradient is None:
            raise RetinaCodecError(
                f"the target does not depend on layer {self.name!r} through differentiable steps."
            )
        del output, value  # frees the graph above the layer
        leaves = [v for v in tensors_of(leaf) if v.requires_grad]
        found = gradients(units, leaves, cotangent(gradient))
        if all(one is None for one in found):
            raise RetinaCodecError(f"layer {self.name!r} does not depend on the input.")
        by_leaf = {id(leaf): one for leaf, one in zip(leaves, found, strict=True)}

        def times(values: torch.Tensor, way: torch.Tensor) -> torch.Tensor:
            pulled = by_leaf.get(id(values))
            return torch.zeros_like(way) if pulled is None else pulled * way

        pulled_back: Batch = map_tensors(times, leaf, change)
        return pulled_back

    def _unit_weights(self, contribution: torch.Tensor) -> torch.Tensor:
        """Return m for every unit, ``(b, ...)``."""
        units = _spread(self.weights, contribution, self.function.survey[self.name])
        return units * (contribution > 0) if self.positive_only else units


def _weighted(weight: float | torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Return values times one weight, or times one of each input."""
    values = at_least_float(values)
    if isinstance(weight, torch.Tensor):
        weight = weight.to(values.dtype).view(-1, *[1] * (values.ndim - 1))
    return values * weight


def _spread(weights: Any, contribution: torch.Tensor, layer: Layer) -> torch.Tensor:
    """Spread weights of channels, or of signs and channels, over the units."""
    ones = torch.ones_like(contribution)
    if weights is None:
        return ones
    view = [1] * contribution.ndim
    view[layer.channel_axis] = layer.channels
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
    found: dict[str, np.ndarray], source: Source, inputs: Any, units: str, attrs: dict[str, Any]
) -> xr.Dataset:
    """Put dims and units on maps."""
    coords: dict[Any, Any] = dict(source.coords)
    data: dict[str, Any] = {}
    for key, values in found.items():
        if not key.startswith("map"):
            data[key] = (source.dim, values, {"units": units})
            continue
        dims = _input_dims(inputs, values.ndim, source)
        about = {"units": units, "long_name": f"map of {attrs['layer']}"}
        data[key] = ((source.dim, *dims), values, about)
        if isinstance(inputs, xr.DataArray):
            for dim in dims:
                if dim in inputs.coords:
                    coords[dim] = inputs[dim].variable
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
