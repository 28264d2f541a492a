"""Find the repeated blocks of a network and the sites within them, from its modules alone."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from torch import nn

from retina_codec.errors import RetinaCodecError
from retina_codec.networks.transformer_blocks import Parts, features, find_parts, has_attention

__all__ = ["SITES", "Block", "Site", "Structure", "find_structure"]

Hook = Literal["output", "input"]

# words that name the same site in every block
SITES = ("blocks", "mlp", "attention", "post_attention", "post_mlp")
ROWS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)

LEADING = re.compile(
    r"(^|_)(cls|class|dist|distillation|reg|register|storage)_(token|tokens|embedding)$"
)


@dataclass(frozen=True)
class Site:
    """One place in a block: its module, the side of it, and how its values are laid out."""

    layer: str  # name of the submodule
    site: str  # one of SITES
    hook: Hook
    block: int  # number of the block, from the input
    channel_axis: int | None = None  # None: told by the pass
    heads: int | None = None  # of the attention of this block
    leading_tokens: int = 0  # class token and registers, before the patches


@dataclass(frozen=True)
class Block:
    """One of the repeated modules."""

    name: str
    module: nn.Module
    parts: Parts | None = None  # attention and MLP, in a transformer
    leading_tokens: int = 0


@dataclass(frozen=True)
class Structure:
    """The repeated blocks of a network."""

    family: str
    blocks: tuple[Block, ...]
    leading: tuple[str, ...] = field(default=())  # parameters that are leading tokens

    def sites(self, word: str) -> tuple[Site, ...]:
        """Return the sites that one of `SITES` names, in the order of the blocks.

        - ``"blocks"``: what a block puts out, after the merge into the residual stream.
        - ``"mlp"``: MLP hidden units after the nonlinearity (and the gate, where there is one): the
          *input* of the MLP's last linear layer.
        - ``"attention"``: heads side by side, before the output projection: its *input*.
        - ``"post_attention"``: what the attention adds to the residual stream: the *output* of the
          module that ends with the output projection, before the norm, scale or sum that the block
          applies to it (a module that adds the stream itself, as BLOOM's, gives the sum).
        - ``"post_mlp"``: the same for the MLP and its last linear layer.
        """
        if word not in SITES:
            raise RetinaCodecError(f"a site is one of {', '.join(SITES)}; got {word!r}.")
        found, reasons = [], set()
        for number, block in enumerate(self.blocks):
            site = _site(block, number, word)
            if isinstance(site, Site):
                found.append(site)
            else:
                reasons.add(site)
        if not found:
            kinds = sorted({type(block.module).__name__ for block in self.blocks})
            have = [w for w in SITES if any(isinstance(_site(b, 0, w), Site) for b in self.blocks)]
            raise RetinaCodecError(
                f"no block of this network has the site {word!r}: {'; '.join(sorted(reasons))}. "
                f"Its {len(self.blocks)} blocks ({', '.join(kinds)}) have {', '.join(have)}. "
                "Name layers by module instead."
            )
        return tuple(found)

    def site_of(self, layer: str, hook: Hook) -> Site | None:
        """Return the site of a named layer: its block, heads and leading tokens."""
        for number, block in enumerate(self.blocks):
            if layer != block.name and not layer.startswith(f"{block.name}."):
                continue
            for word in SITES:
                site = _site(block, number, word)
                if isinstance(site, Site) and (site.layer, site.hook) == (layer, hook):
                    return site
            return Site(layer, "inside", hook, number, leading_tokens=block.leading_tokens)
        return None


def find_structure(module: nn.Module) -> Structure:
    """Find the blocks of a network, which is neither run nor changed.

    Looked for, in this order: (1) modules that stand in a row (`Sequential`, `ModuleList`,
    `ModuleDict`, or as neighbours under one parent) with others of their class and hold an
    attention: the innermost such modules are the blocks of a transformer; modules in a row with at
    least two convolutions or linear layers: the blocks of a residual or convolutional network;
    (2) modules in a row with one convolution each; (3) a convolution and the nonlinearity after it
    in a `Sequential` (VGG).
    """
    rows = list(_rows(module))
    blocks = _repeated(rows)
    family = "repeated blocks"
    if not blocks:
        blocks = [Block(name, m) for name, m in rows if len(_weighted(m)) == 1 and _convolves(m)]
        family = "convolutions in a row"
    if not blocks:
        blocks = [Block(name, m) for name, m in _stages(module)]
        family = "convolutions and nonlinearities"
    if not blocks:
        names = [name for name, _ in module.named_modules() if name]
        more = f" and {len(names) - 50} more" if len(names) > 50 else ""
        raise RetinaCodecError(
            "no repeated structure was found in this network: neither modules of one class in a "
            "row (Sequential, ModuleList, ModuleDict) with an attention or with two convolutions "
            "or linear layers each, nor convolutions followed by a nonlinearity in a Sequential. "
            f"Name layers; the modules are: {', '.join(names[:50])}{more}."
        )
    if any(block.parts for block in blocks):
        family = "language model" if _speaks(module) else "transformer"
    order = {name: place for place, (name, _) in enumerate(module.named_modules())}
    blocks.sort(key=lambda block: order[block.name])
    counts, leading = _leading_tokens(module, [block.name for block in blocks])
    known = (Block(b.name, b.module, b.parts, counts.get(b.name, 0)) for b in blocks)
    return Structure(family, tuple(known), leading)


def _site(block: Block, number: int, word: str) -> Site | str:
    """Return one site of a block, or why there is none."""
    parts, lead = block.parts, block.leading_tokens
    heads = parts.heads if parts else None
    if word == "blocks":
        return Site(block.name, word, "output", number, None, heads, lead)
    if parts is None:
        return "there is no attention in its blocks"
    name = {
        "mlp": parts.last_linear,
        "attention": parts.projection,
        "post_attention": parts.attention,
        "post_mlp": parts.mlp,
    }[word]
    if name is None:
        return parts.why_no_mlp if "mlp" in word else parts.why_no_attention
    hook: Hook = "input" if word in ("mlp", "attention") else "output"
    return Site(f"{block.name}.{name}", word, hook, number, -1, heads, lead)


def _rows(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield modules that stand in a row with others of their class, or alone in a row."""
    seen: set[int] = set()
    elements: list[str] = []  # within one of these, neighbours under one parent are parts of it
    for name, parent in module.named_modules():
        row = isinstance(parent, ROWS)
        if not row and any(name == e or name.startswith(f"{e}.") for e in elements):
            continue
        children = [(n, m) for n, m in parent.named_children() if _may_be_block(m)]
        for child, found in children:
            same = sum(type(other) is type(found) for _, other in children)
            if same < 2 and not (row and len(children) == len(list(parent.children()))):
                continue
            if same < 2 and len(children) > 1:
                continue
            if id(found) not in seen:
                seen.add(id(found))
                whole = f"{name}.{child}" if name else child
                if row:
                    elements.append(whole)
                yield whole, found


def _may_be_block(module: nn.Module) -> bool:
    """Return whether a module can be an element of a row: not one of torch's, and with weights."""
    if type(module).__module__.startswith("torch.nn.") and not isinstance(
        module, nn.TransformerEncoderLayer | nn.TransformerDecoderLayer
    ):
        return False
    return bool(_weighted(module))


def _repeated(rows: list[tuple[str, nn.Module]]) -> list[Block]:
    """Return the innermost elements with an attention, and those with two weighted layers."""
    attending = [(n, m) for n, m in rows if has_attention(m)]
    attending = [one for one in attending if not _holds_any(one, attending)]
    names = [name for name, _ in attending]
    others = [
        (n, m)
        for n, m in rows
        if len(_weighted(m)) >= 2
        and not has_attention(m)
        and not any(n.startswith(f"{name}.") for name in names)
    ]
    others = [one for one in others if not _holds_any(one, others)]
    if attending:  # a tower of another kind beside transformer blocks counts if it convolves
        others = [(n, m) for n, m in others if _convolves(m)]
    found = [Block(name, m, find_parts(m)) for name, m in attending]
    return found + [Block(name, m) for name, m in others]


def _holds_any(outer: tuple[str, nn.Module], inner: list[tuple[str, nn.Module]]) -> bool:
    return any(name.startswith(f"{outer[0]}.") for name, _ in inner)


def _weighted(module: nn.Module) -> list[nn.Module]:
    """Return convolutions and linear layers within a module, itself included."""
    return [m for m in module.modules() if features(m) is not None]


def _convolves(module: nn.Module) -> bool:
    return any(isinstance(m, nn.modules.conv._ConvNd) for m in module.modules())


def _stages(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the nonlinearity after each convolution of a `Sequential`; a norm may stand between."""
    for name, parent in module.named_modules():
        if not isinstance(parent, nn.Sequential):
            continue
        after_convolution = False
        for child, found in parent.named_children():
            if isinstance(found, nn.modules.conv._ConvNd):
                after_convolution = True
            elif after_convolution and _is_nonlinearity(found):
                yield (f"{name}.{child}" if name else child), found
                after_convolution = False
            elif not isinstance(found, nn.modules.batchnorm._NormBase | nn.GroupNorm):
                after_convolution = False


def _is_nonlinearity(module: nn.Module) -> bool:
    return type(module).__module__ == "torch.nn.modules.activation" and not list(module.children())


def _speaks(module: nn.Module) -> bool:
    """Return whether a network has as many outputs as its largest embedding has entries."""
    words = [m.num_embeddings for m in module.modules() if isinstance(m, nn.Embedding)]
    linear = [m for m in module.modules() if isinstance(m, nn.Linear)]
    return bool(linear) and bool(words) and linear[-1].out_features == max(words)


def _leading_tokens(module: nn.Module, blocks: list[str]) -> tuple[dict[str, int], tuple[str, ...]]:
    """Count learned tokens before the patches, for the blocks beneath the module that has them."""
    counts: dict[str, int] = {}
    found = []
    for name, values in module.named_parameters():
        owner, _, last = name.rpartition(".")
        if not LEADING.search(last) or values.ndim not in (1, 3):
            continue
        beneath = [b for b in blocks if not owner or b.startswith(f"{owner}.")]
        if not beneath:
            above = owner.rpartition(".")[0]
            beneath = [b for b in blocks if not above or b.startswith(f"{above}.")]
        for block in beneath:
            counts[block] = counts.get(block, 0) + (values.shape[1] if values.ndim == 3 else 1)
        found.append(name)
    return counts, tuple(found)
