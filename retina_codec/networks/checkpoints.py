"""Save networks to folders and load them: config.json, weights.safetensors and card.md.

Loading runs nothing from a file. A new kind of network is one row of `KINDS`.
"""

import json
import os
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

import torch

from retina_codec.errors import RetinaCodecError
from retina_codec.networks.published.reader import read_published
from retina_codec.registry import Registry
from retina_codec.storage.trees import new_output, sha256_of

__all__ = ["KINDS", "SavedNetwork", "load_network", "network_folder", "save_network"]

FORMAT = "retina-codec network 1"
LARGEST_CONFIG = 10_000_000  # bytes
PUBLISHED = (".pt", ".pth")
MISFITS = (RuntimeError, LookupError, TypeError, ValueError, AttributeError)
SHIPPED = ("digits_cnn", "digits_vit", "insilico")


@runtime_checkable
class SavedNetwork(Protocol):
    """A network that can be saved.

    Must: ``kind``, its name in `KINDS`; ``config()``, every number needed to build it again and its
    ``kind`` (which only `RetinaCNN` may leave out), in JSON types; ``from_config(config, state)``,
    which builds it with these weights; ``training_record``, a dict of JSON types.
    """

    kind: ClassVar[str]
    training_record: dict[str, Any]

    def config(self) -> dict[str, Any]:
        """Return what it is built from."""

    @classmethod
    def from_config(cls, config: dict[str, Any], state: dict[str, torch.Tensor]) -> Self:
        """Build it with these weights."""

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return its weights."""


KINDS: Registry[type[SavedNetwork]] = Registry(
    "kind of network",
    "retina_codec.networks",
    {
        "RetinaCNN": "retina_codec.networks.retina.model:RetinaCNN",
        "layers": "retina_codec.networks.published.layers:LayeredNetwork",
        "SmallResNet": "retina_codec.networks.pictures.small_resnet:SmallResNet",
        "SmallViT": "retina_codec.networks.pictures.small_vit:SmallViT",
    },
)


def save_network(
    network: SavedNetwork,
    folder: str | os.PathLike[str],
    *,
    card: str | None = None,
    overwrite: bool = False,
) -> None:
    """Write a network to a folder: config.json, weights.safetensors, card.md.

    Parameters
    ----------
    network : RetinaCNN, LayeredNetwork, SmallResNet or SmallViT
        Or another `SavedNetwork`, such as `fit_network` returns. Not modified.
    folder : path
        Written beside and renamed, so that it is whole or absent.
    card : str, optional
        Markdown: how trained, on what, how well it does.
    overwrite : bool
        Replace an existing folder.

    Raises
    ------
    RetinaCodecError
        If it is another module, the folder exists and ``overwrite`` is false, or writing fails.
    """
    from safetensors.torch import save

    if not isinstance(network, SavedNetwork):
        raise RetinaCodecError(
            f"network must be of a kind that can be saved ({', '.join(KINDS.list())}); got "
            f"{type(network).__name__}. Save its state_dict with torch or safetensors."
        )
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
    """Load a saved or a published network on the CPU, in evaluation mode.

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
    config_file, weights = _whole_folder(folder)
    config = _read_config(config_file)
    if sha256_of(weights) != config["weights_sha256"]:
        raise RetinaCodecError(
            f"{weights} is not the file that config.json describes (its sha256 differs): it was "
            "altered or only partly copied. Copy the folder again, whole."
        )
    try:
        settings = config["network"]
        kind = KINDS.get(settings.get("kind", "RetinaCNN"))
        network: Any = kind.from_config(settings, load_file(weights))
    except (SafetensorError, *MISFITS) as error:
        reason = " ".join(str(error).split())[:200]
        raise RetinaCodecError(
            f"config.json and weights.safetensors of {folder} do not fit together: {reason}"
        ) from error
    network.training_record = config.get("training") or {}
    return network.eval()


def network_folder(name: str | os.PathLike[str]) -> Path:
    """Return the path of a network: the path itself, or that of a network known by its name.

    Known are folders in the environment variable RETINA_CODEC_MODELS, and ``insilico`` (of the
    simulated retina), ``digits_cnn`` and ``digits_vit`` (of digits on photographs), which come with
    the package. As given where it exists or is no such name.
    """
    given = Path(name)
    if given.exists() or len(given.parts) != 1:
        return given
    own = os.environ.get("RETINA_CODEC_MODELS")
    places = [Path(own) / given] if own else []
    places += [Path(str(files("retina_codec") / "data" / "models" / given.name))]
    return next((place for place in places if (place / "config.json").is_file()), given)


def _whole_folder(folder: Path) -> tuple[Path, Path]:
    """Return config and weights of a folder that holds both."""
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
    return config_file, weights


def _read_config(file: Path) -> dict[str, Any]:
    """Parse config.json and check its format."""
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
