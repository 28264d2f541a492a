"""Numbers of the report's sentences, read from the results."""

from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from retina_codec.contributions.results import completeness
from retina_codec.errors import RetinaCodecError
from retina_codec.figures.style import cell_groups
from retina_codec.report.page.cards import hypothesis_cards
from retina_codec.report.page.checks import trust_numbers
from retina_codec.storage.results import layers_of, layers_with, table

__all__ = [
    "field_numbers",
    "layer_numbers",
    "numbers_of",
    "pathway_rows",
    "pathway_statistics",
    "prediction_numbers",
]

SIGNIFICANT = 0.05  # false discovery rate
STRONG = 0.3  # share of a mode's largest entry, above which a channel is named


def numbers_of(results: xr.DataTree) -> dict[str, Any]:
    """Collect the numbers of the report.

    Parameters
    ----------
    results : xr.DataTree
        Results of ``analyze``; recorded rates, repeats, known types and receptive fields may be
        missing, and what depends on them is then None.

    Returns
    -------
    dict
        ``data`` (cells, types, duration in s, ...), ``prediction``, ``target``, ``layers`` (one
        dict per layer), ``pathways`` (rows per layer), ``statistics`` (of the first two layers),
        ``agreement``, ``fields``, ``trust`` (the scorecard), ``hypotheses`` (cards), None where
        there are none, and ``no_hypotheses``, the reason.

    Raises
    ------
    RetinaCodecError
        If the tree lacks responses, layers or modes, or what `analyze` of this version puts there.
    """
    responses = table(results, "responses")
    missing = {"time", "cell", "type"} - set(responses.coords)
    if missing:
        raise RetinaCodecError(
            "the report shows results of analyze(): rates of cells over time; the responses of "
            f"these have {', '.join(map(str, responses.coords)) or 'no coordinates'} and no "
            f"{' or '.join(sorted(missing))}. Results of images and texts are drawn by the "
            "functions of retina_codec.figures."
        )
    try:
        return _numbers(results, responses)
    except (KeyError, AttributeError) as error:
        made = str(results.attrs.get("versions", "")).partition(",")[0] or "an unknown version"
        raise RetinaCodecError(
            f"results must hold what the report shows; they lack {error}. They were made by {made}"
            ", which may be another version: run `retina-codec analyze` again."
        ) from error


def _numbers(results: xr.DataTree, responses: xr.Dataset) -> dict[str, Any]:
    names = layers_of(results, layers_of(results), part="modes")
    error = completeness(results)
    return {
        "data": _data_numbers(results, responses),
        "prediction": prediction_numbers(responses),
        "target": _target_numbers(responses),
        "layers": [layer_numbers(results, name, error.sel(layer=name)) for name in names],
        "pathways": {
            name: pathway_rows(results, name) for name in layers_with(results, "pathways")
        },
        "statistics": [
            pathway_statistics(results, name)
            for name in names[:2]
            if name in layers_with(results, "pathways")
            and "q_value" in table(results, f"layers/{name}/pathways")
        ],
        "agreement": _agreement(results),
        "trust": trust_numbers(results),
        "hypotheses": _cards(results) if "hypotheses" in results.children else None,
        **{
            f"no_{part}": str(results.attrs.get(f"no_{part}", "")).rstrip(".")
            for part in ("pathways", "receptive_fields", "halves", "scores", "hypotheses")
        },
        "fields": field_numbers(table(results, "receptive_fields"))
        if "receptive_fields" in results.children
        else None,
    }


def _cards(results: xr.DataTree) -> dict[str, Any]:
    """Prepare the cards, cells coloured as in the figures."""
    hypotheses, groups = table(results, "hypotheses"), cell_groups(results)
    if set(hypotheses["cell"].values.tolist()) <= set(groups["cell"].values.tolist()):
        group = groups.sel(cell=hypotheses["cell"].values).values
        hypotheses = hypotheses.assign_coords(group=("cell", group))
    return hypothesis_cards(
        hypotheses, table(results, "channels") if "channels" in results.children else None
    )


def _data_numbers(results: xr.DataTree, responses: xr.Dataset) -> dict[str, Any]:
    """Say how much was analysed: cells, types, times."""
    types = [str(name) for name in responses["type"].values]
    time = responses["time"].values
    step = float(np.median(np.diff(time)))
    known = [name for name in dict.fromkeys(types) if name != "unknown"]
    return {
        "session": results.attrs.get("session") or "a recording",
        "species": results.attrs.get("species") or "",
        "cells": len(types),
        "types": {name: types.count(name) for name in sorted(known)},
        "times": len(time),
        "duration": len(time) * step,
        "bin_ms": 1000 * step,
    }


def prediction_numbers(responses: xr.Dataset) -> dict[str, Any] | None:
    """Mean, worst and best Pearson r over cells, and the share of the noise ceiling reached.

    None where no cell has one.
    """
    if "pearson" not in responses:
        return None
    pearson = responses["pearson"].values.astype(np.float64)
    cells = responses["cell"].values
    seen = np.isfinite(pearson)
    found: dict[str, Any] = dict.fromkeys(("mean", "low", "low_cell", "high", "ceiling", "share"))
    found["undefined"] = [str(cell) for cell in cells[~seen]]
    if seen.any():
        found |= {
            "mean": float(pearson[seen].mean()),
            "low": float(pearson[seen].min()),
            "low_cell": cells[seen][int(pearson[seen].argmin())],
            "high": float(pearson[seen].max()),
        }
    if "noise_ceiling" in responses:
        ceiling = responses["noise_ceiling"].values.astype(np.float64)
        both = np.isfinite(pearson) & np.isfinite(ceiling) & (ceiling > 0)
        if both.any():
            found["ceiling"] = float(ceiling[both].mean())
            found["share"] = float(pearson[both].mean() / ceiling[both].mean())
    return found


def _target_numbers(responses: xr.Dataset) -> dict[str, Any]:
    """Describe the distribution of the target over time."""
    target = responses["target"].values
    return {
        "median": float(np.median(target)),
        "percentile_99": float(np.quantile(target, 0.99)),
        "units": str(responses["target"].attrs.get("units", "")),
        "condition_number": float(responses["condition_number"])
        if "condition_number" in responses
        else None,
    }


def layer_numbers(results: xr.DataTree, name: str, error: xr.Dataset) -> dict[str, Any]:
    """Collect what is known of one layer: completeness, heavy tails, modes and their scores."""
    layer, modes = table(results, f"layers/{name}"), table(results, f"layers/{name}/modes")
    power = (layer["contribution"].astype(np.float64) ** 2).sum(("sign", "channel")).values
    top = np.sort(power)[::-1][: max(1, round(0.01 * len(power)))]
    return {
        "name": name,
        "channels": layer.sizes["channel"],
        "completeness_median": float(error["median"]),
        "completeness_95": float(error["percentile_95"]),
        "top_share": float(top.sum() / power.sum()) if power.any() else None,
        "r2": float(modes["r2"]),
        "r2_fit": float(modes["r2_fit"]),
        "live": int(modes["live_modes"]),
        "mean_active": float(modes["mean_active"]),
        "held_out": int((modes["split"].values == "held_out").sum()),
        "modes": _mode_rows(modes),
    }


def _mode_rows(modes: xr.Dataset) -> list[dict[str, Any]]:
    """Describe every mode: how often it acts and the channels that make it up."""
    held = modes["split"].values == "held_out"
    often = modes["active"].transpose("time", "mode").values[held].mean(axis=0)
    strength = modes["loading"].transpose("time", "mode").values.astype(np.float64)
    share = (strength**2).sum(axis=0) / max(float((strength**2).sum()), 1e-300)
    rows = []
    for index, label in enumerate(modes["mode"].values):
        entry = modes["dictionary"].isel(mode=index)
        largest = float(abs(entry).max())
        channels = {}
        for sign in ("excitatory", "inhibitory"):
            values = abs(entry.sel(sign=sign))
            order = np.argsort(-values.values, kind="stable")
            channels[sign] = [
                str(values["channel"].values[i]) for i in order if values[i] > STRONG * largest
            ]
        rows.append({"mode": label, "active": float(often[index]), "share": float(share[index])})
        rows[-1] |= channels
    return rows


def pathway_rows(results: xr.DataTree, name: str) -> list[dict[str, Any]]:
    """Describe every pathway of a layer: its cells, their types, the modes they follow most."""
    node = table(results, f"layers/{name}/pathways")
    responses = table(results, "responses")
    types = responses["type"].values.astype(str)
    pathway = node["pathway"].values
    correlation = node["correlation"].transpose("cell", "mode").values
    rows = []
    for number in np.unique(pathway).tolist():
        inside = pathway == number
        mean = correlation[inside].mean(axis=0)
        best = np.argsort(-mean, kind="stable")[:3]
        rows.append(
            {
                "label": number,
                "cells": [str(cell) for cell in node["cell"].values[inside]],
                "types": {
                    kind: int((types[inside] == kind).sum()) for kind in sorted(set(types[inside]))
                },
                "modes": [(str(node["mode"].values[i]), float(mean[i])) for i in best],
            }
        )
    return rows


def pathway_statistics(results: xr.DataTree, name: str) -> dict[str, Any]:
    """Share of mode-cell pairs with q < 0.05, the null behind it, and what describes a cell."""
    node = table(results, f"layers/{name}/pathways")
    q = node["q_value"].values
    return {
        "layer": name,
        "significant": _significant(q),
        "recorded": _significant(node["recorded_q_value"].values)
        if "recorded_q_value" in node
        else None,
        "null": str(node["q_value"].attrs.get("null", node.attrs.get("null", "a null"))),
        "description": str(node.attrs.get("description", "its correlations with the modes")),
    }


def _significant(q: npt.NDArray[np.float64]) -> float:
    """Return the share of pairs below the false discovery rate, of those tested."""
    known = q[np.isfinite(q)]
    return float((known < SIGNIFICANT).mean()) if len(known) else float("nan")


def _agreement(results: xr.DataTree) -> dict[str, Any] | None:
    """Read the adjusted Rand index of pathways with types and between layers."""
    if "pathways" not in results.children:
        return None
    node = table(results, "pathways")
    layers = [str(name) for name in node["layer"].values]
    between = [
        (a, b, float(node["agreement"].sel(layer=a, other_layer=b)))
        for a, b in combinations(layers, 2)
    ]
    with_types = {}
    if "type_agreement" in node:
        with_types = {
            name: float(node["type_agreement"].sel(layer=name))
            for name in layers
            if np.isfinite(node["type_agreement"].sel(layer=name))
        }
    return {"between": between, "types": with_types}


def field_numbers(fields: xr.Dataset) -> dict[str, Any]:
    """Say how far one product of space and time goes, and how much fields change with the modes.

    ``same`` and ``other`` are medians, over all pairs of events at which a cell responds, of the
    Pearson r between the two spatial fields of that cell: pairs with the same set of active
    modes, and pairs with different sets.
    """
    responding = fields["responding"].transpose("event", "cell").values.astype(bool)
    rank1 = fields["rank1"].transpose("event", "cell").values
    labels = fields["combination"].values.astype(str)
    flat = fields["spatial"].transpose("event", "cell", "y", "x").values
    flat = flat.reshape(*flat.shape[:2], -1).astype(np.float64)
    same, other = _pairs(flat, responding, labels)
    return {
        "layer": str(fields.attrs.get("layer", "")),
        "events": len(labels),
        "combinations": list(dict.fromkeys(labels.tolist())),
        "minimum_rate": float(fields.attrs.get("minimum_rate", np.nan)),
        "responding": float(responding.mean()),
        "rank1": float(np.nanmedian(rank1[responding])) if responding.any() else None,
        "same": float(np.median(same)) if same else None,
        "other": float(np.median(other)) if other else None,
        "same_pairs": len(same),
        "other_pairs": len(other),
        "tested": _tested(fields),
    }


def _tested(fields: xr.Dataset) -> dict[str, Any] | None:
    """Count the cells whose fields differ between combinations of modes, of those tested."""
    if "combination_q_value" not in fields:
        return None
    q = fields["combination_q_value"].values.astype(np.float64)
    known = q[np.isfinite(q)]
    return {
        "cells": len(known),
        "left_out": len(q) - len(known),
        "significant": int((known < SIGNIFICANT).sum()),
        "smallest": float(known.min()) if len(known) else None,
        "null": str(fields["combination_q_value"].attrs.get("null", "a null")),
    }


def _pairs(
    flat: npt.NDArray[np.float64], responding: npt.NDArray[np.bool_], labels: npt.NDArray[Any]
) -> tuple[list[float], list[float]]:
    """Correlate a cell's fields over pairs of events; (same label, other label)."""
    same: list[float] = []
    other: list[float] = []
    for cell in range(flat.shape[1]):
        events = np.flatnonzero(responding[:, cell])
        if len(events) < 2:
            continue
        centered = flat[events, cell] - flat[events, cell].mean(axis=1, keepdims=True)
        norm = np.linalg.norm(centered, axis=1)
        usable = norm > 0
        events, unit = events[usable], centered[usable] / norm[usable, None]
        correlation = unit @ unit.T
        for i, j in combinations(range(len(events)), 2):
            (same if labels[events[i]] == labels[events[j]] else other).append(correlation[i, j])
    return same, other
