"""Doubts about a recording whose form is valid: scales, rates, frames that are not finite."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from retina_codec.errors import RetinaCodecError

__all__ = ["check_frames", "doubts_about", "frame_doubts", "wrong_responses"]

SCALES_DIFFER = 30.0  # between the range of train and of test frames
ROUNDING = 1e-6  # of the largest rate: smaller negative rates come from smoothing
RARE, FAST = 0.05, 1000.0  # Hz: rates outside come from times or counts in another unit
ENOUGH = 20  # spikes


def check_frames(split: xr.Dataset) -> None:
    """Refuse NaN and infinity in frames that are in memory.

    `retina_codec.recordings.windows.StimulusWindows` checks the others when it reads them.

    Parameters
    ----------
    split : xr.Dataset
        With ``stimulus`` (time, y, x).

    Raises
    ------
    RetinaCodecError
        Some are not finite; the first is named.
    """
    frames = split["stimulus"]
    if not frames.variable._in_memory or frames.dtype.kind != "f":
        return
    bad = ~np.isfinite(frames.to_numpy()).all(axis=(1, 2))
    if bad.any():
        first = int(np.argmax(bad))
        raise RetinaCodecError(
            f"frames must be finite; {int(bad.sum())} hold NaN or infinity, the first is frame "
            f"{first}, at {float(split['time'][first]):.6g} s. Repair these frames, or cut the "
            "split there."
        )


def frame_doubts(shown: Mapping[str, npt.NDArray[Any]]) -> Iterable[str]:
    """Yield what is doubtful in some frames of each split.

    Parameters
    ----------
    shown : mapping of str to numpy.ndarray
        Frames of "train", where there are any, and "test", raw intensities.

    Yields
    ------
    str
        Frames that are not finite; ranges of train and test that differ 30 times or more, where
        neither is constant.
    """
    spans = []
    for name, frames in shown.items():
        finite = frames[np.isfinite(frames)] if frames.dtype.kind == "f" else frames.ravel()
        if finite.size < frames.size:
            yield (
                f"frames of {name} hold NaN or infinity, in {len(frames)} frames that were looked "
                "at; repair or cut them before they are used"
            )
        if finite.size:
            spans.append((float(finite.min()), float(finite.max())))
    ranges = [high - low for low, high in spans]
    if len(spans) == 2 and max(ranges) >= SCALES_DIFFER * min(ranges) > 0:
        (low, high), (test_low, test_high) = spans
        yield (
            f"frames of train lie in {low:.4g} to {high:.4g} and those of test in {test_low:.4g} "
            f"to {test_high:.4g}; if one is scaled otherwise, bring both to one scale"
        )


def doubts_about(recording: xr.DataTree) -> Iterable[str]:
    """Yield what a valid recording may have wrong, as far as it is in memory.

    Parameters
    ----------
    recording : xr.DataTree

    Yields
    ------
    str
        One sentence, with the way out.
    """
    splits = [recording[n].to_dataset() for n in ("train", "test") if n in recording.children]
    shown = [split["stimulus"] for split in splits]
    if len(shown) == 2 and all(frames.variable._in_memory for frames in shown):
        train, test = (frames.to_numpy() for frames in shown)
        yield from frame_doubts({"train": train, "test": test})
    for name, split in zip(("train", "test")[-len(splits) :], splits, strict=True):
        if not split["rate"].variable._in_memory:
            continue
        rates = split["rate"].to_numpy()  # (time, cell)
        seen = np.isfinite(rates).sum(axis=0)
        total = np.asarray(np.nansum(rates, axis=0, dtype=np.float64))
        means = total[seen > 0] / seen[seen > 0]
        fires = means[means > 0]
        spikes = np.nansum(rates, dtype=np.float64) / float(recording.attrs["frame_rate"])
        if fires.size and np.median(fires) < RARE and spikes >= ENOUGH:
            yield (
                f"cells fire at {np.median(fires):.2g} Hz in {name} (median); if spike times were "
                "in ms or samples when they were counted, count them again in s"
            )
        if fires.size and fires.max() > FAST:
            yield (
                f"a cell fires at {fires.max():.3g} Hz in {name}; if spike_count holds Hz, pass it "
                "as rate"
            )


def wrong_responses(values: xr.DataArray, what: str) -> Iterable[str]:
    """Yield what is wrong with counts or rates: they are 0 or more; NaN is not recorded.

    Parameters
    ----------
    values : xr.DataArray
    what : str
        Their name, for the message.

    Yields
    ------
    str
    """
    array = values.to_numpy()
    if array.size == 0 or array.dtype.kind in "bu":
        return
    low, high = np.nanmin(array, initial=0), np.nanmax(array, initial=0)
    if low < -ROUNDING * high:
        yield f"{what} must not be negative; {int((array < 0).sum())} values are, down to {low:.4g}"
    if not high <= np.finfo(np.float32).max:
        yield f"{what} must be finite, or NaN where nothing was recorded; some are infinite"
