"""Recordings at an address: read by parts, from a server of our own on this machine."""

import re
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import h5py
import numpy as np
import pytest

import retina_codec as rc
from tests.recordings.nwb_files import ALL_TEST, FRAMES, SPIKES, counted, movie, write

pytestmark = pytest.mark.filterwarnings(ALL_TEST)

pytest.importorskip("aiohttp")


class Ranges(SimpleHTTPRequestHandler):
    """Serves parts of files, as object stores do, and remembers how much it gave."""

    given: list[int] = []  # noqa: RUF012  # shared on purpose
    fallen = False

    def do_GET(self):
        if self.fallen:
            self.send_error(503)
            return
        file = self.translate_path(self.path)
        try:
            with open(file, "rb") as stream:
                data = stream.read()
        except OSError:
            self.send_error(404)
            return
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        first, last = 0, len(data) - 1
        if wanted:
            first = int(wanted[1])
            last = min(int(wanted[2] or last), last)
        part = data[first : last + 1]
        self.send_response(206 if wanted else 200)
        if wanted:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)
        self.given.append(len(part))

    def log_message(self, *_):
        pass


@pytest.fixture
def served(tmp_path, monkeypatch):
    Ranges.given.clear()
    monkeypatch.setattr(Ranges, "fallen", False)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Ranges, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_a_session_is_opened_without_being_downloaded(tmp_path, served, monkeypatch):
    monkeypatch.setattr("retina_codec.storage.hdf5.REMOTE_BLOCK", 2**16)
    frames = np.random.default_rng(0).integers(0, 255, (9000, 40, 40), dtype=np.uint8)  # 14 MB
    path = write(tmp_path / "a.nwb", stimulus=movie(data=frames))
    recording = rc.open_recording(f"{served}/a.nwb")
    assert sum(Ranges.given) < 0.3 * path.stat().st_size
    np.testing.assert_array_equal(recording["test/stimulus"][700:705], frames[700:705])
    expected = counted(SPIKES, np.arange(60) / 50, 1 / 50)
    np.testing.assert_array_equal(recording["test/spike_count"][:60], expected)
    assert recording.attrs["source"] == "a.nwb"


def test_an_address_where_nothing_is_or_no_longer_is(tmp_path, served, monkeypatch):
    write(tmp_path / "a.nwb")
    with pytest.raises(rc.RetinaCodecError, match=r"b\.nwb must be an NWB file") as caught:
        rc.open_recording(f"{served}/b.nwb")
    assert "\n" not in str(caught.value)
    recording = rc.open_recording(f"{served}/a.nwb")
    monkeypatch.setattr(Ranges, "fallen", True)
    with pytest.raises(rc.RetinaCodecError, match=r"a\.nwb must be the frames that can be read"):
        recording["test/stimulus"].compute()
    with pytest.raises(
        rc.RetinaCodecError, match="at an address only recordings of the format nwb"
    ):
        rc.open_recording(f"{served}/a.mat")


def test_a_file_at_an_address_must_stand_alone(tmp_path, served):
    def link(file):
        del file["stimulus/presentation/movie/data"]
        file["stimulus/presentation/movie/data"] = h5py.ExternalLink("movie.h5", "/frames")

    with h5py.File(tmp_path / "movie.h5", "w") as file:
        file["frames"] = FRAMES
    write(tmp_path / "a.nwb", mend=link)
    np.testing.assert_array_equal(rc.open_recording(tmp_path / "a.nwb")["test/stimulus"], FRAMES)
    with pytest.raises(rc.RetinaCodecError, match="at an address must stand alone"):
        rc.open_recording(f"{served}/a.nwb")


def test_in_memory_file_systems_too(tmp_path):
    import fsspec

    path = write(tmp_path / "a.nwb")
    memory = fsspec.filesystem("memory")
    memory.pipe("/sessions/a.nwb", path.read_bytes())
    recording = rc.open_recording("memory://sessions/a.nwb")
    np.testing.assert_array_equal(recording["test/stimulus"], FRAMES)
