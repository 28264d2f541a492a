"""Choose the events of receptive fields by active mode, and read stimulus windows at them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr
from torch import nn

from retina_codec.errors import RetinaCodecError, in_words
from retina_codec.networks.retina.prediction import open_windows
from retina_codec.recordings.windows import StimulusWindows

__all__ = ["choose_events", "combination_labels", "event_positions", "event_reader"]

LARGEST_COMBINATION = 5  # modes
APART = 0.2  # s between two events of the same combination


def combination_labels(active: npt.NDArray[np.bool_], names: Sequence[Any]) -> list[str]:
    """Name the set of active modes (time, mode) of every time: ``"0+4"``, ``""`` where none is."""
    sets, back = np.unique(active, axis=0, return_inverse=True)
    labels = ["+".join(str(names[int(m)]) for m in np.flatnonzero(row)) for row in sets]
    return [labels[i] for i in back.reshape(-1)]


def choose_events(
    active: npt.NDArray[np.bool_],
    prediction: npt.NDArray[np.floating[Any]],
    time: npt.NDArray[np.floating[Any]],
    *,
    combinations: int = 6,
    per_combination: int = 3,
    minimum_rate: float = 1.0,
) -> npt.NDArray[np.intp]:
    """Choose events: the most frequent sets of active modes, at their highest population rates.

    Times (s) are grouped by their set of ``active`` modes (time, mode), 1 to 5. Half of the
    ``combinations`` are the most frequent single modes, half the most frequent sets of two or more;
    when one kind has too few, the other fills up. Within each, times are taken in the order of
    falling population rate (sum over cells of the ``prediction`` (time, cell) in Hz), each at least
    0.2 s from those already taken. Times at which no cell reaches ``minimum_rate`` (Hz) are left
    out. Nothing is random. Positions along time, by combination (single modes first), then by
    falling rate.
    """
    size = active.sum(axis=1)
    usable = (size >= 1) & (size <= LARGEST_COMBINATION) & (prediction >= minimum_rate).any(axis=1)
    if not usable.any():
        raise RetinaCodecError(
            f"no time has 1 to {LARGEST_COMBINATION} active modes and a cell at "
            f"{minimum_rate:g} Hz or more; the highest predicted rate is "
            f"{float(prediction.max()):.3g} Hz and the times have {int(size.min())} to "
            f"{int(size.max())} active modes. "
            + in_words("Lower minimum_rate, or pass events=.", "Allow fewer at a time: --active.")
        )
    positions = np.flatnonzero(usable)
    sets, back, count = np.unique(
        active[positions], axis=0, return_inverse=True, return_counts=True
    )
    back = back.reshape(-1)
    common_first = sorted(range(len(sets)), key=lambda i: (-count[i], tuple(~sets[i])))
    single = [i for i in common_first if sets[i].sum() == 1]
    several = [i for i in common_first if sets[i].sum() > 1]
    n_single = min(len(single), max(combinations - combinations // 2, combinations - len(several)))
    chosen = single[:n_single] + several[: combinations - n_single]

    population = prediction.sum(axis=1)
    events: list[int] = []
    for combination in chosen:
        members = positions[back == combination]
        taken: list[int] = []
        for position in members[np.argsort(-population[members], kind="stable")]:
            if all(abs(time[position] - time[other]) >= APART - 1e-9 for other in taken):
                taken.append(int(position))
            if len(taken) == per_combination:
                break
        events += taken
    return np.asarray(events, dtype=np.intp)


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
