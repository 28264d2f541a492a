"""A table of what `contribute` would explain and keep, and what it would cost, before a long run.

Two forward passes over one input; no contributions are computed.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import nn

from retina_codec.contributions.runner import Plan, Runner, first_input, open_runner
from retina_codec.methods.base import Method
from retina_codec.methods.integrated_gradients import IntegratedGradients
from retina_codec.networks.adapter import Adapter, as_adapter
from retina_codec.networks.borrowed import reference_parameter
from retina_codec.probing.batches import Batch, to_point
from retina_codec.probing.hooks import HookedFunction
from retina_codec.probing.inputs import open_inputs
from retina_codec.reductions import ChannelSums, Reduction
from retina_codec.targets.base import Sum

__all__ = ["Summary", "summarize"]


@dataclass(frozen=True)
class Summary:
    """The table of `summarize`; ``str`` gives it as text, ``table`` as numbers."""

    network: str
    family: str
    inputs: int
    method: str
    passes: str
    table: xr.Dataset

    def __str__(self) -> str:
        """Return the table as text, one line per layer."""
        head = ("layer", "site", "side", "units", "channels", "space", "complete", "above", "bytes")
        rows = [head]
        for name in self.table["layer"].values:
            row = self.table.sel(layer=name)
            units = " × ".join(str(n) for n in str(row["units"].item()).split(","))
            lead, heads = int(row["leading_tokens"]), int(row["heads"])
            space = str(int(row["space"])) + (f" ({lead} leading)" if lead else "")
            channels = str(int(row["channels"])) + (f" ({heads} heads)" if heads else "")
            channels += "" if bool(row["axis_certain"]) else " (guessed)"
            rows.append(
                (
                    str(name),
                    str(row["site"].item()),
                    str(row["side"].item()),
                    units,
                    channels,
                    space,
                    "yes" if bool(row["can_be_complete"]) else "no",
                    _short(int(row["parameters_above"])),
                    _short(int(row["bytes_per_input"])),
                )
            )
        widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        total = int(self.table["bytes_per_input"].sum())
        lines.insert(0, f"{self.network} ({self.family}), {self.inputs} inputs")
        lines.append(
            f"{self.method}: {self.passes} per input; keeps {_short(total)} bytes per input, "
            f"{_short(total * self.inputs)} in all"
        )
        return "\n".join(lines)


def summarize(
    network: nn.Module | Adapter,
    inputs: Any,
    *,
    layers: Any = None,
    method: Method | None = None,
    reduction: Reduction | None = None,
) -> Summary:
    """Tabulate what `contribute` with these arguments would explain, and its cost.

    Parameters
    ----------
    network, inputs, layers, method, reduction
        As in `contribute`; only the first input is run. Method: `IntegratedGradients` with 10
        steps when left out.

    Returns
    -------
    Summary
        To print. ``table`` is an xr.Dataset with dim ``layer``: ``site`` (which place of a block),
        ``side`` (output or input of the module), ``units`` (shape of one input's units),
        ``channels``, ``space`` (places or tokens per channel), ``leading_tokens``, ``heads`` (0
        where unknown), ``axis_certain`` (False where the channel axis was guessed),
        ``can_be_complete`` (whether every path from input to output crosses the layer),
        ``parameters_above`` (of modules that are called after the layer) and ``bytes_per_input``
        (of what is kept).

    Raises
    ------
    RetinaCodecError
        As `contribute`.

    Examples
    --------
    >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2))
    >>> print(summarize(network, torch.zeros(5, 3, 4, 4), layers="blocks"))
    Sequential (convolutions and nonlinearities), 5 inputs
    layer  site    side    units      channels  space  complete  above  bytes
    1      blocks  output  4 × 2 × 2  4         4      yes       34     56
    IntegratedGradients: 11 passes forward, 11 back per input; keeps 56 bytes per input, 280 in all
    """
    adapter = as_adapter(network, layers)
    method = method or IntegratedGradients(10)
    here = reference_parameter(adapter.module)
    wide = here.dtype if here.dtype in (torch.float32, torch.float64) else torch.float32
    source = open_inputs(adapter, inputs, wide)
    reduction = reduction or ChannelSums()
    plan = Plan(adapter, Sum(), method, reduction, 1, here.device, here.dtype, False)
    first = first_input(source)
    with open_runner(plan, first) as runner:
        above = _parameters_above(runner, to_point(first, here.device, here.dtype))
        rows = [_row(runner, name) | {"parameters_above": above[name]} for name in runner.layers]
        names = list(runner.layers)
    table = xr.Dataset(
        {key: ("layer", [row[key] for row in rows]) for key in rows[0]},
        coords={"layer": names},
        attrs={"network": type(adapter.module).__name__, "method": type(method).__name__},
    )
    return Summary(
        type(adapter.module).__name__,
        adapter.family,
        len(source),
        type(method).__name__,
        _passes_text(method, len(names)),
        table,
    )


def _passes_text(method: Method, layers: int) -> str:
    """Return the number of passes as text."""
    counted = method.passes(layers)
    if counted is None:
        return "an unknown number of passes"
    least = "at least " if method.tolerance is not None else ""
    return f"{least}{counted[0]} pass{'es' if counted[0] > 1 else ''} forward, {counted[1]} back"


def _row(runner: Runner, name: str) -> dict[str, Any]:
    """Return one row of the table."""
    layer, site = runner.layers[name], runner.site(name)
    kept = {key: array for key, array in runner.arrays().items() if key.startswith(f"{name}/")}
    size = sum(int(np.prod(a.shape)) * np.dtype(a.dtype).itemsize for a in kept.values())
    plain = name.rpartition("@")[0] or name
    return {
        "site": "named" if site is None else site.site,
        "side": runner.plan.network.hook_of(plain if plain in runner.plan.network.layers else name),
        "units": ",".join(str(n) for n in layer.shape),
        "channels": layer.channels,
        "space": int(np.prod([layer.shape[axis - 1] for axis in layer.space_axes])),
        "leading_tokens": runner.leading[name],
        "heads": (site.heads or 0) if site is not None and site.site == "attention" else 0,
        "axis_certain": not layer.axes_are.startswith("guessed"),
        "can_be_complete": layer.cuts,
        "bytes_per_input": size,
    }


def _parameters_above(runner: Runner, point: Batch) -> dict[str, int]:
    """Count the parameters of the modules that are called after each layer."""
    function = HookedFunction.open(runner.plan.network, point)
    point = function.enter(point)
    met: list[str | nn.Module] = []

    def see(name: str, values: torch.Tensor) -> None:
        del values
        met.append(name)

    with torch.no_grad(), function.watched(see), _noted(runner.plan.network.module, met):
        runner.plan.network.call(point)
    found: dict[str, int] = {}
    above: dict[int, int] = {}
    for event in reversed(met):
        if isinstance(event, str):
            found[event] = sum(above.values())
        else:
            above |= {id(p): p.numel() for p in event.parameters(recurse=False)}
    return found


@contextmanager
def _noted(module: nn.Module, met: list[str | nn.Module]) -> Iterator[None]:
    """Append every called module that has parameters of its own to ``met``."""
    handles = []
    for inner in module.modules():
        if next(inner.parameters(recurse=False), None) is not None:
            handles.append(inner.register_forward_pre_hook(lambda m, _: met.append(m)))
        if isinstance(inner, nn.MultiheadAttention):  # it never calls its projection
            projection = inner.out_proj
            handles.append(
                inner.register_forward_hook(lambda *_, last=projection: met.append(last))
            )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _short(number: int) -> str:
    """Write a number with three digits and a letter."""
    for limit, letter in ((10**12, "T"), (10**9, "G"), (10**6, "M"), (10**3, "k")):
        if number >= limit:
            return f"{number / limit:.3g}{letter}"
    return str(number)
