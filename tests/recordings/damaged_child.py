"""Reads damaged files in a process of its own, which libhdf5 may crash: one JSON line per file."""

import json
import resource
import sys
import time

import h5py
import numpy as np

from retina_codec.errors import RetinaCodecError
from retina_codec.recordings.maheswaranathan_2023.recording import read_maheswaranathan
from retina_codec.recordings.nwb.reader import read_nwb


def read_session(path):
    """The same for an NWB file with one movie and one units table, all of it test."""
    recording = read_nwb(path)
    frames = recording["test/stimulus"][:5].to_numpy()
    times = recording["spikes/spike_time"].to_numpy()
    with h5py.File(path, "r") as file:
        data = file["stimulus/presentation/movie/data"]
        factor = data.attrs.get("conversion", 1.0), data.attrs.get("offset", 0.0)
        stored = data[:5] if factor == (1.0, 0.0) else data[:5] * factor[0] + factor[1]
        trains = np.split(file["units/spike_times"][()], file["units/spike_times_index"][:-1])
    same = np.array_equal(frames, stored.astype(frames.dtype), equal_nan=True)
    return (
        "read"
        if same and np.array_equal(times, np.concatenate(list(map(np.sort, trains))))
        else "wrong"
    )


def read_all(path):
    """Open, read the first frames, and compare with what h5py says is stored."""
    if path.endswith(".nwb"):
        return read_session(path)
    recording = read_maheswaranathan(path)
    for split in ("train", "test"):
        if split not in recording.children:
            continue
        frames = recording[f"{split}/stimulus"][:5].to_numpy()
        rate = recording[f"{split}/rate"].to_numpy()
        with h5py.File(path, "r") as file:
            stored = file[f"{split}/stimulus"][:5]
            response = file[f"{split}/response/firing_rate_10ms"][()].T[: len(rate)]
        equal = np.array_equal(frames, stored) and np.array_equal(rate, response, equal_nan=True)
        if not equal:
            return "wrong"
    return "read"


def peak():
    """Highest resident memory of this process, bytes; ru_maxrss would also count its parent's."""
    try:
        with open("/proc/self/status") as status:
            found = [line.split()[1] for line in status if line.startswith("VmHWM:")]
            return int(found[0]) * 1024
    except (OSError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main(paths):
    for path in paths:
        start, text = time.monotonic(), ""
        try:
            outcome = read_all(path)
        except RetinaCodecError as error:
            outcome, text = "refused", str(error)
        except Exception as error:  # what must not happen
            outcome, text = "error", f"{type(error).__name__}: {error}"
        line = {
            "path": path,
            "outcome": outcome,
            "text": text,
            "seconds": time.monotonic() - start,
            "peak": peak(),
        }
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
