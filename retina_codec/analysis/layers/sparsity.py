"""Hoyer sparsity of vectors, and of attention heads against random groups of dimensions.

Notation: v (n,) a vector; H heads of d dimensions each; P random groupings.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from retina_codec.errors import RetinaCodecError
from retina_codec.nulls import benjamini_hochberg
from retina_codec.progress import progress_bar
from retina_codec.statistics.resampling import percentiles
from retina_codec.storage.results import input_dim, layer_dataset, layers_of, read

__all__ = ["head_sparsity", "hoyer", "hoyer_sparsity"]

Floats = npt.NDArray[np.float64]

HEAD_BYTES = 2**24  # of one chunk: each becomes P times as many sums


def hoyer_sparsity(values: xr.DataArray, dim: str = "channel") -> xr.DataArray:
    """Compute Hoyer sparsity along one dim.

    ``(√n − ‖v‖₁ / ‖v‖₂) / (√n − 1)``: 0 if all sizes are equal, 1 if one alone is not zero.

    Parameters
    ----------
    values : xr.DataArray
        Any unit and sign.
    dim : str
        The dim that is summed over; n is its size.

    Returns
    -------
    xr.DataArray
        In [0, 1], dimensionless; NaN for a vector of zeros, one that holds NaN, or n = 1.

    Raises
    ------
    RetinaCodecError
        If there is no such dim.

    References
    ----------
    Hoyer 2004, J. Mach. Learn. Res. 5:1457, eq. 3. Melander et al. 2026, CODEC, section 3.
    """
    if dim not in values.dims:
        raise RetinaCodecError(f"sparsity needs the dim {dim!r}; got dims {values.dims}.")
    last = values.transpose(..., dim)
    found = hoyer(last.to_numpy().astype(np.float64))
    coords = {key: one for key, one in values.coords.items() if dim not in one.dims}
    return xr.DataArray(
        found,
        dims=last.dims[:-1],
        coords=coords,
        attrs={"units": "1", "long_name": "Hoyer sparsity"},
    )


def hoyer(values: Floats) -> Floats:
    """Compute Hoyer sparsity along the last axis; see `hoyer_sparsity`."""
    size = np.abs(values)
    largest = size.max(axis=-1, keepdims=True, initial=0.0)
    root = np.sqrt(values.shape[-1])
    with np.errstate(divide="ignore", invalid="ignore"):  # 0 / 0 is NaN, as it should be
        size = size / largest  # squares of tiny values would vanish
        ratio = size.sum(axis=-1) / np.sqrt(np.square(size).sum(axis=-1))
        found: Floats = np.asarray((root - ratio) / (root - 1))
    return found


def head_sparsity(
    results: xr.DataTree | Mapping[str, xr.DataArray] | xr.DataArray,
    heads: int | Mapping[str, int] | None = None,
    *,
    layers: str | Sequence[str] | None = None,
    draws: int = 100,
    seed: int = 0,
    progress: bool | None = None,
) -> xr.Dataset:
    """Compare the sparsity of attention heads with that of random groups of dimensions.

    Hoyer sparsity of ``(Σ_{j in head 1} v_j, ..., Σ_{j in head H} v_j)`` for every input; the null
    assigns the dimensions to H groups of the same size at random, P times, the same groups for
    all inputs.

    Parameters
    ----------
    results : xr.DataTree, or DataArray, or DataArrays by name
        Results of `contribute` at attention sites: ``channel`` counts the dimensions of all
        heads, one head after the other. An array is (sample, channel) or (sample, sign, channel);
        signs and any further dim (tokens) are summed over first.
    heads : int or dict, optional
        H; by layer where layers differ. When left out, as recorded for attention sites.
    layers : str or sequence of str, optional
        Layers of a tree; all when left out, or all whose heads are known.
    draws : int
        P.
    seed : int
        Of the groupings.
    progress : bool, optional
        None shows a bar after 2 s, False never, True at once.

    Returns
    -------
    xr.Dataset, dims (layer, quantity[, bound])
        ``quantity`` is "contribution" and "activation" (for a tree) or "values". ``sparsity``,
        mean over inputs; ``sparsity_sem``, its standard error over inputs; ``null_mean`` and
        ``null_interval``, mean and middle 95 % over groupings of the same mean; ``excess`` =
        sparsity − null_mean and ``excess_sem``, over inputs; ``excess_spread``, standard deviation
        of the excess over inputs; ``p_value`` = (1 + #{null ≥ sparsity}) / (1 + P), one-sided:
        heads specialised more than by chance; ``q_value`` over layers and quantities;
        ``undefined``, inputs whose sums are all zero.
        Dimensionless.

    Raises
    ------
    RetinaCodecError
        If H does not divide the channels, or draws < 1.

    References
    ----------
    Melander et al. 2026, CODEC, section 10.5.4 and Fig. S8.
    """
    if draws < 1:
        raise RetinaCodecError(f"draws must be at least 1; got {draws=}. 100 is usual.")
    if heads is None:
        heads = _known_heads(results)
        layers = list(heads) if layers is None else layers
    sources = _sources(results, layers)
    names = list(next(iter(sources.values())))
    rows: dict[str, list[list[float]]] = {}
    for layer, arrays in progress_bar(sources.items(), description="heads", progress=progress):
        count = heads if isinstance(heads, int) else heads.get(layer, 0)
        found = [_one_site(arrays[name], layer, count, draws, seed) for name in names]
        for key in found[0]:
            rows.setdefault(key, []).append([one[key] for one in found])
    words = {
        "sparsity": "mean Hoyer sparsity over heads",
        "sparsity_sem": "standard error over inputs",
        "null_mean": "mean sparsity of random groups",
        "null_interval": "middle 95 % of random groupings",
        "excess": "sparsity of heads less that of random groups",
        "excess_sem": "standard error over inputs",
        "excess_spread": "standard deviation over inputs",
        "p_value": "p, one-sided, random groupings",
        "q_value": "q, Benjamini-Hochberg over layers and quantities",
        "undefined": "inputs without any head that is not zero",
    }
    rows["q_value"] = benjamini_hochberg(np.array(rows["p_value"])).tolist()
    data = {
        key: (
            ("layer", "quantity", *(("bound",) if key.endswith("interval") else ())),
            np.array(rows[key]),
            {"units": "count" if key == "undefined" else "1", "long_name": text},
        )
        for key, text in words.items()
    }
    return xr.Dataset(
        data,
        coords={"layer": list(sources), "quantity": names, "bound": ["low", "high"]},
        attrs={
            "heads": [heads if isinstance(heads, int) else heads[name] for name in sources],
            "null": "dimensions in random groups",
            "draws": draws,
            "seed": seed,
        },
    )


def _known_heads(results: Any) -> dict[str, int]:
    """Return the heads of the attention sites of a tree."""
    names = layers_of(results) if isinstance(results, xr.DataTree) else []
    attrs = {name: results["layers"].children[name].attrs for name in names}
    found = {name: int(about["heads"]) for name, about in attrs.items() if "heads" in about}
    if not found:
        raise RetinaCodecError(
            "the number of heads is not known here; give heads=, or explain layers='attention'."
        )
    return found


def _sources(
    results: xr.DataTree | Mapping[str, xr.DataArray] | xr.DataArray,
    layers: str | Sequence[str] | None,
) -> dict[str, dict[str, xr.DataArray]]:
    """Return arrays by layer and quantity."""
    if isinstance(results, xr.DataTree):
        found = {}
        for name in layers_of(results, layers):
            layer = layer_dataset(results, name)
            found[name] = {key: layer[key] for key in ("contribution", "activation")}
        return found
    if isinstance(results, xr.DataArray):
        results = {str(results.name or "values"): results}
    return {str(name): {"values": values} for name, values in results.items()}


def _one_site(
    values: xr.DataArray, layer: str, heads: int, draws: int, seed: int
) -> dict[str, float]:
    """Compare the heads of one layer with random groups."""
    if "channel" not in values.dims:
        raise RetinaCodecError(
            f"layer {layer!r} must have a dim 'channel' with the dimensions of all heads; got "
            f"dims {values.dims}."
        )
    dim, channels = input_dim(values), int(values.sizes["channel"])
    if isinstance(heads, bool) or heads < 2 or channels % heads:
        raise RetinaCodecError(
            f"heads must be a whole number >= 2 that divides the {channels} channels of layer "
            f"{layer!r}; got {heads}. Give the number of heads of this model, and explain the "
            "input of the attention's output projection."
        )
    random = np.random.default_rng(seed)
    orders = np.stack([np.arange(channels), *(random.permutation(channels) for _ in range(draws))])
    group = np.zeros((channels, (1 + draws) * heads))  # which dimension goes to which group
    place = np.arange(channels) // (channels // heads)
    for number, order in enumerate(orders):
        group[order, number * heads + place] = 1.0
    observed, null = [], []
    sums, known = np.zeros(draws), 0
    ordered = values.transpose(dim, "channel", ...)
    for _, chunk in read({"v": ordered}, dim, size=HEAD_BYTES):
        v = chunk["v"].reshape(*chunk["v"].shape[:2], -1).sum(axis=2)  # (input, channel)
        found = hoyer((v @ group).reshape(len(v), 1 + draws, heads))
        found = found[np.isfinite(found).all(axis=1)]
        observed.append(found[:, 0])
        null.append(found[:, 1:].mean(axis=1))
        sums += found[:, 1:].sum(axis=0)
        known += len(found)
    sparsity, by_chance = np.concatenate(observed), np.concatenate(null)
    if known < 2:
        raise RetinaCodecError(
            f"layer {layer!r} needs at least two inputs with values that are not zero; it has "
            f"{known}."
        )
    excess, drawn = sparsity - by_chance, sums / known
    return {
        "sparsity": float(sparsity.mean()),
        "sparsity_sem": float(sparsity.std(ddof=1) / np.sqrt(known)),
        "null_mean": float(drawn.mean()),
        "null_interval": percentiles(drawn),  # type: ignore[dict-item]  # two numbers
        "excess": float(excess.mean()),
        "excess_sem": float(excess.std(ddof=1) / np.sqrt(known)),
        "excess_spread": float(excess.std(ddof=1)),
        "p_value": float((1 + (drawn >= sparsity.mean()).sum()) / (1 + draws)),
        "undefined": float(values.sizes[dim] - known),
    }
