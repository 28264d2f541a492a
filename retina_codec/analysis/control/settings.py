"""Settings of `control_curves`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from retina_codec.errors import RetinaCodecError
from retina_codec.probing.interventions import HeldAt

__all__ = ["PERCENTAGES", "SELECTIONS", "ControlSettings"]

PERCENTAGES = (1, 2, 5, 10, 18, 25, 50, 80, 99)
SELECTIONS = ("contribution modes", "activation modes", "random channels")
STYLES = ("ablate", "preserve")
SIGNS = ("excitatory", "inhibitory", "net")


@dataclass(frozen=True)
class ControlSettings:
    """Settings of `control_curves`.

    Parameters
    ----------
    by : str or sequence of str
        Of "contribution modes", "activation modes", "random channels".
    style : str or sequence of str
        Of "ablate", "preserve".
    percentages : sequence of float
        Of the layer's channels, between 0 and 100: the nearest number, at least 1, never all.
    trials : int
        At least 2. One trial is a draw of images of every class, of off-target classes, and of
        an order of random channels for every concept (of ``trials`` such orders, each run once);
        network, modes and the pool of images are the same in all.
    images_per_trial : int
        Of each class, without replacement.
    off_classes : int, optional
        How many classes outside the concept are drawn; all when left out. The paper draws 1.
    concepts : sequence of str, optional
        Which; all when left out.
    modes_per_concept : int
        Best correlated modes whose weights are summed.
    sign : {"excitatory", "inhibitory", "net"}
        Of the weights that order channels. Channels of equal weight stand in random order.
    heads : int, dict of str to int, or "network", optional
        Whole runs of neighbouring channels are taken together, so many in a layer; their weight
        is the sum. "network": the attention heads that `adapt` found, single channels elsewhere.
    classes : sequence of str, optional
        Names of the outputs in order; the network's ``classes`` when left out, else numbers.
    top : int
        An answer is right if the label is among so many largest outputs.
    held_at : float or "mean"
        Value of the channels that are held back, see `perturb`.
    bootstraps : int
        Resamples of images (within class) and of random orders, for intervals and p.
    batch_size : int, optional
        See `perturb`.

    Raises
    ------
    RetinaCodecError
        If a value is out of range.
    """

    by: str | Sequence[str] = SELECTIONS
    style: str | Sequence[str] = STYLES
    percentages: Sequence[float] = PERCENTAGES
    trials: int = 20
    images_per_trial: int = 10
    off_classes: int | None = None
    concepts: Sequence[str] | None = None
    modes_per_concept: int = 1
    sign: str = "excitatory"
    heads: int | Mapping[str, int] | Literal["network"] | None = None
    classes: Sequence[str] | None = None
    top: int = 1
    held_at: HeldAt = 0.0
    bootstraps: int = 1000
    batch_size: int | None = None

    def __post_init__(self) -> None:
        """Validate the settings."""
        for name, found, valid in (
            ("by", self.selections, SELECTIONS),
            ("style", self.styles, STYLES),
        ):
            if not found or not set(found) <= set(valid) or len(set(found)) < len(found):
                raise RetinaCodecError(
                    f"{name} must be among {', '.join(map(repr, valid))}, each once; got {found}."
                )
        if not len(self.percentages) or not all(0 < value < 100 for value in self.percentages):
            raise RetinaCodecError(
                "percentages must lie between 0 and 100, which are always measured; got "
                f"{self.percentages}."
            )
        for name in ("trials", "images_per_trial", "bootstraps", "top", "modes_per_concept"):
            value, lowest = getattr(self, name), 2 if name == "trials" else 1
            if value < lowest:
                raise RetinaCodecError(f"{name} must be at least {lowest}; got {name}={value}.")
        if self.sign not in SIGNS:
            raise RetinaCodecError(f"sign must be one of {', '.join(SIGNS)}; got {self.sign!r}.")
        heads = self.heads.values() if isinstance(self.heads, Mapping) else [self.heads]
        for number in heads:
            if number not in (None, "network") and (not isinstance(number, int) or number < 1):
                raise RetinaCodecError(
                    f"heads must be a whole number of at least 1, or 'network'; got {number!r}."
                )

    @property
    def selections(self) -> list[str]:
        """Ways to choose channels."""
        return [self.by] if isinstance(self.by, str) else list(self.by)

    @property
    def styles(self) -> list[str]:
        """Kinds of intervention."""
        return [self.style] if isinstance(self.style, str) else list(self.style)

    @property
    def shown(self) -> list[float]:
        """Percentages in rising order."""
        return [float(value) for value in sorted(self.percentages)]

    def describe(self) -> dict[str, Any]:
        """Return what results record of the settings."""
        return {
            "trials": self.trials,
            "images_per_trial": self.images_per_trial,
            "off_classes": "all" if self.off_classes is None else self.off_classes,
            "modes_per_concept": self.modes_per_concept,
            "sign": self.sign,
            "top": self.top,
            "fill": self.held_at,
            "bootstraps": self.bootstraps,
            "area": "ratio against share of the layer's channels, trapezoid rule from 0 to 1",
            **({"heads": str(self.heads)} if self.heads is not None else {}),
        }
