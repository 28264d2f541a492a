"""A lab's own figure: one file outside the package, shown on the page and saved as a picture."""

import importlib.util
from pathlib import Path

import pytest
from PIL import Image

import retina_codec as rc
from retina_codec.cli.main import main
from tests.small import small_network, small_recording

FILE = """
import retina_codec as rc


class LoadingShare(rc.figures.Figure):
    name = "loading_share"
    title = "Share of squared loading per mode of the first layer"
    look_for = "a few tall bars: these modes carry most of the contributions."
    caption = "One bar per mode, percent of the squared loading."

    def needs(self, results):
        return any("modes" in layer.children for layer in results["layers"].children.values())

    def draw(self, results):
        import matplotlib.pyplot as plt

        layer = next(iter(results["layers"].children.values()))
        power = (layer["modes/loading"] ** 2).sum("time")
        figure, axes = plt.subplots()
        axes.bar(range(power.sizes["mode"]), 100 * power / power.sum())
        return figure
"""


@pytest.fixture
def figure(tmp_path, monkeypatch):
    """The figure of a lab, forgotten after the test."""
    monkeypatch.setattr(rc.figures.registry, "_items", dict(rc.figures.registry._items))
    path = tmp_path / "loading_share.py"
    path.write_text(FILE, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("loading_share", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.LoadingShare


def test_a_new_figure_is_on_the_page_and_in_the_folder(figure, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert rc.figures.registry.get("loading_share") is figure
    network = small_network()
    rc.save_network(network, "network")
    rc.save_recording(small_recording(network, bins=300), "session.nc")
    small = ["--layer", "conv1", "--steps", "2", "--modes", "4", "--active", "2"]
    arguments = ["analyze", "session.nc", "--network", "network", "--out", "out", *small]
    assert main([*arguments, "--no-hypotheses"]) == 0

    with Image.open(Path("out/figures/loading_share.png")) as picture:
        assert picture.size == (960, 720)  # drawn whole, 150 dots per inch
        assert len(picture.convert("RGB").getcolors(1_000_000)) > 2
    page = Path("out/report.html").read_text(encoding="utf-8")
    section = page[page.index('<h2 id="further">') : page.index('<h2 id="limits">')]
    assert f"<h3>{figure.title}</h3>" in section
    assert f"<b>Look for</b> {figure.look_for}\n{figure.caption}</figcaption>" in section
    assert section.count("<img ") == 1

    rc.write_report(rc.open_tree("out/results.nc"), "again.html")
    assert figure.caption in Path("again.html").read_text(encoding="utf-8")


def test_its_place_on_the_page_is_its_section(figure, tmp_path, monkeypatch):
    from tests.figures.synthetic import synthetic_results

    results = synthetic_results(duration=20.0)
    for name in rc.figures.registry.list():  # the others are not drawn
        if name != "loading_share":
            other = rc.figures.registry.get(name)
            monkeypatch.setattr(other, "needs", lambda _self, _results: False)
    for section, before in (("pathways", '<h2 id="pathways">'), ("trust", '<h2 id="trust">')):
        monkeypatch.setattr(figure, "section", section)
        rc.write_report(results, tmp_path / "report.html", overwrite=True)
        page = (tmp_path / "report.html").read_text(encoding="utf-8")
        part = page[page.index(before) :].partition("<h2 id=")[2].partition("<h2 id=")[0]
        assert figure.caption in part
        assert 'id="further"' not in page
    monkeypatch.setattr(figure, "section", "")
    rc.write_report(results, tmp_path / "report.html", overwrite=True)
    assert figure.caption not in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.usefixtures("figure")
def test_a_name_that_is_taken_is_refused():
    with pytest.raises(rc.RetinaCodecError, match="name of a figure must be new; 'figure_8'"):

        class Mine(rc.figures.Figure):
            name, title, caption = "figure_8", "Mine", "Mine."

            def draw(self, results):
                raise NotImplementedError
