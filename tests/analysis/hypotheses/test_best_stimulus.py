"""What shows a hypothesis best: by hand, and rows that ask for the same silencing."""

import numpy as np
import pytest
import xarray as xr

from retina_codec.analysis.hypotheses.silencing import Silencing, silence_channels
from retina_codec.analysis.hypotheses.stimuli import (
    best_segment,
    show_simple_stimuli,
    simple_stimuli,
)
from retina_codec.statistics.power import detectability
from tests.small import HISTORY, RATE, small_network


def test_the_best_segment_has_the_largest_sum_over_affected_cells():
    rate = np.array([[4.0, 4.0], [4.0, 1.0], [9.0, 4.0]])  # (block, cell)
    after = np.array([[[4.0, 9.0], [5.0, 1.0], [1.0, 4.0]]] * 3)
    answer = xr.Dataset(
        {"rate": (("time", "cell"), rate), "silenced_rate": (("silencing", "time", "cell"), after)}
    )
    affected = np.array([[True, False], [False, True], [False, False]])
    best, total = best_segment(answer, affected, np.array([1.0, 2.0]), 0.5)
    assert best.tolist() == [2, 0, 2]  # no cell affected: all count
    first, second = 64 * 0.5 / 10, 25 * 0.5 / (2 * 13)
    np.testing.assert_allclose(total, [first, second, first])


@pytest.fixture(scope="module")
def shown():
    network = small_network()
    cuts = [Silencing("conv1", (1,)), Silencing("conv2", (0, 2)), Silencing("conv1", (1,))]
    affected = np.array([[True] * 6, [True] * 3 + [False] * 3, [False] * 5 + [True]])
    common = {"baseline": "grey", "progress": False}
    found = show_simple_stimuli(network, 50.0, cuts, affected, np.full(6, 1.5), 0.2, 3, common)
    return network, cuts, affected, found


def test_every_stimulus_has_the_sum_over_the_affected_cells(shown):
    network, cuts, affected, found = shown
    movies = simple_stimuli(
        network.frame_shape,
        frame_rate=RATE,
        pixel_size=50.0,
        background=network.normalisation.mean,
        grey=HISTORY / RATE,
        duration=0.2,
        seed=3,
    )
    for name in ("ON flash", "object motion"):
        split = movies[name].to_dataset(name="stimulus")
        for row, cut in enumerate(cuts):
            answer = silence_channels(network, split, [cut], block=0.2, progress=False)
            squared = detectability(
                answer["rate"].values[0], answer["silenced_rate"].values[0, 0], 0.2, 1.5
            )
            expected = squared[affected[row]].sum()
            assert found.sel(stimulus=name)[row] == pytest.approx(expected, rel=1e-3)
    assert (found > 0).any("stimulus").all()
