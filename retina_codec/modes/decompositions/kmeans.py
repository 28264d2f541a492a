"""k-means over samples as a decomposition: one mode at a time, always with the same amplitude."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from retina_codec.errors import RetinaCodecError
from retina_codec.modes.base import Decomposition, Fitted, at_least, unit_rows

__all__ = ["FittedClusters", "KMeans"]


@dataclass(frozen=True, kw_only=True, eq=False)
class FittedClusters(Fitted):
    """Cluster centres: what ``KMeans.fit`` returns."""

    length: Tensor
    """(mode,): distance of each centre from zero."""

    def encode(self, features: Tensor) -> Tensor:
        """Return loadings (sample, mode): the length of the nearest centre, 0 for the others."""
        centre = self.dictionary * self.length[:, None]
        nearest = torch.cdist(features, centre).argmin(1)
        loading = features.new_zeros((len(features), len(centre)))
        return loading.scatter_(1, nearest[:, None], self.length[nearest][:, None])


@dataclass(frozen=True, kw_only=True)
class KMeans(Decomposition):
    """k-means: every sample is rebuilt as the centre of its cluster.

    min Σ_t ‖x_t − c_{k(t)}‖². A mode is a centre at unit length; its loading is that length for
    the samples of its cluster, and 0 for all others.

    Parameters
    ----------
    modes : int
        Number of clusters.
    seed : int
    restarts : int
        Independent starts; the best is kept.

    References
    ----------
    Lloyd 1982; Arthur, Vassilvitskii 2007 (the start). By scikit-learn.
    """

    modes: int = 32
    seed: int = 0
    restarts: int = 4
    sign_consistent = True

    def __post_init__(self) -> None:
        """Validate the parameters."""
        at_least(self, 1, "modes", "restarts")

    def fit(self, features: Tensor, *, progress: bool | None = None) -> FittedClusters:
        """Find centres of features (sample, feature)."""
        from sklearn.cluster import KMeans as Clustering

        del progress  # scikit-learn shows none
        points = features.cpu().numpy()
        different = len(np.unique(points, axis=0))
        if different < self.modes:
            raise RetinaCodecError(
                f"KMeans needs at least as many different samples as modes; got {different} for "
                f"modes={self.modes}. Ask for fewer modes."
            )
        model = Clustering(self.modes, n_init=self.restarts, random_state=self.seed).fit(points)
        centre = torch.as_tensor(model.cluster_centers_, dtype=features.dtype)
        centre = centre.to(features.device)
        unit, length = unit_rows(centre)
        return FittedClusters(dictionary=unit, length=length, epochs=int(model.n_iter_))
