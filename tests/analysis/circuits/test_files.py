"""Files of circuits: what networkx reads is the circuit; bad input."""

import json
import sys

import numpy as np
import pytest

from retina_codec.analysis.circuits.decomposition import average_circuit, circuit
from retina_codec.analysis.circuits.files import circuit_to_graph, write_circuit
from retina_codec.errors import RetinaCodecError
from retina_codec.targets.base import Sum
from tests.analysis.circuits.test_decomposition import Skipping, inputs_of


@pytest.fixture(scope="module")
def found():
    return circuit(Skipping().double(), inputs_of(), target=Sum(), layers=["lower", "upper"])


def shares_of(graph, found):
    mean = average_circuit(found)
    table = mean["edges/upper"]["contribution"]
    for source in range(3):
        for target in range(2):
            own = graph.edges[f"lower/{source}", f"upper/{target}"]["contribution"]
            yield own, float(table[source, target])
    for node in range(3):
        own = graph.nodes[f"lower/{node}"]
        assert own["layer"] == "lower"
        yield own["contribution"], float(mean["nodes/lower"]["contribution"][node])


def test_json_is_a_graph_of_networkx(found, tmp_path):
    networkx = pytest.importorskip("networkx")
    text = write_circuit(found, tmp_path / "c.json").read_text()
    graph = networkx.node_link_graph(json.loads(text), edges="edges")
    assert graph.is_directed()
    assert graph.graph["units"] == "1"
    assert graph.graph["inputs"] == 5
    own, expected = zip(*shares_of(graph, found), strict=True)
    np.testing.assert_allclose(own, expected, rtol=1e-12)
    again = networkx.node_link_data(graph, edges="edges")
    assert {key: again[key] for key in ("directed", "multigraph")} == {
        "directed": True,
        "multigraph": False,
    }


def test_graphml_holds_the_same(found, tmp_path):
    networkx = pytest.importorskip("networkx")
    graph = networkx.read_graphml(write_circuit(found, tmp_path / "c.graphml"))
    own, expected = zip(*shares_of(graph, found), strict=True)
    np.testing.assert_allclose(own, expected, rtol=1e-12)


def test_json_needs_no_networkx_and_graphml_names_it(found, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "networkx", None)
    written = write_circuit(found, tmp_path / "c.json")
    before = written.read_bytes()
    assert len(json.loads(before)["edges"]) == 8
    with pytest.raises(RetinaCodecError, match="must not exist yet"):
        write_circuit(found, written)
    assert write_circuit(found, written, overwrite=True).read_bytes() == before
    with pytest.raises(RetinaCodecError, match=r"pip install networkx, or write \.json"):
        write_circuit(found, tmp_path / "c.graphml")
    with pytest.raises(RetinaCodecError, match=r"to \.json or \.graphml; got 'c\.gml'"):
        write_circuit(found, tmp_path / "c.gml")


def test_some_inputs_alone(found):
    one = circuit_to_graph(found, [True, False, False, False, False])
    assert one["graph"]["inputs"] == 1
    own = found["edges/upper"]["contribution"].values[0, 2, 1]
    edge = next(e for e in one["edges"] if (e["source"], e["target"]) == ("lower/2", "upper/1"))
    assert edge["contribution"] == pytest.approx(own)
