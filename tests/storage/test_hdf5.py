"""The careful door: links stay in the folder, sizes are true, every fault is one clear error."""

import os
import subprocess
import sys
import tracemalloc

import h5py
import numpy as np
import pytest

from retina_codec.errors import RetinaCodecError
from retina_codec.storage.hdf5 import (
    check_stored,
    child,
    hdf5_input,
    inside_folder,
    read_array,
    written_share,
)

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


# What is no damage


def chirp(frames=1200):
    """One value per frame: shrinks several hundred times."""
    level = (127 + 120 * np.sin(np.arange(frames) ** 1.3 / 40)).astype("u1")
    return np.broadcast_to(level[:, None, None], (frames, 120, 160))


@pytest.mark.parametrize("movie", [chirp(), np.zeros((1200, 120, 160), "u1")])
@pytest.mark.parametrize("filters", [{"compression": "gzip"}, {"compression": "lzf"}])
def test_values_that_are_all_alike_are_no_damage(tmp_path, movie, filters):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("movie", data=movie, chunks=(100, 120, 160), **filters)
    with hdf5_input(tmp_path / "a.h5") as file:
        dataset = child(file, "movie")
        assert dataset.nbytes > 80 * dataset.id.get_storage_size()
        np.testing.assert_array_equal(read_array(dataset), movie)
        assert written_share(dataset) == 1


def test_the_share_that_was_written(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        half = file.create_dataset("half", (10, 4), "u1", chunks=(2, 4))
        half[:5] = 1
        file.create_dataset("none", (10, 4), "u1")
        file["all"] = np.ones((10, 4))
        file.create_dataset("nothing", (0, 4), "u1")
    with hdf5_input(tmp_path / "a.h5") as file:
        found = {name: written_share(file[name]) for name in ("half", "none", "all", "nothing")}
    assert found == {"half": 0.6, "none": 0.0, "all": 1.0, "nothing": 1.0}


def test_more_than_gzip_can_hold_is_damage(path):
    """The header of a chunk says a small size; the claim is of another array."""
    with h5py.File(path, "a") as file:
        chunks = (2**24,)
        made = file.create_dataset("a", (2**24,), "f8", chunks=chunks, compression="gzip")
        made.id.write_direct_chunk((0,), b"x" * 1000)
    with hdf5_input(path) as file, pytest.raises(RetinaCodecError, match="no more than 1100 times"):
        read_array(child(file, "a"))


HOLDER = (
    "import h5py, sys\n"
    "file = h5py.File(sys.argv[1], {mode})\n"
    "{further}\n"
    "print('open', flush=True)\n"
    "sys.stdin.read()\n"
)


@pytest.mark.parametrize(
    ("mode", "further"), [("'a'", ""), ("'w', libver='latest'", "file.swmr_mode = True")]
)
def test_a_file_that_a_writer_holds_is_not_damaged(path, mode, further):
    code = HOLDER.format(mode=mode, further=further)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code, path], **pipes) as writer:
        assert writer.stdout.readline() == b"open\n"
        with pytest.raises(RetinaCodecError) as caught, hdf5_input(path):
            pass
        writer.stdin.close()
    assert "Another program holds it open for writing" in str(caught.value)
    assert "damaged" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "It is no HDF5 file .is empty.*download it again"),
        (b"<!DOCTYPE html>", r"It is no HDF5 file .begins with b'<!DOCTYPE ht"),
        (b"version https://git-lfs.github.com/spec/v1", "run git lfs pull"),
    ],
)
def test_what_is_another_kind_of_file_is_not_damaged(tmp_path, content, message):
    (tmp_path / "a.h5").write_bytes(content)
    with pytest.raises(RetinaCodecError, match=message) as caught, hdf5_input(tmp_path / "a.h5"):
        pass
    assert "damaged" not in str(caught.value)


def test_a_file_that_was_cut_is_damaged(path):
    path.write_bytes(path.read_bytes()[:1000])
    with (
        pytest.raises(RetinaCodecError, match=r"truncated.*copy it again, whole"),
        hdf5_input(path),
    ):
        pass


@pytest.mark.parametrize(("code", "name"), [(32015, "zstd"), (32001, "blosc"), (39999, "lzf")])
def test_a_filter_that_is_not_installed_is_named(tmp_path, code, name):
    """The number of h5py's own filter, 32000, is replaced in the file."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("a", data=np.arange(1000), compression="lzf", chunks=(100,))
    raw, own = path.read_bytes(), (32000).to_bytes(2, "little")
    start = raw.find(b"lzf\0") - 8
    assert raw[start : start + 2] == own
    path.write_bytes(raw[:start] + code.to_bytes(2, "little") + raw[start + 2 :])
    with (
        pytest.raises(
            RetinaCodecError, match=rf"/a .*{name}, {code}.*pip install hdf5plugin"
        ) as it,
        hdf5_input(path) as file,
    ):
        read_array(child(file, "a"))
    assert "damaged" not in str(it.value)


def test_a_virtual_array_whose_file_is_gone_is_not_read_as_zeros(path):
    with h5py.File(path, "a") as file:
        layout = h5py.VirtualLayout((3, 4), "f8")
        layout[...] = h5py.VirtualSource("gone.h5", "a", (3, 4))
        file.create_virtual_dataset("virtual", layout)
    with hdf5_input(path) as file, pytest.raises(RetinaCodecError, match=r"'gone\.h5' is not"):
        child(file, "virtual")
