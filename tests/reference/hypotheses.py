"""Slow second forms of silencing, matching and power, one window and one unit at a time."""

import numpy as np
import torch
from torch.nn import functional


def silenced_rates(network, frames, layer, channels, strength, rest):
    """Rates (time, cell) with the rectified output of channels pulled towards ``rest(a)``."""

    def cut(values, name, grey):
        values = values.clone()
        if name == layer:
            for channel in channels:
                target = grey[:, channel] if rest == "grey" else 0 * grey[:, channel]
                values[:, channel] = (1 - strength) * values[:, channel] + strength * target
        return values

    def run(window):
        grey_first = functional.relu(network.norm1(network.conv1(0 * window)))
        grey_second = functional.relu(network.norm2(network.conv2(grey_first)))
        first = cut(functional.relu(network.norm1(network.conv1(window))), "conv1", grey_first)
        second = functional.relu(network.norm2(network.conv2(first)))
        second = cut(second, "conv2", grey_second)
        return network.softplus(network.norm3(network.readout(network.conv3(second))))[0]

    scale = network.normalisation
    frames = torch.as_tensor((np.asarray(frames, dtype=np.float32) - scale.mean) / scale.std)
    with torch.no_grad():
        rows = [
            run(frames[t - network.history : t][None]) for t in range(network.history, len(frames))
        ]
    return torch.stack(rows).numpy()


def unit_activations(network, frames):
    """Activations before the rectifier of both layers, (time, channel, row, column) each."""
    scale = network.normalisation
    frames = torch.as_tensor((np.asarray(frames, dtype=np.float32) - scale.mean) / scale.std)
    found = {"conv1": [], "conv2": []}
    with torch.no_grad():
        for t in range(network.history, len(frames)):
            first = network.norm1(network.conv1(frames[t - network.history : t][None]))
            found["conv1"].append(first[0].numpy())
            second = network.norm2(network.conv2(functional.relu(first)))
            found["conv2"].append(second[0].numpy())
    return {name: np.stack(values).astype(np.float64) for name, values in found.items()}
