"""Targets: the one number per input that contributions explain.

Why this file exists: every contribution is a contribution *to* something; here that something is
defined once, with its unit. It is not a loss (nothing is trained on it) and knows nothing about
layers. A new target is one subclass of `Target`.

Notation: b inputs, n outputs (cells), y (b, n) the network's output.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import xarray as xr

from retina_codec.contributions.covariance import check_covariance
from retina_codec.errors import RetinaCodecError

__all__ = ["Sum", "Surprisal", "Target", "Unit", "as_target"]


class Target(ABC):
    """A scalar of the network's output, one per input.

    A subclass must implement `__call__`, ``(b, n) -> (b,)``, differentiable in torch and the same
    for an input whether alone or in a batch; it may set `units` and override `prepare`.
    """

    units: ClassVar[str] = "1"

    @abstractmethod
    def __call__(self, outputs: torch.Tensor) -> torch.Tensor:
        """Return F, ``(b,)``, for outputs ``(b, n)``."""

    @property
    def incomplete(self) -> bool:
        """Whether `prepare` needs the network's responses over all inputs."""
        return False

    def prepare(
        self, *, responses: np.ndarray | None = None, cells: Sequence[Any] | None = None
    ) -> "Target":
        """Return a copy ready for these cells, fitted to these responses where it needs them."""
        del responses, cells
        return self

    def describe(self) -> str:
        """Return the readable form that goes into the provenance."""
        return repr(self)


@dataclass(frozen=True)
class Sum(Target):
    """The summed output of the whole population, ``F = Σ_i y_i``, in Hz for a retina."""

    units: ClassVar[str] = "Hz"

    def __call__(self, outputs: torch.Tensor) -> torch.Tensor:
        """Sum over everything but the inputs."""
        return outputs.flatten(1).sum(1)


@dataclass(frozen=True)
class Unit(Target):
    """The output of one unit, ``F = y_i``, in Hz for a retina.

    Parameters
    ----------
    cell : int or str
        The id of the cell where the network names its cells, else the index of the output.
    """

    cell: Any
    units: ClassVar[str] = "Hz"
    _index: int | None = field(default=None, repr=False, compare=False, kw_only=True)

    def __call__(self, outputs: torch.Tensor) -> torch.Tensor:
        """Pick the unit's column."""
        index = self.cell if self._index is None else self._index
        if not isinstance(index, int | np.integer) or not 0 <= index < outputs.shape[1]:
            raise RetinaCodecError(
                f"Unit needs an output between 0 and {outputs.shape[1] - 1}; got {index!r}. "
                "Ids are understood only when the network names its cells."
            )
        return outputs[:, int(index)]

    def prepare(
        self, *, responses: np.ndarray | None = None, cells: Sequence[Any] | None = None
    ) -> "Unit":
        """Look the cell's id up among the network's cells."""
        del responses
        if cells is None:
            return self
        if self.cell not in cells:
            raise RetinaCodecError(
                f"the network has no cell {self.cell!r}. Its cells are {list(cells)}."
            )
        return replace(self, _index=list(cells).index(self.cell))


@dataclass(frozen=True, eq=False)
class Surprisal(Target):
    """How unlikely the population response is under a Gaussian, in nats.

    ``F = ½ (y − μ)ᵀ Σ⁻¹ (y − μ) + ½ ln det(2πΣ)``

    Parameters
    ----------
    mean : array-like, (cell,), Hz, optional
    covariance : array-like, (cell, cell), Hz², optional
        Both given, or both left out: then they are estimated from the network's own responses
        over the inputs being explained (``T − 1`` in the denominator).
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
        """Check what was given and factorise the covariance once, in float64 on the CPU."""
        if self.shrinkage not in (None, "ledoit-wolf"):
            raise RetinaCodecError(
                f"shrinkage must be None or 'ledoit-wolf'; got {self.shrinkage!r}."
            )
        if (self.mean is None) != (self.covariance is None):
            raise RetinaCodecError(
                "Surprisal needs both mean and covariance, or neither (then both are estimated)."
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
            raise RetinaCodecError("the covariance of Surprisal must be symmetric.")
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
                f"{samples}. Explain a longer recording, or use Surprisal(shrinkage='ledoit-wolf')."
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
            raise RetinaCodecError("Surprisal has no mean yet; call fit(responses) first.")
        return self.fit(responses, cells)

    def __call__(self, outputs: torch.Tensor) -> torch.Tensor:
        """Return the surprisal, ``(b,)`` nats, of outputs ``(b, cell)``."""
        if self.incomplete:
            raise RetinaCodecError("Surprisal has no mean yet; call fit(responses) first.")
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
        """Say where mean and covariance come from, without their numbers."""
        origin = "estimated" if self._fitted or self.incomplete else "given"
        return f"Surprisal(mean={origin}, covariance={origin}, shrinkage={self.shrinkage!r})"


@dataclass(frozen=True)
class _Function(Target):
    """Any callable ``outputs -> (b,)`` as a target; its unit is not known."""

    function: Callable[[torch.Tensor], torch.Tensor]
    units: ClassVar[str] = "1"

    def __call__(self, outputs: torch.Tensor) -> torch.Tensor:
        """Call it."""
        return self.function(outputs)

    def describe(self) -> str:
        """Return the name of the callable."""
        return str(getattr(self.function, "__qualname__", type(self.function).__name__))


def as_target(target: Target | Callable[[torch.Tensor], torch.Tensor]) -> Target:
    """Return a target from a target or a callable ``outputs -> (b,)``.

    Raises
    ------
    RetinaCodecError
        If it is neither, or a target class instead of an instance.
    """
    if isinstance(target, type) or not callable(target):
        raise RetinaCodecError(
            "target must be Surprisal(), Unit(cell), Sum() or a callable outputs -> (batch,); "
            f"got {target!r}."
        )
    return target if isinstance(target, Target) else _Function(target)
