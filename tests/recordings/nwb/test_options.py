"""Options are checked before a file is opened, and named in the words of the user's door."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from retina_codec.errors import RetinaCodecError, command_line_words
from retina_codec.recordings.nwb.options import RULES, NwbOptions, seconds_per
from retina_codec.recordings.nwb.reader import read_nwb

RIGHT = {
    "stimulus": ["movie", {"test": "a"}, {"train": "a", "test": "b"}],
    "frames": [np.zeros((2, 3, 4)), "a.npy"],
    "splits": [{"test": (0, 1)}, {"test": [(0, 1), (1, 2)], "train": {"block": 1}}],
    "table": ["trials"],
    "units": ["processing/a/b"],
    "cells": [[1, 2], ["a"], 3, "b", {"quality": "good"}, np.array([1])],
    "cell_names": ["row", "probe"],
    "cell_types": ["type", {1: "ON"}],
    "interneuron_types": ["a.csv", {"Vm": "bipolar"}],
    "axis_order": ["xyt"],
    "color": ["red", "mean"],
    "frame_times": [[0.0, 0.1], np.arange(3), "acquisition/a"],
    "frame_time_unit": ["ms", 30e3],
    "frame_rate": [60, 59.94],
    "bins_per_frame": [1, 4, 4.0],
    "last_duration": [0.5],
    "blank": [0, -1.5, -(2**63) - 1],
    "repair_clock": [True, False],
    "join_blocks": [True],
    "spike_time_unit": ["s", 20000],
    "spike_restarts": ["none", [1.0, 2.0]],
    "trust_paths": [False],
}
WRONG = {
    "stimulus": ["", 3, {"train": "a"}, {"test": 1}, {"test": "a", "other": "b"}],
    "frames": [np.zeros((2, 3)), "a.mp4", [[1]]],
    "splits": ["all", {"train": (0, 1)}, {"test": "x"}, {"test": (0, 1, 2)}, [0, 1]],
    "table": [1, ""],
    "units": [0],
    "cells": ["12,4", [[1]], 1.5],
    "cell_names": [["probe"]],
    "cell_types": [3, ["ON", "OFF"]],
    "interneuron_types": [3],
    "axis_order": ["time first", "tyxc", 1],
    "color": ["grey", 0],
    "frame_times": [[], [[0.0, 1.0]], ["a"], 5],
    "frame_time_unit": ["minutes", 0, -1.0, np.nan],
    "frame_rate": [0, -60, "60 Hz", np.inf, True, 10**400],
    "bins_per_frame": [0, "many", 1.5, -2, -(2**63) - 1],
    "last_duration": [0, "long"],
    "blank": ["grey", np.nan, 10**400],
    "repair_clock": ["yes", 1, "True"],
    "join_blocks": ["no"],
    "spike_time_unit": ["samples", 0],
    "spike_restarts": ["yes", [], [[1.0]]],
    "trust_paths": [0],
}


def test_every_option_has_a_rule_and_values_to_try():
    assert set(RULES) == set(NwbOptions.__dataclass_fields__) == set(RIGHT) == set(WRONG)


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, vs in RIGHT.items() for v in vs])
def test_a_right_value_is_taken(name, value):
    found = getattr(NwbOptions(**{name: value}), name)
    assert found is value or found == [value]


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, vs in WRONG.items() for v in vs])
def test_a_wrong_value_is_refused_by_name_before_the_file_is_opened(name, value):
    with pytest.raises(RetinaCodecError, match=f"^{name} must be .* Pass {name}=") as caught:
        read_nwb("nowhere.nwb", **{name: value})
    assert "damaged" not in str(caught.value)
    with command_line_words(), pytest.raises(RetinaCodecError, match=rf"Pass --set '?{name}="):
        NwbOptions(**{name: value})


@given(
    name=st.sampled_from(sorted(RULES)),
    value=st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
        max_leaves=6,
    ),
)
@example(name="cells", value=[None, []])
def test_any_value_is_taken_or_refused_in_one_short_line(name, value):
    try:
        NwbOptions(**{name: value})
    except RetinaCodecError as error:
        text = str(error)
    else:
        return
    assert text.startswith(f"{name} must be ")
    assert "\n" not in text
    assert len(text) < 400


def test_arrays_are_not_printed():
    with pytest.raises(RetinaCodecError, match=r"got an array of shape \(9, 100000\)"):
        NwbOptions(frames=np.zeros((9, 100000)))


def test_seconds_per_unit():
    found = [seconds_per(unit) for unit in ("s", "ms", "us", "µs", 20e3)]
    np.testing.assert_allclose(found, [1, 1e-3, 1e-6, 1e-6, 5e-5])
