"""Make simple stimuli (flash, grating, bar, motion) and find where a hypothesis shows best."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import xarray as xr

from retina_codec.errors import RetinaCodecError
from retina_codec.networks.retina.model import RetinaCNN
from retina_codec.probing.interventions import Silencing
from retina_codec.recordings.numbers import is_positive
from retina_codec.statistics.power import detectability

__all__ = ["SIMPLE_STIMULI", "best_segment", "show_simple_stimuli", "simple_stimuli"]

Floats = npt.NDArray[np.float64]

FLASH = 0.5  # s on, then 0.5 s grey
PERIOD = 400.0  # µm, of all gratings
TEMPORAL_FREQUENCY = 2.0  # Hz, of the drifting grating
BAR_WIDTH = 200.0  # µm
BAR_SPEED = 1000.0  # µm/s
OBJECT_DIAMETER = 800.0  # µm
JITTER = 20.0  # µm per step of 10 ms, standard deviation

SIMPLE_STIMULI = (
    "ON flash",
    "OFF flash",
    "drifting grating",
    "bright bar",
    "dark bar",
    "object motion",
    "background motion",
)


def simple_stimuli(
    frame_shape: tuple[int, int],
    *,
    frame_rate: float,
    pixel_size: float,
    background: float,
    contrast: float = 0.8,
    grey: float = 0.5,
    duration: float = 2.0,
    seed: int = 0,
) -> dict[str, xr.DataArray]:
    """Make the simple stimuli, each after ``grey`` s of background, ``duration`` s long.

    ``intensity = background (1 + contrast · pattern)``, pattern in [−1, 1]:

    - flash: +1 (ON) or −1 (OFF) on the whole frame, 0.5 s in every second;
    - drifting grating: square wave of 400 µm moving to the right at 2 Hz;
    - bright, dark bar: ±1, 200 µm wide, crosses the frame at 1000 µm/s, again and again;
    - object motion: a square grating of 400 µm; inside a central disc of 800 µm it jitters along
      its own random walk (20 µm per 10 ms), outside along another one;
    - background motion: the same grating; disc and surround jitter together, as one.

    ``pixel_size`` in µm per px, ``background`` the raw intensity of grey, Weber contrast in (0, 1].
    Movies (time, y, x) by the names of `SIMPLE_STIMULI`, raw intensities, float32; ``time`` (s)
    from 0. Ölveczky, Baccus, Meister 2003, Nature 423:401 (object and background motion).
    """
    numbers = {
        "frame_rate": frame_rate,
        "pixel_size": pixel_size,
        "background": background,
        "contrast": contrast,
        "duration": duration,
        "rows": frame_shape[0],
        "columns": frame_shape[1],
    }
    wrong = {key: value for key, value in numbers.items() if not is_positive(value)}
    if wrong or contrast > 1 or grey < 0:
        raise RetinaCodecError(
            "simple stimuli need positive numbers, a contrast of at most 1 and grey of at least "
            f"0 s; got {wrong or {'contrast': contrast, 'grey': grey}}."
        )
    frames = max(1, round(duration * frame_rate))
    before = round(grey * frame_rate)
    about = {"pixel_size": float(pixel_size), "grey": before / frame_rate, "seed": seed}
    made = {}
    for name, pattern in _patterns(frame_shape, frames, frame_rate, pixel_size, seed).items():
        values = np.full((before + frames, *frame_shape), background, dtype=np.float32)
        values[before:] = background * (
            1 + contrast * np.broadcast_to(pattern, values[before:].shape)
        )
        made[name] = xr.DataArray(
            values,
            dims=("time", "y", "x"),
            coords={
                "time": ("time", np.arange(len(values)) / frame_rate, {"units": "s"}),
                "y": ("y", np.arange(frame_shape[0]), {"units": "px"}),
                "x": ("x", np.arange(frame_shape[1]), {"units": "px"}),
            },
            name="stimulus",
            attrs={"units": "raw intensity", "long_name": name, **about},
        )
    return made


def _patterns(
    frame_shape: tuple[int, int], frames: int, frame_rate: float, pixel_size: float, seed: int
) -> dict[str, Floats]:
    """Return the pattern of every stimulus, in [−1, 1], broadcast to (time, y, x)."""
    t = np.arange(frames)[:, None, None] / frame_rate
    y = ((np.arange(frame_shape[0]) - (frame_shape[0] - 1) / 2) * pixel_size)[None, :, None]  # µm
    x = ((np.arange(frame_shape[1]) - (frame_shape[1] - 1) / 2) * pixel_size)[None, None, :]
    random = np.random.default_rng(seed)
    step = JITTER * np.sqrt(100.0 / frame_rate)
    inner, outer = random.normal(0.0, step, (2, frames)).cumsum(axis=1)[:, :, None, None]
    disc = np.hypot(y, x) <= OBJECT_DIAMETER / 2
    width = frame_shape[1] * pixel_size
    place = (t * BAR_SPEED) % (width + BAR_WIDTH) - (width + BAR_WIDTH) / 2
    bar = (np.abs(x - place) <= BAR_WIDTH / 2).astype(float)
    flash = (t % (2 * FLASH) < FLASH).astype(float)
    return {
        "ON flash": flash,
        "OFF flash": -flash,
        "drifting grating": _grating(x - PERIOD * TEMPORAL_FREQUENCY * t),
        "bright bar": bar,
        "dark bar": -bar,
        "object motion": np.where(disc, _grating(x - inner), _grating(x - outer)),
        "background motion": _grating(x - outer),
    }


def _grating(place: Floats) -> Floats:
    """Return a square wave of ±1 with the common period, place in µm."""
    return np.where((place % PERIOD) < PERIOD / 2, 1.0, -1.0)


def best_segment(
    answer: xr.Dataset, affected: npt.NDArray[np.bool_], variability: Floats, block: float
) -> tuple[npt.NDArray[np.integer], Floats]:
    """Return the block with the largest Σ d² over the affected cells, and that sum."""
    silenced = answer["silenced_rate"].transpose("silencing", "time", "cell").values
    squared = detectability(answer["rate"].values, silenced, block, variability)
    total = (squared * _counted(affected)[:, None, :]).sum(axis=2)  # (hypothesis, block)
    best = total.argmax(axis=1)
    return best, total.max(axis=1)


def show_simple_stimuli(
    network: RetinaCNN,
    pixel_size: float,
    silencings: Sequence[Silencing],
    affected: npt.NDArray[np.bool_],
    variability: Floats,
    duration: float,
    seed: int,
    silence: Callable[..., xr.Dataset],
) -> xr.DataArray:
    """Return Σ d² over the affected cells for every simple stimulus, (hypothesis, stimulus).

    ``silence`` is `silence_channels` of the network. Without a pixel size (NaN, µm) there is no
    stimulus.
    """
    if not np.isfinite(pixel_size):
        return xr.DataArray(
            np.zeros((len(silencings), 0)),
            dims=("hypothesis", "stimulus"),
            coords={"stimulus": np.array([], "U1")},
        )
    stimuli = simple_stimuli(
        network.frame_shape,
        frame_rate=network.frame_rate,
        pixel_size=pixel_size,
        background=network.normalisation.mean,
        grey=network.history / network.frame_rate,
        duration=duration,
        seed=seed,
    )
    counted = _counted(affected)
    different = list(dict.fromkeys(silencings))
    of_row = [different.index(silencing) for silencing in silencings]
    columns = []
    for movie in stimuli.values():
        split = movie.to_dataset(name="stimulus")
        answer = silence(split, different, block=duration)
        squared = detectability(
            answer["rate"].values[0],
            answer["silenced_rate"].isel(time=0, silencing=of_row).values,
            duration,
            variability,
        )
        columns.append((squared * counted).sum(axis=1))
    return xr.DataArray(
        np.stack(columns, axis=1),
        dims=("hypothesis", "stimulus"),
        coords={"stimulus": list(stimuli)},
    )


def _counted(affected: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return the cells that an experiment would record: the affected ones, or all without any."""
    counted: npt.NDArray[np.bool_] = np.where(affected.any(axis=1, keepdims=True), affected, True)
    return counted
