"""Cells as labs store them: ids, trains, observation, types; and what must be refused."""

import json

import numpy as np
import pytest

from retina_codec.errors import RecordingWarning, RetinaCodecError
from retina_codec.recordings.nwb.reader import read_nwb
from tests.recordings.nwb_files import ALL_TEST, RATE, SPIKES, counted, movie, write

pytestmark = pytest.mark.filterwarnings(ALL_TEST)

ONSETS = np.arange(60) / RATE


def replace(name, data, **attributes):
    """Change one array of the finished file."""

    def mend(file):
        kept = dict(file[name].attrs)
        del file[name]
        file[name] = data
        for key, value in {**kept, **attributes}.items():
            file[name].attrs[key] = value

    return mend


def test_ids_are_labels_and_an_empty_cell_is_a_cell(tmp_path):
    recording = read_nwb(write(tmp_path / "a.nwb"))
    test = recording["test"].to_dataset()
    assert test["cell"].values.tolist() == [12, 4, 7]
    np.testing.assert_array_equal(test["spike_count"], counted(SPIKES, ONSETS, 1 / RATE))
    assert test["spike_count"].sel(cell=7).sum() == 0
    spikes = recording["spikes"].to_dataset()
    assert spikes["spike_time"].values.tolist() == [0.05, 0.31, 0.33, 1.1, 0.29]
    assert spikes["spike_cell"].values.tolist() == [12, 12, 12, 12, 4]


def test_cells_are_chosen_by_id_or_by_column(tmp_path):
    path = write(tmp_path / "a.nwb", columns={"quality": ["good", "noise", "good"]})
    assert read_nwb(path, cells=[7, 12])["test/cell"].values.tolist() == [7, 12]
    found = read_nwb(path, cells={"quality": "good"})
    assert found["test/cell"].values.tolist() == [12, 7]
    np.testing.assert_array_equal(
        found["test/rate"], counted(SPIKES, ONSETS, 0.02)[:, [0, 2]] * RATE
    )
    with pytest.raises(RetinaCodecError, match=r"\['12', '4', '7'\]; it lacks \[5\]"):
        read_nwb(path, cells=[5])
    with pytest.raises(RetinaCodecError, match=r"no unit has \{'quality': 'best'\}"):
        read_nwb(path, cells={"quality": "best"})
    with pytest.raises(RetinaCodecError, match=r"the column 'snr'; it has .*quality"):
        read_nwb(path, cells={"snr": 3})


def test_spikes_at_one_instant_are_kept_and_told(tmp_path):
    path = write(tmp_path / "a.nwb", spikes={1: [0.1, 0.1, 0.3]})
    with pytest.warns(RecordingWarning, match="units 1 have spikes at the same instant; all kept"):
        recording = read_nwb(path)
    assert recording["test/spike_count"].values.sum() == 3
    assert "doubt: units 1 have" in recording.attrs["reading"]


def test_outside_its_observation_a_rate_is_missing(tmp_path):
    def observe(file):
        units = file["units"]
        units["obs_intervals"] = [[0.0, 0.4], [0.0, 0.2], [0.6, 1.2], [0.0, 1.2]]
        units["obs_intervals_index"] = np.array([1, 3, 4], dtype="u8")

    path = write(tmp_path / "a.nwb", mend=observe)
    with pytest.warns(RecordingWarning, match="unit 12 has 1 spikes outside its obs_intervals"):
        recording = read_nwb(path)
    rate = recording["test/rate"].values
    assert recording["spikes/spike_time"].values.tolist() == [0.05, 0.31, 0.33]
    middle = ONSETS + 0.01
    assert (np.isnan(rate[:, 0]) == (middle > 0.4)).all()
    assert (np.isnan(rate[:, 1]) == ((middle > 0.2) & (middle < 0.6))).all()
    assert np.isfinite(rate[:, 2]).all()


@pytest.mark.parametrize("factor", [1e3, 30e3])
def test_spikes_in_other_units_are_noticed_and_taken_as_told(tmp_path, factor):
    scaled = {cell: [time * factor for time in times] for cell, times in SPIKES.items()}
    scaled[12] = [0.5, *scaled[12]]  # one that would be inside
    path = write(tmp_path / "a.nwb", spikes=scaled)
    with pytest.raises(RetinaCodecError, match=r"must be in seconds.*spike_time_unit='ms'"):
        read_nwb(path)
    unit = "ms" if factor == 1e3 else factor
    found = read_nwb(path, spike_time_unit=unit)["test/spike_count"].values
    expected = counted(SPIKES, ONSETS, 1 / RATE)
    expected[int(0.5 / factor * RATE), 0] += 1
    np.testing.assert_array_equal(found, expected)
    with pytest.raises(RetinaCodecError, match="must be s, ms, us, or the sampling rate"):
        read_nwb(path, spike_time_unit="minutes")


# Types


def test_types_from_a_column_by_name(tmp_path):
    path = write(tmp_path / "a.nwb", columns={"group": ["ON", "", "OFF"]})
    plain = read_nwb(path)
    assert set(plain["test/type"].values) == {"unknown"}
    assert "the units have the column group (cell_types=NAME takes one)" in plain.attrs["reading"]
    found = read_nwb(path, cell_types="group")
    assert found["test/type"].values.tolist() == ["ON", "unknown", "OFF"]
    with pytest.raises(RetinaCodecError, match=r"the column 'kind'; it has .*group"):
        read_nwb(path, cell_types="kind")


@pytest.mark.parametrize("suffix", [".csv", ".json"])
def test_types_from_a_file_keyed_by_unit_id(tmp_path, suffix):
    path = write(tmp_path / "a.nwb")
    file = tmp_path / f"types{suffix}"
    if suffix == ".csv":
        file.write_text("unit,depth,cell_type\n4,10,OFF\n12,20, ON \n")
    else:
        file.write_text(json.dumps({"4": "OFF", "12": "ON"}))
    for source in (file, str(file), {4: "OFF", 12: "ON"}):
        found = read_nwb(path, cell_types=source)["test/type"].values.tolist()
        assert found == ["ON", "OFF", "unknown"]
    file.write_text("id,type\n1,ON\n" if suffix == ".csv" else '{"1": "ON"}')
    with pytest.raises(RetinaCodecError, match=r"keyed by cell id, such as \['12', '4', '7'\]"):
        read_nwb(path, cell_types=file)
    with pytest.raises(RetinaCodecError, match=r"at .*nowhere\.csv; no file is there"):
        read_nwb(path, cell_types="nowhere.csv")


# What pynwb would not write


def bomb(file):
    """Claims 80 GB of spikes and stores none."""
    attributes = dict(file["units/spike_times"].attrs)
    del file["units/spike_times"]
    shape = {"shape": (10**10,), "dtype": "f8", "chunks": (10**5,), "compression": "gzip"}
    file.create_dataset("units/spike_times", **shape).attrs.update(attributes)


def frame_bomb(file):
    place = "stimulus/presentation/movie/data"
    del file[place]
    file.create_dataset(place, (10**9, 50, 50), "f4", chunks=(100, 50, 50), compression="gzip")


@pytest.mark.parametrize(
    ("mend", "message"),
    [
        (bomb, "spike_times claims 80000000000 bytes and stores 0"),
        (frame_bomb, "data claims 10000000000000 bytes and stores 0"),
        (
            replace("units/spike_times_index", np.array([4, 5, 99], "u8")),
            "must rise to .* 5; it ends at 99",
        ),
        (replace("units/spike_times_index", np.array([4, 3, 5], "u8")), "must rise to the number"),
        (replace("units/id", np.array([3, 4, 3])), r"different ids; repeated: \[3\]"),
        (replace("units/id", np.array([3, 4])), "one spike train per id; 2 ids, 3 trains"),
        (replace("units/spike_times", np.r_[np.nan, 1, 2, 3, 4.0]), "unit 12 must be finite"),
    ],
)
def test_a_broken_table_is_refused(tmp_path, mend, message):
    path = write(tmp_path / "a.nwb", mend=mend)
    with pytest.raises(RetinaCodecError, match=message):
        read_nwb(path)


def test_units_in_a_processing_module(tmp_path):
    def move(file):
        file.create_group("processing/sorting")
        file.move("units", "processing/sorting/kilosort")

    recording = read_nwb(write(tmp_path / "a.nwb", mend=move))
    assert recording["test/cell"].values.tolist() == [12, 4, 7]
    assert "3 units of /processing/sorting/kilosort" in recording.attrs["reading"]


def test_unit_times_of_nwb_before_version_2(tmp_path):
    def old(file):
        del file["units"]
        del file.attrs["neurodata_type"]
        file["nwb_version"] = "NWB-1.0.6"
        for name, times in {"unit_00": [0.05, 0.31], "unit_07": [1.0]}.items():
            file[f"processing/sorting/UnitTimes/{name}/times"] = times

    recording = read_nwb(write(tmp_path / "a.nwb", stimulus=movie(), mend=old))
    assert recording["test/cell"].values.tolist() == ["unit_00", "unit_07"]
    assert recording["test/spike_count"].values.sum(0).tolist() == [2, 1]
