"""Small files in the layout of Maheswaranathan et al. 2023, in every variant that is known."""

from pathlib import Path

import h5py
import numpy as np
from scipy.ndimage import gaussian_filter1d

RATE = 100.0  # Hz
TYPES = ("firing_rate_5ms", "firing_rate_10ms", "firing_rate_20ms")


def smooth(counts, name):
    """Counts (..., time) to Hz; the kernel is a stand-in, the published one is not known."""
    width = float(name.removeprefix("firing_rate_").removesuffix("ms")) / 1000 * RATE
    return gaussian_filter1d(counts * RATE, width, axis=-1)


def write_responses(group, counts, *, binned="counts", shown=1):
    """Write each kind of response, (cell, time); ``counts`` is (repeat, cell, time)."""
    response = group.create_group("response")
    for name in TYPES:
        response[name] = smooth(counts, name).mean(axis=0)
    values = {"counts": counts.sum(0), "mean": counts.mean(0), "hertz": counts.mean(0) * RATE}
    if binned is not None:
        response["binned"] = values[binned] / shown


def write_repeats(group, counts, layout):
    """``counts`` is (repeat, cell, time)."""
    if layout is None:
        return
    stored = group.create_group("repeats")
    for cell in range(counts.shape[1]):
        name, own = f"cell{cell + 1:02d}", counts[:, cell]
        if layout == "rates":
            stored[name] = smooth(own, "firing_rate_10ms")
        elif layout == "counts":
            stored[name] = own
        elif layout == "unequal":
            if cell == 1:
                continue
            stored[name] = smooth(own, "firing_rate_10ms")[: 1 + cell % counts.shape[0]]
        elif layout in ("type/cell", "cell/type"):
            for kind in TYPES:
                place = f"{kind}/{name}" if layout == "type/cell" else f"{name}/{kind}"
                stored[place] = smooth(own, kind)
    if layout in ("repeat, cell, time", "cell, repeat, time"):
        for kind in TYPES:
            values = smooth(counts, kind)
            stored[kind] = values if layout.startswith("repeat") else values.swapaxes(0, 1)


def write_published(
    path: Path,
    *,
    train_frames=120,
    test_frames=60,
    cells=6,
    repeats=3,
    size=(50, 50),
    dtype="uint8",
    longer=1,
    layout="rates",
    binned=("counts", "mean"),
    clocks=(0.0, 0.0),
    spikes=True,
    stas=False,
    seed=0,
    **storage,
):
    """Write one file; ``longer`` samples of the test response lie beyond the movie."""
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    with h5py.File(path, "w") as file:
        for name, frames, extra, shown, kind, clock in (
            ("train", train_frames, 0, 1, binned[0], clocks[0]),
            ("test", test_frames, longer, repeats, binned[1], clocks[1]),
        ):
            if frames is None:
                continue
            group = file.create_group(name)
            movie = random.integers(0, 256, (frames, *size)).astype(dtype)
            group.create_dataset("stimulus", data=movie, **storage)
            counts = random.poisson(0.2, (shown, cells, frames + extra)).astype(float)
            write_responses(group, counts, binned=kind)
            if clock is not None:
                group["time"] = clock + np.arange(frames) / RATE
            if name == "test":
                write_repeats(group, counts, layout)
            elif spikes:
                for cell in range(cells):
                    times = [
                        (clock or 0.0) + (t + (k + 0.5) / n) / RATE
                        for t, n in enumerate(counts[0, cell].astype(int))
                        for k in range(n)
                    ]
                    file[f"spikes/cell{cell + 1:02d}"] = np.array(times)
            if stas and name == "train":
                group["stas/cell01"] = random.normal(size=(5, *size))
    return path


def write_interneurons(path: Path, *, cells=3, seed=0, movingbar=True):
    random = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        shapes = {"boxes": (80, 38, 38), "lines": (70, 100), "flashes": (60,)}
        for name, shape in shapes.items():
            file[f"{name}/stimuli"] = random.integers(0, 2, shape).astype("u1")
            file[f"{name}/detrended_membrane_potential"] = random.normal(size=(cells, shape[0]))
        file["boxes/rfs/040412_c1"] = random.normal(size=(5, 38, 38))
        if movingbar:
            file["movingbar/stimuli"] = random.random((10, 24))
            file["movingbar/detrended_membrane_potential"] = random.normal(size=(cells, 50))
    return path
