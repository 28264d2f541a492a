"""Principal components, and single features, as modes; ``active`` makes their loadings sparse.

Notation: X (sample, feature), D (mode, feature) rows of unit length, Z (sample, mode).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from retina_codec.errors import RetinaCodecError
from retina_codec.modes.base import Decomposition, Fitted, at_least

__all__ = ["PCA", "FittedProjection", "RawChannels", "keep_largest"]


def keep_largest(loading: Tensor, active: int | None) -> Tensor:
    """Set all but the ``active`` largest sizes of every sample (sample, mode) to 0."""
    if active is None or active >= loading.shape[1]:
        return loading
    chosen = loading.abs().topk(active, dim=1).indices
    return torch.zeros_like(loading).scatter_(1, chosen, loading.gather(1, chosen))


@dataclass(frozen=True, kw_only=True, eq=False)
class FittedProjection(Fitted):
    """Orthonormal modes: what ``PCA.fit`` and ``RawChannels.fit`` return."""

    active: int | None
    non_negative: bool

    def encode(self, features: Tensor) -> Tensor:
        """Return loadings (sample, mode) = X Dᵀ, the largest ones; best for orthonormal rows."""
        loading = features @ self.dictionary.T
        return keep_largest(loading.clamp(min=0) if self.non_negative else loading, self.active)


@dataclass(frozen=True, kw_only=True)
class PCA(Decomposition):
    """Principal components about zero: orthonormal modes whose loadings may be negative.

    min ‖X − Z D‖² with D Dᵀ = 1, Z = X Dᵀ: the first right singular vectors of X. Nothing is
    subtracted, since contributions have a natural zero. Each mode is turned so that its loadings
    sum to at least 0.

    Parameters
    ----------
    modes : int
        At most the number of features, and of samples.
    active : int, optional
        Keep only this many loadings of every sample, the largest by size; None keeps all.

    References
    ----------
    Eckart, Young 1936. scikit-learn's ``TruncatedSVD`` finds the same subspace.
    """

    modes: int = 8
    active: int | None = None
    sign_consistent = False
    robust = False

    def __post_init__(self) -> None:
        """Validate the parameters."""
        at_least(self, 1, "modes", "active")

    def fit(self, features: Tensor, *, progress: bool | None = None) -> FittedProjection:
        """Find the components of features (sample, feature)."""
        del progress  # one decomposition, no steps to count
        if self.modes > min(features.shape):
            raise RetinaCodecError(
                f"PCA has at most as many modes as samples and features; got modes={self.modes} "
                f"for features of shape {tuple(features.shape)}. Ask for fewer."
            )
        _, _, right = torch.linalg.svd(features.double(), full_matrices=False)
        dictionary = right[: self.modes].to(features.dtype)
        total = (features @ dictionary.T).sum(0)
        turned = torch.where(total < 0, -1.0, 1.0)[:, None] * dictionary
        return FittedProjection(dictionary=turned, active=self.active, non_negative=False)


@dataclass(frozen=True, kw_only=True)
class RawChannels(Decomposition):
    """No decomposition: every feature (sign of a channel) is a mode.

    Parameters
    ----------
    active : int, optional
        Keep only this many features of every sample, the largest; None keeps all.
    """

    active: int | None = None
    sign_consistent = True
    robust = False

    def __post_init__(self) -> None:
        """Validate the parameters."""
        at_least(self, 1, "active")

    def fit(self, features: Tensor, *, progress: bool | None = None) -> FittedProjection:
        """Return the unit vectors of features (sample, feature)."""
        del progress
        unit = torch.eye(features.shape[1], dtype=features.dtype, device=features.device)
        return FittedProjection(dictionary=unit, active=self.active, non_negative=True)
