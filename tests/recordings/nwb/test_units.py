"""Cells as labs store them: ids, trains, observation, types; and what must be refused."""

import json

import h5py
import numpy as np
import pytest

from retina_codec.errors import RecordingWarning, RetinaCodecError
from retina_codec.recordings.nwb.reader import read_nwb
from tests.recordings.nwb_files import ALL_TEST, FRAMES, RATE, SPIKES, counted, movie, write

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


# Several tables, repeated ids, restarts


def several(file):
    for name in ("kilosort", "curated"):
        file.create_group(f"processing/sorting_{name}")
        file.copy("units", f"processing/sorting_{name}/{name}")
    file["processing/sorting_curated/curated/id"][:] = [5, 6, 8]
    del file["units"]


def test_one_of_several_tables_of_units_is_named(tmp_path):
    path = write(tmp_path / "a.nwb", mend=several)
    asked = r"sorting_curated/curated, .*sorting_kilosort/kilosort\. Pass units='processing/sort"
    with pytest.raises(RetinaCodecError, match=asked):
        read_nwb(path)
    for name in ("curated", "processing/sorting_curated/curated", "/sorting_curated/curated"):
        found = read_nwb(path, units=name)
        assert found["test/cell"].values.tolist() == [5, 6, 8]
    assert "not read: processing/sorting_kilosort/kilosort" in found.attrs["reading"]
    plain = write(tmp_path / "b.nwb", mend=lambda file: [several(file), file.create_group("units")])
    with pytest.raises(RetinaCodecError, match=asked):  # a table without spikes decides nothing
        read_nwb(plain)
    with pytest.raises(RetinaCodecError, match="'phy' is not one of them"):
        read_nwb(path, units="phy")


def test_the_standard_table_goes_before_others(tmp_path):
    def copy(file):
        file.create_group("processing/sorting")
        file.copy("units", "processing/sorting/raw")
        file["processing/sorting/raw/id"][:] = [1, 2, 3]

    path = write(tmp_path / "a.nwb", mend=copy)
    recording = read_nwb(path)
    assert recording["test/cell"].values.tolist() == [12, 4, 7]
    assert (
        "tables of units that were not read: processing/sorting/raw" in recording.attrs["reading"]
    )
    assert read_nwb(path, units="raw")["test/cell"].values.tolist() == [1, 2, 3]


def test_ids_that_two_probes_share_are_told_apart_as_asked(tmp_path):
    path = write(
        tmp_path / "a.nwb",
        columns={"probe": ["A", "A", "B"], "unit_name": ["u", "v", "w"]},
        mend=replace("units/id", np.array([0, 1, 0])),
    )
    message = r"repeated: \[0\]. Pass cell_names=COLUMN .*probe.* or cell_names='row'"
    with pytest.raises(RetinaCodecError, match=message):
        read_nwb(path)
    for name, expected in {
        "probe": ["A 0", "A 1", "B 0"],
        "unit_name": ["u", "v", "w"],
        "row": [0, 1, 2],
    }.items():
        assert read_nwb(path, cell_names=name)["test/cell"].values.tolist() == expected
    assert read_nwb(path, cell_names="probe", cells=["A 0"])["test/cell"].values == ["A 0"]


def test_ids_are_told_apart_by_what_a_reference_points_to(tmp_path):
    def refer(file):
        for name in ("probe0", "probe1"):
            file.create_group(f"general/extracellular_ephys/{name}")
        place = "general/extracellular_ephys/probe{}"
        kept = [file[place.format(number)].ref for number in (0, 1, 1)]
        file["units"].create_dataset("electrode_group", data=kept, dtype=h5py.ref_dtype)
        file["units/id"][:] = [0, 0, 1]

    recording = read_nwb(write(tmp_path / "a.nwb", mend=refer), cell_names="electrode_group")
    assert recording["test/cell"].values.tolist() == ["probe0 0", "probe1 0", "probe1 1"]


RESTARTED = {1: [0.2, 0.5, 3.9, 0.1, 2.1], 2: [3.0, 0.5], 3: []}


def test_a_clock_that_begins_again_is_asked_for(tmp_path):
    long = np.tile(FRAMES, (7, 1, 1))  # 8.4 s
    path = write(tmp_path / "a.nwb", stimulus=movie(data=long), spikes=RESTARTED)
    message = (
        r"unit 1 jump back from 3.9 to 0.1 s .*spike_restarts=\[600.0\].*spike_restarts='none'"
    )
    with pytest.raises(RetinaCodecError, match=message):
        read_nwb(path)
    recording = read_nwb(path, spike_restarts=[4.0])
    spikes = recording["spikes"].to_dataset()
    times = spikes["spike_time"].values[spikes["spike_cell"].values == 1]
    np.testing.assert_allclose(times, [0.2, 0.5, 3.9, 4.1, 6.1])
    with pytest.warns(RecordingWarning, match="units 1, 2 were unsorted"):
        found = read_nwb(path, spike_restarts="none")["spikes/spike_time"].values
    assert found.tolist() == [0.1, 0.2, 0.5, 2.1, 3.9, 0.5, 3.0]
    unclear = write(
        tmp_path / "b.nwb", stimulus=movie(data=long), spikes={**RESTARTED, 3: [1.0, 2.0]}
    )
    with pytest.raises(
        RetinaCodecError, match=r"unit 3 must jump back once for each of the 1 .* 0"
    ):
        read_nwb(unclear, spike_restarts=[4.0])


def test_spikes_by_region_references_as_early_files_have_them(tmp_path):
    def old(file):
        units = file["units"]
        ends = units["spike_times_index"][()]
        regions = [
            units["spike_times"].regionref[a:b] for a, b in zip([0, *ends[:-1]], ends, strict=True)
        ]
        del units["spike_times_index"]
        index = units.create_dataset("spike_times_index", (3,), dtype=h5py.regionref_dtype)
        for number, region in enumerate(regions):
            index[number] = region

    spikes = {12: [0.05, 0.31, 0.33, 1.1], 4: [0.29], 7: [0.4, 0.5]}
    plain = read_nwb(write(tmp_path / "a.nwb", spikes=spikes))
    found = read_nwb(write(tmp_path / "b.nwb", spikes=spikes, mend=old))
    np.testing.assert_array_equal(found["test/spike_count"], plain["test/spike_count"])
    np.testing.assert_array_equal(found["spikes/spike_time"], plain["spikes/spike_time"])


# Codes of types


def write_types(path, kind):
    from hdmf.common.table import DynamicTable, EnumData

    names = ["OFF alpha", "ON alpha"]

    def fill(nwbfile):
        if kind == "enum":
            nwbfile.units.add_column(
                "cell_type", "type", data=[1, 0, 1], col_cls=EnumData, enum=names
            )
            return
        table = DynamicTable(name="types", description="types")
        for column in {"two": ("label", "class"), "none": ("depth",)}.get(kind, ("label",)):
            table.add_column(column, "of the type")
        for number, name in enumerate(names):
            table.add_row(**dict.fromkeys(table.colnames, 1.0 * number if kind == "none" else name))
        nwbfile.create_processing_module("types", "types").add(table)
        ragged = [[1], [0, 1], []]
        data, index = ([1, 0, 1], False) if kind != "ragged" else (ragged, 1)
        if index:
            nwbfile.units.add_column("cell_type", "type", data=data, table=table, index=True)
        else:
            nwbfile.units.add_column("cell_type", "type", data=data, table=table)

    def codes(file):
        kept = h5py.enum_dtype({"OFF alpha": 0, "ON alpha": 1}, basetype="i1")
        file["units"].create_dataset("cell_type", data=[1, 0, 1], dtype=kept)

    return write(path, *([] if kind == "hdf5" else [fill]), mend=codes if kind == "hdf5" else None)


@pytest.mark.filterwarnings("ignore:EnumData is experimental")
@pytest.mark.parametrize("kind", ["enum", "region", "hdf5"])
def test_codes_of_types_get_the_names_that_they_stand_for(tmp_path, kind):
    path = write_types(tmp_path / "a.nwb", kind)
    expected = ["ON alpha", "OFF alpha", "ON alpha"]
    assert read_nwb(path)["test/type"].values.tolist() == expected
    assert read_nwb(path, cell_types="cell_type")["test/type"].values.tolist() == expected
    if kind != "region":
        found = read_nwb(path, cells={"cell_type": "ON alpha"})
        assert found["test/cell"].values.tolist() == [12, 7]


@pytest.mark.parametrize("kind", ["two", "none"])
def test_codes_without_one_column_of_names_are_unknown_with_a_word(tmp_path, kind):
    path = write_types(tmp_path / "a.nwb", kind)
    with pytest.warns(RecordingWarning, match=r"no one column of names.*cell_types='FILE.csv'"):
        recording = read_nwb(path)
    assert set(recording["test/type"].values) == {"unknown"}


def test_several_types_of_a_cell_are_joined(tmp_path):
    recording = read_nwb(write_types(tmp_path / "a.nwb", "ragged"))
    assert recording["test/type"].values.tolist() == ["ON alpha", "OFF alpha, ON alpha", "unknown"]
    assert "some units have several" in recording.attrs["reading"]


def test_numbers_that_nothing_names_are_types_with_a_word(tmp_path):
    path = write(tmp_path / "a.nwb", columns={"cell_type": [2, 1, 2]})
    with pytest.warns(RecordingWarning, match="holds numbers that nothing names"):
        assert read_nwb(path)["test/type"].values.tolist() == ["2", "1", "2"]


# Times in another unit


@pytest.mark.parametrize(("unit", "factor"), [("ms", 1e3), ("us", 1e6), (30e3, 30e3)])
def test_frames_in_other_units_are_noticed_and_taken_as_told(tmp_path, unit, factor):
    path = write(tmp_path / "a.nwb", stimulus=movie(timestamps=np.arange(60) / RATE * factor))
    with pytest.raises(RetinaCodecError, match=r"times of frames must be in seconds.*='ms'"):
        read_nwb(path)
    recording = read_nwb(path, frame_time_unit=unit)
    assert recording.attrs["frame_rate"] == RATE
    expected = counted(SPIKES, ONSETS, 1 / RATE)
    np.testing.assert_array_equal(recording["test/spike_count"], expected)
    given = read_nwb(path, frame_times=ONSETS * factor, frame_time_unit=unit)
    np.testing.assert_array_equal(given["test/spike_count"], expected)


def test_frames_and_spikes_both_in_ms_are_a_doubt(tmp_path):
    spikes = {cell: [1e3 * time for time in times] for cell, times in SPIKES.items()}
    stimulus = movie(timestamps=1e3 * ONSETS)
    path = write(tmp_path / "a.nwb", stimulus=stimulus, spikes=spikes)
    with pytest.warns(RecordingWarning, match=r"follow each other every 20 s; .*frame_time_unit"):
        read_nwb(path)
    found = read_nwb(path, frame_time_unit="ms", spike_time_unit="ms")
    np.testing.assert_array_equal(found["test/spike_count"], counted(SPIKES, ONSETS, 1 / RATE))
