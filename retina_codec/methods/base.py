"""Contribution methods: how much each hidden unit contributed to the target.

Notation: b inputs, x input, x′ baseline, h activations of a layer, g = ∂F/∂h, F target, J = ∂h/∂x.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, ClassVar

import torch

from retina_codec.errors import RetinaCodecError
from retina_codec.methods.baselines import names_inputs, prepare_baseline, settle_baseline
from retina_codec.methods.quadrature import Rule
from retina_codec.networks.embeddings import Entry
from retina_codec.probing.batches import Batch
from retina_codec.probing.hooks import HookedFunction
from retina_codec.probing.points import LayeredFunction, Layers
from retina_codec.registry import Registry
from retina_codec.storage.provenance import readable
from retina_codec.targets.base import Target

__all__ = ["OF_THE_TARGET", "InputPath", "Method", "UnitContributions", "registry"]

OF_THE_TARGET = "of the target"


@dataclass(frozen=True)
class UnitContributions:
    """Contributions of every hidden unit to the target, for a batch of inputs."""

    contribution: Layers  # each (b, ...), in the unit of the method, at least float32
    value: torch.Tensor  # F(x), (b,)
    output: torch.Tensor  # y(x), (b, n)
    activation: Layers  # h(x), each (b, ...)
    expected: torch.Tensor | None = None  # what contributions of a layer should sum to, (b,)
    steps: torch.Tensor | None = None  # steps used per input, (b,), where they may differ
    standard_error: Layers = field(default_factory=dict)  # of the sum over a layer, each (b,)
    places: tuple[torch.Tensor, ...] = ()  # own points of the paths, (b, k) for every baseline
    whole: bool = False  # whether activation holds whole layers although the function does not


@dataclass(frozen=True)
class InputPath:
    """How a method shares the contribution of a unit out among the parts of the input.

    ``C_ij = (x_i − x′_i) Σ_s w_s g_j J_ji(γ(α_s))`` on the straight path γ from x′ to x, so that
    ``Σ_i C_ij = C_j``. J is taken at node s; g there too, or at x.

    Parameters
    ----------
    rule : Rule
        Nodes α_s on [0, 1] and weights w_s.
    gradient_at_input : bool
        True: g is that at x, whatever the node.
    own_points : bool
        True: nodes are the ``places`` of `UnitContributions`, w_s those of the trapezoid over them.
    """

    rule: Rule
    gradient_at_input: bool = False
    own_points: bool = False


class Method(ABC):
    """One way to compute contributions.

    Must
    ----
    - be a frozen dataclass whose fields are all its parameters (results name them);
    - implement `explain`;
    - treat every input on its own: the same numbers alone and in any batch.

    Should
    ------
    - set `units`, if contributions are not in the unit of the target;
    - set `sums_to`, if the contributions of a layer that every path crosses have a known sum, and
      then return that sum as ``expected``;
    - set `sampled`, if it returns a ``standard_error``;
    - set `chords`, if it needs a network that follows nonlinearities by chords;
    - set `fused`, if it asks nothing but whole path integrals of a network that has them;
    - set `tolerance`, if it chooses the number of steps itself, and then return ``steps``;
    - call the start x′ of its paths ``baseline``: words for it ("auto", "mean", "mean embedding",
      ...) are then replaced by what they stand for;
    - implement `passes`, so that `summarize` can tell the cost;
    - implement `input_path`, so that `input_map` can draw maps.

    Any instance can be passed as ``method=``. To add a method by name, register its class
    (`registry`) or name it as an entry point of the group ``retina_codec.methods``.
    """

    units: ClassVar[str] = OF_THE_TARGET  # or a unit, such as "activation"
    sums_to: ClassVar[str] = ""  # for example "F(x) - F(baseline)"
    sampled: ClassVar[bool] = False
    chords: bool = False
    fused: bool = False
    tolerance: float | None = None

    @abstractmethod
    def explain(
        self, function: LayeredFunction, target: Target, inputs: Batch
    ) -> UnitContributions:
        """Return the contributions of every unit for inputs ``(b, ...)``."""

    def passes(self, layers: int) -> tuple[int, int] | None:
        """Return how many passes forward and back one input takes; None if unknown.

        A pass back goes no further than the lowest of the ``layers`` layers; a derivative that is
        carried forward counts as a pass forward. With a tolerance it is the least number.
        """
        del layers
        return None

    @property
    def follows_path(self) -> bool:
        """Whether the network must tell which inputs paths, baselines or noise are of.

        Not if the baseline is None, or names inputs.
        """
        return not names_inputs(getattr(self, "baseline", 0.0))

    def input_path(self, steps: int) -> InputPath | None:
        """Return how contributions are mapped to the input; None if no map is defined.

        Parameters
        ----------
        steps : int
            Intervals of the path, for a method that has no number of its own.
        """
        del steps
        return None

    def settle(self, entry: Entry) -> "Method":
        """Return the method with a baseline "auto" replaced by the one that it is, in words.

        Parameters
        ----------
        entry : Entry
            Where paths lead: through embeddings of words, or through the inputs themselves.
        """
        baseline = getattr(self, "baseline", None)
        settled = settle_baseline(baseline, entry)
        return self if settled is baseline else replace(self, baseline=settled)  # type: ignore[type-var]

    def prepare(
        self, mean: Callable[[], Batch], function: HookedFunction | None = None
    ) -> "Method":
        """Return the method with what they stand for in place of words for its baseline.

        Parameters
        ----------
        mean : callable
            Returns the mean of the inputs, for "mean".
        function : HookedFunction, optional
            The network, for "auto" and mean embeddings; these stay when left out.
        """
        baseline = getattr(self, "baseline", None)
        prepared = None if baseline is None else prepare_baseline(baseline, mean, function)
        return self if prepared is baseline else replace(self, baseline=prepared)  # type: ignore[type-var]

    def describe(self) -> dict[str, str | int | float]:
        """Return name and parameters in a form that files can hold."""
        return {"method": type(self).__name__} | {
            name: readable(getattr(self, name)) for name in _parameters(self)
        }


def units_of(method: Method, target: Target, outputs: str) -> str:
    """Return the unit of the contributions of a method to a target.

    Parameters
    ----------
    method : Method
    target : Target
    outputs : str
        Unit of the network's outputs, see `Adapter.output_units`.
    """
    return target.units_for(outputs) if method.units == OF_THE_TARGET else method.units


def at_least_float(values: torch.Tensor) -> torch.Tensor:
    """Return half precision as float32, other values as they are."""
    return values if values.dtype in (torch.float32, torch.float64) else values.float()


def _parameters(method: Any) -> list[str]:
    """Return the names of a method's parameters."""
    if not is_dataclass(method):
        raise RetinaCodecError(
            "a method must be a dataclass, so that results can name its parameters; "
            f"{type(method).__name__} is none. Put @dataclass(frozen=True) above the class."
        )
    return [item.name for item in fields(method)]


def _check(name: str, method: Any) -> None:
    if not (isinstance(method, type) and issubclass(method, Method)):
        raise RetinaCodecError(
            f"a contribution method must be a subclass of Method; {name!r} is {method!r}."
        )


registry: Registry[type[Method]] = Registry(
    "contribution method",
    "retina_codec.methods",
    {
        "IntegratedGradients": "retina_codec.methods.integrated_gradients:IntegratedGradients",
        "InputGrad": "retina_codec.methods.gradients:InputGrad",
        "ActGrad": "retina_codec.methods.gradients:ActGrad",
        "ActNormGrad": "retina_codec.methods.gradients:ActNormGrad",
        "SmoothGrad": "retina_codec.methods.gradients:SmoothGrad",
    },
    _check,
)
