"""Building blocks of the retina networks that torch lacks.

Stacked linear convolution, wide field, normalisation with a positive scale, noise, readout.

Notation: b windows, n cells, o i channels out and in.
"""

import torch
from torch import nn

from retina_codec.errors import RetinaCodecError, in_words

__all__ = [
    "GaussianNoise",
    "Readout",
    "ScaleShiftNorm",
    "StackedConv2d",
    "SurroundConv2d",
    "SurroundStack",
    "plain_convolution",
    "surround_of",
]

EPS = 1e-3  # added to the variance


class StackedConv2d(nn.Sequential):
    """A large convolution trained as a stack of ``(kernel_size - 1) / 2`` linear ones of 3 × 3.

    No nonlinearity stands between the small kernels, so the stack equals one convolution with the
    kernels convolved with each other; it trains faster and smoother than the large kernel.
    ``kernel_size`` must be odd, >= 3. Maheswaranathan et al. 2023, Neuron 111:2742, methods
    ("linear stacked convolution").
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        if kernel_size < 3 or kernel_size % 2 == 0:
            raise RetinaCodecError(
                f"a stack needs an odd kernel size of at least 3; got {kernel_size=}. "
                + in_words("Use stacked=False for other sizes.", "Give odd sizes as --kernels.")
            )
        depth = (kernel_size - 1) // 2
        sizes = [in_channels] + [out_channels] * depth
        super().__init__(
            *(nn.Conv2d(sizes[i], sizes[i + 1], 3, bias=i == depth - 1) for i in range(depth))
        )

    def collapse(self) -> nn.Conv2d:
        """Return the equal single convolution, computed in float64, in the stack's dtype."""
        with torch.no_grad():
            kernel, bias = self.kernel(torch.float64)
            here = self[-1].get_parameter("weight")
            size = (kernel.shape[1], kernel.shape[0], kernel.shape[-1])
            whole = nn.Conv2d(size[0], size[1], size[2], bias=bias is not None)
            whole.to(device=here.device, dtype=here.dtype)
            whole.weight.copy_(kernel)
            if bias is not None:
                whole.get_parameter("bias").copy_(bias)
        return whole

    def kernel(self, dtype: torch.dtype | None = None) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return weight (out, in, k, k) and bias (out,) or None of the equal single convolution.

        Differentiable in those of the stack; computed in ``dtype``, the stack's when left out.
        """
        first, *others = (module.get_parameter("weight") for module in self)
        kernel = first.to(dtype or first.dtype)  # (q, i, u, v)
        for other in others:
            step = other.to(kernel.dtype)  # (o, q, r, c)
            kernel = nn.functional.conv2d(
                kernel.transpose(0, 1), step.flip((-2, -1)), padding=step.shape[-1] - 1
            ).transpose(0, 1)
        bias: torch.Tensor | None = self[-1].bias  # type: ignore[assignment]  # a Conv2d
        return kernel, bias


class SurroundConv2d(nn.Conv2d):
    """A convolution without padding, plus a wide field: the mean of its input over the whole map.

    ``y[b, o] = conv(x)[b, o] + Σ_i W[o, i] mean_yx x[b, i]``, W the parameter ``surround``
    (out, in), 0 at first: then the convolution alone. With rectified x it stands for cells that sum
    rectified signals over the whole field (Ölveczky, Baccus, Meister 2003; Baccus et al. 2008).
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, bias: bool = True
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, bias=bias)
        self.surround = nn.Parameter(torch.zeros(out_channels, in_channels))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """``(b, i, y, x)`` to ``(b, o, row, column)``."""
        return super().forward(inputs) + _wide_field(inputs, self.surround)


class SurroundStack(StackedConv2d):
    """A `StackedConv2d` with the wide field of a `SurroundConv2d`, to which it collapses."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size)
        self.surround = nn.Parameter(torch.zeros(out_channels, in_channels))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """``(b, i, y, x)`` to ``(b, o, row, column)``."""
        local: torch.Tensor = super().forward(inputs)  # type: ignore[no-untyped-call]
        return local + _wide_field(inputs, self.surround)

    def collapse(self) -> SurroundConv2d:
        """Return the equal single convolution with the same wide field."""
        local = super().collapse()
        whole = SurroundConv2d(
            local.in_channels, local.out_channels, local.kernel_size[0], local.bias is not None
        ).to(local.weight)
        whole.load_state_dict(local.state_dict() | {"surround": self.surround.detach()})
        return whole


def _wide_field(inputs: torch.Tensor, surround: torch.Tensor) -> torch.Tensor:
    """Return ``Σ_i W[o, i] mean_yx x[b, i]`` as ``(b, o, 1, 1)``."""
    return (inputs.mean((-2, -1)) @ surround.T)[..., None, None]


def surround_of(module: nn.Module) -> torch.Tensor | None:
    """Return W (out, in) of a convolution with a wide field, detached; None without one."""
    if isinstance(module, SurroundConv2d | SurroundStack):
        return module.surround.detach()
    return None


def plain_convolution(module: nn.Module) -> nn.Conv2d:
    """Return a convolution, or the one that equals a stack of them; TypeError for other modules.

    Its wide field, if it has one, is `surround_of`.
    """
    whole = module.collapse() if isinstance(module, StackedConv2d) else module
    if not isinstance(whole, nn.Conv2d):
        raise TypeError(f"a retina network is made of convolutions; got {type(whole).__name__}.")
    return whole


class ScaleShiftNorm(nn.Module):
    """Batch normalisation whose scale cannot change the sign of a channel.

    ``y = (x - running_mean) / sqrt(running_var + eps) * |scale| + shift``; in training the batch
    statistics take the place of the running ones, into which a new batch enters with weight
    ``momentum``. Maheswaranathan et al. 2023, the published networks ("AbsBatchNorm", eps 1e-3).
    """

    running_mean: torch.Tensor
    running_var: torch.Tensor

    def __init__(self, channels: int, momentum: float = 0.01) -> None:
        super().__init__()
        self.momentum = momentum
        self.scale = nn.Parameter(torch.ones(channels))
        self.shift = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Normalise ``(b, channel, ...)`` per channel."""
        return nn.functional.batch_norm(
            inputs,
            self.running_mean,
            self.running_var,
            self.scale.abs(),
            self.shift,
            self.training,
            self.momentum,
            EPS,
        )

    def scale_and_shift(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a and b of evaluation mode, ``y = a x + b``, each ``(channel,)``."""
        scale = self.scale.detach().abs() * torch.rsqrt(self.running_var + EPS)
        return scale, self.shift.detach() - self.running_mean * scale


class GaussianNoise(nn.Module):
    """Add noise of a fixed standard deviation in training; the identity in evaluation."""

    def __init__(self, std: float) -> None:
        super().__init__()
        self.std = std

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return a tensor of the shape of ``inputs``."""
        if not self.training or self.std == 0:
            return inputs
        return inputs + self.std * torch.randn_like(inputs)


class Readout(nn.Module):
    """Read every cell's own channel at that cell's location: ``y[b, i] = x[b, i, row_i, col_i]``.

    ``locations`` (n, 2) integers, row and column in the map of the last convolution.
    """

    locations: torch.Tensor

    def __init__(self, locations: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("locations", locations)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """``(b, n, row, col)`` to ``(b, n)``."""
        cell = torch.arange(maps.shape[1], device=maps.device)
        return maps[:, cell, self.locations[:, 0], self.locations[:, 1]]
