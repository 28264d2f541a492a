"""Targets of classifiers: a scalar of the logits, or of their probabilities.

Which outputs win is decided once, at the input, and held along every path.

Notation: b inputs, n outputs, y (b, n) logits, p = softmax(y). Language models put out one row of
logits per token, (b, token, n), NaN where the token is padding; their targets are those of the last
token that is not padding, unless a target says otherwise.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch

from retina_codec.errors import RetinaCodecError
from retina_codec.probing.points import Bound
from retina_codec.targets.base import Target, checked_index, position

__all__ = ["Contrast", "Entropy", "Probability", "TopK", "last_token"]


def _logits(outputs: torch.Tensor, least: int, name: str) -> torch.Tensor:
    """Return logits ``(b, n)``, of the last token where there are several, if there are enough."""
    if outputs.ndim not in (2, 3) or outputs.shape[-1] < least:
        raise RetinaCodecError(
            f"{name} needs outputs (batch, class) or (batch, token, class) with at least {least} "
            f"classes; got shape {tuple(outputs.shape)}."
        )
    return outputs if outputs.ndim == 2 else last_token(outputs)


def last_token(outputs: torch.Tensor) -> torch.Tensor:
    """Return the outputs ``(b, n)`` of the last token that is not padding.

    Parameters
    ----------
    outputs : torch.Tensor, (b, token, n)
        NaN where a token is padding.

    Raises
    ------
    RetinaCodecError
        If all tokens of an input are padding.
    """
    there = _present(outputs)
    last = there.shape[1] - 1 - there.flip(1).int().argmax(1)  # (b,)
    return outputs[torch.arange(len(outputs), device=outputs.device), last]


def _present(outputs: torch.Tensor) -> torch.Tensor:
    """Return which tokens are not padding, ``(b, token)``."""
    there = ~outputs.detach().isnan().all(2)
    if not bool(there.any(1).all()):
        raise RetinaCodecError(
            "every input must have at least one token that is not padding; some have none."
        )
    return there


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
    classes: ClassVar[bool] = True

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
        return lambda there: _logits(there, self.k, "TopK").gather(1, winners).sum(1)

    @property
    def decides(self) -> bool:
        """Whether the target is fixed at the input (the winning class)."""
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
    classes: ClassVar[bool] = True
    _index: int | None = field(default=None, repr=False, compare=False, kw_only=True)

    def __call__(self, outputs: torch.Tensor) -> torch.Tensor:
        """Return the probability of the class, or the largest one."""
        probabilities = _logits(outputs, 2, "Probability").softmax(1)
        if self.output is None:
            return probabilities.amax(1)
        index = self.output if self._index is None else self._index
        return probabilities[:, checked_index(index, probabilities, "Probability")]

    def prepare(
        self, *, responses: np.ndarray | None = None, cells: Sequence[Any] | None = None
    ) -> "Probability":
        """Find the output among the network's outputs by its id."""
        del responses
        if cells is None or self.output is None:
            return self
        return replace(self, _index=position(self.output, cells))

    def bind(self, outputs: torch.Tensor) -> Bound:
        """Hold the class that is predicted at the input."""
        if self.output is not None:
            return self
        predicted = _logits(outputs, 2, "Probability").argmax(1, keepdim=True)  # (b, 1)
        return lambda there: (
            _logits(there, 2, "Probability").softmax(1).gather(1, predicted).squeeze(1)
        )

    @property
    def decides(self) -> bool:
        """Whether the target is fixed at the input (the winning class)."""
        return self.output is None


@dataclass(frozen=True)
class Entropy(Target):
    """The entropy of the predicted probabilities, ``F = −Σ p ln p`` with ``p = softmax(y)``, nats.

    Parameters
    ----------
    tokens : {"last", "mean", "sum"}
        For outputs ``(b, token, n)`` of a language model: the entropy at the last token (how sure
        the model is of the next word), or the mean or sum of the entropies at every token. Padding
        is left out: tokens that an ``attention_mask`` among the inputs marks with 0.

    Raises
    ------
    RetinaCodecError
        If ``tokens`` is none of these; when called, if there are fewer than two outputs, or all
        tokens of an input are padding.

    References
    ----------
    Melander et al. 2026, CODEC, contribution targets and language models.
    """

    tokens: Literal["last", "mean", "sum"] = "last"
    units: ClassVar[str] = "nats"
    classes: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Check the choice."""
        if self.tokens not in ("last", "mean", "sum"):
            raise RetinaCodecError(
                f"tokens must be one of ('last', 'mean', 'sum'); got {self.tokens!r}."
            )

    def __call__(self, outputs: torch.Tensor) -> torch.Tensor:
        """Return the entropy, ``(b,)`` nats."""
        if outputs.ndim != 3 or self.tokens == "last":
            return _entropy(_logits(outputs, 2, "Entropy"))
        _logits(outputs, 2, "Entropy")
        there = _present(outputs)
        # Padding is missing: it gets even logits before, and no share after.
        entropy = _entropy(outputs.masked_fill(~there[..., None], 0.0))  # (b, token)
        total = torch.where(there, entropy, 0.0).sum(1)
        return total if self.tokens == "sum" else total / there.sum(1)


def _entropy(logits: torch.Tensor) -> torch.Tensor:
    log_p = logits.log_softmax(-1)
    return -(log_p.exp() * log_p).sum(-1)


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
    classes: ClassVar[bool] = True

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
            values = _logits(there, 2, "Contrast").gather(1, two)
            return values[:, 0] - values[:, 1]

        return lead

    @property
    def decides(self) -> bool:
        """Whether the target is fixed at the input (the winning class)."""
        return not self.reselect
