"""Natural movies from the photographs that scikit-image and scikit-learn ship; no download."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from retina_codec.errors import RetinaCodecError
from retina_codec.progress import progress_bar

__all__ = ["PHOTOGRAPHS", "natural_movie", "photographs"]

PHOTOGRAPHS = (
    "astronaut",
    "camera",
    "chelsea",
    "coffee",
    "rocket",
    "motorcycle_left",
    "grass",
    "gravel",
    "china",
    "flower",
)
# A scene is a square of 50 to 150 px of the photograph, shrunk to the frame.
SMALLEST_ZOOM, LARGEST_ZOOM = 1.0, 3.0
DRIFT_STEP = 0.4  # px per frame at 100 Hz, standard deviation in y and in x
MARGIN = 12  # px of the scene kept around the frame for the drift
LOWEST_CONTRAST = 15.0  # grey levels; flatter squares (sky, paper) are drawn again


@cache
def photographs() -> tuple[npt.NDArray[np.float32], ...]:
    """Read the photographs as luminance, 0 to 255.

    Returns
    -------
    tuple of numpy.ndarray, (y, x)
        In the order of `PHOTOGRAPHS`; the first eight ship with scikit-image, the last two with
        scikit-learn.
    """
    from importlib.resources import files

    from PIL import Image

    images = []
    for name in PHOTOGRAPHS:
        package = "sklearn.datasets.images" if name in ("china", "flower") else "skimage.data"
        suffix = ".png" if package == "skimage.data" else ".jpg"
        if name == "rocket":
            suffix = ".jpg"
        with (files(package) / f"{name}{suffix}").open("rb") as handle:
            images.append(np.asarray(Image.open(handle).convert("L"), dtype=np.float32))
    return tuple(images)


def natural_movie(
    duration: float,
    *,
    seed: int | Sequence[int],
    part: str = "train",
    frame_rate: float = 100.0,
    frame_shape: tuple[int, int] = (50, 50),
    scene_duration: float = 1.0,
    progress: bool | None = None,
) -> npt.NDArray[np.uint8]:
    """Make a movie of natural scenes under fixational drift.

    Every ``scene_duration`` a square of a photograph is drawn (photograph, place, zoom 1 to 3)
    and moved by a random walk of 0.4 px per frame (bilinear interpolation) until the next.

    Parameters
    ----------
    duration : float
        s.
    seed : int or sequence of int
    part : {"train", "test"}
        Train scenes come from the upper 70 % of every photograph, test scenes from the lower
        30 %, so that no pixel is shared.
    frame_rate : float
        Hz.
    frame_shape : (int, int)
        px in y and x.
    scene_duration : float
        s.
    progress : bool, optional
        See `retina_codec.progress.progress_bar`.

    Returns
    -------
    numpy.ndarray, (time, y, x), uint8
        Luminance, 0 to 255.

    Raises
    ------
    RetinaCodecError
        If the part is unknown or the movie would be empty.

    References
    ----------
    Maheswaranathan et al. 2023, Neuron 111:2742 (natural scenes, a new image every second, with
    fixational drift).
    """
    if part not in ("train", "test"):
        raise RetinaCodecError(f"part must be 'train' or 'test'; got {part!r}.")
    frames = round(duration * frame_rate)
    if frames < 1:
        raise RetinaCodecError(f"a movie needs at least one frame; got {duration=} s.")
    random = np.random.default_rng(seed)
    movie = np.empty((frames, *frame_shape), dtype=np.uint8)
    length = max(1, round(scene_duration * frame_rate))
    step = DRIFT_STEP * np.sqrt(100.0 / frame_rate)
    starts = range(0, frames, length)
    for start in progress_bar(starts, description="natural movie", progress=progress):
        count = min(length, frames - start)
        scene = _draw_scene(random, part, frame_shape)
        walk = np.cumsum(random.normal(0.0, step, (count, 2)), axis=0)
        offsets = MARGIN + np.clip(walk, -MARGIN, MARGIN - 1e-3)
        movie[start : start + count] = _drift(scene, offsets, frame_shape)
    return movie


def _draw_scene(
    random: np.random.Generator, part: str, frame_shape: tuple[int, int]
) -> npt.NDArray[np.float32]:
    """Draw one scene with a margin for the drift, (y + 2 margin, x + 2 margin)."""
    import torch

    height, width = frame_shape[0] + 2 * MARGIN, frame_shape[1] + 2 * MARGIN
    while True:
        image = photographs()[random.integers(len(PHOTOGRAPHS))]
        border = round(0.7 * image.shape[0])
        image = image[:border] if part == "train" else image[border:]
        largest = min(LARGEST_ZOOM, image.shape[0] / height, image.shape[1] / width)
        zoom = random.uniform(min(SMALLEST_ZOOM, largest), largest)
        tall, wide = round(zoom * height), round(zoom * width)
        top = random.integers(image.shape[0] - tall + 1)
        left = random.integers(image.shape[1] - wide + 1)
        square: Any = torch.from_numpy(image[top : top + tall, left : left + wide].copy())
        square = torch.nn.functional.interpolate(
            square[None, None],
            size=(height, width),
            mode="bilinear",
            antialias=True,
            align_corners=False,
        )
        scene: npt.NDArray[np.float32] = square[0, 0].numpy()
        if random.random() < 0.5:
            scene = scene[:, ::-1]
        if scene[MARGIN:-MARGIN, MARGIN:-MARGIN].std() >= LOWEST_CONTRAST:
            return scene


def _drift(
    scene: npt.NDArray[np.float32],
    offsets: npt.NDArray[np.float64],
    frame_shape: tuple[int, int],
) -> npt.NDArray[np.uint8]:
    """Move the frame over the scene; offsets (time, 2) px from the scene's corner."""
    height, width = frame_shape
    frames = np.empty((len(offsets), height, width), dtype=np.float32)
    for time, (down, right) in enumerate(offsets):
        row, column = int(down), int(right)
        below, beside = np.float32(down - row), np.float32(right - column)
        window = scene[row : row + height + 1, column : column + width + 1]
        rows = (1 - below) * window[:-1] + below * window[1:]
        frames[time] = (1 - beside) * rows[:, :-1] + beside * rows[:, 1:]
    return np.clip(np.rint(frames), 0, 255).astype(np.uint8)
