"""The matrix of modes and classes: order, marks, and what is refused."""

import numpy as np
import pytest
import xarray as xr

from retina_codec.errors import RetinaCodecError
from retina_codec.figures.images.concepts import plot_class_matrix
from tests.figures.checks import assert_readable


def results(kinds=("modes", "activation_modes")):
    r = np.array([[0.1, 0.7], [0.9, -0.2], [np.nan, np.nan], [0.2, 0.8], [0.4, 0.1]])
    q = np.where(r > 0.5, 0.01, 0.9)
    table = xr.Dataset(
        {"correlation": (("feature", "concept"), r), "q_value": (("feature", "concept"), q)},
        coords={"concept": ["cat", "dog"], "level": ("concept", ["class", "class"])},
    )
    summary = xr.Dataset(attrs={"false_discovery": 0.05})
    return xr.DataTree.from_dict(
        {"/summary": summary} | {f"/layers/one/{kind}": table.copy(deep=True) for kind in kinds}
    )


def test_modes_stand_by_class_and_then_by_correlation():
    axes = plot_class_matrix(results()).axes[0]
    shown = axes.images[0].get_array()
    np.testing.assert_allclose(shown, [[0.9, 0.4, 0.2, 0.1], [-0.2, 0.1, 0.8, 0.7]])
    assert axes.get_title() == "4 contribution modes"
    dots = axes.lines[0].get_xydata()  # pairs with q <= 0.05
    assert sorted(map(tuple, dots)) == [(0, 0), (2, 1), (3, 1)]


def test_both_panels_share_their_colours():
    tree = results()
    tree["layers/one/activation_modes"]["correlation"][:] *= 0.1
    one, two = (axes.images[0].get_clim() for axes in plot_class_matrix(tree).axes[:2])
    assert one == two == (-0.9, 0.9)


def test_long_names_of_classes_have_room():
    tree = results()
    for kind in ("modes", "activation_modes"):
        node = tree[f"layers/one/{kind}"]
        names = ["n03425413 gas pump", "n01440764 tench"]
        tree[f"layers/one/{kind}"] = xr.DataTree(node.to_dataset().assign_coords(concept=names))
    assert_readable(plot_class_matrix(tree))


def test_wrong_results_and_names_are_refused():
    with pytest.raises(RetinaCodecError, match="layer must be one of one; got 'two'"):
        plot_class_matrix(results(), "two")
    with pytest.raises(RetinaCodecError, match="level must be one of class; got 'superclass'"):
        plot_class_matrix(results(), level="superclass")
    with pytest.raises(RetinaCodecError, match="has none"):
        plot_class_matrix(results(("contributions",)))
