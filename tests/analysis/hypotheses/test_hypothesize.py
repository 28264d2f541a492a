"""Hypotheses: predicted changes against the slow form, their interval, order, names and reach."""

from dataclasses import fields

import numpy as np
import pytest
import xarray as xr

from retina_codec.analysis.hypotheses.effects import in_events
from retina_codec.analysis.hypotheses.hypothesize import HypothesisSettings, hypothesize
from retina_codec.analysis.hypotheses.table import hypotheses_to_table
from retina_codec.errors import RetinaCodecError
from retina_codec.statistics.power import count_variability, repeats_needed
from tests.reference.hypotheses import silenced_rates, unit_activations
from tests.small import HISTORY, small_network, small_recording

BLOCKS = 4  # whole seconds of the 4.4 s that have a history
OPTIONS = {"bootstraps": 300, "shifts": 19, "progress": False}
SHARE = 0.2


def predicted(network, recording, modes, pathways=None, **options):
    """Call `hypothesize`; options that are settings go there."""
    names = {field.name for field in fields(HypothesisSettings)}
    chosen = HypothesisSettings(**{k: v for k, v in options.items() if k in names})
    others = {k: v for k, v in options.items() if k not in names}
    return hypothesize(network, recording, modes, pathways, settings=chosen, **others)


@pytest.fixture(scope="module")
def network():
    return small_network()


@pytest.fixture(scope="module")
def recording(network):
    return small_recording(network, bins=450)


@pytest.fixture(scope="module")
def modes(recording):
    """Two modes of conv1, one of two channels; one mode of conv2; two pathways."""
    time = recording["test/time"].values[HISTORY:]
    random = np.random.default_rng(2)
    first = np.zeros((2, 2, 4))
    first[0, 1, [0, 2]] = 1
    first[1, 0, 3] = -1
    second = np.zeros((1, 2, 4))
    second[0, 1, 1] = 1
    nodes = {}
    for name, values in (("conv1", first), ("conv2", second)):
        labels = {"mode": np.arange(len(values)), "time": time}
        loading = np.maximum(random.normal(size=(len(time), len(values))), 0)
        nodes[f"layers/{name}/modes"] = xr.Dataset(
            {
                "dictionary": (("mode", "sign", "channel"), values),
                "loading": (("time", "mode"), loading),
            },
            coords=labels,
        )
    r = np.array([[1.0, 0.0]] * 3 + [[0.0, 1.0]] * 3)
    nodes["layers/conv1/pathways"] = xr.Dataset(
        {"correlation": (("cell", "mode"), r), "pathway": ("cell", [0, 0, 0, 1, 1, 1])},
        coords={"mode": [0, 1]},
    )
    return xr.DataTree.from_dict(nodes)


@pytest.fixture(scope="module")
def claims(network, recording, modes):
    """Rows about all times."""
    return predicted(network, recording, modes, modes, when="always", **OPTIONS)


@pytest.fixture(scope="module")
def timed(network, recording, modes):
    """Rows about the events of modes."""
    return predicted(network, recording, modes, modes, event_share=SHARE, **OPTIONS)


def by_name(claims, layer, channels):
    chosen = (claims["layer"] == layer) & (claims["channels"] == channels)
    return claims.isel(hypothesis=int(np.flatnonzero(chosen)[0]))


ROWS = [("conv1", (0, 2)), ("conv1", (3,)), ("conv2", (1,))]


def test_rows_say_what_modes_and_pathways_name(claims):
    assert claims.sizes["hypothesis"] == 3
    row = by_name(claims, "conv1", "0, 2")
    assert (row["modes"], row["pathways"]) == ("0", "0")
    assert by_name(claims, "conv1", "3")["pathways"] == "1"
    assert by_name(claims, "conv2", "1")["pathways"] == ""


@pytest.fixture(scope="module")
def slow(network, recording):
    """Rates of whole blocks from the slow form, by channels; () is the whole network."""
    movie = recording["test/stimulus"]
    return {
        channels: silenced_rates(network, movie, layer, channels, 1.0, "grey")[: BLOCKS * 100]
        for layer, channels in [("conv1", ()), *ROWS]
    }


@pytest.mark.parametrize(("layer", "channels"), ROWS)
def test_changes_equal_the_slow_form(slow, claims, layer, channels):
    cut, whole = slow[channels], slow[()]
    row = by_name(claims, layer, ", ".join(map(str, channels)))
    expected = (cut - whole).mean(axis=0)
    np.testing.assert_allclose(row["change"], expected, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(claims["rate"], whole.mean(axis=0), rtol=1e-4)
    outside = (row["change_low"] > 0) | (row["change_high"] < 0)
    large = np.abs(expected) > 0.1 * whole.mean(axis=0)
    np.testing.assert_array_equal(row["affected"], large & outside)


@pytest.mark.parametrize(("layer", "channels"), ROWS)
def test_segment_and_repeats_follow_from_the_counts(recording, slow, claims, layer, channels):
    blocks = [slow[key].reshape(BLOCKS, 100, -1).mean(axis=1) for key in ((), channels)]
    factor = count_variability(recording["test/repeats/rate"], 1.0, 100.0).values
    squared = (blocks[1] - blocks[0]) ** 2 / (factor * (blocks[0] + blocks[1]))  # 1 s
    row = by_name(claims, layer, ", ".join(map(str, channels)))
    cells = row["affected"].values if row["affected"].any() else np.ones(6, dtype=bool)
    total = squared[:, cells].sum(axis=1)
    start = recording["test/time"].values[HISTORY] + total.argmax()
    assert row["segment_start"] == pytest.approx(start)
    # an unlucky rounding may move a ceiling by one
    assert abs(row["segment_repeats"] - repeats_needed(total.max())) <= 1
    low, high = blocks[0].mean(axis=0), blocks[1].mean(axis=0)
    d2 = (high - low) ** 2 * BLOCKS / (factor * (low + high))
    np.testing.assert_allclose(row["cell_repeats"], repeats_needed(d2), rtol=0.02, atol=1)


def test_rows_are_in_order_of_their_information_written_out(recording, claims):
    information = claims["information"].values
    assert (np.diff(information) <= 0).all()
    factor = count_variability(recording["test/repeats/rate"], 1.0, 100.0).values
    for i in range(3):
        row = claims.isel(hypothesis=i)
        # the standard error from the interval of a nearly normal bootstrap: a rough second value
        error = (row["change_high"] - row["change_low"]) / (2 * 1.96)
        noise = factor * (2 * claims["rate"] + row["change"]) / BLOCKS
        gain = 0.5 * np.log(1 + row["change"] ** 2 / (error**2 + noise))
        assert information[i] == pytest.approx(float(gain.sum()), rel=0.1)


def test_the_best_simple_stimulus_is_the_most_detectable(claims):
    best = claims["stimulus_detectability"].idxmax("stimulus").values
    np.testing.assert_array_equal(claims["best_stimulus"], best)
    needed = repeats_needed(claims["stimulus_detectability"].max("stimulus"))
    np.testing.assert_array_equal(claims["stimulus_repeats"], needed)
    assert claims["stimulus_detectability"].max() > 0


@pytest.mark.parametrize("unknown", [{}, {"pixel_size": np.nan}])
def test_without_a_size_of_pixels_only_simple_stimuli_are_left_out(
    network, recording, modes, claims, unknown
):
    blind = recording.copy()
    blind.attrs = {k: v for k, v in recording.attrs.items() if k != "pixel_size"} | unknown
    found = predicted(network, blind, modes, modes, when="always", **OPTIONS)
    assert found.sizes["stimulus"] == 0
    assert found["best_stimulus"].values.tolist() == [""] * 3
    assert found["stimulus_repeats"].isnull().all()
    kept = [name for name in claims.data_vars if "stimulus" not in name]
    xr.testing.assert_identical(found[kept], claims[kept])
    rows = hypotheses_to_table(found)
    assert [row["best_stimulus"] for row in rows] == [""] * 3


@pytest.mark.parametrize("number", [0, 1])
def test_changes_in_events_equal_the_slow_form(modes, slow, timed, number):
    loading = modes["layers/conv1/modes/loading"].values[:, number]
    kept = np.argsort(-loading, kind="stable")[: round(SHARE * len(loading))]
    mask = np.zeros(len(loading), dtype=bool)
    mask[kept] = True
    mask = mask[: BLOCKS * 100] & (loading[: BLOCKS * 100] > 0)
    source = f"conv1 mode {number}"
    row = timed.isel(hypothesis=int(np.flatnonzero(timed["event_source"] == source)[0]))
    time = modes["layers/conv1/modes/time"].values[: BLOCKS * 100]
    found = in_events(row["event_start"], row["event_stop"], time)
    np.testing.assert_array_equal(found, mask)
    assert row["event_time"] == pytest.approx(mask.sum() / 100)
    cut, whole = slow[ROWS[number][1]], slow[()]
    inside, outside = ((cut - whole)[part].mean(axis=0) for part in (mask, ~mask))
    np.testing.assert_allclose(row["change"], inside, rtol=2e-3, atol=2e-3)
    np.testing.assert_allclose(row["change_elsewhere"], outside, rtol=2e-3, atol=2e-3)
    np.testing.assert_allclose(row["contrast"], inside - outside, rtol=2e-3, atol=3e-3)
    np.testing.assert_allclose(row["event_rate"], whole[mask].mean(axis=0), rtol=1e-3)
    assert f"in the events of {source}" in row["statement"].item()
    assert (row["timed"] & ~row["affected"]).sum() == 0


def test_a_mode_that_acts_where_its_channels_matter_makes_a_claim(network, recording, modes, slow):
    # loadings are the change itself: by construction it is larger in the events
    tree = modes.copy()
    change = np.abs(slow[(3,)] - slow[()]).sum(axis=1)
    node = modes["layers/conv1/modes"].to_dataset()
    values = node["loading"].values.copy()
    values[: BLOCKS * 100, 1] = change
    values[BLOCKS * 100 :, 1] = 0
    tree["layers/conv1/modes"] = node.assign(loading=(("time", "mode"), values))
    found = predicted(network, recording, tree, **OPTIONS)
    row = found.isel(hypothesis=int(np.flatnonzero(found["event_source"] == "conv1 mode 1")[0]))
    assert row["timed"].any()
    assert row["information"] > 0
    assert row["event_detectability"] > 3 * row["elsewhere_detectability"]
    other = predicted(network, recording, modes, **OPTIONS)
    same = other.isel(hypothesis=int(np.flatnonzero(other["event_source"] == "conv1 mode 1")[0]))
    assert row["information"] > same["information"]


def test_the_share_of_events_counts(network, recording, modes, timed):
    fewer = predicted(network, recording, modes, modes, event_share=0.1, **OPTIONS)
    assert fewer["event_time"].max() < 0.7 * timed["event_time"].max()
    assert (fewer.attrs["event_share"], timed.attrs["event_share"]) == (0.1, SHARE)
    assert "event_share" not in predicted(network, recording, modes, when="always", **OPTIONS).attrs


def test_modes_of_other_times_or_without_loadings_are_refused(network, recording, modes):
    other = modes.copy()
    node = modes["layers/conv1/modes"].to_dataset()
    other["layers/conv1/modes"] = node.assign_coords(time=node["time"].values + 7)
    with pytest.raises(RetinaCodecError, match="bins of the split"):
        predicted(network, recording, other, **OPTIONS)
    other["layers/conv1/modes"] = node.drop_vars("loading")
    with pytest.raises(RetinaCodecError, match="need loadings"):
        predicted(network, recording, other, **OPTIONS)
    other["layers/conv1/modes"] = node.assign(loading=0 * node["loading"])
    left = predicted(network, recording, other, **OPTIONS)
    assert set(left["layer"].values) == {"conv2"}


@pytest.fixture(scope="module")
def interneurons(recording, network):
    """Copies of units: of channels 0 and 2 of conv1 one kind, of channel 3 another."""
    units = unit_activations(network, recording["test/stimulus"])["conv1"]
    values = np.stack([units[:, 0, 4, 4] + units[:, 2, 4, 4], units[:, 3, 7, 5]], axis=1)
    values = np.concatenate([np.zeros((HISTORY, 2)), values])
    return xr.Dataset(
        {"potential": (("time", "interneuron"), values)},
        coords={
            "time": recording["test/time"].values,
            "interneuron": ["n0", "n1"],
            "type": ("interneuron", ["ON bipolar", "amacrine"]),
        },
    )


def test_named_interneurons_weigh_the_information(network, recording, modes, interneurons, claims):
    options = OPTIONS | {"scope": "mode", "when": "always", "interneurons": interneurons}
    found = predicted(network, recording, modes, modes, **options)
    row = by_name(found, "conv1", "3")
    assert row["interneuron"] == "amacrine"
    assert row["match"] == pytest.approx(1.0, abs=1e-3)
    assert (row["place_y"], row["place_x"]) == (8, 6)
    assert "amacrine" in row["statement"].item()
    plain = by_name(claims, "conv1", "3")
    np.testing.assert_allclose(row["change"], plain["change"])
    assert row["information"] == pytest.approx(float(plain["information"] * row["match"] ** 2))
    inside = recording.copy()
    inside["interneurons"] = xr.DataTree(interneurons)
    del options["interneurons"]
    again = predicted(network, inside, modes, modes, **options)
    xr.testing.assert_identical(again, found)


def test_scope_interneuron_cuts_every_channel_that_resembles_it(
    network, recording, modes, interneurons
):
    found = predicted(network, recording, modes, interneurons=interneurons, **OPTIONS)
    for name, row in found.groupby("interneuron"):
        if name:
            assert len(np.unique(row["silenced"])) == 1, name
    always = predicted(
        network, recording, modes, interneurons=interneurons, when="always", **OPTIONS
    )
    named = [name for name in always["interneuron"].values if name]
    assert len(named) == len(set(named)) == 2  # one row per experiment
    assert any("," in text for text in found["silenced"].values)


def test_results_are_repeatable_and_the_seed_counts(network, recording, modes, claims):
    options = OPTIONS | {"when": "always"}
    again = predicted(network, recording, modes, modes, **options)
    xr.testing.assert_identical(again, claims)
    other = predicted(network, recording, modes, modes, seed=1, **options)
    assert other.attrs["seed"] == 1
    assert not np.array_equal(other["change_low"], claims["change_low"])
    np.testing.assert_array_equal(other["change"].values, claims["change"].values)


def test_the_table_survives_a_file(timed, tmp_path):
    timed.to_netcdf(tmp_path / "claims.nc")
    with xr.open_dataset(tmp_path / "claims.nc") as back:
        xr.testing.assert_allclose(back.load(), timed)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"split": "night"}, "has \\['test'\\]"),
        ({"threshold": -1.0}, "threshold"),
        ({"significance": 1.0}, "significance"),
        ({"bootstraps": 1}, "bootstraps"),
        ({"scope": "all"}, "'interneuron' or 'mode'"),
        ({"when": "now"}, "'active' or 'always'"),
        ({"event_share": 1.0}, "event_share"),
    ],
)
def test_bad_options_are_refused(network, recording, modes, options, words):
    with pytest.raises(RetinaCodecError, match=words):
        predicted(network, recording, modes, **options)


@pytest.mark.parametrize("when", ["active", "always"])
def test_a_recording_of_few_blocks_is_told_of_in_words(network, recording, modes, tmp_path, when):
    """Two blocks of 2 s and a rest: no interval, no claim, and files that can be written."""
    claims = predicted(
        network, recording, modes, modes, when=when, event_share=SHARE, block=2.0, **OPTIONS
    )
    assert np.isnan(claims["change_low"]).all()
    assert not claims["affected"].any()
    for ending in ("csv", "json"):
        rows = hypotheses_to_table(claims, tmp_path / f"claims.{ending}")
    for row in rows:
        assert "not enough blocks of time" in row["statement"]
        assert "not enough blocks of time" in row["undefined"]
    text = (tmp_path / "claims.csv").read_text(encoding="utf-8")
    assert "Hz (no interval: not enough blocks of time)" in text
