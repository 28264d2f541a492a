"""NWB in Zarr: a session that hdmf-zarr 0.13 wrote (tests/data), and damage to it."""

import json
import pickle
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

from retina_codec.errors import RetinaCodecError
from retina_codec.recordings.frames.lazy import lazy_frames
from retina_codec.recordings.nwb.open import is_nwb_zarr, open_nwb
from retina_codec.recordings.nwb.options import Reading
from retina_codec.recordings.nwb.reader import read_nwb
from retina_codec.recordings.nwb.stimulus import find_stimulus

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
