"""Run a network again and again from one layer upward; what lies below is computed once.

Calls that have ended when the layer is reached are found in one pass and not made again.

Notation: b inputs, s repeats of them; row r of a repeated batch is input r mod b.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn

from retina_codec.errors import RetinaCodecError
from retina_codec.probing.batches import Batch, batch_length, map_tensors
from retina_codec.probing.hooks import HookedFunction

__all__ = ["FromLayer", "Kept"]

Forward = Callable[..., Any]


Change = Callable[[Tensor], Tensor]


# Relative to the largest output: rounding differs between batch sizes.
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}


@dataclass(frozen=True)
class _Call:
    """An outermost call of a module that has ended when the layer is reached."""

    module: nn.Module
    grows: tuple[bool, ...]  # for each tensor it gives: whether its first axis counts inputs
    needed: bool = True  # whether anything but skipped calls uses it

    def is_idle(self, place: int, values: Tensor) -> bool:
        """Return whether one of its output tensors need not be kept."""
        return not self.needed and self.grows[place] and values.is_floating_point()


@dataclass(frozen=True)
class Kept:
    """Some inputs and the outcomes of the network below the layer."""

    point: Batch
    outputs: Tensor
    """(b, n), of the network as it is."""
    outcomes: tuple[Any, ...]  # in the order of the calls; () if the network cannot be resumed


class FromLayer:
    """A network that starts at one of its layers.

    Parameters
    ----------
    function : HookedFunction
        The network, in evaluation mode.
    layer : str
        One of ``function.layers``.

    Attributes
    ----------
    resumes : bool
        Whether what lies below the layer is skipped. False where the kept values do not give the
        outputs of a whole run, or fail: then every run is a whole run. Known after `keep`.

    Raises
    ------
    RetinaCodecError
        If the network has no such layer.
    """

    def __init__(self, function: HookedFunction, layer: str) -> None:
        if layer not in function.survey:
            raise RetinaCodecError(
                f"layer must be one of {', '.join(function.survey)}; got {layer!r}."
            )
        self.function, self.layer = function, layer
        self.resumes = True
        self._calls: tuple[_Call, ...] | None = None

    def keep(self, point: Batch) -> Kept:
        """Run the network as it is; keep what `run` needs."""
        if self._calls is None:
            self._calls = self._plan(point)
        kept = self._record(point, self._calls)
        if self.resumes and not self._same(self._resumed(kept, _unchanged, 1), kept.outputs):
            kept = Kept(point, kept.outputs, ())
        return kept

    def run(self, kept: Kept, change: Change, repeats: int = 1) -> Tensor:
        """Run from the layer upward with changed values there.

        Parameters
        ----------
        kept : Kept
            From `keep`.
        change : callable
            The layer's values (s·b, ...) to others of the same shape, in a new tensor.
        repeats : int
            s, how often the inputs are repeated, one repeat after the other.

        Returns
        -------
        Tensor (s·b, n)
        """
        outputs = self._resumed(kept, change, repeats) if kept.outcomes else None
        return self.run_whole(kept, change, repeats) if outputs is None else outputs

    def run_whole(self, kept: Kept, change: Change, repeats: int = 1) -> Tensor:
        """Do the same by running the whole network: where `run` cannot skip, and to check it."""
        point = map_tensors(lambda values: _repeated(values, repeats), kept.point)
        with torch.no_grad(), self.function.watched(self._seeing(change)):
            return self.function.network.call(point)

    def check(self, kept: Kept, change: Change, repeats: int = 1) -> bool:
        """Compare `run` with `run_whole`; where they differ, nothing is skipped from here on."""
        if self.resumes and kept.outcomes:
            # First, so that a whole run cannot leave behind what skipped modules would.
            resumed = self._resumed(kept, change, repeats)
            self.resumes = self._same(resumed, self.run_whole(kept, change, repeats))
        return self.resumes

    def _seeing(self, change: Change) -> Callable[[str, Tensor], Tensor | None]:
        return lambda name, values: change(values) if name == self.layer else None

    def _plan(self, point: Batch) -> tuple[_Call, ...]:
        """Find the calls below the layer from one and from two inputs, and which are needed."""
        if self.layer not in self.function.network.layers:  # name@call: calls could not be counted
            self.resumes = False
            return ()
        one = map_tensors(lambda values: values[:1], point)
        two = map_tensors(lambda values: _repeated(values, 2), one)
        calls, shapes = self._calls_before(one)
        again, wider = self._calls_before(two)
        same = [len(a) == len(b) for a, b in zip(shapes, wider, strict=False)]
        if not calls or calls != again or not all(same):
            self.resumes = False
            return ()
        found = [
            _Call(
                module,
                tuple(
                    len(a) > 0 and (a[0], b[0]) == (1, 2) for a, b in zip(small, large, strict=True)
                ),
            )
            for module, small, large in zip(calls, shapes, wider, strict=True)
        ]
        return self._without_idle(one, found)

    def _calls_before(self, point: Batch) -> tuple[list[nn.Module], list[list[tuple[int, ...]]]]:
        """Return the calls that have ended when the layer is reached, and their output shapes."""
        frames: list[list[tuple[nn.Module, list[tuple[int, ...]]]]] = [[]]
        found: list[tuple[nn.Module, list[tuple[int, ...]]]] = []

        def noting(module: nn.Module, forward: Forward) -> Forward:
            @wraps(forward)
            def noted(*inputs: Any, **named: Any) -> Any:
                frames.append([])
                try:
                    outcome = forward(*inputs, **named)
                finally:
                    frames.pop()
                frames[-1].append((module, [tuple(t.shape) for t in _tensors(outcome)]))
                return outcome

            return noted

        def see(name: str, values: Tensor) -> None:
            del values
            if name == self.layer:
                found[:] = [call for frame in frames for call in frame]

        modules = list(self.function.network.module.modules())
        instead = {module: noting(module, module.forward) for module in modules}
        with torch.no_grad(), _forwards(instead), self.function.watched(see):
            self.function.network.call(point)
        return [module for module, _ in found], [shapes for _, shapes in found]

    def _without_idle(self, point: Batch, calls: list[_Call]) -> tuple[_Call, ...]:
        """Mark calls whose outcome only skipped calls use: NaN in its place changes nothing."""
        kept = self._record(point, tuple(calls))

        def works(some: list[_Call]) -> bool:
            outputs = self._resumed(kept, _unchanged, 1, tuple(some))
            return self._same(outputs, kept.outputs)

        idle = [_Call(call.module, call.grows, needed=False) for call in calls]
        if works([*idle[:-1], calls[-1]]):
            return (*idle[:-1], calls[-1])
        found = list(calls)
        for number, call in enumerate(idle):
            trial = [*found[:number], call, *found[number + 1 :]]
            if works(trial):
                found = trial
        return tuple(found)

    def _record(self, point: Batch, calls: tuple[_Call, ...]) -> Kept:
        """Run the network and copy the outcomes of the calls, which may be overwritten later."""
        outcomes: dict[int, Any] = {}

        def recording(number: int, call: _Call, forward: Forward) -> Forward:
            @wraps(forward)
            def recorded(*inputs: Any, **named: Any) -> Any:
                outcome = forward(*inputs, **named)
                outcomes[number] = _map_outcome(
                    lambda place, t: t[:0] if call.is_idle(place, t) else t.clone(), outcome
                )
                return outcome

            return recorded

        with torch.no_grad(), _replaced(calls, recording):
            outputs = self.function.network.call(point)
        whole = self.resumes and len(outcomes) == len(calls)
        return Kept(point, outputs, tuple(outcomes[n] for n in range(len(calls))) if whole else ())

    def _resumed(
        self, kept: Kept, change: Change, repeats: int, calls: tuple[_Call, ...] | None = None
    ) -> Tensor | None:
        """Run with the outcomes in place of their calls; None where that fails."""
        calls = (self._calls or ()) if calls is None else calls
        rows = repeats * batch_length(kept.point)

        def giving(number: int, call: _Call, forward: Forward) -> Forward:
            def one(place: int, values: Tensor) -> Tensor:
                if call.is_idle(place, values):
                    return values.new_full((), torch.nan).expand(rows, *values.shape[1:])
                return _repeated(values, repeats) if call.grows[place] else values.clone()

            @wraps(forward)
            def given(*inputs: Any, **named: Any) -> Any:
                del inputs, named
                return _map_outcome(one, kept.outcomes[number])

            return given

        point = map_tensors(lambda values: _repeated(values, repeats), kept.point)
        try:
            with torch.no_grad(), _replaced(calls, giving):
                with self.function.watched(self._seeing(change)):
                    return self.function.network.call(point)
        except Exception:  # a whole run follows and raises it again if it is the network's
            return None

    def _same(self, outputs: Tensor | None, expected: Tensor) -> bool:
        if outputs is None or outputs.shape != expected.shape:
            return False
        share = TOLERANCE.get(expected.dtype, 2e-2)
        largest = expected.abs().nan_to_num(0, 0, 0).amax() if expected.numel() else 0
        return torch.allclose(
            outputs, expected, rtol=share, atol=float(share * largest), equal_nan=True
        )


def _unchanged(values: Tensor) -> Tensor:
    return values


def _repeated(values: Tensor, repeats: int) -> Tensor:
    """Return a new tensor with the inputs repeated, (s·b, ...)."""
    if repeats == 1:
        return values.clone()
    return values.repeat(repeats, *(1,) * (values.ndim - 1))


@contextmanager
def _forwards(instead: Mapping[nn.Module, Forward]) -> Iterator[None]:
    """Replace the ``forward`` of modules for a while; restore it also after an error."""
    before = {module: module.__dict__.get("forward") for module in instead}
    try:
        for module, forward in instead.items():
            module.__dict__["forward"] = forward
        yield
    finally:
        for module, own in before.items():
            module.__dict__.pop("forward", None)
            if own is not None:
                module.__dict__["forward"] = own


@contextmanager
def _replaced(
    calls: tuple[_Call, ...], make: Callable[[int, _Call, Forward], Forward]
) -> Iterator[None]:
    """Put ``make(number, call, forward)`` in place of each call; later calls are not changed.

    The same module may also be called inside one of the calls: that is not one of them.
    """
    numbers: dict[nn.Module, list[int]] = {}
    inside: list[int] = []
    for number, call in enumerate(calls):
        numbers.setdefault(call.module, []).append(number)

    def turn(module: nn.Module, waiting: list[int]) -> Forward:
        plain = module.forward

        @wraps(plain)
        def forward(*inputs: Any, **named: Any) -> Any:
            if inside or not waiting:
                return plain(*inputs, **named)
            inside.append(waiting.pop(0))
            try:
                number = inside[0]
                return make(number, calls[number], plain)(*inputs, **named)
            finally:
                inside.clear()

        return forward

    with _forwards({module: turn(module, waiting) for module, waiting in numbers.items()}):
        yield


def _tensors(outcome: Any) -> list[Tensor]:
    """List the tensors in the output of a module, in a fixed order."""
    found: list[Tensor] = []

    def note(place: int, values: Tensor) -> Tensor:
        del place
        found.append(values)
        return values

    _map_outcome(note, outcome)
    return found


def _map_outcome(change: Callable[[int, Tensor], Tensor], outcome: Any) -> Any:
    """Apply ``change(place, tensor)`` to all tensors in tuples, lists and mappings."""
    place = -1

    def visit(part: Any) -> Any:
        nonlocal place
        if isinstance(part, Tensor):
            place += 1
            return change(place, part)
        if isinstance(part, Mapping):
            copied = part.copy() if hasattr(part, "copy") else dict(part)
            for key, value in part.items():
                copied[key] = visit(value)
            return copied
        if isinstance(part, tuple | list):
            parts = [visit(value) for value in part]
            return type(part)(*parts) if hasattr(part, "_fields") else type(part)(parts)
        return part

    return visit(outcome)
