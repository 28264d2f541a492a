import matplotlib as mpl
import numpy as np

from retina_codec.figures.retina.pathways import mode_order, plot_pathways
from retina_codec.figures.style import cell_order, type_colors
from tests.figures.checks import assert_readable, words_of
from tests.figures.synthetic import synthetic_results


def test_matrices_show_the_correlations_with_the_right_names(results, drawn):
    figure = drawn("plot_pathways")
    matrices = [axes for axes in figure.axes if axes.get_xlabel().startswith("cell")]
    for axes, name in zip(matrices, ("conv1", "conv2"), strict=True):
        node = results[f"layers/{name}/pathways"]
        shown = np.asarray(axes.images[0].get_array())
        cells = [int(label.get_text()) for label in axes.get_xticklabels()]
        modes = [int(label.get_text()) for label in axes.get_yticklabels()]
        assert sorted(cells) == node["cell"].values.tolist()
        expected = node["correlation"].sel(cell=cells, mode=modes).transpose("mode", "cell")
        np.testing.assert_array_equal(shown, expected)
        # Zero is white: the limits are symmetric and hold every value.
        low, high = axes.images[0].get_clim()
        assert -low == high >= np.abs(expected).max()


def test_lines_separate_the_pathways_and_nothing_else(results, drawn):
    figure = drawn("plot_pathways")
    axes = next(axes for axes in figure.axes if axes.get_xlabel().startswith("cell"))
    node = results["layers/conv1/pathways"]
    cells = [int(label.get_text()) for label in axes.get_xticklabels()]
    pathway = node["pathway"].sel(cell=cells).values
    edges = [line.get_xdata()[0] - 0.5 for line in axes.lines]
    assert edges == np.flatnonzero(np.diff(pathway)).tolist()
    assert len(edges) == len(np.unique(pathway)) - 1  # every pathway in one piece
    strip = next(axes for axes in figure.axes if axes.get_title().startswith("layer 1"))
    shown = {text.get_text(): round(text.get_position()[0]) for text in strip.texts}
    assert list(shown) == [str(number) for number in np.unique(pathway)]
    assert all(pathway[place] == int(number) for number, place in shown.items())


def test_strip_shows_the_recorded_type_of_each_cell(results, drawn):
    figure = drawn("plot_pathways")
    types = results["responses/type"].values[cell_order(results, "conv1")]
    colors = type_colors(types)
    strip = next(axes for axes in figure.axes if axes.get_title().startswith("layer 1"))
    expected = [[mpl.colors.to_rgb(colors[name]) for name in types]]
    np.testing.assert_allclose(np.asarray(strip.images[0].get_array()), expected)
    assert {text.get_text() for text in figure.legends[0].get_texts()} == set(types)


def test_headlines_and_silhouettes_give_the_numbers(results, drawn):
    figure = drawn("plot_pathways")
    words = words_of(figure)
    for name, agreement in zip(
        ("conv1", "conv2"), results["pathways/type_agreement"].values, strict=False
    ):
        count = len(np.unique(results[f"layers/{name}/pathways/pathway"]))
        assert f"layer {name[-1]}: {count} pathways\nagreement with types {agreement:.2f}" in words
    axes = next(axes for axes in figure.axes if axes.get_ylabel() == "silhouette")
    curve, ring = axes.lines[:2]
    node = results["layers/conv1/pathways"]
    np.testing.assert_array_equal(curve.get_ydata(), node["silhouette"])
    np.testing.assert_array_equal(curve.get_xdata(), node["k"])
    assert ring.get_xdata() == node["k"].values[node["silhouette"].values.argmax()]


def test_untyped_cells_have_the_colour_of_their_pathway_and_are_not_compared(results):
    tree = results.copy(deep=True)
    unknown = np.array(["unknown"] * 16)
    tree["responses"] = tree["responses"].to_dataset().assign_coords(type=("cell", unknown))
    tree["pathways"] = tree["pathways"].to_dataset().drop_vars("type_agreement")
    words = words_of(plot_pathways(tree))
    assert "layer 1: 4 pathways" in words
    assert "agreement" not in words
    assert "no types are known: pathway (layer 1) | pathway 0 | pathway 1" in words
    assert "unknown" not in words


def test_modes_stand_with_the_pathway_they_drive():
    correlation = np.array([[0.1, 0.9, 0.3], [0.1, 0.7, 0.5], [0.6, -0.5, 0.2]])
    # Modes 1 and 2 go with the first two cells (means 0.8 and 0.4), mode 0 with the last.
    assert mode_order(correlation, np.array([5, 5, 2])).tolist() == [1, 2, 0]


def test_names_of_cells_stand_beside_each_other_however_long_they_are():
    for names in ([f"c{number}" for number in range(40, 64)], [f"probe A {n}" for n in range(24)]):
        tree = synthetic_results(duration=10, cells_per_type=6)
        for path in ("responses", "layers/conv1/pathways", "layers/conv2/pathways"):
            tree[path] = tree[path].to_dataset().assign_coords(cell=names)
        figure = plot_pathways(tree)
        assert_readable(figure)
        assert names[0] in words_of(figure)
