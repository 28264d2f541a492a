"""Frames, onsets and spike times in arrays: counts by hand, a round trip, clear refusals."""

import numpy as np
import pytest
import torch
import xarray as xr

import retina_codec as rc
from retina_codec.errors import RetinaCodecError
from retina_codec.recordings.arrays import make_split

ONSETS = 5 + np.arange(20) / 10
FRAMES = np.arange(20 * 2 * 3, dtype=np.uint8).reshape(20, 2, 3)
SPIKES = {"a": [5.0, 5.05, 5.1, 6.95, 99.0], "b": [4.9, 5.31, 7.0]}


def test_counts_by_hand():
    split = make_split(FRAMES, ONSETS, SPIKES, types={"a": "ON", "b": "OFF"})
    a, b = split["spike_count"].sel(cell="a").values, split["spike_count"].sel(cell="b").values
    assert a.tolist() == [2, 1, *[0] * 17, 1]  # 99 s is outside
    assert b.tolist() == [0, 0, 0, 1, *[0] * 16]  # before the first frame, and at the last's end
    assert split["type"].values.tolist() == ["ON", "OFF"]
    assert split.attrs["frame_rate"] == pytest.approx(10)
    np.testing.assert_array_equal(split["stimulus"], FRAMES)


def test_it_makes_a_recording_with_repeats():
    parts = [make_split(FRAMES, start + ONSETS, SPIKES | {"c": start + ONSETS}) for start in (0, 2)]
    rates = [part[["rate"]].drop_vars(["time", "session_time"]) for part in parts]
    repeats = xr.concat(rates, "repeat").assign_coords(start_time=("repeat", [5.0, 7.0]))
    recording = rc.recordings.make_recording(
        train=make_split(FRAMES, ONSETS + 20, [ONSETS + 20] * 3).assign_coords(
            cell=["a", "b", "c"]
        ),
        test=parts[0][["stimulus"]],
        repeats=repeats,
        frame_rate=10.0,
        pixel_size=float("nan"),
        session="s",
        species="mouse",
        source="arrays",
    )
    assert recording["test/repeats/rate"].dims == ("repeat", "time", "cell")
    np.testing.assert_allclose(recording["test/rate"].sel(cell="c"), 10)


@pytest.mark.parametrize("kind", [torch.from_numpy, np.asarray, lambda x: np.array(x, "f4")])
def test_kinds_of_frames_and_unnamed_cells(kind):
    split = make_split(kind(FRAMES), ONSETS.tolist(), [SPIKES["b"], SPIKES["a"]], types=["x", "y"])
    assert split["cell"].values.tolist() == [0, 1]
    assert split["type"].values.tolist() == ["x", "y"]
    np.testing.assert_array_equal(split["stimulus"], FRAMES)


def test_a_dropped_frame_is_named_and_can_be_shown_again():
    gone = np.delete(np.arange(21), 7)
    onsets = 5 + gone / 10
    with pytest.raises(RetinaCodecError, match=r"1 frames were dropped .* repair_clock=True"):
        make_split(FRAMES, onsets, SPIKES)
    split = make_split(FRAMES, onsets, SPIKES, repair_clock=True)
    assert split.sizes["time"] == 21
    np.testing.assert_array_equal(split["stimulus"][6:9], FRAMES[[6, 6, 7]])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"frames": FRAMES[0]}, r"frames must be an array \(time, y, x\)"),
        ({"frames": [1, 2]}, "got list"),
        ({"onsets": ONSETS[:-1]}, "got 19 for 20 frames"),
        ({"onsets": ONSETS[::-1]}, "must be finite seconds that rise"),
        ({"onsets": np.where(ONSETS > 6, np.nan, ONSETS)}, "must be finite seconds that rise"),
        ({"onsets": ONSETS + 30 * (np.arange(20) > 9)}, "1 pauses"),
        ({"spikes": {}}, "at least one cell"),
        ({"spikes": {"a": ["x"]}}, "cell 'a'"),
        ({"spikes": {"a": [np.nan]}}, "finite times"),
        ({"spikes": {"a": []}}, "spikes: none"),
        ({"spikes": {"a": 1000 * ONSETS}}, "Divide times in ms by 1000"),
        ({"types": {"a": "ON"}}, r"\['b'\] are missing"),
        ({"types": ["ON"]}, "got 1 for 2 cells"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(change, says):
    given = {"frames": FRAMES, "onsets": ONSETS, "spikes": SPIKES} | change
    with pytest.raises(RetinaCodecError, match=says) as caught:
        make_split(**given)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300
