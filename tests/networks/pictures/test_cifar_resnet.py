"""Residual networks for CIFAR-10: written out, counted, and read from files of weights."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.nn import functional as f

import retina_codec as rc
from retina_codec.errors import RetinaCodecError
from retina_codec.networks.pictures.cifar_resnet import CIFAR_10, CifarResNet, read_state
from retina_codec.networks.pictures.load import load_image_network

# He et al. 2016, table 6: 0.27, 0.46, 0.66, 0.85 and 1.7 million
PARAMETERS = {20: 0.27, 32: 0.46, 44: 0.66, 56: 0.85, 110: 1.7}


def trained(depth: int = 14) -> CifarResNet:
    """A network whose biases and running statistics are not 0 and 1."""
    torch.manual_seed(0)
    network = CifarResNet(depth)
    with torch.no_grad():
        for name, values in network.state_dict().items():
            if name.endswith("running_var"):
                values.copy_(torch.rand_like(values) + 0.5)
            elif values.is_floating_point() and values.ndim < 2:
                values.add_(0.1 * torch.randn_like(values))
    return network.eval()


def by_hand(state: dict[str, torch.Tensor], x: torch.Tensor, count: int) -> torch.Tensor:
    """The paper's network with functions alone; shortcuts by loops over channels."""

    def norm(name: str, maps: torch.Tensor) -> torch.Tensor:
        keys = ("running_mean", "running_var", "weight", "bias")
        return f.batch_norm(maps, *(state[f"{name}.{key}"] for key in keys))

    maps = f.relu(norm("bn1", f.conv2d(x, state["conv1.weight"], padding=1)))
    for row, width in ((1, 16), (2, 32), (3, 64)):
        for number in range(count):
            name, step = f"layer{row}.{number}", 2 if row > 1 and number == 0 else 1
            branch = f.conv2d(maps, state[f"{name}.conv1.weight"], stride=step, padding=1)
            branch = f.relu(norm(f"{name}.bn1", branch))
            branch = norm(f"{name}.bn2", f.conv2d(branch, state[f"{name}.conv2.weight"], padding=1))
            before = (width - maps.shape[1]) // 2
            for channel in range(maps.shape[1]):
                branch[:, before + channel] += maps[:, channel, ::step, ::step]
            maps = f.relu(branch)
    return maps.mean((2, 3)) @ state["linear.weight"].T + state["linear.bias"]


def test_the_network_is_the_paper_written_out() -> None:
    network = trained().double()
    pictures = torch.randn(3, 3, 32, 32, dtype=torch.float64)
    found = network(pictures)
    expected = by_hand(network.state_dict(), pictures, 2)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    assert float(found.detach().std()) > 1e-3


@pytest.mark.parametrize("depth", PARAMETERS)
def test_sizes_are_those_of_the_paper(depth: int) -> None:
    network = CifarResNet(depth)
    millions = sum(values.numel() for values in network.parameters()) / 1e6
    assert millions == pytest.approx(PARAMETERS[depth], abs=0.05 if depth == 110 else 0.006)
    weighted = [values for values in network.parameters() if values.ndim > 1]
    assert len(weighted) == depth
    assert len(network.layers) == (depth - 2) // 2
    assert rc.adapt(network, "blocks").layers == network.layers


def test_contributions_of_its_blocks_add_up() -> None:
    network = trained()
    pictures = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    tree = rc.contribute(
        rc.adapt(network, "blocks"),
        pictures,
        target=rc.targets.TopK(1),
        method=rc.methods.IntegratedGradients(100),
        progress=False,
    )
    for layer in tree["layers"].children.values():
        error = abs(layer["completeness_error"] / layer["target_change"])
        assert float(error.max()) < 0.03
        assert layer.attrs["completeness"].startswith("holds")


@pytest.mark.parametrize("kind", ["checkpoint", "plain", "safetensors"])
def test_weights_from_a_file(tmp_path: Path, kind: str) -> None:
    network = trained()
    parallel = {f"module.{name}": value for name, value in network.state_dict().items()}
    file = tmp_path / ("weights.safetensors" if kind == "safetensors" else "weights.th")
    if kind == "safetensors":
        save_file(network.state_dict(), file)
    else:  # the older format, which published files have
        saved = {"state_dict": parallel, "best_prec1": 91.7} if kind == "checkpoint" else parallel
        torch.save(saved, file, _use_new_zipfile_serialization=kind == "plain")
    for found in (
        load_image_network("cifar_resnet14", weights=file),
        load_image_network(f"cifar_resnet14:{file}"),
    ):
        pictures = torch.randn(2, 3, 32, 32)
        torch.testing.assert_close(found.module(pictures), network(pictures))
        assert found.classes == CIFAR_10 == found.module.classes
        assert not found.module.training
        assert found.grey == 0.0
        assert found.name == "cifar_resnet14"
        assert file.name in found.source


def test_pictures_are_normalised_as_in_training() -> None:
    """By the mean and the standard deviation of ImageNet's colours, which its authors used."""
    found = load_image_network("cifar_resnet20", weights=None)
    values = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    expected = (values / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    x = found.preprocess(Image.fromarray(values))
    np.testing.assert_allclose(x.numpy(), expected.transpose(2, 0, 1), rtol=1e-5, atol=1e-6)
    larger = found.preprocess(Image.fromarray(values).resize((96, 64)).convert("L"))
    assert larger.shape == (3, 32, 32)


def test_random_weights_come_from_a_seed() -> None:
    first, again, other = (
        load_image_network("cifar_resnet20", weights=None, seed=seed).module.linear.weight
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


class Malicious:
    """Unpickled, it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def changed(**changes: Any) -> dict[str, Any]:
    """A state_dict with tensors in other places; None takes one away."""
    state: dict[str, Any] = dict(trained().state_dict())
    for name, value in changes.items():
        key = name.replace("__", ".")
        state.pop(key) if value is None else state.update({key: value})
    return state


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (changed(linear__bias=None), r"1 missing \(linear.bias\)"),
        (changed(layer2__0__shortcut__0__weight=torch.zeros(1)), r"1 too many .*shortcut"),
        (changed(conv1__weight=torch.zeros(8, 3, 3, 3)), r"conv1.weight is \(8, 3, 3, 3\), not"),
        (changed(linear__bias=torch.full((10,), float("nan"))), r"1 not finite \(linear.bias\)"),
        ({"features.0.weight": torch.zeros(1)}, "weights of a ResNet for CIFAR .* features.0"),
        ({"epoch": 3}, "'epoch' is a int"),
        ([torch.zeros(1)], "must hold a state_dict.*list"),
    ],
)
def test_other_weights_are_refused(tmp_path: Path, state: Any, message: str) -> None:
    torch.save(state, tmp_path / "weights.th")
    with pytest.raises(RetinaCodecError, match=message):
        load_image_network("cifar_resnet14", weights=tmp_path / "weights.th")


def test_another_depth_is_refused(tmp_path: Path) -> None:
    torch.save(trained().state_dict(), tmp_path / "weights.th")
    with pytest.raises(RetinaCodecError, match=r"of 20 layers; it holds 14.*'cifar_resnet14'"):
        load_image_network("cifar_resnet20", weights=tmp_path / "weights.th")


def test_no_code_of_a_file_runs(tmp_path: Path) -> None:
    bad, made = tmp_path / "weights.th", tmp_path / "made"
    torch.save({"state_dict": Malicious(made)}, bad)
    with pytest.raises(RetinaCodecError, match=r"cannot be read as tensors alone .*state_dict\(\)"):
        read_state(bad)
    bad.write_bytes(pickle.dumps({"state_dict": Malicious(made)}))
    with pytest.raises(RetinaCodecError, match="cannot be read as tensors alone"):
        read_state(bad)
    assert not made.exists()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("cifar_resnet56", {}, "comes without weights: .*weights=FILE"),
        ("cifar_resnet56", {"weights": "no/file.th"}, "must name a file with a state_dict"),
        ("cifar_resnet18", {"weights": None}, r"6 n \+ 2 .*nearest is 20"),
        ("cifar_resnet56:a.th", {"weights": "b.th"}, "weights must be left out; got 'b.th'"),
    ],
)
def test_wrong_names_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(RetinaCodecError, match=message):
        load_image_network(name, **options)
