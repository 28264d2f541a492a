import numpy as np
import pytest
import xarray as xr
from scipy.stats import false_discovery_control

from retina_codec.analysis.fields.combinations import measure_combinations
from retina_codec.errors import RetinaCodecError

TIMES, SIDE = 240, 5
MIDDLE = slice(60, 180)  # a quarter of the times away from both ends


def slow_labels(rng, count=3, stay=0.9, times=TIMES):
    """Labels that stay for about ten steps."""
    state, found = 0, []
    for _ in range(times):
        state = state if rng.random() < stay else int(rng.integers(count))
        found.append(str(state))
    return np.array(found)


def slow_images(rng, cells=1, memory=0.9, times=TIMES):
    """Images that change as slowly as the labels, without knowing them."""
    noise = rng.normal(size=(times, cells, SIDE, SIDE))
    for t in range(1, times):
        noise[t] = memory * noise[t - 1] + np.sqrt(1 - memory**2) * noise[t]
    return noise


def dataset(images, rates=None):
    times, cells = images.shape[:2]
    course = np.zeros((times, cells, 4))
    course[..., 2] = 1.0
    rates = np.full((times, cells), 5.0) if rates is None else rates
    return xr.Dataset(
        {
            "spatial": (("time", "cell", "y", "x"), images),
            "temporal": (("time", "cell", "lag"), course),
            "prediction": (("time", "cell"), rates),
        },
        coords={"time": 0.1 * np.arange(times), "cell": np.arange(cells)},
    )


def unit(images):
    flat = images.reshape(len(images), -1)
    flat = flat - flat.mean(1, keepdims=True)
    return flat / np.linalg.norm(flat, axis=1, keepdims=True)


def test_effect_and_distances_follow_the_slow_definition():
    rng = np.random.default_rng(0)
    images, labels = slow_images(rng), slow_labels(rng)
    found = measure_combinations(dataset(images), labels, progress=False)
    f, labels = unit(images[MIDDLE, 0]), labels[MIDDLE]
    images = images[MIDDLE]
    means = {c: f[labels == c].mean(0) for c in np.unique(labels)}
    between = sum(((means[c] - f.mean(0)) ** 2).sum() for c in labels)
    whole = ((f - f.mean(0)) ** 2).sum()
    # Axes that hold a thousandth of the variation are left out.
    assert float(found["effect"][0]) == pytest.approx(between / whole, abs=2e-3)
    same, other = [], []
    for i in range(len(f)):
        for j in range(i):
            r = np.corrcoef(images[i].ravel(), images[j].ravel())[0, 1]
            (same if labels[i] == labels[j] else other).append(1 - r)
    assert float(found["within"][0]) == pytest.approx(np.mean(same), rel=1e-9)
    assert float(found["between"][0]) == pytest.approx(np.mean(other), rel=1e-9)
    assert int(found["times"][0]) == len(f)


def test_null_is_the_effect_of_shifted_labels():
    rng = np.random.default_rng(7)
    images, labels = slow_images(rng), slow_labels(rng)
    found = measure_combinations(dataset(images), labels, longest_shift=3.0, progress=False)
    f = unit(images[30:210, 0])
    effects = []
    for k in range(-30, 31):
        here = labels[30 + k : 210 + k]
        means = {c: f[here == c].mean(0) for c in np.unique(here)}
        between = sum(((means[c] - f.mean(0)) ** 2).sum() for c in here)
        effects.append(between / ((f - f.mean(0)) ** 2).sum())
    others = np.delete(effects, 30)
    assert float(found["null_mean"][0]) == pytest.approx(others.mean(), abs=2e-3)
    assert float(found["null_high"][0]) == pytest.approx(np.quantile(others, 0.95), abs=3e-3)
    reached = (np.array(effects) >= effects[30] - 1e-4).sum() / 31
    assert float(found["p_value"][0]) == pytest.approx(min(1, reached), abs=1.1 / 31)
    assert found.attrs["longest_shift"] == pytest.approx(3.0)


def test_fields_that_follow_the_combination_are_found_and_others_are_not():
    rng = np.random.default_rng(1)
    labels = slow_labels(rng)
    images = slow_images(rng, cells=2)
    images[:, 0] += 0.8 * rng.normal(size=(3, SIDE, SIDE))[labels.astype(int)]
    found = measure_combinations(dataset(images), labels, progress=False)
    assert float(found["p_value"][0]) < 0.05
    assert float(found["effect"][0]) > float(found["null_high"][0]) > float(found["null_mean"][0])
    assert float(found["between"][0]) > float(found["within"][0])
    np.testing.assert_allclose(
        found["q_value"], false_discovery_control(found["p_value"].values), rtol=1e-12
    )


@pytest.mark.parametrize("memory", [0.9, 0.999])  # the second: nearly random walks
def test_slow_labels_that_know_nothing_are_called_at_the_stated_rate(memory):
    # 200 slow pairs, ten cells at a time share their labels: at 5 %, 10 ± 6 false calls.
    false = 0
    for simulation in range(20):
        rng = np.random.default_rng(100 + simulation)
        images, labels = slow_images(rng, cells=10, memory=memory), slow_labels(rng)
        p = measure_combinations(dataset(images), labels, progress=False)["p_value"]
        false += int((p <= 0.05).sum())
    assert false <= 20


def test_rare_combinations_silent_times_and_none_are_left_out():
    rng = np.random.default_rng(2)
    images, labels = slow_images(rng, cells=2), slow_labels(rng)
    labels[70:73] = "rare"
    labels[150:168] = "one run"
    labels[80:90] = ""
    rates = np.full((TIMES, 2), 5.0)
    rates[100:120, 0] = 0.5
    found = measure_combinations(dataset(images, rates), labels, progress=False)
    assert found["combinations"].values.tolist() == [3, 3]
    assert found["times"].values.tolist() == [120 - 31 - 20, 120 - 31]
    silent = measure_combinations(dataset(images, rates * [[1, 0]]), labels, progress=False)
    assert np.isnan(silent["p_value"][1])
    assert np.isnan(silent["q_value"][1])
    assert float(silent["q_value"][0]) == float(silent["p_value"][0])


def test_size_and_sign_convention_do_not_matter_and_inputs_stay():
    rng = np.random.default_rng(3)
    fields, labels = dataset(slow_images(rng)), slow_labels(rng)
    kept = fields.copy(deep=True)
    plain = measure_combinations(fields, labels, progress=False)
    xr.testing.assert_identical(fields, kept)
    flipped = fields.copy(deep=True)
    flip = rng.choice([-1.0, 1.0], TIMES)
    flipped["spatial"] *= xr.DataArray(flip * rng.uniform(0.1, 9, TIMES), dims="time")
    flipped["temporal"] *= xr.DataArray(flip, dims="time")
    again = measure_combinations(flipped, labels, progress=False)
    xr.testing.assert_allclose(again, plain)


def test_fields_without_time_course_are_left_out():
    rng = np.random.default_rng(4)
    fields, labels = dataset(slow_images(rng)), slow_labels(rng)
    fields["temporal"][105] = np.nan
    found = measure_combinations(fields, labels, progress=False)
    assert int(found["times"][0]) == 119


def test_bad_input_is_one_clear_error():
    rng = np.random.default_rng(5)
    fields, labels = dataset(slow_images(rng)), slow_labels(rng)
    with pytest.raises(RetinaCodecError, match=r"name of its combination; got \(3,\)"):
        measure_combinations(fields, labels[:3])
    with pytest.raises(RetinaCodecError, match="240 times with 110 shifts have 20"):
        measure_combinations(fields, labels, longest_shift=11.0)
    with pytest.raises(RetinaCodecError, match="at least 19 shifts"):
        measure_combinations(fields, labels, longest_shift=1.0)
    jumpy = fields.assign_coords(time=np.arange(TIMES) ** 2 * 0.1)
    with pytest.raises(RetinaCodecError, match="rise in even steps"):
        measure_combinations(jumpy, labels)
