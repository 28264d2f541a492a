"""Read the published retina networks (Maheswaranathan et al. 2023) from their .pt files."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from retina_codec.errors import RetinaCodecError
from retina_codec.networks.published.files import DAMAGES, read_checkpoint
from retina_codec.networks.published.layers import LayeredNetwork
from retina_codec.networks.published.layouts import Settings, brief, fill, layouts, read_settings
from retina_codec.networks.retina.model import Normalisation, RetinaCNN
from retina_codec.recordings.maheswaranathan_2023.constants import (
    PUBLISHED_CELLS,
    PUBLISHED_CENTERS,
)
from retina_codec.storage.trees import sha256_of

__all__ = ["grab_locations", "read_published"]

FRAME_RATE = 100.0  # Hz, of every published recording
LARGEST_WEIGHT = 1e9
RECORDED = ("exp_name", "exp_num", "seed", "epoch", "lossfxn", "test_pearson")

RETINA_CNN = {  # layer of the file: module of RetinaCNN
    0: ("conv1", "convolution", "stack"),
    1: ("norm1", "scale and shift"),
    2: ("noise1", "noise"),
    3: ("relu1", "ReLU"),
    4: ("conv2", "convolution", "stack"),
    5: ("norm2", "scale and shift"),
    6: ("noise2", "noise"),
    7: ("relu2", "ReLU"),
    8: ("conv3", "convolution", "stack"),
    9: ("readout", "readout"),
    10: ("norm3", "scale and shift"),
    11: ("softplus", "softplus"),
}


def read_published(
    path: str | os.PathLike[str], *, normalisation: Normalisation | None = None
) -> RetinaCNN | LayeredNetwork:
    """Read a published .pt or .pth checkpoint as a network, on the CPU, in evaluation mode.

    For VaryModel, LinearStackedBNCNN, BNCNN and RetinotopicModel. ``normalisation`` of the stimulus
    takes the place of the file's ``norm_stats``. The network maps (batch, lag, y, x) normalised
    windows to (batch, cell) Hz; its ``training_record`` holds the experiment, the stimulus, the
    class, the file's name and sha256, and in ``doubtful`` what the file leaves open.
    Maheswaranathan et al. 2023, Neuron 111:2742; github.com/baccuslab/torch-deep-retina.
    """
    checkpoint = read_checkpoint(path)
    try:
        network, doubts = _build(checkpoint, normalisation)
        record = _record(checkpoint, Path(path))
    except DAMAGES as error:
        reason = " ".join(str(error).split())[:400] or type(error).__name__
        raise RetinaCodecError(
            f"{path} must be a checkpoint of the published retina networks whose settings and "
            f"weights fit together: {reason}"
        ) from error
    network.training_record = record | {"doubtful": doubts}
    return network.eval()


def grab_locations(
    centers: Sequence[Sequence[int]], kernel_sizes: Sequence[int], map_shape: Sequence[int]
) -> list[list[int]]:
    """Return where each cell is read in the last map: ``clip(center − Σ(k // 2) − 1, 0, last)``.

    ``centers`` (cell, 2), row and column in the frame, px; result (cell, 2), row and column in the
    map. This is the newest published rule; it agrees with the coordinates printed for all 17 cells
    of 15-11-21b. It is one less than the location whose receptive field is centred on the cell. An
    older text has another rule that does not agree with that print, and where the rule clips above
    (three cells of 15-11-21a) nothing was printed.
    """
    margin = sum(size // 2 for size in kernel_sizes) + 1
    return [
        [min(max(int(place) - margin, 0), int(size) - 1) for place, size in zip(*pair, strict=True)]
        for pair in ((center, map_shape) for center in centers)
    ]


def _build(
    checkpoint: Mapping[str, Any], normalisation: Normalisation | None
) -> tuple[RetinaCNN | LayeredNetwork, list[str]]:
    """Return the network and the list of what is doubtful about it."""
    hyps = _first(checkpoint, "hyps", "model_hyps")
    stored = _weights(_first(checkpoint, "model_state_dict", "state_dict"))
    model_type = brief(checkpoint.get("model_type", hyps.get("model_type")))
    cells, doubts = _cells(checkpoint, hyps, stored)
    settings = read_settings(model_type, hyps, len(cells))
    scale = normalisation or _normalisation(checkpoint)
    places, more = _locations(checkpoint, hyps, settings, cells)
    network = _fit_layouts(settings, places, stored, cells, scale, doubts)
    doubts += more
    if model_type == "RetinotopicModel":
        doubts.append("the weights over positions multiply by their sum; an older text divides")
    _prune(network, checkpoint.get("zero_dict") or {})
    return _as_retina_cnn(network) or network, doubts


def _first(checkpoint: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Return the first of these entries that is there; it must be a dictionary."""
    for name in names:
        if isinstance(checkpoint.get(name), dict):
            return dict(checkpoint[name])
    held = ", ".join(str(key) for key in list(checkpoint)[:20])
    raise RetinaCodecError(f"it must hold {' or '.join(names)}; it holds {held}.")


def _weights(state: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Return the weights as float32 under their newest names; an impossible value is an error."""
    found = {}
    for key, value in state.items():
        if not isinstance(value, torch.Tensor):
            raise RetinaCodecError(f"weights must be tensors; {key} is {type(value).__name__}.")
        if value.is_floating_point():
            value = value.detach().to(torch.float32)
            if not bool((value.abs() <= LARGEST_WEIGHT).all()):
                raise RetinaCodecError(
                    f"weights must be finite and below {LARGEST_WEIGHT:g}; {key} is not."
                )
            if key.endswith("running_var") and bool((value < 0).any()):
                raise RetinaCodecError(f"variances must not be negative; {key} is.")
        found[str(key).replace("cuda_param", "sigma")] = value.contiguous()
    return found


def _cells(
    checkpoint: Mapping[str, Any], hyps: Mapping[str, Any], stored: Mapping[str, torch.Tensor]
) -> tuple[tuple[int, ...], list[str]]:
    """Return the ids of the cells in the order of the output."""
    last = max((key for key in stored if key.startswith("sequential.")), key=_number, default="")
    if not last or not stored[last].ndim:
        raise RetinaCodecError("its weights must be named sequential.0.weight and so on.")
    count = int(hyps.get("n_units") or stored[last].shape[0])
    named = _setting(checkpoint, hyps, "cells", "all")
    dataset = brief(_setting(checkpoint, hyps, "dataset", ""))
    known = PUBLISHED_CELLS.get(dataset, ())
    if isinstance(named, list | tuple) and len(named) == count:
        return tuple(int(cell) for cell in named), []
    if len(known) == count:
        return known, []
    doubt = f"ids of the cells: the file says {brief(named)} and {dataset}; counted from 0"
    return tuple(range(count)), [doubt]


def _number(key: str) -> int:
    """Return the position of a layer in ``sequential``."""
    return int(key.split(".")[1])


def _setting(checkpoint: Mapping[str, Any], hyps: Mapping[str, Any], name: str, other: Any) -> Any:
    """Return a setting; every one of ``hyps`` also stands at the top of newer files."""
    return hyps.get(name, checkpoint.get(name, other))


def _normalisation(checkpoint: Mapping[str, Any]) -> Normalisation:
    stats = checkpoint.get("norm_stats")
    if not isinstance(stats, dict) or stats.get("mean") is None or stats.get("std") is None:
        raise RetinaCodecError(
            "it must hold norm_stats, the mean and std of the stimulus it was trained on. Give "
            "them: read_published(path, normalisation=Normalisation(mean, std))."
        )
    scaled = checkpoint.get("y_stats") or {}
    if isinstance(scaled, dict) and any(value is not None for value in scaled.values()):
        raise RetinaCodecError("it was trained on z-scored rates (y_stats); its output is no Hz.")
    found = Normalisation(float(stats["mean"]), float(stats["std"]))
    if not abs(found.mean) < LARGEST_WEIGHT or not found.std < LARGEST_WEIGHT:
        raise RetinaCodecError(f"norm_stats must be grey levels; got {found}.")
    return found


def _locations(
    checkpoint: Mapping[str, Any], hyps: Mapping[str, Any], settings: Settings, cells: Sequence[int]
) -> tuple[list[list[int]], list[str]]:
    """Return where each cell is read in the last map, and what is doubtful about it."""
    if not settings.convolutional or settings.model_type == "RetinotopicModel":
        return [], []
    centers = _setting(checkpoint, hyps, "centers", None)
    doubts = [
        "where cells are read: the newest of two published rules, center − Σ(kernel // 2) − 1"
    ]
    if centers is None:
        dataset = brief(_setting(checkpoint, hyps, "dataset", ""))
        if dataset not in PUBLISHED_CENTERS:
            raise RetinaCodecError(
                f"it must hold the centers of its cells, or be of {', '.join(PUBLISHED_CENTERS)}; "
                f"it is of {dataset or 'no experiment'}."
            )
        table = dict(zip(PUBLISHED_CELLS[dataset], PUBLISHED_CENTERS[dataset], strict=True))
        centers = [table[cell] for cell in cells]
        doubts.append(f"centers of the cells: not in the file, from the list of {dataset}")
    pairs = [[int(row), int(column)] for row, column in centers]
    if len(pairs) != len(cells):
        raise RetinaCodecError(f"it has {len(pairs)} centers for {len(cells)} cells.")
    shape = settings.map_shapes[-1]
    margin = sum(size // 2 for size in settings.kernel_sizes) + 1
    beyond = [
        cell
        for cell, pair in zip(cells, pairs, strict=True)
        if any(place - margin >= size for place, size in zip(pair, shape, strict=True))
    ]
    if beyond:
        doubts.append(f"cells {beyond} lie beyond the last map and are read at its edge")
    return grab_locations(pairs, settings.kernel_sizes, shape), doubts


def _fit_layouts(
    settings: Settings,
    places: list[list[int]],
    stored: Mapping[str, torch.Tensor],
    cells: Sequence[int],
    normalisation: Normalisation,
    doubts: list[str],
) -> LayeredNetwork:
    """Take the first layout whose layers have exactly the stored weights."""
    reasons = []
    for number, layout in enumerate(layouts(settings, places)):
        try:
            sequence, state = fill(layout, stored)
            config = {
                "sequence": sequence,
                "cells": cells,
                "history": settings.history,
                "frame_shape": settings.frame_shape,
                "normalisation": {"mean": normalisation.mean, "std": normalisation.std},
                "frame_rate": FRAME_RATE,
            }
            network = LayeredNetwork.from_config(config, state)
        except (RuntimeError, LookupError, ValueError) as error:
            reasons.append(" ".join(str(error).split()))
            continue
        if number:
            doubts.append("an older order of layers; the oldest had eps 1e-5 in the last norm")
        return network
    raise RetinaCodecError(f"{settings.model_type}: {reasons[0]}")


def _prune(network: LayeredNetwork, pruned: Mapping[str, Any]) -> None:
    """Set the channels that were pruned to zero, kernels and bias."""
    for name, channels in pruned.items():
        if not channels:
            continue
        if name not in network.layers:
            raise RetinaCodecError(f"pruned channels of {brief(name)}, which is no convolution")
        module = network.get_submodule(name)
        last: Any = module if isinstance(module, torch.nn.Conv2d) else list(module.children())[-1]
        chosen = sorted(int(channel) for channel in channels)
        with torch.no_grad():
            last.weight[chosen] = 0
            if last.bias is not None:
                last.bias[chosen] = 0


def _as_retina_cnn(network: LayeredNetwork) -> RetinaCNN | None:
    """Return the same network as a `RetinaCNN`, if its layers are those."""
    kinds = [layer["kind"] for layer in network.sequence]
    if len(kinds) != len(RETINA_CNN):
        return None
    if any(kind not in RETINA_CNN[number][1:] for number, kind in enumerate(kinds)):
        return None
    if network.sequence[2]["std"] != network.sequence[6]["std"]:
        return None
    stacked = all(_is_plain_stack(network.sequence[number]) for number in (0, 4))
    stacked = stacked and kinds[8] == "convolution"
    found = network if stacked else network.collapse()
    state = {}
    for key, value in found.state_dict().items():
        _, number, rest = key.split(".", 2)
        state[f"{RETINA_CNN[int(number)][0]}.{rest}"] = value
    bias = state.pop("conv3.bias", None)
    if bias is not None and bool(bias.any()):
        return None
    whole = [_whole(found.sequential[number]) for number in (0, 4, 8)]
    retina = RetinaCNN(
        network.cells,
        state["readout.locations"],
        history=network.history,
        frame_shape=network.frame_shape,
        channels=[convolution.out_channels for convolution in whole[:2]],
        kernel_sizes=[convolution.kernel_size[0] for convolution in whole],
        noise=network.sequence[2]["std"],
        normalisation=network.normalisation,
        frame_rate=network.frame_rate,
        stacked=stacked,
    )
    for key, value in retina.state_dict().items():
        if key.endswith("bias") and key not in state:
            state[key] = torch.zeros_like(value)
    retina.load_state_dict(state)
    return retina


def _whole(module: Any) -> torch.nn.Conv2d:
    plain: torch.nn.Conv2d = module.collapse() if hasattr(module, "collapse") else module
    return plain


def _is_plain_stack(layer: Mapping[str, Any]) -> bool:
    """Whether a `StackedConv2d` can hold the layer: 3 × 3 kernels, the same channels within."""
    return (
        layer["kind"] == "stack"
        and set(layer["sizes"]) == {3}
        and len(set(layer["channels"][1:])) == 1
    )


def _record(checkpoint: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return where the network comes from, in plain text and numbers."""
    hyps = _first(checkpoint, "hyps", "model_hyps")
    record: dict[str, Any] = {
        "source": "published checkpoint",
        "file": path.name,
        "sha256": sha256_of(path),
        "model_type": brief(checkpoint.get("model_type", hyps.get("model_type"))),
        "experiment": brief(_setting(checkpoint, hyps, "dataset", "unknown")),
        "stim_type": brief(_setting(checkpoint, hyps, "stim_type", "unknown")),
    }
    for name in RECORDED:
        value = _setting(checkpoint, hyps, name, None)
        value = value.item() if hasattr(value, "item") else value
        if isinstance(value, str | int | float):
            record[name] = brief(value) if isinstance(value, str) else value
    return record
