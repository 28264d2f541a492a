"""Make recordings from their parts, and validate them without reading the stimulus.

A recording is a tree: /test and, where they exist, /train, /test/repeats and /interneurons.
"""

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from retina_codec.errors import RecordingWarning, RetinaCodecError
from retina_codec.recordings.doubts import check_frames, doubts_about, wrong_responses
from retina_codec.recordings.numbers import is_positive

__all__ = ["make_recording", "select_cells", "validate_recording"]

NORMALISATION = "none: raw intensities"
TEXT_ATTRIBUTES = ("session", "species", "source", "source_sha256", "normalisation")
UNITS = {
    "time": "s",
    "y": "px",
    "x": "px",
    "rate": "Hz",
    "type_rate": "Hz",
    "spike_count": "count",
    "start_time": "s",
    "session_time": "s",
    "center_y": "px",
    "center_x": "px",
}
SPLIT_DIMS = {
    "stimulus": ("time", "y", "x"),
    "rate": ("time", "cell"),
    "spike_count": ("time", "cell"),
    "type_membership": ("cell", "cell_type"),
    "type_rate": ("time", "cell_type"),
}
ALONG_CELL = ("type", "center_y", "center_x")  # coordinates, also when given as variables
EXAMPLE = (
    "xr.Dataset({'stimulus': (('time', 'y', 'x'), frames), 'spike_count': (('time', 'cell'), "
    "counts)}, coords={'time': onsets})"
)
LISTED = 5
TIME_TOLERANCE = 0.01  # of a bin: above float rounding over hours, below a dropped frame


def make_recording(
    *,
    train: xr.Dataset | None,
    test: xr.Dataset,
    repeats: xr.Dataset | None = None,
    interneurons: xr.Dataset | None = None,
    frame_rate: float,
    pixel_size: float,
    session: str,
    species: str,
    source: str,
    source_sha256: str = "",
) -> xr.DataTree:
    """Join the parts of a recording, compute what follows from them, and validate the whole.

    rate = spike_count · frame_rate. With repeats, the test split holds the sum of the counts and
    the mean of the rates over the presentations that exist.
    type_rate[t, k] = Σ_c membership[c, k] rate[t, c] / Σ_c membership[c, k].

    Parameters
    ----------
    train : xr.Dataset or None
        ``stimulus`` (time, y, x) in raw intensities, may be lazy; ``spike_count`` (time, cell) in
        count or ``rate`` (time, cell) in Hz; coordinates ``time`` (s, left edges, session clock),
        ``cell``, optionally ``type``, ``center_y``, ``center_x`` (px) along cell; ``session_time``
        (time) in s where bins are not at equal steps of the session clock. Further variables are
        kept.
    test : xr.Dataset
        The same; counts and rates may be left out where ``repeats`` are given.
    repeats : xr.Dataset, optional
        ``rate`` (repeat, time, cell) in Hz, NaN where missing; optionally ``start_time`` (repeat)
        in s, by default one presentation after another, and ``session_time`` (repeat, time) in s.
    interneurons : xr.Dataset, optional
        ``potential`` (time, interneuron) during the first test presentation.
    frame_rate : float
        Hz.
    pixel_size : float
        µm on the retina; NaN where unknown.
    session, species, source, source_sha256 : str
        Origin of the recording.

    Returns
    -------
    xr.DataTree
        A valid recording. The inputs are not modified.

    Raises
    ------
    RetinaCodecError
        The parts do not make a valid recording; the message lists every fault.

    Warns
    -----
    RecordingWarning
        Frames of train and test of other scales; rates as of spikes in another unit.
    """
    given = {"train": train, "test": test, "repeats": repeats, "interneurons": interneurons}
    for name, part in given.items():
        if not isinstance(part, xr.Dataset) and not (part is None and name != "test"):
            raise RetinaCodecError(
                f"{name} must be an xr.Dataset; got {_brief(part)}. Write {EXAMPLE}."
            )
    nodes: dict[str, xr.Dataset] = {
        "/": xr.Dataset(
            attrs={
                "session": session,
                "species": species,
                "source": source,
                "source_sha256": source_sha256,
                "frame_rate": float(frame_rate),
                "pixel_size": float(pixel_size),
                "normalisation": NORMALISATION,
            }
        )
    }
    if train is not None:
        nodes["/train"] = _complete_split(train, "train", frame_rate)
    if repeats is not None:
        repeats = _complete_repeats(repeats, test)
        test = _sum_repeats(test, repeats, frame_rate)
    nodes["/test"] = _complete_split(test, "test", frame_rate)
    if repeats is not None:
        own = ("repeat", "start_time", "session_time")
        kept = [name for name in own if name in repeats.coords]
        shared = [name for name in repeats.coords if name not in kept]
        nodes["/test/repeats"] = repeats.drop_vars(shared)
    if interneurons is not None:
        nodes["/interneurons"] = _with_units(interneurons)
    try:
        recording = xr.DataTree.from_dict(nodes)
    except ValueError as error:
        raise RetinaCodecError(
            "test and repeats must have the same times and cells; "
            + " ".join(str(error).split())[:200]
            + ". Cut both to the same times and cells."
        ) from error
    validate_recording(recording)
    for split in (train, test):
        if split is not None:
            check_frames(split)
    for doubt in doubts_about(recording):
        warnings.warn(doubt, RecordingWarning, stacklevel=2)
    return recording


def _brief(value: object) -> str:
    """Describe a value without its contents: its type, and shape or length."""
    shape = getattr(value, "shape", None)
    text = f" of shape {tuple(shape)}" if isinstance(shape, tuple) else ""
    if shape is None and isinstance(value, str | int | float | bool) and len(repr(value)) < 60:
        return repr(value)
    return f"{type(value).__name__}{text}"


def select_cells(recording: xr.DataTree, cells: Sequence[Any]) -> xr.DataTree:
    """Keep some cells of a recording, in this order.

    Parameters
    ----------
    recording : xr.DataTree
    cells : sequence
        Names of cells.

    Returns
    -------
    xr.DataTree
        Rates of types follow from the cells that are left; the input is not modified.

    Raises
    ------
    RetinaCodecError
        A cell that is not in the recording.
    """
    wanted = [cells] if isinstance(cells, str | int | np.generic) else list(cells)
    known = {str(name): name for name in recording["test/cell"].to_numpy().tolist()}
    missing = [name for name in wanted if str(name) not in known]
    if missing or not wanted:
        raise RetinaCodecError(
            f"cells must be names of cells, {list(known)[:20]}; it lacks {missing[:LISTED]}. "
            "Choose some of these."
        )
    kept = [known[str(name)] for name in wanted]
    nodes = {}
    for node in recording.subtree:
        part = node.to_dataset(inherit=False)
        if "cell" in part.dims:
            part = (
                part.sel(cell=kept)
                if "cell" in part.coords
                else part.isel(cell=_rows(recording, kept))
            )
        if "spike_cell" in part:
            part = part.sel(spike=np.isin(part["spike_cell"].to_numpy(), kept))
        if node.path in ("/train", "/test"):
            rate = float(recording.attrs["frame_rate"])
            part = _complete_split(part.drop_vars("type_rate"), node.path, rate)
        nodes[node.path] = part
    return xr.DataTree.from_dict(nodes)


def _rows(recording: xr.DataTree, cells: list[Any]) -> list[int]:
    """Positions of cells, for a node that inherits their names."""
    names = recording["test/cell"].to_numpy().tolist()
    return [names.index(cell) for cell in cells]


def validate_recording(recording: xr.DataTree) -> None:
    """Check that a tree is a recording; one message lists every fault.

    Names, dims, coordinates, units and memberships are checked; the stimulus is not read.

    Parameters
    ----------
    recording : xr.DataTree
        See `make_recording`.

    Raises
    ------
    RetinaCodecError
        With a numbered list.
    """
    wrong = [*_wrong_attributes(recording)]
    if "test" not in recording.children:
        wrong.append(f"there must be a node /test; got {sorted(recording.children)}")
    splits = [name for name in ("train", "test") if name in recording.children]
    rate = recording.attrs.get("frame_rate")
    for name in splits:
        wrong += _wrong_split(recording[name].to_dataset(), f"/{name}", rate)
    if not wrong and len(splits) == 2:
        wrong += _wrong_pair(recording["train"].to_dataset(), recording["test"].to_dataset())
    if "test" in splits and "repeats" in recording["test"].children:
        wrong += _wrong_repeats(recording["test/repeats"].to_dataset(), rate)
    if "interneurons" in recording.children:
        wrong += _wrong_interneurons(recording["interneurons"].to_dataset(), rate)
    if wrong:
        listed = "; ".join(f"({number}) {text}" for number, text in enumerate(wrong, start=1))
        raise RetinaCodecError(f"this is not a valid recording: {listed}")


def _complete_split(split: xr.Dataset, name: str, frame_rate: float) -> xr.Dataset:
    """Add rates or counts, positions, types and type rates where they are missing."""
    if "spike_count" not in split and "rate" not in split:
        raise RetinaCodecError(
            f"the {name} split must have spike_count or rate; got "
            f"{sorted(map(str, split))[:LISTED]}. Write {EXAMPLE}."
        )
    if "cell_type" in split.variables and split["cell_type"].dims == ("cell",):
        raise RetinaCodecError(
            f"the {name} split must name the types of its cells in type, not cell_type, which "
            "lists every type once. Rename it."
        )
    split = split.set_coords([entry for entry in ALONG_CELL if entry in split.variables])
    if "rate" not in split:
        split = split.assign(rate=_rate_of(split["spike_count"], frame_rate))
    if "spike_count" not in split:
        split = split.assign(spike_count=_counts(split["rate"] / frame_rate))
    if split["spike_count"].dtype.kind in "iu" and split["spike_count"].dtype != np.int32:
        split = split.assign(spike_count=split["spike_count"].astype(np.int32))
    for dim in ("y", "x", "cell"):
        if dim in split.dims and dim not in split.coords:
            split = split.assign_coords({dim: np.arange(split.sizes[dim])})
    if "cell" not in split.dims:
        return split  # validate_recording reports it
    if "type" not in split.coords:
        split = split.assign_coords(type=("cell", np.full(split.sizes["cell"], "unknown")))
    if "type_membership" not in split:
        types = split["type"].to_numpy().astype(str)
        names = np.unique(types)
        membership = (types[:, None] == names).astype(np.float32)  # (cell, cell_type)
        split = split.assign_coords(cell_type=names)
        split = split.assign(type_membership=(("cell", "cell_type"), membership, {"units": "1"}))
    weight = split["type_membership"]
    mean = xr.dot(split["rate"], weight, dim="cell") / weight.sum("cell")
    split = split.assign(type_rate=_labelled(mean, np.float32, "Hz"))
    for variable, dims in SPLIT_DIMS.items():
        if variable in split and set(split[variable].dims) == set(dims):
            split[variable] = split[variable].transpose(*dims)
    if "stimulus" in split and "units" not in split["stimulus"].attrs:
        attrs = {**split["stimulus"].attrs, "units": "raw intensity"}
        split = split.assign(stimulus=split["stimulus"].assign_attrs(attrs))
    return _with_units(split)


def _complete_repeats(repeats: xr.Dataset, test: xr.Dataset) -> xr.Dataset:
    if "rate" not in repeats or set(repeats["rate"].dims) != {"repeat", "time", "cell"}:
        raise RetinaCodecError(
            "repeats must have a rate with the dims repeat, time and cell; "
            f"got {dict(repeats.sizes)}. Write xr.Dataset({{'rate': (('repeat', 'time', 'cell'), "
            "rates)})."
        )
    repeats = repeats.assign(rate=repeats["rate"].transpose("repeat", "time", "cell"))
    for dim in ("time", "cell"):
        sizes = repeats.sizes[dim], test.sizes.get(dim, repeats.sizes[dim])
        same = sizes[0] == sizes[1]
        if same and dim in repeats.coords and dim in test.coords:
            same = np.array_equal(repeats[dim].to_numpy(), test[dim].to_numpy())
        if not same:
            raise RetinaCodecError(
                f"test and repeats must have the same times and cells; {dim} differs, {sizes[1]} "
                f"in test and {sizes[0]} in repeats. Cut both to the same {dim}."
            )
    if "repeat" not in repeats.coords:
        repeats = repeats.assign_coords(repeat=np.arange(repeats.sizes["repeat"]))
    if "start_time" not in repeats.variables and "time" in test.coords:
        time = test["time"].to_numpy()
        if time.dtype.kind not in "iuf" or time.size == 0:
            return repeats  # validate_recording reports it
        step = (time[-1] - time[0]) / max(1, time.size - 1)
        start = time[0] + np.arange(repeats.sizes["repeat"]) * step * time.size
        repeats = repeats.assign_coords(start_time=("repeat", start))
    return _with_units(repeats.set_coords([n for n in ("start_time",) if n in repeats]))


def _sum_repeats(test: xr.Dataset, repeats: xr.Dataset, frame_rate: float) -> xr.Dataset:
    """Sum of counts, mean of rates; a bin that no repeat shows stays NaN."""
    rate = repeats["rate"].drop_vars(["repeat", "start_time", "session_time"], errors="ignore")
    words = "over the presentations of the test movie"
    named = {name: rate[name] for name in ("time", "cell") if name in rate.coords}
    test = test.assign_coords({name: v for name, v in named.items() if name not in test.coords})
    if "spike_count" not in test:
        total = rate.sum("repeat", min_count=1) / frame_rate
        test = test.assign(spike_count=_counts(total).assign_attrs(long_name=f"sum {words}"))
    if "rate" not in test:
        shown = rate.notnull().sum("repeat")
        mean = rate.sum("repeat", min_count=1, dtype=np.float64) / shown.where(shown > 0)
        mean = _labelled(mean, np.float32, "Hz")
        test = test.assign(rate=mean.assign_attrs(long_name=f"mean {words}"))
    return test


def _counts(values: xr.DataArray) -> xr.DataArray:
    """Whole numbers; kept as floats with NaN where a bin is missing."""
    rounded = values.round()
    whole = bool(np.isfinite(rounded).all())  # infinity is refused later
    return _labelled(rounded, np.int32 if whole else np.float32, "count")


def _rate_of(counts: xr.DataArray, frame_rate: float) -> xr.DataArray:
    """Count · frame_rate, rounded once to float32; no array of doubles in between."""
    if not counts.variable._in_memory:
        return _labelled(counts * frame_rate, np.float32, "Hz")
    rate = np.empty(counts.shape, np.float32)
    np.multiply(counts.values, frame_rate, out=rate, dtype=np.float64, casting="same_kind")
    labelled = counts.copy(data=rate)
    labelled.attrs = {"units": "Hz"}
    return labelled


def _labelled(values: xr.DataArray, dtype: npt.DTypeLike, unit: str) -> xr.DataArray:
    """Set type and unit of a derived array; other attributes are dropped."""
    values = values.astype(dtype)
    values.attrs = {"units": unit}
    return values


def _with_units(dataset: xr.Dataset) -> xr.Dataset:
    """Add the unit of every variable that has one possible unit and does not state it."""
    dataset = dataset.copy()
    for name, unit in UNITS.items():
        if name in dataset.variables and "units" not in dataset[name].attrs:
            attrs = {**dataset[name].attrs, "units": unit}
            if name in dataset.coords:
                variable = dataset[name].variable.copy(deep=False)
                variable.attrs = attrs
                dataset = dataset.assign_coords({name: variable})
            else:
                dataset[name] = dataset[name].assign_attrs(attrs)
    return dataset


def _wrong_attributes(recording: xr.DataTree) -> Iterable[str]:
    for name in TEXT_ATTRIBUTES:
        if not isinstance(recording.attrs.get(name), str):
            yield f"attribute {name} must be text; got {_brief(recording.attrs.get(name))}"
    rate, size = recording.attrs.get("frame_rate"), recording.attrs.get("pixel_size")
    if not (isinstance(rate, int | float) and is_positive(rate)):
        yield f"attribute frame_rate must be a positive number of Hz; got {_brief(rate)}"
    if not (isinstance(size, int | float) and (size != size or is_positive(size))):
        yield (
            "attribute pixel_size must be a positive number of µm (NaN: unknown); got "
            f"{_brief(size)}"
        )


def _wrong_units(dataset: xr.Dataset, where: str) -> Iterable[str]:
    for name, unit in UNITS.items():
        if name in dataset.variables and dataset[name].attrs.get("units") != unit:
            found = dataset[name].attrs.get("units")
            yield f"{where} {name} must have units {unit!r}; got {found!r}"


def _wrong_split(split: xr.Dataset, where: str, frame_rate: object) -> Iterable[str]:
    for name, dims in SPLIT_DIMS.items():
        if name not in split.data_vars:
            yield f"{where} must have {name} {dims}"
        elif split[name].dims != dims:
            yield f"{where} {name} must have the dims {dims}; got {split[name].dims}"
        elif split[name].dtype.kind not in "biuf":
            yield f"{where} {name} must be real numbers; got {split[name].dtype}"
        elif name in ("rate", "spike_count") and split[name].variable._in_memory:
            yield from wrong_responses(split[name], f"{where} {name}")
    for name in ("time", "y", "x", "cell", "cell_type"):
        if name in split.dims and name not in split.coords:
            yield f"{where} must have a coordinate {name}"
    yield from _wrong_units(split, where)
    yield from _wrong_time(split, where, frame_rate)
    if "cell" in split.coords:
        cells, counts = np.unique(split["cell"].to_numpy(), return_counts=True)
        if (counts > 1).any():
            twice = cells[counts > 1][:LISTED].tolist()
            yield f"{where} cells must have different names; repeated: {twice}"
        kind = split["type"] if "type" in split.coords else None
        if kind is None or kind.dims != ("cell",) or kind.dtype.kind not in "OTU":
            yield f"{where} must have a text coordinate type along cell ('unknown' where unknown)"
        elif "cell_type" in split.coords:
            missing = set(kind.to_numpy().tolist()) - set(split["cell_type"].to_numpy().tolist())
            if missing:
                yield f"{where} cell_type must hold every type; missing: {sorted(missing)[:LISTED]}"
        for name in ("center_y", "center_x"):
            if name in split.variables and split[name].dims != ("cell",):
                yield f"{where} {name} must have the dims ('cell',); got {split[name].dims}"
    if "type_membership" in split and split["type_membership"].dtype.kind in "biuf":
        member = split["type_membership"].to_numpy()
        if not ((member >= 0) & (member <= 1)).all():
            yield f"{where} type_membership must lie in [0, 1]"


def _wrong_time(dataset: xr.Dataset, where: str, frame_rate: object) -> Iterable[str]:
    if "time" not in dataset.coords or not isinstance(frame_rate, int | float) or frame_rate <= 0:
        return
    time = dataset["time"].to_numpy()
    if _wrong_numbers(dataset["time"]):
        yield f"{where} time must be finite seconds, at least one; got {time.size} of {time.dtype}"
        return
    late = np.abs(time - time[0] - np.arange(time.size) / frame_rate) * frame_rate
    if late.max() > TIME_TOLERANCE:
        first = int(np.argmax(late > TIME_TOLERANCE))
        yield (
            f"{where} time must advance by 1/frame_rate = {1 / frame_rate:.6g} s; "
            f"it is off by {late[first]:.3g} bins at index {first}. Where a frame was dropped, "
            "show the one before once more; give true onsets as session_time (time)"
        )


def _wrong_numbers(values: xr.DataArray) -> bool:
    """Return True unless these are finite numbers, at least one."""
    array = values.to_numpy()
    return array.dtype.kind not in "iuf" or array.size == 0 or not np.isfinite(array).all()


def _wrong_pair(train: xr.Dataset, test: xr.Dataset) -> Iterable[str]:
    for name in ("cell", "type", "y", "x", "cell_type", "type_membership"):
        if not np.array_equal(train[name].to_numpy(), test[name].to_numpy()):
            yield f"/train and /test must have the same {name}, in the same order"


def _wrong_repeats(repeats: xr.Dataset, frame_rate: object) -> Iterable[str]:
    expected = ("repeat", "time", "cell")
    if "rate" not in repeats.data_vars or repeats["rate"].dims != expected:
        yield f"/test/repeats must have a rate with the dims {expected}"
    elif repeats["rate"].variable._in_memory:
        yield from wrong_responses(repeats["rate"], "/test/repeats rate")
    if "start_time" not in repeats.variables or repeats["start_time"].dims != ("repeat",):
        yield "/test/repeats must have a start_time along repeat"
    elif repeats.sizes["repeat"] == 0:
        yield "/test/repeats must hold at least one presentation"
    elif _wrong_numbers(repeats["start_time"]):
        yield "/test/repeats start_time must be finite seconds"
    elif (
        "time" in repeats.coords
        and isinstance(frame_rate, int | float)
        and not _wrong_numbers(repeats["time"])
    ):
        first, time = float(repeats["start_time"][0]), float(repeats["time"][0])
        if not abs(first - time) * frame_rate <= TIME_TOLERANCE:
            yield (
                "/test time must be the clock of the first presentation; it starts at "
                f"{time:.6g} s and start_time is {first:.6g} s"
            )
    yield from (
        text
        for text in _wrong_units(repeats, "/test/repeats")
        if " rate " in text or "start" in text
    )


def _wrong_interneurons(interneurons: xr.Dataset, frame_rate: object) -> Iterable[str]:
    where, expected = "/interneurons", ("time", "interneuron")
    if "potential" not in interneurons.data_vars or interneurons["potential"].dims != expected:
        yield f"{where} must have a potential with the dims {expected}"
        return
    for name in ("time", "interneuron", "type"):
        if name not in interneurons.coords:
            yield f"{where} must have a coordinate {name}"
    yield from _wrong_units(interneurons, where)
    yield from _wrong_time(interneurons, where, frame_rate)
