"""Check that a recording fits a network, cut it into windows, and predict rates."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
import xarray as xr
from torch import nn

from retina_codec.errors import RetinaCodecError
from retina_codec.networks.borrowed import borrow, reference_parameter
from retina_codec.networks.retina.model import Normalisation
from retina_codec.progress import progress_bar
from retina_codec.recordings.windows import StimulusWindows

__all__ = ["RecordingNetwork", "check_match", "open_windows", "predict_rates", "steps_through"]


@runtime_checkable
class RecordingNetwork(Protocol):
    """Attributes that a network needs to be run on a recording, as a `RetinaCNN` has them."""

    @property
    def history(self) -> int:
        """Frames in one window."""

    @property
    def frame_shape(self) -> tuple[int, int]:
        """Pixels in y and x."""

    @property
    def frame_rate(self) -> float:
        """Hz."""

    @property
    def normalisation(self) -> Normalisation:
        """How raw intensities become the input."""

    @property
    def cells(self) -> Sequence[Any]:
        """Ids of the modelled cells, in the order of the output."""


def check_match(network: RecordingNetwork, split: xr.Dataset | xr.DataTree) -> xr.Dataset:
    """Check that a split of a recording fits the network; return it with the network's cells.

    The stimulus (time, y, x) stays lazy; where responses are missing only it is checked. Every
    reason against goes into one message.
    """
    dataset = split.to_dataset() if isinstance(split, xr.DataTree) else split
    problems = []
    found = dataset["stimulus"].dims if "stimulus" in dataset else None
    if found is None or set(found) != {"time", "y", "x"}:
        raise RetinaCodecError(
            "a split of a recording must have a stimulus with the dims time, y and x; it has "
            f"{'none' if found is None else found}. Pass recording['train'] or recording['test']."
        )
    stimulus = dataset["stimulus"]
    frame = (stimulus.sizes["y"], stimulus.sizes["x"])
    if frame != network.frame_shape:
        problems.append(
            f"the network takes frames of {network.frame_shape[0]} × {network.frame_shape[1]} px "
            f"(y × x), the recording has {frame[0]} × {frame[1]}"
        )
    if stimulus.sizes["time"] <= network.history:
        problems.append(
            f"the network looks back {network.history} frames, the recording has only "
            f"{stimulus.sizes['time']}"
        )
    elif "time" in stimulus.coords:
        period = float(np.median(np.diff(stimulus["time"].values[:1000])))
        if abs(period * network.frame_rate - 1) > 1e-3:
            problems.append(
                f"the network takes {network.frame_rate:g} Hz, the recording has {1 / period:g} Hz"
            )
    if "cell" in dataset.coords:
        present = set(dataset["cell"].values.tolist())
        missing = [cell for cell in network.cells if cell not in present]
        if missing:
            problems.append(
                f"the network models cells {missing} that the recording lacks "
                f"(it has {sorted(present, key=str)})"
            )
    if problems:
        raise RetinaCodecError(
            "recording and network do not fit: "
            + "; ".join(problems)
            + ". Use the network fitted to this recording, or fit one (`retina-codec fit`)."
        )
    return dataset.sel(cell=list(network.cells)) if "cell" in dataset.coords else dataset


def open_windows(
    network: nn.Module, split: xr.Dataset | xr.DataTree, dtype: torch.dtype = torch.float32
) -> tuple[xr.Dataset, StimulusWindows]:
    """Open a split of a recording as windows of the history that a `RecordingNetwork` takes.

    Return the split with the network's cells, see `check_match`, and the windows, normalised as the
    network asks, of type ``dtype``, read when needed.
    """
    if not isinstance(network, RecordingNetwork):
        raise RetinaCodecError(
            "a recording can only be cut into windows for a network that knows its history, "
            "frame_shape, frame_rate, normalisation and cells, as a RetinaCNN does; got "
            f"{type(network).__name__}. Pass windows (time, lag, y, x)."
        )
    matched = check_match(network, split)
    scale = network.normalisation
    windows = StimulusWindows(
        matched["stimulus"], network.history, mean=scale.mean, std=scale.std, dtype=dtype
    )
    return matched, windows


def steps_through(
    windows: StimulusWindows,
    network: nn.Module,
    batch_size: int,
    description: str,
    progress: bool | None,
) -> Iterator[tuple[slice, torch.Tensor]]:
    """Go through windows ``(b, lag, y, x)`` on the network's device, with a progress bar."""
    batches = windows.batches(batch_size, reference_parameter(network).device)
    total = -(-len(windows) // batch_size)
    yield from progress_bar(batches, description=description, total=total, progress=progress)


def predict_rates(
    network: nn.Module,
    split: xr.Dataset | xr.DataTree,
    *,
    batch_size: int = 256,
    device: str | torch.device | None = None,
    progress: bool | None = None,
) -> xr.DataArray:
    """Predict the rate of every cell at every time that has a whole history before it.

    Parameters
    ----------
    network : torch.nn.Module
        A `RetinaCNN`, or another `RecordingNetwork`. Run in evaluation mode; left as it was.
    split : xr.Dataset or node of a recording
        With ``stimulus`` (time, y, x), read in chunks.
    batch_size : int
        Windows at a time.
    device : str or torch.device, optional
        Where to compute; where the network lies when left out.
    progress : bool, optional
        See `retina_codec.progress.progress_bar`.

    Returns
    -------
    xr.DataArray, dims (time, cell), Hz
        ``time`` starts ``network.history`` bins after the split.

    Raises
    ------
    RetinaCodecError
        If the split does not fit the network or holds NaN.
    """
    _, windows = open_windows(network, split)
    cells: Any = network.cells
    types: Any = getattr(network, "cell_types", None) or ("unknown",) * len(cells)
    rates = np.empty((len(windows), len(cells)), dtype=np.float32)
    with borrow(network, device) as module, torch.no_grad():
        for part, batch in steps_through(windows, module, batch_size, "predictions", progress):
            rates[part] = module(batch).cpu().numpy()
    return xr.DataArray(
        rates,
        dims=("time", "cell"),
        coords={"time": windows.time, "cell": list(cells), "type": ("cell", list(types))},
        name="prediction",
        attrs={"units": "Hz", "long_name": "predicted rate"},
    )
