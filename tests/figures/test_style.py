import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure

from retina_codec import figures
from retina_codec.errors import RetinaCodecError
from retina_codec.figures.style import (
    cell_order,
    grid,
    layer_name,
    new_figure,
    signed_root,
    type_colors,
)
from tests.figures.checks import assert_readable
from tests.figures.synthetic import synthetic_results

NAMES = [
    f"plot_{name}"
    for name in ("contributions", "fields", "network_and_target", "pathways", "quality")
]  # the others have tests of their own


@pytest.mark.parametrize("name", NAMES)
def test_every_figure_is_readable_and_leaves_everything_else_alone(results, name):
    settings, before = dict(mpl.rcParams), results.copy(deep=True)
    figure = getattr(figures, name)(results)
    assert_readable(figure)
    assert figure.get_figwidth() == 10.4
    xr.testing.assert_identical(results, before)
    assert dict(mpl.rcParams) == settings


@pytest.mark.parametrize(("cells_per_type", "per_type"), [(1, 1), (9, 7)])
def test_figures_stay_readable_with_few_and_many_cells(cells_per_type, per_type):
    results = synthetic_results(
        seed=1, duration=20.0, cells_per_type=cells_per_type, per_type=per_type
    )
    for name in NAMES:
        assert_readable(getattr(figures, name)(results))


def test_figures_open_nothing_in_pyplot(results):
    import matplotlib.pyplot as plt

    figures.plot_pathways(results)
    assert plt.get_fignums() == []


def test_the_readability_check_can_fail():
    covered = Figure()
    covered.text(0.5, 0.5, "one")
    covered.text(0.51, 0.5, "two")
    with pytest.raises(AssertionError, match="covers"):
        assert_readable(covered)
    cut = Figure()
    cut.text(0.95, 0.5, "much too long for this place")
    with pytest.raises(AssertionError, match="leaves the canvas"):
        assert_readable(cut)


def test_a_type_has_one_colour_whatever_comes_with_it():
    few, many = type_colors(["b", "a"]), type_colors(["unknown", "a", "b", "b"])
    assert few == many
    assert len({few["a"], few["b"], few["unknown"]}) == 3
    crowd = type_colors([f"type {i}" for i in range(20)])
    assert len({tuple(np.ravel(mpl.colors.to_rgb(color))) for color in crowd.values()}) == 21


def test_cells_stand_by_number_of_their_pathway_then_by_type():
    responses = xr.Dataset(coords={"cell": range(5), "type": ("cell", list("bbaab"))})
    node = xr.Dataset({"pathway": ("cell", [0, 1, 0, 1, 1])}, coords={"cell": range(5)})
    tree = xr.DataTree.from_dict({"/responses": responses, "/layers/conv1/pathways": node})
    assert cell_order(tree, "conv1").tolist() == [2, 0, 3, 1, 4]


def test_grid_keeps_margins_in_inches():
    figure = new_figure(4.0)
    spec = grid(figure, [1, 2], [1], left=1.04, right=0.52, top=0.4, bottom=0.8, gap_y=0.2)
    low, high = (figure.add_subplot(spec[i]).get_position() for i in (1, 0))
    assert low.x0 == pytest.approx(0.1)
    assert low.x1 == pytest.approx(0.95)
    assert high.y1 == pytest.approx(0.9)
    assert low.y0 == pytest.approx(0.2)
    assert high.y0 - low.y1 == pytest.approx(0.2 / 4.0)
    assert low.height == pytest.approx(2 * high.height)


def test_colours_of_contributions_are_symmetric_and_undone_by_their_inverse():
    norm = signed_root(4.0)
    np.testing.assert_allclose(norm([-4.0, -1.0, 0.0, 1.0, 4.0]), [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(norm.inverse([0.25, 0.75]), [-1.0, 1.0])


def test_layers_are_called_by_their_number():
    assert [layer_name(name) for name in ("conv2", "conv12", "blocks.3")] == [
        "layer 2",
        "layer 12",
        "blocks.3",
    ]


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("plot_contributions", "modes"),
        ("plot_pathways", "pathways"),
        ("plot_quality", "modes"),
        ("plot_fields", "receptive_fields"),
    ],
)
def test_incomplete_results_are_one_clear_error(results, name, part):
    kept = {
        node.path: node.to_dataset() for node in results.subtree if not node.path.endswith(part)
    }
    with pytest.raises(RetinaCodecError, match=f"(needs|must hold) .*{part}.*[Rr]un "):
        getattr(figures, name)(xr.DataTree.from_dict(kept))
