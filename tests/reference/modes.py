"""Slow second implementations for the modes and pathways rooms, straight from the formulas."""

from itertools import combinations

import numpy as np
from scipy.optimize import nnls


def planted_modes(seed, *, samples=6000, modes=12, active=0.12, noise=0.02, amplitude="lognormal"):
    """Contributions (sample, sign, channel) made of known modes (mode, sign, channel)."""
    generator = np.random.default_rng(seed)
    shape = (modes, 2, 8)
    dictionary = generator.gamma(1.0, 1.0, shape) * (generator.random(shape) < 0.35)
    for mode in dictionary.reshape(modes, -1):
        if (mode > 0).sum() < 2:
            mode[generator.choice(16, 3, replace=False)] = generator.gamma(1.0, 1.0, 3) + 0.2
    dictionary /= np.sqrt((dictionary**2).sum((1, 2), keepdims=True))
    dictionary[:, 0] *= -1
    draws = {
        "lognormal": lambda size: generator.lognormal(0, 1, size),
        "gamma": lambda size: generator.gamma(0.5, 2.0, size),
    }
    size = (samples, modes)
    loading = (generator.random(size) < active) * draws[amplitude](size)
    clean = np.einsum("tm,msc->tsc", loading, dictionary)
    return clean + noise * clean.std() * generator.normal(size=clean.shape), dictionary, loading


def best_code(sample, dictionary, active):
    """Try every support of ``active`` modes; return the least squared error of all."""
    return min(
        nnls(dictionary[list(support)].T, sample)[1] ** 2
        for support in combinations(range(len(dictionary)), active)
    )


def projected_gradient(sample, dictionary, steps):
    """Unlearned encoder: steps of projected gradient descent on ‖u − a D‖², times ‖x‖."""
    length = np.linalg.norm(sample)
    unit = sample / length
    largest = np.linalg.eigvalsh(dictionary @ dictionary.T).max()
    loading = np.zeros(len(dictionary))
    for _ in range(steps):
        gradient = -(dictionary @ (unit - loading @ dictionary))
        loading = np.maximum(0, loading - gradient / largest)
    return length * loading


def layer_norm(values, weight, bias, epsilon=1e-5):
    return (values - values.mean()) / np.sqrt(values.var() + epsilon) * weight + bias


def gated_loading(sample, state, threshold):
    """Published gates of one sample, from a network's weights by name (dropout off)."""
    hidden = sample
    for first in (0, 4):
        linear = state[f"encoder.{first}.weight"] @ hidden + state[f"encoder.{first}.bias"]
        norm = f"encoder.{first + 3}"
        hidden = layer_norm(np.maximum(linear, 0), state[f"{norm}.weight"], state[f"{norm}.bias"])
    gate = 1 / (1 + np.exp(-(state["encoder.8.weight"] @ hidden)))
    return np.where(gate >= threshold, gate, 0.0)


def explained_variance(values, rebuilt):
    """Compute R² of each feature and of all, by loops; arrays (sample, feature)."""
    left, spread = [], []
    for feature in range(values.shape[1]):
        mean = sum(values[:, feature]) / len(values)
        left.append(sum((values[:, feature] - rebuilt[:, feature]) ** 2))
        spread.append(sum((values[:, feature] - mean) ** 2))
    each = [1 - a / b if b > 0 else np.nan for a, b in zip(left, spread, strict=True)]
    return np.array(each), 1 - sum(left) / sum(spread)


def silhouette(points, groups):
    """Mean of (b − a) / max(a, b): a to one's own group, b to the nearest other; 0 if alone."""
    scores = []
    for i, point in enumerate(points):
        distance = np.array([np.linalg.norm(point - other) for other in points])
        own = [j for j in range(len(points)) if groups[j] == groups[i] and j != i]
        if not own:
            scores.append(0.0)
            continue
        a = distance[own].mean()
        b = min(distance[groups == g].mean() for g in set(groups) if g != groups[i])
        scores.append((b - a) / max(a, b))
    return float(np.mean(scores))


def adjusted_rand(one, other):
    """Agreement of two groupings from pairs: (found − expected) / (largest − expected)."""
    pairs = list(combinations(range(len(one)), 2))
    same_one = sum(one[i] == one[j] for i, j in pairs)
    same_other = sum(other[i] == other[j] for i, j in pairs)
    both = sum(one[i] == one[j] and other[i] == other[j] for i, j in pairs)
    expected = same_one * same_other / len(pairs)
    return (both - expected) / ((same_one + same_other) / 2 - expected)


def top_k_loading(sample, state, active):
    """The ``active`` largest of ReLU(x W + b), from a network's weights by name."""
    loading = np.maximum(sample @ state["weight"] + state["bias"], 0)
    for mode in np.argsort(-loading)[active:]:
        loading[mode] = 0
    return loading


def batch_top_k(samples, state, active):
    """The ``active`` × samples largest of ReLU(X W + b) together."""
    loading = np.maximum(samples @ state["weight"] + state["bias"], 0)
    places = np.argsort(-loading, axis=None)[: active * len(samples)]
    kept = np.zeros(loading.size)
    kept[places] = loading.ravel()[places]
    return kept.reshape(loading.shape)
