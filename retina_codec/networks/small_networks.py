"""The small networks that the toolkit ships, by kind, from and to folders.

Why this file exists: contributions of image models can be tried on any machine in a minute, on a
residual network and on a vision transformer, which stand in files of their own. How a folder is
checked is told by checkpoints.py.
"""

import os
from collections.abc import Mapping
from typing import Any

from retina_codec.errors import RetinaCodecError
from retina_codec.networks.small_base import PictureNorm
from retina_codec.networks.small_resnet import SmallResNet
from retina_codec.networks.small_vit import SmallViT

__all__ = [
    "PictureNorm",
    "SmallResNet",
    "SmallViT",
    "load_small_network",
    "save_small_network",
    "small_from_config",
]


def save_small_network(
    network: SmallResNet | SmallViT,
    folder: str | os.PathLike[str],
    card: str | None = None,
    *,
    overwrite: bool = False,
) -> None:
    """Write a small network to a folder: config.json, weights.safetensors, card.md.

    Parameters
    ----------
    network : SmallResNet or SmallViT
        Not modified.
    folder : path
        Written beside and renamed, so that it is whole or absent.
    card : str, optional
        Markdown: how trained, on what, how well it does.
    overwrite : bool
        Replace an existing folder.

    Raises
    ------
    RetinaCodecError
        If it is another network, the folder exists and ``overwrite`` is false, or writing fails.
    """
    from retina_codec.networks.checkpoints import save_network

    if not isinstance(network, SmallResNet | SmallViT):
        raise RetinaCodecError(
            f"network must be a SmallResNet or a SmallViT; got {type(network).__name__}. Use "
            "save_network for networks of the retina."
        )
    save_network(network, folder, card=card, overwrite=overwrite)


def load_small_network(folder: str | os.PathLike[str]) -> SmallResNet | SmallViT:
    """Load a small network on the CPU, in evaluation mode.

    Parameters
    ----------
    folder : path
        What `save_small_network` wrote, such as ``models/digits_cnn``.

    Returns
    -------
    SmallResNet or SmallViT
        With ``classes``, ``layers`` and ``training_record``.

    Raises
    ------
    RetinaCodecError
        If the folder or a file is missing, the weights are not those that config.json names, the
        two do not fit together, or it is a network of another kind.
    """
    from retina_codec.networks.checkpoints import load_network

    network = load_network(folder)
    if not isinstance(network, SmallResNet | SmallViT):
        raise RetinaCodecError(
            f"{folder} must hold a SmallResNet or a SmallViT; it holds a "
            f"{type(network).__name__}. Use load_network for it."
        )
    return network


def small_from_config(config: Mapping[str, Any]) -> SmallResNet | SmallViT:
    """Build a small network, its weights still to come, from what ``config()`` returned."""
    kinds = {kind.kind: kind for kind in (SmallResNet, SmallViT)}
    rest = {str(key): value for key, value in config.items() if key != "kind"}
    made: SmallResNet | SmallViT = kinds[config["kind"]](**rest)
    return made
