"""A user's three lines, on every format: open, look, analyze. The same recording everywhere."""

from datetime import UTC, datetime

import h5py
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from pynwb import NWBHDF5IO, NWBFile
from pynwb.base import Images
from pynwb.image import GrayscaleImage, ImageSeries, IndexSeries

import retina_codec as rc
from tests.recordings.small_recording import make_parts
from tests.small import small_network, small_recording

SETTINGS = {
    "settings": rc.analysis.AnalysisSettings(
        steps=2, modes=4, active=2, clusters=range(2, 4), own_windows=0, copies=0
    ),
    "progress": False,
}
CELLS = (1, 0, 2, 3, 4, 5)
BINS = 150


@pytest.fixture(scope="module")
def network():
    """The small network, its cells named by numbers, as files name them."""
    small = small_network()
    config = small.config() | {"cells": list(CELLS)}
    named = rc.networks.RetinaCNN.from_config(config)
    named.load_state_dict(small.state_dict())
    return named.eval()


@pytest.fixture(scope="module")
def recording():
    return small_recording(bins=BINS, repeats=2, train_bins=60)


def spike_times(recording):
    """Every cell's spikes on the session clock, each near the middle of its bin."""
    times = {}
    starts = recording["test/repeats/start_time"].values
    train = np.round(recording["train/rate"].values / 100).astype(int)
    test = np.round(recording["test/repeats/rate"].values / 100).astype(int)
    for number, cell in enumerate(CELLS):
        each = [np.repeat((np.arange(60) + 0.5) / 100, train[:, number])]
        each += [
            np.repeat(start + (np.arange(BINS) + 0.5) / 100, counts[:, number])
            for start, counts in zip(starts, test, strict=True)
        ]
        joined = np.concatenate(each)
        times[cell] = joined + 1e-6 * np.arange(joined.size)  # no two at one instant
    return times


def session(recording, path, stimulus):
    nwbfile = NWBFile("small", "id", datetime(2020, 1, 1, tzinfo=UTC))
    stimulus(
        nwbfile, np.concatenate([recording["train/stimulus"], *[recording["test/stimulus"]] * 2])
    )
    nwbfile.add_unit_column("cell_type", "type")
    types = recording["test/type"].values
    for number, (cell, times) in enumerate(spike_times(recording).items()):
        nwbfile.add_unit(id=cell, spike_times=times, cell_type=str(types[number]))
    start, length = 0.0, {"train": 0.6, "test": BINS / 100}
    for name in ("train", "test", "test"):
        nwbfile.add_trial(start_time=start, stop_time=start + length[name])
        start += length[name]
    with NWBHDF5IO(path, "w") as stream:
        stream.write(nwbfile)
    return path


def inline(nwbfile, frames):
    nwbfile.add_stimulus(ImageSeries(name="movie", data=frames, unit="n/a", rate=100.0))


def indexed(nwbfile, frames):
    shown, index = np.unique(frames, axis=0, return_inverse=True)
    pictures = [GrayscaleImage(name=f"p{n}", data=each) for n, each in enumerate(shown)]
    container = Images(name="pictures", images=pictures, description="in order of their numbers")
    nwbfile.add_stimulus_template(container)
    series = {"unit": "N/A", "indexed_images": container, "rate": 100.0}
    nwbfile.add_stimulus(IndexSeries(name="movie", data=index.ravel().astype("u4"), **series))


def published(recording, path):
    path.mkdir()
    with h5py.File(path / "naturalscene.h5", "w") as file:
        for split in ("train", "test"):
            node = recording[split].to_dataset()
            group = file.create_group(split)
            group["stimulus"] = node["stimulus"].values
            group["time"] = np.arange(node.sizes["time"]) / 100
            order = np.argsort(CELLS)
            group["response/firing_rate_10ms"] = node["rate"].values.T[order].astype("f8")
            group["response/binned"] = node["spike_count"].values.T[order].astype("f8")
        for number, place in enumerate(np.argsort(CELLS)):
            rates = recording["test/repeats/rate"].values[:, :, place].astype("f8")
            file[f"test/repeats/cell{number + 1:02d}"] = rates
    return path


SPLITS = {"train": (0, 0.6), "test": [(0.6, 2.1), (2.1, 3.6)]}
FORMATS = {
    "ours.nwb": {},
    "ours.nc": {},
    "ours.zarr": {},
    "inline.nwb": {"splits": SPLITS},
    "indexed.nwb": {"splits": SPLITS},
    "15-10-07": {},
}


def make(name, recording, folder):
    path = folder / name
    if name.startswith("ours"):
        renamed = {
            node.path: node.to_dataset(inherit=False).assign_coords(cell=list(CELLS))
            if "cell" in node.to_dataset(inherit=False).coords
            else node.to_dataset(inherit=False)
            for node in recording.subtree
        }
        rc.save_recording(type(recording).from_dict(renamed), path)
        return path
    if name == "15-10-07":
        return published(recording, path)
    return session(recording, path, inline if name == "inline.nwb" else indexed)


@pytest.mark.parametrize(
    "name",
    [
        # 200 pictures that are objects of their own take long to write
        pytest.param(name, marks=pytest.mark.slow) if name == "indexed.nwb" else name
        for name in FORMATS
    ],
)
@pytest.mark.filterwarnings("ignore:.*does not say the order:retina_codec.errors.RecordingWarning")
def test_three_lines(name, recording, network, tmp_path):
    path = make(name, recording, tmp_path)

    opened = rc.open_recording(path, **FORMATS[name])
    figure = rc.figures.plot_recording(opened)
    results = rc.analyze(opened, network, **SETTINGS)

    assert f"cell: {len(CELLS)}" in " ".join(repr(opened).split())
    test = opened["test"].to_dataset().sel(cell=list(CELLS))
    np.testing.assert_array_equal(test["stimulus"], recording["test/stimulus"])
    np.testing.assert_allclose(test["rate"], recording["test/rate"], rtol=1e-6)
    repeats = opened["test/repeats"].to_dataset().sel(cell=list(CELLS))
    np.testing.assert_allclose(repeats["rate"], recording["test/repeats/rate"], rtol=1e-6)
    np.testing.assert_array_equal(opened["train/stimulus"], recording["train/stimulus"])
    assert len(figure.axes) > 3
    plt.close(figure)
    # the road ends at the same numbers, wherever it began
    scale = network.normalisation
    stimulus = torch.as_tensor(
        (recording["test/stimulus"].values.astype("f4") - scale.mean) / scale.std
    )
    windows = torch.stack([stimulus[t - 8 : t] for t in range(8, BINS)])
    with torch.no_grad():
        expected = network(windows).numpy()
    np.testing.assert_allclose(results["responses/prediction"], expected, rtol=2e-4, atol=1e-3)


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
@pytest.mark.parametrize("cells", [[20, 3], "7", [7]])
def test_cells_are_chosen_in_every_format(tmp_path, suffix, cells):
    whole = rc.recordings.make_recording(**make_parts())
    rc.save_recording(whole, tmp_path / f"a{suffix}")
    found = rc.open_recording(tmp_path / f"a{suffix}", cells=cells)
    names = [int(cell) for cell in np.atleast_1d(cells)]
    assert found["test/cell"].values.tolist() == names
    for place in ("train/rate", "test/spike_count", "test/repeats/rate", "train/type_membership"):
        np.testing.assert_array_equal(found[place], whole[place].sel(cell=names))
    kinds = found["test/type"].values
    for number, kind in enumerate(found["test/cell_type"].values):
        members = found["test/rate"].values[:, kinds == kind]
        if members.size:
            np.testing.assert_allclose(
                found["test/type_rate"][:, number], members.mean(1), rtol=1e-6
            )
    with pytest.raises(
        rc.RetinaCodecError, match=rf"a{suffix}: cells must be names .* lacks \[5\]"
    ):
        rc.open_recording(tmp_path / f"a{suffix}", cells=[5])
