"""The heads of torch's own attention, seen before the projection that mixes them.

Why this file exists: `torch.nn.MultiheadAttention` gives the weights of its output projection to
one function and never calls that projection as a module, so no hook on it can see its input. Here
that one function is called with the identity in place of the projection, which gives the heads
side by side, and the projection follows as a step of its own: the same values up to rounding.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from retina_codec.errors import RetinaCodecError

__all__ = ["HeadsInView", "fused_projections"]

Meet = Callable[[str, torch.Tensor], torch.Tensor | None]

FUSED = functional.multi_head_attention_forward
SIGNATURE = inspect.signature(FUSED)


class HeadsInView(TorchFunctionMode):
    """Call ``meet(layer, heads)`` for the fused attentions named; what it returns goes on.

    Parameters
    ----------
    projections : mapping of str to torch.nn.Module
        Output projections by the name of the layer.
    meet : callable
        Gets ``(b, token, heads × dimensions)``, heads side by side, whether the attention takes
        the batch first or not.
    """

    def __init__(self, projections: Mapping[str, nn.Module], meet: Meet) -> None:
        super().__init__()
        self.names = {id(module.weight): name for name, module in projections.items()}
        self.meet = meet

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Split the fused step where it is one of those wanted."""
        del types
        kwargs = kwargs or {}
        if function is not FUSED:
            return function(*args, **kwargs)
        given = SIGNATURE.bind(*args, **kwargs).arguments
        weight, bias = given["out_proj_weight"], given["out_proj_bias"]
        name = self.names.get(id(weight))
        if name is None:
            return function(*args, **kwargs)
        if given["query"].ndim != 3:
            raise RetinaCodecError(
                f"the attention of layer {name!r} must be given a batch (batch, token, dimension); "
                f"got {tuple(given['query'].shape)}."
            )
        one = torch.eye(weight.shape[1], dtype=weight.dtype, device=weight.device)
        given |= {"out_proj_weight": one, "out_proj_bias": None}
        heads, shares = function(**given)  # (token, b, heads × dimensions)
        changed = self.meet(name, heads.transpose(0, 1))
        heads = heads if changed is None else changed.transpose(0, 1)
        return functional.linear(heads, weight, bias), shares


def fused_projections(
    modules: Mapping[str, nn.Module], layers: Iterable[str]
) -> dict[str, nn.Module]:
    """Return those layers that are output projections of torch's own attention, by name."""
    found = {}
    for layer in layers:
        above, _, last = layer.rpartition(".")
        if last == "out_proj" and isinstance(modules.get(above), nn.MultiheadAttention):
            found[layer] = modules[layer]
    return found
