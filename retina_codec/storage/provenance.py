"""Describe what a result comes from: settings, weights, arrays, functions and versions.

Descriptions are texts and hashes that are the same in every process.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import nn

from retina_codec.errors import RetinaCodecError

__all__ = [
    "array_text",
    "check_describable",
    "check_same",
    "readable",
    "state_hash",
    "tensor_bytes",
    "versions",
]

ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")  # of an object in memory

SHOWN = 70  # letters of a value in a message

LISTED = 6  # differences in a message

WRITTEN = "written when the network runs"  # a value of an identity that is equal to every other


def array_text(values: Any) -> str:
    """Describe an array by shape, dtype and the start of the SHA256 of its bytes."""
    if isinstance(values, torch.Tensor):
        raw = values.detach().cpu()
        plain = raw.layout == torch.strided and not (raw.is_quantized or raw.is_nested)
        if not plain or raw.is_meta or raw.is_complex():
            parts = hashlib.sha256(b"".join(tensor_bytes(raw))).hexdigest()[:16]
            return f"array {tuple(raw.shape)} {str(raw.dtype).removeprefix('torch.')} {parts}"
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
    if isinstance(value, partial):
        given = [readable(value.func), *map(readable, value.args)]
        named = [f"{key}={readable(item)}" for key, item in value.keywords.items()]
        return f"partial({', '.join(map(str, [*given, *named]))})"
    if callable(value) and hasattr(value, "__qualname__"):
        return str(value.__qualname__)
    return repr(value)


def state_hash(network: nn.Module) -> str:
    """Return a SHA256 of all weights and buffers with their names, on whatever device."""
    digest = hashlib.sha256()
    for name, values in network.state_dict().items():
        digest.update(name.encode())
        for part in _state_bytes(values):
            digest.update(part)
    return digest.hexdigest()


def _state_bytes(values: Any) -> Iterator[bytes]:
    """Yield what an entry of a state dict holds; packed weights are tuples of tensors."""
    if isinstance(values, torch.Tensor):
        yield from tensor_bytes(values)
    elif isinstance(values, list | tuple):
        for one in values:
            yield from _state_bytes(one)
    elif isinstance(values, dict):
        for key, one in values.items():
            yield repr(key).encode()
            yield from _state_bytes(one)
    else:
        yield ADDRESS.sub("", repr(values)).encode()


def tensor_bytes(values: torch.Tensor) -> Iterator[bytes]:
    """Yield the bytes of a tensor of any layout, on whatever device.

    Sparse tensors give indices and values, quantised ones whole numbers and scales, nested ones
    their parts, tensors without values (meta) their shape and dtype.

    Raises
    ------
    RetinaCodecError
        If torch cannot read the values.
    """
    try:
        yield from _bytes_of(values.detach())
    except (RuntimeError, NotImplementedError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RetinaCodecError(
            f"weights and buffers must be readable, to tell networks apart; a {values.dtype} "
            f"tensor of class {type(values).__name__} is not ({reason:.100}). Convert it to a "
            "plain tensor."
        ) from error


def _bytes_of(raw: torch.Tensor) -> Iterator[bytes]:
    if nn.parameter.is_lazy(raw):
        yield b"not initialised"
    elif raw.is_meta:
        yield f"no values {tuple(raw.shape)} {raw.dtype}".encode()
    elif raw.is_nested:
        for part in raw.unbind():
            yield str(tuple(part.shape)).encode()
            yield from _bytes_of(part)
    elif raw.layout == torch.sparse_coo:
        whole = raw.coalesce()
        yield str(tuple(raw.shape)).encode()
        yield from _bytes_of(whole.indices())
        yield from _bytes_of(whole.values())
    elif raw.layout in (torch.sparse_csr, torch.sparse_bsr, torch.sparse_csc, torch.sparse_bsc):
        by_rows = raw.layout in (torch.sparse_csr, torch.sparse_bsr)
        yield f"{raw.layout} {tuple(raw.shape)}".encode()
        yield from _bytes_of(raw.crow_indices() if by_rows else raw.ccol_indices())
        yield from _bytes_of(raw.col_indices() if by_rows else raw.row_indices())
        yield from _bytes_of(raw.values())
    elif raw.layout != torch.strided:
        yield from _bytes_of(raw.to_dense())
    elif raw.is_quantized:
        yield from _bytes_of(raw.int_repr())
        if raw.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric):
            yield f"{raw.q_scale()} {raw.q_zero_point()}".encode()
        else:
            yield str(raw.q_per_channel_axis()).encode()
            yield from _bytes_of(raw.q_per_channel_scales())
            yield from _bytes_of(raw.q_per_channel_zero_points())
    elif hasattr(raw, "__tensor_flatten__"):  # a tensor made of others
        names, about = raw.__tensor_flatten__()
        yield ADDRESS.sub("", repr(about)).encode()
        for name in names:
            yield from _bytes_of(getattr(raw, name))
    else:
        whole = raw.cpu().resolve_conj().resolve_neg().contiguous()
        flat = whole.as_strided((whole.numel(),), (1,))  # one entry may have any stride
        yield flat.view(torch.uint8).numpy().tobytes()


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


def check_describable(identity: Mapping[str, str]) -> None:
    """Refuse a run that holds an object known only by its place in memory.

    Parameters
    ----------
    identity : mapping of str to str
        The description of the run.

    Raises
    ------
    RetinaCodecError
        If a value holds a memory address, which is another one in the next process.
    """
    for key, value in identity.items():
        if held := ADDRESS.search(value):
            raise RetinaCodecError(
                "a store must tell this run from others, so everything must be described by its "
                f"values; {key} holds {_around(value, held.start())}. "
                "Give its class a __repr__ that shows its values (a dataclass has one), use a "
                "plain function, or leave store out."
            )


def check_same(found: Any, identity: Mapping[str, str], path: Any) -> None:
    """Check that a store belongs to this run.

    Parameters
    ----------
    found : str or None
        The identity that the store holds, as JSON.
    identity : mapping of str to str
        The identity of this run.
    path : path
        Of the store, for the message.

    Raises
    ------
    RetinaCodecError
        If the store holds no run, or another one: then the differences are named. What either
        side knows to be `WRITTEN` by runs of the network is no difference.
    """
    way_out = "Choose another name for store, or remove it."
    try:
        other = dict(json.loads(found))
    except (TypeError, ValueError):
        raise RetinaCodecError(
            f"store must be new or hold this run; {path} does not say which run it is. {way_out}"
        ) from None
    pairs = {key: (other.get(key), identity.get(key)) for key in {**identity, **other}}
    differing = {
        key: pair for key, pair in pairs.items() if pair[0] != pair[1] and WRITTEN not in pair
    }
    if differing:
        told = [_difference(key, *pair) for key, pair in differing.items()]
        more = [f"and {len(told) - LISTED} more differences"] if len(told) > LISTED else []
        listed = "; ".join(told[:LISTED] + more)
        raise RetinaCodecError(
            f"store must be new or hold this run; {path} belongs to another ({listed}). {way_out}"
        )


def _difference(key: str, there: str | None, here: str | None) -> str:
    """Show two values where they begin to differ."""
    if there is None or here is None:
        shown = [("nothing" if value is None else _around(value, 0)) for value in (there, here)]
    else:
        pairs = enumerate(zip(there, here, strict=False))
        place = next((n for n, (a, b) in pairs if a != b), min(len(there), len(here)))
        shown = [_around(there, place), _around(here, place)]
    return f"{key}: {shown[0]} there, {shown[1]} here"


def _around(text: str, place: int) -> str:
    """Cut a text to a few words before and after a place."""
    start = 0 if place < SHOWN // 2 or len(text) <= SHOWN else place - SHOWN // 2
    cut = text[start : start + SHOWN]
    return f"{'…' if start else ''}{cut}{'…' if start + SHOWN < len(text) else ''}"
