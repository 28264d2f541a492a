"""Responses of published files: counts, presentations and spikes in every known layout."""

import h5py
import numpy as np
import pytest

from retina_codec.errors import RecordingWarning, RetinaCodecError
from retina_codec.recordings.maheswaranathan_2023.recording import read_maheswaranathan
from tests.recordings.published_files import write_published
from tests.reference.published import slow_repeats, slow_spikes, slow_split

PLACE = "15-10-07/naturalscene.h5"


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    return write_published(tmp_path_factory.mktemp("published") / PLACE, stas=True)


def test_counts_are_the_binned_response_summed_over_presentations(published):
    recording = read_maheswaranathan(published)
    _, binned = slow_split(published, "train", "binned")
    np.testing.assert_array_equal(recording["train/spike_count"], binned)
    _, mean = slow_split(published, "test", "binned")
    np.testing.assert_array_equal(recording["test/spike_count"], np.round(mean * 3))
    assert "times 3: the sum" in recording["test/spike_count"].attrs["long_name"]
    assert recording["test/spike_count"].dtype == np.int32


@pytest.mark.parametrize(
    ("binned", "words"),
    [
        (("counts", "counts"), "binned, as stored"),
        (("hertz", "hertz"), "stored in Hz"),
        (("counts", "mean"), "times 3"),
    ],
)
def test_counts_and_their_rates_are_the_same_however_binned_is_stored(tmp_path, binned, words):
    path = write_published(tmp_path / PLACE, binned=binned)
    recording = read_maheswaranathan(path, response="binned")
    plain = read_maheswaranathan(write_published(tmp_path / "b" / PLACE))
    for split, shown in (("train", 1), ("test", 3)):
        np.testing.assert_array_equal(
            recording[f"{split}/spike_count"], plain[f"{split}/spike_count"]
        )
        np.testing.assert_allclose(
            recording[f"{split}/rate"], plain[f"{split}/spike_count"].values * (100 / shown)
        )
    assert words in recording["test/spike_count"].attrs["long_name"]


def test_without_binned_responses_counts_are_missing_and_not_invented(tmp_path):
    recording = read_maheswaranathan(write_published(tmp_path / PLACE, binned=(None, None)))
    for split in ("train", "test"):
        assert np.isnan(recording[f"{split}/spike_count"]).all()
        assert recording[f"{split}/spike_count"].attrs["long_name"] == "not stored"


def test_means_over_an_unknown_number_of_presentations_stay_as_they_are(tmp_path):
    path = write_published(tmp_path / PLACE, layout=None)
    recording = read_maheswaranathan(path, response="binned")
    _, mean = slow_split(path, "test", "binned")
    np.testing.assert_array_equal(recording["test/spike_count"], mean)
    np.testing.assert_allclose(recording["test/rate"], mean * 100)
    assert "not whole numbers" in recording["test/spike_count"].attrs["long_name"]
    assert "repeats" not in recording["test"].children


@pytest.mark.parametrize(
    ("layout", "response", "place", "scale", "words"),
    [
        ("rates", "firing_rate_10ms", "{cell}", 1, "mean is test/response/firing_rate_10ms; taken"),
        ("rates", "firing_rate_5ms", "{cell}", 1, "mean is test/response/firing_rate_10ms; taken"),
        ("counts", "firing_rate_10ms", "{cell}", 100, "mean is test/response/binned; whole"),
        ("unequal", "firing_rate_10ms", "{cell}", 1, "no response of the file is their mean"),
        ("type/cell", "firing_rate_20ms", "firing_rate_20ms/{cell}", 1, "firing_rate_20ms; taken"),
        ("cell/type", "firing_rate_5ms", "{cell}/firing_rate_5ms", 1, "firing_rate_5ms; taken"),
    ],
)
def test_presentations_in_every_layout(tmp_path, layout, response, place, scale, words):
    path = write_published(tmp_path / PLACE, layout=layout)
    recording = read_maheswaranathan(path, response=response)
    expected = slow_repeats(path, 6, 60, place) * scale
    np.testing.assert_array_equal(recording["test/repeats/rate"], expected)
    assert words in recording.attrs["repeats"]
    assert np.isnan(expected).any() == (layout == "unequal")
    starts = recording["test/repeats/start_time"].values
    np.testing.assert_allclose(np.diff(starts), 0.6)


@pytest.mark.parametrize("layout", ["repeat, cell, time", "cell, repeat, time"])
def test_presentations_joined_over_cells(tmp_path, layout):
    path = write_published(tmp_path / PLACE, layout=layout)
    recording = read_maheswaranathan(path)
    with h5py.File(path) as file:
        stored = file["test/repeats/firing_rate_10ms"][()]
    order = (0, 2, 1) if layout.startswith("repeat") else (1, 2, 0)
    np.testing.assert_array_equal(
        recording["test/repeats/rate"], stored.transpose(order)[:, :60, :]
    )


def test_spikes_out_of_order_are_sorted_and_said(tmp_path):
    path = write_published(tmp_path / PLACE)
    with h5py.File(path, "a") as file:
        file["spikes/cell02"][...] = file["spikes/cell02"][()][::-1]
        del file["spikes/cell03"]
        file["spikes/cell03"] = np.empty(0)
    recording = read_maheswaranathan(path)
    spikes = recording["spikes"].to_dataset()
    own = spikes["spike_time"].values[spikes["spike_cell"].values == 1]
    assert own.tolist() == slow_spikes(path, 1)
    assert "1 cells were not in order of time" in recording.attrs["spikes"]
    assert 2 not in spikes["spike_cell"]
    assert "not certain" in recording.attrs["spikes"]  # cell 2 lost its spikes


def test_a_spike_on_the_edge_of_a_bin_belongs_to_the_bin_that_begins(tmp_path):
    path = write_published(tmp_path / PLACE)
    with h5py.File(path, "a") as file:
        binned = file["train/response/binned"][()]
        assert (np.floor(0.29 * 100), binned.max() > 1) == (28, True)  # why there is some slack
        for cell, counts in enumerate(binned.astype(int)):
            del file[f"spikes/cell{cell + 1:02d}"]
            file[f"spikes/cell{cell + 1:02d}"] = np.repeat(np.arange(120) / 100, counts)
    assert read_maheswaranathan(path).attrs["spikes"].startswith("the clock of /train")


def spoil(path, name, value):
    with h5py.File(path, "a") as file:
        values = file[name][()].astype(float)
        values[0, 3] = value
        del file[name]
        file[name] = values
    return path


@pytest.mark.parametrize("name", ["train/response/firing_rate_10ms", "test/repeats/cell02"])
@pytest.mark.parametrize(
    ("value", "message"),
    [(-20.0, "must not be negative; 1 values are"), (np.inf, "must be finite")],
)
def test_rates_that_cannot_be_are_refused(tmp_path, name, value, message):
    path = spoil(write_published(tmp_path / PLACE), name, value)
    with pytest.raises(RetinaCodecError, match=rf"h5: /{name} {message}"):
        read_maheswaranathan(path)


def test_rates_that_are_missing_are_told(tmp_path):
    path = spoil(write_published(tmp_path / PLACE), "train/response/firing_rate_10ms", np.nan)
    with pytest.warns(RecordingWarning, match=r"1 of 720 values of /train/response/firing.* NaN"):
        recording = read_maheswaranathan(path)
    assert np.isnan(recording["train/rate"].values).sum() == 1
    assert recording.attrs["missing"].startswith("1 of 720")


def test_repeats_that_are_no_group_are_refused(tmp_path):
    path = write_published(tmp_path / PLACE)
    with h5py.File(path, "a") as file:
        del file["test/repeats"]
        file["test/repeats"] = np.zeros((3, 60))
    with pytest.raises(RetinaCodecError, match="/test/repeats must be a group"):
        read_maheswaranathan(path)


def test_frames_of_train_and_test_on_two_scales_are_told(tmp_path):
    path = write_published(tmp_path / PLACE)
    with h5py.File(path, "a") as file:
        frames = file["train/stimulus"][()] / 255
        del file["train/stimulus"]
        file["train/stimulus"] = frames
    with pytest.warns(RecordingWarning, match="frames of train lie in"):
        recording = read_maheswaranathan(path)
    assert "one scale" in recording.attrs["scales"]


@pytest.mark.parametrize("cells", ["all", ["a"], [0.5], [], [1, 1], {"a": 1}])
def test_cells_that_are_no_rows_are_refused_before_the_file_is_opened(cells):
    with pytest.raises(RetinaCodecError, match=r"^cells must be .* Pass cells=\[0, 1\]"):
        read_maheswaranathan("nowhere.h5", cells=cells)
