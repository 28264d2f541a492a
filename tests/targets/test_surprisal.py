"""Surprisal against the formula, scipy and scikit-learn."""

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import multivariate_normal
from sklearn.covariance import LedoitWolf

from retina_codec.errors import RetinaCodecError
from retina_codec.targets.surprisal import Surprisal
from tests.reference.contributions import surprisal


def responses(samples: int = 200, cells: int = 4, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.gamma(2.0, 5.0, (samples, cells)) @ random.normal(size=(cells, cells)) + 20


def test_surprisal_of_independent_cells_is_a_sum_of_squares() -> None:
    """Closed form: diagonal covariance, F = Σ ½ ((y − μ)/σ)² + ½ ln(2πσ²)."""
    y, mean, std = np.array([[3.0, 9.0]]), np.array([1.0, 5.0]), np.array([2.0, 0.5])
    target = Surprisal(mean, np.diag(std**2))
    expected = (0.5 * ((y - mean) / std) ** 2 + 0.5 * np.log(2 * np.pi * std**2)).sum(1)
    np.testing.assert_allclose(target(torch.tensor(y)), expected, rtol=1e-12)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), cells=st.integers(1, 6))
def test_surprisal_agrees_with_the_loops_and_with_scipy(seed: int, cells: int) -> None:
    y = responses(50, cells, seed)
    target = Surprisal().fit(y)
    found = target(torch.tensor(y)).numpy()
    # np.cov of one cell is a number; both oracles invert Σ in float64, conditioned below 1e8.
    covariance = np.atleast_2d(np.cov(y.T))
    slow = [surprisal(row, y.mean(0), covariance) for row in y]
    np.testing.assert_allclose(found, slow, rtol=1e-6, atol=1e-6)
    outside = -multivariate_normal(y.mean(0), covariance).logpdf(y)
    np.testing.assert_allclose(found, outside, rtol=1e-6, atol=1e-6)


def test_surprisal_in_float32_stays_close_and_keeps_its_type() -> None:
    y = responses()
    target = Surprisal().fit(y)
    found = target(torch.tensor(y, dtype=torch.float32))
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found, target(torch.tensor(y)), rtol=1e-3)


def test_shrinkage_is_that_of_scikit_learn_and_changes_the_result() -> None:
    y = responses(30)
    shrunk = Surprisal(shrinkage="ledoit-wolf").fit(y)
    np.testing.assert_allclose(shrunk.covariance, LedoitWolf().fit(y).covariance_, rtol=1e-12)
    plain = Surprisal().fit(y)
    assert shrunk.condition_number < plain.condition_number
    assert plain.condition_number == pytest.approx(np.linalg.cond(np.cov(y.T)))


def test_fit_returns_a_copy_and_leaves_the_given_alone() -> None:
    y = responses()
    before = y.copy()
    target = Surprisal()
    fitted = target.fit(torch.tensor(y))
    assert target.mean is None
    assert target.incomplete
    assert not fitted.incomplete
    np.testing.assert_array_equal(y, before)
    np.testing.assert_allclose(fitted.mean, y.mean(0), rtol=1e-12)
    assert fitted.prepare(responses=2 * y) is fitted
    assert "estimated" in fitted.describe()
    assert "given" in Surprisal([0.0], [[1.0]]).describe()


def silent(y: np.ndarray) -> np.ndarray:
    y[:, 2] = 7.0
    return y


def nearly_silent(y: np.ndarray) -> np.ndarray:
    y[:, 2] *= 1e-7
    return y


def duplicated(y: np.ndarray) -> np.ndarray:
    y[:, 3] = 2 * y[:, 1] + 5
    return y


def opposite(y: np.ndarray) -> np.ndarray:
    y[:, 3] = -y[:, 1]
    return y


def dependent(y: np.ndarray) -> np.ndarray:
    y[:, 3] = y[:, 0] + y[:, 1]
    return y


def not_a_number(y: np.ndarray) -> np.ndarray:
    y[3, 1] = np.nan
    return y


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (silent, "silent cells .*: 'c'. .*ledoit-wolf"),
        (nearly_silent, "silent cells .*: 'c'. "),
        (duplicated, "duplicated cells: 'b' = 'd'"),
        (opposite, "duplicated cells: 'b' = 'd'"),
        (dependent, "weighted sum of the others: 'a', 'b', 'd'"),
        (not_a_number, "1 values not finite"),
        (lambda y: y[:4], "more than 4 responses; got 4"),
    ],
)
def test_a_singular_covariance_names_the_cells(spoil: object, message: str) -> None:
    bad = xr.DataArray(spoil(responses()), dims=("time", "cell"), coords={"cell": list("abcd")})  # type: ignore[operator]
    with pytest.raises(RetinaCodecError, match=message):
        Surprisal().fit(bad)


@pytest.mark.parametrize("spoil", [silent, duplicated, dependent, lambda y: y[:4]])
def test_shrinkage_is_a_way_out_that_works(spoil: object) -> None:
    bad = spoil(responses())  # type: ignore[operator]
    target = Surprisal(shrinkage="ledoit-wolf").fit(bad)
    value = target(torch.tensor(bad))
    expected = [surprisal(row, target.mean, target.covariance) for row in bad]
    np.testing.assert_allclose(value, expected, rtol=1e-6)


def test_no_shrinkage_helps_a_population_that_never_changes() -> None:
    with pytest.raises(RetinaCodecError, match="no cell changes its rate"):
        Surprisal(shrinkage="ledoit-wolf").fit(np.ones((50, 3)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mean": [1.0]}, "both mean and covariance"),
        ({"covariance": [[1.0]]}, "both mean and covariance"),
        ({"mean": [1.0, 2.0], "covariance": [[1.0]]}, r"got \(2,\) and \(1, 1\)"),
        ({"mean": [1.0, 2.0], "covariance": [[1.0, 0.5], [0.1, 1.0]]}, "symmetric"),
        ({"mean": [1.0, 2.0], "covariance": np.ones((2, 2))}, "duplicated cells: 0 = 1"),
        ({"mean": [np.nan], "covariance": [[1.0]]}, "finite"),
        ({"shrinkage": "lasso"}, "'ledoit-wolf'; got 'lasso'"),
        ({"mean": [1.0], "covariance": [[1.0]], "shrinkage": "ledoit-wolf"}, "estimated"),
    ],
)
def test_bad_arguments_of_surprisal(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(RetinaCodecError, match=message):
        Surprisal(**arguments)  # type: ignore[arg-type]


def test_surprisal_refuses_other_cells_and_use_before_fitting() -> None:
    with pytest.raises(RetinaCodecError, match="for 1 cells"):
        Surprisal([0.0], [[1.0]])(torch.zeros(2, 3))
    used = Surprisal([0.0], [[1.0]])
    used(torch.zeros(2, 1))
    with pytest.raises(RetinaCodecError, match="for 1 cells"):
        used(torch.zeros(2, 3))
    with pytest.raises(RetinaCodecError, match="fit"):
        Surprisal()(torch.zeros(2, 3))
    with pytest.raises(RetinaCodecError, match="fit"):
        Surprisal().prepare()
