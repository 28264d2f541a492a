"""Circuit of the simulated retina: photoreceptors to ganglion cells, every weight known."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from scipy.signal import lfilter

from retina_codec.errors import RetinaCodecError
from retina_codec.progress import progress_bar
from retina_codec.recordings.simulated.parameters import (
    EXTRA_GANGLION_TYPES,
    GAINS,
    GANGLION_TYPES,
    INTERNEURON_TYPES,
    STRENGTHS,
    THRESHOLDS,
    RetinaParameters,
)
from retina_codec.recordings.simulated.spikes import expected_rate

__all__ = ["Circuit"]


@dataclass(frozen=True)
class Circuit:
    """A retina with known connections.

    Stages, per 10 ms bin: photoreceptors (biphasic low-pass of Weber contrast, divisive contrast
    adaptation) → bipolar cells on a 25 × 25 grid (centre minus surround, ON or OFF, fast or slow,
    rectified) → amacrine cells (wide-field transient; crossover sustained) → ganglion cells
    (weighted subunits minus inhibition, soft threshold).

    Parameters
    ----------
    cell, cell_type, center : tuple
        Ids, types and (y, x) receptive field centres (px) of the ganglion cells.
    weight : xr.DataArray, dims (interneuron_type, y, x, cell)
        Signed strength (dimensionless) of the interneuron at (y, x) px on the cell.
    frame_shape : (int, int)
        px.
    frame_rate : float
        Hz.
    parameters : RetinaParameters
    silenced : tuple of str
        Interneuron types whose output is cut.
    seed : int
        Of the retina.
    """

    cell: tuple[int, ...]
    cell_type: tuple[str, ...]
    center: tuple[tuple[float, float], ...]
    weight: xr.DataArray
    frame_shape: tuple[int, int]
    frame_rate: float
    parameters: RetinaParameters
    seed: int
    silenced: tuple[str, ...] = ()

    @classmethod
    def build(
        cls,
        seed: int,
        *,
        frame_shape: tuple[int, int] = (50, 50),
        frame_rate: float = 100.0,
        cells_per_type: int = 4,
        ganglion_types: Mapping[str, int] | None = None,
        parameters: RetinaParameters | None = None,
    ) -> "Circuit":
        """Draw a retina: cells of some types at random positions, and their connections.

        Parameters
        ----------
        seed : int
        frame_shape, frame_rate, parameters
            See the class.
        cells_per_type : int
            Of each of `GANGLION_TYPES`.
        ganglion_types : mapping of str to int, optional
            How many cells of which types instead, from `STRENGTHS`; cells are numbered in this
            order.

        Returns
        -------
        Circuit

        Raises
        ------
        RetinaCodecError
            If a type is unknown or has no cell.
        """
        parameters = parameters or RetinaParameters()
        random = np.random.default_rng([seed, 0])
        if ganglion_types is None:
            ganglion_types = dict.fromkeys(GANGLION_TYPES, cells_per_type)
        valid = (*GANGLION_TYPES, *EXTRA_GANGLION_TYPES)
        wrong = [kind for kind, count in ganglion_types.items() if kind not in valid or count < 1]
        if wrong or not ganglion_types:
            raise RetinaCodecError(
                "ganglion_types must give at least one cell of each type that it names; got "
                f"{dict(ganglion_types)}. The types are {', '.join(valid)}."
            )
        kinds = tuple(kind for kind, count in ganglion_types.items() for _ in range(count))
        margin = [0.36 * size for size in frame_shape]
        centers = np.stack(
            [
                random.uniform(m, s - 1 - m, len(kinds))
                for m, s in zip(margin, frame_shape, strict=True)
            ],
            axis=1,
        )
        weight = _draw_weights(random, kinds, centers, frame_shape, parameters)
        places = tuple((float(y), float(x)) for y, x in centers)
        cells = tuple(range(len(kinds)))
        return cls(cells, kinds, places, weight, frame_shape, frame_rate, parameters, seed)

    @property
    def connections(self) -> xr.DataArray:
        """Summed signed weight of each interneuron type on each cell, (interneuron_type, cell)."""
        return self.weight.sum(["y", "x"], keep_attrs=True)

    def silence(self, *interneuron_types: str) -> "Circuit":
        """Return the same retina with the output of these interneuron types cut.

        Parameters
        ----------
        *interneuron_types : str
            From `INTERNEURON_TYPES`. A silenced bipolar type also stops driving amacrine cells.

        Returns
        -------
        Circuit

        Raises
        ------
        RetinaCodecError
            If a type is unknown.
        """
        for name in interneuron_types:
            if name not in INTERNEURON_TYPES:
                raise RetinaCodecError(
                    f"no interneuron type {name!r}; the circuit has {', '.join(INTERNEURON_TYPES)}."
                )
        return replace(self, silenced=tuple(sorted({*self.silenced, *interneuron_types})))

    def respond(
        self,
        stimulus: xr.DataArray | npt.NDArray[Any],
        *,
        chunk: int = 2000,
        progress: bool | None = None,
    ) -> xr.Dataset:
        """Show a movie to the retina, adapted to grey before the first frame.

        Parameters
        ----------
        stimulus : array, (time, y, x)
            Grey levels, 0 to 255.
        chunk : int
            Frames held in memory at a time.
        progress : bool, optional
            See `retina_codec.progress.progress_bar`.

        Returns
        -------
        xr.Dataset
            ``hazard`` (time, cell) Hz, the rate outside the refractory period; ``rate`` (time,
            cell) Hz, the expected rate; ``potential`` (time, interneuron), contrast units, of the
            recorded interneurons. The bin t holds the response to the frames before t.

        Raises
        ------
        RetinaCodecError
            If the frames are not of this retina's size.
        """
        if tuple(stimulus.shape[1:]) != self.frame_shape:
            raise RetinaCodecError(
                f"this retina sees frames of {self.frame_shape}; got {tuple(stimulus.shape[1:])}."
            )
        memory: dict[str, npt.NDArray[np.float32]] = {}
        hazards, potentials = [], []
        names, kinds, rows, columns = self._recorded_interneurons()
        which = [INTERNEURON_TYPES.index(kind) for kind in kinds]
        starts = range(0, stimulus.shape[0], chunk)
        for start in progress_bar(starts, description="simulated retina", progress=progress):
            frames = np.asarray(stimulus[start : start + chunk], dtype=np.float32)
            voltage, release = self._interneurons(frames, memory)
            drive = np.einsum("itp,ipc->tc", release, self._flat_weight(), optimize=True)
            hazards.append(self._spike_hazard(drive))
            potentials.append(voltage[which, :, rows * self.weight.sizes["x"] + columns].T)
        # frame t acts on the response of bin t + 1
        hazard, potential = _delay(np.concatenate(hazards)), _delay(np.concatenate(potentials))
        grid_y, grid_x = self.weight["y"].values, self.weight["x"].values
        hertz = {"units": "Hz"}
        return xr.Dataset(
            {
                "hazard": (("time", "cell"), hazard, hertz),
                "rate": (
                    ("time", "cell"),
                    expected_rate(hazard, self.parameters.refractory),
                    hertz,
                ),
                "potential": (
                    ("time", "interneuron"),
                    potential.astype(np.float32),
                    {"units": "1", "long_name": "membrane potential, contrast units"},
                ),
            },
            coords={
                "time": ("time", np.arange(len(hazard)) / self.frame_rate, {"units": "s"}),
                "cell": list(self.cell),
                "type": ("cell", list(self.cell_type)),
                "interneuron": names,
                "interneuron_type": ("interneuron", kinds),
                "center_y": ("interneuron", grid_y[rows], {"units": "px"}),
                "center_x": ("interneuron", grid_x[columns], {"units": "px"}),
            },
            attrs={"silenced": ", ".join(self.silenced)},
        )

    def _recorded_interneurons(
        self, per_type: int = 4
    ) -> tuple[list[str], list[str], npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        """Pick the interneurons whose potentials are recorded: ids, types, grid rows, columns."""
        random = np.random.default_rng([self.seed, 1])
        count = per_type * len(INTERNEURON_TYPES)
        rows = random.integers(len(self.weight["y"]) // 3, 2 * len(self.weight["y"]) // 3, count)
        columns = random.integers(len(self.weight["x"]) // 3, 2 * len(self.weight["x"]) // 3, count)
        kinds = [kind for kind in INTERNEURON_TYPES for _ in range(per_type)]
        names = [f"{kind} {number % per_type}" for number, kind in enumerate(kinds)]
        return names, kinds, rows, columns

    def _flat_weight(self) -> npt.NDArray[np.float32]:
        flat = self.weight.values.reshape(len(INTERNEURON_TYPES), -1, len(self.cell))
        return flat.astype(np.float32)

    def _interneurons(
        self, frames: npt.NDArray[np.float32], memory: dict[str, npt.NDArray[np.float32]]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Potentials and transmitter release of all interneurons, (type, time, position).

        ``memory`` holds the state of every filter between chunks and is updated.
        """
        p, shape = self.parameters, self.frame_shape

        def low_pass(
            name: str, signal: npt.NDArray[np.float32], constant: float, order: int = 1
        ) -> npt.NDArray[np.float32]:
            """Exponential low-pass along time with this time constant (s), ``order`` times."""
            decay = np.exp(-1.0 / (self.frame_rate * constant))
            numerator = np.array([1 - decay], dtype=np.float32)
            denominator = np.array([1, -decay], dtype=np.float32)
            for stage in range(order):
                key = f"{name} {stage}"
                rest = np.zeros((1, signal.shape[1]), dtype=np.float32)
                state = memory.get(key, rest)
                signal, memory[key] = lfilter(numerator, denominator, signal, axis=0, zi=state)
            return signal

        contrast = frames.reshape(len(frames), -1) / np.float32(p.background) - np.float32(1)
        fast = low_pass("receptor fast", contrast, p.receptor_fast, order=2)
        slow = low_pass("receptor slow", contrast, p.receptor_slow, order=2)
        receptor = fast - np.float32(p.receptor_undershoot) * slow
        envelope = low_pass("envelope", np.abs(receptor), p.adaptation_time)
        envelope = _blur(envelope, shape, p.adaptation_width)
        receptor /= 1 + np.float32(p.adaptation_strength) * envelope

        center = _blur(receptor, shape, p.center_width, sample=True)
        surround = _blur(receptor, shape, p.surround_width, sample=True)
        bipolar = center - np.float32(p.surround_weight) * surround
        transient = bipolar - low_pass("bipolar fast", bipolar, p.bipolar_fast)
        transient *= np.float32(p.fast_gain)
        sustained = low_pass("bipolar slow", bipolar, p.bipolar_slow)
        sustained *= np.float32(p.slow_gain)
        voltage = np.stack(
            [
                transient,
                sustained,
                -transient,
                -sustained,
                np.zeros_like(bipolar),
                np.zeros_like(bipolar),
            ]
        )
        release = np.maximum(voltage - np.float32(p.bipolar_threshold), 0)
        for name in self.silenced:
            release[INTERNEURON_TYPES.index(name)] = 0

        grid = (len(self.weight["y"]), len(self.weight["x"]))
        wide = _blur(release[0] + release[2], grid, p.wide_field_width / 2)
        cross = _blur(release[1], grid, p.crossover_width / 2)
        voltage[4] = low_pass("wide field", wide, p.wide_field_delay)
        voltage[5] = low_pass("crossover", cross, p.crossover_delay)
        release[4:] = voltage[4:]
        for name in self.silenced:
            release[INTERNEURON_TYPES.index(name)] = 0
        return voltage, release

    def _spike_hazard(self, drive: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Soft threshold: ``gain * softness * log(1 + exp((drive - threshold) / softness))``."""
        softness = self.parameters.softness
        gain = np.array([GAINS[kind] for kind in self.cell_type])
        threshold = np.array([THRESHOLDS[kind] for kind in self.cell_type])
        return np.asarray(gain * softness * np.logaddexp(0.0, (drive - threshold) / softness))


def _draw_weights(
    random: np.random.Generator,
    kinds: Sequence[str],
    centers: npt.NDArray[np.float64],
    frame_shape: tuple[int, int],
    parameters: RetinaParameters,
) -> xr.DataArray:
    """Signed weights of all interneurons on all cells, (interneuron_type, y, x, cell)."""
    grid_y, grid_x = _grid(frame_shape[0]), _grid(frame_shape[1])
    weight = np.zeros((len(INTERNEURON_TYPES), len(grid_y), len(grid_x), len(kinds)))
    for cell, (kind, center) in enumerate(zip(kinds, centers, strict=True)):
        for name, strength in STRENGTHS[kind].items():
            wide = name == "wide-field amacrine"
            width = parameters.pooling_width * (2.0 if wide else 1.0)
            distance = (grid_y[:, None] - center[0]) ** 2 + (grid_x - center[1]) ** 2
            pool = np.exp(-distance / (2 * width**2))
            pool *= random.lognormal(0.0, parameters.weight_spread, pool.shape)
            pool[pool < 0.01 * pool.max()] = 0.0
            weight[INTERNEURON_TYPES.index(name), :, :, cell] = strength * pool / pool.sum()
    return xr.DataArray(
        weight,
        dims=("interneuron_type", "y", "x", "cell"),
        coords={
            "interneuron_type": list(INTERNEURON_TYPES),
            "y": grid_y,
            "x": grid_x,
            "cell": np.arange(len(kinds)),
            "type": ("cell", list(kinds)),
        },
        name="weight",
        attrs={"units": "1", "long_name": "signed synaptic strength on the ganglion cell"},
    )


def _grid(size: int) -> npt.NDArray[np.float64]:
    """Positions (px) of the bipolar cells: every second pixel."""
    return np.arange(0.5, size - 0.5, 2.0)


def _delay(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Shift by one bin: the first bin repeats the value at the first frame."""
    return np.concatenate([values[:1], values[:-1]])


def _blur(
    maps: npt.NDArray[np.float32], shape: tuple[int, int], width: float, sample: bool = False
) -> npt.NDArray[np.float32]:
    """Gaussian blur of (time, y·x) maps by two matrix products; ``sample`` reads the coarse grid.

    Rows of the matrices sum to one, so that a constant stays constant up to the edges.
    """
    matrices = []
    for size in shape:
        places = _grid(size) if sample else np.arange(size, dtype=float)
        matrix = np.exp(-((places[:, None] - np.arange(size)) ** 2) / (2 * width**2))
        matrices.append((matrix / matrix.sum(axis=1, keepdims=True)).astype(np.float32))
    blurred = matrices[0] @ maps.reshape(len(maps), *shape) @ matrices[1].T
    return np.ascontiguousarray(blurred.reshape(len(maps), -1))
