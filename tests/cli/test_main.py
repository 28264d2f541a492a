"""The command line: whole outputs or none, and one clear line for every bad input."""

import csv
import functools
import json
import os
import re
import resource
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import xarray as xr

from retina_codec.analysis.analyze import AnalysisSettings
from retina_codec.cli import main as cli
from retina_codec.cli.options import _read_settings, given_again
from retina_codec.errors import RetinaCodecError
from retina_codec.modes.scores.score import ScoreSettings, score_modes
from retina_codec.networks.checkpoints import load_network, save_network
from retina_codec.recordings.files import open_recording, save_recording
from retina_codec.storage.trees import open_tree
from tests.small import small_network, small_recording

SMALL = ["--steps", "2", "--modes", "4", "--active", "2", "--no-halves"]
STEP = re.compile(r"^\[ *\d+\.\d s\] |^[a-z ]+: +\d+%\|")  # a step, or a slow step's progress
FIGURES = [
    "contribution_heat_maps",
    "figure_8",
    "irf_combinations",
    "mode_matrices",
    "network_and_target",
    "quality_checks",
]
STIMULUS = "stimulus/presentation/stimulus"


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """A folder with session.nwb and network/, as a lab would have it."""
    folder = tmp_path_factory.mktemp("session")
    network = small_network()
    save_network(network, folder / "network")
    save_recording(small_recording(network, bins=300), folder / "session.nwb")
    return folder


@pytest.fixture
def work(session, tmp_path, monkeypatch):
    """A working folder that holds links to nothing: only what the test puts there."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "session.nwb").write_bytes((session / "session.nwb").read_bytes())
    save_network(small_network(), tmp_path / "network")
    return tmp_path


def run(*arguments: object) -> int:
    return cli.main([str(argument) for argument in arguments])


def error_line(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of an error; steps that went well before it are allowed, nothing else is."""
    out, err = capsys.readouterr()
    assert out == ""
    lines = [line for line in err.splitlines() if line and not STEP.match(line)]
    assert len(lines) == 1, err
    assert lines[0].startswith("retina-codec: ")
    assert "warning" not in lines[0]
    assert len(lines[0]) > 40, "an error says what must hold, what came and the way out"
    return lines[0]


# ----------------------------------------------------------------- good input


def test_analyze_leaves_everything(work, capsys):
    assert run("analyze", "session.nwb", "--network", "network", "--out", "out", *SMALL) == 0
    err = capsys.readouterr().err
    assert "contributions" in err
    assert err.splitlines()[-1].endswith("report.html")
    results = open_tree("out/results.nc", lazy=False)
    assert results.attrs["command"].startswith("retina-codec analyze session.nwb")
    assert re.fullmatch("[0-9a-f]{64}", results.attrs["recording_sha256"])
    assert str(work) not in str(results.attrs)
    page = Path("out/report.html").read_text(encoding="utf-8")
    assert "<html" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    figures = sorted(path.name for path in Path("out/figures").iterdir())
    assert figures == [f"{name}.png" for name in FIGURES]
    assert all(path.stat().st_size > 5000 for path in Path("out/figures").iterdir())
    with h5py.File("out/results.nc") as file:
        rate = file["responses/prediction"]
        assert rate.attrs["units"] == "Hz"
        np.testing.assert_array_equal(rate[()], results["responses/prediction"].values)

    claims = results["hypotheses"]
    with Path("out/hypotheses.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["statement"] for line in lines] == claims["statement"].values.tolist()
    with Path("out/hypotheses.json").open(encoding="utf-8") as file:
        rows = json.load(file)
    np.testing.assert_allclose(
        [[cell["change"] for cell in row["cells"]] for row in rows], claims["change"].values
    )
    assert 'id="hypotheses"' in page

    assert run("report", "out", "--out", "again.html") == 0
    assert len(Path("again.html").read_text(encoding="utf-8")) == pytest.approx(len(page), rel=0.05)


def test_recorded_command_keeps_no_absolute_paths(work):
    command = cli.recorded_command(
        ["analyze", str(work / "session.nwb"), f"--network={work}/network", "--out", "some/out"]
    )
    assert command == "retina-codec analyze session.nwb --network=network --out some/out"
    assert cli.recorded_command(["demo", "--out", "a b"]) == "retina-codec demo --out 'a b'"
    assert cli.recorded_command(["report", "~/x/r.nc"]) == "retina-codec report r.nc"


@pytest.mark.parametrize("out", ["session.nwb", "."])
def test_fit_never_replaces_its_recording(work, capsys, monkeypatch, out):
    def fitted(*_args: object, **_kwargs: object) -> None:
        pytest.fail("refuse before the fit, not after it")

    monkeypatch.setattr("retina_codec.networks.retina.fitting.fit_network", fitted)
    before = _contents(work)
    assert run("fit", "session.nwb", "--out", out, "--overwrite") == 2
    assert "must not replace" in error_line(capsys)
    assert _contents(work) == before


@pytest.mark.parametrize("results", ["nothing", "network"])
@pytest.mark.usefixtures("work")
def test_report_says_where_results_are_missing(results, capsys):
    assert run("report", results, "--out", "page.html") == 2
    line = error_line(capsys)
    assert "results.nc" in line
    assert "retina-codec analyze" in line
    assert not Path("page.html").exists()


@pytest.mark.usefixtures("work")
def test_convert_there_and_back():
    assert run("convert", "session.nwb", "a.zarr") == 0
    assert run("convert", "a.zarr", "b.nc") == 0
    before, after = open_recording("session.nwb"), open_recording("b.nc")
    for name in ("stimulus", "spike_count", "rate"):
        np.testing.assert_array_equal(before[f"test/{name}"].values, after[f"test/{name}"].values)
    assert list(before["test/cell"].values) == list(after["test/cell"].values)


@pytest.mark.parametrize("command", ["demo", "analyze", "fit", "convert", "report"])
def test_help_has_an_example(command, capsys):
    assert run(command, "--help") == 0
    assert f"Example: retina-codec {command} " in " ".join(capsys.readouterr().out.split())


def test_help_is_quick_because_nothing_is_imported():
    program = (
        "import sys; from retina_codec.cli import main as cli; cli.main(['analyze', '--help']);"
        "print('pynwb' in sys.modules, 'matplotlib' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stderr.split() == ["False", "False"]


@pytest.mark.usefixtures("work")
def test_overwrite_replaces_the_whole_folder(monkeypatch):
    monkeypatch.setattr("retina_codec.figures.base.drawn_figures", lambda _, failed: ())  # noqa: ARG005
    monkeypatch.setattr("retina_codec.report.page.page.write_report", lambda *_: {})
    Path("out").mkdir()
    Path("out/old.txt").write_text("old")
    arguments = ["analyze", "session.nwb", "--network", "network", "--out", "out", *SMALL]
    assert run(*arguments, "--layer", "conv1", "--overwrite") == 0
    assert not Path("out/old.txt").exists()
    assert list(open_tree("out/results.nc")["layers"].children) == ["conv1"]


@pytest.mark.usefixtures("work")
def test_hypotheses_can_be_left_out_and_scores_are_drawn(monkeypatch):
    quick = functools.partial(score_modes, seeds=2, settings=ScoreSettings(limits=(1,), times=3))
    monkeypatch.setattr("retina_codec.modes.scores.score.score_modes", quick)
    arguments = ["analyze", "session.nwb", "--network", "network", "--out", "out", *SMALL]
    assert run(*arguments, "--layer", "conv1", "--no-hypotheses", "--scores") == 0
    assert "hypotheses" not in open_tree("out/results.nc").children
    names = {path.name for path in Path("out").iterdir()}
    assert names == {"results.nc", "report.html", "figures"}
    assert "scorecard.png" in {path.name for path in Path("out/figures").iterdir()}
    page = Path("out/report.html").read_text(encoding="utf-8")
    assert "There are none: they were not asked for." in page


@pytest.mark.usefixtures("work")
def test_settings_reach_the_analysis(monkeypatch):
    seen = {}

    def stop(_session: object, _network: object, **settings: object) -> None:
        seen.update(settings)
        raise RetinaCodecError("enough has been seen of the settings")

    monkeypatch.setattr("retina_codec.analysis.analyze.analyze", stop)
    code = run(
        *["analyze", "session.nwb", "--network", "network", "--out", "out", "--split", "test"],
        *["--layer", "conv2", "--layer", "conv1", "--steps", "7", "--modes", "9", "--active", "2"],
        *[
            "--shrinkage",
            "ledoit-wolf",
            "--seed",
            "5",
            "--no-hypotheses",
            "--scores",
            "--no-halves",
        ],
    )
    assert code == 2
    del seen["provenance"], seen["keep"]
    assert seen == {
        "split": "test",
        "layers": ("conv2", "conv1"),
        "settings": AnalysisSettings(steps=7, modes=9, active=2, shrinkage="ledoit-wolf", copies=0),
        "seed": 5,
        "hypotheses": False,
        "scores": True,
        "device": "cpu",
    }


def test_fit_leaves_a_network_that_analyzes(work, capsys):
    save_recording(small_recording(bins=300, train_bins=1500), work / "long one.nc")
    small = ["--history", 8, "--channels", 3, 2, "--kernels", 3, 5, 3, "--epochs", 2, "--surround"]
    cells = '["a", "b", "d", "f"]'
    fit = ["fit", "long one.nc", "--out", "fitted", *small, "--seed", 4, "--set", f"cells={cells}"]
    assert run(*fit) == 0
    said = capsys.readouterr().err
    assert re.search(
        r"mean Pearson r over cells of −?0\.\d\d, .* % of what the repeats allow", said
    )
    proposed = shlex.split(said.partition("done: ")[2])
    assert proposed[:3] == ["retina-codec", "analyze", "long one.nc"]
    assert proposed[-2:] == ["--set", f"cells={cells}"]
    network = load_network("fitted")
    assert network.cells == ("a", "b", "d", "f")
    assert network.history == 8
    assert network.channels == (3, 2)
    assert network.kernel_sizes == (3, 5, 3)
    assert network.surround
    assert network.training_record["settings"]["epochs"] == 2
    assert network.training_record["settings"]["seed"] == 4
    rate = network(torch.zeros(1, 8, 16, 16))
    assert rate.shape == (1, 4)


@pytest.mark.parametrize(
    "value", ["movie", "3", 3, 2.5, True, None, ["a", 1], {"test": [0, 60]}, "it's", "null"]
)
def test_settings_are_written_as_they_are_read(value):
    (word, setting) = shlex.split(given_again({"cells": value}, "cpu"))
    assert word == "--set"
    assert _read_settings(None, None, (setting,)) == {"cells": value}


@pytest.mark.parametrize("out", ["session.nwb/inside", "network"])
def test_fit_finds_a_bad_place_before_the_training(work, capsys, monkeypatch, out):
    monkeypatch.setattr("retina_codec.networks.retina.fitting.fit_network", _never)
    before = _contents(work)
    assert run("fit", "session.nwb", "--out", out) == 2
    assert "--out: the output must" in error_line(capsys)
    assert _contents(work) == before


def test_fit_finds_a_place_that_is_read_only_before_the_training(work, capsys, monkeypatch):
    monkeypatch.setattr("retina_codec.networks.retina.fitting.fit_network", _never)
    monkeypatch.setattr("os.access", lambda place, mode: "locked" not in str(place))  # noqa: ARG005
    (work / "locked").mkdir()
    assert run("fit", "session.nwb", "--out", "locked/new") == 2
    assert "that you may write to" in error_line(capsys)


def test_an_interrupted_fit_says_where_it_goes_on(work, capsys, monkeypatch):
    def stop(*_args: object, resume: Path, **_kwargs: object) -> None:
        resume.write_bytes(b"state")
        raise KeyboardInterrupt

    monkeypatch.setattr("retina_codec.networks.retina.fitting.fit_network", stop)
    assert run("fit", "session.nwb", "--out", "new", "--resume", "state.pt") == 130
    assert "the same command goes on from state.pt" in error_line(capsys)
    assert not (work / "new").exists()


def _never(*_args: object, **_kwargs: object) -> None:
    pytest.fail("refuse before the fit, not after it")


@pytest.mark.slow
def test_demo_with_the_shipped_network(tmp_path, monkeypatch):
    short = ["--duration", 8, "--steps", 2, "--modes", 8]
    monkeypatch.chdir(tmp_path)  # not in a clone
    assert run("demo", "--out", tmp_path / "out", *short) == 0
    names = {path.name for path in (tmp_path / "out").iterdir()}
    tables = {"hypotheses.csv", "hypotheses.json"}
    assert names == {"session.nwb", "results.nc", "report.html", "figures", *tables}
    claims = open_tree(tmp_path / "out" / "results.nc")["hypotheses"]
    assert any(claims["interneuron"].values)
    with (tmp_path / "out" / "hypotheses.json").open(encoding="utf-8") as file:
        rows = json.load(file)
    assert [row["statement"] for row in rows] == claims["statement"].values.tolist()
    results = open_tree(tmp_path / "out" / "results.nc")
    assert results["responses"].sizes["time"] == 760


# ------------------------------------------------------------------ bad input


def not_hdf5(folder: Path) -> None:
    (folder / "session.nwb").write_text("time,cell\n0.1,3\n")


def without_units(folder: Path) -> None:
    with h5py.File(folder / "session.nwb", "a") as file:
        del file["units"]


def without_stimulus(folder: Path) -> None:
    with h5py.File(folder / "session.nwb", "a") as file:
        del file[STIMULUS]


def without_overlap(folder: Path) -> None:
    with h5py.File(folder / "session.nwb", "a") as file:
        file["units/spike_times"][...] += 1e5


def shorter_than_the_history(folder: Path) -> None:
    (folder / "session.nwb").unlink()
    save_recording(small_recording(bins=300).isel(time=slice(0, 6)), folder / "session.nwb")


def nan_in_the_stimulus(folder: Path) -> None:
    recording = small_recording(bins=300)
    stimulus = recording["test/stimulus"].astype("f4")
    stimulus[123, 4, 5] = np.nan
    recording["test"] = xr.DataTree(
        recording["test"].to_dataset().assign(stimulus=stimulus),
        children=dict(recording["test"].children),
    )
    (folder / "session.nwb").unlink()
    save_recording(recording, folder / "session.nwb")


def other_frame_size(folder: Path) -> None:
    (folder / "session.nwb").unlink()
    recording = small_recording(bins=300).isel(x=slice(0, 12), missing_dims="ignore")
    save_recording(recording, folder / "session.nwb")


def other_cells(folder: Path) -> None:
    (folder / "session.nwb").unlink()
    recording = small_recording(bins=300).isel(cell=slice(0, 4), missing_dims="ignore")
    save_recording(recording, folder / "session.nwb")


def silent_cell(folder: Path) -> None:
    network = small_network()
    with torch.no_grad():
        network.norm3.scale[2] = 0.0
    save_network(network, folder / "network", overwrite=True)


def weights_missing(folder: Path) -> None:
    (folder / "network" / "weights.safetensors").unlink()


def weights_altered(folder: Path) -> None:
    path = folder / "network" / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


def output_exists(folder: Path) -> None:
    (folder / "out").mkdir()
    (folder / "out" / "mine.txt").write_text("mine")


def recording_missing(folder: Path) -> None:
    (folder / "session.nwb").unlink()


def network_missing(folder: Path) -> None:
    (folder / "network").rename(folder / "elsewhere")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (not_hdf5, "session.nwb.*(NWB|HDF5)"),
        (without_units, "units"),
        (without_stimulus, "stimulus"),
        (without_overlap, "overlap"),
        (shorter_than_the_history, "8 frames.*6"),
        (nan_in_the_stimulus, r"NaN.*1\.23"),
        (other_frame_size, r"16 × 16.*16 × 12"),
        (other_cells, r"\['e', 'f'\]"),
        (silent_cell, r"\bc\b"),
        (weights_missing, r"weights\.safetensors"),
        (weights_altered, r"weights\.safetensors"),
        (output_exists, "--overwrite"),
        (recording_missing, r"session\.nwb"),
        (network_missing, "network"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_bad_input(spoil, says, work, capsys):
    spoil(work)
    before = _contents(work)
    code = run("analyze", "session.nwb", "--network", "network", "--out", "out", *SMALL)
    line = error_line(capsys)
    assert code == 2
    assert re.search(says, line), line
    assert _contents(work) == before, "something was left behind"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["analyze", "session.nwb", "--network", "network"], "--out"),
        (["analyse"], "analyse"),
        (
            ["analyze", "session.csv", "--network", "network", "--out", "out"],
            r"\.nwb.*\.nc.*\.zarr",
        ),
        (["convert", "session.nwb", "session.mat"], r"\.nwb.*\.nc.*\.zarr"),
        (["convert", "session.nwb", "session.nwb"], "differ"),
        (["convert", "session.nwb", "session.zarr"], "--overwrite"),
        (["report", "session.nwb", "--out", "report.html"], r"session\.nwb"),
        (["demo", "--out", "out", "--network", "insilica"], "one of the package: .*insilico"),
        (["demo", "--out", "out", "--device", "tpu"], "cuda"),
        (["fit", "session.nwb", "--out", "network"], "--overwrite"),
        (["fit", "session.nwb", "--out", "new"], "train"),
        (
            ["analyze", "session.nwb", "--network", "network", "--out", "out", "--layer", "conv9"],
            "conv9.*conv1",
        ),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else "",
)
def test_bad_arguments(arguments, says, work, capsys):
    (work / "session.csv").write_bytes(b"")
    (work / "session.zarr").mkdir()
    before = _contents(work)
    assert run(*arguments) == 2
    line = error_line(capsys)
    assert re.search(says, line), line
    assert _contents(work) == before


def test_failing_write_leaves_nothing(work, capsys, monkeypatch):
    def full(*_args: object, **_kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(xr.DataTree, "to_netcdf", full)
    before = _contents(work)
    code = run("analyze", "session.nwb", "--network", "network", "--out", "out", *SMALL)
    assert code == 2
    assert "No space left on device" in error_line(capsys)
    assert _contents(work) == before


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on file sizes")
@pytest.mark.parametrize(
    "name",
    ["copy.nc", "copy.nwb", "copy.zarr"],
)
def test_disk_that_fills_up_while_writing(work, name):
    def limit() -> None:  # a write beyond 20 kB fails, as on a full disk
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    before = _contents(work)
    done = subprocess.run(
        [sys.executable, "-m", "retina_codec.cli.main", "convert", "session.nwb", name],
        preexec_fn=limit,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 2, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("retina-codec: ")
    assert name in last
    assert "Traceback" not in done.stderr
    assert _contents(work) == before


def test_interrupt_leaves_nothing(work, capsys, monkeypatch):
    def stop(*_args: object, **_kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("retina_codec.analysis.analyze.analyze", stop)
    before = _contents(work)
    code = run("analyze", "session.nwb", "--network", "network", "--out", "out", *SMALL)
    assert code == 130
    assert "interrupted" in error_line(capsys)
    assert _contents(work) == before


def _contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too, with what is in it."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in folder.rglob("*")
    }
