"""Read recordings of crcns.org ret-1: spikes of mouse ganglion cells, frames from a seed."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from retina_codec.errors import RetinaCodecError, option
from retina_codec.recordings.binning import bin_spikes
from retina_codec.recordings.formats import Format
from retina_codec.recordings.frames.lazy import lazy_frames
from retina_codec.recordings.frames.seeded import SeededFrames
from retina_codec.recordings.schema import make_recording
from retina_codec.recordings.white_noise.matfile import (
    check_region,
    choose_rows,
    read_mat,
    variables_of,
)
from retina_codec.storage.trees import sha256_of

__all__ = ["CrcnsRet1", "read_crcns_ret1"]

VARIABLES = ("datainfo", "stimulus", "spikes")
NOISE = "binarywhitenoise"
HELD_OUT = 0.2  # last part of a run that becomes the test split
SOURCE = "Zhang, Asari and Meister, crcns.org ret-1, doi:10.6080/K0RF5RZT"


class CrcnsRet1(Format):
    """The ``.mat`` files of crcns.org ret-1; not written."""

    name = "crcns_ret1"
    suffixes = (".mat",)
    options = ("run", "cells", "region", "splits", "seed")

    def recognises(self, path: str | os.PathLike[str]) -> bool:
        """Look for the variables of these files."""
        return super().recognises(path) and set(VARIABLES) <= set(variables_of(path))

    def read(self, path: str | os.PathLike[str], **options: Any) -> xr.DataTree:
        """See `read_crcns_ret1`."""
        return read_crcns_ret1(path, **options)


@dataclass(frozen=True)
class _Run:
    """One run of white noise."""

    number: int
    onset: float  # s, of the first frame on the clock of the spikes
    frame: float  # s
    count: int
    pixel_size: float  # µm of a check along x
    screen: tuple[int, int]  # checks along y and x
    seed: int

    def __str__(self) -> str:
        minutes = self.count * self.frame / 60
        return f"{self.number}: {self.screen[0]} × {self.screen[1]} checks, {minutes:.0f} min"


def read_crcns_ret1(
    path: str | os.PathLike[str],
    *,
    run: int | None = None,
    cells: int | Sequence[int] | None = None,
    region: Sequence[int] | None = None,
    splits: Mapping[str, Sequence[float]] | None = None,
    seed: int | None = None,
) -> xr.DataTree:
    """Open one run of white noise; frames are made when they are used.

    Parameters
    ----------
    path : path
        A MATLAB file with ``datainfo``, ``stimulus`` and ``spikes`` (cell, run) in s.
    run : int, optional
        Which run, from 0. By default the only one with checks along both axes.
    cells : int or sequence of int, optional
        Rows of the file, from 0.
    region : (int, int, int, int), optional
        First and last (excluded) check along y, then x. All by default.
    splits : dict, optional
        ``{"train": (0, 720), "test": (720, 900)}``, s since the first frame. By default the last
        fifth is the test split: nothing was repeated.
    seed : int, optional
        Of `ran1`; as the file says by default.

    Returns
    -------
    xr.DataTree
        See `make_recording`. Checks are 0 and 255; ``y`` and ``x`` number those of the screen;
        ``time`` is in s on the clock of the spikes. /spikes holds ``spike_time`` (spike) in s and
        ``spike_cell`` (spike).

    Raises
    ------
    RetinaCodecError
        Not such a file; several runs with checks, or none, and none named; a stimulus other than
        binary white noise; a region outside the screen; unknown cells; splits that overlap or
        leave the run.

    References
    ----------
    Zhang, Asari and Meister 2014, crcns.org, doi:10.6080/K0RF5RZT.
    """
    stored = read_mat(path, VARIABLES, whole=("spikes",))
    chosen = _choose(_runs(stored, path), run, path)
    trains = _trains(stored["spikes"], chosen.number, path)
    rows = choose_rows(cells, len(trains))
    trains = [trains[row] for row in rows]
    top, bottom, left, right = check_region(region, chosen.screen)
    source = SeededFrames(
        "ran1",
        seed=chosen.seed if seed is None else int(seed),
        shape=(chosen.count, bottom - top, right - left),
        screen=chosen.screen,
        corner=(top, left),
    )
    frames, parts = lazy_frames(source), {}
    for name, (first, last) in _splits(splits, chosen).items():
        edges = np.asarray(chosen.onset + np.arange(first, last + 1) * chosen.frame, np.float64)
        parts[name] = xr.Dataset(
            {
                "stimulus": (("time", "y", "x"), frames[first:last]),
                "spike_count": (("time", "cell"), bin_spikes(trains, None, edges)),
            },
            coords={
                "time": edges[:-1],
                "cell": rows,
                "y": np.arange(top, bottom),
                "x": np.arange(left, right),
            },
        )
    about = stored["datainfo"]
    recording = make_recording(
        train=parts.get("train"),
        test=parts["test"],
        frame_rate=1 / chosen.frame,
        pixel_size=chosen.pixel_size,
        session=f"{os.path.splitext(os.path.basename(os.fspath(path)))[0]} run {chosen.number}",
        species=f"mouse, {about.get('animal', 'unknown')}",
        source=SOURCE,
        source_sha256=sha256_of(path),
    )
    if splits is None:
        recording.attrs["split"] = f"the last {HELD_OUT:.0%} of the run is the test split"
    spikes = np.concatenate(trains)
    owners = np.repeat(rows, [len(train) for train in trains])
    recording["spikes"] = xr.DataTree(
        xr.Dataset(
            {
                "spike_time": ("spike", spikes, {"units": "s"}),
                "spike_cell": ("spike", owners),
            }
        )
    )
    return recording


def _runs(stored: dict[str, Any], path: str | os.PathLike[str]) -> list[_Run]:
    """List the runs of binary white noise."""
    entries = stored["stimulus"]
    entries = [entries] if isinstance(entries, Mapping) else list(np.ravel(entries))
    runs = []
    for number, entry in enumerate(entries):
        try:
            if entry["type"] != NOISE:
                continue
            param = entry["param"]
            sides = [int(param[side]) // int(param[f"d{side}"]) for side in ("y", "x")]
            runs.append(
                _Run(
                    number,
                    float(entry["onset"]),
                    float(entry["frame"]),
                    int(entry["Nframes"]),
                    float(entry["pixelsize"]) * int(param["dx"]),
                    (sides[0], sides[1]),
                    int(param["seed"]),
                )
            )
        except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
            raise RetinaCodecError(
                f"{path}: stimulus {number} must state type, onset, frame, Nframes, pixelsize and "
                f"param with x, y, dx, dy, seed; {error!r} was found. Copy the file again."
            ) from error
    if not runs:
        raise RetinaCodecError(
            f"{path} must hold a run of type {NOISE!r}; it has none. Other stimuli cannot be made "
            "again from the file."
        )
    return runs


def _choose(runs: list[_Run], run: int | None, path: str | os.PathLike[str]) -> _Run:
    """Return the run that is named, or the only one with checks along both axes."""
    checks = [each for each in runs if min(each.screen) > 1]
    if run is None and len(checks) == 1:
        return checks[0]
    named = [each for each in runs if each.number == run]
    if named:
        return named[0]
    listed = "; ".join(map(str, runs))
    asked = f"{len(checks)} have checks" if run is None else f"got {run!r}"
    raise RetinaCodecError(
        f"{path}: run must be one of its runs of white noise, {listed}; {asked}. Pass "
        f"{option('run', runs[0].number)} or another of these."
    )


def _trains(spikes: Any, run: int, path: str | os.PathLike[str]) -> list[npt.NDArray[np.float64]]:
    """Return sorted spike times of all cells in one run, s."""
    table = np.asarray(spikes, dtype=object)
    if table.ndim != 2 or run >= table.shape[1]:
        raise RetinaCodecError(
            f"{path}: spikes must be (cell, run) with a column for run {run}; got shape "
            f"{table.shape}. Copy the file again."
        )
    trains = [np.sort(np.ravel(np.asarray(entry, dtype=np.float64))) for entry in table[:, run]]
    if not all(np.isfinite(train).all() for train in trains):
        raise RetinaCodecError(f"{path}: spike times must be finite; some are not. Correct them.")
    return trains


def _splits(splits: Mapping[str, Sequence[float]] | None, run: _Run) -> dict[str, tuple[int, int]]:
    """Return first and last (excluded) frame of train and test."""
    if splits is None:
        cut = round(run.count * (1 - HELD_OUT))
        return {"train": (0, cut), "test": (cut, run.count)}
    found = {}
    for name, span in splits.items():
        ends = np.asarray(span, dtype=np.float64).ravel() / run.frame
        first, last = (np.ceil(ends - 1e-6) if ends.size == 2 else np.array([1, 0])).astype(int)
        if name not in ("train", "test") or not 0 <= first < last <= run.count:
            raise RetinaCodecError(
                f"splits must be train and test, each a start and a stop within the run's "
                f"{run.count * run.frame:.6g} s; got {name}: {span}. Pass "
                f"{option('splits', {'train': ['START', 'STOP'], 'test': ['START', 'STOP']})}."
            )
        found[str(name)] = (int(first), int(last))
    overlap = len(found) == 2 and max(f for f, _ in found.values()) < min(
        last for _, last in found.values()
    )
    if "test" not in found or overlap:
        raise RetinaCodecError(
            f"splits must name test, and train must not overlap it; got {dict(splits)}. Pass "
            f"{option('splits', {'train': ['START', 'STOP'], 'test': ['START', 'STOP']})}."
        )
    return found
