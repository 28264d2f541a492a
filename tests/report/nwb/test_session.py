import hashlib
import io

import h5py
import numpy as np
import pytest
from pynwb import NWBHDF5IO
from pynwb.file import ProcessingModule

from retina_codec.errors import RetinaCodecError
from retina_codec.report.nwb import session as nwb_session_copy
from retina_codec.report.nwb.session import (
    Units,
    check_same_session,
    copy_session,
    read_units,
    refuse_neighbours,
    source_hash,
)
from retina_codec.report.nwb.tables import ModuleBuilder, column
from tests.report.small_session import write_session

NUMBERED = Units("/units", np.array([11, 5]), np.array([11, 5]), "session.nwb")


def test_cells_are_found_by_label_never_by_position():
    assert NUMBERED.rows(np.array([5, 11])) == [1, 0]
    assert NUMBERED.rows(np.array(["11"])) == [0]  # labels that became text on their way
    words = r"units of the session; \[0, 1\] are not, session\.nwb has \[11, 5\]\. Export into"
    with pytest.raises(RetinaCodecError, match=words):
        NUMBERED.rows(np.array([0, 5, 1]))
    many = Units("/units", np.arange(30), np.arange(30), "session.nwb")
    with pytest.raises(RetinaCodecError, match=r"8, 9\] and more\. Export"):
        many.rows(np.array([99]))


@pytest.mark.parametrize("cells", [[20, 3, 7], ["on", "µ", "off"]])
def test_units_are_called_as_a_recording_calls_its_cells(tmp_path, cells):
    write_session(tmp_path / "session.nwb", cells)
    with h5py.File(tmp_path / "session.nwb") as file:
        units = read_units(file, "session.nwb")
    assert units.labels.tolist() == cells
    assert units.rows(np.array(cells[::-1])) == [2, 1, 0]


def test_a_file_without_units_is_refused(tmp_path):
    with (
        h5py.File(tmp_path / "empty.nwb", "w") as file,
        pytest.raises(RetinaCodecError, match="empty must hold a table of units"),
    ):
        read_units(file, "empty")


def test_a_module_points_to_the_units_of_the_copy(tmp_path):
    path = tmp_path / "session.nwb"
    write_session(path, [20, 3, 7])
    with h5py.File(path, "r+") as file:
        units = read_units(file, "session.nwb")
        builder = ModuleBuilder()
        columns = [units.column(np.array([7, 20])), column("r", np.array([0.25, 0.5]), "r")]
        builder.add_table("cells", "by hand", columns)
        units.write_module(file, builder.module("made", "By hand.", {}))
    with NWBHDF5IO(path, "r") as stream:
        nwbfile = stream.read()
        assert isinstance(nwbfile.processing["made"], ProcessingModule)
        table = nwbfile.processing["made"]["cells"]
        assert table["unit"].table is nwbfile.units
        assert table["unit"].data[:].tolist() == [2, 0]
        assert table["unit"][0].index.tolist() == [7]  # the row of the units table itself


def test_a_copy_is_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(nwb_session_copy, "BLOCK", 1000)
    content = np.random.default_rng(0).bytes(12_345)
    (tmp_path / "session.nwb").write_bytes(content)
    stream = io.BytesIO()
    digest = copy_session(tmp_path / "session.nwb", stream, progress=False)
    assert stream.getvalue() == content
    assert digest == hashlib.sha256(content).hexdigest()


def test_a_long_copy_shows_a_bar(tmp_path, capsys):
    (tmp_path / "session.nwb").write_bytes(b"1234")
    copy_session(tmp_path / "session.nwb", io.BytesIO(), progress=True)
    assert "copy session" in capsys.readouterr().err
    copy_session(tmp_path / "session.nwb", io.BytesIO())
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("attributes", "noted", "same"),
    [
        ({}, "", True),
        ({"recording_sha256": "", "source_sha256": ""}, "c", True),
        ({"recording_sha256": "a"}, "", True),
        ({"source_sha256": "a"}, "", True),
        ({"recording_sha256": "b", "source_sha256": "c"}, "c", True),
        ({"recording_sha256": "b"}, "", False),
        ({"recording_sha256": "b", "source_sha256": "c"}, "", False),
        ({"source_sha256": "c"}, "d", False),
    ],
)
def test_hashes_say_whether_it_is_the_session(attributes, noted, same):
    if same:
        check_same_session(attributes, "session.nwb", "a", noted)
        return
    known = "|".join(f"{name} {value}" for name, value in attributes.items())
    with pytest.raises(RetinaCodecError, match=rf"({known}).*other_session=True"):
        check_same_session(attributes, "session.nwb", "a", noted)


def test_the_hash_of_the_source_stands_in_the_notes(tmp_path):
    write_session(tmp_path / "ours.nwb", [1, 2], source_sha256="abc")
    with h5py.File(tmp_path / "ours.nwb", "r+") as file:
        assert source_hash(file) == "abc"
        for other in ("free text", '{"retina_codec": 3}', "[]"):
            del file["general/notes"]
            file["general/notes"] = other
            assert source_hash(file) == ""
        del file["general/notes"]
        assert source_hash(file) == ""


def outside(kind, file):
    if kind == "link":
        file["stimulus/templates/movie"] = h5py.ExternalLink("frames.h5", "/movie")
    elif kind == "values":
        file.create_dataset("acquisition/raw", (4,), "i1", external=[("frames.h5", 0, 4)])
    elif kind == "virtual":
        layout = h5py.VirtualLayout((4,), "i1")
        layout[:] = h5py.VirtualSource("frames.h5", "movie", (4,))
        file.create_virtual_dataset("acquisition/raw", layout)
    elif kind == "video":
        file["acquisition/video/external_file"] = ["frames.h5"]


@pytest.mark.parametrize("kind", ["link", "values", "virtual", "video"])
def test_a_session_with_neighbours_is_copied_only_beside_them(tmp_path, kind):
    path = tmp_path / "session.nwb"
    write_session(path, [1, 2])
    (tmp_path / "frames.h5").write_bytes(b"1234")
    (tmp_path / "elsewhere").mkdir()
    with h5py.File(path, "r+") as file:
        refuse_neighbours(file, path, tmp_path / "elsewhere" / "out.nwb")
        outside(kind, file)
    with h5py.File(path) as file:
        refuse_neighbours(file, path, tmp_path / "out.nwb")
        with pytest.raises(RetinaCodecError, match=r"session\.nwb points to frames\.h5, relative"):
            refuse_neighbours(file, path, tmp_path / "elsewhere" / "out.nwb")


def test_links_within_a_file_and_addresses_are_no_neighbours(tmp_path):
    path = tmp_path / "session.nwb"
    write_session(path, [1, 2])
    with h5py.File(path, "r+") as file:
        file["acquisition/soft"] = h5py.SoftLink("/units")
        file["acquisition/hard"] = file["units"]
        file["acquisition/round/about"] = file["acquisition"]  # a circle
        file["acquisition/video/external_file"] = ["https://example.org/a.mp4", "/data/b.mp4"]
        refuse_neighbours(file, path, tmp_path / "elsewhere" / "out.nwb")
