"""A slow second reading of a published file: one h5py call and one loop per value."""

import h5py
import numpy as np


def slow_split(path, split, response="firing_rate_10ms"):
    """Arrays of one split, (time, ...), cut to the movie, cell by cell."""
    with h5py.File(path, "r") as file:
        frames = file[f"{split}/stimulus"].shape[0]
        movie = np.stack([file[f"{split}/stimulus"][t] for t in range(frames)])
        stored = file[f"{split}/response/{response}"]
        rate = np.empty((frames, stored.shape[0]))
        for cell in range(stored.shape[0]):
            row = stored[cell, :]
            for t in range(frames):
                rate[t, cell] = row[t]
    return movie, rate


def slow_repeats(path, cells, frames, place="{cell}"):
    """Presentations (repeat, time, cell), NaN where missing."""
    with h5py.File(path, "r") as file:
        stored = file["test/repeats"]
        arrays = {}
        for number in range(cells):
            name = place.format(cell=f"cell{number + 1:02d}")
            if name in stored:
                arrays[number] = stored[name][()]
    found = np.full((max(map(len, arrays.values())), frames, cells), np.nan)
    for number, array in arrays.items():
        for repeat, row in enumerate(array):
            for t in range(frames):
                found[repeat, t, number] = row[t]
    return found


def slow_spikes(path, cell):
    with h5py.File(path, "r") as file:
        return sorted(file[f"spikes/cell{cell + 1:02d}"][()].tolist())
