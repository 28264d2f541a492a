"""Insert and delete the channels of a mode in the network, at the times where it is strong.

Notation: b inputs (times), c channels, w weights of a mode, z its loading, F target, x′ baseline.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import xarray as xr

from retina_codec.methods.baselines import Baseline, resolve_baselines
from retina_codec.networks.borrowed import reference_parameter
from retina_codec.probing.batches import Batch, map_tensors, tensors_of, to_point
from retina_codec.probing.from_layer import FromLayer
from retina_codec.probing.inputs import Source
from retina_codec.probing.interventions import hold_back
from retina_codec.probing.points import checked_value
from retina_codec.statistics.correlation import paired_correlations
from retina_codec.statistics.resampling import percentiles
from retina_codec.targets.base import Target

__all__ = [
    "TargetWithout",
    "channel_scores",
    "insertion_and_deletion",
    "levels",
    "single_effects",
    "strong_times",
]

STEPS = 8  # largest number of steps in a curve


SPACING = 10  # samples between two times of a mode, so that they are different events


CONTROLS = 3  # random orders of channels


RESAMPLES = 1000


SINGLE = 16  # channels silenced alone, the heaviest of the mode


class TargetWithout:
    """F at some inputs, with any channels of a layer held at their activation at the baseline.

    Parameters
    ----------
    above : FromLayer
        The network from the layer upward.
    point : Batch
        Inputs (b, ...), at which the target is bound.
    target : Target
    baseline : Baseline
        x′; F is averaged over several.
    """

    def __init__(self, above: FromLayer, point: Batch, target: Target, baseline: Baseline) -> None:
        function, self._above = above.function, above
        self._axis = function.survey[above.layer].channel_axis
        self._kept = above.keep(point)
        self._target = target.bind(self._kept.outputs)
        if any(part.is_floating_point() for part in tensors_of(point)):
            begins = resolve_baselines(baseline, point)
        else:  # words by number that no embedding takes
            begins = [map_tensors(lambda x: torch.zeros_like(x[:1]), point)]
        self._levels = [function.activations(begin)[above.layer] for begin in begins]
        self._known: dict[bytes, np.ndarray] = {}

    def __call__(self, removed: np.ndarray) -> np.ndarray:
        """Return F (b,) without the channels ``removed`` (c,) bool; computed once."""
        removed = np.asarray(removed, bool)
        key = removed.tobytes()
        if key not in self._known:
            values = []
            for level in self._levels:
                keep = torch.as_tensor(~removed[None]).to(level)
                change = hold_back(keep, self._axis, level)
                if not self._known:
                    self._above.check(self._kept, change)
                outputs = self._above.run(self._kept, change)
                values.append(checked_value(self._target, outputs).double())
            self._known[key] = torch.stack(values).mean(0).cpu().numpy()
        return self._known[key]


def levels(channels: int) -> np.ndarray:
    """Return how many channels are touched at each step of a curve, from 0 to all."""
    return np.unique(np.linspace(0, channels, min(channels, STEPS) + 1).round().astype(int))


def insertion_and_deletion(value: Any, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Measure F while channels come or go in an order.

    Parameters
    ----------
    value : callable
        ``removed (c,) bool -> F (b,)``.
    order : array (c,)
        Channels, the first to come or go first.

    Returns
    -------
    insertion : array (step, b)
        F with all channels silenced but the first k of the order.
    deletion : array (step, b)
        F with the first k silenced.
    """
    insertion, deletion = [], []
    for count in levels(len(order)):
        gone = np.zeros(len(order), bool)
        gone[order[:count]] = True
        deletion.append(value(gone))
        insertion.append(value(~gone))
    return np.array(insertion), np.array(deletion)


def single_effects(value: Any, channels: np.ndarray, count: int) -> np.ndarray:
    """Measure F − F without one channel, for each of ``channels``: array (b, channel)."""
    whole = value(np.zeros(count, bool))
    effects = []
    for channel in channels:
        gone = np.zeros(count, bool)
        gone[channel] = True
        effects.append(whole - value(gone))
    return np.stack(effects, 1)


def strong_times(loading: np.ndarray, number: int) -> np.ndarray:
    """Return up to ``number`` samples where a mode loads most, at least 10 apart, in order."""
    chosen: list[int] = []
    for place in np.argsort(-loading, kind="stable"):
        if len(chosen) == number or loading[place] <= 0:
            break
        if all(abs(int(place) - other) >= SPACING for other in chosen):
            chosen.append(int(place))
    return np.array(sorted(chosen), dtype=np.intp)


def channel_scores(
    above: FromLayer,
    source: Source,
    target: Target,
    baseline: Baseline,
    modes: xr.Dataset,
    *,
    number: int,
    times: int,
    seed: int,
    step: Callable[[], object],
) -> xr.Dataset:
    """Insert and delete the channels of the leading modes in the network.

    A channel that is deleted, or not yet inserted, is held at its activation at the baseline x′
    from which the contributions were measured; F is averaged over several baselines.

    At the held-out times where a mode is strongest, channels go (deletion) or come (insertion) in
    the order of w, largest first; share = (F − F_none) / (F_all − F_none), of means over times. A
    random mode is w permuted over channels. Gain: area between the two curves, positive
    where the mode is better than random modes. Effects: Pearson r over times and channels between
    the mode's share z w_c and the fall of F when channel c alone is silenced.

    Parameters
    ----------
    above : FromLayer
        The network from the layer of the modes upward.
    source : Source
        The inputs, in the order of the modes' samples.
    target : Target
    baseline : Baseline
        x′, without the word "mean"; see `prepare_baseline`.
    modes : xr.Dataset
        ``dictionary``, ``loading``, ``split``.
    number : int
        Modes, the leading ones.
    times : int
        Per mode.
    seed : int
        Of random modes and resampling.
    step : callable
        Called after each mode.

    Returns
    -------
    xr.Dataset
        ``insertion``, ``deletion``, ``insertion_control``, ``deletion_control`` (mode, step);
        ``insertion_gain``, ``deletion_gain``, ``effect``, ``effect_control`` (mode) and the 95 %
        intervals ``..._interval`` (mode, bound) over resampled times; ``silenced`` (step), share
        of channels. NaN where a mode has fewer than 3 such times or F does not depend on them.
    """
    generator = np.random.default_rng(seed)
    here = reference_parameter(above.function.network.module)
    held = np.flatnonzero(modes["split"].values == "held_out")
    weights = modes["dictionary"].sum("sign").values.astype(float)  # (mode, c)
    loading = modes["loading"].values.astype(float)
    number = min(number, len(weights))
    places = levels(weights.shape[1])
    rows: list[dict[str, np.ndarray]] = []
    for mode in range(number):
        chosen = held[strong_times(loading[held, mode], times)]
        if len(chosen) < 3:
            rows.append(_nothing(len(places)))
        else:
            inputs = to_point(_inputs_at(source, chosen), here.device, here.dtype)
            value = TargetWithout(above, above.function.enter(inputs), target, baseline)
            share = np.outer(loading[chosen, mode], weights[mode])  # (b, c), expected effects
            rows.append(_one_mode(value, share, weights[mode], places, generator))
        step()
    interval = ("insertion_gain", "deletion_gain", "effect")
    dims = {name: ("mode", "step") for name in ("insertion", "deletion")}
    dims |= {f"{name}_control": ("mode", "step") for name in ("insertion", "deletion")}
    dims |= {f"{name}_interval": ("mode", "bound") for name in interval}
    return xr.Dataset(
        {
            name: (dims.get(name, ("mode",)), np.stack([row[name] for row in rows]), {"units": "1"})
            for name in rows[0]
        },
        coords={
            "mode": modes["mode"].values[:number],
            "silenced": ("step", places / weights.shape[1], {"units": "1"}),
            "bound": ["low", "high"],
        },
    )


def _one_mode(
    value: Any,
    share: np.ndarray,
    weight: np.ndarray,
    places: np.ndarray,
    generator: np.random.Generator,
) -> dict[str, np.ndarray]:
    """Score one mode; curves are kept per time, for resampling."""
    curves = np.array(insertion_and_deletion(value, np.argsort(-weight, kind="stable")))
    orders = [generator.permutation(len(weight)) for _ in range(CONTROLS)]
    control = np.mean([insertion_and_deletion(value, order) for order in orders], 0)
    single = np.sort(np.argsort(-np.abs(weight), kind="stable")[:SINGLE])
    effects = single_effects(value, single, len(weight))  # (b, channel)
    permuted = share[:, generator.permutation(share.shape[1])]

    def summary(times: np.ndarray) -> dict[str, np.ndarray]:
        whole, none = curves[1, 0, times].mean(), curves[0, 0, times].mean()
        span = whole - none if whole > none else np.nan
        (insert, delete), (insert_c, delete_c) = (
            (some[..., times].mean(-1) - none) / span for some in (curves, control)
        )
        x = places / places[-1]
        found = {
            "insertion": insert,
            "deletion": delete,
            "insertion_control": insert_c,
            "deletion_control": delete_c,
            "insertion_gain": np.trapezoid(insert - insert_c, x),
            "deletion_gain": np.trapezoid(delete_c - delete, x),
            "effect": paired_correlations(share[times][:, single].ravel(), effects[times].ravel()),
            "effect_control": paired_correlations(
                permuted[times][:, single].ravel(), effects[times].ravel()
            ),
        }
        return {name: np.asarray(numbers) for name, numbers in found.items()}

    count = effects.shape[0]
    found = summary(np.arange(count))
    draws = generator.integers(0, count, (RESAMPLES, count))
    again = [summary(draw) for draw in draws]
    for name in ("insertion_gain", "deletion_gain", "effect"):
        drawn = np.array([row[name] for row in again])
        drawn = drawn[np.isfinite(drawn)]
        found[f"{name}_interval"] = percentiles(drawn) if len(drawn) else np.full(2, np.nan)
    return found


def _nothing(steps: int) -> dict[str, np.ndarray]:
    """Return NaN for a mode that cannot be scored."""
    curves = ("insertion", "deletion", "insertion_control", "deletion_control")
    single = ("insertion_gain", "deletion_gain", "effect", "effect_control")
    found = {name: np.full(steps, np.nan) for name in curves}
    found |= {name: np.asarray(np.nan) for name in single}
    return found | {f"{name}_interval": np.full(2, np.nan) for name in single[:3]}


def _inputs_at(source: Source, places: np.ndarray) -> Batch:
    """Read single inputs of a source into one batch."""
    each = [next(source.part(int(place), int(place) + 1).batches(1)) for place in places]
    joined: Batch = map_tensors(lambda *some: torch.cat(some), each[0], *each[1:])
    return joined
