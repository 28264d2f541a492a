"""Labelled images without download: handwritten digits on pieces of photographs."""

from functools import cache
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import xarray as xr

from retina_codec.errors import RetinaCodecError
from retina_codec.progress import progress_bar

__all__ = ["DIGIT_CLASSES", "digit_scenes"]

DIGIT_CLASSES = tuple("0123456789")
BACKGROUNDS = ("china", "flower")
TRAIN_DIGITS = 1297  # the first digits of the collection; the last 500 are the test part
SMALLEST_CROP = 48  # px of the photograph
SMALLEST_DIGIT, LARGEST_DIGIT = 0.45, 0.8  # of the side of a scene
DARKEST, BRIGHTEST = 0.3, 0.7  # of backgrounds, so that every digit has room above and below
LOWEST_CONTRAST, HIGHEST_CONTRAST = 0.2, 0.3  # between digit and background, of full range
TINT = 0.15  # how far red, green and blue of a digit lie from its grey
LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
Part = Literal["train", "test"]


class _Scene(NamedTuple):
    """One scene and what is in it."""

    image: npt.NDArray[np.float32]  # (color, y, x)
    photograph: int
    size: int
    y: int
    x: int
    contrast: float


def digit_scenes(
    part: Part = "train",
    *,
    count: int | None = None,
    size: int = 32,
    seed: int = 0,
    progress: bool | None = None,
) -> xr.Dataset:
    """Draw handwritten digits onto pieces of two photographs.

    ``image = background + opacity · (colour − background)``: the background is a random square of
    a photograph, shrunk to the scene by area, its values v brought to ``0.3 + 0.4 v``; the opacity
    is a digit of 8 × 8 px, enlarged; the colour is tinted at random and differs from the mean
    luminance of what it covers by 20 to 30 % of full range. Photograph, lighter or darker, and how
    much are drawn independently of each other and of the digit.

    Parameters
    ----------
    part : {"train", "test"}
        Train: the first 1297 digits of the collection and the left half of each photograph. Test:
        the last 500 digits and the right half. No digit and no pixel is in both.
    count : int, optional
        Number of scenes; one of every digit of the part when left out. Digits come in random
        order, each again only after all others.
    size : int
        Side of a scene in px, at least 16.
    seed : int
        The same seed draws the same scenes; scene number i does not depend on ``count``.
    progress : bool, optional
        None shows a bar after 2 s, False never, True at once.

    Returns
    -------
    xr.Dataset
        ``image`` (sample, color, y, x), float32 in [0, 1]. Along ``sample``: ``label`` ("0" to
        "9"), ``digit`` (the same as a number), ``digit_index`` (row of
        ``sklearn.datasets.load_digits``), ``photograph`` ("china" or "flower"), ``tone`` ("light"
        or "dark" on its background), ``contrast`` (colour minus mean luminance of what is
        covered, -1 to 1), ``digit_size`` (px), ``digit_y`` and ``digit_x`` (px, centre of the
        digit's square; the first pixel's centre is 0).

    Raises
    ------
    RetinaCodecError
        If the part, the count, the size or the seed is not valid.

    Notes
    -----
    A scene of 32 px takes 12 kB; all are in memory.

    References
    ----------
    Digits: Alpaydin and Kaynak 1998, Optical Recognition of Handwritten Digits, UCI. Photographs:
    ``sklearn.datasets.load_sample_images``.

    Examples
    --------
    >>> scenes = digit_scenes("test", count=3, seed=1)
    >>> dict(scenes.sizes)
    {'sample': 3, 'color': 3, 'y': 32, 'x': 32}
    """
    digits, classes = _part_digits(part)
    count = len(digits) if count is None else count
    _check(count, size, seed)
    index = _order(part, len(digits), count, seed)
    first = 0 if part == "train" else TRAIN_DIGITS
    images = np.empty((count, 3, size, size), np.float32)
    found: list[_Scene] = []
    steps = progress_bar(range(count), description="digit scenes", progress=progress)
    for number in steps:
        scene = _draw(part, digits[index[number]], size, _generator(part, seed, number))
        images[number] = scene.image
        found.append(scene._replace(image=images[number]))
    digit = classes[index]
    contrast = np.array([scene.contrast for scene in found], np.float32)
    side = np.array([scene.size for scene in found])
    pixels = {"units": "px", "long_name": "centre of the digit's square"}
    along: dict[str, Any] = {
        "label": ("sample", digit.astype("U1")),
        "digit": ("sample", digit),
        "digit_index": ("sample", index + first),
        "photograph": ("sample", np.array(BACKGROUNDS)[[scene.photograph for scene in found]]),
        "tone": ("sample", np.where(contrast > 0, "light", "dark")),
        "contrast": ("sample", contrast, {"units": "1"}),
        "digit_size": ("sample", side, {"units": "px"}),
        "digit_y": ("sample", np.array([s.y for s in found]) + (side - 1) / 2, pixels),
        "digit_x": ("sample", np.array([s.x for s in found]) + (side - 1) / 2, pixels),
    }
    return xr.Dataset(
        {"image": (("sample", "color", "y", "x"), images, {"units": "1"})},
        coords={
            "sample": np.arange(count),
            "color": ["red", "green", "blue"],
            "y": ("y", np.arange(size), {"units": "px"}),
            "x": ("x", np.arange(size), {"units": "px"}),
            **along,
        },
        attrs={
            "part": part,
            "seed": seed,
            "source": "digits and photographs of scikit-learn; digit_scenes of retina-codec",
        },
    )


def _check(count: int, size: int, seed: int) -> None:
    for name, value, least in (("count", count, 1), ("size", size, 16), ("seed", seed, 0)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            raise RetinaCodecError(
                f"{name} must be a whole number of at least {least}; got {value!r}."
            )


def _part_digits(part: str) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Return the digits of a part, ``(n, 8, 8)`` in [0, 1], and their classes."""
    if part not in ("train", "test"):
        raise RetinaCodecError(f"part must be 'train' or 'test'; got {part!r}.")
    images, classes = _digits()
    chosen = slice(None, TRAIN_DIGITS) if part == "train" else slice(TRAIN_DIGITS, None)
    return images[chosen], classes[chosen]


@cache
def _digits() -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    from sklearn.datasets import load_digits

    found: Any = load_digits()
    images, classes = (found.images / 16).astype(np.float32), found.target.astype(np.int64)
    images.flags.writeable = classes.flags.writeable = False  # shared by all calls
    return images, classes


@cache
def _photographs(part: str) -> tuple[Any, ...]:
    """Return the half of each photograph that belongs to a part, as RGB pictures."""
    from importlib.resources import files

    from PIL import Image

    halves = []
    for name in BACKGROUNDS:
        with (files("sklearn.datasets.images") / f"{name}.jpg").open("rb") as handle:
            whole = Image.open(handle).convert("RGB")
        middle = whole.width // 2
        columns = (0, middle) if part == "train" else (middle, whole.width)
        halves.append(whole.crop((columns[0], 0, columns[1], whole.height)))
    return tuple(halves)


def _order(part: str, available: int, count: int, seed: int) -> npt.NDArray[np.int64]:
    """Return rows of the part's digits: all in random order, then all again in another."""
    generator = np.random.default_rng([seed, part == "test", 0])
    rounds = [generator.permutation(available) for _ in range(-(-count // available))]
    return np.concatenate(rounds)[:count]


def _generator(part: str, seed: int, number: int) -> np.random.Generator:
    return np.random.default_rng([seed, part == "test", 1, number])


def _draw(
    part: str, digit: npt.NDArray[np.float32], size: int, generator: np.random.Generator
) -> _Scene:
    """Draw one scene."""
    from PIL import Image

    photograph = int(generator.integers(len(BACKGROUNDS)))
    picture = _photographs(part)[photograph]
    side = int(generator.integers(SMALLEST_CROP, min(picture.size) // 2))
    left = int(generator.integers(picture.width - side + 1))
    top = int(generator.integers(picture.height - side + 1))
    square = picture.resize(
        (size, size), Image.Resampling.BOX, box=(left, top, left + side, top + side)
    )
    image = np.asarray(square).transpose(2, 0, 1).astype(np.float32)  # (color, y, x)
    image *= (BRIGHTEST - DARKEST) / 255
    image += DARKEST
    width = int(generator.integers(round(SMALLEST_DIGIT * size), round(LARGEST_DIGIT * size) + 1))
    y, x = (int(place) for place in generator.integers(size - width + 1, size=2))
    enlarged = Image.fromarray(digit).resize((width, width), Image.Resampling.BICUBIC)
    opacity = np.clip(np.asarray(enlarged, np.float32), 0, 1)  # (y, x)
    patch = image[:, y : y + width, x : x + width]
    colour, contrast = _colour(patch, opacity, generator)
    patch += opacity * (colour[:, None, None] - patch)
    return _Scene(image, photograph, width, y, x, contrast)


def _colour(
    patch: npt.NDArray[np.float32],
    opacity: npt.NDArray[np.float32],
    generator: np.random.Generator,
) -> tuple[npt.NDArray[np.float32], float]:
    """Draw a colour (red, green, blue) that contrasts with the patch (color, y, x) it covers."""
    covered = (patch * opacity).sum((1, 2)) / opacity.sum()
    ground = float(LUMINANCE @ covered)
    step = generator.uniform(LOWEST_CONTRAST, HIGHEST_CONTRAST)
    grey = ground + (step if generator.integers(2) else -step)
    tint = generator.uniform(-TINT, TINT, 3)
    colour = np.clip(grey + tint - LUMINANCE @ tint, 0, 1).astype(np.float32)
    return colour, float(LUMINANCE @ colour) - ground
