"""Scripts as pages."""

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def script():
    return runpy.run_path(str(ROOT / "analyses" / "to_html.py"))


def test_the_index_links_every_page_by_the_title_of_its_script(script, tmp_path):
    for name in ("figure_8_retina", "another & page", "index"):
        (tmp_path / f"{name}.html").write_text("")
    text = script["write_index"](tmp_path).read_text(encoding="utf-8")
    assert text.count("<li>") == 2
    title = "Figure 8: contribution decomposition of a retina"
    assert f'<a href="figure_8_retina.html">{title}</a>' in text
    assert "another &amp; page</a>" in text


def test_a_folder_for_the_results_must_be_given(script, capsys):
    with pytest.raises(SystemExit):
        script["main"](["figure_8_retina", "--", "--steps", "3"])
    assert "--out" in capsys.readouterr().err


def test_progress_bars_are_left_out(script):
    bar = {"output_type": "stream", "name": "stderr", "text": "100%"}
    table = {"output_type": "stream", "name": "stdout", "text": "a table"}
    picture = {"output_type": "display_data", "data": {"image/png": ""}}
    assert script["without_progress"]([bar, table, picture, bar]) == [table, picture]


@pytest.mark.slow
def test_a_page_holds_what_the_script_printed_and_drew(script, tmp_path, monkeypatch):
    pytest.importorskip("jupytext", reason="pip install 'retina-codec[notebooks]'")
    pytest.importorskip("nbconvert", reason="pip install 'retina-codec[notebooks]'")
    monkeypatch.chdir(ROOT)
    words = ["--out", str(tmp_path / "out"), "--count", "40"]
    script["main"](["figure_3_layers", "--pages", str(tmp_path / "pages"), "--", *words])
    page = (tmp_path / "pages" / "figure_3_layers.html").read_text(encoding="utf-8")
    assert "data:image/png" in page
    assert "what the paper says" in page
    assert "statistics: 100%" not in page  # a progress bar
    assert "sys.argv = [" not in page
    assert (tmp_path / "pages" / "index.html").exists()
