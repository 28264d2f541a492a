"""The simulated circuit: stages against slow second forms, silencing, causality, known types."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from retina_codec.errors import RetinaCodecError
from retina_codec.recordings.simulated import circuit as module
from retina_codec.recordings.simulated.circuit import Circuit
from retina_codec.recordings.simulated.parameters import (
    GANGLION_TYPES,
    INTERNEURON_TYPES,
    STRENGTHS,
    RetinaParameters,
)
from retina_codec.recordings.simulated.stimuli import natural_movie


@pytest.fixture(scope="module")
def retina():
    return Circuit.build(0)


@pytest.fixture(scope="module")
def movie():
    return natural_movie(4, seed=1, progress=False)


@pytest.fixture(scope="module")
def response(retina, movie):
    return retina.respond(movie, progress=False)


def test_blur_equals_scipy_away_from_the_edges_and_keeps_constants():
    random = np.random.default_rng(0)
    maps = random.normal(size=(3, 40, 44)).astype(np.float32)
    ours = module._blur(maps.reshape(3, -1), (40, 44), 2.0).reshape(3, 40, 44)
    for one, mine in zip(maps, ours, strict=True):
        expected = gaussian_filter(one, 2.0, truncate=10)
        np.testing.assert_allclose(mine[10:-10, 10:-10], expected[10:-10, 10:-10], atol=1e-5)
    flat = module._blur(np.ones((1, 40 * 44), dtype=np.float32), (40, 44), 7.0)
    np.testing.assert_allclose(flat, 1.0, rtol=1e-5)


def reference_rates(retina, movie):
    """The circuit from its definition: one frame after another, plain loops over stages."""
    p, rate = retina.parameters, retina.frame_rate

    def gauss(size, places, width):
        weights = np.array(
            [[np.exp(-((a - b) ** 2) / (2 * width**2)) for b in range(size)] for a in places]
        )
        return weights / weights.sum(axis=1, keepdims=True)

    def blur(frame, width, coarse=False):
        rows = np.arange(0.5, frame.shape[0] - 0.5, 2) if coarse else np.arange(frame.shape[0])
        columns = np.arange(0.5, frame.shape[1] - 0.5, 2) if coarse else np.arange(frame.shape[1])
        return gauss(frame.shape[0], rows, width) @ frame @ gauss(frame.shape[1], columns, width).T

    state = {}

    def low(name, value, constant):
        decay = np.exp(-1 / (rate * constant))
        state[name] = decay * state.get(name, 0.0) + (1 - decay) * value
        return state[name]

    hazards = []
    for frame in movie.astype(float):
        contrast = frame / p.background - 1
        fast = low("f2", low("f1", contrast, p.receptor_fast), p.receptor_fast)
        slow = low("s2", low("s1", contrast, p.receptor_slow), p.receptor_slow)
        receptor = fast - p.receptor_undershoot * slow
        envelope = blur(low("e", np.abs(receptor), p.adaptation_time), p.adaptation_width)
        receptor = receptor / (1 + p.adaptation_strength * envelope)
        center = blur(receptor, p.center_width, True)
        bipolar = center - p.surround_weight * blur(receptor, p.surround_width, True)
        transient = p.fast_gain * (bipolar - low("bf", bipolar, p.bipolar_fast))
        sustained = p.slow_gain * low("bs", bipolar, p.bipolar_slow)
        release = {
            name: np.maximum(sign * potential - p.bipolar_threshold, 0)
            for name, sign, potential in (
                ("ON fast bipolar", 1, transient),
                ("ON slow bipolar", 1, sustained),
                ("OFF fast bipolar", -1, transient),
                ("OFF slow bipolar", -1, sustained),
            )
        }
        release = {k: v * (k not in retina.silenced) for k, v in release.items()}
        both = release["ON fast bipolar"] + release["OFF fast bipolar"]
        wide = low("w", blur(both, p.wide_field_width / 2), p.wide_field_delay)
        cross = low("c", blur(release["ON slow bipolar"], p.crossover_width / 2), p.crossover_delay)
        release["wide-field amacrine"] = wide * ("wide-field amacrine" not in retina.silenced)
        release["crossover amacrine"] = cross * ("crossover amacrine" not in retina.silenced)
        drive = sum(
            (release[name][:, :, None] * retina.weight.sel(interneuron_type=name).values).sum(
                (0, 1)
            )
            for name in INTERNEURON_TYPES
        )
        gain = np.array([module.GAINS[kind] for kind in retina.cell_type])
        threshold = np.array([module.THRESHOLDS[kind] for kind in retina.cell_type])
        hazards.append(gain * p.softness * np.log1p(np.exp((drive - threshold) / p.softness)))
    return np.array([hazards[0], *hazards[:-1]])


@pytest.mark.parametrize("silenced", [(), ("wide-field amacrine", "ON slow bipolar")])
def test_rates_equal_the_frame_by_frame_reference(retina, movie, silenced):
    quiet = retina.silence(*silenced)
    ours = quiet.respond(movie[:60], chunk=25, progress=False)["hazard"].values
    np.testing.assert_allclose(ours, reference_rates(quiet, movie[:60]), rtol=2e-3, atol=2e-3)


def test_response_does_not_depend_on_the_chunk(retina, movie, response):
    chunked = retina.respond(movie, chunk=37, progress=False)
    for name in ("hazard", "potential"):
        np.testing.assert_allclose(chunked[name], response[name], rtol=1e-3, atol=1e-4)


def test_the_future_does_not_change_the_past(retina, movie, response):
    changed = movie.copy()
    changed[200:] = 255 - changed[200:]
    after = retina.respond(changed, progress=False)["hazard"].values
    before = response["hazard"].values
    # the bin t answers to the frames before t: frame 200 is first felt in bin 201
    np.testing.assert_allclose(after[:201], before[:201], rtol=1e-5)
    assert np.abs(after[201:240] - before[201:240]).max() > 1


def test_expected_rate_is_the_hazard_thinned_by_the_refractory_period(retina, response):
    hazard, rate = response["hazard"].values, response["rate"].values
    np.testing.assert_allclose(rate, hazard / (1 + 0.003 * hazard))
    assert retina.parameters.refractory == 0.003


def test_silencing_changes_exactly_the_cells_downstream(retina, movie, response):
    quiet = retina.silence("crossover amacrine").respond(movie, progress=False)["rate"].values
    change = quiet - response["rate"].values
    fed = np.array([kind == "OFF sustained" for kind in retina.cell_type])
    assert (retina.connections.sel(interneuron_type="crossover amacrine").values[fed] < 0).all()
    assert np.abs(change[:, ~fed]).max() == 0
    assert change[:, fed].min() >= 0  # an inhibition is gone
    assert (change[:, fed].max(axis=0) > 2).all()


def test_silencing_twice_adds_up_and_leaves_the_retina_alone(retina):
    both = retina.silence("ON slow bipolar").silence("OFF slow bipolar")
    assert both.silenced == ("OFF slow bipolar", "ON slow bipolar")
    assert retina.silenced == ()


def test_flashes_drive_on_and_off_types(retina):
    spot = np.full((150, 50, 50), 110, dtype=np.uint8)
    rows, columns = np.mgrid[:50, :50]
    for y, x in retina.center:
        disk = (rows - y) ** 2 + (columns - x) ** 2 <= 6
        spot[50:, disk] = 220
    rate = retina.respond(spot, progress=False)["rate"]
    on = rate.isel(time=slice(51, 150)).max("time") - rate.isel(time=50)
    for kind in ("ON sustained", "object motion"):
        assert (on.values[rate["type"].values == kind] > 5).all()
    assert (on.values[rate["type"].values == "OFF sustained"] < 1).all()


def test_object_motion_cells_prefer_local_motion(retina):
    """A patch jittering alone drives these cells more than the same patch with its surround."""
    random = np.random.default_rng(0)
    texture = random.integers(0, 2, (40, 40)).repeat(3, 0).repeat(3, 1) * 120 + 50
    shifts = 30 + np.cumsum(random.integers(-1, 2, (200, 2)), axis=0)
    everywhere = np.stack([texture[y : y + 50, x : x + 50] for y, x in shifts])
    still = np.repeat(texture[None, 30:80, 30:80], 200, axis=0)
    cell = retina.cell_type.index("object motion")
    y, x = np.rint(retina.center[cell]).astype(int)
    local = still.copy()
    local[:, y - 4 : y + 5, x - 4 : x + 5] = everywhere[:, y - 4 : y + 5, x - 4 : x + 5]
    rates = [
        float(retina.respond(m, progress=False)["rate"][50:, cell].mean())
        for m in (local, everywhere)
    ]
    assert rates[0] > 2 * rates[1]


def test_same_seed_same_retina_and_all_types_present(retina):
    again, other = Circuit.build(0), Circuit.build(1)
    assert retina.center == again.center
    assert retina.weight.identical(again.weight)
    assert retina.center != other.center
    assert sorted(set(retina.cell_type)) == sorted(GANGLION_TYPES)


def test_other_types_stand_beside_the_same_interneurons(retina, movie):
    other = Circuit.build(0, ganglion_types={"ON transient": 2, "OFF transient": 3})
    assert other.cell_type == ("ON transient",) * 2 + ("OFF transient",) * 3
    connected = other.connections
    for cell, kind in enumerate(other.cell_type):
        for name in INTERNEURON_TYPES:
            strength = float(connected.sel(interneuron_type=name)[cell])
            assert strength == pytest.approx(STRENGTHS[kind].get(name, 0.0), abs=1e-9)
    flash = np.full((100, 50, 50), 110, dtype=np.uint8)
    flash[50:] = 140
    rate = other.respond(flash, progress=False)["rate"].values
    on, off = rate[51:, :2].max() - rate[50, :2].max(), rate[51:, 2:].max() - rate[50, 2:].max()
    assert on > off + 5
    same = Circuit.build(0, ganglion_types=dict.fromkeys(GANGLION_TYPES, 4))
    assert same.weight.identical(retina.weight)
    np.testing.assert_array_equal(
        same.respond(movie[:50], progress=False)["rate"],
        retina.respond(movie[:50], progress=False)["rate"],
    )


@pytest.mark.parametrize("types", [{"ON midget": 3}, {"ON transient": 0}, {}])
def test_unknown_or_empty_types_are_refused(types):
    with pytest.raises(RetinaCodecError, match=r"at least one cell of each.*ON transient"):
        Circuit.build(0, ganglion_types=types)


def test_parameters_change_the_response(movie, response):
    slow = Circuit.build(0, parameters=RetinaParameters(receptor_fast=0.03))
    change = slow.respond(movie, progress=False)["rate"] - response["rate"]
    assert float(np.abs(change).max()) > 1


def test_unknown_type_and_wrong_frames(retina):
    with pytest.raises(RetinaCodecError, match="wide-field amacrine"):
        retina.silence("amacrine")
    with pytest.raises(RetinaCodecError, match="frames of"):
        retina.respond(np.zeros((5, 10, 10)))
