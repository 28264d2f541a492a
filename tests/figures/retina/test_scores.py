import numpy as np
import pytest
import xarray as xr

from retina_codec import RetinaCodecError
from retina_codec.figures.retina.scores import plot_scores
from tests.figures.checks import assert_readable, words_of

BASELINES = ["modes", "NMF", "PCA", "raw channels", "frozen decoder", "frozen encoder"]


def scores(seed, network=True):
    random = np.random.default_rng(seed)
    found = xr.Dataset(
        {
            "r2": (("limit", "seed"), np.array([[0.8, 0.81], [0.97, 0.98]]) - 0.01 * seed),
            "mean_active": (("limit", "seed"), np.array([[1, 1], [2.6, 2.7]])),
            "limit_own": ((), 3),
            "baseline_r2": (("baseline", "seed"), random.random((6, 2))),
            **{
                name: ("pair", random.random(3))
                for name in (
                    "mode_match",
                    "loading_match",
                    "mode_match_null",
                    "loading_match_null",
                )
            },
        },
        coords={"limit": [1, 3], "seed": [0, 1], "baseline": BASELINES},
    )
    if network:
        for name in ("insertion_gain", "deletion_gain"):
            found[name] = ("mode", random.random(4))
            found[f"{name}_interval"] = (("mode", "bound"), np.sort(random.random((4, 2)), 1))
    return found


def tree_of(**layers):
    return xr.DataTree.from_dict({f"/layers/{name}/score": value for name, value in layers.items()})


@pytest.fixture(scope="module")
def figure():
    return plot_scores(tree_of(conv1=scores(1), conv2=scores(2)))


def test_page_is_readable(figure):
    assert_readable(figure)
    assert "frozen decoder" in words_of(figure)


def test_curves_are_means_over_seeds_and_rings_the_own_limit(figure):
    lines = figure.axes[0].lines
    np.testing.assert_allclose(lines[1].get_xydata(), [[1, 0.795], [2.65, 0.965]])
    np.testing.assert_allclose(lines[2].get_xydata(), [[2.65, 0.965]])
    np.testing.assert_array_equal(lines[0].get_ydata(), scores(1)["r2"].values.ravel())


def test_controls_stand_at_their_means(figure):
    drawn = figure.axes[1].lines
    for line, seed in zip(drawn, (1, 2), strict=True):
        np.testing.assert_allclose(
            line.get_xdata(), scores(seed)["baseline_r2"].mean("seed").values
        )
    assert [text.get_text() for text in figure.axes[1].get_yticklabels()] == BASELINES


def test_what_shuffled_data_reach_is_said_in_words():
    found = scores(1)
    found = found.assign_coords(baseline=["modes", "shuffled data", *BASELINES[2:]])
    found["baseline_r2"][:2] = np.array([[0.98, 0.98], [0.99, 0.97]])
    figure = plot_scores(tree_of(conv1=found))
    assert "layer 1: +0.000 ± 0.014" in words_of(figure)  # -0.01 and 0.01
    assert_readable(figure)


def test_gains_have_their_intervals(figure):
    axes = figure.axes[3]
    segments = axes.collections[0].get_segments()
    expected = scores(1)["insertion_gain_interval"].values
    np.testing.assert_allclose([segment[:, 1] for segment in segments], expected)
    np.testing.assert_allclose(axes.lines[1].get_ydata(), scores(1)["insertion_gain"].values)


def test_without_the_network_the_page_says_so():
    figure = plot_scores(tree_of(conv1=scores(1, network=False)))
    assert "no network given" in words_of(figure)
    assert_readable(figure)


def test_results_without_scores():
    with pytest.raises(RetinaCodecError, match=r"run score_modes\(\)"):
        plot_scores(xr.DataTree.from_dict({"/layers/conv1": xr.Dataset()}))
