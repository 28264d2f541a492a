"""Small NWB files as other labs write them, made with pynwb alone; for the tests of the reader."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from pynwb import NWBHDF5IO, NWBFile
from pynwb.base import Images
from pynwb.epoch import TimeIntervals
from pynwb.image import GrayscaleImage, ImageSeries, IndexSeries

RATE = 50.0  # Hz
# for tests whose files say nothing of train and test, which is a doubt of its own
ALL_TEST = "ignore:.*the whole session is the test split:retina_codec.errors.RecordingWarning"
FRAMES = np.random.default_rng(0).integers(0, 255, (60, 4, 3), dtype=np.uint8)
PICTURES = np.random.default_rng(1).integers(0, 255, (12, 4, 3), dtype=np.uint8)
SPIKES: dict[int, list[float]] = {12: [0.05, 0.31, 0.33, 1.1], 4: [0.29], 7: []}


def write(
    path: Path,
    fill: Callable[[NWBFile], None] | None = None,
    *,
    stimulus: Any = None,
    spikes: Mapping[int, Sequence[float]] = SPIKES,
    columns: Mapping[str, Sequence[Any]] | None = None,
    mend: Callable[[h5py.File], None] | None = None,
) -> Path:
    """Write a session: one movie unless told otherwise, units, and what ``fill`` adds.

    ``mend`` changes the finished file with h5py, where pynwb refuses to write a defect.
    """
    nwbfile = NWBFile("a session", "identifier", datetime(2020, 1, 1, tzinfo=UTC))
    for each in movie_list(stimulus):
        nwbfile.add_stimulus(each)
    for name in columns or {}:
        nwbfile.add_unit_column(name, f"{name} of the unit")
    for row, (cell, times) in enumerate(spikes.items()):
        further = {name: values[row] for name, values in (columns or {}).items()}
        nwbfile.add_unit(id=cell, spike_times=list(times), **further)
    if fill is not None:
        fill(nwbfile)
    with NWBHDF5IO(path, "w") as stream:
        stream.write(nwbfile)
    if mend is not None:
        with h5py.File(path, "a") as file:
            mend(file)
    return path


def movie_list(stimulus: Any) -> list[Any]:
    if stimulus is None:
        return [movie()]
    return list(stimulus) if isinstance(stimulus, list | tuple) else [stimulus]


def movie(name: str = "movie", data: Any = FRAMES, **more: Any) -> ImageSeries:
    timing = {} if "timestamps" in more else {"rate": RATE}
    return ImageSeries(name=name, data=data, unit="n/a", **{**timing, **more})


def pictures(
    name: str = "pictures", data: Any = PICTURES, order: Sequence[int] | None = None
) -> Images:
    """Pictures im0, im1, …; their order stated only if given."""
    from pynwb.base import ImageReferences

    images = [GrayscaleImage(name=f"im{n}", data=each) for n, each in enumerate(data)]
    stated = {}
    if order is not None:
        stated["order_of_images"] = ImageReferences(
            name="order_of_images", data=[images[n] for n in order]
        )
    return Images(name=name, images=images, description="shown pictures", **stated)


def index_series(source: Any, index: Any, name: str = "index", **timing: Any) -> IndexSeries:
    kind = "indexed_images" if isinstance(source, Images) else "indexed_timeseries"
    return IndexSeries(
        name=name, data=np.asarray(index, dtype="u4"), unit="N/A", **{kind: source}, **timing
    )


def intervals(name: str, starts: Any, stops: Any, **columns: Sequence[Any]) -> TimeIntervals:
    table = TimeIntervals(name=name, description="intervals")
    for column in columns:
        table.add_column(column, f"{column} of the interval")
    for row, (start, stop) in enumerate(zip(starts, stops, strict=True)):
        further = {column: values[row] for column, values in columns.items()}
        table.add_interval(start_time=float(start), stop_time=float(stop), **further)
    return table


def counted(spikes: Mapping[int, Sequence[float]], onsets: Any, width: float) -> np.ndarray:
    """Spikes in [onset, next onset), the last bin ``width`` long; a slow loop."""
    edges = [*onsets, onsets[-1] + width]
    found = np.zeros((len(onsets), len(spikes)))
    for cell, times in enumerate(spikes.values()):
        for time in times:
            for number in range(len(onsets)):
                if edges[number] - 1e-8 <= time < edges[number + 1] - 1e-8:
                    found[number, cell] += 1
    return found


__all__ = [
    "ALL_TEST",
    "FRAMES",
    "PICTURES",
    "RATE",
    "SPIKES",
    "counted",
    "index_series",
    "intervals",
    "movie",
    "pictures",
    "write",
]
