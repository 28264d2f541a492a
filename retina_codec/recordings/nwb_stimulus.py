"""The movie of an NWB file: which series it is, when each frame was shown, and lazy access to them.

Image series with the frames inside the file are understood; others are refused by name.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from retina_codec.errors import RetinaCodecError
from retina_codec.recordings.nwb_session import Floats

__all__ = ["FramesOnDisk", "choose_series", "frame_clock", "lazy_frames", "pixel_size"]

FRAMES_PER_BLOCK = 500


class FramesOnDisk:
    """Frames of one HDF5 data set: an array that reads on demand and keeps no file open.

    Intensities are raw · conversion + offset; float32 unless these are 1 and 0.

    Parameters
    ----------
    path : Path
        The file.
    location : str
        Name of the data set in it.
    shape : tuple of int
        (time, y, x)
    dtype : numpy.dtype
        Of the raw values.
    conversion, offset : float
        As stored with the series.
    """

    def __init__(
        self,
        path: Path,
        location: str,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        *,
        conversion: float = 1.0,
        offset: float = 0.0,
    ) -> None:
        self.path = path
        self.location = location
        self.shape = shape
        self.ndim = len(shape)
        self.conversion = conversion
        self.offset = offset
        self.raw = conversion == 1.0 and offset == 0.0
        self.dtype = dtype if self.raw else np.dtype(np.float32)

    def __getitem__(self, key: Any) -> npt.NDArray[np.generic]:
        import h5py

        try:
            with h5py.File(self.path, "r") as file:
                values: npt.NDArray[np.generic] = file[self.location][key]
        except (OSError, KeyError) as error:
            raise RetinaCodecError(
                f"the frames must stay readable at {self.path}; they are not. Open the file again."
            ) from error
        if self.raw:
            return values
        return (values.astype(np.float64) * self.conversion + self.offset).astype(np.float32)


def choose_series(nwbfile: Any, path: Path, stimulus: str | None) -> Any:
    """Find the one image series that was shown, or the one asked for by name."""
    from pynwb.image import ImageSeries

    found = {
        name: series
        for name, series in nwbfile.stimulus.items()
        if isinstance(series, ImageSeries) and type(series).__name__ != "IndexSeries"
    }
    others = sorted(set(nwbfile.stimulus) - set(found))
    if not found:
        raise RetinaCodecError(
            f"{path} must have a stimulus that is an image series; it has {others or 'none'}"
        )
    if stimulus is None and len(found) > 1:
        stimulus = "stimulus" if "stimulus" in found else None
        if stimulus is None:
            raise RetinaCodecError(
                f"{path} must have one stimulus; it has {sorted(found)}. Pass stimulus=NAME."
            )
    name = stimulus if stimulus is not None else next(iter(found))
    if name not in found:
        raise RetinaCodecError(
            f"{path} must have the stimulus {name!r}; image series are {sorted(found)}"
        )
    series = found[name]
    if series.external_file is not None:
        raise RetinaCodecError(
            f"{path} must hold its frames; {name!r} is in another file. Convert it to data first."
        )
    if len(series.data.shape) != 3 or 0 in series.data.shape:
        raise RetinaCodecError(
            f"{path}: {name!r} must be grey frames (time, y, x); its shape is {series.data.shape}"
        )
    return series


def lazy_frames(series: Any) -> Any:
    """Put a dask array, dims (time, y, x), before the frames of an open series; read none."""
    from dask.array import from_array

    data = series.data
    path = Path(data.file.filename).resolve()
    conversion = float(1.0 if series.conversion is None else series.conversion)
    offset = float(series.offset or 0.0)
    frames = FramesOnDisk(
        path, data.name, data.shape, data.dtype, conversion=conversion, offset=offset
    )
    return from_array(  # type: ignore[no-untyped-call]  # dask has no types here
        frames,
        chunks=(min(FRAMES_PER_BLOCK, data.shape[0]), -1, -1),
        name=f"frames-{path}-{path.stat().st_mtime_ns}-{data.name}",
        asarray=False,
        meta=np.empty((0, 0, 0), frames.dtype),  # else dask opens the file to find out
    )


def frame_clock(series: Any, path: Path) -> tuple[Floats, float]:
    """Left edge of every frame (s) and the frame rate (Hz)."""
    count = series.data.shape[0]
    if series.rate is not None:
        if not series.rate > 0:
            raise RetinaCodecError(f"{path}: the stimulus rate must be positive; got {series.rate}")
        return float(series.starting_time or 0.0) + np.arange(count) / series.rate, series.rate
    times = np.asarray(series.timestamps, dtype=np.float64)
    if times.size != count:
        raise RetinaCodecError(
            f"{path}: the stimulus must have one timestamp per frame; "
            f"it has {times.size} for {count} frames"
        )
    if count < 2 or not np.isfinite(times).all() or not (np.diff(times) > 0).all():
        raise RetinaCodecError(
            f"{path}: stimulus timestamps must be finite, increasing, at least two; they are not"
        )
    return times, float(1.0 / np.median(np.diff(times)))


def pixel_size(series: Any, notes: dict[str, Any]) -> float:
    """Get µm per pixel: as noted, else from the field of view in m, else NaN for unknown."""
    if "pixel_size" in notes:
        return float(notes["pixel_size"])
    view = getattr(series, "field_of_view", None)
    if view is not None:
        return float(np.asarray(view)[0] / series.data.shape[2] * 1e6)
    return float("nan")
