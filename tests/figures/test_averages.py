"""The figure of spike-triggered averages: every cell, its sign and place."""

import numpy as np
import pytest
import xarray as xr

import retina_codec as rc
from retina_codec.errors import RetinaCodecError
from tests.recordings.quality.test_averages import planted


def test_every_cell_is_drawn_with_its_sign():
    found = rc.recordings.spike_triggered_average(planted(frames=2500), history=5, smooth=3)
    found["polarity"] = ("cell", ["ON", "OFF"])
    figure = rc.figures.plot_averages(found, half=4)
    titles = [axis.get_title() for axis in figure.axes if axis.images]
    assert [title.split()[0] for title in titles] == ["0", "1"]
    for cell, axis in enumerate(axis for axis in figure.axes if axis.images):
        lag = int(np.argmin(np.abs(found["lag"].values - float(found["peak_lag"][cell]))))
        place = {dim: float(found[f"center_{dim}"][cell]) for dim in ("y", "x")}
        shown = np.asarray(axis.images[0].get_array())
        field = found["z"][cell, lag]
        near = field.sel({dim: slice(at - 4, at + 4) for dim, at in place.items()})
        np.testing.assert_allclose(shown, near)
    circles = figure.axes[1].patches
    assert [circle.center for circle in circles] == [(51, 106), (51, 106)]


def test_other_data_are_refused():
    with pytest.raises(RetinaCodecError, match="must come from"):
        rc.figures.plot_averages(xr.Dataset())
