"""Read the salamander recording of Liu et al. 2017: counts per frame, frames from seeds.

Each trial showed 1500 frames of noise that goes on from trial to trial, then 300 frozen ones.
"""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from retina_codec.errors import RetinaCodecError, option
from retina_codec.recordings.formats import Format
from retina_codec.recordings.frames.lazy import lazy_frames
from retina_codec.recordings.frames.seeded import SeededFrames
from retina_codec.recordings.schema import make_recording
from retina_codec.recordings.white_noise.matfile import check_region, choose_rows, read_mat
from retina_codec.storage.trees import sha256_of

__all__ = ["Liu2017", "read_liu_2017"]

FRAME_RATE = 30.0  # Hz
SCREEN = (150, 200)  # px, (y, x); y is the fast axis of the generator
RUNNING_SEED, FROZEN_SEED = -10000, -20000
TRIALS = (
    "blocks one after the other, then the repeats; in the session repeat k followed block k, "
    "whose frames go on after it"
)
SOURCE = "Liu et al. 2017, Nature Communications 8:149"


class Liu2017(Format):
    """The ``.mat`` file of counts; not written."""

    name = "liu_2017"
    suffixes = (".mat",)
    options = ("cells", "region", "trials", "seed", "frozen_seed")

    def read(self, path: str | os.PathLike[str], **options: Any) -> xr.DataTree:
        """See `read_liu_2017`."""
        return read_liu_2017(path, **options)


def read_liu_2017(
    path: str | os.PathLike[str],
    *,
    cells: int | Sequence[int] | None = None,
    region: Sequence[int] | None = None,
    trials: int | None = None,
    seed: int = RUNNING_SEED,
    frozen_seed: int = FROZEN_SEED,
) -> xr.DataTree:
    """Open the recording; frames are made when they are used.

    Parameters
    ----------
    path : path
        A MATLAB file with ``spk1`` (cell, frame, trial), spikes per frame in the running noise, and
        ``spk2`` (cell, frame, trial), in the frozen part.
    cells : int or sequence of int, optional
        Rows of the file, from 0.
    region : (int, int, int, int), optional
        First and last (excluded) pixel along y, then x: the part of the 150 × 200 px screen to
        make. All by default.
    trials : int, optional
        Only the first trials.
    seed, frozen_seed : int
        Of `ran1`, for the running noise and the frozen part.

    Returns
    -------
    xr.DataTree
        See `make_recording`. Train: the running noise, ``block`` (time) numbers the trials; test:
        the frozen part, its ``repeats`` are the same trials. ``time`` runs through all blocks, then
        all repeats, as the attribute ``trials`` says. Pixels are 0 and 255; ``y`` and ``x`` number
        those of the screen. ``pixel_size`` is NaN: the file does not say it.

    Raises
    ------
    RetinaCodecError
        Not such a file; counts that are negative, not whole or do not fit each other; a region
        outside the screen; unknown cells.

    References
    ----------
    Liu, Schreyer, Onken, Rozenblit, Melanson, Onken and Gollisch 2017, Nature Communications 8:149.
    """
    stored = read_mat(path, ("spk1", "spk2"), whole=("spk1", "spk2"))
    running, frozen = _counts(stored, path)
    rows = choose_rows(cells, len(running))
    top, bottom, left, right = check_region(region, SCREEN)
    most = running.shape[2]
    if trials is not None and not (isinstance(trials, int | np.integer) and 1 <= trials <= most):
        raise RetinaCodecError(
            f"trials must be 1 to {most}, the trials of {path}; got {trials!r}. Pass "
            f"{option('trials', most)} or fewer."
        )
    shown = int(trials or most)
    length, still = running.shape[1], frozen.shape[1]
    counts = np.empty((shown, length, len(rows)), np.int32)
    for column, row in enumerate(rows):
        counts[:, :, column] = running[row, :, :shown].T
    own = frozen[rows, :, :shown].transpose(2, 1, 0) * np.float32(FRAME_RATE)
    del stored, running, frozen
    coords = {"cell": rows, "y": np.arange(top, bottom), "x": np.arange(left, right)}

    part = (top, bottom, left, right)
    train = xr.Dataset(
        {
            "stimulus": (("time", "y", "x"), _frames(seed, length * shown, part)),
            "spike_count": (("time", "cell"), counts.reshape(-1, len(rows))),
        },
        coords=coords
        | {
            "time": np.arange(length * shown) / FRAME_RATE,
            "block": ("time", np.repeat(np.arange(shown), length)),
        },
    )
    after = length * shown / FRAME_RATE  # train has one clock without the frozen parts
    test = xr.Dataset(
        {"stimulus": (("time", "y", "x"), _frames(frozen_seed, still, part))},
        coords=coords | {"time": after + np.arange(still) / FRAME_RATE},
    )
    repeats = xr.Dataset(
        {"rate": (("repeat", "time", "cell"), own)},
        coords={"cell": rows, "time": test["time"]},
    )
    recording = make_recording(
        train=train,
        test=test,
        repeats=repeats,
        frame_rate=FRAME_RATE,
        pixel_size=float("nan"),
        session=os.path.splitext(os.path.basename(os.fspath(path)))[0],
        species="salamander",
        source=SOURCE,
        source_sha256=sha256_of(path),
    )
    recording.attrs["trials"] = TRIALS
    return recording


def _frames(seed: int, count: int, part: tuple[int, int, int, int]) -> Any:
    """Return lazy frames (time, y, x) of a part of the screen."""
    top, bottom, left, right = part
    source = SeededFrames(
        "ran1",
        seed=int(seed),
        shape=(count, bottom - top, right - left),
        order="columns",
        screen=SCREEN,
        corner=(top, left),
    )
    return lazy_frames(source)


def _counts(
    stored: dict[str, Any], path: str | os.PathLike[str]
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return counts (cell, frame, trial) of both parts, checked."""
    found = []
    for name in ("spk1", "spk2"):
        values = np.asarray(stored[name])
        wrong = values.dtype.kind not in "iufb" or values.ndim != 3 or not values.size
        whole = wrong or values.dtype.kind != "f" or bool((values == np.floor(values)).all())
        if wrong or not whole or values.min() < 0:
            raise RetinaCodecError(
                f"{path}: {name} must be whole counts (cell, frame, trial), 0 or more; got "
                f"{values.dtype} of shape {values.shape}. Export the file again."
            )
        found.append(values)
    if found[0].shape[::2] != found[1].shape[::2]:
        raise RetinaCodecError(
            f"{path}: spk1 and spk2 must have the same cells and trials; got shapes "
            f"{found[0].shape} and {found[1].shape}. Export the file again."
        )
    return found[0], found[1]
