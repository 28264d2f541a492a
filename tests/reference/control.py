"""Control of a network, slowly: one set, one image and one class at a time, with plain hooks."""

import numpy as np
import torch


def held_back(network, module, x, keep, axis=1, held_at=0.0):
    """Outputs (b, n) of a network whose module's output keeps ``keep`` (c,) of every channel."""

    def change(_module, _inputs, output):
        parts = []
        for channel, share in enumerate(keep):
            one = output.select(axis, channel)
            parts.append(float(share) * one + (1 - float(share)) * held_at)
        return torch.stack(parts, axis)

    handle = module.register_forward_hook(change)
    try:
        with torch.no_grad():
            return torch.cat([network(x[i : i + 1]) for i in range(len(x))])
    finally:
        handle.remove()


def accuracy(outputs, labels, wanted):
    """Share of the images of one class that are answered rightly."""
    hits = [int(o.argmax()) == w for o, w in zip(outputs, labels, strict=True) if w == wanted]
    return sum(hits) / len(hits)


def curves(network, module, x, labels, weights, counts, style, classes):
    """Ratio on and off target, (concept, 2, point): weights (concept, channel), all images."""
    channels = weights.shape[1]
    original = [
        accuracy(held_back(network, module, x, np.ones(channels)), labels, c) for c in classes
    ]
    found = np.full((len(classes), 2, len(counts)), np.nan)
    for concept in range(len(classes)):
        order = sorted(range(channels), key=lambda c: -weights[concept, c])
        for point, count in enumerate(counts):
            keep = np.ones(channels) if style == "ablate" else np.zeros(channels)
            for channel in order[:count]:
                keep[channel] = 0.0 if style == "ablate" else 1.0
            outputs = held_back(network, module, x, keep)
            ratio = [
                accuracy(outputs, labels, c) / original[n] if original[n] else np.nan
                for n, c in enumerate(classes)
            ]
            found[concept, 0, point] = ratio[concept]
            others = [r for n, r in enumerate(ratio) if n != concept and not np.isnan(r)]
            found[concept, 1, point] = sum(others) / len(others)
    return found


def area(x, y):
    """Area under straight lines between points."""
    return sum((x[i + 1] - x[i]) * (y[i + 1] + y[i]) / 2 for i in range(len(x) - 1))


def weighted_ratio(right, original, weight, code, wanted):
    """Accuracy of a class over its original one, images counted ``weight`` times each."""
    hits = whole = 0
    for r, o, w, c in zip(right, original, weight, code, strict=True):
        for _ in range(int(w)):
            if c == wanted:
                hits += int(r)
                whole += int(o)
    return hits / whole if whole else float("nan")
