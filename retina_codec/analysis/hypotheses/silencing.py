"""Predict the rates of all cells while hidden channels of the network are silenced.

Notation: b windows, c channels, n cells.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
import xarray as xr

from retina_codec.errors import RetinaCodecError
from retina_codec.networks.borrowed import borrow
from retina_codec.networks.retina.model import RetinaCNN
from retina_codec.networks.retina.prediction import open_windows, steps_through
from retina_codec.probing.interventions import Cut, silenced_rates
from retina_codec.probing.retina.hidden import LAYERS, HiddenLayers

__all__ = ["RestingAt", "in_blocks", "silence_channels"]

RestingAt = Literal["grey", "zero"]


def silence_channels(
    network: RetinaCNN,
    split: xr.Dataset | xr.DataTree,
    silencings: Sequence[Cut],
    *,
    block: float = 1.0,
    held_at: RestingAt = "grey",
    batch_size: int = 128,
    device: str | torch.device | None = None,
    progress: bool | None = None,
) -> xr.Dataset:
    """Predict the rates of all cells with channels cut, averaged over blocks of time.

    With a the rectified output of a channel, at every place of its map:
    ``a → a − strength (a − a⁰)``, where a⁰ is the channel's output to lasting mean grey
    (``held_at="grey"``: what the channel says beyond its rest is cut, as when an interneuron
    rests) or 0 (``"zero"``). Everything above the layer then follows from the network.

    Parameters
    ----------
    split : xr.Dataset or node of a recording
        With ``stimulus`` (time, y, x), raw intensities, read in chunks.
    silencings : sequence of Silencing or tuple of Silencing
        Those of a tuple are cut together, also in two layers.
    block : float
        s. Rates are averaged over blocks of this length; one bin keeps every bin.
    device : str or torch.device, optional
        Where to compute; where the network lies when left out.
    progress : bool, optional
        See `retina_codec.progress.progress_bar`.

    Returns
    -------
    xr.Dataset
        ``rate`` (time, cell) Hz and ``silenced_rate`` (silencing, time, cell) Hz; ``time`` (s) is
        the left edge of a block; bins after the last whole block are left out.
    """
    _check(network, silencings, held_at)
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
    with borrow(network, device) as module, torch.no_grad():
        layers = HiddenLayers(module)
        rest = layers.grey() if held_at == "grey" else {}
        for part, batch in steps_through(windows, module, batch_size, "silencing", progress):
            number = np.arange(part.start, part.stop) // per_block
            kept = number < blocks
            for row, rates in enumerate(silenced_rates(layers, batch, silencings, rest)):
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
        attrs={"held_at": held_at, "block": per_block / network.frame_rate},
    )


def in_blocks(answer: xr.Dataset, block: float) -> xr.Dataset:
    """Average rates of single bins over blocks of time (s), as `silence_channels` does."""
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


def _check(network: RetinaCNN, silencings: Sequence[Cut], held_at: str) -> None:
    if not isinstance(network, RetinaCNN):
        raise RetinaCodecError(
            "channels can be silenced in a RetinaCNN, whose layers are known; got "
            f"{type(network).__name__}. Load or fit one."
        )
    if held_at not in ("grey", "zero"):
        raise RetinaCodecError(f"held_at must be 'grey' or 'zero'; got {held_at!r}.")
    if not silencings:
        raise RetinaCodecError("silencings must hold at least one; got none.")
    for silencing in silencings:
        parts = silencing if isinstance(silencing, tuple) else (silencing,)
        for part in parts:
            count = network.channels[LAYERS.index(part.layer)]
            wrong = [channel for channel in part.channels if not 0 <= channel < count]
            if wrong:
                raise RetinaCodecError(
                    f"channels of {part.layer} must lie in 0..{count - 1}; got {wrong}."
                )
        named = [(part.layer, channel) for part in parts for channel in part.channels]
        if not named or len(set(named)) < len(named):
            raise RetinaCodecError(
                "what is cut together must name every channel once, and at least one; got "
                f"{parts}. Leave out what is named twice."
            )
