"""Methods and targets as a figure: lines of the standard's row and column, and all pairs."""

from itertools import product

import numpy as np
import pytest
import xarray as xr

from retina_codec.errors import RetinaCodecError
from retina_codec.paper.figures.methods import plot_methods
from tests.figures.checks import assert_readable, images_of, words_of

METHODS, TARGETS, LAYERS = ("path", "gradient"), ("top logit", "entropy", "lead"), ("a", "b")


@pytest.fixture(scope="module")
def parts():
    random = np.random.default_rng(0)
    pairs = list(product(METHODS, TARGETS))
    names = [", ".join(pair) for pair in pairs]
    data = {}
    for kind in ("map", "channel"):
        middle = random.uniform(0.2, 0.8, (6, 2, 2))
        gap = middle[..., 0] - middle[..., 1]
        dims = ("run", "layer", "quantity")
        data[f"{kind}_sparsity"] = (dims, middle)
        data[f"{kind}_sparsity_interval"] = ((*dims, "bound"), np.stack([middle] * 2, -1))
        data[f"{kind}_difference"] = (dims[:2], gap)
        ends = np.stack([gap - 0.1, gap + 0.1], -1)
        data[f"{kind}_difference_interval"] = ((*dims[:2], "bound"), ends)
    share = random.uniform(0.01, 0.1, (6, 2))
    share[3:] = np.nan  # the gradient has no known sum
    data["share"] = (("run", "layer"), share)
    data["share_interval"] = (("run", "layer", "bound"), np.stack([share, share], -1))
    coords = {
        "run": names,
        "layer": list(LAYERS),
        "quantity": ["contribution", "activation"],
        "bound": ["low", "high"],
        "method": ("run", [one for one, _ in pairs]),
        "target": ("run", [other for _, other in pairs]),
    }
    r = random.uniform(-1, 1, (2, 6, 6))
    agreement = xr.Dataset(
        {
            "correlation": (("layer", "run", "other"), r),
            "correlation_interval": (("layer", "run", "other", "bound"), np.stack([r, r], -1)),
        },
        coords={"layer": list(LAYERS), "run": names, "other": names},
    )
    return xr.Dataset(data, coords=coords), agreement


def test_lines_vary_one_thing_at_a_time(parts):
    runs, agreement = parts
    figure = plot_methods(runs, agreement, "path", "top logit")
    assert_readable(figure)
    drawn = [list(line.get_ydata()) for axes in figure.axes for line in axes.lines]
    shown = runs["map_sparsity"].sel(quantity="contribution")
    for method, target in product(METHODS, TARGETS):
        name = f"{method}, {target}"
        beside = method == "path" or target == "top logit"
        assert (shown.sel(run=name).values.tolist() in drawn) is beside
        standard = agreement["correlation"].sel(run="path, top logit", other=name)
        is_standard = name == "path, top logit"
        assert (standard.values.tolist() in drawn) is (beside and not is_standard)


def test_tables_hold_the_worst_layer_and_its_star(parts):
    runs, agreement = parts
    figure = plot_methods(runs, agreement, "path", "top logit")
    tables = [image for image in images_of(figure) if image.shape == (2, 3)]
    words = words_of(figure)
    for table, kind in zip(tables, ("map", "channel"), strict=True):
        least = runs[f"{kind}_difference"].min("layer").values.reshape(2, 3)
        np.testing.assert_array_equal(table, least)
        for value in least.ravel():
            star = "*" if value > 0.1 else ""
            assert f"{round(value, 2) + 0.0:.2f}{star}".replace("-", "−") in words.split(" | ")


def test_the_standard_must_be_there(parts):
    with pytest.raises(RetinaCodecError, match="standard"):
        plot_methods(*parts, "path", "nothing")
