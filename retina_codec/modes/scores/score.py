"""The scores of a decomposition: other seeds, other sparsity, controls, and the network itself."""

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
    CONTROLS,
    control_scores,
    pair_scores,
    pareto_scores,
)
from retina_codec.networks.borrowed import settled
from retina_codec.progress import progress_bar
from retina_codec.storage.results import layers_of, table

__all__ = ["ScoreSettings", "above_shuffled", "score_modes", "score_table"]


@dataclass(frozen=True, kw_only=True)
class ScoreSettings:
    """Rare options of `score_modes`.

    Parameters
    ----------
    limits : tuple of int
        Largest numbers of active modes to try, beside the decomposition's own.
    times : int
        Held-out times per mode at which its channels are held back.
    leading : int
        Number of modes whose channels are held back, those that explain most.
    """

    limits: tuple[int, ...] = (1, 2, 3, 5)
    times: int = 16
    leading: int = 6

    def __post_init__(self) -> None:
        """Validate the parameters."""
        if any(limit < 1 for limit in self.limits) or self.leading < 1 or self.times < 3:
            raise RetinaCodecError(
                "limits must be >= 1, leading >= 1 and times >= 3; got "
                f"limits={list(self.limits)}, leading={self.leading}, times={self.times}."
            )


@settled()
def score_modes(
    tree: xr.DataTree,
    *,
    network: Any = None,
    inputs: Any = None,
    decomposition: Decomposition | None = None,
    target: Any = None,
    method: Any = None,
    layers: Sequence[str] | None = None,
    seeds: int = 5,
    seed: int = 0,
    settings: ScoreSettings | None = None,
    device: str | torch.device | None = None,
    progress: bool | None = None,
) -> xr.DataTree:
    """Score the modes of every layer: other seeds, other sparsity, controls, and the network.

    The layer is decomposed again with every seed and every limit of active modes, on the same
    times; and by controls with as many modes, and as many active. With network and inputs, the
    channels of the leading modes are held back, and a network of noise (shuffled weights) is
    explained and decomposed in the same way.

    Parameters
    ----------
    tree : xr.DataTree
        Results of `decompose`.
    network : torch.nn.Module or Adapter, optional
        The network that was explained.
    inputs : as for `contribute`, optional
        What it was explained on, in the same order. Needed with ``network``.
    decomposition : Decomposition, optional
        How to decompose again; as the results say when left out.
    target : Target, optional
        What was explained; when left out, the surprisal whose mean and covariance the results
        hold. The network of noise is explained to the same (its own covariance, shrunk, for a
        surprisal).
    method : Method, optional
        What made the contributions: needed where their baseline is an array. The network of noise
        is explained by it too; when left out, by `IntegratedGradients` with the steps and the
        baseline of the results.
    layers : sequence of str, optional
        Which layers; all that have modes if left out.
    seeds : int
        Number of starting points, >= 2: ``seed``, ``seed`` + 1, ...
    seed : int
    settings : ScoreSettings, optional
        Rare options: limits of active modes, times and modes to hold back.
    device : str or torch.device, optional
        Where to decompose and to run the network; where the network lies when left out.
    progress : bool, optional
        None shows bars after 2 s, False never, True at once.

    Returns
    -------
    xr.DataTree
        A copy with ``/layers/<name>/score``: ``r2``, ``mean_active``, ``live_modes`` (limit,
        seed) and ``r2_feature`` (limit, seed, sign, channel) on held-out times (limit 0: the
        decomposition has none); ``mode_match`` and its like (pair), see `pair_scores`, NaN for a
        decomposition without ``seed``; ``baseline_r2``, ``baseline_active`` (baseline, seed): the
        controls, see `control_scores`. With the network also ``insertion`` and its like (mode,
        step), see `channel_scores`, and ``noise_r2``, ``noise_active``, ``noise_match`` (): the
        network of noise, the last one the mean matched cosine of its modes with those of the
        network.

    Raises
    ------
    RetinaCodecError
        If no layer has modes, the decomposition is not known, fewer than 2 seeds are asked for, or
        network and inputs do not belong to the results.

    References
    ----------
    Melander et al. 2026 (insertion and deletion of a mode's channels). Controls: see
    `FrozenDecoder`, `pair_scores`, `shuffled_network`.
    """
    if seeds < 2:
        raise RetinaCodecError(f"scores need at least 2 seeds to compare; got {seeds=}.")
    if (network is None) != (inputs is None):
        raise RetinaCodecError(
            "network and inputs belong together: give both, or neither for the scores that need "
            f"none; got network={type(network).__name__}, inputs={type(inputs).__name__}."
        )
    settings = ScoreSettings() if settings is None else settings
    refits = {
        name: Refit(tree, name, decomposition, device)
        for name in layers_of(tree, layers, part="modes")
    }
    of_network: dict[str, xr.Dataset] = {}
    if network is not None:
        from retina_codec.modes.scores.network import network_scores

        of_network = network_scores(
            tree,
            list(refits),
            network,
            inputs,
            again_of=refits,
            target=target,
            method=method,
            number=settings.leading,
            times=settings.times,
            seed=seed,
            device=device,
            progress=progress,
        )
    result = tree.copy()
    started = [seed + number for number in range(seeds)]
    for name, refit in refits.items():
        score = _refit_scores(refit, settings.limits, started, progress)
        score = _merge([score, of_network.get(name, xr.Dataset())])
        if "signs" in refit.modes.attrs:
            score = on_all_signs(score, tree[f"layers/{name}"].to_dataset()["sign"])
        attrs = refit.decomposition.settings() | {"seeds": seeds, "first_seed": seed}
        result[f"layers/{name}/score"] = xr.DataTree(score.assign_attrs(attrs))
    return result


class Refit:
    """Decomposes a layer once more, with the split of its results.

    Parameters
    ----------
    tree : xr.DataTree
        Results of `decompose`.
    name : str
        Of the layer.
    decomposition : Decomposition, optional
        As the results say when left out.
    device : str or torch.device, optional
    """

    def __init__(
        self,
        tree: xr.DataTree,
        name: str,
        decomposition: Decomposition | None,
        device: str | torch.device | None,
    ) -> None:
        self.name, self.device = name, device
        self.modes = tree[f"layers/{name}/modes"].to_dataset()
        signs = self.modes.attrs["signs"].split(",") if "signs" in self.modes.attrs else None
        self.contribution = checked_contribution(tree, name, signs)
        self.modes = self.modes.sel(sign=self.contribution["sign"].values)
        self.decomposition = decomposition or decomposition_of(self.modes.attrs)

    def __call__(self, contribution: xr.DataArray, decomposition: Decomposition) -> xr.Dataset:
        """Return the modes of contributions (sample, sign, channel) and their scores."""
        attrs = self.modes.attrs
        held_out, gap = float(attrs["held_out"]), int(attrs["gap"])
        return modes_of(contribution, decomposition, held_out, gap, self.device, False)


def _refit_scores(
    refit: Refit, limits: Sequence[int], seeds: list[int], progress: bool | None
) -> xr.Dataset:
    """Return the scores of one layer that need no network."""
    decomposition = refit.decomposition
    own = int(decomposition.settings().get("active", 0))  # 0: it has no limit
    tried = sorted({own, *limits}) if own else [0]
    fits: dict[tuple[int, int], xr.Dataset] = {}
    total = len(seeds) * (len(tried) + len(CONTROLS) - 1)
    description = f"scores of {refit.name}"
    with progress_bar(range(total), description=description, progress=progress) as bar:
        for limit in tried:
            for seed in seeds:
                varied = decomposition.vary(seed=seed, **({"active": limit} if limit else {}))
                fits[limit, seed] = refit(refit.contribution, varied)
                bar.update()
        at_own = [fits[own, seed] for seed in seeds]
        controls = control_scores(
            refit.contribution, at_own, decomposition, seeds, refit, bar.update
        )
    pairs = pair_scores(at_own, seeds, seeds[0])
    if not decomposition.has("seed"):  # all fits are the same
        pairs = pairs * np.nan
    score = _merge([pareto_scores(fits, tried, seeds), pairs, controls])
    return score.assign(limit_own=((), own, {"units": "count"}))


def _merge(parts: Sequence[xr.Dataset]) -> xr.Dataset:
    """Join scores with the same labels."""
    return xr.merge(parts, join="exact", compat="equals", combine_attrs="drop")


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
        ``loading_match``, ``collisions``, ``r2_<control>``; ``r2_above_shuffled``, by how much R²
        exceeds that of shuffled data, seed by seed (below 0: shuffled data are rebuilt better), and
        its ``r2_above_shuffled_sd``: only this part of R² speaks for modes; with a network
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
