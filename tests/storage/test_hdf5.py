"""The careful door: links stay in the folder, sizes are true, every fault is one clear error."""

import os
import tracemalloc

import h5py
import numpy as np
import pytest

from retina_codec.errors import RetinaCodecError
from retina_codec.storage.hdf5 import check_stored, child, hdf5_input, inside_folder, read_array

VALUES = np.arange(12.0).reshape(3, 4)


@pytest.fixture
def path(tmp_path):
    folder = tmp_path / "inside"
    folder.mkdir()
    with h5py.File(folder / "a.h5", "w") as file:
        file["group/values"] = VALUES
        file["group/deep/soft"] = h5py.SoftLink("/group/values")
        file["group/near"] = h5py.SoftLink("values")
        file["group/chain"] = h5py.SoftLink("near")
        file["group/dangling"] = h5py.SoftLink("nothing")
        file["beside"] = h5py.ExternalLink("b.h5", "group/values")
        file["missing"] = h5py.ExternalLink("c.h5", "group/values")
        file["outside"] = h5py.ExternalLink("../b.h5", "group/values")
        file["one"] = h5py.SoftLink("two")
        file["two"] = h5py.SoftLink("one")
        file["empty"] = h5py.Empty("f8")
    for place in (folder, tmp_path):
        with h5py.File(place / "b.h5", "w") as file:
            file["group/values"] = -VALUES
            file["leaves"] = h5py.ExternalLink("../b.h5", "group/values")
    with h5py.File(folder / "a.h5", "a") as file:
        file["twice"] = h5py.ExternalLink("b.h5", "leaves")
    return folder / "a.h5"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("group/values", VALUES),
        ("/group/values", VALUES),
        ("./group/./values", VALUES),
        ("group/deep/soft", VALUES),
        ("group/near", VALUES),
        ("group/chain", VALUES),
        ("beside", -VALUES),
    ],
)
def test_members_are_those_that_h5py_finds(path, name, expected):
    with hdf5_input(path) as file:
        found = child(file, name)
        np.testing.assert_array_equal(read_array(found), expected)
        np.testing.assert_array_equal(read_array(found, np.s_[1, ::2]), expected[1, ::2])
        assert found == file[name]


@pytest.mark.parametrize(
    "name",
    ["nothing", "group/nothing", "group/values/deeper", "group/dangling", "nothing/a"],
)
def test_what_is_not_there_is_none(path, name):
    with hdf5_input(path) as file:
        assert child(file, name) is None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("outside", r"points to '\.\./b\.h5', outside its own folder.*move the target there"),
        ("twice", "outside its own folder"),
        ("missing", r"points to 'c\.h5', and no file is there"),
        ("one", "goes in circles"),
    ],
)
def test_links_that_lead_astray_are_refused(path, name, message):
    with pytest.raises(RetinaCodecError, match=message), hdf5_input(path) as file:
        child(file, name)


def test_a_long_chain_of_links_is_refused(path):
    with h5py.File(path, "a") as file:
        file["link0"] = h5py.SoftLink("group/values")
        for number in range(40):
            file[f"link{number + 1}"] = h5py.SoftLink(f"link{number}")
    with hdf5_input(path) as file:
        np.testing.assert_array_equal(read_array(child(file, "link20")), VALUES)
        with pytest.raises(RetinaCodecError, match="goes in circles"):
            child(file, "link40")


def test_values_in_other_places(path):
    folder = path.parent
    np.arange(12.0).tofile(folder / "raw.bin")
    with h5py.File(path, "a") as file:
        file.create_dataset("raw", (3, 4), "f8", external=[("raw.bin", 0, 96)])
        for name, source in (("near", "b.h5"), ("far", "../b.h5"), ("own", ".")):
            layout = h5py.VirtualLayout((3, 4), "f8")
            layout[...] = h5py.VirtualSource(source, "group/values", (3, 4))
            file.create_virtual_dataset(f"virtual {name}", layout)
    with hdf5_input(path) as file:
        np.testing.assert_array_equal(read_array(child(file, "virtual near")), -VALUES)
        np.testing.assert_array_equal(read_array(child(file, "virtual own")), VALUES)
        with pytest.raises(RetinaCodecError, match="outside its own folder"):
            child(file, "virtual far")
        with pytest.raises(RetinaCodecError, match=r"must stand in an HDF5 file.*h5repack"):
            child(file, "raw")


@pytest.mark.parametrize("name", ["b.h5", "deep/b.h5", "./x/../b.h5"])
def test_places_inside_a_folder(tmp_path, name):
    found = inside_folder(name, tmp_path, "owner")
    assert found == (tmp_path / name).resolve()
    assert found.is_absolute()


@pytest.mark.parametrize(
    "name", ["../b.h5", "/etc/hostname", "deep/../../b.h5", "way/b.h5", "a\0b"]
)
def test_places_outside_a_folder(tmp_path, name):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "way").symlink_to(tmp_path)  # a symbolic link is followed before it is judged
    with pytest.raises(RetinaCodecError, match="outside its own folder"):
        inside_folder(name, folder, "owner")


def test_a_claimed_size_without_values_is_refused_before_it_is_allocated(path):
    with h5py.File(path, "a") as file:
        options = {"dtype": "f8", "compression": "gzip", "chunks": (2**16,)}
        file.create_dataset("bomb", (10**11,), **options)
        file.create_dataset("small", (10**6,), **options)
        file.create_dataset("packed", data=np.zeros(2**21 + 2), compression="gzip")
        random = np.random.default_rng(0).integers(0, 9, 2**21 + 2)
        file.create_dataset("honest", data=random, compression="gzip", compression_opts=1)
    tracemalloc.start()
    with hdf5_input(path) as file:
        with pytest.raises(RetinaCodecError, match=r"/bomb claims \d+ bytes and stores 0;.*hardly"):
            read_array(child(file, "bomb"))
        with pytest.raises(RetinaCodecError, match="bomb"):
            check_stored(child(file, "bomb"), path)
        assert tracemalloc.get_traced_memory()[1] < 2**24
        tracemalloc.stop()
        assert (read_array(child(file, "small")) == np.zeros(10**6)).all()  # below any doubt
        assert not read_array(child(file, "packed")).any()  # all alike, and all there
        np.testing.assert_array_equal(read_array(child(file, "honest")), random)


@pytest.mark.parametrize("name", ["group", "empty", "nothing"])
def test_what_is_no_array_is_not_read(path, name):
    with hdf5_input(path) as file, pytest.raises(RetinaCodecError, match="must be an array; it is"):
        read_array(child(file, name))


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (None, "there must be a movie at .*; no file is there"),
        (lambda p: p.write_text("spikes"), r"must be a movie that can be read; it is not \("),
        (lambda p: p.write_bytes(b""), "must be a movie that can be read"),
        (lambda p: p.mkdir(), "no file is there"),
    ],
)
def test_what_is_no_hdf5_file_is_refused_in_one_line(tmp_path, write, message):
    place = tmp_path / "x.h5"
    if write:
        write(place)
    with pytest.raises(RetinaCodecError, match=message) as caught, hdf5_input(place, "a movie"):
        pass
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "fault", [OSError, RuntimeError, KeyError, TypeError, ValueError, MemoryError, OverflowError]
)
def test_faults_of_the_library_become_one_error(path, fault):
    with pytest.raises(RetinaCodecError, match=r"it is not \('?deep trouble"), hdf5_input(path):
        raise fault("deep\ntrouble") if fault is not KeyError else KeyError("deep trouble")


def test_other_errors_pass_and_the_file_is_closed(path):
    with pytest.raises(KeyboardInterrupt), hdf5_input(path) as file:
        raise KeyboardInterrupt
    assert not file
    with pytest.raises(RetinaCodecError, match=r"^exactly this$"), hdf5_input(path) as file:
        raise RetinaCodecError("exactly this")
    assert not file
    with h5py.File(path, "a"):  # fails while anyone holds it open
        pass


def test_reading_changes_nothing(path):
    before, state = path.read_bytes(), os.stat(path).st_mtime_ns
    with hdf5_input(path) as file:
        read_array(child(file, "beside"))
    assert (path.read_bytes(), os.stat(path).st_mtime_ns) == (before, state)
