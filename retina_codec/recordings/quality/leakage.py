"""Test frames that also occur in training, and movies shown twice within the test split.

Notation: a window is the shortest stretch of frames that starts where the frame changes, has at
least ``run`` frames, and holds at least ``distinct`` different ones.
"""

import hashlib

import numpy as np
import numpy.typing as npt
import xarray as xr

from retina_codec.errors import RetinaCodecError
from retina_codec.progress import progress_bar
from retina_codec.recordings.schema import validate_recording

__all__ = ["find_leakage"]

READ_BYTES = 2**24
FACTOR = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2⁶⁴
Hashes = npt.NDArray[np.uint64]
Places = npt.NDArray[np.int64]


def find_leakage(
    recording: xr.DataTree, *, run: int = 10, distinct: int = 3, progress: bool | None = None
) -> xr.Dataset:
    """Find test frames that also occur in training, alone and in runs.

    Parameters
    ----------
    recording : xr.DataTree
        A valid recording. Every frame of both splits is read once, in blocks.
    run : int
        Frames; the shortest stretch that counts as leaked.
    distinct : int
        Least number of different frames in such a stretch, 3 or more; a flash from grey and back
        has two.
    progress : bool, optional
        See `retina_codec.progress.progress_bar`.

    Returns
    -------
    xr.Dataset
        ``matched_frames`` and ``matched_fraction``: test frames that occur anywhere in training;
        ``leaked_frames`` and ``leaked_fraction``: those in runs that training shows too;
        ``repeated_frames`` and ``repeated_fraction``: those in runs that test showed before.
        ``leaked`` (time): bool, which test frames are leaked. Segments, in s:
        ``test_start``, ``train_start``, ``duration`` (segment); ``first_start``, ``second_start``,
        ``repeated_duration`` (repeated_segment). Segments may overlap; together they hold the
        frames that were counted. Where training shows a run several times, the longest match is
        listed, the first among equals.

    Raises
    ------
    RetinaCodecError
        Not a valid recording, ``distinct`` below 3 or above ``run``.

    Notes
    -----
    Frames are compared as numbers of the type that holds both splits; 0 and −0 are the same. Two
    different frames among n share their 64-bit hash with probability below n² / 2⁶⁵: 4 in 10⁹ for
    an hour at 100 Hz. Without a train split nothing can leak, and the counts are 0.
    """
    if not 3 <= distinct <= run:
        raise RetinaCodecError(
            "a run must hold at least 3 different frames (one change is no movie) and at most as "
            f"many as it has; got {distinct=}, {run=}. Single frames are counted in matched_frames."
        )
    validate_recording(recording)
    movies = {
        name: recording[name].to_dataset()["stimulus"]
        for name in ("train", "test")
        if name in recording.children
    }
    dtype = np.result_type(*(movie.dtype for movie in movies.values()))
    hashes = {
        name: _hash_frames(movie, dtype, f"{name} frames", progress)
        for name, movie in movies.items()
    }
    test, train = hashes["test"], hashes.get("train", np.empty(0, dtype=np.uint64))
    matched = int(np.isin(test, train).sum())
    leaked, leaks = _common_runs(test, train, run, distinct, within=False)
    again, twice = _common_runs(test, test, run, distinct, within=True)
    rate = float(recording.attrs["frame_rate"])
    start = {name: float(movie["time"][0]) for name, movie in movies.items()}
    counts = {"matched": matched, "leaked": int(leaked.sum()), "repeated": int(again.sum())}
    variables = _counts(counts, test.size)
    variables["leaked"] = ("time", leaked, {"long_name": "frame lies in a run of training"})
    tables = (
        ("segment", ("test_start", "train_start", "duration"), leaks, "train"),
        ("repeated_segment", ("second_start", "first_start", "repeated_duration"), twice, "test"),
    )
    for dim, names, rows, other in tables:
        seconds = rows / rate + [start["test"], start.get(other, 0.0), 0.0]
        for column, name in enumerate(names):
            variables[name] = (dim, seconds[:, column], {"units": "s"})
    return xr.Dataset(
        variables,
        coords={"time": movies["test"]["time"]},
        attrs={"run": run, "distinct": distinct, "train_frames": train.size},
    )


def _counts(counts: dict[str, int], frames: int) -> dict[str, tuple[object, ...]]:
    """Numbers of test frames of each kind, and their shares."""
    words = {
        "matched": "occur in training, alone or in a run",
        "leaked": "lie in runs that training shows too",
        "repeated": "lie in runs that test showed before",
    }
    variables: dict[str, tuple[object, ...]] = {}
    for name, count in counts.items():
        long_name = f"test frames that {words[name]}"
        variables[f"{name}_frames"] = ((), count, {"units": "count", "long_name": long_name})
        attrs = {"units": "1", "long_name": f"share of the {long_name}"}
        variables[f"{name}_fraction"] = ((), count / frames, attrs)
    return variables


def _hash_frames(
    movie: xr.DataArray, dtype: npt.DTypeLike, description: str, progress: bool | None
) -> Hashes:
    """One 64-bit number per frame, from its exact values."""
    frames = movie.sizes["time"]
    size = np.dtype(dtype).itemsize * movie.sizes["y"] * movie.sizes["x"]
    step = max(1, READ_BYTES // max(1, size))
    hashes = np.empty(frames, dtype=np.uint64)
    blocks = range(0, frames, step)
    for start in progress_bar(blocks, description=description, progress=progress):
        block = movie[start : start + step].to_numpy().astype(dtype)  # (time, y, x)
        if block.dtype.kind == "f":
            block += 0.0  # −0 becomes 0
        for number, frame in enumerate(np.ascontiguousarray(block), start=start):
            digest = hashlib.blake2b(frame, digest_size=8).digest()
            hashes[number] = int.from_bytes(digest, "little")
    return hashes


def _common_runs(
    test: Hashes, train: Hashes, run: int, distinct: int, *, within: bool
) -> tuple[npt.NDArray[np.bool_], Places]:
    """Mark test frames in windows that also occur in train; list (test, train, frames) rows.

    ``within``: both are the test movie, and only what was shown earlier counts.
    """
    marked = np.zeros(test.size, dtype=bool)
    starts, stops = _windows(test, run, distinct)
    others, ends = _windows(train, run, distinct)
    keys = _window_hashes(test, starts, stops)
    other_keys = _window_hashes(train, others, ends)
    order = np.argsort(other_keys, kind="stable")
    first = np.searchsorted(other_keys[order], keys, side="left")
    last = np.searchsorted(other_keys[order], keys, side="right")
    rows: list[tuple[int, int, int]] = []
    reached = 0
    for index in np.flatnonzero(last > first):
        begin = int(starts[index])
        if stops[index] <= reached:
            continue  # inside the last segment
        places = others[order[first[index] : last[index]]]
        place, length = _longest(test, train, begin, places[places < begin] if within else places)
        final = int(np.searchsorted(stops, begin + length, side="right")) - 1
        if final < index:
            continue  # shown first here, or two windows that only share their hash
        reached = int(stops[final])
        marked[begin:reached] = True
        rows.append((begin, place, reached - begin))
    return marked, np.array(rows, dtype=np.int64).reshape(-1, 3)


def _windows(hashes: Hashes, run: int, distinct: int) -> tuple[Places, Places]:
    """First frames of all windows and the frames after their last ones."""
    starts, stops = [], []
    inside: dict[int, int] = {}
    values = hashes.tolist()
    end = 0
    for start, value in enumerate(values):
        while end < len(values) and (len(inside) < distinct or end - start < run):
            inside[values[end]] = inside.get(values[end], 0) + 1
            end += 1
        if len(inside) < distinct or end - start < run:
            break
        if values[start + 1] != value:
            starts.append(start)
            stops.append(end)
        inside[value] -= 1
        if not inside[value]:
            del inside[value]
    return np.array(starts, dtype=np.int64), np.array(stops, dtype=np.int64)


def _window_hashes(hashes: Hashes, starts: Places, stops: Places) -> Hashes:
    """Σ_i hash[start + i] · FACTOR^i modulo 2⁶⁴: the same for the same frames anywhere."""
    powers = _powers(FACTOR, hashes.size)
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(hashes * powers, dtype=np.uint64)])
    back = _powers(pow(FACTOR, -1, 2**64), hashes.size)
    found: Hashes = (sums[stops] - sums[starts]) * back[starts]
    return found


def _powers(base: int, count: int) -> Hashes:
    """Powers 0, 1, ... modulo 2⁶⁴."""
    factors = np.full(count, base, dtype=np.uint64)
    factors[:1] = 1
    powers: Hashes = np.cumprod(factors, dtype=np.uint64)
    return powers


def _longest(test: Hashes, train: Hashes, begin: int, places: Places) -> tuple[int, int]:
    """Among places in train, the one that agrees with test from ``begin`` longest, and how long."""
    alive, length, best = places, 0, (-1, 0)
    while alive.size:
        best = (int(alive[0]), length)
        if begin + length == test.size:
            break
        alive = alive[alive + length < train.size]
        alive = alive[train[alive + length] == test[begin + length]]
        length += 1
    return best
