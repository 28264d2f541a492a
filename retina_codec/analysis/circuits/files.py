"""Write a circuit as a graph: node-link JSON, or GraphML through networkx."""

import json
import math
import os
from pathlib import Path
from typing import Any

import xarray as xr

from retina_codec.analysis.circuits.decomposition import average_circuit
from retina_codec.errors import RetinaCodecError
from retina_codec.storage.trees import new_output

__all__ = ["circuit_to_graph", "write_circuit"]


def circuit_to_graph(found: xr.DataTree, active: Any = None) -> dict[str, Any]:
    """Return the mean circuit in the node-link form of networkx, of JSON types only.

    Parameters
    ----------
    found : xr.DataTree
        From `circuit` or `average_circuit`.
    active : array of bool (time,), optional
        Which times count, see `average_circuit`.

    Returns
    -------
    dict
        ``nodes`` with ``id`` ("conv1/0"), ``layer``, ``node`` and ``contribution``; ``edges`` with
        ``source``, ``target`` and ``contribution``, in the unit of the target (``graph["units"]``).
        ``networkx.node_link_graph(found, edges="edges")`` reads it. A share that is not
        finite is None.

    Raises
    ------
    RetinaCodecError
        As `average_circuit`.
    """
    mean = average_circuit(found, active) if found["target_change"].ndim else found
    nodes, edges = [], []
    for layer, node in mean["nodes"].children.items():
        table = node.to_dataset()
        for name in table["node"].values.tolist():
            own = _number(table["contribution"].sel(node=name))
            nodes.append(
                {"id": f"{layer}/{name}", "layer": layer, "node": str(name), "contribution": own}
            )
    for layer, edge in mean["edges"].children.items():
        table = edge.to_dataset()
        below, shares = table.attrs["from"], table["contribution"]
        for source in table["source"].values.tolist():
            for target in table["target"].values.tolist():
                edges.append(
                    {
                        "source": f"{below}/{source}",
                        "target": f"{layer}/{target}",
                        "contribution": _number(shares.sel(source=source, target=target)),
                    }
                )
    graph = {
        "target": str(mean.attrs["target"]),
        "units": str(mean["target_change"].attrs["units"]),
        "inputs": int(mean.attrs["inputs"]),
        "target_change": _number(mean.to_dataset()["target_change"]),
    }
    return {"directed": True, "multigraph": False, "graph": graph, "nodes": nodes, "edges": edges}


def _number(value: xr.DataArray) -> float | None:
    one = float(value)
    return one if math.isfinite(one) else None


def write_circuit(
    found: xr.DataTree,
    path: str | os.PathLike[str],
    active: Any = None,
    *,
    overwrite: bool = False,
) -> Path:
    """Write the mean circuit to a file that programs for graphs read.

    Parameters
    ----------
    found : xr.DataTree
        From `circuit` or `average_circuit`.
    path : path
        ``.json``: node-link, see `circuit_to_graph`; ``.graphml``: through networkx, numbers that
        are not finite left out.
    active : array of bool (time,), optional
        Which times count, see `average_circuit`.
    overwrite : bool
        Replace the file if it exists.

    Returns
    -------
    Path

    Raises
    ------
    RetinaCodecError
        If the suffix is another one, the file exists, or networkx is not installed.
    """
    place = Path(path)
    if place.suffix not in (".json", ".graphml"):
        raise RetinaCodecError(
            f"a circuit is written to .json or .graphml; got {place.name!r}. Choose one of these."
        )
    graph = circuit_to_graph(found, active)
    if place.suffix == ".json":
        text = json.dumps(graph, indent=1, allow_nan=False)
    else:
        text = _graphml(graph)
    with new_output(place, overwrite=overwrite) as partial:
        partial.write_text(text + "\n", encoding="utf-8")
    return place


def _graphml(graph: dict[str, Any]) -> str:
    try:
        import networkx
    except ImportError as error:
        raise RetinaCodecError(
            "GraphML is written by the package networkx, which is not installed. Run pip install "
            "networkx, or write .json."
        ) from error
    made = networkx.DiGraph(**_known(graph["graph"]))
    for node in graph["nodes"]:
        made.add_node(node["id"], **_known({k: v for k, v in node.items() if k != "id"}))
    for edge in graph["edges"]:
        ends = edge["source"], edge["target"]
        made.add_edge(*ends, **_known({"contribution": edge["contribution"]}))
    return "\n".join(networkx.generate_graphml(made))


def _known(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}
