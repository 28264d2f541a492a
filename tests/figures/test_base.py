"""The contract of a figure, its registry, and which figures are drawn of which results."""

import matplotlib.pyplot as plt
import pytest
import xarray as xr
from matplotlib.figure import Figure as Drawing

from retina_codec import figures
from retina_codec.errors import RetinaCodecError
from retina_codec.figures.base import drawn_figures


@pytest.fixture(autouse=True)
def own_registry(monkeypatch):
    """Figures of a test are forgotten after it."""
    monkeypatch.setattr(figures.registry, "_items", dict(figures.registry._items))


@pytest.fixture
def undrawn(monkeypatch):
    """Replace the package's drawings by empty ones."""
    for name in figures.registry.list():
        monkeypatch.setattr(figures.registry.get(name), "draw", lambda _self, _results: Drawing())


def names_of(results, **settings):
    return [figure.name for figure, _ in drawn_figures(results, **settings)]


@pytest.mark.usefixtures("undrawn")
def test_figures_are_drawn_where_the_results_hold_what_they_need(results):
    every = figures.registry.list()
    assert names_of(results) == [name for name in every if name != "scorecard"]
    assert names_of(results, page=True) == names_of(results)[1:]
    bare = xr.DataTree.from_dict(
        {p: results[p].to_dataset() for p in ("responses", "layers/conv1", "layers/conv1/modes")}
    )
    left = {"network_and_target", "contribution_heat_maps", "quality_checks"}
    assert set(names_of(bare)) == left


@pytest.mark.usefixtures("undrawn")
def test_a_new_class_is_a_new_figure_and_closed_after_use(results):
    class Mine(figures.Figure):
        name, title, caption = "mine", "Mine", "All of mine."

        def draw(self, results):  # noqa: ARG002
            return plt.figure()

    assert figures.registry.get("mine") is Mine
    assert names_of(results)[-1] == "mine"
    assert plt.get_fignums() == []


def test_a_figure_says_what_it_shows():
    with pytest.raises(RetinaCodecError, match="'mine' lacks caption"):

        class Mine(figures.Figure):
            name, title = "mine", "Mine"

            def draw(self, results):
                raise NotImplementedError

    with pytest.raises(RetinaCodecError, match="letters, digits and _"):

        class Path(figures.Figure):
            name, title, caption = "../mine", "Mine", "Mine."

            def draw(self, results):
                raise NotImplementedError


@pytest.mark.usefixtures("undrawn")
def test_a_figure_of_others_that_fails_is_named(results):
    class Broken(figures.Figure):
        name, title, caption = "broken", "Broken", "Nothing."

        def draw(self, results):
            return results["nothing"]

    with pytest.raises(RetinaCodecError, match=r"'broken' of tests\.figures.* cannot be drawn"):
        names_of(results)


@pytest.mark.parametrize("name", figures.registry.list())
def test_every_figure_of_the_package_is_explained(name):
    figure = figures.registry.get(name)()
    assert len(figure.title) > 20
    assert figure.caption.endswith(".")
    assert bool(figure.section) == bool(figure.look_for)
