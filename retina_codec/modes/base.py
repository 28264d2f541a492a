"""Settings of methods: checked once, written as plain attributes, and read back.

Why this file exists: every method is a frozen dataclass whose fields are all its settings. What a
result was made with must stand in its attributes, and must be enough to make it again. It knows no
method by name (``methods`` does).
"""

from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from typing import Any, Protocol, TypeVar

from torch import Tensor

from retina_codec.errors import RetinaCodecError

__all__ = ["DecompositionMethod", "FittedModes", "at_least", "between", "restore", "settings_of"]

Method = TypeVar("Method")


def at_least(method: Any, lowest: float, *names: str) -> None:
    """Refuse settings below ``lowest``; None passes."""
    for name in names:
        value = getattr(method, name)
        if value is not None and not value >= lowest:
            raise RetinaCodecError(
                f"{name} must be >= {lowest:g}; got {name}={value}. Choose a larger one."
            )


def between(method: Any, low: float, high: float, *names: str) -> None:
    """Refuse settings that do not lie inside an interval, ends excluded."""
    for name in names:
        value = getattr(method, name)
        if not low < value < high:
            raise RetinaCodecError(
                f"{name} must lie between {low:g} and {high:g}; got {name}={value}."
            )


def settings_of(method: Any) -> dict[str, Any]:
    """Name a method and its settings as attributes that every file format can hold.

    Truth values become 0 and 1; settings that are None are left out.
    """
    found: dict[str, Any] = (
        asdict(method) if is_dataclass(method) and not isinstance(method, type) else {}
    )
    plain = {
        key: int(value) if isinstance(value, bool) else value
        for key, value in found.items()
        if value is not None
    }
    return {"method": type(method).__name__} | plain


def restore(kind: type[Method], attrs: Mapping[str, Any]) -> Method:
    """Make a method from attributes that `settings_of` wrote; others are passed over."""
    given: dict[str, Any] = {}
    for field in fields(kind):  # type: ignore[arg-type]  # a dataclass, by its contract
        if field.init and field.name in attrs:
            value = attrs[field.name]
            value = value.item() if hasattr(value, "item") else value
            given[field.name] = bool(value) if isinstance(field.default, bool) else value
    return kind(**given)


class FittedModes(Protocol):
    """What a method returns: modes, and a way to load them on any samples."""

    @property
    def dictionary(self) -> Tensor:
        """Modes (mode, feature), rows of unit length."""

    @property
    def epochs(self) -> int:
        """How long the kept state was trained."""

    def encode(self, features: Tensor) -> Tensor:
        """Return loadings (sample, mode), >= 0 (but for `PCA`)."""

    def encode_unpolished(self, features: Tensor) -> Tensor:
        """Return loadings (sample, mode) straight from the encoder network."""


class DecompositionMethod(Protocol):
    """A way to find modes: a frozen dataclass whose fields are all its settings."""

    @property
    def sign_consistent(self) -> bool:
        """Whether inhibitory features are turned positive before the fit, and modes stay so."""

    def fit(self, features: Tensor, *, progress: bool | None = None) -> FittedModes:
        """Find modes in features (sample, feature), dimensionless, in order of time."""
