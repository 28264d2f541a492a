"""Words for sites, as users of an adapter say them.

Why this file exists: "blocks" may be a word for a site of every block or the name of a submodule,
and a layer that is named may be a site too. Both are decided here, for adapter.py.
"""

from collections.abc import Mapping, Sequence

from torch import nn

from retina_codec.errors import RetinaCodecError
from retina_codec.networks.structure import SITES, Hook, Site, Structure, find_structure

__all__ = ["known_sites", "known_structure", "sites_of_words", "words_among"]


def known_structure(module: nn.Module) -> Structure | None:
    """Return what repeats in a network; None where nothing does."""
    try:
        return find_structure(module)
    except RetinaCodecError:
        return None


def words_among(
    module: nn.Module, layers: str | Sequence[str] | None, structure: Structure | None
) -> tuple[str, ...]:
    """Return which of the layers asked for are words for sites.

    A word that is also the name of a submodule is a word where blocks are found, else the name.
    """
    chosen = (layers,) if isinstance(layers, str) else layers
    if chosen is None or isinstance(chosen, nn.Module):
        return ()
    words = [word for word in chosen if word in SITES]
    if structure is None and words:
        names = {name for name, _ in module.named_modules(remove_duplicate=False)}
        words = [word for word in words if word not in names]
    return tuple(words)


def sites_of_words(module: nn.Module, words: Sequence[str]) -> dict[str, Site]:
    """Return the sites that words stand for, by the names of their modules.

    Raises
    ------
    RetinaCodecError
        If no blocks are found, none has such a site, or two words mean both sides of one module.
    """
    found: dict[str, Site] = {}
    if not words:
        return found
    structure = find_structure(module)
    for word in words:
        for site in structure.sites(word):
            other = found.setdefault(site.layer, site)
            if other.hook != site.hook:
                raise RetinaCodecError(
                    f"{other.site!r} and {word!r} are the two sides of the same module "
                    f"{site.layer!r} in this network; explain one at a time."
                )
    return found


def known_sites(structure: Structure | None, hooks: Mapping[str, Hook]) -> dict[str, Site]:
    """Return what a structure tells of layers that were named and lie in its blocks."""
    if structure is None:
        return {}
    known = {name: structure.site_of(name, hook) for name, hook in hooks.items()}
    return {name: site for name, site in known.items() if site is not None}
