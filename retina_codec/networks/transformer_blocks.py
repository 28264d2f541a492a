"""Find attention and MLP within a transformer block from its modules."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

__all__ = ["Parts", "features", "find_parts", "has_attention", "is_attention"]

HEADS = ("num_heads", "num_attention_heads", "n_head", "n_heads", "nhead", "heads")

HEAD_SIZES = (
    "head_dim",
    "attention_head_size",
    "dim_head",
    "head_size",
    "d_kv",
    "key_value_proj_dim",
)

MLP_WORDS = ("mlp", "ff", "feed")


@dataclass(frozen=True)
class Parts:
    """Names within a block; None where a part was not found, and why."""

    attention: str | None  # the module that ends with the output projection
    projection: str | None  # the attention's output projection
    mlp: str | None  # the module that ends with the MLP's last linear layer
    last_linear: str | None
    heads: int | None
    why_no_attention: str = "the attention has no output projection of its own"
    why_no_mlp: str = "there is no MLP of two linear layers beside the attention"


def features(module: nn.Module) -> tuple[int, int] | None:
    """Return input and output features of a convolution or linear layer; None for others."""
    if isinstance(module, nn.modules.conv._ConvNd):
        return module.in_channels, module.out_channels
    taken, given = getattr(module, "in_features", None), getattr(module, "out_features", None)
    if isinstance(taken, int) and isinstance(given, int):  # also quantised linear layers
        return taken, given
    if type(module).__name__ == "Conv1D" and isinstance(getattr(module, "nf", None), int):
        return int(module.weight.shape[0]), int(module.nf)  # type: ignore[arg-type,index]
    return None


def linear_layers(module: nn.Module, prefix: str = "") -> list[tuple[str, tuple[int, int]]]:
    """Return names and sizes of linear layers, in the order in which they were defined."""
    found = []
    for name, inner in module.named_modules(prefix=prefix):
        size = features(inner)
        if size is not None and not isinstance(inner, nn.modules.conv._ConvNd):
            found.append((name, size))
    return found


def is_attention(name: str, module: nn.Module) -> bool:
    """Return whether a module is an attention, by its kind or by what it is called."""
    if isinstance(module, nn.MultiheadAttention):
        return True
    called = (name + " " + type(module).__name__).lower()
    if "attention" not in called and "attn" not in called:
        return False
    return _projection(linear_layers(module)) is not None


def has_attention(module: nn.Module) -> bool:
    """Return whether a module has an attention among the modules within it."""
    return next(_attentions(module), None) is not None


def find_parts(block: nn.Module) -> Parts:
    """Find attention and MLP within a block; of several attentions the first is taken."""
    name, attention = next(_attentions(block))
    if isinstance(attention, nn.MultiheadAttention):
        width, ends_with, projection = attention.embed_dim, name, f"{name}.out_proj"
        heads: int | None = attention.num_heads
    else:
        found = _projection(linear_layers(attention, name))
        projection, (joined, width) = found or ("", (1, 1))  # is_attention() has found one
        ends_with = name if _ends_with(attention, name, projection) else projection
        heads = _heads(attention, joined)
    mlp, last, why = _mlp(block, width)
    reasons = {"why_no_mlp": why} if why else {}
    return Parts(ends_with, projection, mlp, last, heads, **reasons)


def _attentions(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the outermost attentions within a module, in the order in which they were defined."""
    found: list[str] = []
    for name, inner in module.named_modules():
        if not name or any(name.startswith(f"{outer}.") for outer in found):
            continue
        if is_attention(name.rpartition(".")[2], inner):
            found.append(name)
            yield name, inner


def _projection(layers: list[tuple[str, tuple[int, int]]]) -> tuple[str, tuple[int, int]] | None:
    """Return the last linear layer that leads back to the width of the stream.

    The first layer takes that width, or the largest one does, where the first is one of positions.
    """
    if len(layers) < 2:
        return None
    largest = max(layers, key=lambda layer: layer[1][0] * layer[1][1])
    likely = {layers[0][1][0], largest[1][0]}
    for widths in (likely, {taken for _, (taken, _) in layers}):
        for name, size in reversed(layers[1:]):
            if size[1] in widths:
                return name, size
    return None


def _ends_with(module: nn.Module, name: str, last: str) -> bool:
    """Return whether a module has no weights or norms of its own after its last linear layer."""
    after = False
    for inner_name, inner in module.named_modules(prefix=name):
        own = any(True for _ in inner.parameters(recurse=False))
        if after and own and not inner_name.startswith(f"{last}.") and _is_norm(inner):
            return False
        after = after or inner_name == last
    return True


def _is_norm(module: nn.Module) -> bool:
    return "norm" in type(module).__name__.lower()


def _heads(attention: nn.Module, joined: int) -> int | None:
    """Return the number of heads that share ``joined`` features, if the modules tell it."""
    holders: list[object] = [*attention.modules()]
    holders += [m.config for m in attention.modules() if hasattr(m, "config")]
    for holder in holders:
        for word in HEADS:
            count = getattr(holder, word, None)
            if isinstance(count, int) and count > 0 and joined % count == 0:
                return count
    for holder in holders:
        for word in HEAD_SIZES:
            size = getattr(holder, word, None)
            if isinstance(size, int) and size > 0 and joined % size == 0:
                return joined // size
    return None


def _mlp(block: nn.Module, width: int) -> tuple[str | None, str | None, str]:
    """Return the module that ends with the MLP's last linear layer, that layer, and why not."""
    beside = list(_beside_attention(block, ""))
    sized = [(name, linear_layers(module, name)) for name, module in beside]
    whole = [(name, layers) for name, layers in sized if len(layers) >= 2]
    called = [o for o in whole if any(word in o[0].lower() for word in MLP_WORDS)]
    name, layers = (called or whole or [("", [one for _, some in sized for one in some])])[-1]
    leading_back = [one for one, (_, given) in layers[1:] if given == width]
    if not leading_back:
        return None, None, ""
    last = leading_back[-1]
    if _is_one_of_many(block, last):
        return None, None, "its MLP is a mixture of experts, each of which sees some tokens only"
    module = block.get_submodule(name)
    return (name if name and _ends_with(module, name, last) else last), last, ""


def _beside_attention(module: nn.Module, prefix: str) -> Iterator[tuple[str, nn.Module]]:
    """Yield the largest modules within a block that hold no attention."""
    for child, inner in module.named_children():
        name = f"{prefix}{child}"
        if is_attention(child, inner):
            continue
        if has_attention(inner):
            yield from _beside_attention(inner, f"{name}.")
        else:
            yield name, inner


def _is_one_of_many(block: nn.Module, name: str) -> bool:
    """Return whether a layer lies in one of several equal modules with two linear layers each."""
    parts = name.split(".")
    for end in range(1, len(parts)):
        parent = block.get_submodule(".".join(parts[:end]))
        if isinstance(parent, nn.ModuleList) and end < len(parts):
            kind = type(parent[int(parts[end])])
            if sum(type(m) is kind and len(linear_layers(m)) >= 2 for m in parent) > 1:
                return True
    return False
