"""Smooth firing rates in time with a kernel, from exact spike times or from counts.

Notation: Δ the width of a bin, K the integral of the kernel from −∞. A spike at time s adds
(K(right − s) − K(left − s)) / Δ to the rate of the bin [left, right): the mean of the kernel there.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import xarray as xr
from scipy.special import ndtr

from retina_codec.errors import RetinaCodecError
from retina_codec.recordings.binning import EDGE_SLACK, LATE, Floats
from retina_codec.recordings.numbers import is_positive
from retina_codec.recordings.schema import make_recording, validate_recording

__all__ = ["Kernel", "smooth_rates"]

Kernel = Literal["gaussian", "boxcar", "exponential"]
WHOLE = 1e-2  # of a spike: tolerance for rates in 32 bits
CROSSED = 0.02  # share of the spikes that a jittering clock may put into a neighbouring bin


@dataclass(frozen=True)
class _Shape:
    """A kernel of width 1: integral, integral of the integral, and where it begins and ends."""

    integral: Callable[[Floats], Floats]
    second: Callable[[Floats], Floats]
    begin: float
    end: float


def _positive(x: Floats) -> Floats:
    return np.maximum(x, 0.0)


_SHAPES: dict[str, _Shape] = {
    "gaussian": _Shape(
        integral=ndtr,
        second=lambda x: x * ndtr(x) + np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi),
        begin=-6.0,  # 2 in 10⁹ of a Gaussian lie beyond
        end=6.0,
    ),
    "boxcar": _Shape(
        integral=lambda x: np.clip(x + 0.5, 0.0, 1.0),
        second=lambda x: np.clip(x + 0.5, 0.0, 1.0) ** 2 / 2 + _positive(x - 0.5),
        begin=-0.5,
        end=0.5,
    ),
    "exponential": _Shape(
        integral=lambda x: -np.expm1(-_positive(x)),
        second=lambda x: _positive(x) + np.expm1(-_positive(x)),
        begin=0.0,
        end=20.0,
    ),
}


def smooth_rates(
    recording: xr.DataTree, *, kernel: Kernel = "gaussian", width: float = 0.01
) -> xr.DataTree:
    """Replace the rates of a recording by spikes smoothed with a kernel that integrates to 1.

    ``rate_t = Σ_s k_t(s) / Σ_u w(t - u)`` over the spikes s and the observed bins u of one
    presentation: k_t(s) is the mean over bin t of the kernel around s, and w(t - u) is the mean of
    k_t over the times in bin u, times the width of a bin. Far from edges the divisor is 1.

    Parameters
    ----------
    recording : xr.DataTree
        A valid recording. Exact times come from ``/spikes`` (``spike_time`` (spike) in s and
        ``spike_cell`` (spike)) for each spike train whose counts they give; otherwise the spikes
        of a bin are placed at its middle.
    kernel : {"gaussian", "boxcar", "exponential"}
        The exponential is causal: a spike raises the rate of its own and of later bins.
    width : float
        s: standard deviation of the Gaussian, full width of the boxcar, time constant of the
        exponential.

    Returns
    -------
    xr.DataTree
        A valid recording with new ``rate`` and ``type_rate`` (Hz) in each split and new rates of
        each repeat; the test rate is the mean over repeats. The attributes of each rate hold
        ``kernel``, ``width`` and ``exact_times``: for how many spike trains exact times were used.
        All else is kept except ``/quality``, which was measured on other rates. The input is not
        modified.

    Raises
    ------
    RetinaCodecError
        Not a valid recording, an unknown kernel, a width that is not positive, rates that are not
        whole counts (smoothed before) where there are no exact times.

    Notes
    -----
    Every presentation, and every block of a split that was joined, is smoothed alone. At its edges
    and beside bins that are NaN the divisor is below 1: the rate is the weighted mean over the bins
    that were observed, so a constant rate stays constant, and the number of spikes is only kept
    away from edges. A bin that is NaN stays NaN, and spikes in it count nowhere.
    """
    if kernel not in _SHAPES:
        raise RetinaCodecError(f"kernel must be one of {', '.join(_SHAPES)}; got {kernel!r}")
    if not is_positive(width):
        raise RetinaCodecError(f"the width must be a positive number of seconds; got {width!r}")
    validate_recording(recording)
    attrs = {"units": "Hz", "kernel": kernel, "width": float(width)}
    has_train, has_repeats = "train" in recording.children, "repeats" in recording["test"].children
    own = recording.attrs
    paths = (["train"] if has_train else []) + ["test/repeats" if has_repeats else "test"]
    done = {path: _smooth(recording, path, kernel, width) for path in paths}
    test = recording["test"].to_dataset().drop_vars("rate") if has_repeats else done["test"]
    smoothed = make_recording(
        train=done.get("train"),
        test=test,
        repeats=done.get("test/repeats"),
        frame_rate=own["frame_rate"],
        pixel_size=own["pixel_size"],
        session=own["session"],
        species=own["species"],
        source=own["source"],
        source_sha256=own["source_sha256"],
    )
    times = {
        path: {"exact_times": data["rate"].attrs["exact_times"]} for path, data in done.items()
    }
    if has_repeats:
        times["test"] = times["test/repeats"]
    made = {node.path for node in smoothed.subtree}
    for path in ("train", "test", "test/repeats"):
        if f"/{path}" in made:
            for name in {"rate", "type_rate"} & set(smoothed[path].data_vars):
                words = smoothed[path][name].attrs.get("long_name")
                kept = {"long_name": words} if words else {}
                smoothed[path][name].attrs = attrs | kept | times[path]
    smoothed.attrs = dict(recording.attrs)
    for node in recording.subtree:
        path = node.path.strip("/")
        if path != "quality" and node.path not in made:
            smoothed[path] = xr.DataTree(node.to_dataset(inherit=False))
    return smoothed


def _smooth(recording: xr.DataTree, path: str, kernel: str, width: float) -> xr.Dataset:
    """Return the dataset of one split, or the repeats, with smoothed rates."""
    data = recording[path].to_dataset()
    frame_rate = float(recording.attrs["frame_rate"])
    rate = data["rate"]
    repeated = "repeat" in rate.dims
    starts = data["start_time"].to_numpy() if repeated else data["time"].to_numpy()[:1]
    values = rate.to_numpy().reshape(starts.size, rate.sizes["time"], rate.sizes["cell"])
    counts = _known_counts(data, values, frame_rate)
    places = _places(recording, data, starts, frame_rate)
    if counts is None and (places is None or not _add_up(recording, path, places)):
        raise RetinaCodecError(
            f"rates must be whole numbers of spikes per bin to be smoothed; those of /{path} are "
            "not, perhaps smoothed before. Start from the recording as it was measured."
        )
    result = np.full(values.shape, np.nan, dtype=np.float32)
    exact = 0
    for index, cell in np.ndindex(starts.size, values.shape[2]):
        known = None if counts is None else counts[index, :, cell]
        own = None if places is None else places[index][cell]
        if own is not None and known is not None and not _agree(own, known):
            own = None
        exact += own is not None
        weights = _bin_weights(kernel, width * frame_rate, anywhere=own is not None)
        for first, last in _pieces(data):
            observed = np.isfinite(values[index, first:last, cell])
            if own is not None:
                total = _spread(own - first, observed, kernel, width * frame_rate)
            elif known is not None:
                total = _filtered(np.nan_to_num(known[first:last], nan=0.0), weights)
            share = _filtered(observed.astype(np.float64), weights)
            smooth = total[observed] / share[observed] * frame_rate
            result[index, first:last, cell][observed] = smooth
    trains = starts.size * values.shape[2]
    attrs = {"units": "Hz", "exact_times": f"of {exact} of {trains} spike trains"}
    return data.assign(rate=(rate.dims, result.reshape(rate.shape), attrs))


def _known_counts(data: xr.Dataset, rates: npt.NDArray[Any], frame_rate: float) -> Floats | None:
    """Spikes per bin, (presentation, time, cell), NaN where missing; None where not known."""
    counts = rates.astype(np.float64) / frame_rate
    whole = np.round(counts)
    close = np.nanmax(np.abs(counts - whole), initial=0.0) <= WHOLE
    if close and np.nanmin(whole, initial=0.0) >= 0:
        return np.asarray(whole)
    if "repeat" in data["rate"].dims or "kernel" not in data["rate"].attrs:
        return None
    return np.asarray(data["spike_count"].to_numpy()[None], dtype=np.float64)


def _places(
    recording: xr.DataTree, data: xr.Dataset, starts: npt.NDArray[Any], frame_rate: float
) -> list[list[Floats]] | None:
    """Exact times in bins from the start, per presentation and cell; None where they are not kept.

    Where bins are not at equal steps, ``session_time`` says when each was.
    """
    if "spikes" not in recording.children:
        return None
    node = recording["spikes"].to_dataset()
    times, owners = node["spike_time"].to_numpy().astype(np.float64), node["spike_cell"].to_numpy()
    spikes = [times[owners == cell] for cell in recording["test/cell"].to_numpy()]
    bins = data.sizes["time"]
    if "session_time" not in data.coords:
        return [[_inside((each - start) * frame_rate, bins) for each in spikes] for start in starts]
    rows = np.atleast_2d(data["session_time"].to_numpy())
    return [[_among(each, row[np.isfinite(row)], frame_rate) for each in spikes] for row in rows]


def _among(times: Floats, onsets: Floats, frame_rate: float) -> Floats:
    """Positions of times in bins with these onsets; a pause after a bin is not part of it."""
    width = np.append(np.diff(onsets) * frame_rate, 1.0)  # in bins
    width = np.where(np.abs(width - 1) < LATE, width, 1.0)
    home = np.searchsorted(onsets - EDGE_SLACK / frame_rate, times, side="right") - 1
    kept = home >= 0
    within = (times[kept] - onsets[home[kept]]) * frame_rate / width[home[kept]]
    places: Floats = (home[kept] + within)[within < 1 - EDGE_SLACK]
    return places


def _inside(places: Floats, bins: int) -> Floats:
    return places[(places >= -EDGE_SLACK) & (places < bins - EDGE_SLACK)]


def _binned(places: Floats, bins: int) -> npt.NDArray[np.int64]:
    home = np.floor(places + EDGE_SLACK).astype(np.int64)
    return np.bincount(home, minlength=bins)


def _agree(places: Floats, counts: Floats) -> bool:
    """Return whether exact times give the counts, except few that crossed an edge of a bin."""
    seen = np.isfinite(counts)
    difference = np.abs(_binned(places, counts.size)[seen] - counts[seen]).sum()
    return bool(difference <= 2 * CROSSED * counts[seen].sum())


def _add_up(recording: xr.DataTree, path: str, places: list[list[Floats]]) -> bool:
    """Return whether exact times sum over presentations to the counts of their split."""
    total = recording[path.split("/")[0]].to_dataset()["spike_count"].to_numpy()
    return all(
        _agree(np.concatenate([each[cell] for each in places]), counts.astype(np.float64))
        for cell, counts in enumerate(total.T)
    )


def _pieces(data: xr.Dataset) -> list[tuple[int, int]]:
    """First bins of the blocks that a split was joined from, and the bins after their last."""
    bins = data.sizes["time"]
    edges = np.array([], dtype=int)
    if "block" in data.coords and data["block"].dims == ("time",):
        edges = np.flatnonzero(np.diff(data["block"].to_numpy())) + 1
    bounds = [0, *edges.tolist(), bins]
    return list(itertools.pairwise(bounds))


def _spread(
    places: npt.NDArray[np.floating], observed: npt.NDArray[np.bool_], kernel: str, width: float
) -> Floats:
    """Sum of the kernels around spikes, mean per bin; places and width in bins.

    Each spike gives 1 in all over bins without end; what falls outside the presentation is lost.
    """
    shape, bins = _SHAPES[kernel], observed.size
    home = np.floor(places + EDGE_SLACK).astype(np.int64)
    kept = (home >= 0) & (home < bins)
    kept[kept] = observed[home[kept]]
    home, places = home[kept], places[kept]
    begin, end = _reach(shape, width)
    total = np.zeros(bins)
    whole = shape.integral((home + end + 1 - places) / width) - shape.integral(
        (home + begin - places) / width
    )
    for offset in range(begin, end + 1):
        right = shape.integral((home + offset + 1 - places) / width)
        part = (right - shape.integral((home + offset - places) / width)) / whole
        target = home + offset
        inside = (target >= 0) & (target < bins)
        total += np.bincount(target[inside], part[inside], minlength=bins)
    return total


def _reach(shape: _Shape, width: float) -> tuple[int, int]:
    """First and last bin that a spike in bin 0 reaches."""
    return int(np.floor(shape.begin * width)), int(np.ceil(1 + shape.end * width)) - 1


def _bin_weights(kernel: str, width: float, *, anywhere: bool) -> tuple[int, Floats]:
    """Offset of the first bin, and the share of each bin in a spike in bin 0; width in bins.

    The spike is at the middle of the bin, or ``anywhere``: the mean over all positions.
    """
    shape = _SHAPES[kernel]
    begin, end = _reach(shape, width)
    if anywhere:
        edges = np.arange(begin - 1, end + 2, dtype=np.float64)
        weights = np.diff(width * shape.second(edges / width), n=2)
    else:
        edges = np.arange(begin, end + 2, dtype=np.float64)
        weights = np.diff(shape.integral((edges - 0.5) / width))
    return begin, weights / weights.sum()


def _filtered(values: Floats, weights: tuple[int, Floats]) -> Floats:
    """Σ_u weight[t − u] values[u] at every t, nothing outside."""
    begin, weight = weights
    full = np.convolve(values, weight)  # full[t − begin]
    place = np.arange(values.size) - begin
    result = np.zeros(values.size)
    inside = (place >= 0) & (place < full.size)
    result[inside] = full[place[inside]]
    return result
