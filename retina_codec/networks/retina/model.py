"""The three-layer convolutional network of the retina (Maheswaranathan et al. 2023).

Notation: b windows, l lags (oldest frame first), y x pixels, n cells.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from retina_codec.errors import RetinaCodecError, in_words
from retina_codec.networks.retina.modules import (
    GaussianNoise,
    Readout,
    ScaleShiftNorm,
    StackedConv2d,
    SurroundConv2d,
    SurroundStack,
)

__all__ = ["Normalisation", "RetinaCNN"]


@dataclass(frozen=True)
class Normalisation:
    """Scale of raw stimulus intensities in the network's input: ``(intensity - mean) / std``.

    Parameters
    ----------
    mean, std : float
        In the intensity units of the recording (usually 0 to 255); ``std > 0``.

    Raises
    ------
    RetinaCodecError
        If ``std`` is not positive.
    """

    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        """Validate the parameters."""
        if not self.std > 0:
            raise RetinaCodecError(
                f"the normalisation needs std > 0; got {self.std=}. Is the stimulus constant?"
            )


class RetinaCNN(nn.Module):
    """Three convolutional layers from the last 400 ms of stimulus to the rate of every cell.

    ``conv1 → norm → noise → ReLU → conv2 → norm → noise → ReLU → conv3 → readout → norm →
    softplus``; one unit of the last layer per recorded ganglion cell, read at its location.

    Parameters
    ----------
    cells : sequence of int or str
        Ids of the modelled cells, in the order of the output.
    locations : array-like, (cell, 2)
        Row and column of each cell in the map of the last convolution (16 × 16 by default):
        the pixel of the receptive field's centre minus ``network.margin``.
    cell_types : sequence of str, optional
        Type of each cell; "unknown" when left out.
    history : int
        Frames in one window (40 = 400 ms at 100 Hz).
    frame_shape : (int, int)
        Pixels in y and x.
    channels : (int, int)
        Channels ("cell types") of the first two layers.
    kernel_sizes : (int, int, int)
        Of the three convolutions, px.
    noise : float
        Standard deviation of the noise before each ReLU in training.
    normalisation : Normalisation
        Turns raw intensities into the network's input.
    frame_rate : float
        Hz.
    stacked : bool
        Build the first two convolutions as stacks of 3 × 3 (for training); `collapse` turns
        them into plain ones.
    surround : bool
        Add to every unit of the second layer a weighted mean of the rectified first layer over
        the whole map, one weight per pair of channels (`SurroundConv2d`): wide-field inhibition.
        The published networks have none.

    Attributes
    ----------
    layers : tuple of str
        The three convolutions, the layers that the analysis explains. Hidden units by default:
        conv1 (8, 36, 36), conv2 (8, 26, 26), conv3 (cell, 16, 16).
    margin : int
        Pixels between the edge of the frame and the centre of the first location.
    training_record : dict
        How the network was trained (settings, losses, session); empty if unknown.

    Raises
    ------
    RetinaCodecError
        If locations, cells and frame do not fit together.

    References
    ----------
    Maheswaranathan et al. 2023, Neuron 111:2742; McIntosh et al. 2016.
    """

    kind: ClassVar[str] = "RetinaCNN"
    layers = ("conv1", "conv2", "conv3")

    def __init__(
        self,
        cells: Sequence[Any],
        locations: Any,
        *,
        cell_types: Sequence[str] | None = None,
        history: int = 40,
        frame_shape: Sequence[int] = (50, 50),
        channels: Sequence[int] = (8, 8),
        kernel_sizes: Sequence[int] = (15, 11, 11),
        noise: float = 0.05,
        normalisation: Normalisation | None = None,
        frame_rate: float = 100.0,
        stacked: bool = False,
        surround: bool = False,
    ) -> None:
        super().__init__()
        self.cells = tuple(_plain(cell) for cell in cells)
        types = () if cell_types is None else tuple(_plain(name) for name in cell_types)
        self.cell_types = types or ("unknown",) * len(self.cells)
        self.history, self.frame_rate = int(history), float(frame_rate)
        self.frame_shape = (int(frame_shape[0]), int(frame_shape[1]))
        self.channels = (int(channels[0]), int(channels[1]))
        self.kernel_sizes = tuple(int(size) for size in kernel_sizes)
        self.noise = float(noise)
        self.normalisation = normalisation or Normalisation()
        self.stacked, self.surround = bool(stacked), bool(surround)
        self.training_record: dict[str, Any] = {}
        places = torch.as_tensor(locations, dtype=torch.long).reshape(-1, 2)
        self._check(places)

        first, second, third = self.kernel_sizes
        make = StackedConv2d if stacked else nn.Conv2d
        wide = SurroundStack if stacked else SurroundConv2d
        self.conv1 = make(self.history, self.channels[0], first)
        self.norm1 = ScaleShiftNorm(self.channels[0])
        self.noise1 = GaussianNoise(self.noise)
        self.relu1 = nn.ReLU()
        self.conv2 = (wide if surround else make)(self.channels[0], self.channels[1], second)
        self.norm2 = ScaleShiftNorm(self.channels[1])
        self.noise2 = GaussianNoise(self.noise)
        self.relu2 = nn.ReLU()
        self.conv3 = nn.Conv2d(self.channels[1], len(self.cells), third, bias=False)
        self.readout = Readout(places)
        self.norm3 = ScaleShiftNorm(len(self.cells))
        self.softplus = nn.Softplus()

    @property
    def map_shape(self) -> tuple[int, int]:
        """Rows and columns of the last convolution's map."""
        shrink = sum(size - 1 for size in self.kernel_sizes)
        return self.frame_shape[0] - shrink, self.frame_shape[1] - shrink

    @property
    def margin(self) -> int:
        """Pixels from the frame's edge to the centre of location 0."""
        return sum(size // 2 for size in self.kernel_sizes)

    def _check(self, places: torch.Tensor) -> None:
        rows, columns = self.map_shape
        if rows < 1 or columns < 1:
            raise RetinaCodecError(
                f"kernels of {self.kernel_sizes} px need frames of at least "
                f"{sum(self.kernel_sizes) - 2} px; got {self.frame_shape[0]} × "
                f"{self.frame_shape[1]} px. Use smaller {in_words('kernel_sizes', '--kernels')}."
            )
        if not self.cells or len(set(self.cells)) != len(self.cells):
            raise RetinaCodecError(f"cells must be distinct and at least one; got {self.cells}.")
        if len(places) != len(self.cells) or len(self.cell_types) != len(self.cells):
            raise RetinaCodecError(
                f"every cell needs one location and one type; got {len(self.cells)} cells, "
                f"{len(places)} locations, {len(self.cell_types)} types."
            )
        limit = torch.tensor([rows, columns])
        if bool((places < 0).any() or (places >= limit).any()):
            raise RetinaCodecError(
                f"locations must lie in the {rows} × {columns} map of the last convolution; got "
                f"{places.tolist()}. Subtract the margin of {self.margin} px from the centre."
            )

    def config(self) -> dict[str, Any]:
        """Return every number needed to build the same network again (JSON types only).

        ``surround`` stands there only if there is one: a plain network has the config, and with it
        the description in results and training states, that it always had.
        """
        own = {"surround": True} if self.surround else {}
        return own | {
            "cells": list(self.cells),
            "cell_types": list(self.cell_types),
            "locations": self.readout.locations.tolist(),
            "history": self.history,
            "frame_shape": list(self.frame_shape),
            "channels": list(self.channels),
            "kernel_sizes": list(self.kernel_sizes),
            "noise": self.noise,
            "normalisation": asdict(self.normalisation),
            "frame_rate": self.frame_rate,
            "stacked": self.stacked,
        }

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], state: Mapping[str, torch.Tensor] | None = None
    ) -> "RetinaCNN":
        """Build the network that `config` describes, with these weights or fresh ones."""
        settings = {key: value for key, value in config.items() if key != "kind"}
        settings["normalisation"] = Normalisation(**settings["normalisation"])
        network = cls(settings.pop("cells"), settings.pop("locations"), **settings)
        if state is not None:
            network.load_state_dict(state)
        return network

    def collapse(self) -> "RetinaCNN":
        """Return a copy whose stacked convolutions are plain ones; the outputs are the same."""
        plain = RetinaCNN.from_config(self.config() | {"stacked": False})
        plain.to(self.norm1.scale.device, self.norm1.scale.dtype)
        state = {
            key: value for key, value in self.state_dict().items() if key in plain.state_dict()
        }
        for name in ("conv1", "conv2"):
            module = getattr(self, name)
            if isinstance(module, StackedConv2d):
                whole = module.collapse().state_dict()
                state = {k: v for k, v in state.items() if not k.startswith(f"{name}.")}
                state |= {f"{name}.{key}": value for key, value in whole.items()}
        plain.load_state_dict(state)
        return plain.train(self.training)

    def first_layer(self, windows: torch.Tensor) -> torch.Tensor:
        """Return the first convolution, ``(b, l, y, x)`` to ``(b, channel, row, column)``."""
        first: torch.Tensor = self.conv1(windows)
        return first

    def above_first_layer(self, first: torch.Tensor) -> torch.Tensor:
        """Go from the output of the first convolution to the rates, ``(b, cell)`` Hz."""
        hidden = self.relu1(self.noise1(self.norm1(first)))
        hidden = self.relu2(self.noise2(self.norm2(self.conv2(hidden))))
        rates: torch.Tensor = self.softplus(self.norm3(self.readout(self.conv3(hidden))))
        return rates

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Return the rate of every cell.

        Parameters
        ----------
        windows : torch.Tensor
            ``(b, lag, y, x)`` normalised intensities, oldest frame first; the window of the
            response at time bin t ends with frame t - 1.

        Returns
        -------
        torch.Tensor
            ``(b, cell)`` Hz.
        """
        return self.above_first_layer(self.first_layer(windows))


def _plain(value: Any) -> Any:
    """Return a number or text of Python in place of numpy's, for JSON."""
    return value.item() if isinstance(value, np.generic) else value
