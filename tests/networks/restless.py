"""Networks that change something of themselves whenever they are run, and all that can be seen."""

from collections import deque
from typing import Any

import numpy as np
import torch
from torch import nn


class Crash(Exception):
    """What a network, target or hook raises in the middle."""


class Alarm:
    """Counts runs where nothing can be put back (slots), and raises `Crash` in one of them."""

    __slots__ = ("crash_at", "runs")

    def __init__(self) -> None:
        self.runs, self.crash_at = 0, 0

    def tick(self) -> None:
        """Count a run."""
        self.runs += 1
        if self.runs == self.crash_at:
            raise Crash


def inplace(part: nn.Module) -> None:
    part.level += 1


def through_data(part: nn.Module) -> None:
    part.level.data.mul_(0.5).add_(1)


def replaced(part: nn.Module) -> None:
    part.level = part.level + 1


def hidden_buffer(part: nn.Module) -> None:
    part.cache.fill_(float(part.cache.sum()) + 1)


def new_attribute(part: nn.Module) -> None:
    part.latest = torch.zeros(3)


def new_buffer(part: nn.Module) -> None:
    part.register_buffer("mask", torch.ones(2))


def lost_attribute(part: nn.Module) -> None:
    part.__dict__.pop("number", None)


def number(part: nn.Module) -> None:
    part.number = getattr(part, "number", 0) + 1


def entries(part: nn.Module) -> None:
    part.found.append(1)
    part.nested["deep"].append(2)
    part.nested[len(part.nested)] = 3
    part.names.add(len(part.names))
    part.queue.appendleft(4)


def an_object(part: nn.Module) -> None:
    part.memory.count += 1
    part.memory.trace.append(part.memory.count)
    part.memory.mean.add_(1)
    part.memory.latest = part.memory.count


def array(part: nn.Module) -> None:
    part.array += 1


def dice(part: nn.Module) -> None:
    torch.rand(1, generator=part.dice)


def bounded_weight(part: nn.Module) -> None:
    """As EEGNet bounds the norms of its filters."""
    part.linear.weight.data = torch.renorm(part.linear.weight.data, 2, 0, maxnorm=0.25)


def clamped_weight(part: nn.Module) -> None:
    with torch.no_grad():
        part.linear.weight.clamp_(-0.125, 0.125)


def plain_tensor(part: nn.Module) -> None:
    part.plain.add_(1)


def tensor_in_list(part: nn.Module) -> None:
    part.tensors[0].add_(1)


def module_in_list(part: nn.Module) -> None:
    part.hidden[0].running_mean.add_(1)
    part.hidden[0].training = not part.hidden[0].training


def frozen(part: nn.Module) -> None:
    part.linear.bias.requires_grad_(not part.linear.bias.requires_grad)


def switched(part: nn.Module) -> None:
    part.norm.training = False
    part.norm.momentum = 0.5


def own_hook(part: nn.Module) -> None:
    part.linear.register_forward_hook(lambda *_: None)


MISCHIEF = {
    kind.__name__: kind
    for kind in (
        inplace, through_data, replaced, hidden_buffer, new_attribute, new_buffer, lost_attribute,
        number, entries, an_object, array, dice, bounded_weight, clamped_weight, plain_tensor,
        tensor_in_list, module_in_list, frozen, switched, own_hook,
    )
}  # fmt: skip


class Memory:
    """State in an object that is no module."""

    def __init__(self) -> None:
        self.count, self.trace, self.mean = 0, [0], torch.zeros(2)


class Part(nn.Module):
    """A layer with everything that can be changed; its output depends on none of it."""

    def __init__(self, width: int, kinds: tuple[str, ...]) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(width, width), nn.BatchNorm1d(width)
        self.register_buffer("level", torch.zeros(3))
        self.register_buffer("cache", torch.zeros(2), persistent=False)
        self.kinds, self.number = kinds, 0
        self.found: list[int] = []
        self.nested: dict[Any, Any] = {"deep": [1, [2]]}
        self.names, self.queue = {-1}, deque([1], maxlen=5)
        self.array, self.dice = np.zeros(3), torch.Generator().manual_seed(4)
        self.plain, self.tensors = torch.zeros(2), [torch.zeros(2)]
        self.hidden, self.memory = [nn.BatchNorm1d(2)], Memory()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for kind in self.kinds:
            MISCHIEF[kind](self)
        return torch.tanh(self.norm(self.linear(x)))


class Restless(nn.Module):
    """Parts in a row; an `Alarm` counts the runs."""

    def __init__(self, kinds: tuple[tuple[str, ...], ...], width: int = 4, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.alarm = Alarm()
        self.parts = nn.ModuleList(Part(width, some) for some in kinds)
        self.read = nn.Linear(width, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for part in self.parts:
            x = part(x)
        self.alarm.tick()
        return self.read(x)


def _seen(value: Any) -> Any:
    """Describe one attribute by its bytes, entries or name."""
    if isinstance(value, torch.Tensor):
        gradient = None if value.grad is None else (id(value.grad), _seen(value.grad))
        raw = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        kind = (value.dtype, tuple(value.shape), value.stride(), value.requires_grad)
        return (id(value), value.data_ptr(), *kind, raw, gradient)
    if isinstance(value, nn.Module):
        return (type(value), {name: _seen(item) for name, item in value.__dict__.items()})
    if isinstance(value, Memory):
        return _seen(vars(value))
    if isinstance(value, dict):
        return [(key, _seen(item)) for key, item in value.items()]
    if isinstance(value, list | tuple | deque):
        return [_seen(item) for item in value]
    if isinstance(value, np.ndarray):
        return (value.dtype, value.shape, value.tobytes())
    if isinstance(value, torch.Generator):
        return value.get_state().numpy().tobytes()
    return id(value) if callable(value) or isinstance(value, Alarm) else repr(value)


def seen_of(network: nn.Module) -> Any:
    """Everything of a network that a caller can see, down to the bytes."""
    return _seen(network)
