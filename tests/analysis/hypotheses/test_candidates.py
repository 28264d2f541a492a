"""Statements: which channels a mode names, and how they are joined and split."""

import numpy as np
import pytest
import xarray as xr

from retina_codec.analysis.hypotheses.candidates import (
    Candidate,
    gather_candidates,
    join_candidates,
    strong_channels,
    whole_interneuron,
)
from retina_codec.errors import RetinaCodecError
from retina_codec.probing.interventions import Silencing


def tree(dictionary, correlation=None, pathway=None, layer="conv1"):
    """Modes (mode, sign, channel), and pathways where correlations (cell, mode) are given."""
    labels = {"mode": np.arange(len(dictionary))}
    data = xr.Dataset({"dictionary": (("mode", "sign", "channel"), dictionary)}, coords=labels)
    nodes = {f"layers/{layer}/modes": data}
    if correlation is not None:
        found = {"correlation": (("cell", "mode"), correlation), "pathway": ("cell", pathway)}
        nodes[f"layers/{layer}/pathways"] = xr.Dataset(found, coords=labels)
    return xr.DataTree.from_dict(nodes)


MODES = np.zeros((4, 2, 5))
MODES[0, :, 2] = [3, 4]  # norm 5
MODES[0, 1, 0] = 2.5  # exactly half
MODES[1, 0, [0, 2]] = [-1, -1]  # the same channels, in the inhibitory half
MODES[2, 1] = [0, 1, 0, 0.49, 0]
# mode 3 is zero


def test_channels_are_named_by_their_norm_over_signs():
    assert strong_channels(MODES[0], 0.5)[0] == (0, 2)
    np.testing.assert_allclose(strong_channels(MODES[0], 0.5)[1], [1 / 3, 2 / 3])
    assert strong_channels(MODES[0], 0.51)[0] == (2,)
    assert strong_channels(3 * MODES[2], 0.49)[0] == (1, 3)
    assert strong_channels(MODES[3], 0.5)[0] == ()


def test_modes_that_name_the_same_channels_are_one_statement():
    found = gather_candidates(tree(MODES), None, share=0.5)
    assert [(s.silencing.channels, s.modes) for s in found] == [((0, 2), [0, 1]), ((1,), [2])]
    assert found[0].labels == ["conv1/0", "conv1/2"]
    assert not found[0].pathways


def test_pathways_name_the_channels_of_the_modes_that_drive_their_cells():
    correlation = np.array([[0.1, -0.9, 0.8, 0], [0.1, -0.9, 0.6, 0], [0.5, 0.5, -0.5, 0]])
    both = tree(MODES, correlation, [0, 0, 1])
    found = gather_candidates(both, both, share=0.5)
    assert [(s.silencing.channels, s.pathways) for s in found] == [((0, 2), [1]), ((1,), [0])]


def test_channels_of_different_interneurons_are_silenced_apart():
    kinds = {"conv1/0": "bipolar", "conv1/2": "amacrine", "conv1/1": "bipolar"}
    found = gather_candidates(tree(MODES), None, share=0.5, kinds=kinds)
    assert [s.silencing.channels for s in found] == [(0,), (2,), (1,)]
    assert [s.modes for s in found] == [[0, 1], [0, 1], [2]]
    np.testing.assert_allclose(found[0].weight, [1.0])


def with_loadings(nodes, loading):
    """The same tree with loadings (time, mode)."""
    data = nodes["layers/conv1/modes"].to_dataset()
    nodes["layers/conv1/modes"] = data.assign(loading=(("time", "mode"), loading))
    return nodes


def test_modes_apart_keep_their_own_loadings():
    loading = np.random.default_rng(0).random((6, 4))
    correlation = np.array([[0.5, -0.9, 0.8, 0], [0.1, -0.9, 0.6, 0]])
    both = with_loadings(tree(MODES, correlation, [0, 0]), loading)
    kinds = {"conv1/0": "bipolar", "conv1/2": "amacrine", "conv1/1": "bipolar"}
    found = gather_candidates(both, both, share=0.5, kinds=kinds, apart=True)
    by_source = {}
    for statement in found:
        by_source.setdefault(statement.source, []).append(statement)
    assert list(by_source) == [f"conv1 mode {m}" for m in range(3)] + ["conv1 pathway 0"]
    assert [s.silencing.channels for s in by_source["conv1 mode 1"]] == [(0,), (2,)]
    for m in range(3):
        for statement in by_source[f"conv1 mode {m}"]:
            np.testing.assert_allclose(statement.loading, loading[:, m])
    # the loading of a pathway is that of its weights: Σ w ‖D‖ z, written out
    expected = 0.3 * np.sqrt(3**2 + 4**2 + 2.5**2) * loading[:, 0]
    expected = expected + 0.7 * np.sqrt(1 + 0.49**2) * loading[:, 2]
    np.testing.assert_allclose(by_source["conv1 pathway 0"][0].loading, expected)


def test_modes_of_constant_parts_have_no_events():
    """Mode 1 is always there: it is nobody's event, and no part of a pathway."""
    correlation = np.array([[0.1, 0.8, 0], [0.1, 0.6, 0], [0.5, -0.5, 0]])
    nodes = tree(MODES, np.insert(correlation, 1, 0, axis=1), [0, 0, 1])
    loading = np.abs(np.random.default_rng(0).normal(size=(30, 4)))
    both = with_loadings(nodes, loading)
    here = both["layers/conv1"]
    here["modes"] = xr.DataTree(
        here["modes"].to_dataset().assign_coords(origin=("mode", ["fit", "constant", "fit", "fit"]))
    )
    plain = gather_candidates(both, both, share=0.5, apart=True)
    here["pathways"] = xr.DataTree(here["pathways"].to_dataset().isel(mode=[0, 2, 3]))
    found = gather_candidates(both, both, share=0.5, apart=True)
    assert [one.modes for one in found if one.modes] == [[0], [2]]
    assert [one.silencing for one in found] == [one.silencing for one in plain]
    for one, other in zip(found, plain, strict=True):
        np.testing.assert_allclose(one.loading, other.loading)
    always = gather_candidates(both, both, share=0.5)
    assert 1 in always[0].modes


def test_statements_apart_need_loadings():
    with pytest.raises(RetinaCodecError, match="when='always'"):
        gather_candidates(tree(MODES), None, share=0.5, apart=True)


def test_statements_of_one_experiment_are_joined_and_all_are_named():
    def made(layer, channels, modes, pathways):
        return Candidate(Silencing(layer, channels), np.ones(1), modes, pathways)

    group = [
        made("conv2", (1,), [4], []),
        made("conv1", (0,), [7], []),
        made("conv2", (1, 3), [2], []),
        made("conv2", (1,), [], [0]),
    ]
    one = join_candidates(group)
    assert one.silencing == group[0].silencing
    assert (one.modes, one.pathways) == ([2, 4], [0])
    assert one.support == "conv1 modes 7; conv2 modes 2, 4; conv2 pathways 0"
    assert (group[0].modes, group[0].support) == ([4], "")  # left as it was


def test_an_interneuron_is_cut_whole_where_it_is_represented_best():
    kinds = {"conv1/0": "a", "conv1/1": "b", "conv1/2": "a", "conv2/0": "a", "conv2/1": ""}
    r = np.array([[0.7, 0.1], [0.2, 0.9], [0.9, 0.0], [0.8, 0.0], [0.1, 0.1]])
    matches = xr.Dataset(
        {"type_correlation": (("channel", "interneuron_type"), r)},
        coords={
            "channel": list(kinds),
            "layer": ("channel", [name[:5] for name in kinds]),
            "number": ("channel", [int(name[6:]) for name in kinds]),
            "interneuron_type": ["a", "b"],
        },
    )

    def whole(layer, channel):
        statement = Candidate(Silencing(layer, (channel,)), np.ones(1))
        return whole_interneuron(statement, matches, kinds)

    assert whole("conv2", 0) == Silencing("conv1", (0, 2))
    assert whole("conv1", 1) == Silencing("conv1", (1,))
    assert whole("conv2", 1) == Silencing("conv2", (1,))  # it resembles none


@pytest.mark.parametrize(
    ("modes", "share", "words"),
    [
        (tree(MODES), 0.0, "share"),
        (tree(MODES, layer="conv3"), 0.5, "decompose"),
        (xr.DataTree(), 0.5, "decompose"),
        (tree(0 * MODES), 0.5, "every mode is zero"),
    ],
)
def test_modes_that_say_nothing_are_refused(modes, share, words):
    with pytest.raises(RetinaCodecError, match=words):
        gather_candidates(modes, None, share=share)
