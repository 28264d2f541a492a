import errno
import os

import h5py
import numpy as np
import pytest
from hdmf.backends.hdf5 import HDF5IO
from nwbinspector import Importance, inspect_nwbfile
from pynwb import NWBHDF5IO
from pynwb.image import ImageSeries

from retina_codec.errors import RetinaCodecError
from retina_codec.recordings.nwb.reader import read_nwb
from retina_codec.recordings.nwb.writer import write_nwb
from retina_codec.recordings.schema import make_recording
from tests.recordings.small_recording import RATE


def test_a_recording_comes_back_unchanged(recording, tmp_path):
    kept = recording.copy(deep=True)
    write_nwb(recording, tmp_path / "session.nwb")
    assert read_nwb(tmp_path / "session.nwb").identical(recording)
    assert recording.identical(kept)
    assert [path.name for path in tmp_path.iterdir()] == ["session.nwb"]


def without_repeats(parts):
    parts["test"] = parts["test"].assign(rate=parts["repeats"]["rate"][0])
    parts["repeats"] = None


def without_train(parts):
    parts["train"] = None


def with_one_repeat(parts):
    parts["repeats"] = parts["repeats"].isel(repeat=[0])


def with_names(parts):
    for name in ("train", "test"):
        parts[name] = parts[name].assign_coords(cell=["a1", "b", "µ"])


def with_soft_types(parts):
    member = np.array([[0.75, 0.25], [0.0, 1.0], [0.5, 0.5]], dtype="f4")
    for name in ("train", "test"):
        parts[name] = parts[name].assign_coords(cell_type=["ON", "OFF"])
        parts[name]["type_membership"] = (("cell", "cell_type"), member, {"units": "1"})


def with_memberships_that_are_not_the_types(parts):
    member = np.array([[0, 1], [1, 0], [0, 1]], dtype="f4")
    for name in ("train", "test"):
        split = parts[name].assign_coords(type=("cell", ["A"] * 3), cell_type=["A", "B"])
        parts[name] = split.assign(type_membership=(("cell", "cell_type"), member, {"units": "1"}))


def with_a_type_that_no_cell_has(parts):
    member = np.array([[0, 1, 0], [1, 0, 0], [0, 1, 0]], dtype="f4")
    for name in ("train", "test"):
        split = parts[name].assign_coords(cell_type=["OFF", "ON", "ON-OFF"])
        parts[name] = split.assign(type_membership=(("cell", "cell_type"), member, {"units": "1"}))


def with_a_cropped_frame(parts):
    for name in ("train", "test"):
        parts[name] = parts[name].assign_coords(y=np.arange(5) + 10, x=np.arange(4) / 2)


def with_gaps(parts):
    for name in ("test", "interneurons"):
        parts[name] = parts[name].assign_coords(time=10 + np.arange(23) / RATE)
    starts = ("repeat", [10.0, 20.0, 30.5])
    parts["repeats"] = parts["repeats"].assign_coords(start_time=starts)


def with_missing_repeats(parts):
    parts["repeats"]["rate"].values[1, :, 2] = np.nan
    parts["repeats"]["rate"].values[2, 20:, :] = np.nan


def with_float_frames_and_further_values(parts):
    for name in ("train", "test"):
        frames = parts[name]["stimulus"]
        parts[name]["stimulus"] = (frames / 7).astype("f4").assign_attrs(units="lux")
        shape = (frames.sizes["time"], 3)
        attrs = {"units": "Hz", "long_name": "noise-free rate"}
        parts[name]["expected_rate"] = (("time", "cell"), np.full(shape, 0.3, "f4"), attrs)


def with_a_late_start(parts):
    for name in ("train", "test", "interneurons"):
        parts[name] = parts[name].assign_coords(time=parts[name]["time"] + 1234.567)


@pytest.mark.parametrize(
    "change",
    [
        without_repeats,
        without_train,
        with_one_repeat,
        with_names,
        with_soft_types,
        with_memberships_that_are_not_the_types,
        with_a_type_that_no_cell_has,
        with_a_cropped_frame,
        with_gaps,
        with_missing_repeats,
        with_float_frames_and_further_values,
    ],
)
def test_recordings_of_many_kinds_come_back_unchanged(parts, tmp_path, change):
    change(parts)
    recording = make_recording(**parts)
    write_nwb(recording, tmp_path / "session.nwb")
    assert read_nwb(tmp_path / "session.nwb").identical(recording)


def test_a_late_start_is_kept_to_rounding(parts, tmp_path):
    with_a_late_start(parts)
    recording = make_recording(**parts)
    write_nwb(recording, tmp_path / "session.nwb")
    found = read_nwb(tmp_path / "session.nwb")
    for node in recording.subtree:  # 20 minutes in double precision: 2e-13 s
        expected, read = node.to_dataset(), found[node.path].to_dataset()
        for name in expected.variables:
            if expected[name].dtype.kind == "f":
                np.testing.assert_allclose(read[name], expected[name], rtol=0, atol=1e-12)
            else:
                np.testing.assert_array_equal(read[name], expected[name])


def test_the_file_holds_what_the_retina_saw(recording, parts, tmp_path):
    write_nwb(recording, tmp_path / "session.nwb")
    with NWBHDF5IO(tmp_path / "session.nwb", "r") as stream:
        nwbfile = stream.read()
        series = nwbfile.stimulus["stimulus"]
        assert isinstance(series, ImageSeries)
        assert (series.rate, series.starting_time) == (RATE, 0.0)
        assert series.data.dtype == np.uint8
        movie = parts["test"]["stimulus"].values
        expected = np.concatenate([parts["train"]["stimulus"].values, movie, movie, movie])
        np.testing.assert_array_equal(series.data[:], expected)
        assert series.data.compression == "gzip"
        units = nwbfile.units
        assert units.id[:].tolist() == [3, 7, 20]
        assert list(units["cell_type"][:]) == ["ON", "OFF", "ON"]
        assert list(units["center_y"][:]) == [1.5, 2.0, 3.25]
        total = (
            parts["train"]["spike_count"][:, 1].sum() + parts["repeats"]["rate"][..., 1].sum() / 50
        )
        assert len(units["spike_times"][1]) == int(total)
        np.testing.assert_allclose(units["obs_intervals"][1], [[0, (37 + 69) / RATE]])
        trials = nwbfile.trials
        assert list(trials["split"][:]) == ["train", "test", "test", "test"]
        assert list(trials["repeat"][:]) == [-1, 0, 1, 2]
        np.testing.assert_allclose(trials["stop_time"][:], np.array([37, 60, 83, 106]) / RATE)
        assert nwbfile.subject.species == "Ambystoma tigrinum"
        potential = nwbfile.processing["icephys"]["interneuron_potential"]
        np.testing.assert_array_equal(potential.data[:], parts["interneurons"]["potential"])


@pytest.mark.parametrize("species", ["Ambystoma tigrinum", "simulated (salamander-like)"])
def test_the_nwb_inspector_finds_nothing_serious(parts, tmp_path, species):
    with_gaps(parts)
    recording = make_recording(**{**parts, "species": species})
    write_nwb(recording, tmp_path / "session.nwb")
    messages = list(inspect_nwbfile(nwbfile_path=tmp_path / "session.nwb"))
    assert messages, "the inspector always has a suggestion; none means that it did not look"
    serious = [m for m in messages if m.importance != Importance.BEST_PRACTICE_SUGGESTION]
    assert [f"{m.importance.name} {m.check_function_name}: {m.message}" for m in serious] == []
    names = {m.check_function_name for m in messages}
    assert names <= {  # what a recording without names and dates cannot say
        "check_session_start_time_old_date",
        "check_experimenter_exists",
        "check_institution",
    }


def test_the_movie_is_written_in_pieces(recording, tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(
        h5py.Dataset,
        "__setitem__",
        lambda self, key, value, set_item=h5py.Dataset.__setitem__: (
            (written.append((self.name, len(value))) if self.ndim == 3 else None)
            or set_item(self, key, value)
        ),
    )
    monkeypatch.setattr("retina_codec.recordings.nwb.writer.FRAMES_PER_CHUNK", 7)
    monkeypatch.setattr("retina_codec.recordings.nwb.writer.CHUNKS_PER_BLOCK", 2)
    write_nwb(recording, tmp_path / "session.nwb")
    lengths = [length for name, length in written if name == "/stimulus/presentation/stimulus/data"]
    assert sum(lengths) == 106
    assert max(lengths) <= 14
    assert read_nwb(tmp_path / "session.nwb").identical(recording)


@pytest.mark.parametrize("existing", [False, True])
def test_a_full_disk_leaves_what_was_there(recording, tmp_path, monkeypatch, existing):
    path = tmp_path / "session.nwb"
    if existing:
        write_nwb(recording, path)
    content = path.read_bytes() if existing else None
    real = HDF5IO.write_builder

    def full(self, *positional, **named):
        real(self, *positional, **named)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(HDF5IO, "write_builder", full)
    with pytest.raises(RetinaCodecError, match=r"could not write .*session\.nwb: No space left"):
        write_nwb(recording, path, overwrite=existing)
    assert [entry.name for entry in tmp_path.iterdir()] == (["session.nwb"] if existing else [])
    assert not existing or path.read_bytes() == content


def test_an_existing_file_and_overlapping_splits_are_refused(recording, parts, tmp_path):
    (tmp_path / "session.nwb").write_text("keep me")
    with pytest.raises(RetinaCodecError, match=r"must not exist yet.*overwrite=True"):
        write_nwb(recording, tmp_path / "session.nwb")
    assert (tmp_path / "session.nwb").read_text() == "keep me"
    parts["train"] = parts["train"].assign_coords(
        time=parts["test"]["time"].values[0] + np.arange(37) / RATE
    )
    with pytest.raises(RetinaCodecError, match="must not overlap on the session clock"):
        write_nwb(make_recording(**parts), tmp_path / "other.nwb")
    assert len(list(tmp_path.iterdir())) == 1


def with_boolean_frames(parts):
    for name in ("train", "test"):
        parts[name]["stimulus"] = parts[name]["stimulus"] > 100


def test_boolean_frames_are_written_as_0_and_1(parts, tmp_path):
    with_boolean_frames(parts)
    recording = make_recording(**parts)
    write_nwb(recording, tmp_path / "session.nwb")
    found = read_nwb(tmp_path / "session.nwb")
    for name in ("train", "test"):
        assert found[f"{name}/stimulus"].dtype == np.uint8
        np.testing.assert_array_equal(found[f"{name}/stimulus"], recording[f"{name}/stimulus"])


@pytest.mark.parametrize("cells", [[3, 7, 20], ["a", "b", "c"]])
def test_text_comes_back_as_plain_str_arrays(parts, tmp_path, cells):
    for name in ("train", "test"):
        parts[name] = parts[name].assign_coords(cell=cells)
    recording = make_recording(**parts)
    write_nwb(recording, tmp_path / "session.nwb")
    found = read_nwb(tmp_path / "session.nwb")
    for node in recording.subtree:
        for name, variable in node.variables.items():
            assert found[node.path][name].dtype.kind == variable.dtype.kind, (node.path, name)


def test_numbered_interneurons_stay_numbers(parts, tmp_path):
    parts["interneurons"] = parts["interneurons"].assign_coords(interneuron=[4, 9])
    recording = make_recording(**parts)
    write_nwb(recording, tmp_path / "session.nwb")
    labels = read_nwb(tmp_path / "session.nwb")["interneurons/interneuron"]
    assert (labels.dtype.kind, labels.values.tolist()) == ("i", [4, 9])
