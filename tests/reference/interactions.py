"""Slow second form of joint silencing: one window at a time, channels at their answer to grey."""

import numpy as np
import torch


def rates_without(network, frames, channels):
    """Rates (time, cell), Hz, with the rectified output of (layer, channel)s held at grey's."""
    scale = network.normalisation
    frames = torch.as_tensor((np.asarray(frames, dtype=np.float32) - scale.mean) / scale.std)
    number = {layer: [c for one, c in channels if one == layer] for layer in ("conv1", "conv2")}

    def run(window):
        quiet = torch.relu(network.norm1(network.conv1(0 * window)))
        first = torch.relu(network.norm1(network.conv1(window)))
        first[:, number["conv1"]] = quiet[:, number["conv1"]]
        quiet = torch.relu(network.norm2(network.conv2(quiet)))
        second = torch.relu(network.norm2(network.conv2(first)))
        second[:, number["conv2"]] = quiet[:, number["conv2"]]
        return network.softplus(network.norm3(network.readout(network.conv3(second))))[0]

    with torch.no_grad():
        rows = [
            run(frames[t - network.history : t][None]) for t in range(network.history, len(frames))
        ]
    return torch.stack(rows).double().numpy()
