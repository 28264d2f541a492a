"""Networks on disk: a folder with config.json, weights.safetensors and card.md.

Why this file exists: a network is data, never code. Weights are safetensors and the config is
JSON with the hash of the weights, so that loading runs nothing from the file and an altered file
is noticed. It is not the reader of the published .pt files.
"""

import json
import os
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from retina_codec.errors import RetinaCodecError
from retina_codec.networks.pictures.small_resnet import PictureNorm, SmallResNet
from retina_codec.networks.pictures.small_vit import SmallViT
from retina_codec.networks.published.layers import LayeredNetwork
from retina_codec.networks.published.reader import read_published
from retina_codec.networks.retina.model import RetinaCNN
from retina_codec.storage.trees import new_output, sha256_of

__all__ = [
    "PictureNorm",
    "SmallResNet",
    "SmallViT",
    "load_network",
    "load_small_network",
    "network_folder",
    "save_network",
    "save_small_network",
    "small_from_config",
]

FORMAT = "retina-codec network 1"


LARGEST_CONFIG = 10_000_000  # bytes


PUBLISHED = (".pt", ".pth")


SHIPPED = ("digits_cnn", "digits_vit", "insilico")


Network = RetinaCNN | LayeredNetwork | SmallResNet | SmallViT


"""What a folder can hold."""


def save_network(
    network: Network,
    folder: str | os.PathLike[str],
    *,
    card: str | None = None,
    overwrite: bool = False,
) -> None:
    """Write a network to a folder: config.json, weights.safetensors, card.md.

    Parameters
    ----------
    network : RetinaCNN, LayeredNetwork, SmallResNet or SmallViT
        What `fit_network` or `load_network` returned, say. Not modified.
    folder : path
        Written beside and renamed, so that it is whole or absent.
    card : str, optional
        Markdown: how trained, on what, how well it does.
    overwrite : bool
        Replace an existing folder.

    Raises
    ------
    RetinaCodecError
        If the folder exists and ``overwrite`` is false, or writing fails.
    """
    from safetensors.torch import save

    state = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    with new_output(folder, overwrite=overwrite) as partial:
        partial.mkdir()
        weights = partial / "weights.safetensors"
        weights.write_bytes(save(state))
        config = {
            "format": FORMAT,
            "weights_sha256": sha256_of(weights),
            "network": network.config(),
            "training": network.training_record,
        }
        text = json.dumps(config, indent=2) + "\n"
        (partial / "config.json").write_text(text, encoding="utf-8")
        if card is not None:
            (partial / "card.md").write_text(card, encoding="utf-8")


def load_network(path: str | os.PathLike[str]) -> Any:
    """Load a network, ours or a published one, on the CPU, in evaluation mode.

    Parameters
    ----------
    path : path
        A folder saved by `save_network`, a published .pt or .pth file, or the name of a network
        that comes with the package, see `network_folder`.

    Returns
    -------
    RetinaCNN, LayeredNetwork, SmallResNet or SmallViT
        The first two map (batch, lag, y, x) normalised windows to (batch, cell) Hz; a published
        file gives a `LayeredNetwork` where its layers are not those of a `RetinaCNN`. The other
        two map pictures (batch, color, y, x) in [0, 1] to logits (batch, class).

    Raises
    ------
    RetinaCodecError
        If the folder or a file is missing, the weights are not those that the config names, or
        the two do not fit together; for a published file see
        `retina_codec.networks.published.reader.read_published`.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = network_folder(path)
    if folder.suffix.lower() in PUBLISHED and not folder.is_dir():
        return read_published(folder)
    if not folder.is_dir():
        raise RetinaCodecError(
            "a network is a folder with config.json and weights.safetensors, or a published .pt "
            f"file; {folder} is {'another file' if folder.exists() else 'not there'}. Fit one "
            f"with `retina-codec fit`, or name one of the package: {', '.join(SHIPPED)}."
        )
    config_file, weights = folder / "config.json", folder / "weights.safetensors"
    for file in (config_file, weights):
        if not file.is_file():
            raise RetinaCodecError(
                f"the network folder {folder} must hold {file.name}, which is missing. "
                "Copy the folder again, whole."
            )
    config = _read_config(config_file)
    if sha256_of(weights) != config["weights_sha256"]:
        raise RetinaCodecError(
            f"{weights} is not the file that config.json describes (its sha256 differs): it was "
            "altered or only partly copied. Copy the folder again, whole."
        )
    try:
        network = _build(config["network"], load_file(weights))
    except (
        SafetensorError,
        RuntimeError,
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
    ) as error:
        reason = " ".join(str(error).split())[:200]
        raise RetinaCodecError(
            f"config.json and weights.safetensors of {folder} do not fit together: {reason}"
        ) from error
    network.training_record = config.get("training") or {}
    return network.eval()


def network_folder(name: str | os.PathLike[str]) -> Path:
    """Return the path of a network: the path itself, or that of a network known by its name.

    Parameters
    ----------
    name : str or path
        A path, or a name: of a folder in the environment variable RETINA_CODEC_MODELS, or
        ``insilico`` (of the simulated retina), ``digits_cnn`` or ``digits_vit`` (of digits on
        photographs), which come with the package.

    Returns
    -------
    Path
        As given where it exists or is no such name.
    """
    given = Path(name)
    if given.exists() or len(given.parts) != 1:
        return given
    own = os.environ.get("RETINA_CODEC_MODELS")
    places = [Path(own) / given] if own else []
    places += [Path(str(files("retina_codec") / "data" / "models" / given.name))]
    return next((place for place in places if (place / "config.json").is_file()), given)


def _build(config: dict[str, Any], state: dict[str, Any]) -> Network:
    """Build the kind of network that a config describes."""
    kind = config.get("kind", "RetinaCNN")
    if kind == "layers":
        return LayeredNetwork.from_config(config, state)
    if kind in (SmallResNet.kind, SmallViT.kind):
        small = small_from_config(config)
        small.load_state_dict(state)
        return small
    if kind != "RetinaCNN":
        raise RetinaCodecError(
            f"kind must be 'RetinaCNN', 'layers', 'SmallResNet' or 'SmallViT'; got {kind!r:.60}"
        )
    network = RetinaCNN.from_config({key: config[key] for key in config if key != "kind"})
    network.load_state_dict(state)
    return network


def _read_config(file: Path) -> dict[str, Any]:
    """Parse config.json and check that it is ours."""
    if file.stat().st_size > LARGEST_CONFIG:
        raise RetinaCodecError(f"{file} is larger than a config can be ({LARGEST_CONFIG} bytes).")
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RetinaCodecError(f"{file} must be JSON; {error}.") from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        found = config.get("format") if isinstance(config, dict) else type(config).__name__
        raise RetinaCodecError(f"{file} must say format {FORMAT!r}; got {found!r}.")
    missing = {"weights_sha256", "network"} - set(config)
    if missing:
        raise RetinaCodecError(f"{file} lacks {sorted(missing)}. Copy the folder again, whole.")
    return config


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
        What `save_small_network` wrote, such as ``digits_cnn``.

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
