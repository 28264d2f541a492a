import errno
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys

import h5py
import numpy as np
import pynwb
import pytest
import xarray as xr
from pynwb import NWBHDF5IO

from retina_codec.analysis.analyze import AnalysisSettings, analyze
from retina_codec.errors import RetinaCodecError
from retina_codec.recordings.nwb.reader import read_nwb
from retina_codec.recordings.nwb.writer import write_nwb
from retina_codec.report.nwb.export import MODULE, open_results_from_nwb, save_results_to_nwb
from retina_codec.report.nwb.parts import notes_of
from retina_codec.storage.trees import save_tree
from tests.report.small_session import inspected, write_session
from tests.small import CELLS, small_network, small_recording

SETTINGS = {
    "settings": AnalysisSettings(
        steps=2, modes=3, active=1, clusters=range(2, 4), own_windows=0, copies=0
    ),
    "progress": False,
}


@pytest.fixture(scope="module")
def analyzed(tmp_path_factory):
    """A session on disk, and the results of its analysis as the command line leaves them."""
    network = small_network()
    path = tmp_path_factory.mktemp("session") / "session.nwb"
    write_nwb(small_recording(network, bins=200), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    found = analyze(
        read_nwb(path),
        network,
        layers=["conv1", "conv2"],
        provenance={"recording_sha256": digest, "command": "by hand"},
        **SETTINGS,
    )
    return path, found


@pytest.fixture(scope="module")
def exported(analyzed, tmp_path_factory):
    session, found = analyzed
    path = tmp_path_factory.mktemp("exported") / "results.nwb"
    save_results_to_nwb(found, session, path, progress=False)
    return path


@pytest.fixture
def session(tmp_path):
    write_session(tmp_path / "session.nwb", range(16), extra=[100, 200])
    return tmp_path / "session.nwb"


def test_what_was_written_comes_back(analyzed, exported):
    _, found = analyzed
    back = open_results_from_nwb(exported)
    for layer in ("conv1", "conv2"):
        for part in ("modes", "pathways"):
            place = f"layers/{layer}/{part}"
            xr.testing.assert_identical(back[place].to_dataset(), found[place].to_dataset())
            for name, variable in found[place].variables.items():
                assert back[place][name].dtype == variable.dtype, (place, name)
    xr.testing.assert_identical(back["pathways"].to_dataset(), found["pathways"].to_dataset())
    assert back.attrs == found.attrs
    # Times are the very labels, so that arrays of both trees join.
    times = back["layers/conv1/modes/time"].values
    assert (times == found["responses/time"].values).all()


def test_results_and_session_are_untouched(analyzed, tmp_path):
    session, found = analyzed
    before, content = found.copy(deep=True), session.read_bytes()
    save_results_to_nwb(found, session, tmp_path / "out.nwb", progress=False)
    xr.testing.assert_identical(found, before)
    assert session.read_bytes() == content
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.nwb"]


def test_the_copy_is_the_session_and_one_more_module(analyzed, exported):
    session, _ = analyzed
    with h5py.File(session) as before, h5py.File(exported) as after:
        names = [[], []]
        before.visit(names[0].append)
        after.visit(lambda name: names[1].append(name) if MODULE not in name else None)
        names[0] = [name for name in names[0] if name != "processing"]
        assert [name for name in names[1] if name != "processing"] == names[0]
        for name in names[0]:
            if isinstance(before[name], h5py.Dataset) and before[name].shape is not None:
                assert np.array_equal(before[name][()], after[name][()]), name
    xr.testing.assert_identical(read_nwb(exported)["test"], read_nwb(session)["test"])


def test_the_inspector_finds_nothing_serious(exported):
    serious, names = inspected(exported)
    assert serious == []
    assert names <= {
        "check_session_start_time_old_date",
        "check_experimenter_exists",
        "check_institution",
        "check_processing_module_name",  # its name says what it is, the list has no word for it
    }
    assert pynwb.validate(path=str(exported)) == []


def test_other_tools_find_modes_loadings_and_cells(analyzed, exported):
    _, found = analyzed
    modes = found["layers/conv2/modes"].to_dataset()
    with NWBHDF5IO(exported, "r") as stream:
        nwbfile = stream.read()
        module = nwbfile.processing[MODULE]
        loadings = module["conv2_loadings"]
        assert (loadings.unit, loadings.rate) == ("nats", 100.0)
        assert loadings.starting_time == modes["time"].values[0]
        np.testing.assert_array_equal(loadings.data[:], modes["loading"])
        table = module["conv2_modes"].to_dataframe()
        explained = modes["loading"].sum("time") * abs(modes["dictionary"]).sum(("sign", "channel"))
        np.testing.assert_allclose(
            table["contribution_share"], explained / explained.sum(), rtol=1e-5
        )
        pathways = module["conv1_pathways"]
        assert pathways["unit"].table is nwbfile.units
        rows = pathways["unit"].data[:]
        assert [nwbfile.units["cell_name"][int(row)] for row in rows] == list(CELLS)
        parts = module["conv1_parts"].to_dataframe()
        held = parts[parts["label"] == "held_out"].iloc[0]
        inside = (modes["time"] >= held["start_time"] - 1e-9) & (
            modes["time"] < held["stop_time"] - 1e-9
        )
        np.testing.assert_array_equal(inside, modes["split"] == "held_out")


def test_the_provenance_says_what_was_left_out(exported):
    with h5py.File(exported) as file:
        module = file[f"processing/{MODULE}"]
        assert len(module.attrs["description"]) < 300
        notes = notes_of(module, str(exported))
    assert notes["provenance"]["command"] == "by hand"
    words = json.dumps(notes["left_out"])
    for part in ("/layers/conv1/contribution", "/receptive_fields/spatial", "/responses/target"):
        assert f'"{part}"' in words
    assert '"/layers/conv1/modes/loading"' not in words


def claims(cells):
    return xr.Dataset(
        {
            "statement": ("hypothesis", ["b drives a", "{c} does not"]),
            "cell": ("hypothesis", cells),
            "effect": ("hypothesis", [0.5, np.nan], {"units": "Hz", "long_name": "change"}),
            "interval": (("hypothesis", "bound"), [[0.2, 0.8], [np.nan, np.nan]]),
            "is_supported": ("hypothesis", [True, False]),
            "p_value": ("hypothesis", [np.nan, np.nan]),
            "draws": ((), 1000),
        },
        coords={"hypothesis": ["h1", "h2"], "bound": ["low", "high"]},
        attrs={"method": "permutation"},
    )


def test_cells_are_matched_by_label_and_hypotheses_are_written(results, session, tmp_path):
    tree = results.copy()
    tree["hypotheses"] = xr.DataTree(claims([3, 15]))
    save_results_to_nwb(tree, session, tmp_path / "out.nwb", other_session=True)
    back = open_results_from_nwb(tmp_path / "out.nwb")
    xr.testing.assert_identical(back["hypotheses"].to_dataset(), claims([3, 15]))
    xr.testing.assert_identical(
        back["layers/conv3/pathways"].to_dataset(), tree["layers/conv3/pathways"].to_dataset()
    )
    with h5py.File(tmp_path / "out.nwb") as file:
        module = file[f"processing/{MODULE}"]
        assert module["conv1_pathways/unit"][()].tolist() == list(range(2, 18))
        assert module["hypotheses/statement"].asstr()[()].tolist() == ["b drives a", "{c} does not"]
    assert inspected(tmp_path / "out.nwb")[0] == []


def test_a_saved_tree_gives_the_same_file(analyzed, exported, tmp_path):
    from retina_codec.storage.trees import open_tree, save_tree

    session, found = analyzed
    save_tree(found, tmp_path / "results.nc")
    opened = open_tree(tmp_path / "results.nc")
    save_results_to_nwb(opened, session, tmp_path / "out.nwb", progress=False)
    opened.close()
    xr.testing.assert_identical(
        open_results_from_nwb(tmp_path / "out.nwb"), open_results_from_nwb(exported)
    )


def test_results_of_another_recording_are_refused_unless_asked(analyzed, tmp_path):
    _, found = analyzed
    write_session(tmp_path / "other.nwb", CELLS)
    words = rf"recording_sha256 {found.attrs['recording_sha256'][:12]}.*other_session=True"
    with pytest.raises(RetinaCodecError, match=words):
        save_results_to_nwb(found, tmp_path / "other.nwb", tmp_path / "out.nwb")
    assert [entry.name for entry in tmp_path.iterdir()] == ["other.nwb"]
    save_results_to_nwb(found, tmp_path / "other.nwb", tmp_path / "out.nwb", other_session=True)
    assert open_results_from_nwb(tmp_path / "out.nwb").attrs == found.attrs


def test_a_session_made_from_the_same_source_is_the_same_session(results, tmp_path):
    write_session(tmp_path / "s.nwb", range(16), source_sha256=results.attrs["source_sha256"])
    save_results_to_nwb(results, tmp_path / "s.nwb", tmp_path / "out.nwb")
    assert list(open_results_from_nwb(tmp_path / "out.nwb")["layers"].children) == [
        "conv1",
        "conv2",
        "conv3",
    ]


def test_missing_cells_and_modes_are_named(results, tmp_path):
    write_session(tmp_path / "session.nwb", range(15))
    with pytest.raises(RetinaCodecError, match=r"units of the session; \[15\] are not"):
        save_results_to_nwb(
            results, tmp_path / "session.nwb", tmp_path / "out.nwb", other_session=True
        )
    bare = xr.DataTree.from_dict({"/layers/conv1": xr.Dataset()})
    with pytest.raises(RetinaCodecError, match="must hold modes of at least one layer"):
        save_results_to_nwb(bare, tmp_path / "session.nwb", tmp_path / "out.nwb")
    assert [entry.name for entry in tmp_path.iterdir()] == ["session.nwb"]


def test_existing_files_are_kept(results, session, tmp_path):
    (tmp_path / "out.nwb").write_text("keep me")
    with pytest.raises(RetinaCodecError, match="must not exist yet"):
        save_results_to_nwb(results, session, tmp_path / "out.nwb", other_session=True)
    assert (tmp_path / "out.nwb").read_text() == "keep me"
    content = session.read_bytes()
    with pytest.raises(RetinaCodecError, match="must not replace what is in use"):
        save_results_to_nwb(results, session, session, overwrite=True, other_session=True)
    assert session.read_bytes() == content
    save_results_to_nwb(results, session, tmp_path / "out.nwb", overwrite=True, other_session=True)
    with pytest.raises(RetinaCodecError, match="must be a session without results"):
        save_results_to_nwb(
            results, tmp_path / "out.nwb", tmp_path / "again.nwb", other_session=True
        )


def test_a_full_disk_leaves_nothing(results, session, tmp_path, monkeypatch):
    from retina_codec.storage.hdf5 import _LastingFile

    size = session.stat().st_size
    real = _LastingFile.write

    def full(self, data):
        if self.tell() + len(memoryview(data)) > size + 5000:
            self.failure = self.failure or OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(self, data)

    monkeypatch.setattr(_LastingFile, "write", full)
    with pytest.raises(RetinaCodecError, match=r"could not write .*out\.nwb: No space left"):
        save_results_to_nwb(results, session, tmp_path / "out.nwb", other_session=True)
    assert [entry.name for entry in tmp_path.iterdir()] == ["session.nwb"]


def test_files_without_results_are_refused(results, session, tmp_path):
    with pytest.raises(
        RetinaCodecError, match=rf"must have the processing module {MODULE}; it has"
    ):
        open_results_from_nwb(session)
    (tmp_path / "page.nwb").write_text("no HDF5")
    with pytest.raises(RetinaCodecError, match="must be an NWB file"):
        open_results_from_nwb(tmp_path / "page.nwb")
    with pytest.raises(RetinaCodecError, match="no file is there"):
        open_results_from_nwb(tmp_path / "nowhere.nwb")
    for place in (tmp_path / "nowhere.nwb", "https://example.org/session.nwb", tmp_path):
        with pytest.raises(
            RetinaCodecError, match=r"on this machine; there is none at .* Download"
        ):
            save_results_to_nwb(results, place, tmp_path / "out.nwb")


def test_a_file_of_an_older_version_is_read(exported, tmp_path):
    """Its notes stood in the description of the module."""
    path = tmp_path / "old.nwb"
    path.write_bytes(exported.read_bytes())
    with h5py.File(path, "r+") as file:
        module = file[f"processing/{MODULE}"]
        module.attrs["description"] = "Modes.\n" + json.dumps(notes_of(module, "it"))
        del module["notes"]
    xr.testing.assert_identical(open_results_from_nwb(path), open_results_from_nwb(exported))


def test_pynwb_shows_the_module_without_a_screenful_of_json(exported):
    with NWBHDF5IO(exported, "r") as io:
        nwbfile = io.read()
        for shown in (repr(nwbfile.processing[MODULE]), nwbfile.processing[MODULE]._repr_html_()):
            assert "left_out" not in shown[:20_000]
        assert len(repr(nwbfile.processing[MODULE])) < 4000
        notes = nwbfile.processing[MODULE]["notes"].to_dataframe()
        assert '["provenance", "command"]' in set(notes["place"])


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on file sizes")
@pytest.mark.parametrize("room", [2_000, "the session and a little"])
def test_a_full_disk_is_one_line_and_no_crash(analyzed, tmp_path, room):
    session, found = analyzed
    save_tree(found, tmp_path / "results.nc")
    size = room if isinstance(room, int) else session.stat().st_size + 3_000

    def limit() -> None:  # a write beyond this fails, as on a full disk
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    out = tmp_path / "out.nwb"
    arguments = ["export", tmp_path / "results.nc", session, "--out", out, "--other-session"]
    done = subprocess.run(
        [sys.executable, "-m", "retina_codec.cli.main", *map(str, arguments)],
        preexec_fn=limit,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 2, done.stderr
    assert "could not write" in done.stderr.splitlines()[-1]
    assert [entry.name for entry in tmp_path.iterdir()] == ["results.nc"]
