"""Control as figures: curves with their errors, specificity by layer."""

import numpy as np
import pytest
import xarray as xr

from retina_codec.errors import RetinaCodecError
from retina_codec.figures.images.control import plot_control, plot_control_by_layer
from tests.figures.checks import assert_readable, words_of

KINDS = ["contribution modes", "activation modes", "random channels"]


@pytest.fixture(scope="module")
def found():
    """Numbers of the right kind, drawn at random."""
    random = np.random.default_rng(0)
    share = np.array([0, 0.1, 0.3, 0.6, 1.0])
    on_target = np.array([1.5, 3.0])[:, None, None]  # how fast accuracy falls: off, on
    fall = np.clip(1 - np.sort(on_target * share[:, None], 1), 0, 1)[::-1]
    noise = random.uniform(0.8, 1, (2, 2, 3, 4, 2, 5, 6))
    estimate = random.uniform(-0.1, 0.5, (2, 2, 3))
    interval = np.stack([estimate - 0.1, estimate + 0.05], -1)
    p = np.array([0.01, 0.2, 0.03, 0.5]).reshape(2, 2, 1)
    group = ("layer", "style", "selection")
    return xr.Dataset(
        {
            "ratio": ((*group, "concept", "side", "percentage", "trial"), fall * noise),
            "estimate": (group, estimate),
            "estimate_interval": ((*group, "bound"), interval),
            "difference_p": (("layer", "style", "pair"), p),
            "share": (("layer", "percentage"), np.tile(share, (2, 1))),
        },
        coords={
            "layer": ["stage1.0", "stage2.0"], "style": ["ablate", "preserve"], "selection": KINDS,
            "side": ["on target", "off target"], "bound": ["low", "high"],
            "pair": ["contribution modes − activation modes"],
        },
    )  # fmt: skip


def test_curves_are_means_with_standard_errors(found):
    figure = plot_control(found, "stage1.0")
    assert_readable(figure)
    assert len(figure.axes) == 6
    here = found.sel(layer="stage1.0")
    for number, axes in enumerate(figure.axes):
        one = here.isel(style=number // 3, selection=number % 3)
        by_trial = one["ratio"].mean("concept").values  # (side, percentage, trial)
        error = by_trial.std(-1, ddof=1) / np.sqrt(6)
        for side in range(2):
            x, y = axes.lines[side].get_data()
            np.testing.assert_allclose(x, [0, 10, 30, 60, 100])
            np.testing.assert_allclose(y, by_trial[side].mean(-1))
            top = axes.collections[side].get_paths()[0].vertices[:, 1].max()
            assert top == pytest.approx((by_trial[side].mean(-1) + error[side]).max())
    value = float(here["estimate"][0, 0])
    assert f"contribution modes\nspecificity {value:.2f}".replace("-", "−") in words_of(figure)


def test_layers_have_estimates_intervals_and_stars(found):
    figure = plot_control_by_layer(found)
    assert_readable(figure)
    for number, axes in enumerate(figure.axes):
        one = found.isel(style=number)
        for row in range(3):
            np.testing.assert_allclose(
                axes.lines[1 + row].get_ydata(), one["estimate"].isel(selection=row)
            )
        stars = [text.xy[0] for text in axes.texts if text.get_text() == "*"]
        assert stars == np.flatnonzero(one["difference_p"].values[:, 0] < 0.05).tolist()


def test_stars_stand_above_everything_and_clear_of_the_legend(found):
    """Eight layers, every one starred, numbers up to the top: no corner is free."""
    names = [f"stage{1 + number // 2}.{number % 2}" for number in range(8)]
    many = found.isel(layer=[0, 1] * 4).assign_coords(layer=names)
    many["difference_p"][:] = 0.01
    many["estimate"].values[:] = 0.4 * np.cos(np.pi * np.arange(8))[:, None, None]
    ends = many["estimate"] + xr.DataArray([-0.1, 0.1], dims="bound")
    many["estimate_interval"].values[:] = ends.transpose(*many["estimate_interval"].dims).values
    figure = plot_control_by_layer(many)
    assert_readable(figure)
    (legend,) = figure.legends
    for axes in figure.axes:
        stars = [text for text in axes.texts if text.get_text() == "*"]
        assert len(stars) == 8
        top = axes.transData.transform((0, 0.5))[1]  # end of the highest bar
        for star in stars:
            assert star.get_window_extent().y0 > top - 1
        assert not legend.get_window_extent().overlaps(axes.get_window_extent())


def test_the_last_layer_and_one_style_alone(found):
    figure = plot_control(found.sel(style=["ablate"]))
    assert "Control through stage2.0" in words_of(figure)
    assert "channels ablated (%)" in words_of(figure)
    assert_readable(figure)


def test_mistakes_are_named(found):
    with pytest.raises(RetinaCodecError, match=r"one of stage1\.0, stage2\.0; got 'x'"):
        plot_control(found, "x")
    with pytest.raises(RetinaCodecError, match="what control_curves"):
        plot_control_by_layer(found[["ratio"]])
