"""A network built from a list of layers that JSON can hold, as the published checkpoints are.

Notation: b windows, l lags (oldest frame first), y x pixels, c channels, n cells.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, ClassVar

import torch
from torch import nn

from retina_codec.errors import RetinaCodecError
from retina_codec.networks.retina.model import Normalisation
from retina_codec.networks.retina.modules import (
    GaussianNoise,
    Readout,
    ScaleShiftNorm,
    StackedConv2d,
)

__all__ = ["KernelStack", "LayeredNetwork", "PositionWeights"]

Layer = Mapping[str, Any]


class KernelStack(StackedConv2d):
    """A stack of small linear convolutions of any ``sizes`` in px, seeing ``sum(size - 1) + 1`` px.

    ``channels``: inputs, then the outputs of every convolution; only the last may have a bias.
    """

    def __init__(self, channels: Sequence[int], sizes: Sequence[int], bias: bool) -> None:
        last = len(sizes) - 1
        nn.Sequential.__init__(
            self,
            *(
                nn.Conv2d(channels[i], channels[i + 1], size, bias=bias and i == last)
                for i, size in enumerate(sizes)
            ),
        )

    def collapse(self) -> nn.Conv2d:
        """Return the one convolution that equals the stack."""
        whole = super().collapse()
        if next(module for module in reversed(self) if isinstance(module, nn.Conv2d)).bias is None:
            whole.bias = None
        return whole


class PositionWeights(nn.Module):
    """Sum every cell's map with weights: ``y_c = Σ_l x_cl p_cl Σ_l p_cl``, ``p = w − min w``.

    The weights are not normalised: the newest published text multiplies by the sum (an older one
    divides).
    """

    def __init__(self, cells: int, positions: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.full((cells, positions), 1 / positions))

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """``(b, n, row, column)`` to ``(b, n)``."""
        place = self.w - self.w.amin(1, keepdim=True)
        return (maps.flatten(2) * (place * place.sum(1, keepdim=True))).sum(2)


class Exponential(nn.Module):
    """``exp(x)`` in evaluation, the identity in training, where the loss takes the logarithm."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return a tensor of the shape of ``inputs``."""
        return inputs if self.training else inputs.exp()


KINDS: dict[str, Callable[[Layer], nn.Module]] = {
    "convolution": lambda layer: nn.Conv2d(
        layer["inputs"], layer["outputs"], layer["size"], bias=layer["bias"]
    ),
    "stack": lambda layer: KernelStack(layer["channels"], layer["sizes"], layer["bias"]),
    "scale and shift": lambda layer: ScaleShiftNorm(layer["channels"], layer["momentum"]),
    "batch norm": lambda layer: (nn.BatchNorm2d if layer["maps"] else nn.BatchNorm1d)(
        layer["channels"], eps=layer["eps"], momentum=layer["momentum"]
    ),
    "noise": lambda layer: GaussianNoise(layer["std"]),
    "flatten": lambda _: nn.Flatten(),
    "reshape": lambda layer: nn.Unflatten(1, tuple(layer["shape"])),
    "linear": lambda layer: nn.Linear(layer["inputs"], layer["outputs"], bias=layer["bias"]),
    "readout": lambda layer: Readout(torch.as_tensor(layer["locations"], dtype=torch.long)),
    "position weights": lambda layer: PositionWeights(layer["cells"], layer["positions"]),
    "ReLU": lambda _: nn.ReLU(),
    "Tanh": lambda _: nn.Tanh(),
    "Sigmoid": lambda _: nn.Sigmoid(),
    "ELU": lambda _: nn.ELU(),
    "softplus": lambda _: nn.Softplus(),
    "exponential": lambda _: Exponential(),
}


class LayeredNetwork(nn.Module):
    """A sequence of layers from the last frames of stimulus to the rate of every cell.

    ``sequence`` has a dict per layer: its ``kind``, one of `KINDS`, and its sizes. ``layers`` are
    the convolutions, ``"sequential.0"`` and so on, numbered as in the published file;
    ``training_record`` says where the network comes from. All else is as in `RetinaCNN`.
    """

    kind: ClassVar[str] = "layers"

    def __init__(
        self,
        sequence: Sequence[Layer],
        *,
        cells: Sequence[Any],
        cell_types: Sequence[str] | None = None,
        history: int = 40,
        frame_shape: Sequence[int] = (50, 50),
        normalisation: Normalisation | None = None,
        frame_rate: float = 100.0,
    ) -> None:
        super().__init__()
        unknown = sorted({str(layer.get("kind")) for layer in sequence} - set(KINDS))
        if unknown:
            raise RetinaCodecError(
                f"got layers {', '.join(unknown)[:80]}; every one must be of {', '.join(KINDS)}."
            )
        self.cells = tuple(cells)
        self.cell_types = tuple(cell_types or ("unknown",) * len(self.cells))
        if len(self.cell_types) != len(self.cells):
            raise RetinaCodecError(
                f"every cell needs one type; got {len(self.cells)} cells and "
                f"{len(self.cell_types)} types."
            )
        self.history, self.frame_rate = int(history), float(frame_rate)
        self.frame_shape = (int(frame_shape[0]), int(frame_shape[1]))
        self.normalisation = normalisation or Normalisation()
        self.sequence = [dict(layer) for layer in sequence]
        self.sequential = nn.Sequential(*(KINDS[layer["kind"]](layer) for layer in sequence))
        self.layers = tuple(
            f"sequential.{number}"
            for number, layer in enumerate(sequence)
            if layer["kind"] in ("convolution", "stack")
        )
        self.training_record: dict[str, Any] = {}

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Return rates ``(b, n)``, Hz, of windows ``(b, l, y, x)``, see `RetinaCNN.forward`."""
        rates: torch.Tensor = self.sequential(windows)
        return rates

    def config(self) -> dict[str, Any]:
        """Return every number needed to build the same network again (JSON types only)."""
        return {
            "kind": self.kind,
            "sequence": self.sequence,
            "cells": list(self.cells),
            "cell_types": list(self.cell_types),
            "history": self.history,
            "frame_shape": list(self.frame_shape),
            "normalisation": asdict(self.normalisation),
            "frame_rate": self.frame_rate,
        }

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], state: Mapping[str, torch.Tensor]
    ) -> "LayeredNetwork":
        """Build the network that `config` describes; allocate only sizes that the weights have."""
        settings = {key: value for key, value in config.items() if key != "kind"}
        settings["normalisation"] = Normalisation(**settings["normalisation"])
        with torch.device("meta"):
            network = cls(settings.pop("sequence"), **settings)
        network.load_state_dict(dict(state), assign=True)
        return network.eval()

    def collapse(self) -> "LayeredNetwork":
        """Return a copy whose stacked convolutions are plain ones; the outputs are the same."""
        sequence = list(self.sequence)
        state = {key: value.detach().clone() for key, value in self.state_dict().items()}
        for number, module in enumerate(self.sequential):
            if not isinstance(module, StackedConv2d):
                continue
            whole, name = module.collapse(), f"sequential.{number}."
            sequence[number] = {
                "kind": "convolution",
                "inputs": whole.in_channels,
                "outputs": whole.out_channels,
                "size": whole.kernel_size[0],
                "bias": whole.bias is not None,
            }
            state = {key: value for key, value in state.items() if not key.startswith(name)}
            state |= {name + key: value for key, value in whole.state_dict().items()}
        plain = LayeredNetwork.from_config(self.config() | {"sequence": sequence}, state)
        plain.training_record = dict(self.training_record)
        return plain.train(self.training)
