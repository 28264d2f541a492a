"""Names, dims, coordinates and units of the results of `contribute`, and how complete they are."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from retina_codec.contributions.claims import claim
from retina_codec.contributions.runner import Runner
from retina_codec.errors import RetinaCodecError
from retina_codec.methods.base import units_of
from retina_codec.probing.inputs import Source
from retina_codec.storage.results import layers_of
from retina_codec.targets.base import Target

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
    layers = layers_of(tree)
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
    claims: Mapping[str, str],
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
        Its statistics are left out while it is incomplete.
    settings : dict
        Attributes of the root.
    claims : mapping of str to str
        What replaces the claim of completeness of some layers.

    Returns
    -------
    xr.DataTree
        See `contribute`.

    Raises
    ------
    RetinaCodecError
        If a statistic of the target has a name that results use for something else.
    """
    of_outputs = runner.plan.network.output_units
    units = {"prediction": of_outputs, "target": target.units_for(of_outputs)}
    responses = _responses(found, runner, source, units)
    if not target.incomplete:
        responses = _with_statistics(responses, target, of_outputs)
    nodes = {"/": xr.Dataset(attrs=settings), "/responses": responses}
    for name in runner.layers:
        of_layer = units_of(runner.plan.method, target, of_outputs)
        dataset = _layer(found, runner, source, name, of_layer)
        dataset.attrs |= {"completeness": claims[name]} if name in claims else {}
        nodes[f"/layers/{name}"] = dataset
    return xr.DataTree.from_dict(nodes)


def _responses(
    found: dict[str, Any], runner: Runner, source: Source, units: dict[str, str]
) -> xr.Dataset:
    """Label what there is one of, whatever the layers."""
    dim, cells, arrays = source.dim, runner.plan.network.cells, runner.arrays()
    responses = xr.Dataset(coords=source.coords)
    if "prediction" in arrays:
        count = arrays["prediction"].shape[0]
        known = cells is not None and len(cells) == count
        responses = responses.assign_coords(cell=list(cells or ()) if known else np.arange(count))
        if source.types is not None:
            responses = responses.assign_coords(type=("cell", source.types))
        if source.rate is not None:
            recorded = source.rate.transpose(dim, "cell")
            responses["rate"] = ((dim, "cell"), recorded.values, dict(recorded.attrs))
    output = "model rate" if units["prediction"] == "Hz" else "network output"
    names = {"prediction": output, "target": "target F(x)", "steps": "steps of the path"}
    for key, text in names.items():
        if key in found:
            attrs = {"units": units.get(key, "1"), "long_name": text}
            responses[key] = ((dim, *arrays[key].dims), found[key], attrs)
    return responses


def _with_statistics(responses: xr.Dataset, target: Target, outputs: str) -> xr.Dataset:
    """Add the target's statistics, with the ids of the outputs along their dims."""
    statistics = {name: values.copy() for name, values in target.statistics().items()}
    if outputs == "1":  # no rates, so that statistics of them have no unit either
        for values in statistics.values():
            if values.attrs.get("units") in ("Hz", "Hz²"):
                values.attrs["units"] = "1"
    taken = sorted(set(statistics) & (set(responses.variables) | set(responses.dims)))
    if taken:
        raise RetinaCodecError(
            f"statistics of a target need names of their own; {type(target).__name__} has "
            f"{', '.join(taken)}, which results use for something else. Rename them."
        )
    if any("other_cell" in values.dims for values in statistics.values()):
        responses = responses.assign_coords(other_cell=responses["cell"].values)
    return responses.assign(statistics)


def _layer(
    found: dict[str, Any], runner: Runner, source: Source, name: str, units: str
) -> xr.Dataset:
    """Label the arrays of one layer, contributions in ``units``."""
    arrays = runner.arrays()
    coords = {**source.coords, **runner.coords(name)}
    dataset = xr.Dataset(coords=coords, attrs=_about(runner, name))
    for what, about in (
        ("contribution", {}),
        ("activation", {"units": "1"}),
        ("completeness_error", {}),
        ("target_change", {"long_name": runner.plan.method.sums_to}),
        ("standard_error", {"long_name": "standard error of the layer's sum"}),
    ):
        key = f"{name}/{what}"
        if key in found:
            dims = (source.dim, *arrays[key].dims)
            dataset[what] = (dims, found[key], {"units": units} | about)
    return dataset


def _about(runner: Runner, name: str) -> dict[str, Any]:
    """Return attrs of a layer: its units, and whether contributions can be complete."""
    layer, site = runner.layers[name], runner.site(name)
    about = {
        "unit_shape": list(layer.shape),
        "channel_axis": layer.channel_axis,
        "space_axes": list(layer.space_axes),
        "axes_are": layer.axes_are,
        "completeness": claim(runner, name),
    }
    if site is None:
        return about
    about |= {"site": site.site, "block": site.block, "side": site.hook}
    if site.site == "attention" and site.heads is not None:
        about["heads"] = site.heads
    if runner.leading[name]:
        about |= {"leading_tokens": runner.leading[name], "tokens": runner.plan.network.tokens}
    return about
