"""Windows at events: where a time of the results stands in the inputs, and how to read it.

Why this file exists: events are named by response times, and inputs are movies or ready windows.
It chooses no events and runs no network.
"""

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr
from torch import nn

from retina_codec.errors import RetinaCodecError
from retina_codec.networks.matching import open_windows
from retina_codec.recordings.windows import StimulusWindows

__all__ = ["event_positions", "event_reader"]


def event_positions(
    wanted: npt.NDArray[np.float64], times: npt.NDArray[np.float64], where: str
) -> npt.NDArray[np.intp]:
    """Find times among sorted times, within half a bin."""
    if not wanted.size:
        raise RetinaCodecError("events must hold at least one event; got none.")
    tolerance = 0.5 * float(np.median(np.diff(times))) if len(times) > 1 else 1e-6
    after = np.searchsorted(times, wanted).clip(0, len(times) - 1)
    before = (after - 1).clip(0)
    nearest = np.where(
        np.abs(times[before] - wanted) <= np.abs(times[after] - wanted), before, after
    )
    missing = wanted[~(np.abs(times[nearest] - wanted) <= tolerance * (1 + 1e-6))]  # NaN too
    if missing.size:
        raise RetinaCodecError(
            f"events must be response times of {where} ({times[0]:.3f} to {times[-1]:.3f} s); got "
            f"{', '.join(f'{value:.3f}' for value in missing[:5])} s."
        )
    return np.asarray(nearest, dtype=np.intp)


class _Windows:
    """Windows that are already made, picked by their position in the results."""

    def __init__(self, windows: torch.Tensor) -> None:
        self.windows = windows

    def __call__(self, positions: npt.NDArray[np.intp]) -> torch.Tensor:
        return self.windows[torch.as_tensor(positions)]


class _Stimulus:
    """Windows cut from a stimulus movie at the times of the results."""

    def __init__(self, windows: StimulusWindows, times: npt.NDArray[np.float64]) -> None:
        self.windows, self.times = windows, times
        self.available = np.asarray(windows.time.values, dtype=np.float64)

    def __call__(self, positions: npt.NDArray[np.intp]) -> torch.Tensor:
        indices = event_positions(self.times[positions], self.available, "the inputs")
        return self.windows.at(indices)


def event_reader(
    network: nn.Module,
    inputs: xr.Dataset | xr.DataTree | xr.DataArray | torch.Tensor,
    times: npt.NDArray[np.float64],
    dtype: torch.dtype,
) -> tuple[_Windows | _Stimulus, npt.NDArray[np.float64]]:
    """Return how to read windows at positions of the results, and the lags (s)."""
    if isinstance(inputs, xr.Dataset | xr.DataTree):
        _, windows = open_windows(network, inputs, dtype)
        return _Stimulus(windows, times), np.asarray(windows.lag.values)
    if isinstance(inputs, xr.DataArray) and set(inputs.dims) == {"time", "lag", "y", "x"}:
        inputs = inputs.transpose("time", "lag", "y", "x")
    if inputs.ndim != 4 or inputs.shape[0] != len(times):
        raise RetinaCodecError(
            "windows must be (time, lag, y, x) with one window for each time of the results "
            f"({len(times)}); got shape {tuple(inputs.shape)}."
        )
    step = float(np.median(np.diff(times))) if len(times) > 1 else 1.0
    lag = np.arange(inputs.shape[1], 0, -1) * step
    if isinstance(inputs, torch.Tensor):
        tensor = inputs
    else:
        tensor = torch.as_tensor(inputs.values)
        lag = inputs["lag"].values if "lag" in inputs.coords else lag
    return _Windows(tensor), np.asarray(lag, dtype=np.float64)
