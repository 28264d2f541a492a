"""Does the network itself agree? A mode's channels taken away, or left alone.

Why this file exists: modes describe contributions; whether these channels make the network do what
it does is seen only by silencing them. A silenced channel is held at what it is for the baseline
input (grey), as contributions are counted from there. What silencing does to cells is another
matter (``analysis``).

Notation: b inputs, c channels, F the target.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from retina_codec.contributions.batches import Batch, map_tensors
from retina_codec.contributions.evaluation import Bound, checked_value
from retina_codec.contributions.hooked import HookedFunction

__all__ = ["Silencer", "insertion_and_deletion", "levels", "silenced", "single_effects"]

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
