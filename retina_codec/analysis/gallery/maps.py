"""Map the contributions of a mode's channels back to images."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr
from torch import nn

from retina_codec.contributions.maps import input_map
from retina_codec.errors import RetinaCodecError
from retina_codec.methods.base import Method
from retina_codec.methods.gradients import InputGrad
from retina_codec.networks.adapter import Adapter, as_adapter
from retina_codec.probing.inputs import Source, open_inputs
from retina_codec.progress import progress_bar
from retina_codec.storage.results import modes_at
from retina_codec.targets.base import Target
from retina_codec.targets.classification import Probability

__all__ = [
    "MapSettings",
    "few",
    "image_rows",
    "mode_channels",
    "mode_maps",
    "mode_of",
    "recorded",
    "take_images",
]

BLOCK = 8  # batches between two steps of the progress bar


def mode_channels(
    modes: xr.DataTree,
    layer: str,
    mode: Any,
    *,
    share: float | None = 0.1,
    top: int | None = None,
    sign: str = "excitatory",
) -> xr.DataArray:
    """Return the weights (channel,) of a mode's channels with the largest ones, 0 for all others.

    Selected are a ``share`` of the channels, rounded up, or the ``top`` so many; "both" adds the
    sizes of the weights of the two signs. Channels that the mode does not use have 0, even if fewer
    are left then. Melander et al. 2026, CODEC, section 6 (CODEC-selected salient channels).
    """
    dictionary = mode_of(modes_at(modes, layer)["dictionary"], layer, mode)
    known = dictionary["sign"].values.tolist()
    if sign not in (*known, "both"):
        raise RetinaCodecError(f"sign must be one of {', '.join([*known, 'both'])}; got {sign!r}.")
    one = abs(dictionary.reset_coords("mode", drop=True))
    weight = one.sum("sign") if sign == "both" else one.sel(sign=sign, drop=True)
    count = weight.sizes["channel"]
    number = top if top is not None else 0 if share is None else int(np.ceil(share * count))
    if isinstance(number, bool) or not 1 <= number <= count:
        raise RetinaCodecError(
            f"between 1 and {count} channels must be selected; got {share=}, {top=}. share=0.1 is "
            "usual."
        )
    kept = np.argsort(-weight.values, kind="stable")[:number]
    selected = np.isin(np.arange(count), kept)
    return weight.where(selected, 0.0).rename("weight").assign_attrs(units="1")


@dataclass(frozen=True)
class MapSettings:
    """Settings of `mode_maps`.

    Parameters
    ----------
    share, top, sign
        Which channels, see `mode_channels`.
    weighted : bool
        Multiply channels by the mode's weights; all alike otherwise, as in the paper.
    positive_only : bool
        Only units with C_j > 0.
    batch_size : int
        Images at a time.
    dtype : torch.dtype, optional
        As in `input_map`.

    Raises
    ------
    RetinaCodecError
        If the batch size is too small.
    """

    share: float | None = 0.1
    top: int | None = None
    sign: str = "excitatory"
    weighted: bool = False
    positive_only: bool = True
    batch_size: int = 8
    dtype: torch.dtype | None = None

    def __post_init__(self) -> None:
        """Validate the settings."""
        if self.batch_size < 1:
            raise RetinaCodecError(f"batch_size must be at least 1; got {self.batch_size}. Use 8.")


def mode_maps(
    network: nn.Module | Adapter,
    images: Any,
    modes: xr.DataTree,
    layer: str,
    mode: Any,
    *,
    target: Target | None = None,
    method: Method | None = None,
    samples: Sequence[int] | npt.NDArray[np.integer] | None = None,
    settings: MapSettings | None = None,
    device: str | torch.device | None = None,
    progress: bool | None = None,
) -> xr.Dataset:
    """Map what a mode's channels contribute to a class probability back to the images.

    ``M_i = Σ_j m_j [C_j > 0] C_ij``, j over all units of the selected channels; for `InputGrad`
    ``C_ij = x_i J_ji ∂F/∂h_j`` and ``C_j = Σ_i C_ij``. One backward pass for all units.

    Parameters
    ----------
    network : torch.nn.Module or Adapter
    images : xr.DataArray, tensor, array, data set or DataLoader
        (sample, color, y, x), as the network takes them: all kinds that `contribute` takes as one
        array.
    modes : xr.DataTree
        Results of `decompose`.
    layer, mode
        Which mode.
    target : Target, optional
        `Probability`, of the class predicted for each image, when left out.
    method : Method, optional
        `InputGrad` when left out; others as in `input_map`. A baseline "mean" is that of all
        images, mapped or not.
    samples : sequence of int, optional
        Positions of the images to map; all when left out. The result is as large as they are.
    settings : MapSettings, optional
        ``MapSettings()`` when left out: the tenth of the channels with the largest weights.
    device : str or torch.device, optional
        As in `input_map`.
    progress : bool, optional
        None shows a bar after 2 s, False never, True at once.

    Returns
    -------
    xr.Dataset
        ``map`` with the dims of the images, ``total`` and ``completeness_error`` (sample), see
        `input_map`; ``sample`` counts positions where images have no labels of their own. The
        selected channels in the attributes.

    Raises
    ------
    RetinaCodecError
        If mode, channels, images or samples do not fit.

    Notes
    -----
    Gradients at one point are noisy; `IntegratedGradients` costs a pass per step and keeps closer
    to the object, see ``benchmarks/mode_localisation.py``. The paper's images are centered, so that
    x = 0 is grey; where a network centers them itself, 0 is black.

    References
    ----------
    Melander et al. 2026, CODEC, sections 6, 10.7 and 10.8.
    """
    settings = MapSettings() if settings is None else settings
    weight = mode_channels(
        modes, layer, mode, share=settings.share, top=settings.top, sign=settings.sign
    )
    chosen = weight.values > 0
    if not chosen.any():
        raise RetinaCodecError(
            f"mode {mode!r} of layer {layer!r} has no {settings.sign} weight at all; choose "
            "another sign."
        )
    adapter = as_adapter(network, [layer.partition("@")[0]])
    images = image_rows(images)
    source = open_inputs(adapter, images)
    positions = _positions(samples, len(source))
    weights = weight.values if settings.weighted else chosen.astype(np.float64)
    method = InputGrad() if method is None else method
    method = method.prepare(source.mean)
    parts = []
    size = BLOCK * settings.batch_size
    starts = range(0, len(positions), size)
    for start in progress_bar(starts, description="maps", progress=progress):
        some = positions[start : start + size]
        found = input_map(
            network,
            take_images(images, source, some),
            layer,
            target=Probability() if target is None else target,
            method=method,
            weights=weights,
            positive_only=settings.positive_only,
            batch_size=settings.batch_size,
            device=device,
            dtype=settings.dtype,
        )
        if not (isinstance(images, xr.DataArray) and "sample" in images.coords):
            found = found.assign_coords(sample=some)
        parts.append(found)
    result = parts[0] if len(parts) == 1 else xr.concat(parts, "sample", join="exact")
    return result.assign_attrs(
        mode=recorded(mode),
        channels=np.flatnonzero(chosen).tolist(),
        weighted=int(settings.weighted),
        sign=settings.sign,
    )


def _positions(samples: Any, total: int) -> npt.NDArray[np.int64]:
    """Return the positions of the images to map."""
    positions = np.arange(total) if samples is None else np.asarray(samples, dtype=np.int64)
    if positions.ndim != 1 or not len(positions) or positions.min() < 0 or positions.max() >= total:
        raise RetinaCodecError(
            f"samples must be positions from 0 to {total - 1}, at least one; got "
            f"{few(positions.ravel())}."
        )
    return positions


def image_rows(images: Any) -> Any:
    """Return the array ``image`` of a dataset; anything else as it is."""
    return images["image"] if isinstance(images, xr.Dataset) and "image" in images else images


def take_images(images: Any, source: Source, positions: npt.NDArray[np.int64]) -> Any:
    """Return some of the images: of a DataArray with its labels, else as one tensor."""
    if isinstance(images, xr.DataArray):
        return images.isel({images.dims[0]: positions})
    read = [next(source.part(place, place + 1).batches(1)) for place in positions.tolist()]
    rows = [row for row in read if isinstance(row, torch.Tensor)]
    if len(rows) < len(read):
        raise RetinaCodecError(
            "maps of a mode are those of one array of images; got several by name. Wrap the "
            "network in a module that takes one array."
        )
    if len({row.shape for row in rows}) > 1:
        raise RetinaCodecError(
            f"images must have one size; got {few({tuple(row.shape[1:]) for row in rows})}. "
            "Resize them, or map one at a time with samples=."
        )
    return torch.cat(rows)


def mode_of(values: xr.DataArray, layer: str, mode: Any) -> xr.DataArray:
    """Select one mode by its label."""
    if mode not in values["mode"].values.tolist():
        raise RetinaCodecError(
            f"layer {layer!r} has the modes {few(values['mode'].values)}; got {mode!r}."
        )
    return values.sel(mode=mode)


def recorded(mode: Any) -> int | float | str:
    """Return the label of a mode in a form that attributes can hold."""
    return mode if isinstance(mode, int | float | str) else str(mode)


def few(values: Any) -> str:
    """Name the first eight of some values, for messages."""
    some = [str(value) for value in list(values)[:8]]
    return ", ".join(some) + (", ..." if len(values) > 8 else "")
