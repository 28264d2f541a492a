"""Wrap core-readout models of the openretina package as networks on windows of stimulus.

Notation: b windows, l lags (oldest frame first), y x pixels, n cells.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from retina_codec.errors import RetinaCodecError
from retina_codec.networks.adapter import find_layers
from retina_codec.networks.retina.model import Normalisation

__all__ = ["CoreReadoutNetwork", "load_openretina"]

FIRST_PROBE = 64  # frames
LONGEST_PROBE = 512


class CoreReadoutNetwork(nn.Module):
    """A core-readout model on windows; made by `load_openretina`.

    ``layers`` are the convolutions of the core, all else is as in `RetinaCNN`.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        session: str,
        colors: int,
        color: int,
        frame_shape: tuple[int, int],
        frame_rate: float,
        normalisation: Normalisation,
    ) -> None:
        super().__init__()
        self.model, self.session = model, session
        self.colors, self.color = colors, color
        self.frame_shape, self.frame_rate = frame_shape, frame_rate
        self.normalisation = normalisation
        self.history = 0
        self.cells: tuple[Any, ...] = ()
        self.cell_types: tuple[str, ...] = ()
        self.layers: tuple[str, ...] = ()
        self.training_record: dict[str, Any] = {}

    def movie(self, windows: torch.Tensor) -> torch.Tensor:
        """Return all bins, ``(b, l, y, x)`` to ``(b, time, n)``; the other colours stay at 0."""
        inputs = windows[:, None]  # (b, 1, l, y, x)
        if self.colors > 1:
            grey = torch.zeros_like(inputs)
            parts = [inputs if number == self.color else grey for number in range(self.colors)]
            inputs = torch.cat(parts, 1)
        found: torch.Tensor = self.model(inputs, data_key=self.session)
        return found

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Return the last bin, ``(b, l, y, x)`` to ``(b, n)``, in the unit of the responses."""
        return self.movie(windows)[:, -1]


def load_openretina(
    model: nn.Module,
    *,
    frame_rate: float,
    session: str | None = None,
    color: int | None = None,
    history: int | None = None,
    input_shape: Sequence[int] | None = None,
    normalisation: Normalisation | None = None,
    cells: Sequence[Any] | None = None,
    cell_types: Sequence[str] | None = None,
    layers: str | Sequence[str] | None = None,
) -> CoreReadoutNetwork:
    """Take one session of an openretina core-readout model as a network on windows.

    ``f(window) = model(movie)[:, -1]``: the movie is the window, and its last bin counts.

    Parameters
    ----------
    model : torch.nn.Module
        Has ``core`` and ``readout``, the readout one module per session; called as
        ``model(movie, data_key=session)``. It is copied, not changed.
    frame_rate : float
        Hz, of the stimulus that the model was trained on.
    session : str, optional
        Needed where the model has several.
    color : int, optional
        Which channel of the movie takes the stimulus; the others stay at 0, the mean. Needed
        where the model has several.
    history : int, optional
        Frames in one window. Measured when left out: as many frames back as the last bin has a
        gradient to, and at least as many as the model needs to give one bin.
    input_shape : (int, int, int), optional
        Colours, pixels in y and x; from ``model.data_info`` when left out.
    normalisation : Normalisation, optional
        Of the stimulus; from ``stim_mean`` and ``stim_std`` in ``model.data_info`` when left out.
    cells : sequence, optional
        Ids of the cells; ``cell_indices`` of the session in ``model.data_info`` when left out,
        else counted from 0.
    cell_types : sequence of str, optional
        "unknown" when left out.
    layers : str or sequence of str, optional
        Names or patterns; the convolutions of the core when left out.

    Returns
    -------
    CoreReadoutNetwork
        In evaluation mode. Where `contribute` cannot tell the channels of a layer, say
        ``adapt(network, kind="cnn")``: the values are ``(b, channel, time, y, x)``.

    Raises
    ------
    RetinaCodecError
        If the model has another structure, something needed is neither given nor in
        ``data_info``, or the rates depend on frames before the history, as those of a recurrent
        core may.

    References
    ----------
    github.com/open-retina/open-retina, version 1.1: ``models/core_readout.py``.
    """
    if not isinstance(getattr(model, "core", None), nn.Module) or not isinstance(
        getattr(model, "readout", None), nn.Module
    ):
        raise RetinaCodecError(
            "an openretina model must be a module with a core and a readout; got "
            f"{type(model).__name__}. Explain other modules with adapt(module, layers)."
        )
    info = getattr(model, "data_info", None) or {}
    name = _session(model, info, session)
    colors, *frame = _input_shape(info, input_shape, color)
    network = CoreReadoutNetwork(
        copy.deepcopy(model),
        session=name,
        colors=colors,
        color=color or 0,
        frame_shape=(frame[0], frame[1]),
        frame_rate=float(frame_rate),
        normalisation=normalisation or _normalisation(info),
    ).eval()
    network.history, count = _measure(network, history)
    ids = cells if cells is not None else _ids(info, name, count)
    network.cells = tuple(ids)
    network.cell_types = tuple(cell_types or ("unknown",) * count)
    if len(network.cells) != count or len(network.cell_types) != count:
        raise RetinaCodecError(
            f"session {name!r} has {count} cells; got {len(network.cells)} cells and "
            f"{len(network.cell_types)} types."
        )
    network.layers = find_layers(network, _convolutions(network) if layers is None else layers)
    network.training_record = {
        "source": "openretina",
        "model_type": type(model).__name__,
        "session": name,
    }
    return network


def _input_shape(info: Any, given: Sequence[int] | None, color: int | None) -> tuple[int, ...]:
    """Return colours, pixels in y and x; check that ``color`` is one of the colours."""
    shape = tuple(int(size) for size in given or info.get("input_shape") or ())
    if len(shape) != 3 or min(shape) < 1:
        raise RetinaCodecError(
            f"input_shape must be (colors, y, x); got {shape}, and model.data_info has none else. "
            "Give input_shape."
        )
    if color is None and shape[0] > 1:
        raise RetinaCodecError(
            f"the model takes {shape[0]} colors; say which of 0 to {shape[0] - 1} takes the "
            "stimulus, with color="
        )
    if color is not None and not 0 <= color < shape[0]:
        raise RetinaCodecError(f"color must be from 0 to {shape[0] - 1}; got {color=}.")
    return shape


def _session(model: nn.Module, info: Any, session: str | None) -> str:
    readout: Any = model.readout
    known = (
        list(readout.keys()) if hasattr(readout, "keys") else list(info.get("n_neurons_dict", {}))
    )
    if session is None and len(known) == 1:
        return str(known[0])
    if session not in known:
        raise RetinaCodecError(
            f"session must be one of {', '.join(map(str, known)) or 'none that the model names'}; "
            f"got {session!r}."
        )
    return str(session)


def _normalisation(info: Any) -> Normalisation:
    mean, std = info.get("stim_mean"), info.get("stim_std")
    if mean is None or std is None:
        raise RetinaCodecError(
            "the stimulus needs its mean and std; model.data_info has no stim_mean and stim_std. "
            "Give normalisation=Normalisation(mean, std)."
        )
    return Normalisation(float(mean), float(std))


def _ids(info: Any, session: str, count: int) -> list[Any]:
    kwargs = (info.get("sessions_kwargs") or {}).get(session) or {}
    found = kwargs.get("cell_indices") if isinstance(kwargs, dict) else None
    return list(range(count)) if found is None else [int(cell) for cell in found]


def _convolutions(network: CoreReadoutNetwork) -> list[str]:
    """Return the outermost convolutions of the core, in order."""
    core: Any = network.model.core
    found: list[str] = []
    for name, module in core.named_modules():
        inside = any(name.startswith(f"{outer}.") for outer in found)
        kind = isinstance(module, nn.Conv2d | nn.Conv3d) or "conv" in type(module).__name__.lower()
        if name and kind and not inside:
            found.append(name)
    return [f"model.core.{name}" for name in found]


def _measure(network: CoreReadoutNetwork, history: int | None) -> tuple[int, int]:
    """Return the frames that the last bin needs, and the number of cells."""
    parameter = next(network.parameters(), torch.zeros(()))
    generator = torch.Generator().manual_seed(0)
    frames = max(FIRST_PROBE, 2 * (history or 0))
    while True:
        probe = torch.randn(4, frames, *network.frame_shape, generator=generator)
        probe = probe.to(parameter.device, parameter.dtype).requires_grad_()
        rates = network.movie(probe)  # (b, time, n)
        if rates.ndim == 3 and rates.shape[1]:
            (gradient,) = torch.autograd.grad(rates[:, -1].sum(), probe)
            seen = gradient.abs().amax((0, 2, 3)).nonzero()
            first = int(seen[0]) if len(seen) else frames - 1
            if first or frames - rates.shape[1] >= frames - first:
                break
        if frames >= LONGEST_PROBE:
            break
        frames *= 2
    if rates.ndim != 3 or not rates.shape[1]:
        raise RetinaCodecError(
            f"the model must map (batch, color, time, y, x) to (batch, time, cell); {frames} "
            f"frames gave {tuple(rates.shape)}."
        )
    needed = max(frames - first, frames - rates.shape[1] + 1)
    length = needed if history is None else int(history)
    if length < needed or (first == 0 and needed >= frames):
        raise RetinaCodecError(
            f"the history must hold the {needed} frames or more that the last bin depends on; got "
            f"{history=}. A recurrent core that sees the whole past cannot be cut into windows."
        )
    with torch.no_grad():
        cut, whole = network(probe[:, -length:]), rates[:, -1]
    if not torch.allclose(cut, whole, rtol=1e-4, atol=1e-5):
        raise RetinaCodecError(
            f"a window of {length} frames must give the rates of the whole movie; they differ by "
            f"{float((cut - whole).abs().max()):.2g}. Give a longer history."
        )
    return length, int(rates.shape[2])
