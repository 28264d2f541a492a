"""NWB in Zarr: a session that hdmf-zarr 0.13 wrote (tests/data), format 3, and damage."""

import json
import pickle
import shutil
import warnings
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr

from retina_codec.errors import RecordingWarning, RetinaCodecError
from retina_codec.recordings.frames.lazy import lazy_frames
from retina_codec.recordings.nwb.open import is_nwb_zarr, open_nwb
from retina_codec.recordings.nwb.options import Reading
from retina_codec.recordings.nwb.reader import read_nwb
from retina_codec.recordings.nwb.stimulus import find_stimulus
from tests.recordings.nwb_files import ALL_TEST, FRAMES, movie, write

STORED = Path(__file__).parents[2] / "data/session.nwb.zarr.zip"


def arrays():
    """What the session was made from: a movie, then twelve pictures, all from one generator."""
    random = np.random.default_rng(0)
    movie = random.integers(0, 255, (40, 4, 3)).astype("u1")
    return movie, np.stack([random.integers(0, 255, (4, 3)).astype("u1") for _ in range(12)])


@pytest.fixture
def session(tmp_path):
    with zipfile.ZipFile(STORED) as archive:
        archive.extractall(tmp_path)
    return tmp_path / "session.nwb.zarr"


def test_movie_cells_and_splits(session):
    recording = read_nwb(session, stimulus="movie")
    movie, _ = arrays()
    np.testing.assert_array_equal(recording["train/stimulus"], movie[:20])
    np.testing.assert_array_equal(recording["test/stimulus"], movie[20:])
    counts = np.zeros((20, 3))
    counts[[2, 15, 16], 0] = 1
    counts[14, 1] = 1
    np.testing.assert_array_equal(recording["train/spike_count"], counts)
    assert recording["test/cell"].values.tolist() == [12, 4, 7]
    assert recording["test/type"].values.tolist() == ["ON"] * 3
    assert recording.attrs["session"] == "zarr session"
    travelled = pickle.loads(pickle.dumps(recording))
    np.testing.assert_array_equal(travelled["test/stimulus"], movie[20:])


def test_links_and_references_without_running_their_pickle(session):
    """The order of the pictures is a pickle in this format: read as data, by name."""
    _, pictures = arrays()
    with open_nwb(session) as root:
        found = find_stimulus(root, {}, "idx", Reading("session"))
    np.testing.assert_array_equal(lazy_frames(found.frames), pictures[::-1])
    np.testing.assert_allclose(found.clock.onsets, 1 + np.arange(12) / 2)


def test_a_consolidated_listing_tells_the_members(session):
    listing = {}
    for file in session.rglob(".z*"):
        listing[file.relative_to(session).as_posix()] = json.loads(file.read_text())
    (session / ".zmetadata").write_text(
        json.dumps({"metadata": listing, "zarr_consolidated_format": 1})
    )
    with open_nwb(session) as root:
        units = root.get("units")
        assert sorted(units.names()) == [
            "cell_type",
            "id",
            "obs_intervals",
            "obs_intervals_index",
            "spike_times",
            "spike_times_index",
        ]


class Harmful:
    def __reduce__(self):
        return exec, ("raise SystemExit('code ran')",)


@pytest.mark.parametrize("harm", [Harmful(), np.array([1]), b"x" * 10])
def test_a_pickle_of_anything_else_is_refused(session, harm):
    import numcodecs

    folder = session / "stimulus/templates/pics/order_of_images"
    settings = json.loads((folder / ".zarray").read_text())
    packed = numcodecs.get_codec(settings["compressor"]).encode(pickle.dumps(harm))
    (folder / "0").write_bytes(bytes(packed))
    with pytest.raises(
        RetinaCodecError, match=r"a pickle that names|must hold references|cannot be read"
    ):
        read_nwb(session, stimulus="idx")


def test_what_is_no_nwb_zarr(session, tmp_path):
    assert is_nwb_zarr(session)
    shutil.rmtree(session / "units")
    with pytest.raises(RetinaCodecError, match="must have units with spike times"):
        read_nwb(session, stimulus="movie")
    (tmp_path / "other.zarr").mkdir()
    assert not is_nwb_zarr(tmp_path / "other.zarr")


def test_a_size_that_lies(session):
    file = session / "units/spike_times/.zarray"
    settings = json.loads(file.read_text())
    file.write_text(json.dumps({**settings, "shape": [10**12]}))
    with pytest.raises(RetinaCodecError, match="claims 8000000000000 bytes and stores"):
        read_nwb(session, stimulus="movie")


def test_a_link_to_another_folder(session):
    file = session / "stimulus/presentation/idx/.zattrs"
    attributes = json.loads(file.read_text())
    attributes["zarr_link"][0]["source"] = "../elsewhere.zarr"
    file.write_text(json.dumps(attributes))
    with pytest.raises(
        RetinaCodecError, match=r"points to '\.\./elsewhere\.zarr'.*must have no links"
    ):
        read_nwb(session, stimulus="idx")


# Zarr format 3, and values that are all alike


def in_zarr(path, source, version, *, fixed=False):
    """Copy an HDF5 file into a Zarr folder, with links as hdmf-zarr writes them."""
    root = zarr.open_group(path, mode="w", zarr_format=version)

    def copy(group, made):
        for name, value in group.attrs.items():
            if isinstance(value, h5py.Reference):
                target = {"source": ".", "path": str(group.file[value].name)}
                made.attrs[name] = {"zarr_dtype": "object", "value": target}
            elif isinstance(value, np.ndarray | np.generic):
                made.attrs[name] = value.tolist()
            else:
                made.attrs[name] = value

    def walk(group, made):
        copy(group, made)
        for name, item in group.items():
            if isinstance(item, h5py.Group):
                walk(item, made.create_group(name))
                continue
            values = np.atleast_1d(item[()])
            text = values.dtype.kind in "OS"
            if text:
                values = np.array([entry.decode() for entry in values.flat], dtype=object)
            chunks = tuple(max(1, -(-n // 2)) for n in values.shape)
            if text and fixed:  # not in the standard of Zarr 3, as zarr says
                values = values.astype("U")
            kind = str if text and not fixed else values.dtype
            array = made.create_array(name, shape=values.shape, dtype=kind, chunks=chunks)
            array[...] = values
            copy(item, array)

    with h5py.File(source, "r") as file:
        walk(file, root)
    return path


@pytest.fixture
def source(tmp_path):
    def mend(file):
        del file["specifications"]
        del file["file_create_date"]

    columns = {"cell_type": ["ON", "OFF", "ON"]}
    return write(tmp_path / "a.nwb", columns=columns, mend=mend)


@pytest.mark.filterwarnings(ALL_TEST)
@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("consolidated", [False, True])
def test_both_formats_of_zarr_are_read(tmp_path, source, version, consolidated):
    path = in_zarr(tmp_path / "a.nwb.zarr", source, version)
    if consolidated:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # zarr says that others may not read it
            zarr.consolidate_metadata(path, zarr_format=version)
    found, expected = read_nwb(path), read_nwb(source)
    for place in ("test/stimulus", "test/rate", "test/type", "test/cell", "spikes/spike_time"):
        np.testing.assert_array_equal(found[place], expected[place])
    assert found.attrs["session"] == "a session"
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(found))["test/stimulus"], FRAMES)


@pytest.mark.filterwarnings(ALL_TEST)
def test_text_of_fixed_width_in_zarr_is_text(tmp_path, source):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = in_zarr(tmp_path / "a.nwb.zarr", source, 3, fixed=True)
    assert read_nwb(path)["test/type"].values.tolist() == ["ON", "OFF", "ON"]


@pytest.mark.filterwarnings(ALL_TEST)
@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("level", [0, 127])
def test_a_constant_movie_in_zarr_is_no_damage(tmp_path, version, level):
    """Zarr writes no file for a chunk that holds nothing but zeros."""
    black = np.full((9000, 50, 40), level, np.uint8)
    black[4000:4100] = 200
    source = write(tmp_path / "a.nwb", stimulus=movie(data=black))
    with h5py.File(source, "a") as file:
        del file["specifications"]
        del file["file_create_date"]
    recording = read_nwb(in_zarr(tmp_path / "a.nwb.zarr", source, version))
    np.testing.assert_array_equal(recording["test/stimulus"], black)


@pytest.mark.filterwarnings(ALL_TEST)
@pytest.mark.parametrize("version", [2, 3])
def test_a_black_movie_in_zarr_is_read_with_a_word(tmp_path, source, version):
    path = in_zarr(tmp_path / "a.nwb.zarr", source, version)
    array = zarr.open_array(path / "stimulus/presentation/movie/data", mode="a")
    array[...] = 0
    with pytest.warns(RecordingWarning, match="100 % of its values were never written"):
        assert not read_nwb(path)["test/stimulus"].values.any()


def test_a_chunk_that_cannot_be_unpacked_is_refused(tmp_path, source):
    path = in_zarr(tmp_path / "a.nwb.zarr", source, 3)
    for file in (path / "stimulus/presentation/movie/data/c").rglob("*"):
        if file.is_file():
            file.write_bytes(b"x" * 50)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RecordingWarning)
        recording = read_nwb(path)
    with pytest.raises(RetinaCodecError, match=r"movie/data must be a Zarr array.*Copy the folder"):
        recording["test/stimulus"].compute()


def test_metadata_that_are_no_json_are_refused(tmp_path, source):
    path = in_zarr(tmp_path / "a.nwb.zarr", source, 3)
    (path / "units/zarr.json").write_text("{")
    with pytest.raises(RetinaCodecError, match=r"units/zarr\.json must be JSON"):
        read_nwb(path)
