"""The labelled result of an analysis of contributions, and how complete it is.

Why this file exists: names of dims, coordinates and units are given here once, so that no later
step has to guess an order. It computes no contributions.
"""

from typing import Any

import numpy as np
import xarray as xr

from retina_codec.contributions.runner import Runner
from retina_codec.errors import RetinaCodecError
from retina_codec.methods.gradients import ActNormGrad
from retina_codec.probing.inputs import Source
from retina_codec.targets.base import Target
from retina_codec.targets.surprisal import Surprisal

__all__ = ["completeness", "label"]


def completeness(tree: xr.DataTree) -> xr.Dataset:
    """Summarise how far contributions are from adding up to the change of the target.

    ``|Σ_j C_j − (F(x) − F(x′))| / |F(x) − F(x′)|`` for every input; its median and 95th
    percentile over inputs.

    Parameters
    ----------
    tree : xr.DataTree
        What `contribute` returned.

    Returns
    -------
    xr.Dataset, dims (layer)
        ``median`` and ``percentile_95``, dimensionless.

    Raises
    ------
    RetinaCodecError
        If the tree holds no layers.
    """
    layers = list(tree["layers"].children) if "layers" in tree.children else []
    if not layers:
        raise RetinaCodecError("the tree must hold /layers; pass what contribute() returned.")
    relative = []
    for name in layers:
        found = tree["layers"].children[name].to_dataset()
        if "completeness_error" not in found:
            raise RetinaCodecError(
                f"layer {name!r} has no completeness error; {found.attrs.get('completeness', '')}. "
                "Use IntegratedGradients() or InputGrad()."
            )
        error = np.abs(found["completeness_error"].values)
        change = np.abs(found["target_change"].values)
        with np.errstate(divide="ignore", invalid="ignore"):
            # An input at the baseline has neither change nor error: nothing is missing there.
            relative.append(np.where(error == 0, 0.0, error / change))
    attrs = {"units": "1", "method": "absolute completeness error over absolute target change"}
    return xr.Dataset(
        {
            "median": ("layer", np.median(relative, axis=1), attrs),
            "percentile_95": ("layer", np.percentile(relative, 95, axis=1), attrs),
        },
        coords={"layer": layers},
    )


def label(
    found: dict[str, Any],
    runner: Runner,
    source: Source,
    target: Target,
    settings: dict[str, Any],
) -> xr.DataTree:
    """Put dims, coordinates and units on what was found.

    Parameters
    ----------
    found : dict of arrays
        By the names of ``runner.arrays()``, inputs first; names that are missing are left out.
    runner : Runner
        Knows the layers and what is kept of them.
    source : Source
        Knows the labels of the inputs.
    target : Target
        Fitted, or not yet: then the statistics of a Surprisal are NaN.
    settings : dict
        Attributes of the root.

    Returns
    -------
    xr.DataTree
        See `contribute`.
    """
    dim, inputs, cells = source.dim, source.coords, runner.plan.network.cells
    arrays = runner.arrays()
    # Only a network that names its cells is known to put out rates.
    rate_units = {"units": "Hz" if cells is not None else "1"}
    units = rate_units if target.units == "Hz" else {"units": target.units}
    if isinstance(runner.plan.method, ActNormGrad):
        units = {"units": "activation"}
    responses = xr.Dataset(coords=inputs)
    if "prediction" in arrays:
        count = arrays["prediction"].shape[0]
        known = cells is not None and len(cells) == count
        responses = responses.assign_coords(cell=list(cells or ()) if known else np.arange(count))
        if source.types is not None:
            responses = responses.assign_coords(type=("cell", source.types))
        if source.rate is not None:
            recorded = source.rate.transpose(dim, "cell")
            responses["rate"] = ((dim, "cell"), recorded.values, dict(recorded.attrs))
    names = {"prediction": "model rate", "target": "target F(x)", "steps": "steps of the path"}
    for key, text in names.items():
        if key in found:
            about = {"prediction": rate_units, "target": units, "steps": {"units": "1"}}[key]
            attrs = {**about, "long_name": text}
            responses[key] = ((dim, *arrays[key].dims), found[key], attrs)
    if isinstance(target, Surprisal):
        count = responses.sizes["cell"]
        mean, covariance = np.full(count, np.nan), np.full((count, count), np.nan)
        condition = np.nan
        if not target.incomplete:
            mean, covariance = target.mean, target.covariance
            condition = target.condition_number
        responses = responses.assign_coords(other_cell=responses["cell"].values)
        responses["mean"] = ("cell", mean, {"units": "Hz"})
        responses["covariance"] = (("cell", "other_cell"), covariance, {"units": "Hz²"})
        responses["condition_number"] = ((), condition, {"units": "1"})
    nodes = {"/": xr.Dataset(attrs=settings), "/responses": responses}
    for name in runner.layers:
        dataset = xr.Dataset(coords={**inputs, **runner.coords(name)}, attrs=_about(runner, name))
        for what, about in (
            ("contribution", units),
            ("activation", {"units": "1"}),
            ("completeness_error", units),
            ("target_change", {**units, "long_name": runner.plan.method.sums_to}),
            ("standard_error", {**units, "long_name": "standard error of the layer's sum"}),
        ):
            key = f"{name}/{what}"
            if key in found:
                dataset[what] = ((dim, *arrays[key].dims), found[key], about)
        nodes[f"/layers/{name}"] = dataset
    return xr.DataTree.from_dict(nodes)


def _about(runner: Runner, name: str) -> dict[str, Any]:
    """Say how a layer's units were read, and whether their contributions can be complete."""
    layer, site = runner.layers[name], runner.site(name)
    sums_to = runner.plan.method.sums_to
    if not sums_to:
        complete = f"not defined for {type(runner.plan.method).__name__}"
    elif layer.cuts:
        complete = f"holds: contributions sum to {sums_to}"
    else:
        complete = "cannot hold: some path from input to output does not cross this layer"
    about = {
        "unit_shape": list(layer.shape),
        "channel_axis": layer.channel_axis,
        "space_axes": list(layer.space_axes),
        "axes_are": layer.axes_are,
        "completeness": complete,
    }
    if site is None:
        return about
    about |= {"site": site.site, "block": site.block, "side": site.hook}
    if site.site == "attention" and site.heads is not None:
        about["heads"] = site.heads
    if runner.leading[name]:
        about |= {"leading_tokens": runner.leading[name], "tokens": runner.plan.network.tokens}
    return about
