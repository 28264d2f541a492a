"""What a network puts out when channels of one layer are held back: many sets of them at once.

Why this file exists: control curves, head ablations and insertion tests ask thousands of channel
sets of the same inputs. Sets stand in the batch beside inputs, equal sets are run once, and what
lies below the layer is not run again (`FromLayer`). Which channels to take is not decided here.

Notation: b inputs, s sets, c channels.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr
from torch import Tensor, nn

from retina_codec.errors import RetinaCodecError
from retina_codec.networks.adapter import Adapter, as_adapter
from retina_codec.probing.batches import Batch, batch_length, map_tensors, to_point
from retina_codec.probing.borrowed import open_device, reference_parameter, working_network
from retina_codec.probing.from_layer import FromLayer
from retina_codec.probing.hooks import HookedFunction
from retina_codec.probing.inputs import Source, open_inputs
from retina_codec.probing.points import Bound, checked_value
from retina_codec.probing.survey import Layer
from retina_codec.progress import progress_bar

__all__ = [
    "Fill",
    "Perturbed",
    "Silencer",
    "insertion_and_deletion",
    "levels",
    "open_perturbed",
    "perturb",
    "silenced",
    "single_effects",
]

Fill = float | Literal["mean"]


Numbers = npt.NDArray[Any]


def perturb(
    network: nn.Module | Adapter,
    inputs: Any,
    layer: str,
    masks: xr.DataArray | Numbers | Tensor,
    *,
    fill: Fill = 0.0,
    batch_size: int | None = None,
    device: str | torch.device | None = None,
    progress: bool | None = None,
) -> xr.Dataset:
    """Run a network with channels of one layer held back, for many sets of channels.

    With h a unit of channel c and m the set's share of it that is kept:
    ``h → m_c h + (1 − m_c) fill``, at all places (or tokens) of the layer. Everything above the
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
    fill : float or "mean"
        What a channel is held at; "mean" is its mean over these inputs and places.
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
        for sets, _, outputs in opened.stream(layer, different, fill=fill, progress=progress):
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
            "fill": fill,
            "resumed": int(resumed),
            "different_sets": len(different),
        },
    )


@dataclass
class Perturbed:
    """A network and inputs, ready to be run with any channels held back; see `open_perturbed`."""

    function: HookedFunction
    source: Source
    layers: dict[str, Layer]
    batch_size: int
    device: torch.device
    dtype: torch.dtype

    def __post_init__(self) -> None:
        """Begin without knowing whether layers can be resumed."""
        self.resumed: dict[str, bool] = {}
        self.unperturbed = torch.empty(0)

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
        fill: Fill = 0.0,
        progress: bool | None = False,
    ) -> Iterator[tuple[slice, slice, Tensor]]:
        """Run all sets on all inputs, a batch of rows at a time.

        Parameters
        ----------
        layer : str
        masks : array (set, channel)
            Checked; equal ones would be run again.
        fill : float or "mean"
        progress : bool, optional

        Yields
        ------
        sets : slice
        samples : slice
            All sets come for some inputs before the next inputs; meanwhile ``unperturbed`` holds
            the outputs (b, n) of the network as it is for them.
        outputs : Tensor (set, b, n)
        """
        if isinstance(fill, str) and fill != "mean":
            raise RetinaCodecError(f"fill must be a number or 'mean'; got {fill!r}. Use 0.")
        resumption = FromLayer(self.function, layer)
        level = (
            self._level(layer) if fill == "mean" else torch.tensor(float(fill), dtype=torch.float64)
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
            kept = resumption.keep(to_point(batch, self.device, self.dtype))
            self.unperturbed, count = kept.outputs, batch_length(batch)
            together = max(1, self.batch_size // count)
            for first in range(0, len(keep), together):
                some = keep[first : first + together]
                change = _held_back(some, axis, level)
                if first == 0 and start == 0:
                    self.resumed[layer] = resumption.check(kept, change, len(some))
                outputs = _apart(resumption.run(kept, change, len(some)), len(some))
                yield slice(first, first + len(some)), slice(start, start + count), outputs
            start += count

    def _level(self, layer: str) -> Tensor:
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
    """Lend a network in evaluation mode for runs with channels held back.

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
    with working_network(adapter.module, place, dtype) as module:
        function = HookedFunction(replace(adapter, module=module))
        first: Batch = next(source.part(0, 1).batches(1))
        known = function.look(to_point(first, place, dtype))
        yield Perturbed(function, source, known, size, place, dtype)


def _apart(values: Tensor, sets: int) -> Tensor:
    """Give sets an axis of their own, (s·b, ...) to (s, b, ...)."""
    return values.reshape(sets, -1, *values.shape[1:])


def _held_back(keep: Tensor, axis: int, level: Tensor) -> Callable[[Tensor], Tensor]:
    """Return the change of values (s·b, ...) that keeps ``keep`` (s, c), the sets one by one."""

    def change(values: Tensor) -> Tensor:
        shape = [len(keep), 1] + [1] * (values.ndim - 1)
        shape[axis + 1] = keep.shape[1]
        share = keep.view(shape)
        changed = _apart(values, len(keep)) * share
        if level.ndim or float(level):
            held = level.to(values).view([1, *shape[1:]]) if level.ndim else level.to(values)
            changed = changed + (1 - share) * held
        flat: Tensor = changed.flatten(0, 1)
        return flat

    return change


STEPS = 8  # largest number of steps in a curve


@contextmanager
def silenced(
    function: HookedFunction, layer: str, removed: Tensor, reference: Tensor, axis: int
) -> Iterator[None]:
    """Hold channels of a layer at their reference, for as long as the block lasts.

    Parameters
    ----------
    function : HookedFunction
        The network; its layers must be known (``look``).
    layer : str
    removed : Tensor (c,), bool
    reference : Tensor (1, ...)
        The layer at the baseline input.
    axis : int
        Channel axis, counted with the batch axis 0.
    """

    def see(name: str, values: Tensor) -> Tensor | None:
        if name != layer:
            return None
        shape = [1] * values.ndim
        shape[axis] = -1
        return torch.where(removed.view(shape), reference.to(values.dtype), values)

    with function.watched(see):
        yield


@dataclass
class Silencer:
    """A network, some of its inputs and a target: F with any channels silenced.

    Parameters
    ----------
    function : HookedFunction
    layer : str
    point : Batch
        Inputs (b, ...), at which the target is bound.
    target : callable
        ``(b, n) -> (b,)``, bound at these inputs.
    """

    function: HookedFunction
    layer: str
    point: Batch
    target: Bound
    _reference: Tensor = field(init=False, repr=False)
    _known: dict[bytes, np.ndarray] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        """Look at the layer at the baseline."""
        zero = map_tensors(lambda x: torch.zeros_like(x[:1]), self.point)
        self._reference = self.function.activations(zero)[self.layer]

    def __call__(self, removed: np.ndarray) -> np.ndarray:
        """Return F (b,) with the channels ``removed`` (c,) silenced; asked once, kept."""
        key = np.asarray(removed, bool).tobytes()
        if key not in self._known:
            axis = self.function.look(self.point)[self.layer].channel_axis
            device = self._reference.device
            mask = torch.as_tensor(np.asarray(removed, bool), device=device)
            with torch.no_grad(), silenced(self.function, self.layer, mask, self._reference, axis):
                value = checked_value(self.target, self.function.network.call(self.point))
            self._known[key] = value.double().cpu().numpy()
        return self._known[key]


def levels(channels: int) -> np.ndarray:
    """Return how many channels are touched at each step of a curve, from 0 to all."""
    return np.unique(np.linspace(0, channels, min(channels, STEPS) + 1).round().astype(int))


def insertion_and_deletion(value: Any, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Measure F while channels come or go in an order.

    Parameters
    ----------
    value : callable
        ``removed (c,) bool -> F (b,)``.
    order : array (c,)
        Channels, the first to come or go first.

    Returns
    -------
    insertion : array (step, b)
        F with all channels silenced but the first k of the order.
    deletion : array (step, b)
        F with the first k silenced.
    """
    insertion, deletion = [], []
    for count in levels(len(order)):
        gone = np.zeros(len(order), bool)
        gone[order[:count]] = True
        deletion.append(value(gone))
        insertion.append(value(~gone))
    return np.array(insertion), np.array(deletion)


def single_effects(value: Any, channels: np.ndarray, count: int) -> np.ndarray:
    """Measure F − F without one channel, for each of ``channels``: array (b, channel)."""
    whole = value(np.zeros(count, bool))
    effects = []
    for channel in channels:
        gone = np.zeros(count, bool)
        gone[channel] = True
        effects.append(whole - value(gone))
    return np.stack(effects, 1)
