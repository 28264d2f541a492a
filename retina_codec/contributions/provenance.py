"""What a result says of its origin: settings, weights, arrays and versions, in words and hashes.

Why this file exists: a result must tell by which network, settings and software it came about, and
a run that is resumed must be the same run. It knows nothing of how contributions are computed.
"""

import hashlib
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import nn

__all__ = ["array_text", "readable", "state_hash", "versions"]


def array_text(values: Any) -> str:
    """Describe an array by shape, dtype and the start of the SHA256 of its bytes."""
    if isinstance(values, torch.Tensor):
        raw = values.detach().cpu()
        array = (raw.float() if raw.dtype == torch.bfloat16 else raw).numpy()
    else:
        array = np.asarray(values)
    digest = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]
    return f"array {tuple(array.shape)} {array.dtype} {digest}"


def readable(value: Any) -> str | int | float:
    """Return a setting in a form that every file format can hold."""
    if value is None or isinstance(value, bool):
        return str(value)
    if isinstance(value, str | int | float):
        return value
    if isinstance(value, torch.Tensor | np.ndarray | xr.DataArray):
        return array_text(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(str(readable(item)) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {readable(item)}" for key, item in value.items()) + "}"
    return repr(value)


def state_hash(network: nn.Module) -> str:
    """Return a SHA256 of all weights and buffers with their names, on whatever device."""
    digest = hashlib.sha256()
    for name, values in network.state_dict().items():
        digest.update(name.encode())
        if isinstance(values, torch.Tensor):
            raw = values.detach().cpu().contiguous()
            digest.update(raw.view(-1).view(torch.uint8).numpy().tobytes())
        else:
            digest.update(repr(values).encode())
    return digest.hexdigest()


@cache
def versions() -> str:
    """Return the versions of the package and of what computed the numbers."""
    found = []
    for name in ("retina-codec", "torch", "numpy", "xarray"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"{name} (not installed)")
    return ", ".join(found)
