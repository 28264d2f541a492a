"""Results that look like those of a retina, made without a network, to draw and report."""

import numpy as np
import xarray as xr
from sklearn.metrics import adjusted_rand_score

TYPES = ("OFF sustained", "OFF transient", "ON sustained", "object motion")
SIGNS = ["inhibitory", "excitatory"]
HISTORY, RATE, SIDE = 40, 100.0, 50


def synthetic_results(
    seed: int = 0, duration: float = 60.0, cells_per_type: int = 4, per_type: int = 3
) -> xr.DataTree:
    """Build a results tree: three layers, heavy-tailed contributions, modes, pathways, fields."""
    rng = np.random.default_rng(seed)
    n_cells, n_modes = cells_per_type * len(TYPES), per_type * len(TYPES)
    kind = np.repeat(np.arange(len(TYPES)), cells_per_type)
    time = (np.arange(int(duration * RATE) - HISTORY) + HISTORY) / RATE
    drive = _drive(rng, len(time), n_modes)  # (time, mode), heavy-tailed bursts
    owner = np.repeat(np.arange(len(TYPES)), per_type)
    weight = (owner[:, None] == kind) * rng.uniform(0.5, 1.2, (n_modes, n_cells))
    weight = weight + 0.08 * rng.random((n_modes, n_cells))
    private = 0.3 * rng.gamma(0.5, 2.0, (len(time), n_cells))
    prediction = 0.4 + 9 * np.sqrt(drive) @ weight + private
    rate = rng.poisson(prediction / RATE * 10) / 10 * RATE
    cells = {
        "cell": np.arange(n_cells),
        "type": ("cell", [TYPES[k] for k in kind]),
        "center_y": ("cell", rng.uniform(17, 33, n_cells), {"units": "px"}),
        "center_x": ("cell", rng.uniform(17, 33, n_cells), {"units": "px"}),
    }
    times = {"time": ("time", time, {"units": "s"})}
    mean, covariance = prediction.mean(0), np.cov(prediction.T)
    target = _surprisal(prediction, mean, covariance)
    hz, nats = {"units": "Hz"}, {"units": "nats"}
    responses = xr.Dataset(
        {
            "rate": (("time", "cell"), rate.astype("f4"), hz),
            "prediction": (("time", "cell"), prediction.astype("f4"), hz),
            "target": ("time", target.astype("f4"), nats | {"long_name": "surprisal"}),
            "mean": ("cell", mean, hz),
            "covariance": (("cell", "other_cell"), covariance, {"units": "Hz²"}),
            "condition_number": ((), np.linalg.cond(covariance), {"units": "1"}),
            "pearson": ("cell", rng.uniform(0.74, 0.86, n_cells), {"units": "1"}),
            "noise_ceiling": ("cell", rng.uniform(0.84, 0.92, n_cells), {"units": "1"}),
        },
        coords=times | cells | {"other_cell": np.arange(n_cells)},
    )
    nodes: dict[str, xr.Dataset] = {"/responses": responses}
    pathway = {}
    for depth, (name, channels) in enumerate((("conv1", 8), ("conv2", 8), ("conv3", n_cells))):
        layer, modes = _layer(rng, drive, channels, times, name)
        nodes[f"/layers/{name}"], nodes[f"/layers/{name}/modes"] = layer, modes
        loading = modes["loading"].values
        correlation = np.corrcoef(loading.T, prediction.T)[: loading.shape[1], loading.shape[1] :].T
        label = kind.copy()
        if depth == 0:
            label[1] = kind[-1]  # one cell goes astray
        pathway[name] = label
        silhouette = np.array([0.41, 0.55, 0.71, 0.6, 0.47, 0.39, 0.3]) - 0.02 * depth
        nodes[f"/layers/{name}/pathways"] = xr.Dataset(
            {
                "correlation": (("cell", "mode"), correlation, {"units": "1"}),
                "pathway": ("cell", label),
                "silhouette": ("k", silhouette, {"units": "1"}),
            },
            coords={**cells, "mode": modes["mode"].values, "k": np.arange(2, 9)},
            attrs={"k": 4, "rates": "prediction", "seed": 0},
        )
    layers = list(pathway)
    agreement = np.array([[_rand(pathway[a], pathway[b]) for b in layers] for a in layers])
    nodes["/pathways"] = xr.Dataset(
        {
            "agreement": (("layer", "other_layer"), agreement, {"units": "1"}),
            "type_agreement": (
                "layer",
                [_rand(pathway[name], kind) for name in layers],
                {"units": "1"},
            ),
        },
        coords={"layer": layers, "other_layer": layers},
    )
    nodes["/receptive_fields"] = _fields(rng, nodes, kind, cells)
    tree = xr.DataTree.from_dict(nodes)
    tree.attrs = {
        "method": "IntegratedGradients",
        "target": "Surprisal(mean=estimated, covariance=estimated, shrinkage=None)",
        "steps": 20,
        "path": "input",
        "baseline": 0.0,
        "seed": 0,
        "network": "RetinaCNN",
        "network_sha256": "b" * 64,
        "source": "session.nwb",
        "source_sha256": "a" * 64,
        "session": "synthetic",
        "species": "none (simulated)",
        "frame_rate": RATE,
        "pixel_size": 50.0,
        "dtype": "float32",
        "split": "test",
        "versions": "retina-codec 0.1.0, torch 2.13.0, numpy 2.4.6, xarray 2026.9.0",
        "command": "retina-codec analyze session.nwb --network insilico --out results",
    }
    return tree


def _drive(rng: np.random.Generator, n: int, modes: int) -> np.ndarray:
    """Bursts after each scene change, fast or slow, with sizes from a heavy tail."""
    out = np.zeros((n, modes))
    for mode in range(modes):
        decay = (4.0, 12.0, 25.0)[mode % 3]
        kernel = np.exp(-np.arange(100) / decay) * (1 - np.exp(-np.arange(100) / 2.0))
        size = np.zeros(n)
        onsets = np.arange(5, n, 100)
        chosen = onsets[rng.random(len(onsets)) < 0.3]
        size[chosen] = rng.pareto(2.5, len(chosen)) + 0.2
        drift = rng.choice(n, n // 300, replace=False)
        size[drift] += 0.4 * rng.pareto(3.0, len(drift))
        out[:, mode] = np.convolve(size, kernel)[:n]
    return out


def _surprisal(y: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    distance = np.einsum("ti,ij,tj->t", y - mean, np.linalg.inv(covariance), y - mean)
    return 0.5 * distance + 0.5 * np.linalg.slogdet(2 * np.pi * covariance)[1]


def _rand(a: np.ndarray, b: np.ndarray) -> float:
    return float(adjusted_rand_score(a, b))


def _layer(
    rng: np.random.Generator,
    drive: np.ndarray,
    channels: int,
    times: dict,
    name: str,
) -> tuple[xr.Dataset, xr.Dataset]:
    """Draw a layer's contributions from its modes; return the layer and the modes."""
    n, modes = drive.shape
    dictionary = np.zeros((modes, 2, channels))
    for mode in range(modes):
        chosen = rng.choice(channels, 3, replace=False)
        dictionary[mode, 1, chosen[:2]] = rng.uniform(0.4, 1.0, 2)
        dictionary[mode, 0, chosen[1:]] = -rng.uniform(0.2, 0.7, 2)
    dictionary /= np.linalg.norm(dictionary, axis=(1, 2), keepdims=True)
    loading = drive * rng.uniform(20, 45, modes)
    order = np.argsort(-(loading**2).sum(0))
    dictionary, loading = dictionary[order], loading[:, order]
    clean = np.einsum("tm,msc->tsc", loading, dictionary)
    noise = np.abs(rng.normal(0, 0.3, clean.shape)) * np.array([-1, 1])[:, None]
    contribution = clean + noise
    scale = float(contribution.std())
    change = contribution.sum((1, 2))
    error = change * rng.normal(0, 0.002, n)
    split = np.where(np.arange(n) < 0.75 * n, "fit", "held_out").astype(object)
    split[int(0.75 * n) - 40 : int(0.75 * n)] = "gap"
    nats = {"units": "nats"}
    layer = xr.Dataset(
        {
            "contribution": (("time", "sign", "channel"), contribution.astype("f4"), nats),
            "activation": (
                ("time", "channel"),
                rng.random((n, channels)).astype("f4"),
                {"units": "1"},
            ),
            "completeness_error": ("time", error.astype("f4"), nats),
            "target_change": ("time", (change - error).astype("f4"), nats),
        },
        coords=times | {"sign": SIGNS, "channel": np.arange(channels)},
    )
    held = split == "held_out"
    residual = ((contribution - clean)[held] ** 2).sum(0)
    variance = ((contribution[held] - contribution[held].mean(0)) ** 2).sum(0)
    active = loading > 0.05 * scale * 20
    found = xr.Dataset(
        {
            "dictionary": (("mode", "sign", "channel"), dictionary, {"units": "1"}),
            "loading": (("time", "mode"), loading.astype("f4"), nats),
            "active": (("time", "mode"), active),
            "r2": ((), 1 - residual.sum() / variance.sum(), {"units": "1"}),
            "r2_feature": (("sign", "channel"), 1 - residual / variance, {"units": "1"}),
            "r2_fit": ((), 1 - residual.sum() / variance.sum() + 0.01, {"units": "1"}),
            "mean_active": ((), active[held].sum(1).mean(), {"units": "count"}),
            "live_modes": ((), modes, {"units": "count"}),
            "scale": ((), scale, nats),
        },
        coords=times
        | {
            "mode": np.arange(modes),
            "sign": SIGNS,
            "channel": np.arange(channels),
            "split": ("time", split.astype(str)),
        },
        attrs={"method": "SparseAutoencoder", "modes": 32, "active": 3, "seed": 0, "layer": name},
    )
    return layer, found


def _fields(
    rng: np.random.Generator, nodes: dict[str, xr.Dataset], kind: np.ndarray, cells: dict
) -> xr.Dataset:
    """Centre-surround fields, tilted by the active modes, at the liveliest events."""
    responses, modes = nodes["/responses"], nodes["/layers/conv2/modes"]
    active, prediction = modes["active"].values, responses["prediction"].values
    size = active.sum(1)
    labels = np.array(["+".join(map(str, np.flatnonzero(row))) for row in active])
    events: list[int] = []
    for wanted in (size == 1, (size > 1) & (size < 6)):
        names, count = np.unique(labels[wanted], return_counts=True)
        for name in names[np.argsort(-count, kind="stable")][:3]:
            members = np.flatnonzero(labels == name)
            members = members[np.argsort(-prediction[members].sum(1))]
            taken: list[int] = []
            for m in members:
                if all(abs(m - other) >= 20 for other in taken):
                    taken.append(int(m))
            events += taken[:3]
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    lag = np.arange(HISTORY, 0, -1) / RATE
    spatial = np.zeros((len(events), len(kind), SIDE, SIDE), "f4")
    temporal = np.zeros((len(events), len(kind), HISTORY), "f4")
    polarity = np.array([-1, -1, 1, 1])
    for e, event in enumerate(events):
        for c, k in enumerate(kind):
            dy, dx = y - cells["center_y"][1][c], x - cells["center_x"][1][c]
            angle = 0.6 * np.flatnonzero(active[event]).sum()
            u = dy * np.cos(angle) + dx * np.sin(angle)
            v = -dy * np.sin(angle) + dx * np.cos(angle)
            stretch = 1 + 0.5 * (active[event].sum() - 1)
            center = np.exp(-(u**2 + v**2 * stretch) / (2 * 2.5**2))
            surround = np.exp(-(u**2 + v**2) / (2 * 5.0**2))
            field = center - (0.15 + 0.1 * (stretch - 1)) * surround
            gain = 0.02 * prediction[event, c]
            spatial[e, c] = polarity[k] * gain * (field + 0.03 * rng.normal(size=field.shape))
            course = lag / 0.06 * np.exp(-lag / 0.06) - (0.5 if k % 2 else 0.15) * lag / 0.12 * (
                np.exp(-lag / 0.12)
            )
            temporal[e, c] = course / np.linalg.norm(course)
    shown = prediction[events]
    gradient = {"units": "Hz per standard deviation of intensity"}
    pair = ("event", "cell")
    return xr.Dataset(
        {
            "spatial": ((*pair, "y", "x"), spatial, gradient),
            "temporal": ((*pair, "lag"), temporal, {"units": "1"}),
            "rank1": (pair, rng.uniform(0.6, 0.95, shown.shape), {"units": "1"}),
            "mean": (pair, np.zeros(shown.shape), gradient),
            "prediction": (pair, shown, {"units": "Hz"}),
            "responding": (pair, shown >= 4.0),
            "scene": (
                ("event", "y", "x"),
                np.cumsum(rng.normal(0, 0.3, (len(events), SIDE, SIDE)), axis=2).astype("f4"),
                {"units": "standard deviation of intensity"},
            ),
        },
        coords={
            "time": ("event", responses["time"].values[events], {"units": "s"}),
            "combination": ("event", labels[events].astype(str)),
            "lag": ("lag", lag, {"units": "s"}),
            "y": ("y", np.arange(SIDE), {"units": "px"}),
            "x": ("x", np.arange(SIDE), {"units": "px"}),
            **cells,
        },
        attrs={"layer": "conv2", "minimum_rate": 4.0},
    )
