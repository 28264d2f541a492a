"""Order of the layers in each class of published network, and their weights in the file.

Notation: c channels, n cells; positions in a list are those of the published ``sequential``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from retina_codec.errors import RetinaCodecError

__all__ = ["MODEL_TYPES", "Settings", "brief", "fill", "layouts", "read_settings"]

MODEL_TYPES = ("VaryModel", "LinearStackedBNCNN", "BNCNN", "RetinotopicModel")
ACTIVATIONS = ("ReLU", "Tanh", "Sigmoid", "ELU")
NEVER_READ = {"groups": 1, "one2one": False, "self_attn": False, "paddings": 0}
EPS = 1e-3  # of every normalisation
Layer = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """Settings of a checkpoint that decide its layers; defaults are the published ones."""

    model_type: str
    cells: int
    history: int
    frame_shape: tuple[int, int]
    channels: tuple[int, ...]
    kernel_sizes: tuple[int, ...]
    noise: float
    momentum: float
    norm_dims: int
    activation: str
    stacked: bool
    last_stacked: bool
    convolutional: bool
    norm_after_activation: bool
    softplus: bool
    exponential: bool

    @property
    def map_shapes(self) -> list[tuple[int, int]]:
        """Rows and columns after every convolution."""
        rows, columns = self.frame_shape
        shapes = []
        for size in self.kernel_sizes:
            rows, columns = rows - size + 1, columns - size + 1
            shapes.append((rows, columns))
        return shapes


def read_settings(model_type: str, hyps: Mapping[str, Any], cells: int) -> Settings:
    """Read the settings that decide the layers from the ``hyps`` of a checkpoint."""
    if model_type not in MODEL_TYPES:
        raise RetinaCodecError(
            f"model_type must be one of {', '.join(MODEL_TYPES)}; got {brief(model_type)}."
        )
    for name, usual in NEVER_READ.items():
        value = hyps.get(name) or usual
        same = not any(value) if isinstance(value, list | tuple) else value == usual
        if not same:
            raise RetinaCodecError(
                f"no published network has {name} other than {usual}; got {brief(value)}."
            )
    activation = brief(hyps.get("activ_fxn", "ReLU"))
    if activation not in ACTIVATIONS:
        raise RetinaCodecError(
            f"activ_fxn must be one of {', '.join(ACTIVATIONS)}; got {activation}."
        )
    depth = int(hyps.get("n_layers", 3)) if model_type != "BNCNN" else 3
    history, *frame = (int(size) for size in hyps.get("img_shape", (40, 50, 50)))
    channels = tuple(int(size) for size in hyps.get("chans", (8, 8)))[: max(depth - 1, 0)]
    sizes = tuple(int(size) for size in hyps.get("ksizes", (15, 11, 11)))[:depth]
    convolutional = bool(hyps.get("convgc", False)) and model_type != "BNCNN"
    if model_type != "RetinotopicModel" and not convolutional:
        sizes = sizes[: depth - 1]
    wanted = depth - 1 + (convolutional or model_type == "RetinotopicModel")
    if not 1 < depth < 20 or len(frame) != 2 or len(channels) != depth - 1 or len(sizes) != wanted:
        raise RetinaCodecError(
            f"{depth} layers need {depth - 1} numbers of channels, {wanted} kernel sizes and an "
            f"img_shape of three; got {channels}, {sizes} and {(history, *frame)}."
        )
    if min(history, cells, *channels, *sizes) < 1 or min(frame) <= sum(sizes) - len(sizes):
        raise RetinaCodecError(
            f"kernels of {sizes} px must fit into frames, and every size be at least 1; got "
            f"{channels=} and {(history, *frame)}."
        )
    return Settings(
        model_type=model_type,
        cells=cells,
        history=history,
        frame_shape=(frame[0], frame[1]),
        channels=channels,
        kernel_sizes=sizes,
        noise=float(hyps.get("noise", 0.05)),
        momentum=float(hyps.get("bn_moment", 0.01)),
        norm_dims=2 if model_type == "RetinotopicModel" else int(hyps.get("bnorm_d", 1)),
        activation=activation,
        stacked=model_type != "BNCNN" and bool(hyps.get("stackconvs", True)),
        last_stacked=bool(hyps.get("finalstack", False)),
        convolutional=convolutional,
        norm_after_activation=bool(hyps.get("bnaftrelu", False)),
        softplus=bool(hyps.get("softplus", True)),
        exponential=bool(hyps.get("inference_exp", False)),
    )


def brief(value: Any) -> str:
    """Return a short text for a value from a file, without following nested values."""
    if value is None or isinstance(value, str | int | float):
        return str(value)[:60]
    if isinstance(value, list | tuple) and all(isinstance(item, int) for item in value[:20]):
        return str(list(value[:20]))
    return type(value).__name__


def layouts(settings: Settings, locations: Sequence[Sequence[int]]) -> list[list[Layer]]:
    """Return the lists of layers that these settings may mean, the newest first.

    More than one for BNCNN, whose older versions restore the maps after the activation.
    ``locations`` (cell, 2), row and column in the last map, are used where there is a readout.
    """
    newest = [layer for hidden in _hidden(settings, late=False) for layer in hidden]
    found = [newest + _last(settings, locations, flat=False)]
    if settings.model_type == "BNCNN" and settings.norm_dims == 1:
        older = [layer for hidden in _hidden(settings, late=True) for layer in hidden]
        found.append(older[:-1] + _last(settings, locations, flat=True))
    return found


def _hidden(settings: Settings, *, late: bool) -> list[list[Layer]]:
    """Return the hidden layers; ``late``: the flat values become maps after the activation."""
    found = []
    before = settings.history
    for number, outputs in enumerate(settings.channels):
        rows, columns = settings.map_shapes[number]
        convolution: Layer = {
            "kind": "stack" if settings.stacked else "convolution",
            "inputs": before,
            "outputs": outputs,
            "size": settings.kernel_sizes[number],
        }
        active: list[Layer] = [
            {"kind": "noise", "std": settings.noise},
            {"kind": settings.activation},
        ]
        reshape: Layer = {"kind": "reshape", "shape": [outputs, rows, columns]}
        if settings.norm_dims == 1:
            norm = [{"kind": "flatten"}, _norm(settings, outputs * rows * columns, maps=False)]
        else:
            norm, late = [_norm(settings, outputs, maps=True)], False
        if late:
            found.append([convolution, *norm, *active, reshape])
        else:
            norm += [reshape] if settings.norm_dims == 1 else []
            rest = [*active, *norm] if settings.norm_after_activation else [*norm, *active]
            found.append([convolution, *rest])
        before = outputs
    return found


def _norm(settings: Settings, channels: int, *, maps: bool) -> Layer:
    """Return a normalisation: with |scale|, or torch's own in BNCNN."""
    norm: Layer = {"kind": "scale and shift", "channels": channels, "momentum": settings.momentum}
    if settings.model_type == "BNCNN":
        norm |= {"kind": "batch norm", "eps": EPS, "maps": maps}
    return norm


def _last(settings: Settings, locations: Sequence[Sequence[int]], *, flat: bool) -> list[Layer]:
    """Return the layers of the cells; ``flat``: their input is flat already."""
    inputs = settings.channels[-1]
    rows, columns = settings.map_shapes[-1]
    end: list[Layer] = [{"kind": "softplus" if settings.softplus else "exponential"}]
    convolution: Layer = {
        "kind": "stack" if settings.last_stacked else "convolution",
        "inputs": inputs,
        "outputs": settings.cells,
        "size": settings.kernel_sizes[-1],
    }
    if settings.model_type == "RetinotopicModel":
        norm = _norm(settings, settings.cells, maps=True)
        weights = {"kind": "position weights", "cells": settings.cells, "positions": rows * columns}
        found = [convolution | {"kind": "convolution"}, norm, *end, weights]
    else:
        if settings.convolutional:
            read = [convolution, {"kind": "readout", "locations": [list(p) for p in locations]}]
        else:
            linear = {
                "kind": "linear",
                "inputs": inputs * rows * columns,
                "outputs": settings.cells,
            }
            read = [linear] if flat else [{"kind": "flatten"}, linear]
        found = [*read, _norm(settings, settings.cells, maps=False), *end]
    return [*found, {"kind": "exponential"}] if settings.exponential else found


def fill(
    layout: Sequence[Layer], stored: Mapping[str, torch.Tensor]
) -> tuple[list[Layer], dict[str, torch.Tensor]]:
    """Assign stored weights, ``sequential.0.weight`` and so on, to the layers of a layout.

    Return the layers with the sizes that only the weights show, and the state of the network.
    """
    left = dict(stored)
    sequence: list[Layer] = []
    state: dict[str, torch.Tensor] = {}
    for number, layer in enumerate(layout):
        name = f"sequential.{number}."
        own = {key.removeprefix(name): left.pop(key) for key in stored if key.startswith(name)}
        layer = dict(layer)
        if layer["kind"] == "stack" and "weight" in own:
            layer["kind"] = "convolution"  # saved after it was collapsed
        if layer["kind"] == "stack":
            own = _fill_stack(layer, own)
        elif layer["kind"] in ("convolution", "linear"):
            layer["bias"] = "bias" in own
        elif layer["kind"] == "noise" and "sigma" in own:
            layer["std"] = float(own.pop("sigma").reshape(()))
        elif layer["kind"] == "readout":
            own["locations"] = torch.tensor(layer["locations"], dtype=torch.long).reshape(-1, 2)
        elif layer["kind"] == "batch norm":
            own.setdefault("num_batches_tracked", torch.tensor(0))
        sequence.append(layer)
        state |= {name + key: value for key, value in own.items()}
    if left:
        raise RetinaCodecError(f"weights that belong to no layer: {', '.join(sorted(left))[:200]}")
    return sequence, state


def _fill_stack(layer: Layer, own: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Put the small convolutions in order, without the layers between; note their sizes."""
    numbers = sorted({int(key.split(".")[1]) for key in own if key.startswith("convs.")})
    weights = [own[f"convs.{number}.weight"] for number in numbers]
    if not weights or any(weight.ndim != 4 for weight in weights):
        raise RetinaCodecError("a stack of convolutions without kernels")
    sizes = [int(weight.shape[-1]) for weight in weights]
    channels = [int(weights[0].shape[1]), *(int(weight.shape[0]) for weight in weights)]
    ends = (channels[0], channels[-1], sum(size - 1 for size in sizes) + 1)
    if ends != (layer["inputs"], layer["outputs"], layer["size"]):
        raise RetinaCodecError(
            f"a stack from {ends[0]} to {ends[1]} channels over {ends[2]} px where the settings "
            f"say {layer['inputs']}, {layer['outputs']} and {layer['size']}"
        )
    bias = f"convs.{numbers[-1]}.bias" in own
    for key in ("inputs", "outputs", "size"):
        del layer[key]
    layer |= {"channels": channels, "sizes": sizes, "bias": bias}
    places = {f"convs.{number}": str(place) for place, number in enumerate(numbers)}
    renamed = {}
    for key, value in own.items():
        place, _, part = key.rpartition(".")
        renamed[f"{places.get(place, place)}.{part}"] = value
    return renamed
