"""What an NWB file gives beside movie and counts: notes, further values, spikes and the clock.

Why this file exists: our own files keep in words and in a module ``misc`` what NWB has no place for
(nwb_extras.py, nwb_notes.py); files of others get a report of their clock and of their reading.
"""

import json
from typing import Any

import numpy as np
import xarray as xr

from retina_codec.recordings.nwb_extras import NO_LONG_NAME
from retina_codec.recordings.nwb_notes import dataset_from_notes
from retina_codec.recordings.nwb_options import Reading
from retina_codec.recordings.nwb_session import NOTES_KEY
from retina_codec.recordings.nwb_splits import Run
from retina_codec.recordings.nwb_stimulus import Stimulus
from retina_codec.recordings.nwb_tree import Node
from retina_codec.recordings.nwb_units import Cells

__all__ = ["read_notes", "series_attributes", "with_further_values", "with_nodes"]

CLOCK_WORDS = {
    "offset": ("s", "onset of the first frame on the session clock"),
    "jitter": ("s", "standard deviation of the onsets around equal steps"),
    "largest_jitter": ("s", "largest deviation of an onset from equal steps"),
    "drift": ("ppm", "measured against stated frame rate"),
    "dropped_frames": ("count", "frames that are missing between two others"),
    "duplicated_frames": ("count", "frames that were replaced at once"),
    "pauses": ("count", "longer gaps between frames"),
}


def read_notes(root: Node) -> dict[str, Any]:
    """Read what our writer kept in words; empty for files of others."""
    general = root.get("general")
    words = "" if general is None or general.is_array else general.text("notes")
    try:
        notes = json.loads(words or "{}")[NOTES_KEY]
    except (json.JSONDecodeError, KeyError, TypeError):
        return {}
    return notes if isinstance(notes, dict) else {}


def with_further_values(root: Node, part: xr.Dataset, split: str) -> xr.Dataset:
    """Further (time, cell) values that our writer kept, such as smoothed or noise-free rates."""
    module = root.get("processing/misc")
    shape = (part.sizes["time"], part.sizes["cell"])
    for series in module.members() if module is not None and not module.is_array else ():
        data = None if series.is_array else series.get("data")
        if series.name.startswith(f"{split}_") and data is not None and data.shape == shape:
            name = series.name.removeprefix(f"{split}_")
            part[name] = (("time", "cell"), data.read(), series_attributes(root, series.name))
    return part


def series_attributes(root: Node, name: str) -> dict[str, Any]:
    """Return unit, long name and further words of a series in the module ``misc``."""
    series, data = root.get(f"processing/misc/{name}"), root.get(f"processing/misc/{name}/data")
    attrs = {"units": "n/a" if data is None else str(data.attribute("unit", "n/a"))}
    words = "" if series is None else str(series.attribute("description", ""))
    further = "" if series is None else str(series.attribute("comments", ""))
    if further.startswith("{"):
        attrs |= json.loads(further)
    return attrs if words in ("", NO_LONG_NAME) else attrs | {"long_name": words}


def with_nodes(
    recording: xr.DataTree,
    cells: Cells,
    movies: dict[str, Stimulus],
    runs: dict[str, list[Run]],
    notes: dict[str, Any],
    reading: Reading,
) -> xr.DataTree:
    """Add exact spike times, the clock, and how all was read; our own files say what they had."""
    nodes = {"/": recording.to_dataset(inherit=False)} | {
        node.path: node.to_dataset(inherit=False) for node in recording.subtree if node.path != "/"
    }
    if not str(notes.get("spikes", "placed" if notes else "exact")).startswith("placed"):
        lengths = [train.size for train in cells.trains]
        nodes["/spikes"] = xr.Dataset(
            {
                "spike_time": ("spike", np.concatenate(cells.trains), {"units": "s"}),
                "spike_cell": ("spike", np.repeat(cells.names, lengths)),
            }
        )
    if "clock" in notes:
        nodes["/clock"] = dataset_from_notes(notes["clock"])
    elif not notes:
        nodes["/clock"] = _clock(cells, movies, runs)
    tree = xr.DataTree.from_dict(nodes)
    if "reading" in notes:
        tree.attrs["reading"] = notes["reading"]
    elif not notes:
        tree.attrs["reading"] = reading.text
    return tree


def _clock(cells: Cells, movies: dict[str, Stimulus], runs: dict[str, list[Run]]) -> xr.Dataset:
    """Say what is known of the frame clock: of the test movie, counts over all movies."""
    test = movies["test"].clock.report
    found: dict[str, Any] = {}
    different = list({id(movie): movie.clock.report for movie in movies.values()}.values())
    for name, (unit, words) in CLOCK_WORDS.items():
        value = test[name]
        if unit == "count":
            value = int(sum(report[name] for report in different))
        found[name] = ((), value, {"units": unit, "long_name": words})
    inside = np.zeros(len(cells.trains), dtype=np.int64)
    for split, movie in movies.items():
        for run in runs[split]:
            stop = movie.clock.stop_of(run.last)
            inside += [int(((t >= run.start) & (t < stop)).sum()) for t in cells.trains]
    outside = np.array([train.size for train in cells.trains]) - inside
    attrs = {"units": "count", "long_name": "spikes outside train and test"}
    return xr.Dataset(
        found | {"spikes_outside": ("cell", outside, attrs)}, coords={"cell": cells.names}
    )
