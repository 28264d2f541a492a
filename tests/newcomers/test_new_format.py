"""A recording format of one's own: one class in one file goes the whole road."""

import numpy as np
import pytest

import retina_codec as rc
from retina_codec.cli.main import main
from tests.newcomers.road import import_file
from tests.small import small_network, small_recording

SOURCE = '''
"""Recordings as NumPy archives: one movie, its repeats, cells and their types."""

import numpy as np
import xarray as xr

import retina_codec as rc
from retina_codec.storage.trees import new_output


class Archive(rc.recordings.Format):
    """`.npz` files of a lab."""

    name = "archive"
    suffixes = (".npz",)
    options = ("pixel_size",)

    def read(self, path, *, pixel_size=50.0, **_):
        with np.load(path) as stored:
            arrays = dict(stored)
        time = arrays["start"][0] + np.arange(len(arrays["movie"])) / arrays["rate_of_frames"]
        cells = {"cell": arrays["cell"], "type": ("cell", arrays["type"])}
        movie = (("time", "y", "x"), arrays["movie"])
        test = xr.Dataset({"stimulus": movie}, {"time": time, **cells})
        rate = (("repeat", "time", "cell"), arrays["repeats"], {"units": "Hz"})
        return rc.recordings.make_recording(
            train=None,
            test=test,
            repeats=xr.Dataset({"rate": rate}, {"start_time": ("repeat", arrays["start"])}),
            frame_rate=float(arrays["rate_of_frames"]),
            pixel_size=pixel_size,
            session=str(arrays["session"]),
            species="unknown",
            source="a lab",
        )

    def write(self, recording, path, *, overwrite):
        test, repeats = recording["test"].to_dataset(), recording["test/repeats"].to_dataset()
        with new_output(path, overwrite=overwrite) as partial, open(partial, "wb") as stream:
            np.savez(
                stream,
                movie=test["stimulus"],
                repeats=repeats["rate"],
                start=repeats["start_time"],
                cell=test["cell"].astype(str),
                type=test["type"].astype(str),
                rate_of_frames=recording.attrs["frame_rate"],
                session=recording.attrs["session"],
            )
'''


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    registry = rc.recordings.registry
    with pytest.MonkeyPatch.context() as patch:  # other tests see the package's own formats
        patch.setattr(registry, "_items", dict(registry._items))
        yield import_file(tmp_path_factory.mktemp("lab"), "archive_format", SOURCE).Archive


@pytest.fixture
def path(archive, tmp_path):
    assert archive.name in rc.recordings.registry.list()
    rc.save_recording(small_recording(), tmp_path / "lab.npz")
    return tmp_path / "lab.npz"


def test_a_new_format_is_known_by_its_name_and_suffix(archive, path, tmp_path):
    assert rc.recordings.registry.get("archive") is archive
    with pytest.raises(rc.RetinaCodecError, match=r"must end in \.npz, \.nwb.*got .*a\.csv"):
        rc.open_recording(tmp_path / "a.csv")
    with pytest.raises(
        rc.RetinaCodecError, match="of this format are pixel_size; got stimulus='movie'"
    ):
        rc.open_recording(path, stimulus="movie")
    assert rc.open_recording(path, pixel_size=20.0).attrs["pixel_size"] == 20.0
    with pytest.raises(rc.RetinaCodecError, match="Choose another name"):
        rc.save_recording(small_recording(), path)


def test_a_new_format_keeps_the_recording_also_by_way_of_nwb(path, tmp_path):
    rc.recordings.convert(path, tmp_path / "lab.nwb")
    rc.recordings.convert(tmp_path / "lab.nwb", tmp_path / "again.npz")
    expected = small_recording()
    for file in (path, tmp_path / "lab.nwb", tmp_path / "again.npz"):
        found = rc.open_recording(file)
        for name in ("test/stimulus", "test/rate", "test/repeats/rate", "test/cell", "test/type"):
            np.testing.assert_array_equal(found[name].values, expected[name].values, err_msg=name)


def test_a_new_format_goes_the_whole_road(path):
    network, expected = small_network(), small_recording()
    recording = rc.recordings.measure_quality(rc.open_recording(path), progress=False)
    quality = rc.recordings.measure_quality(expected, progress=False)["quality"].to_dataset()
    np.testing.assert_allclose(recording["quality/reliability"], quality["reliability"])
    how = {"target": rc.targets.Surprisal(), "method": rc.methods.ActGrad(), "progress": False}
    found = rc.contribute(network, recording["test"], **how)
    there = rc.contribute(network, expected["test"], **how)
    for layer in ("conv1", "conv2"):
        name = f"layers/{layer}/contribution"
        np.testing.assert_array_equal(found[name].values, there[name].values)


def test_a_new_format_on_the_command_line(path, tmp_path):
    for words in (
        ["convert", str(path), str(tmp_path / "lab.nc")],
        ["convert", str(tmp_path / "lab.nc"), str(tmp_path / "back.npz")],
        ["look", str(path), "--out", str(tmp_path / "lab.png"), "--set", "pixel_size=30"],
    ):
        assert main(words) == 0
    back = rc.open_recording(tmp_path / "back.npz")
    np.testing.assert_array_equal(back["test/rate"], small_recording()["test/rate"])
    assert (tmp_path / "lab.png").stat().st_size > 10_000
