"""Circuits a second time, slowly: from the formula, one group pair and point at a time."""

import numpy as np
import torch


def circuit(below, between, above, x, baseline, steps, lower_groups, upper_groups):
    """Edges E (i, j) and nodes C_i, C_j of one input by Jacobians in full.

    ``x → below → h¹ → between → h² → above → F``; groups are lists of lists of units. Gauss and
    Legendre's points.
    """
    places, sizes = np.polynomial.legendre.leggauss(steps)
    edges = np.zeros((len(lower_groups), len(upper_groups)))
    lower, upper = np.zeros(len(lower_groups)), np.zeros(len(upper_groups))
    jacobian = torch.autograd.functional.jacobian
    for place, size in zip((places + 1) / 2, sizes / 2, strict=True):
        point = baseline + place * (x - baseline)
        first = below(point)
        way = jacobian(below, point).reshape(first.numel(), -1) @ (x - baseline).ravel()
        second = between(first)
        inner = jacobian(between, first).reshape(second.numel(), first.numel())
        outer = jacobian(above, second).ravel()
        for j, units in enumerate(upper_groups):
            upper[j] += size * sum(float(outer[u] * (inner[u] @ way)) for u in units)
            for i, ones in enumerate(lower_groups):
                for u in units:
                    for v in ones:
                        edges[i, j] += size * float(outer[u] * inner[u, v] * way[v])
        for i, ones in enumerate(lower_groups):
            lower[i] += size * sum(float((outer @ inner)[v] * way[v]) for v in ones)
    return edges, lower, upper
