"""A session whose cells are those of some results, and what the NWB inspector says of a file."""

import numpy as np
import xarray as xr
from nwbinspector import Importance, inspect_nwbfile

from retina_codec.recordings.nwb.writer import write_nwb
from retina_codec.recordings.schema import make_recording


def write_session(path, cells, *, source_sha256="", extra=()):
    """A second of movie and spikes at 100 Hz; further cells stand before those asked for."""
    cells = [*extra, *cells]
    random = np.random.default_rng(0)
    split = xr.Dataset(
        {
            "stimulus": (("time", "y", "x"), random.integers(0, 255, (100, 4, 4), np.uint8)),
            "spike_count": (("time", "cell"), random.poisson(0.3, (100, len(cells)))),
        },
        coords={"time": np.arange(100) / 100, "cell": cells},
    )
    about = {"session": "small", "species": "Mus musculus", "source": "by hand"}
    recording = make_recording(
        train=None,
        test=split,
        frame_rate=100.0,
        pixel_size=50.0,
        source_sha256=source_sha256,
        **about,
    )
    write_nwb(recording, path)


def inspected(path):
    """Everything the NWB inspector says: what is serious, and the names of its suggestions."""
    messages = list(inspect_nwbfile(nwbfile_path=path))
    assert messages, "the inspector always has a suggestion; none means that it did not look"
    serious = [m for m in messages if m.importance != Importance.BEST_PRACTICE_SUGGESTION]
    return (
        [f"{m.importance.name} {m.check_function_name} {m.object_name}" for m in serious],
        {m.check_function_name for m in messages},
    )
