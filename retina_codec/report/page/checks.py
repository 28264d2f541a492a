"""Checks and scores of the report: the value found, what it means, and the value wanted."""

from typing import Any

import numpy as np
import xarray as xr

from retina_codec.modes.scores.score import score_table
from retina_codec.report.page.text import NOT_MEASURED, measured, number, percent, signed
from retina_codec.storage.results import layers_with, modes_at

__all__ = ["checks_of", "prediction_verdict", "trust_numbers", "verdict_of"]

GOOD = 0.9  # of the noise ceiling
LEAST = 0.5**0.5  # of the ceiling: below, less than half of the variance that can be predicted
NO_PREDICTION = 0.1  # r, below which nothing is predicted
LARGEST_ERROR = 0.1  # of the change of F, above which contributions say nothing
VERDICTS = {
    "good": "The network can be explained",
    "fair": "Read with care",
    "poor": "Do not explain this network",
    "unknown": "Not known how good the network is",
}
WRONG_CONTRIBUTIONS = "Do not believe these contributions"


def prediction_verdict(prediction: dict[str, Any] | None) -> tuple[str, str]:
    """Say whether a network predicts its cells well enough to be explained.

    Parameters
    ----------
    prediction : dict or None
        From `prediction_numbers`; None where no rates were recorded.

    Returns
    -------
    level : {"good", "fair", "poor", "unknown"}
        Poor: r below 0.1, or below √½ of the noise ceiling.
    words : str
        One or two sentences.
    """
    if prediction is None:
        return "unknown", (
            "The results hold no recorded rates, so what follows describes the network and says "
            "nothing yet about the retina."
        )
    mean, share = prediction["mean"], prediction["share"]
    if mean is None:
        return "poor", (
            "Recorded or predicted rates are constant, so r is not defined for any cell: nothing "
            "below says anything about the cells."
        )
    found = f"mean Pearson r over cells of {signed(mean)}"
    if share is not None:
        found += (
            f", {percent(share).replace('-', '−')} of what the repeats allow (noise ceiling "
            f"{number(prediction['ceiling'])})"
        )
    if not mean >= NO_PREDICTION:
        return "poor", (
            f"The network does not predict the recorded rates ({found}): it is too bad to be "
            "explained, and nothing below says anything about the cells. Fit another network first."
        )
    if share is None:
        return "unknown", (
            f"The network predicts the recorded rates with a {found}; without repeats it is not "
            "known how high r could be."
        )
    if share < LEAST:
        return "poor", (
            "The network misses more than half of the variance of the rates that can be predicted "
            f"({found}): it is too bad to be explained, and what follows says little about the "
            "cells. Fit a better network first."
        )
    if share < GOOD:
        return "fair", (
            f"The network predicts the recorded rates with a {found}; where it is wrong, its "
            "explanation is wrong too."
        )
    return "good", f"The network predicts the recorded rates with a {found}."


def verdict_of(numbers: dict[str, Any], checks: list[dict[str, Any]]) -> dict[str, Any]:
    """Say first what may be believed.

    Parameters
    ----------
    numbers : dict
        From `numbers_of`.
    checks : list of dict
        From `checks_of`.

    Returns
    -------
    dict
        ``level``; ``title`` and ``words``; ``believed``, whether the findings may be listed;
        ``reached`` and ``missed``: questions of the checks.
    """
    level, words = prediction_verdict(numbers["prediction"])
    title = VERDICTS[level]
    worst = max(np.nan_to_num(layer["completeness_median"]) for layer in numbers["layers"])
    if worst > LARGEST_ERROR:
        level, title = "poor", title if level == "poor" else WRONG_CONTRIBUTIONS
        words += (
            f" Contributions miss {percent(worst)} of the change of F: nothing that rests on them "
            "can be believed. Use more steps of the path."
        )
    missed = [check["what"] for check in checks if not check["passed"]]
    if missed and level == "good":
        level, title = "fair", VERDICTS["fair"]
    return {
        "level": level,
        "title": title,
        "words": words,
        "believed": level != "poor",
        "reached": len(checks) - len(missed),
        "missed": missed,
    }


def checks_of(numbers: dict[str, Any]) -> list[dict[str, Any]]:
    """State each check with its value, the value wanted, and whether it is reached.

    Parameters
    ----------
    numbers : dict
        From `numbers_of`.

    Returns
    -------
    list of dict
        ``what``, ``value``, ``means``, ``bar`` in words, and ``passed``.
    """
    from retina_codec.figures.style import layer_name

    prediction, agreement = numbers["prediction"], numbers["agreement"]
    shown = [layer["name"] for layer in numbers["layers"][:2]]
    worst = max(numbers["layers"], key=lambda layer: _unknown_last(layer["completeness_median"]))
    checks = []
    if prediction and prediction["share"] is not None:
        checks.append(_predicts(prediction))
    checks.append(
        {
            "what": "Do contributions add up?",
            "value": f"median error at most {_near_one(worst['completeness_median'])} "
            f"of the change ({layer_name(worst['name'])})"
            if np.isfinite(worst["completeness_median"])
            else f"not known for {layer_name(worst['name'])}",
            "means": "All contributions of a layer together must equal the change of the target; "
            "what is missing is error of the path integral.",
            "bar": "median < 1 % in every layer",
            "passed": worst["completeness_median"] < 0.01,
        }
    )
    checks += [_rebuilds(layer, layer_name(layer["name"])) for layer in numbers["layers"][:2]]
    checks += [
        _matches_types(value, layer_name(name))
        for name, value in (agreement["types"] if agreement else {}).items()
        if name in shown
    ]
    return checks


def _near_one(value: float) -> str:
    """Write a share in percent, with more digits where two would round it to 1 %."""
    return percent(value, 4 if abs(value - 0.01) < 1e-4 else 2)


def _unknown_last(value: float) -> float:
    """Let a value that is not known count as the largest."""
    return value if np.isfinite(value) else float("inf")


def _predicts(prediction: dict[str, Any]) -> dict[str, Any]:
    return {
        "what": "Does the network predict the cells?",
        "value": f"r = {signed(prediction['mean'])} of a possible "
        f"{number(prediction['ceiling'])} ({percent(prediction['share']).replace('-', '−')})",
        "means": "An explanation of the network speaks about the retina only as far as "
        "the network predicts it. The possible r follows from repeats.",
        "bar": "≥ 90 % of the noise ceiling",
        "passed": prediction["share"] >= 0.9,
    }


def _rebuilds(layer: dict[str, Any], name: str) -> dict[str, Any]:
    return {
        "what": f"Do the modes of {name} rebuild contributions?",
        "value": f"R² = {number(layer['r2'])} with {layer['live']} modes, "
        f"{number(layer['mean_active'], 1)} active at a time",
        "means": f"On {layer['held_out']} times that the modes were not fitted to "
        f"(on the fitted ones R² = {number(layer['r2_fit'])}).",
        "bar": "R² ≥ 0.85 with at least 8 modes",
        "passed": layer["r2"] >= 0.85 and layer["live"] >= 8,
    }


def _matches_types(agreement: float, name: str) -> dict[str, Any]:
    return {
        "what": f"Do pathways of {name} match the cell types?",
        "value": f"adjusted Rand index {number(agreement)}",
        "means": "1 is the same grouping, 0 is chance. The types were not used to "
        "find the pathways.",
        "bar": "≥ 0.80",
        "passed": agreement >= 0.8,
    }


# Score, its words, a good value: first those of `decompose`, then `score_modes`.
CHEAP = (
    ("r2", "R² on held-out times", "1 would be perfect; says little alone, see the shuffled data"),
    ("r2_fit", "R² on fitted times", "not far above the one on held-out times"),
    ("r2_encoder", "R² of the encoder alone", "the loadings before they are refined"),
    ("mean_active", "modes active at a time", "few, so that each can be read"),
    ("live_modes", "modes that act at all", "more than are active at a time"),
)


FULL = (
    ("r2_shuffled_data", "R² of shuffled contributions", "the higher it is, the less R² proves"),
    ("r2_NMF", "R² of non-negative factors (NMF)", "another method, as many active"),
    ("r2_PCA", "R² of principal components", "another method, as many active"),
    ("r2_raw_channels", "R² of the strongest single channels", "no groups at all"),
    ("r2_frozen_decoder", "R² with random modes", "only the loadings are fitted"),
    ("r2_frozen_encoder", "R² with random loadings", "only the modes are fitted"),
    (
        "mode_match",
        "modes found again from another start (cosine)",
        "well above modes with shuffled weights",
    ),
    ("mode_match_null", "the same for modes with shuffled weights", "what chance gives"),
    ("loading_match", "loadings found again from another start (r)", "near 1"),
    ("collisions", "modes with no partner of their own", "near 0"),
    (
        "insertion_gain",
        "F recovered by the mode's channels alone, minus F recovered by random channels",
        "above 0",
    ),
    (
        "deletion_gain",
        "F lost without the mode's channels, minus F lost without random channels",
        "above 0",
    ),
    (
        "effect",
        "correlation of predicted and actual effect of silencing each channel",
        "near 1",
    ),
    ("noise_r2", "R² in a network with shuffled weights", "the higher it is, the less R² proves"),
    (
        "noise_match",
        "modes shared with the shuffled network (cosine)",
        "well below the match above",
    ),
)


DECISIVE = ("mode_match", "insertion_gain", "deletion_gain", "effect")  # what shuffles do not reach


COUNTS = ("mean_active", "live_modes")


def trust_numbers(results: xr.DataTree) -> dict[str, Any]:
    """Collect the scorecard.

    Parameters
    ----------
    results : xr.DataTree
        With ``/layers/<name>/modes``; ``/layers/<name>/score`` (`score_modes`) where measured.

    Returns
    -------
    dict
        ``layers`` (names); ``rows``: dicts with ``words``, ``wanted``, ``values`` (words per layer,
        "not measured" where there is no score), ``decisive`` and ``missing`` (in all layers);
        ``scored``, whether any layer was scored in full; ``shuffled``: (layer, R² of modes, R² of
        shuffled data) where both are known; ``seeds``, how many starts were compared, or None;
        ``halves``: rows of layers by what comes back from each half of the split, or None.
    """
    layers, scored = layers_with(results, "modes"), layers_with(results, "score")
    full = score_table(results) if scored else xr.Dataset()
    rows = [_row(*row, values=[_cheap(results, n, row[0]) for n in layers]) for row in CHEAP]
    if scored:
        rows += [_row(*row, values=[_full(full, n, row[0]) for n in layers]) for row in FULL]
    else:
        rows += [
            _row(*row, values=[float("nan")] * len(layers))
            for row in FULL
            if row[0] in (*DECISIVE, "r2_shuffled_data")
        ]
    pairs = [(n, _full(full, n, "r2"), _full(full, n, "r2_shuffled_data")) for n in scored]
    seeds = [int(results[f"layers/{n}/score"].attrs["seeds"]) for n in scored]
    return {
        "layers": layers,
        "rows": rows,
        "scored": bool(scored),
        "shuffled": [pair for pair in pairs if np.isfinite(pair[1:]).all()],
        "seeds": min(seeds) if seeds else None,
        "halves": _halves(results),
    }


def _halves(results: xr.DataTree) -> dict[str, Any] | None:
    """Return what modes and pathways of the two halves have in common, in words."""
    if "halves" not in results.children:
        return None
    found = results["halves"].to_dataset()

    def beside(layer: str, quantity: str) -> dict[str, Any]:
        one = found.sel(layer=layer, quantity=quantity)
        value, high = float(one["agreement"]), float(one["null_high"])
        return {
            "value": measured(value),
            "chance": number(high) if np.isfinite(high) else "",
            "above": bool(value > high),
        }

    return {
        "copies": int(found.attrs["copies"]),
        "samples": int(found.attrs["samples"]),
        "layers": [
            {"name": str(layer)}
            | {what: beside(str(layer), what) for what in ("modes", "pathways", "similarity")}
            for layer in found["layer"].values
        ],
    }


def _row(name: str, words: str, wanted: str, *, values: list[float]) -> dict[str, Any]:
    digits = 1 if name == "mean_active" else 0 if name in COUNTS else 2
    return {
        "words": words,
        "wanted": wanted,
        "values": [measured(value, digits) for value in values],
        "decisive": name in DECISIVE,
        "missing": all(measured(value) == NOT_MEASURED for value in values),
    }


def _cheap(results: xr.DataTree, layer: str, name: str) -> float:
    modes = modes_at(results, layer)
    return float(modes[name]) if name in modes else float("nan")


def _full(scores: xr.Dataset, layer: str, name: str) -> float:
    known = name in scores and layer in scores["layer"].values
    return float(scores[name].sel(layer=layer)) if known else float("nan")
