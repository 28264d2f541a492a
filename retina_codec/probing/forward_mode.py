"""Check once that derivatives carried forward are those of the network.

Wrappers and functions of one's own may drop them, and nothing else would tell.

Notation: h layer, v direction, ε a small step.
"""

from typing import Protocol

import torch

from retina_codec.errors import RetinaCodecError
from retina_codec.probing.batches import Batch, map_tensors, tensors_of
from retina_codec.probing.points import Layers

__all__ = ["check_forward_mode"]

STEP = {torch.float32: 1e-3, torch.float64: 1e-5}  # of the direction; other types are too coarse


APART = 0.1  # of the larger derivative: curvature and kinks within the step


class Watchable(Protocol):
    """A network whose layers are seen at a point, without and with its graph."""

    def activations(self, point: Batch) -> Layers: ...

    def run_from(self, point: Batch) -> tuple[torch.Tensor, Layers]: ...


def check_forward_mode(
    function: Watchable, point: Batch, direction: Batch, tangents: Layers
) -> bool:
    """Compare the derivatives of one input with ``(h(x + ε v) − h(x − ε v)) / 2 ε``.

    Where they differ, those of the backward pass decide: a network may pass on other slopes than
    its own on purpose.

    Parameters
    ----------
    function : Watchable
    point, direction : Batch
        x and v.
    tangents : dict of torch.Tensor
        The derivatives of layers along v, ``(b, ...)``.

    Returns
    -------
    bool
        False where there was nothing to compare: no input has a direction.

    Raises
    ------
    RetinaCodecError
        If they are neither.
    """
    lengths = [v.flatten(1).abs().sum(1) for v in tensors_of(direction) if v.is_floating_point()]
    row = int(torch.stack(lengths).sum(0).argmax())
    if not float(sum(length[row] for length in lengths)):
        return False
    here = map_tensors(lambda values: values[row : row + 1], point)
    way = map_tensors(lambda values: values[row : row + 1], direction)
    tangents = {name: values[row : row + 1] for name, values in tangents.items()}
    step = min(STEP.get(v.dtype, 0.0) for v in tensors_of(here) if v.is_floating_point())
    if not step:
        return True

    def at(share: float) -> Layers:
        return function.activations(
            map_tensors(lambda x, v: x + share * v if x.is_floating_point() else x, here, way)
        )

    up, down = at(step), at(-step)
    doubtful: Layers = {}
    for name, tangent in tangents.items():
        slope = (up[name] - down[name]) / (2 * step)
        noise = 32 * torch.finfo(slope.dtype).eps * float(up[name].norm()) / step
        apart = float((slope - tangent).norm())
        if not apart <= APART * max(float(slope.norm()), float(tangent.norm())) + noise:
            doubtful[name] = slope
    if doubtful:
        _compare_backward(function, here, way, tangents, doubtful)
    return True


def _compare_backward(
    function: Watchable, here: Batch, way: Batch, tangents: Layers, slopes: Layers
) -> None:
    """Refuse derivatives that are not those of the backward pass either."""
    leaf = map_tensors(
        lambda v: v.detach().clone().requires_grad_() if v.is_floating_point() else v, here
    )
    _, seen = function.run_from(leaf)
    leaves = [v for v in tensors_of(leaf) if v.is_floating_point()]
    ways = [v for v in tensors_of(way) if v.is_floating_point()]
    for name, slope in slopes.items():
        size = float(slope.norm())
        if not 0 < size < float("inf"):
            continue
        along = slope / size
        pulled: tuple[torch.Tensor | None, ...] = (None,) * len(leaves)
        if seen[name].requires_grad:
            pulled = torch.autograd.grad(
                seen[name], leaves, along, allow_unused=True, retain_graph=True
            )
        backward = sum(
            float((g * v).sum()) for g, v in zip(pulled, ways, strict=True) if g is not None
        )
        forward = float((tangents[name] * along).sum())
        largest = max(abs(backward), abs(forward), size)
        if abs(backward - forward) > APART * largest:
            raise RetinaCodecError(
                f"derivatives carried forward must be those of the network; of layer {name!r} "
                f"along the path they are {forward:.3g}, and {size:.3g} by "
                "differences (a wrapper or a torch.autograd.Function of one's own drops them). "
                "Use IntegratedGradients() with its usual quadrature, or ActGrad(), or give the "
                "module without the wrapper."
            )
