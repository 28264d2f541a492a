"""Cut every edge and node of a circuit in the network and compare the change with its share.

Notation: b inputs, h layer, h⁰ what it is held at, i lower and j upper group, P shares, F target.
"""

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr
from torch import Tensor, nn

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
from retina_codec.networks.adapter import Adapter
from retina_codec.probing.batches import Batch, batch_length
from retina_codec.probing.from_layer import FromLayer, Kept
from retina_codec.progress import progress_bar
from retina_codec.targets.base import Target

__all__ = ["check_circuit", "compare_edges"]

Floats = npt.NDArray[np.float64]
Parts = dict[str, Tensor]
Reference = Literal["baseline", "mean"]
FEWEST = 3  # numbers that a regression takes
SMALLEST = 1e-9  # of the largest change: below, a change has no sign


def check_circuit(
    network: nn.Module | Adapter,
    inputs: Any,
    found: xr.DataTree,
    *,
    target: Target | Callable[[Tensor], Tensor],
    groups: Groups = None,
    baseline: Any = 0.0,
    held_at: Reference = "baseline",
    permutations: int = 999,
    batch_size: int = 32,
    device: str | torch.device | None = None,
    progress: bool | None = None,
    seed: int = 0,
) -> xr.DataTree:
    """Cut every edge and every node of a circuit, and measure what F loses.

    Node i: ``F(h) − F(h − P_i (h − h⁰))``. Edge i to j: the upper layer is computed from a lower
    one whose group i is held at h⁰, and only group j takes what comes of it: ``F(h^u) − F(h^u +
    P_j (h^u(h^l − P_i (h^l − h⁰)) − h^u))``. Nothing is approximated; units outside the edge stay.

    Parameters
    ----------
    network, inputs, target, groups, baseline
        As for `circuit`, the same that ``found`` was computed with.
    found : xr.DataTree
        From `circuit`; layers, dtype and lags are read from it.
    held_at : {"baseline", "mean"}
        h⁰: the layer's answer to the baseline, or its mean over these inputs. The stimulus is
        always held at the baseline.
    permutations : int
        Circuits with edges dealt anew: the shares of F of all edges of a layer in random order,
        the same order for all inputs.
    batch_size : int
        Inputs at a time.
    device : str or torch.device, optional
    progress : bool, optional
        See `retina_codec.progress.progress_bar`.
    seed : int
        Of the permutations.

    Returns
    -------
    xr.DataTree
        ``/edges/<layer>`` and ``/nodes/<layer>``: ``change`` (time, source, target) or (time,
        node), in the unit of F, and of `compare_edges` over all inputs and over their mean (names
        that end in ``_mean``).

    Raises
    ------
    RetinaCodecError
        If the circuit is not one of these inputs, groups and layers.
    """
    check_baseline(baseline)
    if held_at not in ("baseline", "mean"):
        raise RetinaCodecError(f"held_at must be 'baseline' or 'mean'; got {held_at!r}.")
    names = [name for name in found["nodes"].children if name not in (INPUT, OUTPUT)]
    lags = found["nodes/input"].sizes["node"] if INPUT in found["nodes"].children else 1
    kind = getattr(torch, str(found.attrs["dtype"]))
    with open_stages(
        network, inputs, target, names, groups,
        lags=lags, dtype=kind, device=device, batch_size=batch_size,
    ) as opened:  # fmt: skip
        _check_same(opened, found)
        mean = _means(opened, batch_size) if held_at == "mean" else None
        parts: list[dict[str, Floats]] = []
        shown = progress_bar(
            opened.batches(batch_size),
            description="cutting edges",
            total=-(-len(opened.source) // batch_size),
            progress=progress,
        )
        for batch in shown:
            begin = resolve_baselines(baseline, batch)[0]
            cuts = _Cuts(opened, batch, begin, mean)
            parts.append({k: v.cpu().double().numpy() for k, v in cuts.changes()})
    changes = {key: np.concatenate([one[key] for one in parts]) for key in parts[0]}
    return _labelled(found, changes, permutations, seed, held_at)


def _check_same(opened: Opened, found: xr.DataTree) -> None:
    expected = {stage.name: list(stage.nodes) for stage in opened.stages}
    came = {
        str(name): [str(one) for one in node.to_dataset()["node"].values]
        for name, node in found["nodes"].children.items()
    }
    count = found["target_change"].size
    if expected != came or len(opened.source) != count:
        raise RetinaCodecError(
            f"the circuit must be one of these inputs and groups, {len(opened.source)} inputs and "
            f"nodes { ({k: len(v) for k, v in expected.items()}) }; got {count} and "
            f"{ ({k: len(v) for k, v in came.items()}) }. Give what circuit() was given."
        )


def _means(opened: Opened, size: int) -> Parts:
    """Return the mean of every layer over inputs, (1, ...)."""
    total: Parts = {}
    for batch in opened.batches(size):
        for name, values in opened.function.activations(opened.start(batch)).items():
            total[name] = total.get(name, 0) + values.sum(0, keepdim=True)
    return {name: values / len(opened.source) for name, values in total.items()}


class _Cuts:
    """Runs of the network with parts of it held, for one batch."""

    def __init__(self, opened: Opened, inputs: Batch, baseline: Batch, mean: Parts | None) -> None:
        self.opened, self.inputs, self.baseline = opened, inputs, baseline
        function = opened.function
        with torch.no_grad():
            self.point = opened.start(inputs)
            self.held = mean or function.activations(opened.start(baseline))
            self.output = function.outputs(self.point)
        self.plain = function.activations(self.point)
        self.bound = opened.target.bind(self.output)
        self.value = self.bound(self.output)
        self.kept: dict[str, tuple[FromLayer, Kept]] = {}

    def changes(self) -> Iterator[tuple[str, Tensor]]:
        """Yield what F loses by every node (b, i) and edge (b, i, j)."""
        stages = self.opened.stages
        with torch.no_grad():
            for below, above in pairwise(stages):
                nodes, edges = [], []
                for number in range(len(below.nodes)):
                    outputs, upper = self._cut(below, number, above)
                    nodes.append(self.value - self.bound(outputs))
                    edges.append(self._received(above, upper))
                yield f"node {below.name}", torch.stack(nodes, 1)
                yield f"edge {above.name}", torch.stack(edges, 1)
            last = stages[-1]
            if last.name != OUTPUT:
                nodes = [self.value - self.bound(self._cut(last, n, None)[0])
                         for n in range(len(last.nodes))]  # fmt: skip
                yield f"node {last.name}", torch.stack(nodes, 1)

    def _cut(self, stage: Stage, number: int, above: Stage | None) -> tuple[Tensor, Tensor]:
        """Hold one node; return the output and the stage above it."""
        function, point = self.opened.function, self.point
        kept: list[Tensor] = []
        share = None if stage.name == INPUT else stage.weights(self.plain[stage.name].ndim)[number]
        if share is None:
            inputs: Any = self.inputs
            part = stage.weights(inputs.ndim)[number]
            point = self.opened.start(inputs - part * (inputs - self.baseline))

        def see(name: str, values: Tensor) -> Tensor | None:
            if share is not None and name == stage.name:
                return values - share * (values - self.held[name])
            if above is not None and name == above.name:
                kept.append(values.clone())
            return None

        with function.watched(see):
            outputs = function.network.call(point)
        return outputs, kept[0] if kept else outputs

    def _received(self, above: Stage, upper: Tensor) -> Tensor:
        """Return what F loses if one group of the upper stage after the other takes the change."""
        if above.name == OUTPUT:
            each = [
                self.value - self.bound(self.output + share * (upper - self.output))
                for share in above.weights(2)
            ]
            return torch.stack(each, 1)
        if above.name not in self.kept:
            runner = FromLayer(self.opened.function, above.name)
            self.kept[above.name] = runner, runner.keep(self.point)
        runner, kept = self.kept[above.name]
        shares = above.weights(upper.ndim)
        rows = max(1, 1024 // batch_length(self.inputs))
        found = []
        for first in range(0, len(shares), rows):
            some = shares[first : first + rows]

            def change(values: Tensor, some: Tensor = some) -> Tensor:
                apart = values.reshape(len(some), -1, *values.shape[1:])
                return (apart + some * (upper - apart)).flatten(0, 1)

            outputs = runner.run(kept, change, len(some))
            for part in outputs.reshape(len(some), -1, *outputs.shape[1:]):
                found.append(self.value - self.bound(part))
        return torch.stack(found, 1)


def compare_edges(
    share: npt.ArrayLike, change: npt.ArrayLike, *, permutations: int = 999, seed: int = 0
) -> dict[str, float]:
    """Compare shares of F with true changes over inputs and edges, against edges dealt anew.

    Parameters
    ----------
    share, change : array (input, edge)
        In the unit of F.
    permutations : int
        Random orders of the edges, the same for all inputs.
    seed : int

    Returns
    -------
    dict
        ``slope`` of the change on the share through 0; ``r2``, the squared correlation;
        ``r2_equal`` = 1 − Σ (change − share)² / Σ change², for the share as it is; ``sign``, the
        part of changes other than 0 that have the sign of their share; ``r2_null`` and
        ``sign_null``, means over permutations; ``r2_p`` and ``sign_p`` = (1 + #{null ≥ found}) /
        (1 + permutations); ``edges``, how many there are. NaN with one edge (nothing can be
        dealt), or without variance.

    Raises
    ------
    RetinaCodecError
        If the arrays differ in shape or are empty.
    """
    a, b = np.atleast_2d(np.asarray(share, float)), np.atleast_2d(np.asarray(change, float))
    if a.shape != b.shape or not a.size:
        raise RetinaCodecError(
            f"shares and changes must be (input, edge) of one shape; got {a.shape} and {b.shape}."
        )
    slope, r2, sign = _likeness(a, b)
    total = np.square(b).sum()
    found = {
        "slope": slope,
        "r2": r2,
        "r2_equal": 1 - float(np.square(b - a).sum() / total) if total > 0 else np.nan,
        "sign": sign,
        "edges": float(a.shape[1]),
    }
    random = np.random.default_rng(seed)
    dealt = [_likeness(a[:, random.permutation(a.shape[1])], b) for _ in range(permutations)]
    for place, (name, own) in enumerate((("r2", r2), ("sign", sign)), start=1):
        null = np.array([one[place] for one in dealt])
        known = a.shape[1] > 1 and len(null) > 0 and np.isfinite(own)
        reached = 1 + (null >= own - 1e-12).sum()
        found[f"{name}_null"] = float(null.mean()) if known else np.nan
        found[f"{name}_p"] = float(reached / (1 + len(null))) if known else np.nan
    return found


def _likeness(share: Floats, change: Floats) -> tuple[float, float, float]:
    """Return slope through 0, squared correlation and part of right signs."""
    a, b = share.ravel(), change.ravel()
    power = float(a @ a)
    slope = float(a @ b) / power if power > 0 else np.nan
    x, y = a - a.mean(), b - b.mean()
    scale = float((x @ x) * (y @ y))
    r2 = float(x @ y) ** 2 / scale if scale > 0 and len(a) >= FEWEST else np.nan
    signed = np.abs(b) > SMALLEST * np.abs(b).max()
    right = np.sign(a[signed]) == np.sign(b[signed])
    return slope, r2, float(right.mean()) if len(right) else np.nan


WORDS = {
    "slope": "slope of changes on shares through 0",
    "r2": "squared correlation of shares and changes",
    "r2_equal": "variance of changes about 0 that shares explain as they are",
    "sign": "part of changes that have the sign of their share",
    "r2_null": "mean of r2 with edges dealt anew",
    "sign_null": "mean of sign with edges dealt anew",
    "r2_p": "part of edges dealt anew that reach r2",
    "sign_p": "part of edges dealt anew that reach sign",
    "edges": "number of edges or nodes",
}


def _labelled(
    found: xr.DataTree, changes: dict[str, Floats], permutations: int, seed: int, held_at: str
) -> xr.DataTree:
    tree = {"/": xr.Dataset(attrs=dict(found.attrs) | {"held_at": held_at, "seed": seed})}
    for key, change in changes.items():
        kind, name = key.split(" ", 1)
        path = f"{kind}s/{name}"
        share = found[path].to_dataset()["contribution"]
        own = share.copy(data=change).rename("change")
        own.attrs = {"units": share.attrs["units"], "long_name": "what F loses when it is cut"}
        table = own.drop_vars(str(share.dims[0]), errors="ignore").to_dataset()
        flat, true = share.values.reshape(len(change), -1), change.reshape(len(change), -1)
        for suffix, a, b in (("", flat, true), ("_mean", flat.mean(0), true.mean(0))):
            scores = compare_edges(a, b, permutations=permutations, seed=seed)
            for score, value in scores.items():
                table[score + suffix] = ((), value, {"units": "1", "long_name": WORDS[score]})
        tree[f"/{path}"] = table
    return xr.DataTree.from_dict(tree)
