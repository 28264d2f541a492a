import errno
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr

from retina_codec.errors import RetinaCodecError
from retina_codec.storage.trees import new_output, open_tree, save_tree, sha256_of

FORMATS = [".nc", ".zarr"]


def make_tree(seed=0):
    random = np.random.default_rng(seed)
    layer = xr.Dataset(
        {
            "contribution": (("time", "sign", "channel"), random.normal(size=(50, 2, 3))),
            "active": (("time", "mode"), random.random((50, 4)) > 0.5),
            "score": ((), np.float32(0.25)),
            "empty": ("none", np.zeros(0, "f4")),
        },
        coords={
            "time": np.arange(50) / 100,
            "sign": ["inhibitory", "excitatory"],
            "mode": np.arange(4),
            "word": ("mode", ["é", "", "µm and more", "b"]),
        },
        attrs={"units": "nats", "steps": 20, "step": 0.1, "empty": "", "list": [1, 2]},
    )
    layer["contribution"].attrs = {"units": "nats"}
    layer["time"].attrs = {"units": "s"}
    gaps = layer["contribution"].values
    gaps[3, 1, 2] = np.nan
    stimulus = random.integers(0, 255, (50, 6, 4), dtype=np.uint8)
    return xr.DataTree.from_dict(
        {
            "/": xr.Dataset(attrs={"method": "integrated gradients, ∫"}),
            "/layers/conv1": layer,
            "/layers/conv1/modes": xr.Dataset({"loading": ("mode", np.arange(4.0))}),
            "/test": xr.Dataset({"stimulus": (("time", "y", "x"), stimulus)}),
        }
    )


def everything_in(folder: Path):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("chunked", [False, True])
def test_saving_and_opening_changes_nothing(tmp_path, suffix, lazy, chunked):
    tree = make_tree()
    kept = tree.copy(deep=True)
    saved = tree.chunk(time=7) if chunked else tree
    save_tree(saved, tmp_path / f"results{suffix}")
    found = open_tree(tmp_path / f"results{suffix}", lazy=lazy)
    assert found.identical(tree)
    for node in tree.subtree:
        for name, variable in node.to_dataset(inherit=False).variables.items():
            assert found[node.path].to_dataset()[name].dtype == variable.dtype, name
        for name, value in node.attrs.items():
            assert type(found[node.path].attrs[name]) is type(value), name
    assert tree.identical(kept)
    assert everything_in(tmp_path)[0] == f"results{suffix}"
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(("first", "second"), [(".nc", ".zarr"), (".zarr", ".nc")])
def test_a_tree_moves_between_formats(tmp_path, first, second):
    tree = make_tree()
    save_tree(tree, tmp_path / f"a{first}")
    save_tree(open_tree(tmp_path / f"a{first}"), tmp_path / f"b{second}")
    assert open_tree(tmp_path / f"b{second}").identical(tree)


def test_the_file_opens_in_plain_h5py_and_plain_xarray(tmp_path):
    tree = make_tree()
    save_tree(tree, tmp_path / "results.nc")
    expected = tree["layers/conv1/contribution"].values
    with h5py.File(tmp_path / "results.nc") as file:
        np.testing.assert_array_equal(file["layers/conv1/contribution"][:], expected)
        assert file["layers/conv1/contribution"].attrs["units"] == "nats"
        assert file["layers/conv1/word"].asstr()[2] == "µm and more"
        assert file["layers/conv1/contribution"].compression == "gzip"
    with xr.open_datatree(tmp_path / "results.nc", engine="h5netcdf") as plain:
        np.testing.assert_array_equal(plain["layers/conv1/contribution"].values, expected)


@pytest.mark.parametrize("suffix", FORMATS)
def test_opening_reads_no_large_array(tmp_path, suffix, monkeypatch):
    path = tmp_path / f"results{suffix}"
    save_tree(make_tree(), path)
    if suffix == ".zarr":  # chunks that cannot be decoded prove that nobody decodes them
        for chunk in (path / "test/stimulus/c").rglob("*"):
            if chunk.is_file():
                chunk.write_bytes(b"x" * chunk.stat().st_size)
        tree = open_tree(path)
        assert tree["test/stimulus"].shape == (50, 6, 4)
        with pytest.raises(RetinaCodecError, match=r"lost or damaged \(test/stimulus/c/0"):
            tree["test/stimulus"][:3].to_numpy()
        return
    read = []
    original = h5py.Dataset.__getitem__
    monkeypatch.setattr(
        h5py.Dataset,
        "__getitem__",
        lambda self, key, **more: read.append((self.name, key)) or original(self, key, **more),
    )
    tree = open_tree(path)
    assert "/test/stimulus" not in {name for name, _ in read}
    part = tree["test/stimulus"][10:13].to_numpy()
    np.testing.assert_array_equal(part, make_tree()["test/stimulus"].values[10:13])
    assert [key[0] for name, key in read if name == "/test/stimulus"] == [slice(10, 13, 1)]


@pytest.mark.parametrize("suffix", FORMATS)
def test_an_existing_path_is_replaced_only_on_request(tmp_path, suffix):
    path = tmp_path / f"results{suffix}"
    save_tree(make_tree(0), path)
    with pytest.raises(RetinaCodecError, match=r"must not exist.*overwrite=True"):
        save_tree(make_tree(1), path)
    still_open = open_tree(path)
    assert still_open.identical(make_tree(0))
    save_tree(make_tree(1), path, overwrite=True)
    assert open_tree(path).identical(make_tree(1))


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("existing", [False, True])
def test_a_full_disk_leaves_what_was_there(tmp_path, suffix, existing, monkeypatch):
    path = tmp_path / f"results{suffix}"
    if existing:
        save_tree(make_tree(0), path)
    before = everything_in(tmp_path)

    def full(_, partial, **__):
        if suffix == ".nc":
            partial.write(b"half")
        else:
            Path(partial).mkdir()
            (Path(partial) / "zarr.json").write_text("{")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(xr.DataTree, "to_netcdf", full)
        patch.setattr(xr.DataTree, "to_zarr", full)
        with pytest.raises(RetinaCodecError, match=rf"results\{suffix}: No space left on device"):
            save_tree(make_tree(1), path, overwrite=existing)
    assert everything_in(tmp_path) == before
    if existing:
        assert open_tree(path).identical(make_tree(0))


FULL_DISK = """
import resource, signal, sys
import numpy as np, xarray as xr
from retina_codec.errors import RetinaCodecError
from retina_codec.storage.trees import save_tree
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
noise = np.random.default_rng(0).random((1000, 100))
try:
    save_tree(xr.DataTree(xr.Dataset({"noise": (("time", "cell"), noise)})), sys.argv[1])
except RetinaCodecError as error:
    sys.stdout.write(str(error))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="file size limits are POSIX")
@pytest.mark.parametrize("suffix", FORMATS)
def test_a_write_that_the_system_refuses_leaves_nothing(tmp_path, suffix):
    path = tmp_path / f"results{suffix}"
    command = [sys.executable, "-c", FULL_DISK, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.startswith(f"could not write {path}"), done.stderr
    assert "\n" not in done.stdout
    assert everything_in(tmp_path) == []


@pytest.mark.parametrize("value", [None, True, {"a": 1}, np.bool_(False), [None]])
def test_an_attribute_that_cannot_be_stored_is_named(tmp_path, value):
    tree = make_tree()
    tree["layers/conv1/contribution"].attrs["odd"] = value
    with pytest.raises(RetinaCodecError, match=r"/layers/conv1:contribution odd="):
        save_tree(tree, tmp_path / "results.zarr")
    assert everything_in(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("results.txt", b"", r"must end in \.nc or \.zarr"),
        ("missing.nc", None, "nothing is there"),
        ("text.nc", b"no HDF5 here", r"must be a readable HDF5 \(netCDF4\) file"),
        ("file.zarr", b"not a folder", "must be a readable Zarr folder"),
    ],
)
def test_a_file_that_is_no_tree_is_refused(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(RetinaCodecError, match=message) as caught:
        open_tree(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_new_output_makes_parents_and_renames_a_folder(tmp_path):
    with new_output(tmp_path / "deep/er/results") as partial:
        assert partial.name == ".results.partial"
        partial.mkdir()
        (partial / "a.txt").write_text("a")
        assert not (tmp_path / "deep/er/results").exists()
    assert everything_in(tmp_path) == [
        "deep",
        "deep/er",
        "deep/er/results",
        "deep/er/results/a.txt",
    ]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError, RetinaCodecError])
def test_new_output_removes_everything_on_failure_and_keeps_the_error(tmp_path, error):
    def work():
        with new_output(tmp_path / "deep/results") as partial:
            partial.mkdir()
            (partial / "a.txt").write_text("a")
            raise error("stopped")

    with pytest.raises(error, match="stopped"):
        work()
    assert everything_in(tmp_path) == []


def test_new_output_replaces_a_folder_and_clears_what_a_killed_run_left(tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "results/old.txt").write_text("old")
    (tmp_path / ".results.partial").mkdir()
    with new_output(tmp_path / "results", overwrite=True) as partial:
        assert not partial.exists()
        partial.mkdir()
        (partial / "new.txt").write_text("new")
        assert (tmp_path / "results/old.txt").exists()
    assert everything_in(tmp_path) == ["results", "results/new.txt"]


def test_new_output_refuses_to_replace_what_is_in_use(tmp_path, monkeypatch):
    work = tmp_path / "work"
    work.mkdir()
    (work / "session.nwb").write_text("data")
    for options in ({"inputs": [work / "session.nwb"]}, {"inputs": []}):
        if not options["inputs"]:
            monkeypatch.chdir(work)
        with pytest.raises(RetinaCodecError, match="must not replace what is in use"):
            new_output(work, overwrite=True, **options).__enter__()
    assert everything_in(work) == ["session.nwb"]


def test_new_output_notices_that_nothing_was_written_or_another_was_faster(tmp_path):
    with pytest.raises(RetinaCodecError, match="nothing was written"), new_output(tmp_path / "a"):
        pass

    def slow():
        with new_output(tmp_path / "b.txt") as partial:
            partial.write_text("mine")
            (tmp_path / "b.txt").write_text("theirs")

    with pytest.raises(RetinaCodecError, match="must not exist"):
        slow()
    assert (tmp_path / "b.txt").read_text() == "theirs"


def test_a_failing_rename_brings_the_old_folder_back(tmp_path, monkeypatch):
    (tmp_path / "results").mkdir()
    (tmp_path / "results/old.txt").write_text("old")
    real = os.replace

    def fail(source, destination):
        if Path(source).name.endswith(".partial"):
            raise OSError(errno.EIO, "Input/output error")
        real(source, destination)

    def work():
        with new_output(tmp_path / "results", overwrite=True) as partial:
            partial.mkdir()

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(RetinaCodecError, match="Input/output error"):
        work()
    assert everything_in(tmp_path) == ["results", "results/old.txt"]


def test_sha256_of_files_and_folders(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, B.1
    assert sha256_of(tmp_path / "abc") == known
    folders = []
    for name, files in {
        "one": {"b/x": "1", "a": "2"},
        "same": {"a": "2", "b/x": "1"},
        "renamed": {"b/y": "1", "a": "2"},
        "changed": {"b/x": "1", "a": "3"},
        "less": {"b/x": "1"},
    }.items():
        for file, text in files.items():
            (tmp_path / name / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / file).write_text(text)
        folders.append(sha256_of(tmp_path / name))
    assert folders[0] == folders[1]
    assert len(set(folders)) == 4
    lines = "".join(
        f"{name}\0{hashlib.sha256(text.encode()).hexdigest()}\n"
        for name, text in [("a", "2"), ("b/x", "1")]
    )
    assert folders[0] == hashlib.sha256(lines.encode()).hexdigest()
    with pytest.raises(RetinaCodecError, match="nothing is there"):
        sha256_of(tmp_path / "missing")


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("kind", ["M8[ns]", "m8[ns]"])
def test_dates_are_refused_instead_of_losing_their_meaning(tmp_path, suffix, kind):
    tree = xr.DataTree(xr.Dataset(coords={"time": np.arange(3).astype(kind)}))
    with pytest.raises(RetinaCodecError, match=r"dates .* time is .*seconds"):
        save_tree(tree, tmp_path / f"a{suffix}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_groups_keep_their_order(tmp_path, suffix):
    names = ["stage2", "conv10", "conv9", "a"]
    nodes = {f"/layers/{name}": xr.Dataset({"v": ("x", [1.0])}) for name in names}
    nodes |= {"/layers/conv9/two": xr.Dataset(), "/layers/conv9/one": xr.Dataset()}
    tree = xr.DataTree.from_dict(nodes)
    save_tree(tree, tmp_path / f"tree{suffix}")
    for lazy in (False, True):
        found = open_tree(tmp_path / f"tree{suffix}", lazy=lazy)
        assert list(found["layers"].children) == names
        assert list(found["layers/conv9"].children) == ["two", "one"]
        assert found["layers"].attrs == {}
    assert tree["layers"].attrs == {}
