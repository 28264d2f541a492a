"""The script of the paper's Figure 8: what it computes with, and that drawing alone is possible."""

import runpy
from pathlib import Path

import pytest

import retina_codec as rc
from tests.figures.synthetic import synthetic_results

SCRIPT = Path(__file__).parents[2] / "analyses" / "figure_8_retina.py"


@pytest.fixture(scope="module")
def results():
    return synthetic_results()


@pytest.fixture
def script():
    return runpy.run_path(str(SCRIPT))


def test_script_saves_first_and_then_draws_what_was_saved(results, script, tmp_path, monkeypatch):
    from PIL import Image

    calls = {}

    def simulate(**settings):
        calls["simulate"] = settings
        return "recording", "circuit"

    def analyze(recording, network, **settings):
        calls["analyze"] = (recording, network, settings)
        return results

    monkeypatch.setattr(rc, "load_network", str, raising=False)
    monkeypatch.setattr(rc, "simulate_retina", simulate, raising=False)
    monkeypatch.setattr(rc, "analyze", analyze, raising=False)
    words = ["--out", str(tmp_path / "out"), "--network", "net", "--duration", "7", "--seed", "3"]
    script["main"]([*words, "--start", "10", "--stop", "12"])
    assert calls["simulate"]["test_duration"] == 7.0
    assert calls["simulate"]["stimulus_seed"] == 1
    recording, network, settings = calls["analyze"]
    assert (recording, network) == ("recording", "net")
    steps = rc.analysis.AnalysisSettings(steps=20, copies=0)
    expected = {"split": "test", "settings": steps, "seed": 3, "device": "cpu"}
    assert settings == {**expected, "hypotheses": False}

    saved = rc.open_tree(tmp_path / "out" / "figure_8_retina.nc", lazy=False)
    for node in results.subtree:
        for name, array in node.data_vars.items():
            assert saved[node.path][name].equals(array), (node.path, name)
    picture = tmp_path / "out" / "figure_8_retina.png"
    with Image.open(picture) as image:
        assert image.width == 2080

    picture.unlink()
    calls.clear()
    script["main"]([*words, "--start", "10", "--stop", "12", "--reuse"])
    assert calls == {}
    assert picture.exists()
