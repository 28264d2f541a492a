"""Instantaneous receptive fields: gradients of cells' rates at chosen moments, by active mode.

Notation: e events, n cells, l lags (oldest frame first), y x pixels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr
from torch import nn

from retina_codec.analysis.fields.all_fields import all_fields
from retina_codec.analysis.fields.combinations import measure_combinations
from retina_codec.analysis.fields.event_parts import can_split, event_parts
from retina_codec.analysis.fields.events import (
    choose_events,
    combination_labels,
    event_positions,
    event_reader,
)
from retina_codec.analysis.fields.measures import measure_fields
from retina_codec.errors import RetinaCodecError
from retina_codec.methods.base import Method
from retina_codec.networks.borrowed import borrow, reference_parameter
from retina_codec.networks.retina.model import RetinaCNN
from retina_codec.probing.retina.fields import RetinaFields
from retina_codec.progress import progress_bar
from retina_codec.storage.results import modes_at

__all__ = ["FieldSettings", "instantaneous_fields", "rank_one_parts", "receptive_fields"]

Windows = Callable[[npt.NDArray[np.intp]], torch.Tensor]

GRADIENT_UNITS = "Hz per standard deviation of intensity"
FEWEST_TIMES = 100  # for a comparison of combinations
BATCH = 16  # events at a time: 16 windows of 40 × 50 × 50 and their gradients fit in any memory


def instantaneous_fields(network: nn.Module, windows: torch.Tensor) -> torch.Tensor:
    """Differentiate every cell's rate with respect to the stimulus window.

    ``IRF[e, i] = d rate_i(w_e) / d w_e``, (e, n, l, y, x), in Hz per unit of the network's
    normalised input (e, l, y, x), a standard deviation of intensity: one forward pass, then one
    backward pass per cell for all events together. Evaluated without noise; events must not mix (no
    batch statistics). Melander et al. 2026, section 7 (instantaneous receptive field); Ding et al.
    2023.
    """
    inputs = windows.detach().requires_grad_(True)
    with borrow(network) as module, torch.enable_grad():
        totals = module(inputs).sum(dim=0)  # (n,): events do not mix
        fields = [torch.autograd.grad(total, inputs, retain_graph=True)[0] for total in totals]
    return torch.stack(fields, dim=1)


def rank_one_parts(
    fields: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Split fields (..., l, y, x) into the best product of one image and one time course.

    With ``A`` (lag, pixel) a field minus its mean, ``A ≈ temporal ⊗ spatial`` in least squares
    (first singular vectors). The time course has unit length; the image carries the size. The
    sign is such that the image correlates positively with the frame of ``A`` that holds its
    largest absolute value.

    Returns
    -------
    spatial : torch.Tensor, (..., y, x), units of the fields
    temporal : torch.Tensor, (..., l), unit L2 norm
        NaN where the field is constant (it has no time course).
    explained : torch.Tensor, (...)
        Share of the sum of squares of ``A`` in the product; NaN where ``A`` is 0.
    mean : torch.Tensor, (...), units of the fields
        The mean that was removed.
    """
    mean = fields.mean(dim=(-3, -2, -1))
    matrix = (fields - mean[..., None, None, None]).flatten(-2)  # (..., l, y·x)
    size = matrix.abs().amax(dim=(-2, -1))
    scaled = matrix / torch.where(size > 0, size, 1.0)[..., None, None]  # squares must not vanish
    values, vectors = torch.linalg.eigh(scaled @ scaled.mT)  # lags are few: l × l, not pixels
    temporal = vectors[..., -1]
    spatial = (temporal[..., None, :] @ matrix)[..., 0, :]

    peak = matrix.abs().amax(dim=-1).argmax(dim=-1)  # (...)
    index = peak[..., None, None].expand(*peak.shape, 1, matrix.shape[-1])
    frame = scaled.gather(-2, index)[..., 0, :]
    image = (temporal[..., None, :] @ scaled)[..., 0, :]
    covariance = ((image - image.mean(-1, keepdim=True)) * frame).sum(-1)
    sign = torch.where(covariance < 0, -1.0, 1.0).to(fields.dtype)

    total = scaled.square().sum(dim=(-2, -1))
    constant = total == 0
    undefined = torch.full_like(total, torch.nan)
    explained = torch.where(constant, undefined, values[..., -1].clamp(min=0) / total)
    temporal = torch.where(constant[..., None], undefined[..., None], temporal * sign[..., None])
    spatial = (spatial * sign[..., None]).unflatten(-1, fields.shape[-2:])
    return spatial, temporal, explained, mean


@dataclass(frozen=True)
class FieldSettings:
    """Settings of `receptive_fields`.

    Parameters
    ----------
    combinations, per_combination : int
        How many sets of active modes, and how many events of each at most.
    minimum_rate : float
        Hz; below it a cell is marked as not responding (its field is kept).
    parts : bool, optional
        Split the fields by mode. None: where the results hold contributions and modes, and say
        how they were computed (those of `analyze` do).
    target : Target, optional
        What `contribute` had, for parts where the results do not say.
    method : Method, optional
        As ``target``.
    samples : int
        Number of times, evenly spaced, at which fields are compared between combinations
        (`measure_combinations`); 0: none. Only for a `RetinaCNN` and enough times.

    Raises
    ------
    RetinaCodecError
        If a number is too small.
    """

    combinations: int = 6
    per_combination: int = 3
    minimum_rate: float = 1.0
    parts: bool | None = None
    target: Any = None
    method: Method | None = None
    samples: int = 300

    def __post_init__(self) -> None:
        """Validate the settings."""
        combinations, per_combination = self.combinations, self.per_combination
        if combinations < 1 or per_combination < 1:
            raise RetinaCodecError(
                "at least one combination with one event is needed; "
                f"got {combinations=}, {per_combination=}."
            )


def receptive_fields(
    network: nn.Module,
    inputs: xr.Dataset | xr.DataTree | xr.DataArray | torch.Tensor,
    modes: xr.DataTree,
    *,
    layer: str = "conv2",
    events: Sequence[float] | npt.NDArray[np.floating[Any]] | None = None,
    settings: FieldSettings | None = None,
    device: str | torch.device | None = None,
    progress: bool | None = None,
) -> xr.Dataset:
    """Compute the receptive fields of all cells at events chosen by their active modes.

    Each field is split exactly into the parts of the active modes and a remainder, through the
    chain rule at the layer (`mode_shares`, `split_fields`), and measured (`measure_fields`).

    Parameters
    ----------
    network : torch.nn.Module
        A `RetinaCNN`, or any module from ``(e, l, y, x)`` to ``(e, n)`` Hz when ``inputs`` holds
        windows.
    inputs : split of a recording, xr.DataArray or torch.Tensor
        What the contributions were computed on: a split with ``stimulus`` (time, y, x), or
        windows (time, lag, y, x) as the network takes them.
    modes : xr.DataTree
        Results with ``/responses`` and ``/layers/<layer>/modes``.
    layer : str
        The layer whose modes name the events.
    events : sequence of float, optional
        Response times, s, of the events; chosen by `choose_events` when left out.
    settings : FieldSettings, optional
        ``FieldSettings()`` when left out.
    device : str or torch.device, optional
        Where to compute; the network's own device when left out.
    progress : bool, optional
        None: a bar after 2 s; False: never.

    Returns
    -------
    xr.Dataset
        ``spatial`` (event, cell, y, x), Hz per standard deviation of intensity; ``temporal``
        (event, cell, lag), unit length; ``rank1`` (event, cell), share of the field that their
        product explains; ``mean`` (event, cell), removed before the split; ``prediction``
        (event, cell) Hz; ``responding`` (event, cell); ``scene`` (event, y, x), mean of the
        window in standard deviations of intensity. The measures of `measure_fields` (event,
        cell), in px. With parts: ``part`` (event, cell, mode, y, x), the image of each mode's part
        along the field's time course, ``remainder`` (event, cell, y, x): they add up to
        ``spatial``; ``part_temporal`` and ``remainder_temporal`` add up to ``temporal``;
        ``part_share`` and ``remainder_share`` to 1; ``identity_error`` (event, cell), how far the
        sum is from the field. With samples: ``combination_<name>`` (cell), see
        `measure_combinations`. Coordinates: ``time`` (s) and
        ``combination`` ("0+4") along event, ``cell``, ``type``, ``lag`` (s).

    Raises
    ------
    RetinaCodecError
        If the layer has no modes, an event is no response time of the results, no time
        qualifies, the inputs do not fit the results, or parts are asked for and cannot be made.

    References
    ----------
    Melander et al. 2026, section 7 and Figure 8B, D.
    """
    settings = FieldSettings() if settings is None else settings
    found, rates = _modes_of(modes, layer)
    cells = rates["cell"].values.tolist()
    if isinstance(network, RetinaCNN) and list(network.cells) != cells:
        raise RetinaCodecError(
            "network and results must hold the same cells in the same order; the network has "
            f"{list(network.cells)}, the results {cells}."
        )
    times = np.asarray(rates["time"].values, dtype=np.float64)
    active = np.asarray(found["active"].transpose("time", "mode").values, dtype=bool)
    prediction = np.asarray(rates["prediction"].transpose("time", "cell").values)
    names = found["mode"].values.tolist()
    if events is None:
        positions = choose_events(
            active,
            prediction,
            times,
            combinations=settings.combinations,
            per_combination=settings.per_combination,
            minimum_rate=settings.minimum_rate,
        )
    else:
        positions = event_positions(np.asarray(events, dtype=np.float64), times, "the results")
    with borrow(network, device) as lent:
        windows, lag = _reader(lent, inputs, times)
        pieces = _compute(lent, windows, positions, len(cells), progress)
        shown = rates.isel(time=positions).transpose("time", "cell", ...)
        labels = combination_labels(active[positions], names)
        fields = _labelled(pieces, shown, labels, lag, layer, settings.minimum_rate)
        fields = fields.assign(measure_fields(fields).data_vars)
        if can_split(modes, layer) if settings.parts is None else settings.parts:
            split = event_parts(
                lent,
                windows,
                modes,
                layer,
                positions,
                *pieces[:2],
                fields=instantaneous_fields,
                target=settings.target,
                method=settings.method,
            )
            fields = fields.assign_coords(mode=found["mode"].values).assign(split)
            # modes that are active at no event have no part
            fields = fields.isel(mode=np.flatnonzero(active[positions].any(axis=0)))
        if settings.samples and isinstance(lent, RetinaCNN):
            every = combination_labels(active, names)
            fields = fields.assign(_effect(lent, inputs, times, every, settings, progress))
    return fields


def _reader(
    network: nn.Module, inputs: Any, times: npt.NDArray[np.float64]
) -> tuple[Windows, npt.NDArray[np.float64]]:
    """Return windows at positions of the results, on the network's device, and lags (s)."""
    here = reference_parameter(network)
    read, lag = event_reader(network, inputs, times, here.dtype)
    return lambda where: read(where).to(here.device, here.dtype), lag


def _compute(
    network: nn.Module,
    windows: Windows,
    positions: npt.NDArray[np.intp],
    cells: int,
    progress: bool | None,
) -> list[torch.Tensor]:
    """Return the parts of `rank_one_parts` at all events, and the mean frame of each window."""
    pieces: list[tuple[torch.Tensor, ...]] = []
    batches = [positions[i : i + BATCH] for i in range(0, len(positions), BATCH)]
    for batch in progress_bar(batches, description="receptive fields", progress=progress):
        some = windows(batch)
        fields = _fields(network, some)
        if fields.shape[1] != cells:
            raise RetinaCodecError(
                f"network and results must hold the same cells; the network has "
                f"{fields.shape[1]} outputs, the results {cells} cells."
            )
        pieces.append((*rank_one_parts(fields), some.mean(dim=1)))
    return [torch.cat(piece) for piece in zip(*pieces, strict=True)]


def _labelled(
    pieces: list[torch.Tensor],
    rates: xr.Dataset,
    combinations: list[str],
    lag: npt.NDArray[np.float64],
    layer: str,
    minimum_rate: float,
) -> xr.Dataset:
    """Label fields (event, cell, ...) computed by `_compute`; rates are those at the events."""
    spatial, temporal, explained, mean, scene = (piece.cpu().numpy() for piece in pieces)
    shown = rates["prediction"].values
    pair = ("event", "cell")
    words = "predicted rate"
    found = {
        "spatial": ((*pair, "y", "x"), spatial, GRADIENT_UNITS, "receptive field, spatial part"),
        "temporal": ((*pair, "lag"), temporal, "1", "receptive field, temporal part"),
        "rank1": (pair, explained, "1", "share explained by space × time"),
        "mean": (pair, mean, GRADIENT_UNITS, "mean of the field, removed"),
        "prediction": (pair, shown, "Hz", words),
        "responding": (
            pair, shown >= minimum_rate, "1", f"{words} of at least {minimum_rate:g} Hz"
        ),
        "scene": (
            ("event", "y", "x"), scene, "standard deviation of intensity",
            "mean of the stimulus window",
        ),
    }  # fmt: skip
    time = np.asarray(rates["time"].values, dtype=np.float64)
    return xr.Dataset(
        {
            name: (dims, values, {"units": units, "long_name": text})
            for name, (dims, values, units, text) in found.items()
        },
        coords={
            "time": ("event", time, {"units": "s", "long_name": "response time"}),
            "combination": ("event", combinations, {"long_name": f"active modes of {layer}"}),
            "cell": rates["cell"].values,
            "lag": ("lag", lag, {"units": "s", "long_name": "time before the response"}),
            "y": ("y", np.arange(scene.shape[-2]), {"units": "px"}),
            "x": ("x", np.arange(scene.shape[-1]), {"units": "px"}),
            **{
                name: ("cell", rates[name].values, dict(rates[name].attrs))
                for name in ("type", "center_y", "center_x")
                if name in rates.coords
            },
        },
        attrs={"layer": layer, "minimum_rate": minimum_rate},
    )


def _fields(network: nn.Module, windows: torch.Tensor) -> torch.Tensor:
    """Return whole fields by the fastest exact way."""
    if not isinstance(network, RetinaCNN):
        return instantaneous_fields(network, windows)
    structure = RetinaFields(network)
    with torch.no_grad():
        seen = structure.evaluate(network.first_layer(windows))
    return structure.place(structure.fields(structure.descend(seen)))[:, :, 0]


def _effect(
    network: RetinaCNN,
    inputs: Any,
    times: npt.NDArray[np.float64],
    labels: list[str],
    settings: FieldSettings,
    progress: bool | None,
) -> dict[str, xr.DataArray]:
    """Compare fields between combinations at evenly spaced times, if there are enough."""
    every = max(1, len(times) // settings.samples)
    if len(times) // every < FEWEST_TIMES:
        return {}
    sampled = all_fields(network, inputs, every=every, progress=progress)
    if len(sampled["time"]) != len(times[::every]):  # the results are of a part of the inputs
        return {}
    tested = measure_combinations(
        sampled, np.array(labels)[::every], minimum_rate=settings.minimum_rate, progress=progress
    )
    attrs = {k: v for k, v in tested.attrs.items() if k != "sampled_along"}
    return {
        f"combination_{name}": array.reset_coords(drop=True).assign_attrs(
            attrs | {"every": every} | array.attrs
        )
        for name, array in tested.data_vars.items()
    }


def _modes_of(tree: xr.DataTree, layer: str) -> tuple[xr.Dataset, xr.Dataset]:
    """Return the modes of a layer and the responses, on the same times."""
    modes = modes_at(tree, layer)
    rates = tree["responses"].to_dataset()
    if "time" not in rates.dims:
        raise RetinaCodecError(
            f"receptive fields need results over 'time'; these have the dims {tuple(rates.dims)}. "
            "Run contribute on a recording, or on a DataArray of windows (time, lag, y, x)."
        )
    return modes, rates
