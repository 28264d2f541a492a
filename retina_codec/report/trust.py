"""How far to trust the modes: the scorecard of every layer as rows of a table.

Why this file exists: R² alone convinces nobody who knows its controls, so every score stands beside
what it must beat. Scores are read off the results; none is computed here.
"""

from typing import Any

import numpy as np
import xarray as xr

from retina_codec.modes.scoring import score_table
from retina_codec.report.words import NOT_MEASURED, measured

__all__ = ["trust_numbers"]

# Score, its words, what to hold it against: first those of `decompose`, then `score_modes`.
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
        "how much better its channels alone bring F back than random ones",
        "above 0",
    ),
    (
        "deletion_gain",
        "how much more F falls without its channels than without random ones",
        "above 0",
    ),
    ("effect", "what a mode says of a channel against what silencing it does (r)", "near 1"),
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
        shuffled data) where both are known; ``seeds``, how many starts were compared, or None.
    """
    layers = [n for n, node in results["layers"].children.items() if "modes" in node.children]
    scored = [n for n in layers if "score" in results[f"layers/{n}"].children]
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
    modes = results[f"layers/{layer}/modes"].to_dataset()
    return float(modes[name]) if name in modes else float("nan")


def _full(scores: xr.Dataset, layer: str, name: str) -> float:
    known = name in scores and layer in scores["layer"].values
    return float(scores[name].sel(layer=layer)) if known else float("nan")
