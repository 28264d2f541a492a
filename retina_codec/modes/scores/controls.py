"""Controls of a decomposition: random modes, a random encoder, and shuffled data."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from retina_codec.modes.base import Decomposition, Fitted, at_least, unit_rows
from retina_codec.modes.decompositions.linear import keep_largest
from retina_codec.modes.decompositions.nmf import FittedFactors

__all__ = ["FrozenDecoder", "FrozenEncoder", "shuffle_features"]


@dataclass(frozen=True, kw_only=True)
class _Frozen(Decomposition, register=False):
    """The settings of both controls."""

    modes: int = 32
    active: int | None = 3
    seed: int = 0
    sign_consistent: bool = True

    def __post_init__(self) -> None:
        """Validate the parameters."""
        at_least(self, 1, "modes", "active")

    def directions(self, features: Tensor) -> Tensor:
        """Draw directions (mode, feature) of unit length, all entries >= 0 if sign consistent."""
        generator = torch.Generator().manual_seed(self.seed)
        drawn = torch.randn((self.modes, features.shape[1]), generator=generator)
        unit: Tensor = drawn / drawn.norm(dim=1, keepdim=True)
        unit = unit.abs() if self.sign_consistent else unit
        return unit.to(features.device, features.dtype)


@dataclass(frozen=True, kw_only=True)
class FrozenDecoder(_Frozen, register=False):
    """Random modes, best loadings: the dictionary is never learned.

    Rows of D are random directions (of positive entries, if ``sign_consistent``); loadings are
    least squares >= 0, at most ``active`` of them.

    Parameters
    ----------
    modes : int
    active : int, optional
    seed : int
    sign_consistent : bool

    References
    ----------
    Sanity checks for sparse autoencoders, arXiv 2602.14111, 2026 (frozen decoder).
    """

    def fit(self, features: Tensor, *, progress: bool | None = None) -> FittedFactors:
        """Draw the modes; of the features (sample, feature) only their number is used."""
        del progress
        return FittedFactors(dictionary=self.directions(features), active=self.active)


@dataclass(frozen=True, kw_only=True, eq=False)
class FittedRandomEncoder(Fitted):
    """A random encoder and the dictionary fitted to it: what ``FrozenEncoder.fit`` returns."""

    length: Tensor
    """(mode,): length of each row as fitted."""
    weight: Tensor
    """(feature, mode)."""
    active: int | None

    def encode(self, features: Tensor) -> Tensor:
        """Return loadings (sample, mode) >= 0: the largest of ReLU(x W), times the lengths."""
        return keep_largest(torch.relu(features @ self.weight), self.active) * self.length


@dataclass(frozen=True, kw_only=True)
class FrozenEncoder(_Frozen, register=False):
    """Random encoder, best modes: who is active is never learned.

    z = the ``active`` largest of ReLU(x W) with random W; D by least squares of x on z.

    Parameters
    ----------
    modes : int
    active : int, optional
    seed : int
    sign_consistent : bool
        Of the random encoder: W >= 0. The modes are free.

    References
    ----------
    Sanity checks for sparse autoencoders, arXiv 2602.14111, 2026 (frozen encoder).
    """

    def fit(self, features: Tensor, *, progress: bool | None = None) -> FittedRandomEncoder:
        """Fit the modes to features (sample, feature)."""
        del progress
        weight = self.directions(features).T
        loading = keep_largest(torch.relu(features @ weight), self.active).double()
        gram = loading.T @ loading
        ridge = 1e-6 * gram.diagonal().mean().clamp(min=1e-12)
        identity = torch.eye(self.modes, dtype=gram.dtype, device=gram.device)
        rows = torch.linalg.solve(gram + ridge * identity, loading.T @ features.double())
        rows = rows.to(features.dtype)
        unit, length = unit_rows(rows)
        return FittedRandomEncoder(
            dictionary=unit, length=length, weight=weight, active=self.active
        )


def shuffle_features(
    values: np.ndarray, parts: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    """Permute each feature independently over the samples of each part.

    Each feature keeps its values; relations between features are gone.

    Parameters
    ----------
    values : array (sample, ...)
    parts : array (sample,)
        Labels; samples are exchanged only with others of the same label.
    generator : np.random.Generator

    Returns
    -------
    array, same shape
    """
    flat = values.reshape(len(values), -1).copy()
    for label in np.unique(parts):
        own = np.flatnonzero(parts == label)
        flat[own] = generator.permuted(flat[own], axis=0)
    return flat.reshape(values.shape)
