"""Hold channels of a layer back and run the network: many sets of channels at once.

Equal sets are run once; what lies below the layer is computed once (`FromLayer`).

Notation: b inputs, s sets, c channels, y x places, n cells.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr
from torch import Tensor, nn

from retina_codec.errors import RetinaCodecError
from retina_codec.networks.adapter import Adapter, as_adapter
from retina_codec.networks.borrowed import borrow, open_device, reference_parameter
from retina_codec.probing.batches import batch_length, to_point
from retina_codec.probing.checks import check_network
from retina_codec.probing.from_layer import FromLayer
from retina_codec.probing.hooks import HookedFunction
from retina_codec.probing.inputs import Source, open_inputs
from retina_codec.probing.retina.hidden import LAYERS, HiddenLayers
from retina_codec.probing.survey import Layer
from retina_codec.progress import progress_bar

__all__ = [
    "Cut",
    "HeldAt",
    "Perturbed",
    "Silencing",
    "hold_back",
    "open_perturbed",
    "perturb",
    "silenced_rates",
]

HeldAt = float | Literal["mean"]


Numbers = npt.NDArray[Any]


def perturb(
    network: nn.Module | Adapter,
    inputs: Any,
    layer: str,
    masks: xr.DataArray | Numbers | Tensor,
    *,
    held_at: HeldAt = 0.0,
    batch_size: int | None = None,
    device: str | torch.device | None = None,
    progress: bool | None = None,
) -> xr.Dataset:
    """Run a network with channels of one layer held back, for many sets of channels.

    With h a unit of channel c and m the set's share of it that is kept:
    ``h → m_c h + (1 − m_c) held_at``, at all places (or tokens) of the layer. Everything above the
    layer follows from the network.

    Parameters
    ----------
    network : torch.nn.Module or Adapter
        Used in evaluation mode and left as it was.
    inputs : xr.DataArray, array, torch.Tensor, dict, data set or DataLoader
        As `contribute` takes them.
    layer : str
        Name of a submodule; its output is changed (its input, if the adapter says so).
    masks : array (set, channel)
        What is kept of each channel, in [0, 1]: 0 holds a channel back, 1 leaves it alone.
    held_at : float or "mean"
        Value of a channel that is held back; "mean" is its mean over these inputs and places.
    batch_size : int, optional
        Rows (sets × inputs) at a time: 128 on the CPU, 1024 on a GPU. Bounds the memory.
    device : str or torch.device, optional
        Where to compute; where the network lies when left out.
    progress : bool, optional
        See `retina_codec.progress.progress_bar`.

    Returns
    -------
    xr.Dataset
        ``output`` (set, sample, output) and ``unperturbed`` (sample, output), in the network's
        own unit. The attrs tell whether the part below the layer was skipped (``resumed``) and
        how many different sets were run.

    Raises
    ------
    RetinaCodecError
        If there is no such layer, a mask does not fit it or leaves [0, 1].

    Examples
    --------
    >>> network = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    >>> kept = np.array([[1.0, 1.0], [0.0, 1.0]])
    >>> dict(perturb(network, torch.ones(5, 3), "0", kept)["output"].sizes)
    {'set': 2, 'sample': 5, 'output': 1}
    """
    with open_perturbed(network, inputs, [layer], device=device, batch_size=batch_size) as opened:
        keep = opened.checked_masks(layer, masks)
        different, back = np.unique(keep, axis=0, return_inverse=True)
        parts: list[list[Numbers]] = []
        plain: list[Numbers] = []
        for sets, _, outputs in opened.stream(layer, different, held_at=held_at, progress=progress):
            if sets.start == 0:
                plain.append(opened.unperturbed.cpu().numpy())
                parts.append([])
            parts[-1].append(outputs.cpu().numpy())
        found = np.concatenate([np.concatenate(part, 0) for part in parts], 1)[back.reshape(-1)]
        source, resumed = opened.source, opened.resumed[layer]
    between = ["token"] if found.ndim == 4 else [f"axis{n}" for n in range(2, found.ndim - 1)]
    dims = (source.dim, *between, "output")
    coords = dict(source.coords)
    if isinstance(masks, xr.DataArray) and "set" in masks.coords:
        coords["set"] = masks.coords["set"].values
    return xr.Dataset(
        {"output": (("set", *dims), found), "unperturbed": (dims, np.concatenate(plain, 0))},
        coords=coords,
        attrs={
            "layer": layer,
            "held_at": held_at,
            "resumed": int(resumed),
            "different_sets": len(different),
        },
    )


@dataclass
class Perturbed:
    """A network and inputs, ready to be run with any channels held back; see `open_perturbed`."""

    function: HookedFunction
    source: Source
    batch_size: int
    device: torch.device
    dtype: torch.dtype

    def __post_init__(self) -> None:
        """Start without knowing whether the part below a layer can be skipped."""
        self.resumed: dict[str, bool] = {}
        self.unperturbed = torch.empty(0)

    @property
    def layers(self) -> dict[str, Layer]:
        """Shape and channels of every layer."""
        return self.function.survey

    def checked_masks(self, layer: str, masks: Any) -> npt.NDArray[np.float32]:
        """Return masks (set, channel) that fit a layer."""
        if layer not in self.layers:
            raise RetinaCodecError(f"layer must be one of {', '.join(self.layers)}; got {layer!r}.")
        if isinstance(masks, xr.DataArray):
            masks = masks.transpose("set", "channel").values
        keep: npt.NDArray[np.float32] = np.asarray(masks, np.float32)
        count = self.layers[layer].channels
        if keep.ndim != 2 or keep.shape[1] != count or len(keep) == 0:
            raise RetinaCodecError(
                f"masks of layer {layer!r} must be (set, channel) with its {count} channels; got "
                f"{keep.shape}. Give one row per set."
            )
        if not ((keep >= 0) & (keep <= 1)).all():
            raise RetinaCodecError(
                f"masks must say which share of a channel is kept, in [0, 1]; got "
                f"{keep.min():g} to {keep.max():g}. Use 0 to hold it back."
            )
        return keep

    def stream(
        self,
        layer: str,
        masks: npt.NDArray[np.float32],
        *,
        held_at: HeldAt = 0.0,
        progress: bool | None = False,
    ) -> Iterator[tuple[slice, slice, Tensor]]:
        """Run all sets on all inputs, a batch of rows at a time.

        Parameters
        ----------
        layer : str
        masks : array (set, channel)
            Checked; equal ones would be run again.
        held_at : float or "mean"
        progress : bool, optional

        Yields
        ------
        sets : slice
        samples : slice
            All sets come for some inputs before the next inputs; meanwhile ``unperturbed`` holds
            the outputs (b, n) of the network as it is for them.
        outputs : Tensor (set, b, n)
        """
        if isinstance(held_at, str) and held_at != "mean":
            raise RetinaCodecError(f"held_at must be a number or 'mean'; got {held_at!r}. Use 0.")
        above = FromLayer(self.function, layer)
        level = (
            self._mean(layer)
            if held_at == "mean"
            else torch.tensor(float(held_at), dtype=torch.float64)
        )
        keep = torch.as_tensor(masks, device=self.device, dtype=self.dtype)
        size = min(self.batch_size, len(self.source))
        steps = progress_bar(
            self.source.batches(size),
            description=f"perturbing {layer}",
            total=-(-len(self.source) // size),
            progress=progress,
        )
        start, axis = 0, self.layers[layer].channel_axis
        for batch in steps:
            kept = above.keep(to_point(batch, self.device, self.dtype))
            self.unperturbed, count = kept.outputs, batch_length(batch)
            together = max(1, self.batch_size // count)
            for first in range(0, len(keep), together):
                some = keep[first : first + together]
                change = hold_back(some, axis, level)
                if first == 0 and start == 0:
                    self.resumed[layer] = above.check(kept, change, len(some))
                outputs = _apart(above.run(kept, change, len(some)), len(some))
                yield slice(first, first + len(some)), slice(start, start + count), outputs
            start += count

    def _mean(self, layer: str) -> Tensor:
        """Return the mean of every channel over inputs and places, (c,)."""
        total, count, axis = torch.zeros(()), 0, self.layers[layer].channel_axis
        for batch in self.source.batches(min(self.batch_size, len(self.source))):
            values = self.function.activations(to_point(batch, self.device, self.dtype))[layer]
            rows = values.movedim(axis, -1).flatten(0, -2).double()
            total, count = total.to(rows.device) + rows.sum(0), count + len(rows)
        mean: Tensor = (total / count).to(self.dtype)
        return mean


@contextmanager
def open_perturbed(
    network: nn.Module | Adapter,
    inputs: Any,
    layers: Sequence[str] | None = None,
    *,
    batch_size: int | None = None,
    device: str | torch.device | None = None,
) -> Iterator[Perturbed]:
    """Borrow a network for runs with channels held back.

    Parameters
    ----------
    network : torch.nn.Module or Adapter
    inputs : as `contribute` takes them
    layers : sequence of str, optional
        Those of the adapter (or module) when left out.
    batch_size : int, optional
        Rows at a time.
    device : str or torch.device, optional

    Yields
    ------
    Perturbed

    Raises
    ------
    RetinaCodecError
        If layers or inputs do not fit the network.
    """
    adapter = as_adapter(network, layers)
    if batch_size is not None and batch_size < 1:
        raise RetinaCodecError(f"batch_size must be at least 1; got {batch_size=}.")
    here = reference_parameter(adapter.module)
    place = here.device if device is None else open_device(device)
    dtype = here.dtype
    wide = dtype if dtype in (torch.float32, torch.float64) else torch.float32
    source = open_inputs(adapter, inputs, wide)
    size = batch_size or (128 if place.type == "cpu" else 1024)
    with borrow(adapter.module, place, dtype) as module:
        first = to_point(next(source.part(0, 1).batches(1)), place, dtype)
        function = HookedFunction.open(replace(adapter, module=module), first)
        check_network(function, source, place, dtype, batch_size=size, follows_path=False)
        yield Perturbed(function, source, size, place, dtype)


def _apart(values: Tensor, sets: int) -> Tensor:
    """Reshape (s·b, ...) to (s, b, ...)."""
    return values.reshape(sets, -1, *values.shape[1:])


def hold_back(keep: Tensor, axis: int, level: Tensor) -> Callable[[Tensor], Tensor]:
    """Return the change of a layer that holds channels back, ``h → m h + (1 − m) level``.

    Parameters
    ----------
    keep : Tensor (s, c)
        m, of every set.
    axis : int
        Channel axis of the layer, counted with the batch axis 0.
    level : Tensor, () or (c,) or (b, ...)
        What channels are held at: one number, one per channel, or one per unit, for all inputs
        (b = 1) or for each.

    Returns
    -------
    callable
        From values (s·b, ...), one set after the other, to values of the same shape.
    """

    def change(values: Tensor) -> Tensor:
        shape = [len(keep), 1] + [1] * (values.ndim - 1)
        shape[axis + 1] = keep.shape[1]
        share = keep.view(shape)
        changed = _apart(values, len(keep)) * share
        if level.ndim or float(level):
            held = level.to(values)
            held = held.view([1, *shape[1:]]) if held.ndim == 1 else held
            changed = changed + (1 - share) * held
        flat: Tensor = changed.flatten(0, 1)
        return flat

    return change


@dataclass(frozen=True)
class Silencing:
    """Channels of one hidden layer of a retina network that are cut together.

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
        """Validate the parameters."""
        if self.layer not in LAYERS:
            raise RetinaCodecError(
                f"layer must be one of {', '.join(LAYERS)}; got {self.layer!r}. Channels of the "
                "last layer are ganglion cells: nothing before them is silenced."
            )
        if not self.channels or len(set(self.channels)) != len(self.channels):
            raise RetinaCodecError(
                f"channels must be distinct and at least one; got {self.channels}."
            )
        if not 0 < self.strength <= 1:
            raise RetinaCodecError(f"strength must lie in (0, 1]; got {self.strength}. Use 1.")


Cut = Silencing | tuple[Silencing, ...]


def silenced_rates(
    layers: HiddenLayers,
    windows: Tensor,
    silencings: Sequence[Cut],
    held_at: dict[str, Tensor],
) -> Iterator[Tensor]:
    """Run a retina network with rectified channels cut: `perturb` of its rectifiers, but faster.

    With a the rectified output of a channel: ``a → a + strength (held_at − a)``.

    Parameters
    ----------
    layers : HiddenLayers
    windows : Tensor (b, l, y, x)
        Of successive times.
    silencings : sequence of Silencing or tuple of Silencing
        Those of a tuple are cut together; together they name a channel once.
    held_at : dict of Tensor (c, y, x)
        By layer, such as `HiddenLayers.grey`; 0 where a layer is missing.

    Yields
    ------
    Tensor (b, n)
        Rates, Hz: of the network as it is, then of every silencing.
    """

    def change(values: Tensor, silencing: Silencing) -> Tensor:
        chosen = values[:, list(silencing.channels)]  # (b, channel named, y, x)
        if silencing.layer in held_at:
            level = held_at[silencing.layer][list(silencing.channels)]
            return silencing.strength * (level - chosen)
        return -silencing.strength * chosen

    first = torch.relu(layers.first(windows))
    before = layers.second(first)
    second = torch.relu(before)
    yield layers.rates(second)
    for silencing in silencings:
        parts = silencing if isinstance(silencing, tuple) else (silencing,)
        below = before
        for part in parts:
            if part.layer == "conv1":
                # the second layer is affine in the first: only the change passes through it again
                below = below + layers.change_of_second(part.channels, change(first, part))
        above = second.clone() if below is before else torch.relu(below)
        for part in parts:
            if part.layer == "conv2":
                above[:, list(part.channels)] += change(above, part)
        yield layers.rates(above)
