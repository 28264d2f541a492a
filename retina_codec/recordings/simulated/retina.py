"""Simulate a recording of a retina whose circuit, cell types and noise-free rates are known."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import xarray as xr

from retina_codec.errors import RetinaCodecError
from retina_codec.progress import progress_bar
from retina_codec.recordings.schema import make_recording
from retina_codec.recordings.simulated.circuit import Circuit
from retina_codec.recordings.simulated.parameters import RetinaParameters
from retina_codec.recordings.simulated.spikes import refractory_poisson
from retina_codec.recordings.simulated.stimuli import natural_movie

__all__ = ["simulate_retina"]

PIXEL_SIZE = 50.0  # µm


def simulate_retina(
    seed: int = 0,
    *,
    stimulus_seed: int = 0,
    train_duration: float = 120.0,
    test_duration: float = 60.0,
    repeats: int = 10,
    silenced: Sequence[str] = (),
    cells_per_type: int = 4,
    ganglion_types: Mapping[str, int] | None = None,
    parameters: RetinaParameters | None = None,
    progress: bool | None = None,
) -> tuple[xr.DataTree, Circuit]:
    """Simulate a recording of a retina whose circuit is known.

    Natural scenes under fixational drift (50 × 50 px of 50 µm, 100 Hz, a new scene every second)
    are shown to four types of ganglion cells (OFF transient, OFF sustained, ON sustained, object
    motion), fed by ON and OFF, fast and slow bipolar cells and two types of amacrine cells. The
    train movie is shown once, the test movie ``repeats`` times, always from grey adaptation;
    spikes are Poisson with an absolute refractory period of 3 ms.

    Parameters
    ----------
    seed : int
        Of the retina: cell positions and connections. The same seed is the same retina.
    stimulus_seed : int
        Of the movies (and, with ``seed``, of the spikes).
    train_duration, test_duration : float
        s; no train split when ``train_duration`` is 0. Train and test scenes come from different
        parts of the photographs.
    repeats : int
        Presentations of the test movie.
    silenced : sequence of str
        Interneuron types whose output is cut (see `Circuit.silence`).
    cells_per_type : int
    ganglion_types : mapping of str to int, optional
        Another set of types: how many cells of each, for instance ``{"OFF transient": 6, "ON
        transient": 5}``. Besides the four there is "ON transient". See `Circuit.build`.
    parameters : RetinaParameters, optional
    progress : bool, optional
        See `retina_codec.progress.progress_bar`.

    Returns
    -------
    recording : xr.DataTree
        With true cell types, receptive field centres (px), the potentials of 24 interneurons
        during the test movie, and the noise-free ``expected_rate`` (time, cell) Hz of each split.
    circuit : Circuit
        ``circuit.weight`` (interneuron_type, y, x, cell), ``circuit.connections``,
        ``circuit.silence(...)``, ``circuit.respond(movie)``.

    Raises
    ------
    RetinaCodecError
        If a duration or the number of repeats is too small, or a type to silence is unknown,
        or ``ganglion_types`` names an unknown type or no cell.

    References
    ----------
    Maheswaranathan et al. 2023, Neuron 111:2742 (stimulus); sources of the circuit's numbers:
    `RetinaParameters`.
    """
    if repeats < 1:
        raise RetinaCodecError(f"the test movie must be shown at least once; got {repeats=}.")
    circuit = Circuit.build(
        seed, cells_per_type=cells_per_type, ganglion_types=ganglion_types, parameters=parameters
    )
    circuit = circuit.silence(*silenced)
    random = np.random.default_rng([seed, stimulus_seed, 3])

    train, start = None, 0.0
    if train_duration > 0:
        movie = natural_movie(train_duration, seed=[stimulus_seed, 1], progress=progress)
        train, _ = _split(circuit, movie, 1, 0.0, random, progress)
        train = train.drop_dims("repeat")
        start = len(movie) / circuit.frame_rate
    movie = natural_movie(test_duration, seed=[stimulus_seed, 2], part="test", progress=progress)
    test, response = _split(circuit, movie, repeats, start, random, progress)

    length = len(movie) / circuit.frame_rate
    repeated = xr.Dataset(
        {"rate": (test["repeat_count"] * circuit.frame_rate).astype(np.float32)},
        coords={"start_time": ("repeat", start + length * np.arange(repeats), {"units": "s"})},
    )
    repeated["rate"].attrs["units"] = "Hz"
    recording = make_recording(
        train=train,
        test=test.drop_dims("repeat"),
        repeats=repeated,
        interneurons=_potentials(response, test["time"]),
        frame_rate=circuit.frame_rate,
        pixel_size=PIXEL_SIZE,
        session=f"insilico retina {seed}, movie {stimulus_seed}"
        + (f", {_counted(ganglion_types)}" if ganglion_types else "")
        + (f", silenced {', '.join(circuit.silenced)}" if circuit.silenced else ""),
        species="simulated (salamander-like)",
        source=f"retina_codec.simulate_retina(seed={seed}, stimulus_seed={stimulus_seed}"
        + (f", ganglion_types={dict(ganglion_types)}" if ganglion_types else "")
        + ")",
    )
    return recording, circuit


def _counted(types: Mapping[str, int]) -> str:
    """Say how many cells of which types there are."""
    return ", ".join(f"{count} {kind}" for kind, count in types.items())


def _split(
    circuit: Circuit,
    movie: npt.NDArray[np.uint8],
    repeats: int,
    start: float,
    random: np.random.Generator,
    progress: bool | None,
) -> tuple[xr.Dataset, xr.Dataset]:
    """Show a movie ``repeats`` times from ``start`` (s): one split, and the circuit's response."""
    response = circuit.respond(movie, progress=progress)
    width = 1.0 / circuit.frame_rate
    hazard = response["hazard"].values
    edges = np.arange(len(movie) + 1) * width
    counts = np.empty((repeats, *hazard.shape), dtype=np.int32)
    steps = progress_bar(range(repeats), description="spikes", progress=progress)
    for repeat in steps:
        trains = refractory_poisson(
            hazard, bin_width=width, refractory=circuit.parameters.refractory, random=random
        )
        for cell, spikes in enumerate(trains):
            counts[repeat, :, cell] = np.histogram(spikes, edges)[0]
    centers = np.array(circuit.center)
    height, breadth = circuit.frame_shape
    split = xr.Dataset(
        {
            "stimulus": (
                ("time", "y", "x"),
                movie,
                {"units": "grey level", "long_name": "luminance, 0 to 255"},
            ),
            "spike_count": (("time", "cell"), counts.sum(axis=0), {"units": "count"}),
            "rate": (
                ("time", "cell"),
                (counts.mean(axis=0) * circuit.frame_rate).astype(np.float32),
                {"units": "Hz"},
            ),
            "expected_rate": (
                ("time", "cell"),
                response["rate"].values.astype(np.float32),
                {"units": "Hz", "long_name": "noise-free rate"},
            ),
            "repeat_count": (("repeat", "time", "cell"), counts, {"units": "count"}),
        },
        coords={
            "time": ("time", start + np.arange(len(movie)) * width, {"units": "s"}),
            "y": ("y", np.arange(height), {"units": "px"}),
            "x": ("x", np.arange(breadth), {"units": "px"}),
            "cell": list(circuit.cell),
            "type": ("cell", list(circuit.cell_type)),
            "center_y": ("cell", centers[:, 0], {"units": "px"}),
            "center_x": ("cell", centers[:, 1], {"units": "px"}),
            "repeat": np.arange(repeats),
        },
    )
    return split, response


def _potentials(response: xr.Dataset, time: xr.DataArray) -> xr.Dataset:
    """Return the recorded interneurons' potentials on the clock of the session."""
    potential = response["potential"].drop_vars("time").to_dataset()
    return potential.rename(interneuron_type="type").assign_coords(time=time)
