"""Nodes and weights against polynomials, scipy, and the definition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import simpson, trapezoid

from retina_codec.errors import RetinaCodecError
from retina_codec.methods.quadrature import QUADRATURES, SIMPSON, rule


@given(steps=st.integers(1, 40), name=st.sampled_from(QUADRATURES))
def test_weights_are_positive_and_sum_to_one_on_ordered_nodes(steps: int, name: str) -> None:
    found = rule(name, 2 * steps)
    assert sum(found.weights) == pytest.approx(1, abs=1e-12)
    assert min(found.weights) > 0
    assert all(0 <= a < b <= 1 for a, b in zip(found.nodes, found.nodes[1:], strict=False))


@pytest.mark.parametrize(
    ("name", "degree"), [("trapezoid", 1), ("chords", 1), ("simpson", 3), ("gauss-legendre", 7)]
)
def test_each_rule_is_exact_up_to_its_degree_and_not_beyond(name: str, degree: int) -> None:
    found = rule(name, 4)
    for power in range(degree + 2):
        value = sum(w * x**power for w, x in zip(found.weights, found.nodes, strict=True))
        error = abs(value - 1 / (power + 1))
        assert (error < 1e-12) == (power <= degree or (name == "simpson" and power == 3))


def test_rules_agree_with_scipy() -> None:
    values = np.random.default_rng(0).normal(size=9)
    for name, outside in (("trapezoid", trapezoid), ("simpson", simpson)):
        found = rule(name, 8)
        assert np.dot(found.weights, values) == pytest.approx(outside(values, x=found.nodes))


def test_parabolas_are_integrated_exactly() -> None:
    """∫ g dh of two parabolas by numpy's polynomials."""
    random = np.random.default_rng(1)
    nodes = np.array([0.0, 0.5, 1.0])
    for _ in range(5):
        g, h = (
            np.polynomial.Polynomial(random.normal(size=3)),
            np.polynomial.Polynomial(random.normal(size=3)),
        )
        area = (g * h.deriv()).integ()
        assert g(nodes) @ np.array(SIMPSON) @ h(nodes) == pytest.approx(area(1) - area(0))


def test_unknown_rules_list_the_known_ones() -> None:
    with pytest.raises(RetinaCodecError, match=r"'trapezoid', 'simpson'.* got 'monte carlo'"):
        rule("monte carlo", 3)
