"""Remember the state of a network, and put it back: attributes, buffers, weights, flags, gradients.

Only what was changed meanwhile is written.
"""

import warnings
from collections import deque
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import nn

from retina_codec.errors import RecordingWarning

__all__ = ["KeptState"]

COPIED_BYTES = (
    2**29
)  # of tensors that are copied; of larger networks, some weights are only checked

BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes of a number


MOST = 20_000  # objects of the user's own that are looked into; some hold a whole trainer


CHANGING = (nn.Module, torch.Tensor, dict, list, set, deque, np.ndarray, torch.Generator)


class KeptState:
    """The state of a network at one moment.

    It holds the attributes of all modules (also of modules in lists, which torch does not know) and
    of objects of the user's own, entries of lists, dicts and sets, random generators, and tensors:
    values, ``requires_grad`` and gradient. Buffers and then weights are copied up to 512 MiB; the
    others are only checked.

    Parameters
    ----------
    network : torch.nn.Module
    values : bool
        False keeps attributes and flags alone.
    """

    def __init__(self, network: nn.Module, *, values: bool = True) -> None:
        self._attributes: list[tuple[nn.Module, dict[str, Any]]] = []
        self._containers: list[tuple[Any, Any]] = []
        self._generators: list[tuple[torch.Generator, torch.Tensor]] = []
        self._arrays: list[tuple[np.ndarray, np.ndarray]] = []
        self._objects: list[tuple[Any, dict[str, Any]]] = []
        self._seen: set[int] = set()
        kinds = {type(module).__module__.partition(".")[0] for module in network.modules()}
        self._packages = kinds - {"torch"}  # those that the network is written in
        self._names: dict[int, str] = {}
        found: list[torch.Tensor] = []
        self._visit(network, found)
        for name, values_of in [*network.named_parameters(), *network.named_buffers()]:
            self._names.setdefault(id(values_of), name)
        left = COPIED_BYTES if values else -1
        self._tensors: list[_KeptTensor] = []
        for tensor in sorted(found, key=lambda t: (isinstance(t, nn.Parameter), _bytes_of(t))):
            left -= _bytes_of(tensor)
            self._tensors.append(_KeptTensor(tensor, copied=left >= 0, checked=values))

    def _visit(self, value: Any, found: list[torch.Tensor]) -> None:
        """Collect what can change in an attribute; objects of other packages are left alone."""
        if isinstance(value, tuple):
            for item in value:
                self._visit(item, found)
            return
        if id(value) in self._seen:
            return
        if not isinstance(value, CHANGING):
            self._visit_object(value, found)
            return
        self._seen.add(id(value))
        if isinstance(value, torch.Tensor):
            found.append(value)
        elif isinstance(value, torch.Generator):
            self._generators.append((value, value.get_state()))
        elif isinstance(value, np.ndarray):
            self._arrays.append((value, value.copy()))
        elif isinstance(value, torch.jit.ScriptModule):  # its attributes are not Python's
            found.extend(t for t in [*value.parameters(), *value.buffers()] if self._is_new(t))
        elif isinstance(value, nn.Module):
            attributes = dict(value.__dict__)
            self._attributes.append((value, attributes))
            for item in attributes.values():
                self._visit(item, found)
        else:
            self._containers.append((value, _shallow(value)))
            for item in value.values() if isinstance(value, dict) else value:
                self._visit(item, found)

    def _visit_object(self, value: Any, found: list[torch.Tensor]) -> None:
        """Collect the attributes of an object whose class is the user's own."""
        own = type(value).__module__.partition(".")[0] in self._packages
        attributes = getattr(value, "__dict__", None) if own else None
        if not isinstance(attributes, dict) or callable(value) or len(self._objects) >= MOST:
            return
        self._seen.add(id(value))
        self._objects.append((value, dict(attributes)))
        for item in list(attributes.values()):
            self._visit(item, found)

    def _is_new(self, tensor: torch.Tensor) -> bool:
        new = id(tensor) not in self._seen
        self._seen.add(id(tensor))
        return new

    def restore(self) -> None:
        """Put everything back; warn of weights that changed and were too large to copy."""
        for module, attributes in self._attributes:
            _refill(module.__dict__, attributes)
        for value, attributes in self._objects:
            _refill(value.__dict__, attributes)
        for container, entries in self._containers:
            _refill(container, entries)
        for generator, state in self._generators:
            if not torch.equal(generator.get_state(), state):
                generator.set_state(state)
        for array, entries in self._arrays:
            if array.tobytes() != entries.tobytes():
                array[...] = entries
        lost = [self._names.get(id(t.tensor), "?") for t in self._tensors if not t.restore()]
        if lost:
            warnings.warn(
                f"the network changed its own weights when it was run ({', '.join(lost[:5])}), and "
                "they are too large to be put back. Run a copy of it: copy.deepcopy(network).",
                RecordingWarning,
                stacklevel=4,
            )


class _KeptTensor:
    """One tensor and what it held."""

    def __init__(self, tensor: torch.Tensor, *, copied: bool, checked: bool) -> None:
        self.tensor, self.trained = tensor, tensor.requires_grad
        self.is_leaf = tensor.is_leaf
        self.gradient = tensor.grad if self.is_leaf else None
        self.alias = tensor.detach()  # the same memory, if the network replaces its .data
        plain = _is_plain(tensor)
        self.copy = self.alias.clone() if copied and plain else None
        self.sum = _sum_of(self.alias) if checked and plain and not copied else None

    def restore(self) -> bool:
        """Put the tensor back; return False if its values changed and are lost."""
        tensor, alias = self.tensor, self.alias
        if self.is_leaf and tensor.requires_grad != self.trained:
            tensor.requires_grad_(self.trained)
        if self.is_leaf and tensor.grad is not self.gradient:
            tensor.grad = self.gradient
        if not _same_memory(tensor, alias):
            tensor.data = alias
        now = alias if alias.layout == torch.strided else tensor.detach()
        if self.copy is not None and not _same_bytes(now, self.copy):
            with torch.no_grad():
                now.copy_(self.copy) if now is alias else tensor.copy_(self.copy)
        return self.sum is None or self.sum == _sum_of(alias)


def _shallow(container: Any) -> Any:
    """Return the entries of a container."""
    return list(container.items()) if isinstance(container, dict) else list(container)


def _refill(container: Any, entries: Any) -> None:
    """Give a container its entries again if it holds others."""
    kept = list(entries.items()) if isinstance(entries, dict) else entries
    now = _shallow(container)
    if len(now) == len(kept) and all(map(_is_same, now, kept)):
        return
    container.clear()
    if isinstance(container, dict | set):
        container.update(kept)
    else:
        container.extend(kept)


def _is_same(one: Any, other: Any) -> bool:
    """Return whether two entries are the same object, or name and object of a dict."""
    pairs = zip(one, other, strict=False) if isinstance(one, tuple) else [(one, other)]
    return one is other or (isinstance(one, tuple) and all(a is b for a, b in pairs))


def _is_plain(tensor: torch.Tensor) -> bool:
    """Return whether a tensor is one of torch's own kinds, with values that can be read."""
    dispatched = type(tensor).__torch_dispatch__ is not torch.Tensor.__torch_dispatch__
    return not (dispatched or tensor.is_quantized or tensor.is_nested or tensor.is_meta)


def _bytes_of(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _same_memory(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Return whether two tensors are the same view of the same memory."""
    if one.layout != torch.strided or other.layout != torch.strided:
        return one.layout == other.layout  # the values decide
    places = [(t.device, t.dtype, t.shape, t.stride(), t.data_ptr()) for t in (one, other)]
    return places[0] == places[1]


def _parts(tensor: torch.Tensor) -> Iterable[torch.Tensor]:
    """Return the bytes of a tensor as integers; those of a sparse one in parts."""
    if tensor.layout == torch.sparse_coo:
        pieces = [tensor._indices(), tensor._values()]
    elif tensor.layout != torch.strided:
        pieces = [tensor.to_dense()]
    else:
        pieces = [tensor]
    flat = [piece.detach().contiguous().reshape(-1) for piece in pieces]
    return [piece.view(BITS.get(piece.element_size(), torch.uint8)) for piece in flat]


def _same_bytes(one: torch.Tensor, other: torch.Tensor) -> bool:
    return all(map(torch.equal, _parts(one), _parts(other)))


def _sum_of(tensor: torch.Tensor) -> int:
    """Return a number that nearly every change of a tensor changes."""
    total = 0
    for part in _parts(tensor):
        total = total * 31 + int(part.sum(dtype=torch.int64))
    return total
