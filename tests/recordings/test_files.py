import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from retina_codec.errors import RecordingWarning, RetinaCodecError
from retina_codec.recordings.files import convert, open_recording, save_recording
from retina_codec.recordings.formats import Format, registry, writable_format
from retina_codec.recordings.windows import StimulusWindows
from tests.recordings.nwb_files import FRAMES, movie, write
from tests.recordings.published_files import write_published

FORMATS = [".nc", ".zarr", ".nwb"]


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_array_formats_keep_everything(recording, tmp_path, suffix):
    save_recording(recording, tmp_path / f"session{suffix}")
    found = open_recording(tmp_path / f"session{suffix}")
    assert found.identical(recording)


@pytest.mark.parametrize("address", ["s3://bucket/run.nc", Path("s3://bucket/run.nwb")], ids=str)
def test_a_recording_is_not_saved_to_an_address(recording, address, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RetinaCodecError, match="got the address"):
        save_recording(recording, address)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", FORMATS)
def test_opening_leaves_the_stimulus_on_disk_and_windows_read_it(recording, tmp_path, suffix):
    save_recording(recording, tmp_path / f"session{suffix}")
    found = open_recording(tmp_path / f"session{suffix}")
    for split in ("train", "test"):
        assert not found[split]["stimulus"].variable._in_memory
        here = StimulusWindows(recording[f"{split}/stimulus"], 5, mean=120.0, std=70.0)
        there = StimulusWindows(found[f"{split}/stimulus"], 5, mean=120.0, std=70.0)
        for (_, one), (_, other) in zip(here.batches(6), there.batches(6), strict=True):
            np.testing.assert_array_equal(one.numpy(), other.numpy())
        assert not found[split]["stimulus"].variable._in_memory


@pytest.mark.parametrize(
    ("first", "second"), [(".nc", ".nwb"), (".nwb", ".zarr"), (".zarr", ".nc")]
)
def test_converting_there_and_back_is_the_same(recording, tmp_path, first, second):
    save_recording(recording, tmp_path / f"a{first}")
    convert(tmp_path / f"a{first}", tmp_path / f"b{second}")
    convert(tmp_path / f"b{second}", tmp_path / f"c{first}")
    assert open_recording(tmp_path / f"c{first}").identical(open_recording(tmp_path / f"a{first}"))


@pytest.mark.parametrize("suffix", FORMATS)
def test_an_existing_recording_is_replaced_only_on_request(recording, tmp_path, suffix):
    path = tmp_path / f"session{suffix}"
    save_recording(recording, path)
    recording.attrs["session"] = "another"
    with pytest.raises(RetinaCodecError, match=r"does\. Choose another name, .*overwrite=True"):
        save_recording(recording, path)
    assert open_recording(path).attrs["session"] != "another"
    save_recording(recording, path, overwrite=True)
    assert open_recording(path).attrs["session"] == "another"


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_full_disk_leaves_nothing(recording, tmp_path, suffix, monkeypatch):
    import pynwb

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(pynwb.NWBHDF5IO, "write", full)
    monkeypatch.setattr(xr.DataTree, "to_netcdf", full)
    monkeypatch.setattr(xr.DataTree, "to_zarr", full)
    with pytest.raises(RetinaCodecError, match=rf"session\{suffix}: No space left on device"):
        save_recording(recording, tmp_path / f"session{suffix}")
    assert list(tmp_path.iterdir()) == []


def write_tree(path: Path):
    xr.DataTree.from_dict({"/layers": xr.Dataset({"a": ("time", [1.0])})}).to_netcdf(
        path, engine="h5netcdf"
    )


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("session.csv", Path.touch, r"must end in \.nwb, \.nc, \.zarr, \.h5, \.hdf5, \.mat; got"),
        ("session.nwb", None, "there must be a recording at .*; nothing is there"),
        ("session.nc", None, "there must be a recording at .*; nothing is there"),
        ("session.nc", lambda p: p.write_text("spikes"), "must be a readable HDF5"),
        ("session.nwb", lambda p: p.write_text("spikes"), "must be an NWB file"),
        ("session.zarr", Path.mkdir, "must be a readable Zarr folder"),
        ("session.nc", write_tree, r"session\.nc: this is not a valid recording: \(1\)"),
    ],
)
def test_what_is_no_recording_is_refused_in_one_line(tmp_path, name, make, message):
    if make is not None:
        make(tmp_path / name)
    with pytest.raises(RetinaCodecError, match=message) as caught:
        open_recording(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_an_invalid_recording_is_not_saved(recording, tmp_path):
    del recording.attrs["species"]
    with pytest.raises(RetinaCodecError, match="attribute species"):
        save_recording(recording, tmp_path / "session.nc")
    assert list(tmp_path.iterdir()) == []


def test_converting_onto_itself_or_to_an_unknown_format_is_refused(recording, tmp_path):
    save_recording(recording, tmp_path / "a.nc")
    with pytest.raises(RetinaCodecError, match="must differ"):
        convert(tmp_path / "a.nc", tmp_path / ".." / tmp_path.name / "a.nc", overwrite=True)
    with pytest.raises(RetinaCodecError, match="must end in"):
        convert(tmp_path / "a.nc", tmp_path / "a.h5")
    assert open_recording(tmp_path / "a.nc").identical(recording)


@pytest.mark.parametrize(
    ("suffix", "valid"), [(".nc", "cells"), (".zarr", "cells"), (".nwb", "stimulus")]
)
def test_options_are_those_of_the_format(recording, tmp_path, suffix, valid):
    path = tmp_path / f"session{suffix}"
    save_recording(recording, path)
    with pytest.raises(RetinaCodecError, match=rf"this format are .*{valid}.*; got response="):
        open_recording(path, response="firing_rate_10ms")


def test_published_files_and_folders_go_to_their_reader(tmp_path):
    path = write_published(tmp_path / "15-10-07" / "a.hdf5", size=(8, 9))
    whole = open_recording(path, cells=[2])
    assert whole.attrs["experiment"] == "15-10-07"
    assert open_recording(path.parent, cells=[2]).identical(whole)
    with pytest.raises(RetinaCodecError, match="are stimulus, response, cells; got cell="):
        open_recording(path, cell=2)
    with pytest.raises(RetinaCodecError, match="there must be a recording at"):
        open_recording(tmp_path / "b.h5")
    with pytest.raises(RetinaCodecError, match="it holds neither"):
        open_recording(tmp_path)


def foreign(path: Path) -> Path:
    """A session of another lab: jittered frames, two repeats, exact spikes, an observation gap."""
    random = np.random.default_rng(0)
    shown = np.concatenate([FRAMES[:20], FRAMES[20:40], FRAMES[20:40]])
    times = 3 + np.arange(60) / 50 + random.normal(0, 1e-4, 60)
    spikes = {cell: np.sort(random.uniform(2.9, 4.4, 60)).tolist() for cell in (12, 4, 7)}

    def fill(nwbfile: Any) -> None:
        nwbfile.add_trial_column("split", "train or test")
        for start, split in ((0, "train"), (20, "test"), (40, "test")):
            stop = times[start + 20] if start < 40 else times[-1] + 0.02
            nwbfile.add_trial(times[start], stop, split=split)

    def observe(file: Any) -> None:
        file["units/obs_intervals"] = [[2.9, 4.5], [2.9, 3.5], [3.8, 4.5], [2.9, 4.5]]
        file["units/obs_intervals_index"] = np.array([1, 3, 4], dtype="u8")

    movie_shown = movie(data=shown, timestamps=times)
    columns = {"cell_type": ["ON", "", "OFF"]}
    return write(path, fill, stimulus=movie_shown, spikes=spikes, columns=columns, mend=observe)


def test_nwb_to_nc_and_back_keeps_all(tmp_path: Path) -> None:
    """Frames, counts, rates, repeats, exact spikes, types, the clock and how it was read."""
    foreign(tmp_path / "lab.nwb")
    with pytest.warns(RecordingWarning, match=r"unit 4 has \d+ spikes outside its obs_intervals"):
        first = open_recording(tmp_path / "lab.nwb")
    with pytest.warns(RecordingWarning, match="left out"):
        convert(tmp_path / "lab.nwb", tmp_path / "a.nc")
    convert(tmp_path / "a.nc", tmp_path / "b.nwb")
    convert(tmp_path / "b.nwb", tmp_path / "c.zarr")
    convert(tmp_path / "c.zarr", tmp_path / "d.nwb")
    assert np.isnan(first["test/repeats/rate"]).any()
    for name in ("a.nc", "b.nwb", "c.zarr", "d.nwb"):
        found = open_recording(tmp_path / name)
        assert sorted(node.path for node in found.subtree) == sorted(n.path for n in first.subtree)
        for node in first.subtree:
            other = found[node.path].to_dataset(inherit=False)
            xr.testing.assert_allclose(other, node.to_dataset(inherit=False), rtol=0, atol=1e-9)
        for split in ("train", "test"):
            expected = first[split].to_dataset()
            for variable in ("stimulus", "spike_count", "rate"):
                np.testing.assert_array_equal(found[f"{split}/{variable}"], expected[variable])
        assert found.attrs["reading"] == first.attrs["reading"]
        np.testing.assert_array_equal(found["spikes/spike_time"], first["spikes/spike_time"])


@pytest.fixture
def formats(monkeypatch):
    """The registry, as it was after the test."""
    monkeypatch.setattr(registry, "_items", dict(registry._items))
    return registry


def test_a_format_that_was_added_last_is_asked_first(formats, tmp_path):
    class Marked(Format):
        """HDF5 files of a lab, told from others by a mark."""

        name = "marked"
        suffixes = (".h5",)

        def recognises(self, path: Any) -> bool:
            return super().recognises(path) and Path(path).read_bytes() == b"mark"

        def read(self, path: Any, **_: Any) -> xr.DataTree:
            raise RetinaCodecError(f"{path} went to the lab")

    (tmp_path / "a.h5").write_bytes(b"mark")
    (tmp_path / "b.h5").write_bytes(b"other")
    with pytest.raises(RetinaCodecError, match="went to the lab"):
        open_recording(tmp_path / "a.h5")
    with pytest.raises(RetinaCodecError, match=r"must be a recording of Maheswaranathan"):
        open_recording(tmp_path / "b.h5")
    with pytest.raises(RetinaCodecError, match=r"must end in \.nwb, \.nc, \.zarr; got"):
        writable_format(tmp_path / "a.h5")  # it has no write
    published = ["liu_2017", "crcns_ret1", "maheswaranathan_2023"]
    assert formats.list() == [*published, "xarray", "nwb", "marked"]


def test_what_a_format_returns_is_validated(formats, tmp_path):
    class Empty(Format):
        """Trees without a recording."""

        name = "empty"
        suffixes = (".empty",)

        def read(self, _path: Any, **_: Any) -> xr.DataTree:
            return xr.DataTree()

    (tmp_path / "a.empty").touch()
    assert "empty" in formats.list()
    with pytest.raises(RetinaCodecError, match=r"a\.empty: this is not a valid recording"):
        open_recording(tmp_path / "a.empty")


@pytest.mark.parametrize("suffixes", ["csv", (), ("csv",), (".CSV",)])
def test_a_format_must_name_suffixes(formats, suffixes):
    with pytest.raises(RetinaCodecError, match=r"suffixes such as \('.csv',\), lower case; 'bad'"):
        type("Bad", (Format,), {"name": "bad", "suffixes": suffixes})
    assert "bad" not in formats.list()
