"""The picture of robustness: a row per fit, columns about classes only where there are classes."""

import numpy as np
import pytest
import xarray as xr

from retina_codec.paper.figures.robustness import COLUMNS, plot_robustness

FITS = ["baseline", "threshold", "seed", "seed"]


def saved(labelled, dead=()):
    """Numbers of two layers, by one method."""
    random = np.random.default_rng(0)
    nodes = {}
    for layer in ("mid", "late"):
        alive = np.where(np.isin(np.arange(4), dead), 0.0, 20.0)
        data = {
            "setting": ("fit", FITS),
            "value": ("fit", [np.nan, 0.5, 1.0, 2.0]),
            "live_modes": ("fit", alive),
            "mean_active": ("fit", random.uniform(2, 5, 4)),
        }
        measures = ["r2", "mode_match"] + ["correlated", "coverage"] * labelled
        for name in measures:
            middle = random.uniform(0.3, 0.9, 4)
            data[name] = ("fit", middle)
            ends = np.stack([middle - 0.1, middle + 0.1], 1)
            data[f"{name}_interval"] = (("fit", "bound"), ends)
        if labelled:
            each = random.uniform(0.5, 1, (4, 10))
            data["similarity"] = (("fit", "concept"), each)
            data["similarity_mean"] = ("fit", each.mean(1))
            data["null_interval"] = (("fit", "bound"), np.tile([0.0, 0.3], (4, 1)))
        nodes[f"/{layer}/default"] = xr.Dataset(data, coords={"bound": ["low", "high"]})
    tree = xr.DataTree.from_dict(nodes)
    tree.attrs = {"layers": "mid late", "model": "folder/net"}
    return tree


@pytest.mark.parametrize("labelled", [True, False])
def test_columns_about_classes_need_classes(labelled):
    figure = plot_robustness(saved(labelled))
    shown = [axes.get_xlabel() for axes in figure.axes]
    about_classes = {"correlated", "coverage", "similarity_mean"}
    names = [name for name in COLUMNS if labelled or name not in about_classes]
    assert shown == [COLUMNS[name] for name in names]
    text = " ".join(one.get_text() for one in figure.texts)
    assert ("no labels here" in text) is not labelled
    rows = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    assert rows == ["reference", "threshold 0.5", "seed 1", "seed 2"]


def test_points_stand_at_their_numbers_and_dead_fits_get_a_cross():
    tree = saved(True, dead=[1])
    axes = plot_robustness(tree).axes[0]
    drawn = [line for line in axes.lines if line.get_marker() == "o"]
    assert len(drawn) == 2
    for line, layer in zip(drawn, ("mid", "late"), strict=True):
        np.testing.assert_array_equal(line.get_xdata(), tree[f"{layer}/default"]["r2"].values)
    assert [len(line.get_xdata()) for line in axes.lines if line.get_marker() == "x"] == [1, 1]
