"""A step that fails or is interrupted keeps results.nc and all that was made before and after."""

import functools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from retina_codec.cli import main as cli
from retina_codec.errors import RetinaCodecError
from retina_codec.figures.base import drawn_figures, registry
from retina_codec.modes.scores.score import ScoreSettings, score_modes
from retina_codec.networks.checkpoints import save_network
from retina_codec.recordings.files import save_recording
from retina_codec.storage.trees import open_tree
from tests.small import small_network, small_recording

SMALL = ["--steps", "2", "--modes", "4", "--active", "2", "--layer", "conv1", "--no-halves"]
ANALYZE = ["analyze", "session.nc", "--network", "network", "--out", "out", *SMALL]


@pytest.fixture
def work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    network = small_network()
    save_network(network, "network")
    save_recording(small_recording(network, bins=300), "session.nc")
    return tmp_path


def last_line(capsys):
    return capsys.readouterr().err.splitlines()[-1]


def raising(error):
    def fail(*_args, **_kwargs):
        raise error

    return fail


def files(folder="out"):
    return {path.relative_to(folder).as_posix() for path in Path(folder).rglob("*.*")}


@pytest.fixture
def two_figures(monkeypatch):
    """Only the two quickest figures are drawn."""
    for name in registry.list():
        if name not in ("network_and_target", "quality_checks"):
            monkeypatch.setattr(registry.get(name), "needs", lambda _self, _results: False)
    return {"figures/network_and_target.png", "figures/quality_checks.png"}


TABLES = {"hypotheses.csv", "hypotheses.json"}


@pytest.mark.usefixtures("work")
def test_a_failing_table_keeps_the_rest(capsys, monkeypatch, two_figures):
    place = "retina_codec.analysis.hypotheses.table.hypotheses_to_table"
    monkeypatch.setattr(place, raising(TypeError("unsupported format string")))
    assert cli.main(ANALYZE) == 3
    line = last_line(capsys)
    assert "2 steps failed: hypotheses.csv (TypeError: unsupported format string); hypo" in line
    assert "Everything else is in out" in line
    assert files() == {"results.nc", "report.html", *two_figures}
    assert "hypotheses" in open_tree("out/results.nc").children


@pytest.mark.usefixtures("work")
def test_a_failing_figure_keeps_the_rest_and_the_page_says_so(capsys, monkeypatch, two_figures):
    figure = registry.get("quality_checks")
    monkeypatch.setattr(figure, "draw", raising(KeyError("pearson")))
    assert cli.main([*ANALYZE, "--no-hypotheses"]) == 3
    line = last_line(capsys)
    assert "1 step failed: figures/quality_checks.png (KeyError: 'pearson')" in line
    assert files() == {"results.nc", "report.html", *two_figures} - {"figures/quality_checks.png"}
    page = Path("out/report.html").read_text(encoding="utf-8")
    assert "The figure quality_checks could not be drawn: KeyError" in page
    assert cli.main(["report", "out", "--out", "again.html"]) == 3
    line = last_line(capsys)
    assert "quality_checks" in line
    assert "again.html" in line
    assert Path("again.html").exists()


@pytest.mark.usefixtures("work")
@pytest.mark.parametrize("error", [RuntimeError("no fonts"), OSError(28, "No space left")])
def test_a_failing_report_keeps_the_rest(capsys, monkeypatch, two_figures, error):
    monkeypatch.setattr("retina_codec.report.page.page.write_report", raising(error))
    assert cli.main([*ANALYZE, "--no-hypotheses"]) == 3
    assert "1 step failed: report.html (" in last_line(capsys)
    assert files() == {"results.nc", *two_figures}


@pytest.mark.usefixtures("work", "two_figures")
def test_a_failing_late_analysis_keeps_what_was_computed(capsys, monkeypatch):
    quick = functools.partial(score_modes, seeds=2, settings=ScoreSettings(limits=(1,), times=3))
    monkeypatch.setattr("retina_codec.modes.scores.score.score_modes", quick)
    place = "retina_codec.analysis.hypotheses.hypothesize.hypothesize"
    monkeypatch.setattr(place, raising(TypeError("not finite")))
    assert cli.main([*ANALYZE, "--scores"]) == 3
    assert "1 step failed: hypotheses (TypeError: not finite)" in last_line(capsys)
    results = open_tree("out/results.nc", lazy=False)
    assert "score" in results["layers/conv1"].children
    assert "pathways" in results["layers/conv1"].children
    assert results.attrs["no_hypotheses"] == "an error stopped them (TypeError: not finite)"
    assert "TypeError: not finite" in Path("out/report.html").read_text(encoding="utf-8")


@pytest.mark.usefixtures("work", "two_figures")
def test_an_interrupt_in_a_late_analysis_keeps_results(capsys, monkeypatch):
    place = "retina_codec.analysis.hypotheses.hypothesize.hypothesize"
    monkeypatch.setattr(place, raising(KeyboardInterrupt))
    assert cli.main(ANALYZE) == 130
    assert "interrupted; out keeps what was made: results.nc" in last_line(capsys)
    assert files() == {"results.nc"}
    open_tree("out/results.nc", lazy=False)


@pytest.mark.usefixtures("work")
def test_an_interrupt_between_figures_keeps_those_that_are_whole(capsys, monkeypatch, two_figures):
    def interrupted(results, **settings):
        yield next(drawn_figures(results, **settings))
        raise KeyboardInterrupt

    monkeypatch.setattr("retina_codec.figures.base.drawn_figures", interrupted)
    assert cli.main([*ANALYZE, "--no-hypotheses"]) == 130
    assert "results.nc" in last_line(capsys)
    assert files() == {"results.nc", min(two_figures)}


@pytest.mark.usefixtures("work", "two_figures")
def test_an_overwritten_folder_holds_only_what_was_made_now(monkeypatch):
    Path("out").mkdir()
    Path("out/report.html").write_text("old")
    monkeypatch.setattr("retina_codec.report.page.page.write_report", raising(TypeError("x")))
    assert cli.main([*ANALYZE, "--no-hypotheses", "--overwrite"]) == 3
    assert "report.html" not in files()


STOPPED = """
import json, os, signal, sys
from retina_codec.cli import main as cli
place, arguments = json.loads(sys.argv[1])
module, name = place.rsplit(".", 1)
__import__(module)
setattr(sys.modules[module], name, lambda *_args, **_kw: os.kill(os.getpid(), signal.SIGTERM))
sys.exit(cli.main(arguments))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
@pytest.mark.parametrize(
    ("place", "arguments", "kept"),
    [
        ("retina_codec.analysis.pathways.pathways.find_pathways", ANALYZE, None),
        ("retina_codec.recordings.files.save_recording",
         ["convert", "session.nc", "cc.zarr"], None),
        ("retina_codec.report.page.page.write_report",
         [*ANALYZE, "--no-hypotheses"], {"results.nc"}),
    ],
)  # fmt: skip
def test_a_terminated_command_leaves_no_partial_files(work, place, arguments, kept):
    before = {path.name for path in work.iterdir()}
    done = subprocess.run(
        [sys.executable, "-c", STOPPED, json.dumps([place, arguments])],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "MPLBACKEND": "Agg"},
    )
    assert done.returncode == 143, done.stderr
    assert "Traceback" not in done.stderr
    assert "interrupted; " in done.stderr.splitlines()[-1]
    assert {path.name for path in work.iterdir()} == before | ({"out"} if kept else set())
    if kept:
        assert kept < files()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
def test_sigterm_during_the_analysis_itself(work):
    arguments = ["analyze", "session.nc", "--network", "network", "--out", "cc", "--steps", "5000"]
    command = subprocess.Popen(
        [sys.executable, "-m", "retina_codec.cli.main", *arguments],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    until = time.monotonic() + 60
    while not Path(".cc.partial").exists() and time.monotonic() < until:
        time.sleep(0.05)
    command.send_signal(signal.SIGTERM)
    _, err = command.communicate(timeout=60)
    assert command.returncode == 143
    assert err.splitlines()[-1] == "retina-codec: interrupted; nothing was written"
    assert {path.name for path in work.iterdir()} == {"network", "session.nc"}


def test_status_is_documented_in_the_help(capsys):
    for arguments in (["--help"], ["analyze", "--help"], ["demo", "--help"]):
        assert cli.main(arguments) == 0
        words = " ".join(capsys.readouterr().out.split())
        assert "Exit status: 0 done; 2 bad input, nothing was written; 3 some steps failed" in words


@pytest.mark.usefixtures("work")
def test_bad_input_of_the_analysis_is_still_status_2_and_nothing(capsys, monkeypatch):
    place = "retina_codec.analysis.analyze.analyze"
    monkeypatch.setattr(place, raising(RetinaCodecError("frames must be square; got 3 × 4.")))
    assert cli.main(ANALYZE) == 2
    assert "frames must be square" in last_line(capsys)
    assert not Path("out").exists()
