"""Decompose the change of a target over paths through successive layers.

Notation: b inputs, x input, x′ baseline, γ(α) path, h^k layer k, F target, i and j groups of units.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr
from torch import Tensor, nn
from torch.autograd import forward_ad

from retina_codec.analysis.circuits.stages import (
    INPUT,
    OUTPUT,
    Groups,
    Opened,
    Stage,
    open_stages,
)
from retina_codec.errors import RetinaCodecError
from retina_codec.methods.baselines import check_baseline, resolve_baselines
from retina_codec.methods.quadrature import rule
from retina_codec.networks.adapter import Adapter
from retina_codec.probing.batches import Batch, batch_length, lerp, map_tensors
from retina_codec.probing.points import Bound, gradients
from retina_codec.progress import progress_bar
from retina_codec.targets.base import Target, bind_at_input

__all__ = ["average_circuit", "circuit"]

Parts = dict[str, Tensor]


def circuit(
    network: nn.Module | Adapter,
    inputs: Any,
    *,
    target: Target | Callable[[Tensor], Tensor],
    layers: Sequence[str] | None = None,
    groups: Groups = None,
    baseline: Any = 0.0,
    steps: int = 20,
    lags: int = 4,
    batch_size: int = 32,
    dtype: torch.dtype | None = None,
    device: str | torch.device | None = None,
    progress: bool | None = None,
) -> xr.DataTree:
    """Compute how much of the target passes through group i of one layer and then j of the next.

    On the straight path ``γ(α) = x′ + α (x − x′)``, with ``ḣ = dh(γ(α))/dα`` and P the units of a
    group: ``C_j = ∫ ∂F/∂h_j ḣ_j dα`` and ``E_ij = ∫ ∂F/∂h_j · ∂h_j/∂h_i · ḣ_i dα``. Every
    derivative is exact at each point of the path, so the sums hold up to rounding at any number
    of steps: ``Σ_i E_ij = C_j`` if the lower layer cuts the network below j, ``Σ_j E_ij = C_i`` if
    the upper layer cuts it above i. What goes round a layer is the remainder of the node.

    Parameters
    ----------
    network : torch.nn.Module or Adapter
        Used in evaluation mode and left as it was.
    inputs : as `contribute` takes them
    target : Target or callable
        F; a `Surprisal` without statistics is fitted to the responses to these inputs.
    layers : sequence of str, optional
        Two or more, from the input to the output; conv1 and conv2 of a `RetinaCNN`, else those of
        the adapter, when left out.
    groups : mapping of str to array (group, channel), optional
        By layer: which share of each channel belongs to each node, such as `mode_shares`; what is
        left is the node "rest". Channels are nodes when left out.
    baseline : number, array or callable
        x′, see `IntegratedGradients`; one.
    steps : int
        Points of the path (Gauss and Legendre's rule). They decide how close the sum over a layer
        comes to F(x) − F(x′), not whether edges sum to nodes.
    lags : int
        Nodes of a retina's stimulus: parts of equal length of the window.
    batch_size : int
        Inputs at a time; bounds the memory.
    dtype : torch.dtype, optional
        The network's own when left out.
    device : str or torch.device, optional
    progress : bool, optional
        See `retina_codec.progress.progress_bar`.

    Returns
    -------
    xr.DataTree
        In the unit of F. Root: ``target_change`` F(x) − F(x′) by time (or sample).
        ``/nodes/<layer>``: ``contribution`` (time, node), ``from_below_remainder`` C_j − Σ_i E_ij
        and ``to_above_remainder`` C_i − Σ_j E_ij (time, node; NaN at the ends of the chain),
        ``completeness_error`` (time) Σ C − target_change. ``/edges/<layer>``: ``contribution``
        (time, source, target) into that layer from the one before it. Layers are also "input"
        (lags, of a retina explained from conv1 on) and "output" (cells or classes). The attribute
        ``cuts`` of a layer is 0 if paths go round it.

    Raises
    ------
    RetinaCodecError
        If fewer than two layers are named, they do not follow each other, groups do not fit.

    References
    ----------
    Dhamdhere et al. 2018 (conductance of a unit); Melander et al. 2026 (contributions).

    Examples
    --------
    >>> from retina_codec.targets.base import Sum
    >>> network = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2), nn.Linear(2, 1))
    >>> found = circuit(network, torch.ones(5, 3), target=Sum(), layers=["0", "1"])
    >>> dict(found["edges/1"].sizes)
    {'sample': 5, 'source': 2, 'target': 2}
    """
    check_baseline(baseline)
    places = rule("gauss-legendre", steps)
    with open_stages(
        network, inputs, target, layers, groups,
        lags=lags, dtype=dtype, device=device, batch_size=batch_size,
    ) as opened:  # fmt: skip
        found: list[dict[str, npt.NDArray[np.float64]]] = []
        shown = progress_bar(
            opened.batches(batch_size),
            description="circuit",
            total=-(-len(opened.source) // batch_size),
            progress=progress,
        )
        for batch in shown:
            begins = resolve_baselines(baseline, batch)
            if len(begins) != 1:
                raise RetinaCodecError(
                    f"a circuit has one baseline; got {len(begins)}. Average circuits of each."
                )
            parts = _integrate(opened, batch, _each(begins[0], batch_length(batch)), places)
            found.append({key: values.cpu().double().numpy() for key, values in parts.items()})
        joined = {key: np.concatenate([one[key] for one in found]) for key in found[0]}
        return _labelled(opened, joined, steps)


def _each(begin: Batch, count: int) -> Batch:
    """Give every input the baseline that they share."""
    if batch_length(begin) == count:
        return begin
    each: Batch = map_tensors(lambda x: x.expand(count, *x.shape[1:]).clone(), begin)
    return each


def _integrate(opened: Opened, inputs: Batch, baseline: Batch, places: Any) -> Parts:
    """Return nodes and edges of a batch."""
    function = opened.function
    with torch.no_grad():
        end, begin = opened.start(inputs), opened.start(baseline)
    direction = map_tensors(lambda e, b: e - b if e.is_floating_point() else e, end, begin)
    bound = bind_at_input(opened.target)
    with torch.no_grad():
        value = bound(function.outputs(end))
        total: Parts = {"change": value - bound(function.outputs(begin))}
    lowest = torch.zeros(())
    for node, weight in zip(places.nodes, places.weights, strict=True):
        here, first = _at_point(opened, lerp(begin, end, node), direction, bound)
        for key, values in here.items():
            total[key] = total.get(key, 0) + weight * values
        lowest = lowest + weight * first
    if opened.stages[0].name == INPUT:
        total |= _from_input(opened, inputs, baseline, lowest)
    return total


def _at_point(opened: Opened, point: Batch, direction: Batch, bound: Bound) -> tuple[Parts, Tensor]:
    """Return nodes and edges at one point, and the gradient at the lowest layer."""
    function = opened.function
    tangents: list[Tensor | None] = []

    def watching(outputs: Tensor) -> Tensor:
        unpacked: Any = forward_ad.unpack_dual(outputs)  # type: ignore[no-untyped-call]
        tangents.append(unpacked.tangent)
        return bound(outputs)

    along = function.along(point, direction, watching)
    moved = map_tensors(
        lambda x: x.detach().requires_grad_() if x.is_floating_point() else x, point
    )
    outputs, seen = function.run_from(moved)
    values, ways = dict(seen), dict(along.tangent)
    slopes = dict(along.gradient)
    chain = [stage for stage in opened.stages if stage.name != INPUT]
    if chain[-1].name == OUTPUT:
        (pull,) = torch.autograd.grad(bound(outputs).sum(), outputs, retain_graph=True)
        last = next((one for one in reversed(tangents) if one is not None), None)
        values[OUTPUT], slopes[OUTPUT] = outputs, pull
        ways[OUTPUT] = torch.zeros_like(outputs) if last is None else last.detach()
    found: Parts = {}
    for stage in chain:
        found[f"node {stage.name}"] = stage.sum_up(slopes[stage.name] * ways[stage.name])
    for below, above in pairwise(chain):
        edges = _pull_back(below, above, values, slopes[above.name], ways[below.name])
        found[f"edge {above.name}"] = edges
    return {key: part.detach() for key, part in found.items()}, slopes[chain[0].name]


def _pull_back(below: Stage, above: Stage, values: Parts, slope: Tensor, way: Tensor) -> Tensor:
    """Return ``∂F/∂h_j · ∂h_j/∂h_i · ḣ_i``, (b, i, j): one backward pass for each group j."""
    columns = []
    for share in above.weights(slope.ndim):
        back = gradients(values[above.name], [values[below.name]], slope * share, keep=True)[0]
        if back is None:
            raise RetinaCodecError(
                "the layers of a circuit must follow each other from the input to the output; "
                f"{above.name!r} does not depend on {below.name!r}. Give them in the order in "
                "which the network calls them."
            )
        columns.append(below.sum_up(back * way))
    return torch.stack(columns, 2)


def _from_input(opened: Opened, inputs: Any, baseline: Any, mean: Tensor) -> Parts:
    """Return edges from the stimulus into the affine first layer: one pass for the whole path."""
    lags, first = opened.stages[:2]
    with torch.enable_grad():
        moved = inputs.detach().requires_grad_()
        values = opened.start(moved)
        columns = []
        for share in first.weights(mean.ndim):
            (back,) = torch.autograd.grad(values, moved, mean * share, retain_graph=True)
            columns.append(lags.sum_up(back * (inputs - baseline)))
    edges = torch.stack(columns, 2)
    return {f"node {lags.name}": edges.sum(2), f"edge {first.name}": edges}


def _labelled(opened: Opened, parts: dict[str, npt.NDArray[np.float64]], steps: int) -> xr.DataTree:
    """Return the tree of nodes and edges with remainders."""
    dim, change = opened.source.dim, parts["change"]
    note = {"units": opened.target.units_for(opened.output_units)}
    labels = {dim: opened.source.coords[dim]} if dim in opened.source.coords else {}
    tree: dict[str, xr.Dataset] = {
        "/": xr.Dataset(
            {"target_change": (dim, change, note | {"long_name": "F(x) - F(baseline)"})},
            labels,
            {
                "target": opened.target.describe(),
                "layers": [stage.name for stage in opened.stages],
                "steps": steps,
                "dtype": str(opened.dtype).removeprefix("torch."),
            },
        )
    }
    for place, stage in enumerate(opened.stages):
        own = parts[f"node {stage.name}"]
        nothing = np.full_like(own, np.nan)
        into, out = nothing, nothing
        if place > 0:
            edges = parts[f"edge {stage.name}"]
            into = own - edges.sum(1)
            below = opened.stages[place - 1]
            tree[f"/edges/{stage.name}"] = xr.Dataset(
                {"contribution": ((dim, "source", "target"), edges, note)},
                {"source": list(below.nodes), "target": list(stage.nodes)},
                {"from": below.name, "to": stage.name},
            )
        if place + 1 < len(opened.stages):
            out = own - parts[f"edge {opened.stages[place + 1].name}"].sum(2)
        tree[f"/nodes/{stage.name}"] = xr.Dataset(
            {
                "contribution": ((dim, "node"), own, note),
                "from_below_remainder": ((dim, "node"), into, note),
                "to_above_remainder": ((dim, "node"), out, note),
                "completeness_error": (dim, own.sum(1) - change, note),
            },
            {"node": list(stage.nodes)},
            {"cuts": int(stage.cuts)},
        )
    return xr.DataTree.from_dict(tree)


def average_circuit(found: xr.DataTree, active: Any = None) -> xr.DataTree:
    """Average a circuit over times, such as the events of a mode.

    Parameters
    ----------
    found : xr.DataTree
        From `circuit`.
    active : array of bool (time,), optional
        Which times (or samples) count; all when left out.

    Returns
    -------
    xr.DataTree
        The same variables without time; the attribute ``inputs`` counts what was averaged.

    Raises
    ------
    RetinaCodecError
        If ``active`` has another length, or nothing is active: a mode without events.
    """
    dim = str(found["target_change"].dims[0])
    count = found.sizes[dim]
    chosen = np.ones(count, bool) if active is None else np.asarray(active, dtype=bool)
    if chosen.shape != (count,):
        raise RetinaCodecError(
            f"active must say for each of {count} inputs whether it counts; got {chosen.shape}."
        )
    if not chosen.any():
        raise RetinaCodecError(
            "a mean circuit needs at least one active time; there is none. Choose a mode with "
            "events, or more inputs."
        )
    means = {}
    for node in found.subtree:
        own = node.to_dataset(inherit=False)
        means[node.path] = (
            own.isel({dim: chosen}).mean(dim, keep_attrs=True) if dim in own.dims else own
        )
    means["/"].attrs = found.attrs | {"inputs": int(chosen.sum())}
    return xr.DataTree.from_dict(means)
