"""Matrix factorisations with loadings >= 0, fitted without a limit on the active modes.

Notation: X (sample, feature), D (mode, feature) rows of unit length, Z (sample, mode) >= 0.
"""

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from retina_codec.errors import RetinaCodecError
from retina_codec.modes.base import Decomposition, Fitted, at_least, unit_rows
from retina_codec.modes.decompositions import sparse_coding as coding
from retina_codec.progress import progress_bar

__all__ = ["NMF", "FittedFactors", "SemiNMF", "nonnegative_loadings"]

SWEEPS = 500  # of the loadings when a new sample is coded
SETTLED = 1e-4  # change of the loadings in a sweep, relative to their size, that ends the coding


def nonnegative_loadings(
    features: Tensor,
    dictionary: Tensor,
    *,
    start: Tensor | None = None,
    sweeps: int = SWEEPS,
) -> Tensor:
    """Solve min ‖x − z D‖² over z >= 0 for every sample, one mode after the other.

    z_k ← max(0, z_k + (x − z D)·d_k / ‖d_k‖²), all samples at once, until a sweep over all modes
    changes little. The error never rises and the problem is convex, so the minimum is approached.

    Parameters
    ----------
    features : Tensor (sample, feature)
    dictionary : Tensor (mode, feature)
    start : Tensor (sample, mode), optional
        Loadings to begin with; zeros when left out.
    sweeps : int
        Largest number of sweeps.

    Returns
    -------
    Tensor (sample, mode), >= 0

    References
    ----------
    Cichocki, Phan 2009, hierarchical alternating least squares.
    """
    gram = dictionary @ dictionary.T  # (mode, mode)
    wanted = (features @ dictionary.T).T  # (mode, sample)
    loading = torch.zeros_like(wanted) if start is None else start.T.clone()
    length = gram.diagonal()
    used = (length > 0).nonzero()[:, 0].tolist()
    for _ in range(sweeps):
        before = loading.clone()
        for k in used:
            step = (wanted[k] - gram[k] @ loading) / length[k]
            loading[k] = (loading[k] + step).clamp(min=0)
        if float((loading - before).norm()) <= SETTLED * float(loading.norm()):
            break
    return loading.T.contiguous()


@dataclass(frozen=True, kw_only=True, eq=False)
class FittedFactors(Fitted):
    """Modes with loadings >= 0: what ``NMF.fit`` and ``SemiNMF.fit`` return."""

    active: int | None

    def encode(self, features: Tensor) -> Tensor:
        """Return loadings (sample, mode) >= 0: least squares, at most ``active`` of them."""
        if self.active is None:
            return nonnegative_loadings(features, self.dictionary)
        codes = coding.sparse_codes(features, self.dictionary, self.active)
        return coding.to_dense(*codes, len(self.dictionary))


@dataclass(frozen=True, kw_only=True)
class _Factorisation(Decomposition, register=False):
    """The settings of both factorisations."""

    modes: int = 8
    active: int | None = None
    seed: int = 0
    iterations: int
    tolerance: float

    def __post_init__(self) -> None:
        """Validate the parameters."""
        at_least(self, 1, "modes", "active", "iterations")
        at_least(self, 0, "tolerance")


@dataclass(frozen=True, kw_only=True)
class NMF(_Factorisation):
    """Non-negative matrix factorisation: modes and loadings both >= 0.

    min ‖max(X, 0) − Z D‖² with Z >= 0, D >= 0, from a random start, by scikit-learn. Features
    below 0 (rounding, noise) count as 0 in the fit; new samples are coded as they are.

    Parameters
    ----------
    modes : int
    active : int, optional
        Largest number of modes of one sample when it is coded; None: no limit. The fit has none.
    seed : int
    iterations : int
        Largest number; it ended by itself if ``epochs`` of the fit is smaller.
    tolerance : float
        Relative change that ends the fit.

    References
    ----------
    Lee, Seung 1999; Cichocki, Phan 2009 (the algorithm).
    """

    iterations: int = 1000
    tolerance: float = 1e-4
    sign_consistent = True

    def fit(self, features: Tensor, *, progress: bool | None = None) -> FittedFactors:
        """Find modes in features (sample, feature)."""
        from sklearn.decomposition import NMF as Factorisation
        from sklearn.exceptions import ConvergenceWarning

        del progress  # scikit-learn shows none
        positive = features.clamp(min=0)
        if not bool((positive > 0).any()):
            raise RetinaCodecError(
                "NMF needs features above 0; there are none. Give samples in which the network "
                "is active."
            )
        model = Factorisation(
            self.modes,
            init="random",
            random_state=self.seed,
            max_iter=self.iterations,
            tol=self.tolerance,
        )
        with warnings.catch_warnings():  # how long it ran is part of the result
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(positive.cpu().numpy())
        dictionary = torch.as_tensor(model.components_, dtype=features.dtype)
        unit, _ = unit_rows(dictionary.to(features.device))
        return FittedFactors(dictionary=unit, active=self.active, epochs=int(model.n_iter_))


@dataclass(frozen=True, kw_only=True)
class SemiNMF(_Factorisation):
    """Semi-non-negative factorisation: loadings >= 0, modes of free sign.

    min ‖X − Z D‖² with Z >= 0. Alternates one sweep of loadings (see `nonnegative_loadings`) and
    least squares D = (ZᵀZ)⁻¹ZᵀX; each step lowers the error. Starts from samples in different
    directions.

    Parameters
    ----------
    modes : int
    active : int, optional
        Largest number of modes of one sample when it is coded; None: no limit. The fit has none.
    seed : int
    iterations : int
        Largest number of alternations.
    tolerance : float
        Fall of the error in an alternation, relative to ‖X‖², that ends the fit.

    References
    ----------
    Ding, Li, Jordan 2010, Convex and semi-nonnegative matrix factorizations; the loadings are
    found by coordinates in place of their multiplicative rule.
    """

    iterations: int = 300
    tolerance: float = 1e-6
    sign_consistent = False

    def fit(self, features: Tensor, *, progress: bool | None = None) -> FittedFactors:
        """Find modes in features (sample, feature)."""
        generator = torch.Generator().manual_seed(self.seed)
        data = features.double()
        dictionary = coding.choose_directions(data, self.modes, generator, non_negative=False)
        if len(dictionary) == 0:
            raise RetinaCodecError(
                "SemiNMF needs samples that are not 0; all are. Give samples in which the network "
                "is active."
            )
        energy = float(data.square().sum())
        loading = nonnegative_loadings(data, dictionary, sweeps=5)
        error, epochs = float("inf"), 0
        for _ in progress_bar(range(self.iterations), description="semi-NMF", progress=progress):
            epochs += 1
            # a small ridge, so that unused modes stay solvable
            gram = loading.T @ loading
            ridge = 1e-9 * gram.diagonal().mean().clamp(min=1e-12)
            dictionary = torch.linalg.solve(
                gram + ridge * torch.eye(len(gram), dtype=gram.dtype, device=gram.device),
                loading.T @ data,
            )
            dictionary, length = unit_rows(dictionary)
            loading = nonnegative_loadings(data, dictionary, start=loading * length, sweeps=1)
            now = float((data - loading @ dictionary).square().sum())
            if error - now <= self.tolerance * energy:
                break
            error = now
        return FittedFactors(
            dictionary=dictionary.to(features.dtype), active=self.active, epochs=epochs
        )
