"""The residual networks for CIFAR-10, and their weights from a state_dict.

Notation: b pictures, c channels.
"""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from retina_codec.errors import RetinaCodecError

__all__ = ["CIFAR_10", "CifarResNet", "read_cifar_resnet", "read_state"]

CIFAR_10 = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
WIDTHS = (16, 32, 64)
WRAPPED = ("state_dict", "model", "net")  # keys under which checkpoints hold the weights
FIRST = re.compile(r"layer1\.(\d+)\.conv1\.weight")


class _Block(nn.Module):
    """``relu(x + norm(conv(relu(norm(conv(x))))))``; x without parameters where its size changes.

    Where channels double, x is taken at every second place, and channels of zeros are added on
    both sides, the half of the new ones each (option A).
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.stride = 1 if inputs == outputs else 2
        self.added = outputs - inputs
        self.conv1 = nn.Conv2d(inputs, outputs, 3, self.stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu2 = nn.ReLU()

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        branch = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(maps)))))
        if self.added:
            before = self.added // 2
            sides = (0, 0, 0, 0, before, self.added - before)
            maps = nn.functional.pad(maps[..., :: self.stride, :: self.stride], sides)
        result: torch.Tensor = self.relu2(maps + branch)
        return result


class CifarResNet(nn.Module):
    """A residual network of 6 n + 2 layers for pictures of 32 px.

    A convolution of 16 channels, then three rows of n blocks with two convolutions each and 16,
    32 and 64 channels; the second and the third row halve the map. Mean over places, and a linear
    layer.

    Parameters
    ----------
    depth : int
        6 n + 2: 20, 32, 44, 56 and 110 in the paper.
    classes : sequence of str
        Names of the outputs, in order.

    Raises
    ------
    RetinaCodecError
        If there is no such depth, or fewer than two classes.

    Notes
    -----
    Inputs ``(b, 3, y, x)``, normalised; outputs ``(b, class)``, logits. Names of parameters are
    those of published weights: ``conv1``, ``bn1``, ``layer1.0.conv1`` ..., ``linear``. ``layers``
    names the 3 n blocks.

    References
    ----------
    He et al. 2016, Deep residual learning for image recognition, CVPR, section 4.2, option A.
    """

    def __init__(self, depth: int = 20, *, classes: Sequence[str] = CIFAR_10) -> None:
        super().__init__()
        count = (depth - 2) // 6
        if depth != 6 * count + 2 or count < 1:
            raise RetinaCodecError(
                f"depth must be 6 n + 2 (20, 32, 44, 56, 110); got {depth}. The nearest is "
                f"{6 * max(1, round((depth - 2) / 6)) + 2}."
            )
        if len(classes) < 2:
            raise RetinaCodecError(f"classes must be at least two names; got {list(classes)}.")
        self.depth = depth
        self.classes = tuple(str(name) for name in classes)
        self.layers = tuple(f"layer{row}.{n}" for row in (1, 2, 3) for n in range(count))
        self.conv1 = nn.Conv2d(3, WIDTHS[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        self.relu = nn.ReLU()
        self.layer1 = _row(WIDTHS[0], WIDTHS[0], count)
        self.layer2 = _row(WIDTHS[0], WIDTHS[1], count)
        self.layer3 = _row(WIDTHS[1], WIDTHS[2], count)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.linear = nn.Linear(WIDTHS[2], len(self.classes))

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """``(b, 3, y, x)``, normalised, to logits ``(b, class)``."""
        maps = self.relu(self.bn1(self.conv1(pictures)))
        maps = self.layer3(self.layer2(self.layer1(maps)))
        logits: torch.Tensor = self.linear(self.flatten(self.pool(maps)))
        return logits


def _row(inputs: int, outputs: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(_Block(outputs if n else inputs, outputs) for n in range(count)))


def read_cifar_resnet(path: str | os.PathLike[str], depth: int | None = None) -> CifarResNet:
    """Read a `CifarResNet` from a file with its state_dict.

    Parameters
    ----------
    path : path
        See `read_state`.
    depth : int, optional
        That the weights must have; found in the weights when left out.

    Returns
    -------
    CifarResNet
        In evaluation mode. Classes are `CIFAR_10` where there are ten, else numbers.

    Raises
    ------
    RetinaCodecError
        If the file cannot be read as tensors alone, or holds other weights than those of such a
        network, of this depth.
    """
    state = read_state(path)
    numbers = [int(found[1]) for name in state if (found := FIRST.fullmatch(name))]
    if not numbers or "linear.weight" not in state:
        raise RetinaCodecError(
            f"{path} must hold the weights of a ResNet for CIFAR (conv1, layer1.0.conv1, ..., "
            f"linear); it holds {', '.join(list(state)[:4])} and others. Networks of other "
            "shapes go to rc.adapt as modules."
        )
    there = 6 * (max(numbers) + 1) + 2
    if depth is not None and there != depth:
        raise RetinaCodecError(
            f"{path} must hold weights of {depth} layers; it holds {there}. Name the network "
            f"'cifar_resnet{there}'."
        )
    outputs = len(state["linear.weight"])
    classes = CIFAR_10 if outputs == len(CIFAR_10) else [str(n) for n in range(outputs)]
    network = CifarResNet(there, classes=classes)
    _check_fit(path, state, network.state_dict())
    network.load_state_dict(state, strict=False)
    return network.eval()


def read_state(path: str | os.PathLike[str]) -> dict[str, torch.Tensor]:
    """Read named tensors from a file; nothing in it is run.

    Parameters
    ----------
    path : path
        A .safetensors file, or one saved by torch: a state_dict, alone or as ``state_dict`` of a
        checkpoint. The prefix ``module.`` of parallel training is taken off.

    Returns
    -------
    dict of str to torch.Tensor
        On the CPU.

    Raises
    ------
    RetinaCodecError
        If there is no such file, or it holds anything but tensors, numbers and text.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file = Path(path)
    if not file.is_file():
        raise RetinaCodecError(f"weights must name a file with a state_dict; {file} is none.")
    try:
        if file.suffix == ".safetensors":
            found: Any = load_file(file)
        else:
            found = torch.load(file, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, EOFError, RuntimeError, LookupError, ValueError) as error:
        raise _unreadable(file, error) from error
    except Exception as error:  # pickle's own errors have no common base
        raise _unreadable(file, error) from error
    for key in WRAPPED:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping) or not found:
        raise RetinaCodecError(
            f"{file} must hold a state_dict, tensors by name; it holds {type(found).__name__}."
        )
    wrong = [name for name, value in found.items() if not isinstance(value, torch.Tensor)]
    if wrong:
        raise RetinaCodecError(
            f"{file} must hold a state_dict, tensors by name; {wrong[0]!r} is a "
            f"{type(found[wrong[0]]).__name__}. Save network.state_dict()."
        )
    return {str(name).removeprefix("module."): value for name, value in found.items()}


def _unreadable(file: Path, error: Exception) -> RetinaCodecError:
    words = " ".join(str(error).split())[:160]
    return RetinaCodecError(
        f"{file} cannot be read as tensors alone ({type(error).__name__}: {words}). Files that "
        "hold more are not opened, for they can run code: save network.state_dict() instead."
    )


def _check_fit(
    path: str | os.PathLike[str],
    state: Mapping[str, torch.Tensor],
    wanted: Mapping[str, torch.Tensor],
) -> None:
    """Refuse weights with other names, shapes, or values that are not finite."""
    needed = [name for name in wanted if not name.endswith("num_batches_tracked")]
    missing = [name for name in needed if name not in state]
    more = [name for name in state if name not in wanted]
    shapes = [
        f"{name} is {tuple(state[name].shape)}, not {tuple(wanted[name].shape)}"
        for name in needed
        if name in state and state[name].shape != wanted[name].shape
    ]
    infinite = [name for name in needed if name in state and not state[name].isfinite().all()]
    faults = [
        f"{len(names)} {words} ({names[0]}{', ...' if len(names) > 1 else ''})"
        for words, names in (
            ("missing", missing), ("too many", more), ("of another shape", shapes),
            ("not finite", infinite),
        )
        if names
    ]  # fmt: skip
    if faults:
        raise RetinaCodecError(
            f"{path} must hold the weights of a ResNet for CIFAR without parameters in its "
            f"shortcuts (option A); tensors: {'; '.join(faults)}."
        )
