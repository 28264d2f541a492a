import h5py
import numpy as np
import pytest
import xarray as xr
from nwbinspector import Importance, inspect_nwbfile
from pynwb import NWBHDF5IO

from retina_codec.errors import RetinaCodecError
from retina_codec.recordings.binning import bin_spikes
from retina_codec.recordings.nwb.session import (
    Presentation,
    observed_intervals,
    presentations_of,
)
from retina_codec.recordings.nwb.writer import (
    exact_spikes,
    observed_with_spikes,
    smallest_difference,
    write_nwb,
)
from retina_codec.recordings.schema import make_recording
from tests.recordings.small_recording import CELLS, RATE


def jittered(recording, seed=3):
    """Spike times that give the counts of a recording, anywhere in their bins."""
    random = np.random.default_rng(seed)
    times, labels = [], []
    for entry in presentations_of(recording):
        for cell, label in enumerate(recording["test/cell"].values):
            counts = np.nan_to_num(entry.counts[:, cell]).astype(int)
            bins = np.repeat(np.arange(counts.size), counts)
            times.append(entry.start + (bins + random.uniform(0.01, 0.99, bins.size)) / RATE)
            labels.append(np.full(bins.size, label))
    times, labels = np.concatenate(times), np.concatenate(labels)
    order = np.argsort(times)
    return spikes_node(times[order], labels[order])


def spikes_node(times, labels):
    return xr.Dataset(
        {
            "spike_time": ("spike", np.asarray(times, float), {"units": "s"}),
            "spike_cell": ("spike", np.asarray(labels)),
        }
    )


def with_spikes(recording, node):
    recording = recording.copy()
    recording["spikes"] = xr.DataTree(node)
    return recording


@pytest.fixture
def exact(recording):
    return with_spikes(recording, jittered(recording))


def units_of(path):
    with NWBHDF5IO(path, "r") as stream:
        units = stream.read().units
        return (
            [np.asarray(train) for train in units["spike_times"][:]],
            [np.asarray(rows) for rows in units["obs_intervals"][:]],
            units.resolution,
        )


def test_times_go_into_the_file_as_they_are(exact, tmp_path):
    kept = exact.copy(deep=True)
    write_nwb(exact, tmp_path / "session.nwb")
    xr.testing.assert_identical(exact, kept)
    found, _, resolution = units_of(tmp_path / "session.nwb")
    node = exact["spikes"].to_dataset()
    for cell, train in zip(CELLS, found, strict=True):
        np.testing.assert_array_equal(train, node["spike_time"][node["spike_cell"] == cell])
    steps = np.concatenate([np.diff(train) for train in found])
    assert resolution == min(steps.min(), 0.01)


def test_without_the_node_spikes_are_placed_evenly(exact, tmp_path):
    write_nwb(exact.drop_nodes("spikes"), tmp_path / "session.nwb")
    found, _, _ = units_of(tmp_path / "session.nwb")
    counts = exact["train/spike_count"].values
    single = np.flatnonzero(counts[:, 0] == 1)
    middles = (single + 0.5) / RATE
    assert all(np.isclose(found[0], middle, rtol=0, atol=1e-12).any() for middle in middles)
    assert not np.isin(exact["spikes/spike_time"].values, found[0]).any()


def test_other_counts_are_refused_and_the_way_out_works(exact, tmp_path):
    node = exact["spikes"].to_dataset()
    wrong = with_spikes(exact, node.isel(spike=slice(1, None)))
    cell, first = node["spike_cell"].values[0], node["spike_time"].values[0]
    words = rf"counts of the train split; 1 bins differ.*cell {cell} has .*drop_nodes\('spikes'\)"
    with pytest.raises(RetinaCodecError, match=words):
        write_nwb(wrong, tmp_path / "session.nwb")
    assert list(tmp_path.iterdir()) == []
    moved = node["spike_time"].copy(
        data=np.where(node["spike_time"] == first, first + 1 / RATE, node["spike_time"])
    )
    with pytest.raises(RetinaCodecError, match="2 bins differ"):
        write_nwb(
            with_spikes(exact, node.assign(spike_time=moved).sortby("spike_time")),
            tmp_path / "x.nwb",
        )
    write_nwb(wrong.drop_nodes("spikes"), tmp_path / "session.nwb")
    assert (tmp_path / "session.nwb").is_file()


@pytest.mark.parametrize(
    ("times", "labels", "words"),
    [
        ([0.1, 0.2], [3, 8], r"name cells of the recording; \[8\] are none of \[3, 7, 20\]"),
        ([0.2, 0.1], [3, 3], "ascend for each cell; those of cell 3"),
        ([0.2, np.nan], [3, 7], "finite times .* those of cell 7"),
    ],
)
def test_spikes_that_are_none_are_refused(recording, times, labels, words):
    with pytest.raises(RetinaCodecError, match=words):
        exact_spikes(with_spikes(recording, spikes_node(times, labels)))


def test_spikes_are_sorted_by_cell_and_keep_their_order(recording):
    node = spikes_node([0.3, 0.1, 0.2, 0.3, 0.5], [20, 3, 3, 3, 20])
    found = exact_spikes(with_spikes(recording, node))
    assert [train.tolist() for train in found] == [[0.1, 0.2, 0.3], [], [0.3, 0.5]]
    assert exact_spikes(recording) is None
    assert smallest_difference(found) == pytest.approx(0.1)
    assert np.isnan(smallest_difference([np.array([1.0, 1.0]), np.array([])]))


def test_pauses_with_spikes_were_observed_and_missing_bins_stay_missing():
    nan = np.nan
    one = Presentation("train", -1, 1.0, 10.0, np.array([[0.0], [1.0], [nan]]))
    two = Presentation("test", -1, 2.0, 10.0, np.array([[nan], [0.0], [1.0]]))
    spikes = np.array([0.4, 1.15, 1.7, 2.25, 3.5])
    found = observed_with_spikes(observed_intervals([one, two], 0), [one, two], spikes)
    np.testing.assert_allclose(found, [[0.4, 1.2], [1.3, 2.0], [2.1, 3.5]])
    inside = (spikes[:, None] >= found[:, 0]) & (spikes[:, None] <= found[:, 1])
    assert inside.any(axis=1).all()
    for entry in (one, two):
        np.testing.assert_array_equal(bin_spikes([spikes], [found], entry.edges), entry.counts)
    quiet = np.array([1.15, 2.25])  # none in the pause: nothing is known of it
    found = observed_with_spikes(observed_intervals([one, two], 0), [one, two], quiet)
    np.testing.assert_allclose(found, observed_intervals([one, two], 0))


def test_a_spike_a_rounding_error_before_its_bin_is_observed():
    entry = Presentation("test", -1, 0.0, 100.0, np.array([[np.nan]] * 57 + [[1.0]]))
    spike = np.array([0.57])
    assert spike[0] < 57 * 0.01
    found = observed_with_spikes(np.array([[57 * 0.01, 0.58]]), [entry], spike)
    assert found.tolist() == [[0.57, 0.58]]


def test_the_inspector_accepts_spikes_in_pauses(parts, tmp_path):
    for name in ("test", "interneurons"):
        parts[name] = parts[name].assign_coords(time=10 + np.arange(23) / RATE)
    parts["repeats"] = parts["repeats"].assign_coords(start_time=("repeat", [10.0, 20.0, 30.5]))
    recording = make_recording(**parts)
    node = jittered(recording)
    times = np.append(node["spike_time"].values, [5.0, 15.0, 40.0])
    labels = np.append(node["spike_cell"].values, [7, 7, 3])
    order = np.argsort(times)
    write_nwb(with_spikes(recording, spikes_node(times[order], labels[order])), tmp_path / "s.nwb")
    messages = list(inspect_nwbfile(nwbfile_path=tmp_path / "s.nwb"))
    serious = [m for m in messages if m.importance != Importance.BEST_PRACTICE_SUGGESTION]
    assert messages
    assert [f"{m.check_function_name}: {m.message}" for m in serious] == []
    trains, observed, _ = units_of(tmp_path / "s.nwb")
    for train, rows in zip(trains, observed, strict=True):
        inside = (train[:, None] >= rows[:, 0]) & (train[:, None] <= rows[:, 1])
        assert inside.any(axis=1).all()
    with h5py.File(tmp_path / "s.nwb") as file:
        assert file["units/spike_times"].size == times.size


def test_the_inspector_accepts_a_slow_movie_with_few_spikes(tmp_path):
    split = xr.Dataset(
        {
            "stimulus": (("time", "y", "x"), np.zeros((40, 4, 4), np.uint8)),
            "spike_count": (("time", "cell"), np.arange(80).reshape(40, 2) % 3 == 0),
        },
        coords={"time": np.arange(40) / 20, "cell": [1, 2]},
    )
    split["spike_count"] = split["spike_count"].astype(int)
    about = {"session": "slow", "species": "Mus musculus", "source": "by hand"}
    recording = make_recording(train=None, test=split, frame_rate=20.0, pixel_size=50.0, **about)
    write_nwb(recording, tmp_path / "slow.nwb")
    messages = list(inspect_nwbfile(nwbfile_path=tmp_path / "slow.nwb"))
    assert messages
    serious = [m for m in messages if m.importance != Importance.BEST_PRACTICE_SUGGESTION]
    assert [f"{m.check_function_name}: {m.message}" for m in serious] == []
