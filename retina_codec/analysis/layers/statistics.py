"""Measure sparsity, sign correlation and dimensionality of every layer in one pass.

Notation: n inputs, C⁺ and C⁻ summed contributions of a channel, C = C⁺ + C⁻, A activation.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from retina_codec.analysis.layers.dimensionality import jackknife_error, left_out, measure
from retina_codec.analysis.layers.sparsity import hoyer
from retina_codec.analysis.layers.varying import constant_shares, gather_varying, normal_sparsity
from retina_codec.errors import RetinaCodecError
from retina_codec.nulls import q_values
from retina_codec.progress import progress_bar
from retina_codec.statistics.correlation import paired_correlations
from retina_codec.statistics.resampling import (
    flip_p_values,
    mean_and_error,
    percentiles,
    resampled_means,
)
from retina_codec.storage.results import (
    QUANTITIES,
    class_codes,
    input_dim,
    layer_dataset,
    layer_sites,
    layers_of,
    read_quantities,
    sample_labels,
)

__all__ = ["QUANTITIES", "GatheredLayer", "gather_layer", "measure_contributions"]

Floats = npt.NDArray[np.float64]

MEASURES = ("components", "participation_ratio")


def measure_contributions(
    tree: xr.DataTree,
    *,
    labels: Any = None,
    layers: str | Sequence[str] | None = None,
    variance: float = 0.95,
    bootstraps: int = 1000,
    class_draws: int = 200,
    block: int = 1,
    seed: int = 0,
    progress: bool | None = None,
) -> xr.Dataset:
    """Measure sparsity, sign correlation and dimensionality by layer.

    Sparsity of an input: Hoyer over channels, ``(√d − ‖v‖₁/‖v‖₂) / (√d − 1)``; of its varying
    part: the same of ``v − v̄``, v̄ the mean over the same inputs. Sign correlation of
    an input: Pearson r over channels of C⁺ and |C⁻|. Dimensionality: how many principal components
    of the (class, channel) averages, centered over classes, reach ``variance``; and the
    participation ratio ``(Σ λ)² / Σ λ²`` of their variances λ.

    Parameters
    ----------
    tree : xr.DataTree
        Results of `contribute` with `ChannelSums`; may lie in a file, and is read in chunks.
    labels : array-like of str, (sample,), optional
        Class of every input, "" for none; the coordinate ``label`` of the results when left out.
        Without either, dimensionality is left out.
    layers : str or sequence of str, optional
        All when left out.
    variance : float
        Share of the variance that the components must reach.
    bootstraps : int
        Draws of inputs for intervals, and of signs for p.
    class_draws : int
        Sets of classes that are left out in turn, a fifth each.
    block : int
        Inputs that are drawn together: 1 for images. Neighbouring times of a movie are alike;
        take as many as 2 s hold, or intervals are too narrow.
    seed : int
    progress : bool, optional
        None shows a bar after 2 s, False never, True at once.

    Returns
    -------
    xr.Dataset, dims (layer, quantity[, bound])
        ``quantity``: "contribution" (C, what the paper shows), "excitatory" (C⁺), "inhibitory"
        (C⁻), "activation". Means over inputs: ``sparsity``, ``sparsity_sem``,
        ``sparsity_interval`` (95 %, bootstrap); ``sparsity_undefined``, inputs that are zero in
        every channel and take no part. ``difference`` to the activations of the same inputs with
        ``difference_interval``, ``p_value`` (two-sided, signs of differences flipped) and
        ``q_value`` (Benjamini-Hochberg over layers and quantities); NaN for activations.
        All of these once more for the varying part, with names that begin with ``varying_``; its
        ``..._undefined`` are inputs that equal the mean. ``constant_share``, ``..._sem``,
        ``..._interval``: ``‖v̄‖² / mean ‖v‖²``, how much is the same for every input.
        ``normal_sparsity`` (layer): what normal numbers have, to compare the varying part with.
        ``sign_correlation``, ``..._sem``, ``..._interval``, ``..._undefined`` (layer).
        ``components``, ``participation_ratio``, each with ``..._sem`` and ``..._interval`` (± 1.96
        standard errors of the delete-d jackknife over classes; NaN below five classes) and
        ``..._difference``, ``..._difference_interval`` to activations. ``channels`` (layer) and
        ``classes`` (). Along ``layer``: ``site``, where the results know it.

    Raises
    ------
    RetinaCodecError
        If the results do not hold what is needed, or labels do not fit.

    Notes
    -----
    Components can be at most classes − 1, and averages of few inputs differ by chance, which
    raises the count. The interval is for other classes, not for other images. The published
    figure shows standard deviations over inputs where it names them SEM.

    A vector that is the same for every input, as in the residual stream of transformers, can make
    activations look sparse or dense, although it does not depend on the input; so sparsity is
    also measured without it. Intervals of the varying part take v̄ as given. Channels whose
    size varies more than that of others still count as sparseness. See `gather_varying`.

    References
    ----------
    Melander et al. 2026, CODEC, section 3, Fig. 3; 10.5.1, Fig. S7D–F; Fig. S11. Hoyer 2004, J.
    Mach. Learn. Res. 5:1457. Shao, Wu 1989, Ann. Statist. 17:1176.
    """
    if not 0 < variance <= 1 or bootstraps < 1 or class_draws < 1 or block < 1:
        raise RetinaCodecError(
            "variance must lie in (0, 1] and bootstraps, class_draws and block be at least 1; got "
            f"{variance=}, {bootstraps=}, {class_draws=}, {block=}."
        )
    names = layers_of(tree, layers)
    found, varying = [], []
    for name in progress_bar(names, description="statistics", progress=progress):
        found.append(gather_layer(tree, name, labels))
        varying.append(gather_varying(tree, name, found[-1].overall))
    inputs = len(found[0].values)
    if inputs < 2 * block:
        raise RetinaCodecError(
            f"statistics need at least two blocks of inputs; got {inputs} inputs and {block=}."
        )
    values = np.stack([one.values for one in found], 1)  # (input, layer, 5)
    draws = (bootstraps, seed, block)
    data = _sparsities(values[..., :4], "", *draws) | _signs(values[..., 4], *draws)
    data |= _sparsities(np.stack([one.sparsity for one in varying], 1), "varying_", *draws)
    data |= constant_shares(varying, block)
    attrs: dict[str, Any] = {
        "inputs": inputs,
        "bootstraps": bootstraps,
        "block": block,
        "seed": seed,
        "null": "signs of paired differences flipped",
    }
    if found[0].classes:
        kept, scale = left_out(len(found[0].classes), class_draws, seed)
        data |= _per_class(found, variance, kept, scale)
        data["classes"] = ((), len(found[0].classes), {"units": "count"})
        attrs |= {"variance": variance, "sets_of_classes": len(kept)}
    else:
        attrs["dimensionality"] = "not measured: inputs have no labels"
    channels = [one.channels for one in found]
    data["channels"] = ("layer", channels, {"units": "count"})
    about = {"units": "1", "long_name": "mean Hoyer sparsity of normal numbers"}
    data["normal_sparsity"] = ("layer", [normal_sparsity(count) for count in channels], about)
    sites = ("layer", layer_sites(tree, names))
    coords = {"layer": names, "site": sites, "quantity": list(QUANTITIES), "bound": ["low", "high"]}
    return xr.Dataset(data, coords=coords, attrs=attrs)


@dataclass
class GatheredLayer:
    """Measurements of one pass over a layer."""

    values: Floats  # (input, 5): sparsity by quantity, sign correlation
    channels: int
    classes: list[str]
    overall: dict[str, Floats]  # (channel,) by quantity: mean over all inputs without NaN
    means: dict[str, Floats] = field(default_factory=dict)  # (class, channel) by quantity


def gather_layer(tree: xr.DataTree, name: str, labels: Any) -> GatheredLayer:
    """Measure a layer in one pass."""
    layer = layer_dataset(tree, name)
    dim = input_dim(layer["contribution"])
    inputs, channels = int(layer.sizes[dim]), int(layer.sizes["channel"])
    known = sample_labels(tree, labels, name, inputs)
    codes, classes = class_codes(known) if known is not None else (None, [])
    values = np.empty((inputs, len(QUANTITIES) + 1))
    sums = {quantity: np.zeros((len(classes), channels)) for quantity in QUANTITIES}
    totals = {quantity: np.zeros(channels) for quantity in QUANTITIES}
    counts = dict.fromkeys(QUANTITIES, 0)
    for part, chunk in read_quantities(layer):
        member = None if codes is None else _membership(codes[part], len(classes))
        for number, (quantity, some) in enumerate(chunk.items()):
            values[part, number] = hoyer(some)
            fine = some[np.isfinite(some).all(axis=1)]
            totals[quantity] += fine.sum(axis=0)
            counts[quantity] += len(fine)
            if member is not None:
                sums[quantity] += member @ some
        values[part, -1] = paired_correlations(chunk["excitatory"], -chunk["inhibitory"])
    overall = {key: total / max(1, counts[key]) for key, total in totals.items()}
    if codes is None:
        return GatheredLayer(values, channels, [], overall)
    count = np.bincount(codes[codes >= 0], minlength=len(classes))[:, None]
    means = {quantity: total / count for quantity, total in sums.items()}
    return GatheredLayer(values, channels, classes, overall, means)


def _membership(codes: npt.NDArray[np.intp], classes: int) -> Any:
    """Return a sparse (class, input) table of ones."""
    from scipy.sparse import csr_array

    fine = np.flatnonzero(codes >= 0)
    return csr_array((np.ones(len(fine)), (codes[fine], fine)), shape=(classes, len(codes)))


def _sparsities(
    values: Floats, prefix: str, bootstraps: int, seed: int, block: int
) -> dict[str, Any]:
    """Label means over inputs (input, layer, 4), their errors, and differences to activations."""
    differences = values[..., :3] - values[..., 3:]
    columns = np.concatenate([values, differences], 2)  # (input, layer, 7)
    shape = columns.shape[1:]
    flat = columns.reshape(len(columns), -1)
    mean, error = (part.reshape(shape) for part in mean_and_error(flat))
    ends = percentiles(resampled_means(flat, bootstraps, seed, block)).reshape(*shape, 2)
    p = flip_p_values(differences.reshape(len(columns), -1), bootstraps, seed, block)
    p = p.reshape(-1, 3)
    undefined = (~np.isfinite(values)).sum(axis=0)
    one, both = ("layer", "quantity"), ("layer", "quantity", "bound")

    def padded(some: Floats) -> Floats:
        """Add the activations themselves, which have no difference."""
        return np.concatenate([some, np.full_like(some[:, :1], np.nan)], 1)

    def named(words: str) -> dict[str, str]:
        rest = ", less the mean over inputs" if prefix else ""
        return {"units": "1"} | ({"long_name": words + rest} if words else {})

    data = {
        "sparsity": (one, mean[:, :4], named("mean Hoyer sparsity over channels")),
        "sparsity_sem": (one, error[:, :4], named("")),
        "sparsity_interval": (both, ends[:, :4], named("")),
        "sparsity_undefined": (one, undefined, {"units": "count"}),
        "difference": (one, padded(mean[:, 4:]), named("sparsity less that of activations")),
        "difference_interval": (both, padded(ends[:, 4:]), named("")),
        "p_value": (one, padded(p), named("p of the difference, signs flipped")),
        "q_value": (one, padded(q_values(p)), named("q, Benjamini-Hochberg")),
    }
    return {prefix + key: value for key, value in data.items()}


def _signs(values: Floats, bootstraps: int, seed: int, block: int) -> dict[str, Any]:
    """Label means over inputs (input, layer) of the sign correlation, and their errors."""
    mean, error = mean_and_error(values)
    ends = percentiles(resampled_means(values, bootstraps, seed, block))
    units = {"units": "1"}
    about = units | {"long_name": "mean Pearson r of C+ and |C-| over channels"}
    return {
        "sign_correlation": ("layer", mean, about),
        "sign_correlation_sem": ("layer", error, units),
        "sign_correlation_interval": (("layer", "bound"), ends, units),
        "sign_correlation_undefined": (
            "layer",
            (~np.isfinite(values)).sum(axis=0),
            {"units": "count"},
        ),
    }


def _per_class(
    found: list[GatheredLayer], variance: float, kept: list[npt.NDArray[np.intp]], scale: float
) -> dict[str, Any]:
    """Label dimensionality of class averages, and its difference to activations."""
    shape = (len(found), len(QUANTITIES), 2)
    whole, error, gap, gap_error = (np.full(shape, np.nan) for _ in range(4))
    for row, one in enumerate(found):
        measured = [measure(one.means[name], variance, kept, scale) for name in QUANTITIES]
        last = measured[-1]
        for column, dimensions in enumerate(measured):
            whole[row, column], error[row, column] = dimensions.whole, dimensions.error()
            if dimensions is not last:
                gap[row, column] = dimensions.whole - last.whole
                gap_error[row, column] = jackknife_error(dimensions.parts - last.parts, scale)
    one_dims, both_dims = ("layer", "quantity"), ("layer", "quantity", "bound")
    data: dict[str, Any] = {}
    texts = (f"components to {variance:.0%} of the variance of class averages", "(Σ λ)² / Σ λ²")
    for number, (name, text) in enumerate(zip(MEASURES, texts, strict=True)):
        units = {"units": "count" if name == "components" else "1"}
        for prefix, values, errors in (("", whole, error), ("_difference", gap, gap_error)):
            middle, half = values[..., number], 1.96 * errors[..., number]
            ends = np.stack([middle - half, middle + half], -1)
            data[name + prefix] = (one_dims, middle, units | {"long_name": text})
            data[f"{name}{prefix}_interval"] = (both_dims, ends, units)
            if not prefix:
                data[f"{name}_sem"] = (one_dims, errors[..., number], units)
    return data
