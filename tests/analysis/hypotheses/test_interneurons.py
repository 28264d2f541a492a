"""Matching: planted interneurons are found where they are, unrelated ones are not."""

import numpy as np
import pytest
import xarray as xr

from retina_codec.analysis.hypotheses.candidates import Candidate
from retina_codec.analysis.hypotheses.interneurons import (
    match_interneurons,
    match_of_rows,
    name_channels,
    name_interneuron,
)
from retina_codec.errors import RetinaCodecError
from retina_codec.probing.interventions import Silencing
from tests.reference.hypotheses import unit_activations
from tests.small import HISTORY, small_network, small_recording

REACH = 0.25


@pytest.fixture(scope="module")
def network():
    return small_network()


@pytest.fixture(scope="module")
def split(network):
    return small_recording(network, bins=400)["test"].to_dataset()


@pytest.fixture(scope="module")
def units(network, split):
    return unit_activations(network, split["stimulus"])


def potentials(split, columns, types):
    """Interneurons on the clock of the split; the first bins hold junk that no window reaches."""
    values = np.stack(columns, axis=1)
    values = np.concatenate([np.full((HISTORY, values.shape[1]), 99.0), values])
    return xr.Dataset(
        {"potential": (("time", "interneuron"), values)},
        coords={
            "time": split["time"],
            "interneuron": [f"n{i}" for i in range(len(columns))],
            "type": ("interneuron", types),
        },
    )


@pytest.fixture(scope="module")
def recorded(split, units):
    random = np.random.default_rng(0)
    one, two = units["conv1"][:, 2, 3, 9], units["conv2"][:, 1, 5, 4]
    return potentials(
        split,
        [
            one + 0.3 * one.std() * random.normal(size=one.size),
            -one,
            5 * two - 3,
            random.normal(size=one.size).cumsum(),
        ],
        ["bipolar", "inverse", "amacrine", "unknown"],
    )


@pytest.fixture(scope="module")
def matches(network, split, recorded):
    return match_interneurons(network, split, recorded, shifts=19, batch_size=33)


def test_correlations_equal_numpy_at_the_best_place(units, recorded, matches):
    count = len(units["conv1"])
    reach = int(REACH * count)
    kept = slice(reach, count - reach)
    potential = recorded["potential"].values[HISTORY:]
    for layer, margin in (("conv1", 1), ("conv2", 2)):
        maps = units[layer]
        for channel in range(4):
            row = matches.sel(channel=f"{layer}/{channel}")
            for k in range(4):
                r = np.array(
                    [
                        [
                            np.corrcoef(maps[kept, channel, y, x], potential[kept, k])[0, 1]
                            for x in range(maps.shape[3])
                        ]
                        for y in range(maps.shape[2])
                    ]
                )
                assert float(row["correlation"][k]) == pytest.approx(r.max(), abs=1e-4)
                y, x = np.unravel_index(r.argmax(), r.shape)
                assert (row["place_y"][k], row["place_x"][k]) == (y + margin, x + margin)


def test_planted_interneurons_are_found_where_they_are(matches):
    first = matches.sel(channel="conv1/2").isel(interneuron=0)
    assert first["correlation"] == pytest.approx(1 / np.sqrt(1.09), abs=0.02)
    assert (first["place_y"], first["place_x"]) == (4, 10)
    assert first["p_value"] == pytest.approx(1 / 20)
    second = matches.sel(channel="conv2/1", interneuron="n2")
    assert second["correlation"] == pytest.approx(1.0, abs=1e-4)
    names = name_channels(matches, significance=0.05)
    assert names["conv1/2"] == "bipolar"
    assert names["conv2/1"] == "amacrine"


def test_the_opposite_polarity_does_not_match(matches):
    inverse = matches["correlation"].sel(channel="conv1/2", interneuron="n1")
    assert inverse < 0.5


def test_p_values_count_the_shifts_that_reach_the_match(units, recorded, matches):
    count = len(units["conv1"])
    reach = int(REACH * count)
    kept = np.arange(reach, count - reach)
    potential = recorded["potential"].values[HISTORY:, 3]
    maps = units["conv2"][kept, 0].reshape(len(kept), -1)
    best = []
    for shift in np.round(np.linspace(-reach, reach, 39)).astype(int):
        moved = potential[kept + shift]
        best.append(max(np.corrcoef(column, moved)[0, 1] for column in maps.T))
    row = matches.sel(channel="conv2/0", interneuron="n3")
    expected = min(1.0, (np.array(best) >= best[19]).sum() / 20)
    assert row["p_value"] == pytest.approx(expected)
    assert row["null_mean"] == pytest.approx(np.delete(best, 19).mean(), abs=1e-4)


def test_unrelated_random_walks_match_no_more_often_than_the_null_allows(network, split, units):
    random = np.random.default_rng(5)
    count = len(units["conv1"])
    walks = [random.normal(size=count).cumsum() for _ in range(60)]
    interneurons = potentials(split, walks, ["unknown"] * 60)
    p = match_interneurons(network, split, interneurons, shifts=19)["p_value"]
    assert (p <= 0.1).mean() <= 0.1 + 0.06  # 60 walks, channels are not independent


def test_types_are_means_over_their_interneurons(network, split, units):
    one, two = units["conv1"][:, 0, 2, 2], units["conv1"][:, 3, 8, 8]
    recorded = potentials(split, [one, two], ["both", "both"])
    found = match_interneurons(network, split, recorded, shifts=5)
    np.testing.assert_allclose(
        found["type_correlation"].sel(interneuron_type="both"),
        found["correlation"].mean("interneuron"),
    )


def test_a_channel_that_never_changes_has_no_match(split, recorded):
    import torch

    network = small_network()
    with torch.no_grad():
        network.conv1.weight[1] = 0
    found = match_interneurons(network, split, recorded, shifts=5)
    assert found["correlation"].sel(channel="conv1/1").isnull().all()
    assert found["p_value"].sel(channel="conv1/1").isnull().all()
    assert found["correlation"].drop_sel(channel="conv1/1").notnull().all()
    assert name_channels(found)["conv1/1"] == ""


def test_a_weak_or_negative_match_gives_no_name(matches):
    assert set(name_channels(matches, significance=0.04).values()) == {""}
    negative = matches.assign(type_correlation=-abs(matches["type_correlation"]))
    assert set(name_channels(negative, significance=1.0).values()) == {""}


def changed(recorded, split):
    values = recorded["potential"].copy()
    values[20, 1] = np.nan
    flat = recorded["potential"].copy()
    flat[:, 2] = 1.0
    return {
        "finite": recorded.assign(potential=values),
        "must vary": recorded.assign(potential=flat),
        "cover the times": recorded.isel(time=slice(0, 300)),
        "must hold potential": split[["stimulus"]],
    }


@pytest.mark.parametrize("words", ["finite", "must vary", "cover the times", "must hold potential"])
def test_bad_potentials_are_refused(network, split, recorded, words):
    with pytest.raises(RetinaCodecError, match=words):
        match_interneurons(network, split, changed(recorded, split)[words], shifts=5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"shifts": 0}, "at least 1"),
        ({"largest_shift": 0.5}, "between 0 and 0.5"),
        ({"shifts": 200}, "different shifts"),
        ({"shifts": 2, "largest_shift": 0.49}, "bins between"),
    ],
)
def test_bad_options_are_refused(network, split, recorded, options, words):
    with pytest.raises(RetinaCodecError, match=words):
        match_interneurons(network, split, recorded, **options)


@pytest.fixture
def named_matches():
    """Three channels, two types, three interneurons."""
    labels = ["conv1/0", "conv1/1", "conv2/0"]
    r = np.array([[0.8, 0.1], [0.2, 0.6], [0.3, 0.9]])
    each = np.array([[0.7, 0.9, 0.1], [0.2, 0.2, 0.6], [0.4, 0.2, 0.9]])
    return xr.Dataset(
        {
            "type_correlation": (("channel", "interneuron_type"), r),
            "type_p_value": (("channel", "interneuron_type"), [[0.02, 1], [1, 0.3], [1, 0.04]]),
            "correlation": (("channel", "interneuron"), each),
            "place_y": (("channel", "interneuron"), 10 * each),
            "place_x": (("channel", "interneuron"), 100 * each),
        },
        coords={
            "channel": labels,
            "interneuron": ["a 0", "a 1", "b 0"],
            "type": ("interneuron", ["a", "a", "b"]),
            "interneuron_type": ["a", "b"],
        },
    )


def test_the_type_with_the_largest_weighted_match_is_named(named_matches):
    row = name_interneuron(
        Candidate(Silencing("conv1", (0, 1)), np.array([0.75, 0.25])), named_matches, 0.05
    )
    assert (row["interneuron"], row["second_interneuron"]) == ("a", "b")
    assert row["match"] == pytest.approx(0.75 * 0.8 + 0.25 * 0.2)
    assert row["second_match"] == pytest.approx(0.75 * 0.1 + 0.25 * 0.6)
    assert row["match_p_value"] == 0.02
    assert (row["place_y"], row["place_x"]) == (9.0, 90.0)  # of the better of both a


def test_a_match_that_chance_reaches_names_nothing(named_matches):
    row = name_interneuron(Candidate(Silencing("conv1", (1,)), np.ones(1)), named_matches, 0.05)
    assert (row["interneuron"], row["match_p_value"]) == ("", 0.3)
    assert row["match"] == pytest.approx(0.6)
    assert (
        name_interneuron(Candidate(Silencing("conv1", (1,)), np.ones(1)), None, 0.05)["interneuron"]
        == ""
    )


def test_rows_carry_the_match_of_what_is_cut(named_matches):
    cuts = [Silencing("conv1", (0, 1)), Silencing("conv2", (0,)), Silencing("conv1", (1,))]
    named = [
        {"interneuron": "b", "match": 0.4},
        {"interneuron": "b", "match": 0.5},
        {"interneuron": "", "match": 0.6},
    ]
    assert match_of_rows(cuts, named, named_matches, whole=True).tolist() == [0.6, 0.9, 0.0]
    assert match_of_rows(cuts, named, named_matches, whole=False).tolist() == [0.4, 0.5, 0.0]
    nothing = [row | {"interneuron": ""} for row in named]
    assert match_of_rows(cuts, nothing, None, whole=True).tolist() == [1.0, 1.0, 1.0]
