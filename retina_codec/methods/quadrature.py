"""Nodes and weights for integrals along a path from 0 to 1.

Notation: n steps, s node, α_s its place on the path, g gradient, h activation.
"""

from dataclasses import dataclass

import numpy as np

from retina_codec.errors import RetinaCodecError

__all__ = ["QUADRATURES", "Rule", "rule"]

QUADRATURES = ("trapezoid", "simpson", "gauss-legendre", "chords")


# ∫ ℓ_s ℓ_t′ of the parabolas through three equally spaced nodes: C = Σ_st g_s SIMPSON[s][t] h_t.
# Exact where g and h are both quadratic; it is (4 T_half − T_whole) / 3 of two trapezoids.
SIMPSON = ((-1 / 2, 2 / 3, -1 / 6), (-2 / 3, 0.0, 2 / 3), (1 / 6, -2 / 3, 1 / 2))


@dataclass(frozen=True)
class Rule:
    """Nodes on [0, 1], in order, and their weights, which sum to one."""

    nodes: tuple[float, ...]
    weights: tuple[float, ...]


def rule(name: str, steps: int) -> Rule:
    """Return the nodes and weights of ``∫₀¹ f(α) dα ≈ Σ_s w_s f(α_s)``.

    Parameters
    ----------
    name : {"trapezoid", "simpson", "gauss-legendre", "chords"}
        "chords" has the nodes of the trapezoid; what it does between them is told by the network.
    steps : int
        Intervals of the trapezoid (``steps + 1`` nodes); the same for Simpson's rule, even;
        nodes of Gauss and Legendre's.

    Returns
    -------
    Rule

    Raises
    ------
    RetinaCodecError
        If the name is unknown, or Simpson's rule is asked for an odd number of steps.

    References
    ----------
    Abramowitz and Stegun 1964, 25.4.2, 25.4.6 and 25.4.30.
    """
    check_rule(name, steps)
    if name == "gauss-legendre":
        places, sizes = np.polynomial.legendre.leggauss(steps)
        return Rule(tuple(float(x + 1) / 2 for x in places), tuple(float(w) / 2 for w in sizes))
    nodes = tuple(s / steps for s in range(steps + 1))
    if name == "simpson":
        inner = [4 / 3 if s % 2 else 2 / 3 for s in range(1, steps)]
        ends = 1 / 3
    else:
        inner, ends = [1.0] * (steps - 1), 1 / 2
    return Rule(nodes, tuple(w / steps for w in (ends, *inner, ends)))


def check_rule(name: str, steps: int) -> None:
    """Check a rule and its number of steps."""
    if name not in QUADRATURES:
        raise RetinaCodecError(
            f"quadrature must be one of {', '.join(map(repr, QUADRATURES))}; got {name!r}."
        )
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise RetinaCodecError(
            f"steps must be a whole number of at least 1; got {steps!r}. 20 is usual."
        )
    if name == "simpson" and steps % 2:
        raise RetinaCodecError(
            f"Simpson's rule takes pairs of steps, so steps must be even; got {steps}."
        )
