"""The whole scorecard of a decomposition: other seeds, controls, and the network itself.

Why this file exists: it is the public door of the costly part of scoring; the cheap part
(``scorecard``) is done by every `decompose`. It decides what is fitted again and what the network
is asked, and labels the outcome. The work itself is done in ``refits`` and ``causes``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr

from retina_codec.errors import RetinaCodecError
from retina_codec.modes.base import Decomposition, decomposition_of
from retina_codec.modes.decompose import checked_contribution, modes_of, on_all_signs
from retina_codec.modes.scores.refits import (
    BASELINES,
    baseline_scores,
    has,
    pair_scores,
    pareto_scores,
    vary,
)
from retina_codec.progress import progress_bar
from retina_codec.storage.results import layers_of, table

__all__ = ["above_shuffled", "score_modes", "score_table"]

LIMITS = (1, 2, 3, 5)


LEADING_MODES = 6  # whose channels are silenced


def score_modes(
    tree: xr.DataTree,
    *,
    network: Any = None,
    inputs: Any = None,
    method: Decomposition | None = None,
    target: Any = None,
    attribution: Any = None,
    layers: Sequence[str] | None = None,
    limits: Sequence[int] | None = None,
    seeds: int = 5,
    times: int = 16,
    seed: int = 0,
    device: str | torch.device | None = None,
    progress: bool | None = None,
) -> xr.DataTree:
    """Score the modes of every layer: other seeds, other sparsity, controls, and the network.

    The layer is decomposed again with every seed and every limit of active modes, on the same
    times; and by controls with as many modes, and as many active. With network and inputs, the
    channels of the leading modes are silenced, and a network of noise (weights dealt out anew) is
    explained and decomposed in the same way.

    Parameters
    ----------
    tree : xr.DataTree
        Results of `decompose`.
    network : torch.nn.Module or Adapter, optional
        The network that was explained.
    inputs : as for `contribute`, optional
        What it was explained on, in the same order. Needed with ``network``.
    method : Decomposition, optional
        How to decompose again; as the results say when left out.
    target : Target, optional
        What was explained; when left out, the surprisal whose mean and covariance the results
        hold. The network of noise is explained to the same (its own covariance, shrunk, for a
        surprisal).
    attribution : Method, optional
        What made the contributions: needed where their baseline is an array. The network of noise
        is explained by it too; when left out, by `IntegratedGradients` with the steps and the
        baseline of the results.
    layers : sequence of str, optional
        Which layers; all that have modes if left out.
    limits : sequence of int, optional
        Largest numbers of active modes to try; 1, 2, 3, 5 and the method's own when left out.
    seeds : int
        Number of starting points, >= 2: ``seed``, ``seed`` + 1, ...
    times : int
        Held-out times per mode at which channels are silenced.
    seed : int
    device : str or torch.device, optional
        Where to decompose and to run the network; where the network lies when left out.
    progress : bool, optional
        None shows bars after 2 s, False never, True at once.

    Returns
    -------
    xr.DataTree
        A copy with ``/layers/<name>/score``: ``r2``, ``mean_active``, ``live_modes`` (limit,
        seed) and ``r2_feature`` (limit, seed, sign, channel) on held-out times (limit 0: the
        method has none); ``mode_match`` and its like (pair), see `pair_scores`, NaN for a method
        without a starting point; ``baseline_r2``, ``baseline_active`` (baseline, seed). With the
        network also ``insertion`` and its like (mode, step), see `channel_scores`, and
        ``noise_r2``, ``noise_active``, ``noise_match`` (): the network of noise, the last one the
        mean matched cosine of its modes with those of the network.

    Raises
    ------
    RetinaCodecError
        If no layer has modes, the method is not known, fewer than 2 seeds are asked for, or
        network and inputs do not belong to the results.

    References
    ----------
    Melander et al. 2026 (insertion and deletion of a mode's channels). Controls: see
    `FrozenDecoder`, `pair_scores`, `shuffled_network`.
    """
    if seeds < 2 or times < 3:
        raise RetinaCodecError(
            f"scoring needs at least 2 seeds to compare and 3 times; got {seeds=}, {times=}."
        )
    if (network is None) != (inputs is None):
        raise RetinaCodecError(
            "network and inputs belong together: give both, or neither for the scores that need "
            f"none; got network={type(network).__name__}, inputs={type(inputs).__name__}."
        )
    chosen = layers_of(tree, layers, part="modes")
    started = [seed + number for number in range(seeds)]
    again_of = {name: _Again(tree, name, method, device) for name in chosen}
    for again in again_of.values():
        _limits(again.method, limits)  # refuses before long work
    asked: dict[str, xr.Dataset] = {}
    if network is not None:
        from retina_codec.modes.scores.network import network_scores

        asked = network_scores(
            tree,
            chosen,
            network,
            inputs,
            again_of=again_of,
            target=target,
            attribution=attribution,
            number=LEADING_MODES,
            times=times,
            seed=seed,
            device=device,
            progress=progress,
        )
    result = tree.copy()
    for name, again in again_of.items():
        tried = _limits(again.method, limits)
        total = seeds * (len(tried) + len(BASELINES) - 1)
        with progress_bar(range(total), description=f"scores of {name}", progress=progress) as bar:
            fits: dict[tuple[int, int], xr.Dataset] = {}
            for limit in tried:
                for start in started:
                    varied = vary(again.method, seed=start, **({"active": limit} if limit else {}))
                    fits[limit, start] = again(again.contribution, varied)
                    bar.update()
            own = again.method.active if has(again.method, "active") else 0  # type: ignore[attr-defined]
            at_own = [fits[own, start] for start in started]
            pairs = pair_scores(at_own, started, seed)
            if not has(again.method, "seed"):  # nothing was different
                pairs = pairs * np.nan
            score = xr.merge(
                [
                    pareto_scores(fits, tried, started),
                    pairs,
                    baseline_scores(
                        again.contribution, at_own, again.method, started, again, bar.update
                    ),
                    asked.get(name, xr.Dataset()),
                ],
                join="exact",
                compat="equals",
                combine_attrs="drop",
            ).assign(limit_own=((), own, {"units": "count"}))
            if "signs" in again.modes.attrs:
                score = on_all_signs(score, tree[f"layers/{name}"].to_dataset()["sign"])
        result[f"layers/{name}/score"] = xr.DataTree(
            score.assign_attrs(again.method.settings() | {"seeds": seeds, "first_seed": seed})
        )
    return result


def score_table(tree: xr.DataTree) -> xr.Dataset:
    """Put the main scores of every layer side by side.

    Means over seeds or pairs, with their standard deviation over seeds (``r2_sd``); for a table
    with one row per layer: ``score_table(tree).to_dataframe()``.

    Parameters
    ----------
    tree : xr.DataTree
        Results of `score_modes`.

    Returns
    -------
    xr.Dataset, dims (layer,)
        ``r2``, ``r2_sd``, ``mean_active``, ``live_modes``, ``mode_match``, ``mode_match_null``,
        ``loading_match``, ``collisions``, ``r2_<baseline>``; ``r2_above_shuffled``, by how much R²
        exceeds that of shuffled data, seed by seed (below 0: shuffled data are rebuilt better), and
        its ``r2_above_shuffled_sd``: R² proves no more than this; with a network
        ``insertion_gain``, ``deletion_gain``, ``effect`` (means over modes), ``noise_r2`` and
        ``noise_match``.

    Raises
    ------
    RetinaCodecError
        If no layer was scored.
    """
    scored = {name: table(tree, f"layers/{name}/score") for name in layers_of(tree, part="score")}
    return xr.concat(
        [_row(score).expand_dims(layer=[name]) for name, score in scored.items()],
        "layer",
        join="outer",  # variables, not labels: a layer without network scores has NaN there
    )


def _row(score: xr.Dataset) -> xr.Dataset:
    own = score.sel(limit=int(score["limit_own"]))
    row: dict[str, Any] = {
        "r2": own["r2"].mean(),
        "r2_sd": own["r2"].std(ddof=1),
        "mean_active": own["mean_active"].mean(),
        "live_modes": own["live_modes"].mean(),
    }
    for name in ("mode_match", "mode_match_null", "loading_match", "collisions"):
        row[name] = score[name].mean()
    for name in score["baseline"].values[1:]:
        row[f"r2_{name.replace(' ', '_')}"] = score["baseline_r2"].sel(baseline=name).mean()
    above = above_shuffled(score)
    row["r2_above_shuffled"], row["r2_above_shuffled_sd"] = above.mean(), above.std(ddof=1)
    for name in ("insertion_gain", "deletion_gain", "effect", "noise_r2", "noise_match"):
        if name in score:
            row[name] = score[name].mean()
    return xr.Dataset({name: float(value) for name, value in row.items()})


def above_shuffled(score: xr.Dataset) -> xr.DataArray:
    """Return by how much R² exceeds that of shuffled data (seed,); NaN where there are none."""
    r2 = score["baseline_r2"]
    if "shuffled data" not in r2["baseline"].values:
        return r2.isel(baseline=0, drop=True) * np.nan
    found: xr.DataArray = r2.sel(baseline="modes", drop=True) - r2.sel(
        baseline="shuffled data", drop=True
    )
    return found


@dataclass
class _Again:
    """Decomposes a layer once more, with the split of its results."""

    tree: xr.DataTree
    name: str
    given: Decomposition | None
    device: str | torch.device | None

    def __post_init__(self) -> None:
        self.modes = self.tree[f"layers/{self.name}/modes"].to_dataset()
        signs = self.modes.attrs["signs"].split(",") if "signs" in self.modes.attrs else None
        self.contribution = checked_contribution(self.tree, self.name, signs)
        self.modes = self.modes.sel(sign=self.contribution["sign"].values)
        self.method = self.given or decomposition_of(self.modes.attrs)

    def __call__(self, contribution: xr.DataArray, method: Decomposition) -> xr.Dataset:
        attrs = self.modes.attrs
        held_out, gap = float(attrs["held_out"]), int(attrs["gap"])
        return modes_of(contribution, method, held_out, gap, self.device, False)


def _limits(method: Decomposition, limits: Sequence[int] | None) -> list[int]:
    """Return the limits of active modes to try, the method's own among them; 0: it has none."""
    if not has(method, "active"):
        return [0]
    own: int = method.active  # type: ignore[attr-defined]
    wanted = LIMITS if limits is None else limits
    if any(limit < 1 for limit in wanted):
        raise RetinaCodecError(f"limits must be >= 1; got limits={list(wanted)}.")
    return sorted({own, *(int(limit) for limit in wanted)})
