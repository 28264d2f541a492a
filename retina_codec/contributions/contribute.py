"""Compute contributions: from a network and inputs to labelled results of every explained layer.

Results stay in memory, go to a file or to a store that can be resumed; a cluster can help.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import nn

from retina_codec.contributions.claims import retracted_claims
from retina_codec.contributions.results import completeness, label
from retina_codec.contributions.runner import Plan, Runner, first_input, open_runner
from retina_codec.contributions.shards import MemorySink, Phase, Sink, Work, run_here
from retina_codec.contributions.store import open_store
from retina_codec.errors import RetinaCodecError
from retina_codec.methods.base import Method
from retina_codec.methods.base import registry as methods
from retina_codec.networks.adapter import Adapter, as_adapter
from retina_codec.networks.borrowed import open_device, reference_parameter, when_free
from retina_codec.probing.checks import check_network
from retina_codec.probing.inputs import Source, open_inputs
from retina_codec.reductions import ChannelSums, Reduction
from retina_codec.storage.provenance import state_hash, versions
from retina_codec.storage.trees import save_tree, tree_suffix
from retina_codec.targets.base import Target, as_target

__all__ = ["completeness", "contribute"]


def contribute(
    network: nn.Module | Adapter,
    inputs: Any,
    *,
    target: Target | Callable[[torch.Tensor], torch.Tensor],
    method: Method,
    layers: str | Sequence[str] | None = None,
    reduction: Reduction | None = None,
    batch_size: int | None = None,
    store: str | os.PathLike[str] | None = None,
    client: Any = None,
    device: str | torch.device | None = None,
    progress: bool | None = None,
    dtype: torch.dtype | None = None,
) -> xr.DataTree:
    """Compute how much every channel contributed to the target, for every input.

    Contributions of hidden units, ``C_j``, are split by sign and then summed over space:
    ``C⁺ = Σ_space max(C_j, 0)``, ``C⁻ = Σ_space min(C_j, 0)``. All layers come from one pass.

    Parameters
    ----------
    network : torch.nn.Module or Adapter
        A `RetinaCNN`, any module that maps a batch to ``(batch, output)``, or what `adapt` makes
        of one; explained in evaluation mode and left as it was.
    inputs : xr.DataTree, xr.Dataset, xr.DataArray, array, torch.Tensor, dict or DataLoader
        A split of a recording with raw ``stimulus`` (time, y, x), read in chunks and normalised
        as the network asks (`RetinaCNN` only); ready inputs, ``time`` or ``sample`` first, one
        array or several by argument name; or a data set of torch that can be indexed (or a loader
        that goes through one in order) giving tensors or (tensor, label). Coordinates along the
        first dim, ``coords`` of a data set, or its ``targets`` by their names in ``classes`` (as
        ``label``) come along into every dataset of the results.
    target : Target or callable
        One of ``rc.targets``, such as `Surprisal`, an instance of your own `Target`, or a function
        of outputs ``(batch, output) -> (batch,)``.
    method : Method
        One of ``rc.methods``, such as `IntegratedGradients`, or an instance of your own `Method`.
        Where all inputs are whole numbers (tokens), paths, baselines and noise are those of their
        embeddings.
    layers : str or sequence of str, optional
        Names or patterns of submodules, or the site of every block (``"blocks"``, ``"mlp"``,
        ``"attention"``; see `adapt`); the network's ``layers`` when left out.
    reduction : Reduction, optional
        What is kept of the units: `ChannelSums` (default), `HeadSums` or `AllUnits`.
    batch_size : int, optional
        Inputs per batch: 64 on the CPU, 256 on a GPU. Changes speed and memory, not the result
        (beyond rounding).
    store : path, optional
        ``.zarr``: written during the run, in ``<store>.partial`` until it is complete; the same
        call continues an interrupted run, with the same bytes in the end, and returns at once
        when the run is finished. ``.nc``: written at the end. None: in memory.
    client : dask.distributed.Client, optional
        Its workers compute the shards; they must see the folder of ``store``.
    device : str or torch.device, optional
        Where to compute; the device of the network when left out.
    progress : bool, optional
        None shows bars after 2 s, False never, True at once.
    dtype : torch.dtype, optional
        torch.float32 or torch.float64; the network's own when left out. Sums over a path are kept
        in at least float32.

    Returns
    -------
    xr.DataTree
        Root: provenance in attrs. ``/responses``: ``prediction`` (time, cell) Hz, ``rate`` (as
        recorded, if given), ``target`` (time), ``steps`` (time) where a tolerance set them, and
        the statistics of the target (of a Surprisal ``mean``, ``covariance`` and
        ``condition_number``). ``/layers/<name>``: ``contribution`` (time, sign, channel),
        ``activation`` (time, channel) mean over space, and for methods whose contributions have a
        known sum ``target_change`` (time), that sum, and ``completeness_error`` (time) = sum of
        contributions − target_change; for methods that sample, ``standard_error`` (time) of the
        layer's sum. Contributions are in the unit of the target (nats for Surprisal), unless the
        method has its own. The attrs of a layer give the shape of its units, which axis is
        channels, whether completeness holds and, in networks whose blocks are known, site, block,
        side, heads and leading tokens. ``time`` is the time of the response. Arrays of a ``.zarr``
        store are read when they are used.

    Raises
    ------
    RetinaCodecError
        If network, inputs, layers and target do not fit together; before the computation where
        possible. If values are not finite (which layer, which input). If the store belongs to
        another run or version.

    References
    ----------
    Melander et al. 2026, CODEC, "contribution algorithms" and "retina".

    Examples
    --------
    >>> import torch
    >>> import retina_codec as rc
    >>> network = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 1))
    >>> explained = rc.contribute(network, torch.ones(5, 3), target=rc.targets.Sum(), layers=["0"],
    ...                           method=rc.methods.IntegratedGradients(steps=1))
    >>> dict(explained["layers/0"].sizes)
    {'sample': 5, 'sign': 2, 'channel': 2}
    """
    target = as_target(target)
    adapter = as_adapter(network, layers)
    _check_arguments(method, reduction, batch_size, dtype, client, store)
    here = reference_parameter(adapter.module)
    device = here.device if device is None else open_device(device)
    dtype = dtype or here.dtype
    wide = dtype if dtype in (torch.float32, torch.float64) else torch.float32
    source = open_inputs(adapter, inputs, wide)
    if not target.incomplete:
        target = target.prepare(cells=adapter.cells)
    plan = Plan(
        adapter,
        target,
        method,
        reduction or ChannelSums(),
        batch_size or (64 if device.type == "cpu" else 256),
        device,
        dtype,
        source.consecutive,
    )
    settings: dict[str, Any] = {
        **adapter.describe(),
        "target": target.describe(),
        "reduction": plan.reduction.describe(),
        "network_sha256": when_free(adapter.module, state_hash),
        "versions": versions(),
    }
    with open_runner(plan, first_input(source), stored=store is not None) as runner:
        check_network(
            runner.plain,
            source,
            device,
            dtype,
            batch_size=min(plan.batch_size, len(source)),
            classes=target.classes,
            follows_path=method.follows_path,
        )
        settings = runner.plan.method.describe() | settings  # the baseline in words
        runner.prepare(source)
        settings |= runner.entry.describe() | {"dtype": runner.dtype_text()}
        found = _run(runner, source, settings, store, client, progress)
    return found


def _run(
    runner: Runner,
    source: Source,
    settings: dict[str, Any],
    store: str | os.PathLike[str] | None,
    client: Any,
    progress: bool | None,
) -> xr.DataTree:
    """Run all shards and return the labelled results, from memory or from the store."""
    suffix = tree_suffix(store) if store is not None else ""
    if suffix == ".nc" and Path(store or "").exists():
        raise RetinaCodecError(
            f"the output must not exist yet; {store} does. Choose another name or remove it."
        )
    if client is not None:
        from retina_codec.contributions.cluster import check_sendable

        check_sendable(runner.plan, source)

    claims: dict[str, str] = {}  # known at the end

    def labelled(found: dict[str, Any], target: Target) -> xr.DataTree:
        described = settings | {"target": target.describe()}
        return label(found, runner, source, target, described, claims)

    sink: Sink
    if suffix == ".zarr":
        opened = open_store(store or "", runner, source, settings, labelled)
        if isinstance(opened, xr.DataTree):
            return opened
        sink = opened
    else:
        sink = MemorySink(runner, source, labelled)
    work = Work(runner, source, sink, progress, predicted=runner.plan.target.incomplete)
    with sink, _workers(client, work) as run:
        if work.predicted:
            run("predictions")
            responses = np.asarray(sink.read("prediction"), np.float64)
            cells = runner.plan.network.cells
            runner.explain_to(runner.plan.target.prepare(responses=responses, cells=cells))
        run("contributions")
        claims |= retracted_claims(runner, source, sink.read)
        tree = sink.finish(runner.plan.target)
    if suffix == ".nc":
        save_tree(tree, store or "")
    return tree


def _workers(client: Any, work: Work) -> AbstractContextManager[Callable[[Phase], None]]:
    """Return what runs a phase: this process, or the workers of a cluster."""
    if client is None:
        return nullcontext(partial(run_here, work))
    from retina_codec.contributions.cluster import open_workers

    return open_workers(client, work)


def _check_arguments(
    method: Any, reduction: Any, batch_size: Any, dtype: Any, client: Any, store: Any
) -> None:
    if not isinstance(method, Method):
        raise RetinaCodecError(
            f"method must be an instance of a method ({', '.join(methods.list())}, or of your own "
            f"Method); got {method!r}. Use IntegratedGradients(), for example."
        )
    if reduction is not None and not isinstance(reduction, Reduction):
        raise RetinaCodecError(
            f"reduction must be ChannelSums(), HeadSums(heads) or AllUnits(); got {reduction!r}."
        )
    if batch_size is not None and batch_size < 1:
        raise RetinaCodecError(f"batch_size must be at least 1; got {batch_size=}.")
    if dtype not in (None, torch.float32, torch.float64):
        raise RetinaCodecError(f"dtype must be torch.float32 or torch.float64; got {dtype}.")
    if client is not None and (store is None or Path(store).suffix.lower() != ".zarr"):
        raise RetinaCodecError(
            "a cluster writes to a store that its workers share: give store='run.zarr' with "
            f"client; got {store=}."
        )
    if client is not None:
        from retina_codec.contributions.cluster import check_client

        check_client(client)
