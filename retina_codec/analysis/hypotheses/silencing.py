"""What the cells of a network would do without some of its hidden channels.

Why this file exists: a hypothesis says what happens when an interneuron is silenced, and the
network's answer is a prediction that an experiment can refute. Which channels stand for which
interneuron is not decided here.

Notation: b windows, c channels, n cells.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import xarray as xr

from retina_codec.errors import RetinaCodecError
from retina_codec.networks.retina.model import RetinaCNN
from retina_codec.networks.retina.prediction import open_windows
from retina_codec.probing.retina.hidden import HiddenLayers
from retina_codec.progress import progress_bar

__all__ = ["Silencing", "first_activation", "in_blocks", "second_activation", "silence_channels"]

Baseline = Literal["grey", "zero"]


LAYERS = ("conv1", "conv2")


@dataclass(frozen=True)
class Silencing:
    """Channels of one layer whose output is cut together.

    Parameters
    ----------
    layer : {"conv1", "conv2"}
    channels : tuple of int
        Distinct; at least one.
    strength : float
        Part of the output that is cut, in (0, 1]; 1 cuts all of it.

    Raises
    ------
    RetinaCodecError
        If one of these does not hold.
    """

    layer: str
    channels: tuple[int, ...]
    strength: float = 1.0

    def __post_init__(self) -> None:
        """Check what can be checked without a network."""
        if self.layer not in LAYERS:
            raise RetinaCodecError(
                f"layer must be one of {', '.join(LAYERS)}; got {self.layer!r}. The channels of "
                "the last layer are ganglion cells: there is nothing to silence before them."
            )
        if not self.channels or len(set(self.channels)) != len(self.channels):
            raise RetinaCodecError(
                f"channels must be distinct and at least one; got {self.channels}."
            )
        if not 0 < self.strength <= 1:
            raise RetinaCodecError(f"strength must lie in (0, 1]; got {self.strength}. Use 1.")


def silence_channels(
    network: RetinaCNN,
    split: xr.Dataset | xr.DataTree,
    silencings: Sequence[Silencing],
    *,
    block: float = 1.0,
    baseline: Baseline = "grey",
    batch_size: int = 128,
    device: str | torch.device | None = None,
    progress: bool | None = None,
) -> xr.Dataset:
    """Predict the rates of all cells with channels cut, averaged over blocks of time.

    With a the rectified output of a channel, at every place of its map:
    ``a → a − strength (a − a⁰)``, where a⁰ is the channel's output to lasting mean grey
    (``baseline="grey"``: what the channel says beyond its rest is cut, as when an interneuron
    rests) or 0 (``"zero"``). Everything above the layer then follows from the network.

    Parameters
    ----------
    network : RetinaCNN
        Used in evaluation mode, left in the mode and on the device it had.
    split : xr.Dataset or node of a recording
        With ``stimulus`` (time, y, x), raw intensities, read in chunks.
    silencings : sequence of Silencing
    block : float
        s. Rates are averaged over blocks of this length; one bin keeps every bin.
    baseline : {"grey", "zero"}
    batch_size : int
        Windows at a time.
    device : str or torch.device, optional
        Where to compute; where the network lies when left out.
    progress : bool, optional
        See `retina_codec.progress.progress_bar`.

    Returns
    -------
    xr.Dataset
        ``rate`` (time, cell) Hz and ``silenced_rate`` (silencing, time, cell) Hz; ``time`` (s) is
        the left edge of a block; bins after the last whole block are left out.

    Raises
    ------
    RetinaCodecError
        If the split does not fit the network, a channel does not exist, or the split is shorter
        than a block.
    """
    _check(network, silencings, baseline)
    _, windows = open_windows(network, split)
    per_block = round(block * network.frame_rate)
    blocks = len(windows) // max(per_block, 1)
    if per_block < 1 or blocks < 1:
        raise RetinaCodecError(
            f"block must be at least one bin ({1 / network.frame_rate:g} s) and no longer than the "
            f"{len(windows) / network.frame_rate:g} s that have a whole history; got {block=} s."
        )
    # single bins are not summed: half the memory, the same numbers
    kind = np.float32 if per_block == 1 else np.float64
    sums = np.zeros((1 + len(silencings), blocks, len(network.cells)), dtype=kind)
    with evaluating(network, device) as place, torch.no_grad():
        layers = HiddenLayers(network)
        rest = _rest(layers, place) if baseline == "grey" else {}
        steps = progress_bar(
            windows.batches(batch_size, place),
            description="silencing",
            total=-(-len(windows) // batch_size),
            progress=progress,
        )
        for part, batch in steps:
            number = np.arange(part.start, part.stop) // per_block
            kept = number < blocks
            for row, rates in enumerate(_rates(layers, batch, silencings, rest)):
                np.add.at(sums[row], number[kept], rates.cpu().numpy().astype(kind)[kept])
    means = sums if per_block == 1 else sums / per_block
    return xr.Dataset(
        {
            "rate": (("time", "cell"), means[0], {"units": "Hz", "long_name": "predicted rate"}),
            "silenced_rate": (
                ("silencing", "time", "cell"),
                means[1:],
                {"units": "Hz", "long_name": "predicted rate with channels cut"},
            ),
        },
        coords={
            "time": ("time", windows.time.values[: blocks * per_block : per_block], {"units": "s"}),
            "cell": list(network.cells),
            "type": ("cell", list(network.cell_types)),
        },
        attrs={"baseline": baseline, "block": per_block / network.frame_rate},
    )


def in_blocks(answer: xr.Dataset, block: float) -> xr.Dataset:
    """Average rates of single bins over blocks of time, as `silence_channels` does.

    Parameters
    ----------
    answer : xr.Dataset
        From `silence_channels` with blocks of one bin.
    block : float
        s.

    Returns
    -------
    xr.Dataset
        The same variables; ``time`` (s) is the left edge of a block.

    Raises
    ------
    RetinaCodecError
        If a block is shorter than a bin or longer than the recording.
    """
    step, bins = answer.attrs["block"], answer.sizes["time"]
    size = round(block / step)
    if not 1 <= size <= bins:
        raise RetinaCodecError(
            f"block must be at least one bin ({step:g} s) and no longer than the {bins * step:g} s "
            f"that have a whole history; got {block=} s."
        )
    kept = answer.isel(time=slice(0, bins // size * size))

    def averaged(values: xr.DataArray) -> xr.DataArray:
        axis = values.get_axis_num("time")
        cut = values.to_numpy()
        cut = cut.reshape(*cut.shape[:axis], -1, size, *cut.shape[axis + 1 :])
        mean = cut.mean(axis=axis + 1, dtype=np.float64)  # no copy in double precision
        return values.isel(time=slice(None, None, size)).copy(data=mean)

    return kept.map(averaged, keep_attrs=True).assign_attrs(answer.attrs | {"block": size * step})


def first_activation(network: RetinaCNN, windows: torch.Tensor) -> torch.Tensor:
    """Return the normalised output of the first convolution before its rectifier, (b, c, y, x)."""
    found: torch.Tensor = network.norm1(network.conv1(windows))
    return found


def second_activation(network: RetinaCNN, first: torch.Tensor) -> torch.Tensor:
    """Return that of the second convolution, from the rectified first, (b, c, y, x)."""
    found: torch.Tensor = network.norm2(network.conv2(first))
    return found


@contextmanager
def evaluating(
    network: RetinaCNN, device: str | torch.device | None = None
) -> Iterator[torch.device]:
    """Put a network into evaluation mode on a device, and back afterwards."""
    home, training = next(network.parameters()).device, network.training
    place = torch.device(device) if device is not None else home
    try:
        network.to(place).eval()
        yield place
    finally:
        network.to(home).train(training)


def _rates(
    layers: HiddenLayers,
    windows: torch.Tensor,
    silencings: Sequence[Silencing],
    rest: dict[str, torch.Tensor],
) -> Iterator[torch.Tensor]:
    """Rates of the whole network, then of every silencing, (b, n) each."""
    first = torch.relu(layers.first(windows))
    before = layers.second(first)
    second = torch.relu(before)
    yield layers.rates(second)
    for silencing in silencings:
        if silencing.layer == "conv1":
            # the second layer is affine in the first: only what is cut passes through it again
            step = layers.change_of_second(silencing.channels, _lost(first, silencing, rest))
            yield layers.rates(torch.relu(before + step))
        else:
            cut = second.clone()
            cut[:, list(silencing.channels)] += _lost(second, silencing, rest)
            yield layers.rates(cut)


def _lost(
    values: torch.Tensor, silencing: Silencing, rest: dict[str, torch.Tensor]
) -> torch.Tensor:
    """Change of the silenced channels on their way towards rest, (b, channel named, y, x)."""
    chosen = values[:, list(silencing.channels)]
    if silencing.layer in rest:
        return silencing.strength * (rest[silencing.layer][list(silencing.channels)] - chosen)
    return -silencing.strength * chosen


def _rest(layers: HiddenLayers, place: torch.device) -> dict[str, torch.Tensor]:
    """Rectified maps of both layers to lasting mean grey, (c, y, x) each."""
    network = layers.network
    kind = next(network.parameters()).dtype
    grey = torch.zeros(1, network.history, *network.frame_shape, dtype=kind, device=place)
    first = torch.relu(layers.first(grey))
    second = torch.relu(layers.second(first))
    return {"conv1": first[0], "conv2": second[0]}


def _check(network: RetinaCNN, silencings: Sequence[Silencing], baseline: str) -> None:
    if not isinstance(network, RetinaCNN):
        raise RetinaCodecError(
            "channels can be silenced in a RetinaCNN, whose layers are known; got "
            f"{type(network).__name__}. Load or fit one."
        )
    if baseline not in ("grey", "zero"):
        raise RetinaCodecError(f"baseline must be 'grey' or 'zero'; got {baseline!r}.")
    if not silencings:
        raise RetinaCodecError("silencings must hold at least one; got none.")
    for silencing in silencings:
        count = network.channels[LAYERS.index(silencing.layer)]
        wrong = [channel for channel in silencing.channels if not 0 <= channel < count]
        if wrong:
            raise RetinaCodecError(
                f"channels of {silencing.layer} must lie in 0..{count - 1}; got {wrong}."
            )
