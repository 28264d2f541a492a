import dask.array
import numpy as np
import pytest
import xarray as xr

from retina_codec.errors import RetinaCodecError
from retina_codec.recordings.schema import make_recording, validate_recording
from tests.recordings.small_recording import CELLS, RATE, TYPES, make_parts


def test_rates_and_types_follow_from_counts(recording, parts):
    train = recording["train"].to_dataset()
    counts = parts["train"]["spike_count"].values
    assert train["cell_type"].values.tolist() == ["OFF", "ON"]
    for t in range(37):
        for c in range(3):
            assert train["rate"].values[t, c] == counts[t, c] * RATE
        off, on = counts[t, 1] * RATE, (counts[t, 0] + counts[t, 2]) / 2 * RATE
        np.testing.assert_allclose(train["type_rate"].values[t], [off, on], rtol=1e-6)
    assert train["type_membership"].values.tolist() == [[0, 1], [1, 0], [0, 1]]
    assert {train[n].attrs["units"] for n in ("rate", "type_rate")} == {"Hz"}
    assert train["spike_count"].attrs["units"] == "count"
    assert train["time"].attrs["units"] == "s"


def test_the_test_split_sums_counts_and_averages_rates_over_what_was_presented(parts):
    rates = parts["repeats"]["rate"].values.copy()
    parts["repeats"]["rate"].values[1, :, 2] = np.nan  # this cell missed the second repeat
    parts["repeats"]["rate"].values[2, 20:, :] = np.nan  # the third was cut short
    parts["repeats"]["rate"].values[:, 5, 0] = np.nan  # and nobody saw this bin
    test = make_recording(**parts)["test"].to_dataset()
    for t in range(23):
        for c in range(3):
            seen = [
                rates[r, t, c]
                for r in range(3)
                if not (r == 1 and c == 2) and not (r == 2 and t >= 20) and not (t == 5 and c == 0)
            ]
            if not seen:
                assert np.isnan(test["rate"].values[t, c])
                assert np.isnan(test["spike_count"].values[t, c])
                assert np.isnan(test["type_rate"].sel(cell_type="ON").values[t])
                continue
            np.testing.assert_allclose(test["rate"].values[t, c], np.mean(seen), rtol=1e-6)
            assert test["spike_count"].values[t, c] == round(sum(seen) / RATE)


def test_presentations_follow_one_another_unless_told_otherwise(parts):
    start, length = 37 / RATE, 23 / RATE
    found = make_recording(**parts)["test/repeats/start_time"].values
    np.testing.assert_allclose(found, start + length * np.arange(3))
    told = [0.74, 5.0, 9.0]
    parts["repeats"] = parts["repeats"].assign_coords(start_time=("repeat", told))
    assert make_recording(**parts)["test/repeats/start_time"].values.tolist() == told


def test_counts_follow_from_rates_and_soft_types_are_kept(parts):
    train = parts["train"]
    expected = train["spike_count"].values
    member = np.array([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]])
    train = train.assign(rate=train["spike_count"] * RATE).drop_vars("spike_count")
    train = train.assign_coords(cell_type=["ON", "OFF"])
    train["type_membership"] = (("cell", "cell_type"), member)
    test = parts["test"].assign_coords(cell_type=["ON", "OFF"])
    test["type_membership"] = train["type_membership"]
    split = make_recording(**{**parts, "train": train, "test": test})["train"].to_dataset()
    np.testing.assert_array_equal(split["spike_count"], expected)
    by_hand = (expected * RATE) @ member / member.sum(axis=0)
    np.testing.assert_allclose(split["type_rate"], by_hand, rtol=1e-6)


def test_a_recording_may_have_only_a_test_split_and_unnamed_cells(parts):
    test = parts["train"].drop_vars(["type", "cell", "center_y", "center_x"])
    recording = make_recording(**{**parts, "train": None, "test": test, "repeats": None})
    assert sorted(recording.children) == ["interneurons", "test"]
    assert recording["test/cell"].values.tolist() == [0, 1, 2]
    assert recording["test/type"].values.tolist() == ["unknown"] * 3
    assert recording["test/cell_type"].values.tolist() == ["unknown"]


def test_cells_may_be_named_by_the_repeats_alone(recording, parts):
    cells = ["cell", "type", "center_y", "center_x"]
    named = parts["repeats"].assign_coords({name: parts["test"].coords[name] for name in cells})
    found = make_recording(**{**parts, "repeats": named, "test": parts["test"]})
    assert found.identical(recording)
    bare = parts["test"].drop_vars(cells)
    found = make_recording(**{**parts, "repeats": named, "test": bare})
    assert found["test"].to_dataset().equals(recording["test"].to_dataset())


def test_inputs_are_not_modified(parts):
    kept = {name: value.copy(deep=True) for name, value in parts.items() if hasattr(value, "copy")}
    make_recording(**parts)
    for name, value in kept.items():
        assert parts[name].identical(value), name


def test_the_stimulus_is_never_read(parts):
    def explode(_):
        raise AssertionError("the stimulus was read")

    for split in ("train", "test"):
        frames = dask.array.from_array(parts[split]["stimulus"].values).map_blocks(
            explode, dtype="u1", meta=np.empty((0, 0, 0), "u1")
        )
        parts[split]["stimulus"] = (("time", "y", "x"), frames)
    recording = make_recording(**parts)
    validate_recording(recording)
    with pytest.raises(AssertionError, match="was read"):
        recording["train/stimulus"].compute()


def test_everything_wrong_is_listed_in_one_line(recording):
    recording.attrs["frame_rate"] = -3.0
    del recording.attrs["session"]
    recording["train"] = recording["train"].to_dataset().drop_vars("rate")
    recording["test"]["rate"].attrs["units"] = "spikes"
    with pytest.raises(RetinaCodecError) as caught:
        validate_recording(recording)
    message = str(caught.value)
    for text in (
        "(1) attribute session must be text; got None",
        "(2) attribute frame_rate must be a positive number of Hz; got -3.0",
        "(3) /train must have rate ('time', 'cell')",
        "(4) /test rate must have units 'Hz'; got 'spikes'",
    ):
        assert text in message
    assert "(5)" not in message
    assert "\n" not in message


def change(recording, node, function):
    tree = xr.DataTree.from_dict(
        {
            each.path: function(each.to_dataset(inherit=False))
            if each.path == node
            else each.to_dataset(inherit=False)
            for each in recording.subtree
        }
    )
    return tree


def late(dataset):
    time = dataset["time"].values.copy()
    time[10:] += 0.5 / RATE
    return dataset.assign_coords(time=("time", time, {"units": "s"}))


@pytest.mark.parametrize(
    ("node", "function", "message"),
    [
        ("/train", late, r"/train time must advance by 1/frame_rate = 0.02 s; .* at index 10"),
        ("/train", lambda d: d.drop_vars("time"), "/train must have a coordinate time"),
        ("/train", lambda d: d.drop_vars("type"), "/train must have a text coordinate type"),
        (
            "/train",
            lambda d: d.assign_coords(cell=[3, 3, 7]),
            r"/train cells must have different names; repeated: \[3\]",
        ),
        (
            "/train",
            lambda d: d.isel(cell=[1, 0, 2]),
            "/train and /test must have the same cell, in the same order",
        ),
        ("/train", lambda d: d.isel(x=slice(3)), "/train and /test must have the same x"),
        (
            "/train",
            lambda d: d.assign(type_membership=d["type_membership"] + 0.5),
            r"/train type_membership must lie in \[0, 1\]",
        ),
        (
            "/train",
            lambda d: d.assign_coords(type=("cell", ["ON", "OFF", "new"])),
            r"/train cell_type must hold every type; missing: \['new'\]",
        ),
        (
            "/train",
            lambda d: d.assign(rate=d["rate"].transpose()),
            r"/train rate must have the dims \('time', 'cell'\); got \('cell', 'time'\)",
        ),
        (
            "/train",
            lambda d: d.assign(stimulus=d["stimulus"].astype(complex)),
            "/train stimulus must be real numbers; got complex128",
        ),
        ("/test/repeats", lambda d: d.drop_vars("rate"), "/test/repeats must have a rate"),
        ("/test/repeats", lambda d: d.drop_vars("start_time"), "must have a start_time along"),
        (
            "/test/repeats",
            lambda d: d.assign_coords(start_time=d["start_time"] + 1),
            "test time must be the clock of the first presentation; it starts at 0.74 s",
        ),
        ("/interneurons", lambda d: d.drop_vars("type"), "/interneurons must have a coordinate"),
        ("/interneurons", lambda d: d.drop_vars("potential"), "/interneurons must have a poten"),
        ("/interneurons", late, "/interneurons time must advance"),
        ("/", lambda d: d.assign_attrs(pixel_size=0.0), "pixel_size must be a positive number"),
    ],
)
def test_each_fault_is_named(recording, node, function, message):
    validate_recording(recording)
    with pytest.raises(RetinaCodecError, match=message):
        validate_recording(change(recording, node, function))


def test_a_tree_without_a_test_split_is_refused(recording):
    with pytest.raises(RetinaCodecError, match=r"there must be a node /test; got \['train'\]"):
        validate_recording(recording.drop_nodes(["test", "interneurons"]))


@pytest.mark.parametrize(
    ("name", "function", "message"),
    [
        ("train", lambda d: d.drop_vars("spike_count"), "train split must have spike_count or rat"),
        ("repeats", lambda d: d.isel(repeat=0), "repeats must have a rate with the dims repeat"),
        (
            "repeats",
            lambda d: d.assign_coords(cell=[1, 2, 3]),
            "test and repeats must have the same times and cells; cell differs",
        ),
        (
            "repeats",
            lambda d: d.isel(time=slice(20)),
            "test and repeats must have the same times and cells",
        ),
    ],
)
def test_parts_that_do_not_fit_are_refused(name, function, message):
    parts = make_parts()
    with pytest.raises(RetinaCodecError, match=message) as caught:
        make_recording(**{**parts, name: function(parts[name])})
    assert "\n" not in str(caught.value)


def test_time_may_carry_the_rounding_of_a_long_session():
    parts = make_parts(start=7200.0)
    time = parts["train"]["time"].values.astype("f8")
    assert not np.array_equal(np.diff(time), np.full(36, 1 / RATE))
    recording = make_recording(**parts)
    assert recording["train/cell"].values.tolist() == CELLS
    assert recording["train/type"].values.tolist() == TYPES


def test_types_and_centres_given_as_variables_are_kept(parts, recording):
    for name in ("train", "test"):
        parts[name] = parts[name].reset_coords(["type", "center_y", "center_x"])
    assert make_recording(**parts).identical(recording)


def test_the_cells_of_the_repeats_name_the_cells_of_the_test(parts):
    counts = np.ones((23, 3))
    test = parts["test"].drop_vars("cell").assign(spike_count=(("time", "cell"), counts))
    parts["test"] = test.assign(rate=(("time", "cell"), counts * 50))
    parts["repeats"] = parts["repeats"].assign_coords(cell=[3, 7, 20])
    assert make_recording(**parts)["test/cell"].values.tolist() == [3, 7, 20]


def no_repeat(parts):
    parts["repeats"] = parts["repeats"].isel(repeat=[])


def no_frame(parts):
    parts["test"] = parts["test"].isel(time=[])
    parts["repeats"] = parts["repeats"].isel(time=[])


def dates(parts):
    parts["test"] = parts["test"].assign_coords(time=np.arange(23).astype("M8[s]"))


def words(parts):
    parts["test"] = parts["test"].assign_coords(time=list("abcdefghijklmnopqrstuvw"))


def other_memberships(parts):
    test = parts["test"].assign_coords(cell_type=["OFF", "ON"])
    member = np.array([[0.5, 0.5], [1, 0], [0, 1]])
    parts["test"] = test.assign(type_membership=(("cell", "cell_type"), member))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (no_repeat, "/test/repeats must hold at least one presentation"),
        (no_frame, "/test time must be finite seconds, at least one"),
        (dates, "/test time must be finite seconds"),
        (words, "/test time must be finite seconds"),
        (other_memberships, "/train and /test must have the same type_membership"),
    ],
)
def test_odd_parts_are_refused_by_name(parts, change, message):
    change(parts)
    with pytest.raises(RetinaCodecError, match=message):
        make_recording(**parts)


def test_types_under_the_name_of_their_list_are_refused(parts):
    parts["train"] = parts["train"].drop_vars("type").assign_coords(cell_type=("cell", TYPES))
    with pytest.raises(RetinaCodecError, match="types of its cells in type, not cell_type"):
        make_recording(**parts)
