"""Cells with known subunits: fitted subunit grids read from text, and their spikes to white noise.

Notation: t frames, l lags (oldest first), n subunits, y x pixels; lengths in sigmas of the subunit.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

import retina_codec as rc

Floats = npt.NDArray[np.float64]

FRAME_RATE = 30.0  # Hz
RATE = 10.0  # Hz, mean of every simulated cell
DRIVE = 0.5  # standard deviation of a subunit's signal; the strongest flashes of the fits gave 1
LAGS = 8  # frames
GRID = 16.0  # µm between neighbours of the fitted grid
CERTAIN = 260  # places of the grid whose order is certain
TAIL = 9  # numbers that follow the weights of a cell

# what makes a cell's subunits well defined
LARGE = 0.2  # a true subunit has at least this share of the largest weight,
HELD = 0.8  # all of them hold at least this share of the whole weight,
FEWEST, MOST = 4, 12  # and this is how many there are;
APART = 2.0  # sigmas between the closest two,
WIDE = 14.0  # sigmas between the farthest, along x or y,
VARIES = 0.5  # and its rate to noise has a standard deviation of at least this times the mean;
# besides, all true subunits lie at places of the grid whose order is certain


@dataclass(frozen=True, eq=False)
class Cell:
    """One fitted cell; its subunits have a common shape.

    weights (n,) and places (n, 2), x and y in sigmas from the middle of the true subunits; sigma
    in µm; surround (width in sigmas, weight); inner (offset, gain) of the logistic function after
    every subunit, gain below 0 in OFF cells; outer (largest, exponent, half, base) of the output;
    certain: the order of the grid is, at all true subunits.
    """

    recording: str
    name: str
    weights: Floats
    places: Floats
    sigma: float
    surround: tuple[float, float]
    inner: tuple[float, float]
    outer: tuple[float, float, float, float]
    certain: bool = True

    @property
    def true(self) -> npt.NDArray[np.bool_]:
        """Which subunits count as the truth, (n,)."""
        return np.asarray(self.weights >= LARGE * self.weights.max())

    @property
    def species(self) -> str:
        """Mouse or marmoset, from the name of the recording."""
        return "marmoset" if "marmoset" in self.recording else "mouse"


@functools.cache
def hexagon(count: int) -> Floats:
    """Return the points of a hexagonal grid nearest to its middle, (count, 2) in grid steps.

    Nearest first. Points at one distance stand in the order that rounding of doubles gives them
    when rows are stepped from both edges of a square towards its middle: the order of the fitted
    weights. Penalised fits avoid large weights side by side, which confirms it up to `CERTAIN`.
    """
    reach = int((np.sqrt(12 * count - 3) - 3) / 6)  # of the smallest hexagon with fewer points
    rows = np.sqrt(3.0)
    parts = [(_steps(reach, 0, 1), _steps(reach, 0, rows))]
    parts.append((_steps(reach, 0.5, 1), _steps(reach, rows / 2, rows)))
    points = np.concatenate([np.stack(np.meshgrid(x, y), -1).reshape(-1, 2) for x, y in parts])
    if len(points) < count:
        raise rc.RetinaCodecError(
            f"a grid of fitted subunits cannot have {count} weights; the square around it holds "
            f"{len(points)}. Is the file whole? Published ones have 1200."
        )
    distance = np.sqrt(np.square(points[:, 0]) + np.square(points[:, 1]))
    return np.asarray(points[np.argsort(distance, kind="stable")[:count]])


def _steps(reach: int, origin: float, step: float) -> Floats:
    """Return ``origin`` plus multiples of ``step`` within ±reach, counted from both ends."""
    low, high = origin + reach, reach - origin
    first = -reach + (low - np.floor(low / step) * step)
    last = reach - (high - np.floor(high / step) * step)
    number = int((last - first) / step + 0.5)
    last = min(last, first + number * step)
    upwards, downwards = first + step * np.arange(number + 1), last - step * np.arange(number + 1)
    found = np.where(np.arange(number + 1) <= number / 2, upwards, downwards[::-1])
    if number % 2 == 0:
        found[number // 2] = (first + last) / 2
    return np.asarray(found)


def read_cells(path: str | Path) -> list[Cell]:
    """Read the cells of one text file that were fitted to flashed gratings.

    The first line names the stimulus and the pixel in µm; every further one holds a cell: number,
    penalty of the fit, centre (x, y), weights, then sigma (px), width and weight of the surround,
    offset and gain of the subunit, and largest, exponent, half and base of the output. Cells
    without a fit (NaN) are left out, those of other stimuli too (their time courses are not here).
    """
    path = Path(path)
    head, *lines = path.read_text(encoding="utf-8").splitlines() or [""]
    words = head.split()
    try:
        stimulus, pixel = words[0], float(words[1])
        rows = [np.array(line.split(), dtype=float) for line in lines if line.strip()]
    except (IndexError, ValueError) as error:
        raise rc.RetinaCodecError(
            f"{path.name} must begin with a stimulus and a pixel size in µm and go on with one "
            f"line of numbers per cell; got {head[:60]!r} ({error}). Give the files of "
            "modelparameters/ as they are."
        ) from error
    widths = {len(row) for row in rows}
    if len(widths) > 1 or (rows and min(widths) < 4 + 1 + TAIL):
        raise rc.RetinaCodecError(
            f"every cell of {path.name} must have as many numbers as the others, at least "
            f"{4 + 1 + TAIL}; got {sorted(widths)}. Is the file whole?"
        )
    if stimulus != "gratingflashes":
        return []
    return [_cell(path.stem, row, pixel) for row in rows if np.isfinite(row).all()]


def _cell(recording: str, row: Floats, pixel: float) -> Cell:
    """Return the cell of one line; subunits without weight are left out."""
    weights, tail = row[4:-TAIL], row[-TAIL:]
    sigma = float(tail[0] * pixel)
    places = hexagon(len(weights)) * GRID / sigma
    large = places[weights >= LARGE * weights.max()]
    middle = (large.min(0) + large.max(0)) / 2
    used = weights > 0
    return Cell(
        recording=recording,
        name=str(int(row[0])),
        weights=weights[used],
        places=(places - middle)[used],
        sigma=sigma,
        surround=(float(tail[1]), float(tail[2])),
        inner=(float(tail[3]), float(tail[4])),
        outer=(float(tail[5]), float(tail[6]), float(tail[7]), float(tail[8])),
        certain=not (weights >= LARGE * weights.max())[CERTAIN:].any(),
    )


def well_defined(cell: Cell) -> bool:
    """Return whether the subunits can be told apart in principle, by the numbers above."""
    true = cell.places[cell.true]
    if not cell.certain or not FEWEST <= len(true) <= MOST or np.ptp(true, axis=0).max() > WIDE:
        return False
    distance = np.hypot(*(true[:, None] - true[None]).transpose(2, 0, 1))
    closest = distance[np.triu_indices(len(true), 1)].min()
    share = cell.weights[cell.true].sum() / cell.weights.sum()
    return bool(closest >= APART and share >= HELD)


def draw_cells(folder: str | Path, count: int, *, seed: int, side: int) -> list[Cell]:
    """Draw so many well-defined cells, in turn from every recording of a folder."""
    places = [Path(folder), Path(folder) / "modelparameters"]
    files = sorted(path for place in places for path in place.glob("*.txt"))
    if not files:
        raise rc.RetinaCodecError(
            f"--parameters must be a folder with fitted cells (*.txt); {folder} has none. Give a "
            "clone of github.com/dimokaramanlis/subunit_grid_model or its modelparameters/."
        )
    random = np.random.default_rng(seed)
    probe = noise(2000, side, seed)
    queues: list[Iterator[Cell]] = []
    for path in files:
        cells = [cell for cell in read_cells(path) if well_defined(cell)]
        shuffled = [cells[k] for k in random.permutation(len(cells))]
        queues.append(_varying(iter(shuffled), probe))
    found: list[Cell] = []
    while queues and len(found) < count:
        for queue in list(queues):
            cell = next(queue, None)
            if cell is None:
                queues.remove(queue)
            elif len(found) < count:
                found.append(cell)
    if len(found) < count:
        raise rc.RetinaCodecError(
            f"{folder} must hold at least {count} cells with well-defined subunits; got "
            f"{len(found)}. Ask for fewer with --cells and --pilot."
        )
    return found


def _varying(cells: Iterator[Cell], frames: npt.NDArray[np.uint8]) -> Iterator[Cell]:
    """Pass on the cells that the noise drives."""
    for cell in cells:
        found = rates(cell, frames)
        if found.std() >= VARIES * found.mean() > 0:
            yield cell


def noise(count: int, side: int, seed: int) -> npt.NDArray[np.uint8]:
    """Return binary frames of independent pixels, 0 or 255, (t, y, x)."""
    random = np.random.default_rng(seed)
    return random.integers(0, 2, (count, side, side), dtype=np.uint8) * np.uint8(255)


def time_course() -> Floats:
    """Return the kernel in time, (l,), unit length; the last lag is the frame before the response.

    k(s) = g(s / 2) - 0.4 g(s / 4), s frames before the response, g(u) = u⁴ exp(4 - 4 u): a lobe
    that peaks 67 ms before and a slower one of the other sign.
    """
    back = np.arange(LAGS, 0, -1.0)
    lobes = [(back / peak) ** 4 * np.exp(4 - 4 * back / peak) for peak in (2, 4)]
    kernel = lobes[0] - 0.4 * lobes[1]
    return np.asarray(kernel / np.linalg.norm(kernel))


def centres(cell: Cell, side: int) -> Floats:
    """Return the Gaussian centres of subunits on a frame, (n, y, x); one pixel is one sigma."""
    axis = np.arange(side) - (side - 1) / 2
    x, y = cell.places.T[:, :, None]
    along_x, along_y = (np.exp(-np.square(axis - place) / 2) for place in (x, y))
    return np.asarray(along_y[:, :, None] * along_x[:, None] / (2 * np.pi))


def filters(cell: Cell, side: int) -> Floats:
    """Return the fields of subunits, centre minus surround, (n, y, x)."""
    width, weight = cell.surround
    axis = np.arange(side) - (side - 1) / 2
    square = (
        np.square(axis - cell.places[:, :1])[:, None]
        + (np.square(axis - cell.places[:, 1:])[:, :, None])
    )
    around = np.exp(-square / (2 * width**2)) / (2 * np.pi * width**2)
    return np.asarray(centres(cell, side) - weight * around)


def rates(cell: Cell, frames: npt.NDArray[np.uint8]) -> Floats:
    """Return the rate after every frame but the first, (t,) Hz, of mean `RATE`.

    Every subunit filters the contrast (±1) in space and time, x, scaled to a standard deviation of
    `DRIVE` in the strongest one; puts out 1 / (1 + exp(-a - b x)); their weighted sum s goes
    through largest · sⁿ / (sⁿ + halfⁿ) + base. Rate t follows from the frames before t; the first
    `LAGS` rates are 0.
    """
    contrast = frames.reshape(len(frames), -1).astype(np.float32) / 127.5 - 1
    fields = filters(cell, frames.shape[1]).reshape(len(cell.weights), -1)
    signal = contrast @ fields.T.astype(np.float32)  # (t, n)
    kernel = time_course()
    steps = len(frames) - LAGS
    driven = sum(kernel[lag] * signal[lag : lag + steps] for lag in range(LAGS))
    size = np.linalg.norm(fields, axis=1).max()  # pixels are independent, of variance 1
    offset, gain = cell.inner[0], cell.inner[1] * DRIVE / size
    summed = cell.weights @ (1 / (1 + np.exp(-(offset + gain * np.asarray(driven)).T)))  # (t,)
    largest, exponent, half, base = cell.outer
    share = 1 / (1 + (half / np.maximum(summed, 1e-12)) ** exponent)
    found = largest * share + base
    scaled = found * RATE / found.mean() if found.mean() > 0 else found
    return np.concatenate((np.zeros(LAGS), scaled))


def record(cells: list[Cell], minutes: float, side: int, seed: int) -> xr.DataTree:
    """Simulate a recording of some cells, all shown the same noise; the last tenth is the test."""
    count = round(minutes * 60 * FRAME_RATE)
    frames = noise(count, side, seed)
    expected = np.stack([rates(cell, frames) for cell in cells], 1) / FRAME_RATE
    spikes = np.random.default_rng([seed, 1]).poisson(expected)
    middle = np.full(len(cells), (side - 1) / 2)
    whole = xr.Dataset(
        {
            "stimulus": (("time", "y", "x"), frames),
            "spike_count": (("time", "cell"), spikes),
            "expected": (("time", "cell"), expected),
        },
        coords={
            "time": np.arange(count) / FRAME_RATE,
            "cell": [f"{cell.recording}/{cell.name}" for cell in cells],
            "center_y": ("cell", middle),
            "center_x": ("cell", middle),
        },
    )
    cut = round(0.9 * count)
    parts: dict[str, Any] = {"train": slice(0, cut), "test": slice(cut, None)}
    return rc.recordings.make_recording(
        **{name: whole.isel(time=part) for name, part in parts.items()},
        frame_rate=FRAME_RATE,
        pixel_size=float("nan"),
        session=f"subunits, noise {seed}",
        species=" and ".join(sorted({cell.species for cell in cells})),
        source="simulated from fitted subunit grids",
    )
