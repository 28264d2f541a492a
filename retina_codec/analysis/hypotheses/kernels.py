"""Mean kernels of hidden channels: polarity, delay, biphasic index and width.

A kernel is the mean gradient of the channel's central unit; in the first layer it is the weight.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr

from retina_codec.errors import RetinaCodecError
from retina_codec.networks.borrowed import borrow, reference_parameter
from retina_codec.networks.retina.model import RetinaCNN
from retina_codec.networks.retina.prediction import open_windows
from retina_codec.probing.retina.hidden import LAYERS

__all__ = ["channel_kernels", "separable_kernels", "summarise_kernel"]

Floats = npt.NDArray[np.float64]


def channel_kernels(
    network: RetinaCNN,
    split: xr.Dataset | xr.DataTree,
    *,
    samples: int = 64,
    device: str | torch.device | None = None,
) -> xr.Dataset:
    """Describe the mean kernel of every channel ("conv1/0") of the first two layers.

    ``k[c, lag, y, x] = mean over windows of ∂ activation[c, centre] / ∂ window[lag, y, x]``, before
    the rectifier, over ``samples`` windows evenly spaced over the split; `summarise_kernel` makes
    four numbers of it: ``polarity`` ("ON", "OFF", or "none" for a kernel of zeros), ``peak_lag`` (s
    before the response), ``biphasic_index`` (0 to 1), ``width`` (px), all (channel,).
    """
    kernels, lags, count = _mean_kernels(network, split, samples, device)
    rows = [summarise_kernel(kernel, lags) for kernel in kernels.values()]
    polarity, lag, biphasic, width = zip(*rows, strict=True)
    data: dict[str, Any] = {
        "polarity": ("channel", list(polarity)),
        "peak_lag": ("channel", list(lag), {"units": "s"}),
        "biphasic_index": ("channel", list(biphasic), {"units": "1"}),
        "width": ("channel", list(width), {"units": "px"}),
    }
    return xr.Dataset(data, coords={"channel": list(kernels)}, attrs={"samples": count})


def separable_kernels(
    network: RetinaCNN,
    split: xr.Dataset | xr.DataTree,
    *,
    samples: int = 64,
    device: str | torch.device | None = None,
) -> xr.Dataset:
    """Return the strongest separable part of the mean kernel of every channel.

    ``k[c, lag, y, x] ≈ f[c, lag] g[c, y, x]``, the first singular pair of the mean kernel, ``k[c,
    lag, y, x] = mean over windows of ∂ activation[c, centre] / ∂ window[lag, y, x]`` before the
    rectifier, g with its largest entry positive; each is divided by its largest size.

    Parameters
    ----------
    network : RetinaCNN
    split : xr.Dataset or node of a recording
        With ``stimulus`` (time, y, x), raw intensities.
    samples : int
        Windows, evenly spaced over the split.
    device : str or torch.device, optional
        Where to compute; where the network lies when left out.

    Returns
    -------
    xr.Dataset, dims (channel, lag), (channel, field_y, field_x)
        ``time_course``, ``field``, largest size 1, zeros for a kernel of zeros; ``lag`` in s before
        the response, ``field_y`` and ``field_x`` in px from the centre of the channel's unit: what
        its kernels see, or the whole frame with a wide field.

    Raises
    ------
    RetinaCodecError
        If the split does not fit the network, or no sample is asked for.
    """
    kernels, lags, count = _mean_kernels(network, split, samples, device)
    courses, fields = zip(*map(_separable, kernels.values()), strict=True)
    y, x = (np.arange(size) - size // 2 for size in fields[0].shape)
    return xr.Dataset(
        {
            "time_course": (("channel", "lag"), _to_one(courses), {"units": "1"}),
            "field": (("channel", "field_y", "field_x"), _to_one(fields), {"units": "1"}),
        },
        coords={
            "channel": list(kernels),
            "lag": ("lag", lags, {"units": "s"}),
            "field_y": ("field_y", y, {"units": "px"}),
            "field_x": ("field_x", x, {"units": "px"}),
        },
        attrs={"samples": count},
    )


def _to_one(arrays: Sequence[Floats]) -> Floats:
    """Divide each by its largest size; zeros stay."""
    return np.stack([values / (np.abs(values).max() or 1.0) for values in arrays])


def _mean_kernels(
    network: RetinaCNN,
    split: xr.Dataset | xr.DataTree,
    samples: int,
    device: str | torch.device | None,
) -> tuple[dict[str, Floats], Floats, int]:
    """Return mean kernels (lag, y, x) of the first two layers, lags (s), number of windows."""
    kernels = {}
    if samples < 1:
        raise RetinaCodecError(f"kernels need at least one window; got {samples=}.")
    _, windows = open_windows(network, split)
    chosen = np.unique(np.linspace(0, len(windows) - 1, samples).round().astype(int))
    lags = np.arange(network.history, 0, -1) / network.frame_rate
    with borrow(network, device) as module, torch.enable_grad():
        place = reference_parameter(module).device
        seen = windows.at(chosen.tolist(), device=place)
        if not network.surround:  # only what the central unit of the second layer sees
            size = sum(network.kernel_sizes[:2]) - 1
            top, left = ((whole - size) // 2 for whole in network.frame_shape)
            seen = seen[..., top : top + size, left : left + size]
        batch = seen.contiguous().requires_grad_()
        first = module.norm1(module.conv1(batch))
        second = module.norm2(module.conv2(torch.relu(first)))
        for name, values in zip(LAYERS, (first, second), strict=True):
            row, column = values.shape[2] // 2, values.shape[3] // 2
            for channel in range(values.shape[1]):
                unit = values[:, channel, row, column].mean()
                (kernel,) = torch.autograd.grad(unit, batch, retain_graph=True)
                kernels[f"{name}/{channel}"] = kernel.sum(0).double().cpu().numpy()
    return kernels, lags, len(chosen)


def _separable(kernel: Floats) -> tuple[Floats, Floats]:
    """Return time course (lag,) and field (y, x) of the first singular pair; zeros for zeros."""
    if not np.abs(kernel).max(initial=0.0) > 0:
        return np.zeros(len(kernel)), np.zeros(kernel.shape[1:])
    left, _, right = np.linalg.svd(kernel.reshape(len(kernel), -1), full_matrices=False)
    course, field = left[:, 0], right[0].reshape(kernel.shape[1:])
    if field.flat[np.abs(field).argmax()] < 0:
        course, field = -course, -field
    return course, field


def summarise_kernel(kernel: Floats, lags: Floats) -> tuple[str, float, float, float]:
    """Return polarity, peak lag (s), biphasic index and width (px) of a kernel (lag, y, x).

    The kernel's first singular pair gives time f(lag) and space g(y, x), with the sign that makes
    the largest |g| positive. Polarity ("ON", "OFF") is the sign of f at its largest |f|; the
    biphasic index in [0, 1] is the largest value of the other sign over the largest; ``width = 2
    √(Σ g² ρ² / Σ g²)``, ρ the distance (px) from the centre of g². A kernel of zeros has "none" and
    three NaN.
    """
    if not np.abs(kernel).max(initial=0.0) > 0:
        return "none", float("nan"), float("nan"), float("nan")
    course, field = _separable(kernel)
    peak = int(np.abs(course).argmax())
    sign = np.sign(course[peak])
    other = max(0.0, float((-sign * course).max()))
    mass = field**2 / (field**2).sum()
    y, x = np.indices(field.shape)
    center_y, center_x = (mass * y).sum(), (mass * x).sum()
    width = 2 * np.sqrt((mass * ((y - center_y) ** 2 + (x - center_x) ** 2)).sum())
    return (
        "ON" if sign > 0 else "OFF",
        float(lags[peak]),
        other / float(abs(course[peak])),
        float(width),
    )
