"""Compare a network's predictions with recorded rates, and write its model card."""

import numpy as np
import numpy.typing as npt
import xarray as xr

from retina_codec.errors import RetinaCodecError, in_words
from retina_codec.networks.retina.model import RetinaCNN
from retina_codec.networks.retina.prediction import predict_rates
from retina_codec.recordings.quality.repeats import noise_ceiling
from retina_codec.statistics.correlation import pearson
from retina_codec.statistics.power import count_variability

__all__ = ["agreement", "cell_certainty", "network_card", "prediction_quality", "split_of"]

Floats = npt.NDArray[np.float64]


def split_of(recording: xr.DataTree, split: str) -> xr.DataTree:
    """Return a part of a recording; an error names the parts that it has."""
    if split not in recording.children:
        raise RetinaCodecError(
            f"{in_words('split', '--split')} must be a part of the recording; got "
            f"{in_words(f'{split=}', f'--split {split}')}. "
            f"This recording has {sorted(set(recording.children) & {'train', 'test'})}."
        )
    return recording.children[split]


def agreement(prediction: xr.DataArray, part: xr.DataTree) -> xr.Dataset:
    """Compare predicted rates (time, cell), Hz, with recorded ones; see `prediction_quality`."""
    found = {}
    data = part.to_dataset()
    labels = {"time": prediction["time"].values, "cell": prediction["cell"].values}
    for name, values in labels.items():
        if name in data.coords and not np.isin(values, data[name].values).all():
            raise RetinaCodecError(
                "prediction must be for times and cells of the recording; it lacks "
                f"{name} {values[~np.isin(values, data[name].values)][:5].tolist()}."
            )
    if "type" in data.coords:  # the network may not know the types
        prediction = prediction.drop_vars("type", errors="ignore")
    for name, rate in (("pearson", "rate"), ("pearson_noise_free", "expected_rate")):
        if rate in data:
            found[name] = pearson(prediction, data[rate].sel(labels)).assign_attrs(
                long_name=f"Pearson r of prediction and {data[rate].attrs.get('long_name', rate)}"
            )
    if "repeats" in part.children:
        found["noise_ceiling"] = noise_ceiling(
            part.children["repeats"].to_dataset()["rate"].sel(labels)
        )
    return xr.Dataset(found)


def prediction_quality(
    network: RetinaCNN,
    recording: xr.DataTree,
    *,
    split: str = "test",
    device: str | None = None,
    progress: bool | None = None,
) -> xr.Dataset:
    """Predict a split of a recording and compare, see `agreement`.

    Parameters
    ----------
    network : RetinaCNN
    recording : xr.DataTree
    split : str
        "test", or "train" for what the network was fitted to.
    device, progress
        See `predict_rates`.

    Returns
    -------
    xr.Dataset, dims (cell)
        ``pearson``: r with the recorded rate (the mean over repeats where there are some), in
        bins as recorded, not smoothed; ``noise_ceiling``: the highest r that the repeats allow;
        ``pearson_noise_free``: r with the expected rate, known in simulations only. Dimensionless;
        what the recording lacks is left out.

    Raises
    ------
    RetinaCodecError
        If the recording lacks the split or does not fit the network.
    """
    part = split_of(recording, split)
    return agreement(predict_rates(network, part, device=device, progress=progress), part)


def network_card(network: RetinaCNN, quality: xr.Dataset | None, *, title: str) -> str:
    """Write the card of a fitted network: how trained, how long, how good.

    Parameters
    ----------
    network : RetinaCNN
        With its ``training_record``.
    quality : xr.Dataset, optional
        From `prediction_quality`, on times that the training never saw.
    title : str

    Returns
    -------
    str
        Markdown.
    """
    record, settings = network.training_record, network.training_record["settings"]
    losses = ", ".join(f"{loss:.5f}" for loss in record["validation_loss"])
    sizes = ", ".join(str(size) for size in network.kernel_sizes)
    wide = "; a wide field over the whole frame in the second layer" if network.surround else ""
    lines = [
        f"# {title}",
        "",
        f"A three-layer convolutional network (Maheswaranathan et al. 2023: {network.channels[0]} "
        f"and {network.channels[1]} channels in the first two layers, kernels {sizes} px, history "
        f"{network.history} frames of {network.frame_shape[0]} × {network.frame_shape[1]} px at "
        f"{network.frame_rate:g} Hz{wide}) fitted to the spikes of {len(network.cells)} ganglion "
        "cells.",
        "",
        "## How it was trained",
        "",
        f"- session: {record['session']}",
        f"- {record['train_windows']} windows, and {record['validation_windows']} at the end of the"
        " train split that were never trained on",
        "- Poisson loss, AdamW; "
        + ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in settings.items())
        + f"; noise before the rectifiers {network.noise:g}",
        f"- receptive field centres: {record['centers']}",
        f"- time: {record['seconds'] / 60:.1f} minutes",
        f"- validation loss per epoch (nats per bin and cell): {losses}; the weights of epoch "
        f"{record['best_epoch'] + 1} were kept",
        "",
        "## How good it is",
        "",
    ]
    if quality is None or "pearson" not in quality:
        return "\n".join([*lines, "Not measured: the recording has no test split.", ""])
    lines += [
        "On the test split, which the training never saw. `r` is Pearson's with the recorded rate "
        "(mean over repeats) in bins of one frame, not smoothed; the ceiling is the highest r that "
        "any prediction can have with so many repeats (Sahani and Linden 2003).",
        "",
        _summary(quality),
        "",
        *_table(quality),
        "",
    ]
    return "\n".join(lines)


def _summary(quality: xr.Dataset) -> str:
    text = f"Mean r = {float(quality['pearson'].mean()):.3f}"
    if "noise_ceiling" in quality:
        possible = quality["noise_ceiling"].where(quality["noise_ceiling"] > 0)
        share = float((quality["pearson"] / possible).mean())
        ceiling = float(quality["noise_ceiling"].mean())
        text += f", mean ceiling = {ceiling:.3f}, mean of r / ceiling = {100 * share:.1f} %"
    if "pearson_noise_free" in quality:
        noise_free = float(quality["pearson_noise_free"].mean())
        text += f"; mean r with the noise-free rate of the simulation = {noise_free:.3f}"
    return text + "."


def _table(quality: xr.Dataset) -> list[str]:
    heads = {"pearson": "r", "noise_ceiling": "ceiling", "pearson_noise_free": "r, noise-free"}
    names = [name for name in heads if name in quality]
    rows = [
        "| cell | type | " + " | ".join(heads[name] for name in names) + " |",
        "|" + "---|" * (len(names) + 2),
    ]
    for number, cell in enumerate(quality["cell"].values):
        numbers = " | ".join(f"{float(quality[name][number]):.3f}" for name in names)
        rows.append(f"| {cell} | {quality['type'].values[number]} | {numbers} |")
    return rows


def cell_certainty(
    network: RetinaCNN, modes: xr.DataTree, part: xr.DataTree, block: float
) -> tuple[Floats, Floats]:
    """Measure variability F of the counts and explained part q of every cell, (cell,) each.

    From the repeats of the split, in blocks of ``block`` s, see `count_variability`; F is 1 where
    not known; ``q = min(1, max(0, r / ceiling))²`` of ``/responses/prediction``, 1 without repeats
    or prediction, 0 for a cell whose ceiling is not defined.
    """
    count = len(network.cells)
    variability, quality = np.ones(count), np.ones(count)
    if "repeats" not in part.children or part.children["repeats"].sizes["repeat"] < 2:
        return variability, quality
    repeats = part.children["repeats"].to_dataset()["rate"].sel(cell=list(network.cells))
    found = count_variability(repeats, block, network.frame_rate).values
    variability = np.where(found > 0, found, 1.0)  # without spikes: Poisson
    responses = modes["responses"].to_dataset() if "responses" in modes.children else xr.Dataset()
    if "prediction" in responses:
        fit = agreement(responses["prediction"], part).sel(cell=list(network.cells))
        ratio = (fit["pearson"] / fit["noise_ceiling"]).values
        quality = np.where(np.isfinite(ratio), np.clip(ratio, 0.0, 1.0) ** 2, 0.0)
    return variability, quality
