"""Targets of classifiers: a scalar of the logits, or of the probabilities that they stand for.

Why this file exists: image and language models are explained through which outputs win and how
surely. Which outputs those are is decided once, at the input, and held along every path.

Notation: b inputs, n outputs, y (b, n) logits, p = softmax(y).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch

from retina_codec.contributions.evaluation import Bound
from retina_codec.contributions.targets import Target, checked_index, position
from retina_codec.errors import RetinaCodecError

__all__ = ["Contrast", "Entropy", "Probability", "TopK"]


def _logits(outputs: torch.Tensor, least: int, name: str) -> torch.Tensor:
    """Return logits ``(b, n)`` if there are enough of them."""
    if outputs.ndim != 2 or outputs.shape[1] < least:
        raise RetinaCodecError(
            f"{name} needs outputs (batch, class) with at least {least} classes; got shape "
            f"{tuple(outputs.shape)}."
        )
    return outputs


@dataclass(frozen=True)
class TopK(Target):
    """The summed logits of the k winning outputs, ``F = Σ_{i in top k of y(x)} y_i``.

    Parameters
    ----------
    k : int
        How many outputs; 1 is the paper's standard for images.
    reselect : bool
        False (default) decides at the input which outputs win and holds them along the path, so
        that F stays one smooth function. True decides again at every point, as the authors' code.

    Raises
    ------
    RetinaCodecError
        If k is not a whole number of at least 1; when called, if there are fewer outputs.

    References
    ----------
    Melander et al. 2026, CODEC, contribution targets.
    """

    k: int = 1
    reselect: bool = False

    def __post_init__(self) -> None:
        """Check k."""
        if isinstance(self.k, bool) or not isinstance(self.k, int) or self.k < 1:
            raise RetinaCodecError(f"k must be a whole number of at least 1; got {self.k!r}.")

    def __call__(self, outputs: torch.Tensor) -> torch.Tensor:
        """Sum the largest logits of these outputs."""
        return _logits(outputs, self.k, "TopK").topk(self.k, 1).values.sum(1)

    def bind(self, outputs: torch.Tensor) -> Bound:
        """Hold the winners at the input."""
        if self.reselect:
            return self
        winners = _logits(outputs, self.k, "TopK").topk(self.k, 1).indices  # (b, k)
        return lambda there: there.gather(1, winners).sum(1)

    @property
    def decides(self) -> bool:
        """Whether it holds a choice made at the input."""
        return not self.reselect


@dataclass(frozen=True)
class Probability(Target):
    """The probability of one output, ``F = softmax(y)_c``.

    Parameters
    ----------
    output : int or str, optional
        The class: an index, or an id where the network names its outputs; the one predicted at
        the input when left out, held along the path.

    Raises
    ------
    RetinaCodecError
        When prepared or called, if there is no such output or there are fewer than two.

    References
    ----------
    Melander et al. 2026, CODEC, vision transformers (post-softmax top-1).
    """

    output: Any = None
    _index: int | None = field(default=None, repr=False, compare=False, kw_only=True)

    def __call__(self, outputs: torch.Tensor) -> torch.Tensor:
        """Return the probability of the class, or the largest one."""
        probabilities = _logits(outputs, 2, "Probability").softmax(1)
        if self.output is None:
            return probabilities.amax(1)
        index = self.output if self._index is None else self._index
        return probabilities[:, checked_index(index, outputs, "Probability")]

    def prepare(
        self, *, responses: np.ndarray | None = None, cells: Sequence[Any] | None = None
    ) -> "Probability":
        """Look the output's id up among the network's outputs."""
        del responses
        if cells is None or self.output is None:
            return self
        return replace(self, _index=position(self.output, cells))

    def bind(self, outputs: torch.Tensor) -> Bound:
        """Hold the class that is predicted at the input."""
        if self.output is not None:
            return self
        predicted = _logits(outputs, 2, "Probability").argmax(1, keepdim=True)  # (b, 1)
        return lambda there: there.softmax(1).gather(1, predicted).squeeze(1)

    @property
    def decides(self) -> bool:
        """Whether it holds a choice made at the input."""
        return self.output is None


@dataclass(frozen=True)
class Entropy(Target):
    """The entropy of the predicted probabilities, ``F = −Σ p ln p`` with ``p = softmax(y)``, nats.

    Raises
    ------
    RetinaCodecError
        When called, if there are fewer than two outputs.

    References
    ----------
    Melander et al. 2026, CODEC, contribution targets and language models.
    """

    units: ClassVar[str] = "nats"

    def __call__(self, outputs: torch.Tensor) -> torch.Tensor:
        """Return the entropy, ``(b,)`` nats."""
        log_p = _logits(outputs, 2, "Entropy").log_softmax(1)
        return -(log_p.exp() * log_p).sum(1)


@dataclass(frozen=True)
class Contrast(Target):
    """The lead of the winning output, ``F = y_(1) − y_(2)``: largest logit minus second largest.

    Parameters
    ----------
    reselect : bool
        False (default) decides at the input which two outputs are compared and holds them along
        the path; True decides again at every point, as the authors' code.

    Raises
    ------
    RetinaCodecError
        When called, if there are fewer than two outputs.

    References
    ----------
    Melander et al. 2026, CODEC, contrastive target.
    """

    reselect: bool = False

    def __call__(self, outputs: torch.Tensor) -> torch.Tensor:
        """Return the lead, ``(b,)``."""
        two = _logits(outputs, 2, "Contrast").topk(2, 1).values
        return two[:, 0] - two[:, 1]

    def bind(self, outputs: torch.Tensor) -> Bound:
        """Hold the two outputs that lead at the input."""
        if self.reselect:
            return self
        two = _logits(outputs, 2, "Contrast").topk(2, 1).indices  # (b, 2)

        def lead(there: torch.Tensor) -> torch.Tensor:
            values = there.gather(1, two)
            return values[:, 0] - values[:, 1]

        return lead

    @property
    def decides(self) -> bool:
        """Whether it holds a choice made at the input."""
        return not self.reselect
