"""White noise made again from the seed of its generator, bit for bit, from any frame on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from retina_codec.errors import RetinaCodecError
from retina_codec.recordings.frames.lazy import Frames, Numbers, runs

__all__ = ["GENERATORS", "SeededFrames", "register_generator"]

MODULUS, MULTIPLIER = 2**31 - 1, 16807  # Park and Miller's minimal standard
FRAMES_PER_STATE = 512  # between kept states of a generator that cannot jump
# f(numbers, *, seed, height, width, **settings) -> frames (number, y, x), always the same
Generator = Callable[..., npt.NDArray[Any]]
GENERATORS: dict[str, Generator] = {}


def register_generator(name: str) -> Callable[[Generator], Generator]:
    """Add a lab's own generator under a name; use as a decorator.

    Parameters
    ----------
    name : str
        Of the generator, as used in `SeededFrames` and in NWB files.

    Returns
    -------
    callable
        Returns the function: ``f(numbers, *, seed, height, width, **settings)`` -> frames
        (number, y, x), which must depend on the arguments alone, not on earlier calls.

    Raises
    ------
    RetinaCodecError
        The name is taken.
    """

    def add(function: Generator) -> Generator:
        if name in GENERATORS:
            raise RetinaCodecError(f"there is already a generator named {name!r}; choose another")
        GENERATORS[name] = function
        return function

    return add


class SeededFrames(Frames):
    """A movie made again from a seed.

    Parameters
    ----------
    generator : str
        ``numpy`` (``numpy.random.default_rng(seed).random``, frames row by row), ``matlab``
        (``rng(seed, 'twister'); rand``, frames column by column, as MATLAB fills them),
        ``minimal_standard`` (x ← 16807 x mod 2³¹ − 1, row by row), ``ran1`` (the same with a
        shuffle, Numerical Recipes), ``bits`` (the bits of a file, most significant first, row by
        row; needs ``file=``), or one of the lab's own. The first four draw u in (0, 1) for every
        pixel, which is ``bright`` where u < ``probability`` (``matlab`` and ``ran1``: where u > 1 −
        ``probability``) and ``dark`` elsewhere; ``bits`` are ``bright`` where they are 1.
    seed : int
        For ``bits`` the number of the first bit.
    shape : (int, int, int)
        (time, y, x)
    **settings
        ``probability=0.5``, ``dark=0``, ``bright=255``, or what the generator takes. ``ran1``:
        ``order="rows"`` (or ``"columns"``: y is the fast axis), and for a part of the screen
        ``screen=(y, x)``, its size, with ``corner=(y, x)``, the first pixel of the part.

    Raises
    ------
    RetinaCodecError
        An unknown generator or setting.

    References
    ----------
    Park and Miller 1988, Communications of the ACM 31:1192 (minimal standard). Matsumoto and
    Nishimura 1998 (the twister of MATLAB and numpy). ``bits``: as crcns.org ret-1 stores its noise.
    """

    def __init__(
        self, generator: str, *, seed: int, shape: tuple[int, int, int], **settings: Any
    ) -> None:
        if generator not in GENERATORS:
            raise RetinaCodecError(
                f"the generator must be one of {', '.join(sorted(GENERATORS))}; got {generator!r}. "
                "Add your own with register_generator."
            )
        self.generator = generator
        self.seed = int(seed)
        self.settings = settings
        self.shape = (int(shape[0]), int(shape[1]), int(shape[2]))
        if min(self.shape) < 1:
            raise RetinaCodecError(f"shape must be (time, y, x), all positive; got {shape}")
        tried = 0 if generator == "ran1" else 1  # its code is compiled when it first draws
        self.dtype = self.read(np.zeros(tried, dtype=np.int64)).dtype
        self.label = f"{generator}-{seed}-{shape}-{sorted(settings.items())}"
        self.encoding = f"made from seed {seed} by {generator}"

    def read(self, numbers: Numbers) -> npt.NDArray[Any]:
        """Make the frames."""
        _, height, width = self.shape
        make = GENERATORS[self.generator]
        try:
            return make(numbers, seed=self.seed, height=height, width=width, **self.settings)
        except TypeError as error:
            raise RetinaCodecError(
                f"the generator {self.generator!r} does not take these settings: {error}"
            ) from error


def _binary(on: npt.NDArray[np.bool_], dark: float, bright: float) -> npt.NDArray[Any]:
    small = float(dark).is_integer() and float(bright).is_integer()
    small = small and 0 <= min(dark, bright) and max(dark, bright) <= 255
    dtype = np.uint8 if small else np.float32
    return np.where(on, np.array(bright, dtype), np.array(dark, dtype))


@register_generator("numpy")
def numpy_noise(
    numbers: Numbers,
    *,
    seed: int,
    height: int,
    width: int,
    probability: float = 0.5,
    dark: float = 0,
    bright: float = 255,
) -> npt.NDArray[Any]:
    """Draw as ``default_rng(seed).random((time, y, x)) < probability``, from any frame on."""
    pixels = height * width
    on = np.empty((len(numbers), pixels), dtype=bool)
    for start, stop in runs(np.unique(numbers)):
        source = np.random.PCG64(seed).advance(start * pixels)  # one step per number
        drawn = np.random.Generator(source).random((stop - start, pixels)) < probability
        mine = (numbers >= start) & (numbers < stop)
        on[mine] = drawn[numbers[mine] - start]
    return _binary(on.reshape(-1, height, width), dark, bright)


_STATES: dict[tuple[int, int], dict[int, Any]] = {}  # (seed, pixels) -> frame -> state


@register_generator("matlab")
def matlab_noise(
    numbers: Numbers,
    *,
    seed: int,
    height: int,
    width: int,
    probability: float = 0.5,
    dark: float = 0,
    bright: float = 255,
) -> npt.NDArray[Any]:
    """Draw as MATLAB's ``rng(seed); rand(y, x) > 1 - probability``, frame after frame."""
    pixels = height * width
    kept = _STATES.setdefault((seed, pixels), {0: np.random.RandomState(seed).get_state()})
    on = np.empty((len(numbers), height, width), dtype=bool)
    for start, stop in runs(np.unique(numbers)):
        at = max(frame for frame in kept if frame <= start)
        source = np.random.RandomState()
        source.set_state(kept[at])
        while at < stop:
            drawn = source.random_sample((FRAMES_PER_STATE, width, height)) > 1 - probability
            mine = (numbers >= max(at, start)) & (numbers < min(at + FRAMES_PER_STATE, stop))
            on[mine] = drawn[numbers[mine] - at].transpose(0, 2, 1)
            at += FRAMES_PER_STATE
            kept.setdefault(at, source.get_state())
    return _binary(on, dark, bright)


@register_generator("minimal_standard")
def minimal_standard(
    numbers: Numbers,
    *,
    seed: int,
    height: int,
    width: int,
    probability: float = 0.5,
    dark: float = 0,
    bright: float = 255,
) -> npt.NDArray[Any]:
    """Draw u_n = x_n / (2³¹ − 1), x_n = 16807ⁿ · seed mod (2³¹ − 1), from n = 1 on."""
    if not 0 < seed < MODULUS:
        raise RetinaCodecError(f"this seed must be between 1 and {MODULUS - 1}; got {seed}")
    pixels = height * width
    powers = _powers(pixels)  # of the multiplier, 1 to pixels
    on = np.empty((len(numbers), pixels), dtype=bool)
    for place, number in enumerate(numbers):
        first = seed * pow(MULTIPLIER, int(number) * pixels, MODULUS) % MODULUS
        on[place] = powers * np.uint64(first) % np.uint64(MODULUS) < probability * MODULUS
    return _binary(on.reshape(-1, height, width), dark, bright)


def _powers(count: int) -> npt.NDArray[np.uint64]:
    """16807, 16807², … modulo 2³¹ − 1, by doubling."""
    powers = np.array([MULTIPLIER], dtype=np.uint64)
    while powers.size < count:
        further = powers * np.uint64(pow(MULTIPLIER, powers.size, MODULUS)) % np.uint64(MODULUS)
        powers = np.concatenate([powers, further])
    return powers[:count]


@register_generator("ran1")
def ran1_noise(
    numbers: Numbers,
    *,
    seed: int,
    height: int,
    width: int,
    probability: float = 0.5,
    dark: float = 0,
    bright: float = 255,
    order: str = "rows",
    screen: tuple[int, int] | None = None,
    corner: tuple[int, int] = (0, 0),
) -> npt.NDArray[Any]:
    """Draw as ``ran1(seed) > 1 - probability``, frame after frame; see `draw_frames`."""
    high, wide = screen or (height, width)
    fits = (0 <= corner[0] <= high - height) and (0 <= corner[1] <= wide - width)
    if order not in ("rows", "columns") or not fits:
        raise RetinaCodecError(
            f"order must be 'rows' or 'columns', and {height} × {width} px from corner must lie "
            f"on the screen; got {order=}, {corner=}, screen={(high, wide)}."
        )
    if not -MODULUS < seed < 0:
        raise RetinaCodecError(
            f"the seed of ran1 must be negative, {1 - MODULUS} to -1; got {seed}. A positive seed "
            "starts ran1 at -1."
        )
    if not len(numbers):
        return _binary(np.zeros((0, height, width), dtype=bool), dark, bright)
    from retina_codec.recordings.frames.ran1 import draw_frames

    down, right = int(corner[0]), int(corner[1])
    limit = 1 - probability
    if order == "rows":
        on = draw_frames(
            numbers, seed, (high, wide), limit=limit, corner=(down, right), kept=(height, width)
        )
        return _binary(on, dark, bright)
    on = draw_frames(
        numbers, seed, (wide, high), limit=limit, corner=(right, down), kept=(width, height)
    )
    return _binary(on.transpose(0, 2, 1), dark, bright)


@register_generator("bits")
def bits_of_file(
    numbers: Numbers,
    *,
    seed: int,
    height: int,
    width: int,
    file: str | Path = "",
    dark: float = 0,
    bright: float = 255,
) -> npt.NDArray[Any]:
    """Take bits of a file, the most significant of each byte first; ``seed`` is the first bit."""
    if not Path(file).is_file():
        raise RetinaCodecError(f"the bits must be in a file; pass file=PATH; got {str(file)!r}")
    pixels = height * width
    stored = np.memmap(file, dtype=np.uint8, mode="r")
    last = seed + (int(numbers.max()) + 1) * pixels
    if seed < 0 or last > stored.size * 8:
        raise RetinaCodecError(
            f"{file} must hold {last} bits for frame {int(numbers.max())}; it holds "
            f"{stored.size * 8}"
        )
    on = np.empty((len(numbers), pixels), dtype=bool)
    for place, number in enumerate(numbers):
        first = seed + int(number) * pixels
        piece = np.unpackbits(stored[first // 8 : -(-(first + pixels) // 8)])
        on[place] = piece[first % 8 : first % 8 + pixels]
    return _binary(on.reshape(-1, height, width), dark, bright)
