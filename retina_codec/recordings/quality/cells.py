"""Measures of how well each cell was recorded, and flags for cells below the limits."""

from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import xarray as xr

from retina_codec.errors import RetinaCodecError
from retina_codec.progress import progress_bar
from retina_codec.recordings.quality.leakage import find_leakage
from retina_codec.recordings.quality.repeats import (
    noise_ceiling,
    reliability,
    signal_variance_fraction,
)
from retina_codec.recordings.schema import validate_recording

__all__ = ["QualitySettings", "measure_quality"]

CELLS_PER_STEP = 8
BINS_PER_READ = 2**16
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class QualitySettings:
    """Limits of the flags, and how reliability is estimated.

    Parameters
    ----------
    lowest_rate : float
        Hz; a cell whose mean rate is lower in every split is flagged.
    lowest_reliability : float
        A cell below it is flagged.
    refractory_period : float
        s; shorter intervals between two spikes of a cell are violations.
    highest_violations : float
        Share of the intervals; a cell above it is flagged.
    splits, seed : int
        See `retina_codec.recordings.quality.repeats.reliability`.

    Raises
    ------
    RetinaCodecError
        A limit that is not a finite number.
    """

    lowest_rate: float = 0.1
    lowest_reliability: float = 0.25
    refractory_period: float = 0.0015
    highest_violations: float = 0.01
    splits: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        """Validate the limits."""
        for name, value in asdict(self).items():
            if not np.isfinite(value):
                raise RetinaCodecError(
                    f"{name} must be a finite number; got {value!r}. "
                    "To flag no cell, pass 0 for a lowest and 1 for a highest value."
                )


DEFAULTS = QualitySettings()


def measure_quality(
    recording: xr.DataTree,
    *,
    settings: QualitySettings = DEFAULTS,
    leakage: bool = False,
    progress: bool | None = None,
) -> xr.DataTree:
    """Measure how well every cell was recorded, and flag those below the limits.

    Parameters
    ----------
    recording : xr.DataTree
        A valid recording. ``/spikes``, where it exists, has ``spike_time`` (spike) in s and
        ``spike_cell`` (spike), the name of the cell.
    settings : QualitySettings
        Limits of the flags; how reliability is estimated.
    leakage : bool
        Look for test frames in training, which reads every frame; see
        `retina_codec.recordings.quality.leakage.find_leakage`.
    progress : bool, optional
        See `retina_codec.progress.progress_bar`.

    Returns
    -------
    xr.DataTree
        The recording with a new node ``/quality``, dims (cell) unless stated; NaN is not measured:
        ``mean_rate`` (split, cell) Hz, over the bins that were recorded; ``empty``, no spike at
        all; ``missing``, share of the bins of all splits and repeats without a recording;
        ``reliability``, ``reliability_error``, ``noise_ceiling``, ``signal_variance_fraction``, see
        `retina_codec.recordings.quality.repeats`, NaN without repeats; ``refractory_violations``,
        share of the intervals between spikes, NaN without exact times or with fewer than two
        spikes; ``flag``, text, "" when nothing is wrong; with ``leakage``, ``leaked_fraction`` ()
        and ``leaked_frames`` (). ``attrs`` hold the settings. The input is not modified.

    Raises
    ------
    RetinaCodecError
        Not a valid recording, spikes of an unknown cell.
    """
    validate_recording(recording)
    test = recording["test"].to_dataset()
    cells = {name: test[name] for name in ("cell", "type") if name in test.coords}
    quality = _rates(recording).assign_coords(cells)
    quality = quality.assign(_repeats(recording, settings, progress).data_vars)
    quality["refractory_violations"] = _violations(recording, settings.refractory_period)
    quality["flag"] = ("cell", _flags(quality, settings), {"long_name": "what is wrong"})
    if leakage:
        found = find_leakage(recording, progress=progress)
        quality["leaked_fraction"] = found["leaked_fraction"]
        quality["leaked_frames"] = found["leaked_frames"]
    quality.attrs = asdict(settings)
    measured = recording.copy()
    measured["quality"] = xr.DataTree(quality)
    return measured


def _rates(recording: xr.DataTree) -> xr.Dataset:
    """Mean rate per split, whether there was any spike, share of missing bins."""
    splits = [name for name in ("train", "test") if name in recording.children]
    means, fired, seen, bins = [], [], [], 0
    for split in splits:
        total, shown = _sum_over_time(recording[split].to_dataset()["rate"])
        means.append(np.divide(total, shown, out=np.full(total.size, np.nan), where=shown > 0))
        fired.append(total > 0)
        if split == "test" and "repeats" in recording["test"].children:
            rates = recording["test/repeats"].to_dataset()["rate"]
            each = [_sum_over_time(rates[i]) for i in range(rates.sizes["repeat"])]
            seen.append(np.sum([number for _, number in each], axis=0))
            bins += rates.sizes["repeat"] * rates.sizes["time"]
        else:
            seen.append(shown)
            bins += recording[split].sizes["time"]
    share = 1.0 - np.sum(seen, axis=0) / bins
    return xr.Dataset(
        {
            "mean_rate": (
                ("split", "cell"),
                np.array(means),
                {"units": "Hz", "long_name": "mean rate over the bins that were recorded"},
            ),
            "empty": ("cell", ~np.any(fired, axis=0), {"long_name": "no spike at all"}),
            "missing": (
                "cell",
                share,
                {"units": "1", "long_name": "share of the bins without a recording"},
            ),
        },
        coords={"split": splits},
    )


def _sum_over_time(rate: xr.DataArray) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Sum per cell and number of bins that are not NaN, read in blocks."""
    total = np.zeros(rate.sizes["cell"])
    shown = np.zeros(rate.sizes["cell"], dtype=np.int64)
    for start in range(0, rate.sizes["time"], BINS_PER_READ):
        block = rate[start : start + BINS_PER_READ].to_numpy()  # (time, cell)
        total += np.nansum(block, axis=0, dtype=np.float64)
        shown += np.isfinite(block).sum(axis=0)
    return total, shown


def _repeats(
    recording: xr.DataTree, settings: QualitySettings, progress: bool | None
) -> xr.Dataset:
    """Reliability, its error, the ceiling and the explainable share; NaN without repeats."""
    count = recording["test"].sizes["cell"]
    if "repeats" in recording["test"].children:
        rates = recording["test/repeats"].to_dataset()["rate"].compute()
    else:  # the same variables, all NaN
        test = recording["test"].to_dataset()["rate"]
        rates = test.isel(time=slice(0, 0)).expand_dims(repeat=0)
    parts = []
    steps = range(0, count, CELLS_PER_STEP)
    for start in progress_bar(steps, description="reliability", progress=progress):
        some = rates.isel(cell=slice(start, start + CELLS_PER_STEP))
        part = reliability(some, splits=settings.splits, seed=settings.seed)
        part["noise_ceiling"] = noise_ceiling(some)
        part["signal_variance_fraction"] = signal_variance_fraction(some)
        parts.append(part)
    joined: xr.Dataset = xr.concat(parts, "cell", join="exact", combine_attrs="override")
    return joined


def _violations(recording: xr.DataTree, period: float) -> xr.DataArray:
    """Share of the intervals shorter than ``period`` (s) per cell."""
    cells = recording["test/cell"].to_numpy()
    share = np.full(cells.size, np.nan)
    if "spikes" in recording.children:
        spikes = recording["spikes"].to_dataset()
        times = spikes["spike_time"].to_numpy().astype(np.float64)
        owners = spikes["spike_cell"].to_numpy()
        unknown = sorted(set(owners.tolist()) - set(cells.tolist()), key=str)
        if unknown:
            raise RetinaCodecError(
                f"spike_cell must name cells of the recording; unknown: {unknown[:5]}. "
                f"The cells are {cells[:5].tolist()}{' ...' if cells.size > 5 else ''}."
            )
        for index, cell in enumerate(cells):
            intervals = np.diff(np.sort(times[owners == cell]))
            if intervals.size:
                share[index] = np.mean(intervals < period)
    words = f"share of intervals between spikes below {1000 * period:g} ms"
    return xr.DataArray(share, dims="cell", attrs={"units": "1", "long_name": words})


def _flags(quality: xr.Dataset, limits: QualitySettings) -> list[str]:
    """Describe what is wrong with every cell."""
    fastest = quality["mean_rate"].max("split").to_numpy()  # NaN only where nothing was recorded
    flags = []
    for index in range(quality.sizes["cell"]):
        words = []
        here = quality.isel(cell=index)
        trust, ceiling = float(here["reliability"]), float(here["noise_ceiling"])
        violations = float(here["refractory_violations"])
        if float(here["missing"]) == 1:
            words.append("not recorded")
        elif bool(here["empty"]):
            words.append("silent")
        elif fastest[index] < limits.lowest_rate:
            words.append(f"nearly silent, {fastest[index]:.2g} Hz")
        if trust < limits.lowest_reliability:
            words.append(f"unreliable, {trust:.2f}")
        elif np.isnan(trust) and np.isfinite(ceiling):
            words.append("too few spikes for reliability")
        if violations > limits.highest_violations:
            words.append(f"refractory violations {100 * violations:.1f} %")
        flags.append("; ".join(words))
    return flags
