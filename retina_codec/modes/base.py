"""Contracts of a decomposition (a way to find modes) and of what its fit returns; the registry."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import Field, asdict, dataclass, fields, is_dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from retina_codec.errors import RetinaCodecError
from retina_codec.registry import Registry

__all__ = [
    "Decomposition",
    "Fitted",
    "at_least",
    "between",
    "decomposition_of",
    "registry",
    "unit_rows",
]

FOLDER = "retina_codec.modes.decompositions"
RESERVED = {"method", "kept_epoch", "held_out", "gap", "signs", "seeds", "first_seed"}


@dataclass(frozen=True, kw_only=True, eq=False)
class Fitted(ABC):
    """Modes, and a way to load them on any samples: what `Decomposition.fit` returns.

    Must: hold ``dictionary``; implement `encode`.

    Should: be a frozen dataclass that keeps all that `encode` needs; set ``epochs`` where the fit
    is iterative; implement `encode_weighted` where `encode` chooses a few modes for each sample,
    and `encode_unpolished` where `encode` improves on the answer of a trained
    encoder.
    """

    dictionary: Tensor
    """Modes (mode, feature), rows of unit length (0 for a mode that was never used)."""
    epochs: int = 0
    """Number of steps of the fit until the state that was kept."""

    @abstractmethod
    def encode(self, features: Tensor) -> Tensor:
        """Return loadings (sample, mode) of features (sample, feature); features ≈ loadings @ D."""

    def encode_weighted(self, features: Tensor, weight: Tensor) -> Tensor:
        """Return loadings (sample, mode) for features whose errors count weight (feature,) times.

        Here those of `encode`. They are asked for where features were scaled down for the fit and
        decide a sample in the units of the data.
        """
        del weight
        return self.encode(features)

    def encode_unpolished(self, features: Tensor) -> Tensor:
        """Return loadings (sample, mode) of the encoder alone; here those of `encode`."""
        return self.encode(features)


class Decomposition(ABC):
    """A way to find modes.

    Must: be a frozen dataclass whose fields are all its settings, each a number, text or truth
    value with a default; set ``sign_consistent``, as a field or a class attribute; implement `fit`,
    which gives the same modes for the same settings and features.

    Should: call the number of modes ``modes``, the largest number of modes of one sample
    ``active``, and the start of its random numbers ``seed``, because `score_modes` varies these;
    refuse settings that cannot work in ``__post_init__``, with `at_least` and `between`.

    A subclass is registered under its class name, so that results made with it find it again
    (`decomposition_of`); with the class keyword ``register=False`` it is not. Packages name theirs
    in the entry-point group ``retina_codec.decompositions``, by class name.
    """

    def __init_subclass__(cls, *, register: bool = True, **keywords: Any) -> None:
        """Register the subclass under its name."""
        super().__init_subclass__(**keywords)
        if register:
            registry.register(cls.__name__, cls)

    robust = True
    """Class attribute: whether constant and extreme values are kept out of the fit.

    See `retina_codec.modes.scaling.measure_scaling`; False where all samples count as they are.
    """

    @property
    @abstractmethod
    def sign_consistent(self) -> bool:
        """Whether inhibitory features are turned positive before the fit, and modes stay so."""

    @abstractmethod
    def fit(self, features: Tensor, *, progress: bool | None = None) -> Fitted:
        """Find modes in features (sample, feature), dimensionless, in order of time."""

    def settings(self) -> dict[str, Any]:
        """Return name and settings as attributes that every file format can hold.

        Truth values become 0 and 1; settings that are None are left out.

        Raises
        ------
        RetinaCodecError
            If a setting has the name of another attribute of the results.
        """
        found: dict[str, Any] = asdict(self) if is_dataclass(self) else {}
        plain = {
            name: int(value) if isinstance(value, bool) else value
            for name, value in found.items()
            if value is not None
        }
        if taken := RESERVED & plain.keys():
            raise RetinaCodecError(
                f"settings of {type(self).__name__} must not be called {', '.join(sorted(taken))}: "
                "results use these names. Rename the field."
            )
        return {"method": type(self).__name__} | plain

    @classmethod
    def from_settings(cls, attrs: Mapping[str, Any]) -> Self:
        """Make one from attributes that `settings` wrote; other attributes are passed over."""
        known: tuple[Field[Any], ...] = fields(cls) if is_dataclass(cls) else ()
        given: dict[str, Any] = {}
        for field in known:
            if field.init and field.name in attrs:
                value = attrs[field.name]
                value = value.item() if hasattr(value, "item") else value
                given[field.name] = bool(value) if isinstance(field.default, bool) else value
        return cls(**given)

    def has(self, name: str) -> bool:
        """Return whether there is a setting of this name that is not None."""
        named = is_dataclass(self) and name in {field.name for field in fields(self)}
        return named and getattr(self, name) is not None

    def vary(self, **settings: Any) -> Self:
        """Return a copy with those of the settings changed that it `has`."""
        known = {name: value for name, value in settings.items() if self.has(name)}
        return replace(self, **known) if known else self  # type: ignore[type-var]  # a dataclass


def decomposition_of(attrs: Mapping[str, Any]) -> Decomposition:
    """Make the decomposition that modes were found with, from their attributes.

    Parameters
    ----------
    attrs : mapping
        ``method``, the name of the decomposition, and its settings by name, as `decompose` writes
        them.

    Returns
    -------
    Decomposition

    Raises
    ------
    RetinaCodecError
        If no decomposition of this name is registered.
    """
    name = str(attrs.get("method", "none"))
    if name not in (known := registry.list()):
        raise RetinaCodecError(
            f"the decomposition that results were made with must be known; they name {name!r}, "
            f"known are {', '.join(known)}. Import the module that defines it, or decompose with "
            "one of these."
        )
    return registry.get(name).from_settings(attrs)


def at_least(decomposition: object, lowest: float, *names: str) -> None:
    """Refuse settings below ``lowest``; None passes."""
    for name in names:
        value = getattr(decomposition, name)
        if value is not None and not value >= lowest:
            raise RetinaCodecError(
                f"{name} must be >= {lowest:g}; got {name}={value}. Choose a larger one."
            )


def between(decomposition: object, low: float, high: float, *names: str) -> None:
    """Refuse settings that do not lie inside an interval, ends excluded."""
    for name in names:
        value = getattr(decomposition, name)
        if not low < value < high:
            raise RetinaCodecError(
                f"{name} must lie between {low:g} and {high:g}; got {name}={value}."
            )


def unit_rows(dictionary: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rows (mode, feature) at unit length and their lengths (mode,); rows of 0 stay."""
    length = dictionary.norm(dim=1)
    return dictionary / length.clamp(min=torch.finfo(length.dtype).tiny)[:, None], length


def _check(name: str, item: object) -> None:
    if not (isinstance(item, type) and issubclass(item, Decomposition)):
        raise RetinaCodecError(
            f"the decomposition {name!r} must be a subclass of rc.modes.Decomposition; got "
            f"{item!r}. See help(rc.modes.Decomposition)."
        )


registry: Registry[type[Decomposition]] = Registry(
    "decomposition",
    "retina_codec.decompositions",
    {
        "SparseAutoencoder": f"{FOLDER}.sparse_autoencoder:SparseAutoencoder",
        "GatedAutoencoder": f"{FOLDER}.gated:GatedAutoencoder",
        "TopKAutoencoder": f"{FOLDER}.topk:TopKAutoencoder",
        "BatchTopKAutoencoder": f"{FOLDER}.topk:BatchTopKAutoencoder",
        "NMF": f"{FOLDER}.nmf:NMF",
        "SemiNMF": f"{FOLDER}.nmf:SemiNMF",
        "PCA": f"{FOLDER}.linear:PCA",
        "KMeans": f"{FOLDER}.kmeans:KMeans",
        "RawChannels": f"{FOLDER}.linear:RawChannels",
    },
    _check,
)
