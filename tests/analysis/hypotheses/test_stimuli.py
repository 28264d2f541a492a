"""Simple stimuli: intensities, sizes, speeds and frequencies measured back in µm, s and Hz."""

from functools import partial

import numpy as np
import pytest
import xarray as xr

from retina_codec.analysis.hypotheses.silencing import silence_channels
from retina_codec.analysis.hypotheses.stimuli import (
    SIMPLE_STIMULI,
    best_segment,
    show_simple_stimuli,
    simple_stimuli,
)
from retina_codec.errors import RetinaCodecError
from retina_codec.probing.interventions import Silencing
from retina_codec.statistics.power import detectability
from tests.small import HISTORY, RATE, small_network

OPTIONS = {"frame_rate": 100.0, "pixel_size": 50.0, "background": 110.0, "contrast": 0.5}


@pytest.fixture(scope="module")
def stimuli():
    return simple_stimuli((40, 50), **OPTIONS)


def test_all_start_with_grey_and_use_the_stated_intensities(stimuli):
    assert tuple(stimuli) == SIMPLE_STIMULI
    for name, movie in stimuli.items():
        assert (movie[:50] == 110).all()
        assert set(np.unique(movie[50:])) <= {55.0, 110.0, 165.0}, name
        assert float(movie["time"][-1]) == pytest.approx(2.49)


def test_flashes_last_half_a_second_and_are_opposite(stimuli):
    light, dark = stimuli["ON flash"][50:], stimuli["OFF flash"][50:]
    assert (light[:50] == 165).all()
    assert (light[50:100] == 110).all()
    np.testing.assert_allclose(light + dark, 220)


def test_the_grating_has_its_period_and_frequency(stimuli):
    grating = stimuli["drifting grating"][50:].values
    row = grating[0, 0]
    np.testing.assert_array_equal(row[8:], row[:-8])  # 400 µm are 8 px
    assert (row[4:] != row[:-4]).all()
    np.testing.assert_array_equal(grating[50:], grating[:-50])  # 2 Hz
    np.testing.assert_array_equal(grating[25:, :, 8:], 220 - grating[:-25, :, 8:])
    # 800 µm/s to the right: 1 px in 6.25 frames, 4 px in 25
    np.testing.assert_array_equal(grating[25:, :, 4:], grating[:-25, :, :-4])


def test_bars_have_their_width_and_speed(stimuli):
    bar = stimuli["bright bar"][50:].values[:, 0] > 110
    inside = bar.sum(axis=1)[30:200]
    assert np.median(inside) == 4  # 200 µm
    centre = [np.flatnonzero(row).mean() for row in bar[40:200] if row.sum() == 4]
    speed = np.polyfit(np.arange(len(centre)), centre, 1)[0] * 50 * 100  # µm/s
    assert speed == pytest.approx(1000, rel=0.05)
    np.testing.assert_allclose(stimuli["dark bar"] + stimuli["bright bar"], 220)


def test_an_object_moves_on_its_own_and_a_background_as_one(stimuli):
    y, x = np.indices((40, 50))
    disc = np.hypot((y - 19.5) * 50, (x - 24.5) * 50) <= 400
    own, whole = stimuli["object motion"].values, stimuli["background motion"].values
    np.testing.assert_array_equal(own[:, ~disc], whole[:, ~disc])
    assert (own[60:, disc] != whole[60:, disc]).any(axis=1).mean() > 0.8
    rows = whole.reshape(len(whole), 40, 50)
    np.testing.assert_array_equal(rows, np.repeat(rows[:, :1], 40, axis=1))


@pytest.mark.slow
def test_the_walk_has_the_stated_step_at_any_frame_rate():
    for rate in (50.0, 400.0):
        movie = simple_stimuli(
            (1, 4000),
            frame_rate=rate, pixel_size=1.0, background=1.0, duration=40.0, grey=0.0,
        )["background motion"].values[:, 0]  # fmt: skip
        # the phase of the grating's first harmonic gives its place in µm
        wave = np.exp(-2j * np.pi * np.arange(4000) / 400)
        place = np.unwrap(np.angle((movie - movie.mean()) @ wave)) / (2 * np.pi) * 400
        assert np.std(np.diff(place)) == pytest.approx(20 * np.sqrt(100 / rate), rel=0.06)


def test_the_seed_moves_only_what_jitters(stimuli):
    other = simple_stimuli((40, 50), **OPTIONS, seed=1)
    moved = {name for name in stimuli if not np.array_equal(stimuli[name], other[name])}
    assert moved == {"object motion", "background motion"}
    again = simple_stimuli((40, 50), **OPTIONS)
    assert all(np.array_equal(stimuli[name], again[name]) for name in stimuli)


@pytest.mark.parametrize(
    "wrong",
    [{"frame_rate": 0.0}, {"pixel_size": -1.0}, {"background": 0.0}, {"contrast": 1.2},
     {"grey": -0.1}, {"duration": float("nan")}],
)  # fmt: skip
def test_impossible_numbers_are_refused(wrong):
    with pytest.raises(RetinaCodecError, match="positive numbers"):
        simple_stimuli((10, 10), **(OPTIONS | wrong))


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
    silence = partial(silence_channels, network, progress=False)
    found = show_simple_stimuli(network, 50.0, cuts, affected, np.full(6, 1.5), 0.2, 3, silence)
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
