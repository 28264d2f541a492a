"""The surprisal of the population response, the target of the retina analysis.

Notation: b inputs, n cells, y (b, n) responses in Hz, μ mean, Σ covariance.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import xarray as xr

from retina_codec.errors import RetinaCodecError, in_words
from retina_codec.storage.provenance import array_text
from retina_codec.targets.base import Target

__all__ = ["Surprisal", "check_covariance"]


@dataclass(frozen=True, eq=False)
class Surprisal(Target):
    """How unlikely the population response is under a Gaussian, in nats.

    ``F = ½ (y − μ)ᵀ Σ⁻¹ (y − μ) + ½ ln det(2πΣ)``

    Parameters
    ----------
    mean : array-like, (cell,), Hz, optional
    covariance : array-like, (cell, cell), Hz², optional
        Both given, or both left out: then they are estimated from the network's own responses
        over the inputs being explained (``T − 1`` in the denominator). To fit them to another
        split: ``Surprisal().fit(predict_rates(network, recording["train"]))``.
    shrinkage : {"ledoit-wolf"}, optional
        Shrink the estimated covariance towards a multiple of the identity.

    Raises
    ------
    RetinaCodecError
        If the covariance is singular; the message names the cells and the way out.

    References
    ----------
    Melander et al. 2026, CODEC, retina section. Ledoit and Wolf 2004, J Multivar Anal 88:365.
    """

    mean: Any = None
    covariance: Any = None
    shrinkage: Literal["ledoit-wolf"] | None = field(default=None, kw_only=True)
    units: ClassVar[str] = "nats"
    _whitener: Any = field(default=None, init=False, repr=False)
    _ready: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)
    _fitted: bool = field(default=False, init=False, repr=False)

    def __post_init__(self) -> None:
        """Validate the parameters and factorise the covariance, in float64 on the CPU."""
        if self.shrinkage not in (None, "ledoit-wolf"):
            raise RetinaCodecError(
                f"shrinkage must be None or 'ledoit-wolf'; got {self.shrinkage!r}."
            )
        if (self.mean is None) != (self.covariance is None):
            raise RetinaCodecError(
                "Surprisal needs both mean and covariance, or neither; got one of them. Give both, "
                "or leave both out: then they are estimated."
            )
        if self.mean is None:
            return
        if self.shrinkage is not None:
            raise RetinaCodecError(
                "shrinkage is for an estimated covariance; leave mean and covariance out, or "
                "shrink the covariance before passing it."
            )
        self._set(np.array(self.mean, np.float64), np.array(self.covariance, np.float64), None)

    def _set(self, mean: np.ndarray, covariance: np.ndarray, cells: Sequence[Any] | None) -> None:
        if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
            raise RetinaCodecError(
                "Surprisal needs a mean of shape (cell,) and a covariance of shape (cell, cell); "
                f"got {mean.shape} and {covariance.shape}."
            )
        if not np.allclose(covariance, covariance.T, rtol=1e-6, atol=0):
            raise RetinaCodecError(
                "the covariance of Surprisal must be symmetric; it is not. Check how it was made."
            )
        check_covariance(mean, covariance, cells, shrunk=self.shrinkage is not None)
        lower = np.linalg.cholesky(covariance)
        set_field = object.__setattr__
        set_field(self, "mean", mean)
        set_field(self, "covariance", covariance)
        set_field(self, "_whitener", np.linalg.inv(lower))

    @property
    def incomplete(self) -> bool:
        """True until mean and covariance are known."""
        return self.mean is None

    @property
    def condition_number(self) -> float:
        """Largest over smallest eigenvalue of the covariance."""
        return float(np.linalg.cond(self.covariance))

    def fit(
        self,
        responses: np.ndarray | torch.Tensor | xr.DataArray,
        cells: Sequence[Any] | None = None,
    ) -> "Surprisal":
        """Return a copy with mean and covariance estimated from responses.

        Parameters
        ----------
        responses : array-like, (time, cell), Hz
        cells : sequence, optional
            Ids for the messages; a ``cell`` coordinate of a DataArray is used when left out.

        Returns
        -------
        Surprisal
            A new target; this one is not changed.

        Raises
        ------
        RetinaCodecError
            If responses are not finite, fewer than cells + 1, or leave the covariance singular.
        """
        if isinstance(responses, xr.DataArray) and cells is None and "cell" in responses.coords:
            cells = responses["cell"].values.tolist()
        values = np.asarray(
            responses.detach().cpu() if isinstance(responses, torch.Tensor) else responses,
            np.float64,
        )
        if values.ndim != 2 or not np.isfinite(values).all():
            raise RetinaCodecError(
                "Surprisal is fitted to finite responses (time, cell); got "
                f"{values.shape=} with {int((~np.isfinite(values)).sum())} values not finite."
            )
        samples, count = values.shape
        if samples <= count and self.shrinkage is None:
            raise RetinaCodecError(
                f"the covariance of {count} cells needs more than {count} responses; got "
                f"{samples}. Explain a longer recording, or use "
                + in_words("Surprisal(shrinkage='ledoit-wolf').", "--shrinkage ledoit-wolf.")
            )
        if self.shrinkage is None:
            covariance = np.atleast_2d(np.cov(values, rowvar=False))
        else:
            from sklearn.covariance import ledoit_wolf

            covariance = np.asarray(ledoit_wolf(values)[0])
        fitted = Surprisal(shrinkage=self.shrinkage)
        fitted._set(values.mean(0), covariance, cells)
        object.__setattr__(fitted, "_fitted", True)
        return fitted

    def prepare(
        self, *, responses: np.ndarray | None = None, cells: Sequence[Any] | None = None
    ) -> "Surprisal":
        """Fit to the responses where mean and covariance were left out."""
        if not self.incomplete:
            return self
        if responses is None:
            raise RetinaCodecError("Surprisal must be fitted before use. Call fit(responses).")
        return self.fit(responses, cells)

    def unfitted(self) -> "Surprisal":
        """Return a surprisal to be fitted with shrinkage, which any network's responses allow."""
        return Surprisal(shrinkage="ledoit-wolf")

    def statistics(self) -> dict[str, xr.Variable]:
        """Return ``mean`` (cell), ``covariance`` (cell, other_cell) and ``condition_number``."""
        return {
            "mean": xr.Variable("cell", self.mean, {"units": "Hz"}),
            "covariance": xr.Variable(("cell", "other_cell"), self.covariance, {"units": "Hz²"}),
            "condition_number": xr.Variable((), self.condition_number, {"units": "1"}),
        }

    @classmethod
    def from_results(cls, responses: xr.Dataset) -> "Surprisal | None":
        """Return the surprisal with the mean and covariance of the results."""
        if not {"mean", "covariance"} <= set(responses.data_vars):
            return None
        return cls(responses["mean"].values, responses["covariance"].values)

    def __call__(self, outputs: torch.Tensor) -> torch.Tensor:
        """Return the surprisal, ``(b,)`` nats, of outputs ``(b, cell)``."""
        if self.incomplete:
            raise RetinaCodecError("Surprisal must be fitted before use. Call fit(responses).")
        if outputs.ndim != 2 or outputs.shape[1] != len(self.mean):
            raise RetinaCodecError(
                f"this Surprisal is for {len(self.mean)} cells; got outputs of shape "
                f"{tuple(outputs.shape)}."
            )
        key = (outputs.device, outputs.dtype)
        if key not in self._ready:
            log_det = np.linalg.slogdet(2 * np.pi * self.covariance)[1]
            self._ready[key] = (
                torch.as_tensor(self.mean).to(*key),
                torch.as_tensor(self._whitener.T.copy()).to(*key),
                float(log_det) / 2,
            )
        mean, whitener, constant = self._ready[key]
        distance: torch.Tensor = ((outputs - mean) @ whitener).square().sum(1)
        return 0.5 * distance + float(constant)

    def describe(self) -> str:
        """Return where mean and covariance come from, with a hash of their numbers."""
        origin = "estimated" if self._fitted or self.incomplete else "given"
        mean, covariance = (
            origin if values is None else f"{origin} {array_text(values)}"
            for values in (self.mean, self.covariance)
        )
        return f"Surprisal(mean={mean}, covariance={covariance}, shrinkage={self.shrinkage!r})"


LARGEST_CONDITION = 1e8  # of the correlation matrix: responses are known to about 1e-7 (float32)
SMALLEST_SPREAD = 1e-5  # a cell's standard deviation over its mean, or over the most variable cell


def check_covariance(
    mean: np.ndarray, covariance: np.ndarray, cells: Sequence[Any] | None, *, shrunk: bool
) -> None:
    """Check that a covariance can be inverted.

    Parameters
    ----------
    mean, covariance : np.ndarray, (cell,) Hz and (cell, cell) Hz²
    cells : sequence, optional
        Ids for the message.
    shrunk : bool
        Whether the covariance was shrunk: then only its condition number counts.

    Raises
    ------
    RetinaCodecError
        If it is singular; names the silent, duplicated or dependent cells, and the way out.
    """
    names = [repr(cell) for cell in (cells if cells is not None else range(len(mean)))]
    if not (np.isfinite(covariance).all() and np.isfinite(mean).all()):
        raise RetinaCodecError(
            "mean and covariance of Surprisal must be finite; they hold NaN or infinity. Check the "
            "responses they come from."
        )
    spread = np.sqrt(np.clip(np.diag(covariance), 0, None))  # (n,)
    way_out = "Leave them out of the network, explain a longer recording, or use " + in_words(
        "Surprisal(shrinkage='ledoit-wolf').", "--shrinkage ledoit-wolf."
    )
    if shrunk:
        condition = np.linalg.cond(covariance)
        if not condition < LARGEST_CONDITION:
            raise RetinaCodecError(
                f"the covariance stays singular after shrinkage ({condition=:.1e}): no cell "
                "changes its rate enough. Explain a recording with responses."
            )
        return
    silent = spread <= SMALLEST_SPREAD * np.maximum(np.abs(mean), spread.max())
    if silent.any():
        listed = ", ".join(name for name, is_silent in zip(names, silent, strict=True) if is_silent)
        raise RetinaCodecError(
            "the covariance of Surprisal is singular: silent cells (their rate never changes): "
            f"{listed}. {way_out}"
        )
    correlation = covariance / np.outer(spread, spread)
    values, vectors = np.linalg.eigh(correlation)
    if values[0] > values[-1] / LARGEST_CONDITION:
        return
    rows, columns = np.nonzero(np.triu(np.abs(correlation) > 1 - 2 / LARGEST_CONDITION, 1))
    if len(rows):
        listed = ", ".join(f"{names[i]} = {names[j]}" for i, j in zip(rows, columns, strict=True))
        kind = f"duplicated cells: {listed}"
    else:
        together = np.abs(vectors[:, 0]) > 0.05
        listed = ", ".join(name for name, is_in in zip(names, together, strict=True) if is_in)
        kind = f"each of these cells is a weighted sum of the others: {listed}"
    raise RetinaCodecError(f"the covariance of Surprisal is singular: {kind}. {way_out}")
