"""Evaluate the two hidden layers of a retina network over a whole recording with less work.

Successive windows share transforms of frames, and large kernels act in the Fourier domain.

Notation: b windows, c channels, y x places, n cells.
"""

import torch

from retina_codec.networks.retina.fourier import FourierConvolution, inward, outward
from retina_codec.networks.retina.model import RetinaCNN
from retina_codec.networks.retina.modules import surround_of
from retina_codec.probing.retina.forward import RetinaFunction

__all__ = ["LAYERS", "HiddenLayers"]

LAYERS = ("conv1", "conv2")


class HiddenLayers:
    """Outputs of both hidden layers for windows of successive times, and the rates above.

    ``z₁ = norm(conv₁ w)``, ``z₂ = norm(conv₂ relu z₁)``, before the rectifiers, as the network in
    evaluation mode gives them (to rounding).

    Parameters
    ----------
    network : RetinaCNN
        In evaluation mode, on its device; not modified.
    """

    def __init__(self, network: RetinaCNN) -> None:
        # the same outputs from plain convolutions
        self.network = network.collapse() if network.stacked else network
        self._function = RetinaFunction(self.network, ("conv1",), consecutive=True)
        self._weight = self.network.get_parameter("conv2.weight").detach()
        self._bias = dict(self.network.named_parameters()).get("conv2.bias")
        size = network.kernel_sizes[0]
        self._shape = tuple(side - size + 1 for side in network.frame_shape)
        self._wide = surround_of(self.network.conv2)
        self._whole = FourierConvolution(self._weight, self._shape, self._wide)
        self._parts: dict[tuple[int, ...], FourierConvolution] = {}
        sides = [side - self._weight.shape[-1] + 1 for side in self._shape]
        ends = torch.zeros(2, len(self._weight), *sides).to(self._weight)
        ends[1] = 1
        with torch.no_grad():
            low, high = self.network.norm2(ends)
            self._gain = high - low  # (c, y, x): the norm is affine

    def first(self, windows: torch.Tensor) -> torch.Tensor:
        """First layer before its rectifier, (b, c, y, x), of windows of successive times."""
        with torch.no_grad():
            found: torch.Tensor = self.network.norm1(self._function.start(windows))
            return found

    def second(self, first: torch.Tensor) -> torch.Tensor:
        """Second layer before its rectifier, (b, c, y, x), from the rectified first."""
        with torch.no_grad():
            maps = outward(self._whole(inward(first)))
            maps = maps if self._bias is None else maps + self._bias[:, None, None]
            found: torch.Tensor = self.network.norm2(maps)
            return found

    def change_of_second(self, channels: tuple[int, ...], change: torch.Tensor) -> torch.Tensor:
        """Change of the second layer before its rectifier that follows from one of the first.

        Parameters
        ----------
        channels : tuple of int
            Of the first layer.
        change : torch.Tensor, (b, channel named, y, x)
            Of the rectified first layer; the second is affine in it.

        Returns
        -------
        torch.Tensor, (b, c, y, x)
        """
        with torch.no_grad():
            if channels not in self._parts:
                part = self._weight[:, list(channels)]
                wide = None if self._wide is None else self._wide[:, list(channels)]
                self._parts[channels] = FourierConvolution(part, self._shape, wide)
            found: torch.Tensor = self._gain * outward(self._parts[channels](inward(change)))
            return found

    def rates(self, second: torch.Tensor) -> torch.Tensor:
        """Rates (b, n) Hz from the rectified second layer, read only where the cells are."""
        network = self.network
        weight, size = network.conv3.weight, network.kernel_sizes[2]
        with torch.no_grad():
            drive = torch.stack(
                [
                    second[:, :, y : y + size, x : x + size].flatten(1) @ kernel.flatten()
                    for kernel, (y, x) in zip(
                        weight, network.readout.locations.tolist(), strict=True
                    )
                ],
                dim=1,
            )
            found: torch.Tensor = network.softplus(network.norm3(drive))
            return found

    def grey(self) -> dict[str, torch.Tensor]:
        """Rectified maps of both layers to lasting mean grey, (c, y, x) each."""
        network = self.network
        window = (1, network.history, *network.frame_shape)
        first = torch.relu(self.first(torch.zeros(window).to(self._weight)))
        return {"conv1": first[0], "conv2": torch.relu(self.second(first))[0]}
