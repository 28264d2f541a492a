"""Describe each cell by contributions to its own rate, in the modes of the population.

Notation: w windows, m modes, D (m, feature) dictionary, C_c (w, feature) contributions to the rate
of cell c.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr
from torch import nn

from retina_codec.errors import RetinaCodecError
from retina_codec.progress import progress_bar
from retina_codec.storage.results import layers_of

__all__ = ["choose_windows", "own_contributions"]

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


def own_contributions(
    network: nn.Module,
    inputs: xr.Dataset | xr.DataTree,
    tree: xr.DataTree,
    *,
    layers: Sequence[str] | None = None,
    windows: int = 600,
    steps: int = 6,
    seed: int = 0,
    device: str | torch.device | None = None,
    progress: bool | None = None,
) -> xr.DataTree:
    """Describe every cell by the modes that drive its own rate.

    C_c ≈ z_c D with z_c >= 0, least squares window by window: contributions to the rate of cell c
    (target `Unit`) in the modes of the layer. share[c, m] = Σ_w z_c[w, m] / Σ_w,m z_c[w, m].

    Parameters
    ----------
    network : torch.nn.Module
        The explained network.
    inputs : split of a recording
        The explained one.
    tree : xr.DataTree
        Results of `decompose`.
    layers : sequence of str, optional
        Those with modes when left out.
    windows : int
        Times at which cells are described, spread evenly over the activity, see `choose_windows`.
    steps : int
        Chords of the path integral (`IntegratedGradients`), at each window's own points.
    seed : int
        Of the choice of times.
    device : str or torch.device, optional
        Where to compute; where the network lies when left out.
    progress : bool, optional
        None shows a bar after 2 s, False never, True at once.

    Returns
    -------
    xr.DataTree
        A copy with ``/layers/<name>/own``: ``own_loading`` (cell, window, mode) in Hz; ``share``
        (cell, mode), dimensionless, each cell sums to 1, NaN for a cell that no mode drives;
        ``r2`` (cell), 1 − Σ(C − zD)² / Σ(C − mean C)², the share of its own contributions
        that the modes explain; ``window_time`` (window) in s.

    Raises
    ------
    RetinaCodecError
        If there are no modes, or ``inputs`` is not what the tree explains.

    Notes
    -----
    One pass per cell over the chosen windows, which are held in memory: about 80 s of CPU time for
    16 cells and 600 windows of 40 × 50 × 50.

    References
    ----------
    Lawson, Hanson 1974, non-negative least squares. The published analysis uses correlations
    with rates only.
    """
    from retina_codec.contributions.contribute import contribute
    from retina_codec.methods.integrated_gradients import IntegratedGradients
    from retina_codec.targets.base import Unit

    chosen = layers_of(tree, layers, part="modes")
    if windows < 1:
        raise RetinaCodecError(f"windows must be at least 1; got {windows=}. 600 is usual.")
    prediction = tree["responses"].to_dataset()["prediction"].transpose("time", "cell")
    picked = choose_windows(prediction.values.astype(np.float64), windows, seed=seed)
    ready = _windows_at(network, inputs, prediction["time"].values, picked)
    cells = prediction["cell"].values
    parts: dict[str, list[Floats]] = {name: [] for name in chosen}
    method = IntegratedGradients(steps=steps, quadrature="chords", baseline=0.0)
    for cell in progress_bar(cells.tolist(), description="own contributions", progress=progress):
        explained = contribute(
            network,
            ready,
            target=Unit(cell),
            method=method,
            layers=chosen,
            device=device,
            progress=False,
        )
        for name in chosen:
            values = explained[f"layers/{name}"].to_dataset()["contribution"]
            parts[name].append(values.transpose("time", "sign", "channel").values)
    result = tree.copy()
    attrs = method.describe() | {"target": "Unit", "seed": seed}
    for name in chosen:
        modes = tree[f"layers/{name}/modes"].to_dataset()
        own = np.stack(parts[name]).astype(np.float64)
        found = _in_modes(own, modes["dictionary"], prediction["cell"], ready["time"].values)
        result[f"layers/{name}/own"] = xr.DataTree(found.assign_attrs(attrs))
    return result


def _windows_at(
    network: nn.Module, inputs: xr.Dataset | xr.DataTree, wanted: npt.NDArray[Any], picked: Integers
) -> xr.DataArray:
    """Return the stimulus windows (time, lag, y, x) at some of the explained times."""
    from retina_codec.networks.retina.prediction import open_windows

    opened = open_windows(network, inputs)[1]
    available = opened.time.values
    places = np.searchsorted(available, wanted)
    if len(wanted) > len(available) or not np.array_equal(
        available[places % len(available)], wanted
    ):
        raise RetinaCodecError(
            f"inputs must be the split that the tree explains, {len(wanted)} times from "
            f"{wanted[0]:g} s; got {len(available)} from {available[0]:g} s. Pass the same split."
        )
    return xr.DataArray(
        opened.at(places[picked]).numpy(),
        dims=("time", "lag", "y", "x"),
        coords={"time": wanted[picked], "lag": opened.lag},
    )


def choose_windows(rate: Floats, count: int, *, seed: int = 0) -> Integers:
    """Choose up to ``count`` times, in order, so that each represents the same amount of activity.

    Activity a_t = mean over cells of rate (time, cell) / mean rate. Times in order of a are cut
    into ``count`` strata of equal Σ a; from each one time is drawn, with a chance ∝ a.
    """
    if count >= len(rate):
        return np.arange(len(rate))
    mean = rate.mean(axis=0)
    activity = (rate[:, mean > 0] / mean[mean > 0]).mean(axis=1)
    order = np.argsort(activity, kind="stable")
    filled = np.cumsum(activity[order])
    random = np.random.default_rng(seed)
    at = (np.arange(count) + random.random(count)) / count * filled[-1]
    return np.unique(order[np.minimum(np.searchsorted(filled, at), len(rate) - 1)])


def _in_modes(
    own: Floats, dictionary: xr.DataArray, cells: xr.DataArray, times: npt.NDArray[Any]
) -> xr.Dataset:
    """Project contributions (cell, window, sign, channel) on modes, window by window."""
    from scipy.optimize import nnls

    modes = dictionary.transpose("mode", "sign", "channel").values.astype(np.float64)
    modes = modes.reshape(len(modes), -1)
    flat = own.reshape(*own.shape[:2], -1)
    loading = np.array([[nnls(modes.T, sample)[0] for sample in cell] for cell in flat])
    spread = ((flat - flat.mean(axis=1, keepdims=True)) ** 2).sum((1, 2))
    left = ((flat - loading @ modes) ** 2).sum((1, 2))
    total = loading.sum(axis=1)
    whole = total.sum(axis=1, keepdims=True)
    nothing = np.full_like(total, np.nan)
    return xr.Dataset(
        {
            "own_loading": (
                ("cell", "window", "mode"),
                loading.astype(np.float32),
                {"units": "Hz", "long_name": "contribution to the cell's own rate"},
            ),
            "share": (
                ("cell", "mode"),
                np.divide(total, whole, out=nothing, where=whole > 0),
                {"units": "1", "long_name": "share of the mode in the cell's own drive"},
            ),
            "r2": (
                "cell",
                np.divide(-left, spread, out=np.full(len(left), np.nan), where=spread > 0) + 1,
                {"units": "1", "long_name": "R² of own contributions in the modes"},
            ),
        },
        coords={
            "cell": cells.values,
            "mode": dictionary["mode"].values,
            "window_time": ("window", times, {"units": "s", "long_name": "time of the response"}),
        },
    )
