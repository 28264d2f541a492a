"""The published recordings: every variant of the layout against a slow second reading."""

import shutil

import h5py
import numpy as np
import pytest
import torch

from retina_codec.errors import RetinaCodecError
from retina_codec.recordings.files import open_recording, save_recording
from retina_codec.recordings.maheswaranathan_2023.constants import (
    NUM_BLOCKS,
    PUBLISHED_CELLS,
    PUBLISHED_CENTERS,
)
from retina_codec.recordings.maheswaranathan_2023.recording import read_maheswaranathan
from retina_codec.recordings.schema import validate_recording
from retina_codec.recordings.windows import StimulusWindows
from tests.recordings.published_files import TYPES, write_published
from tests.reference.published import slow_repeats, slow_spikes, slow_split

PLACE = "15-10-07/naturalscene.h5"


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    return write_published(tmp_path_factory.mktemp("published") / PLACE, stas=True)


@pytest.mark.parametrize("response", TYPES)
def test_every_array_is_what_the_file_holds(published, response):
    recording = read_maheswaranathan(published, response=response)
    validate_recording(recording)
    for split in ("train", "test"):
        movie, rate = slow_split(published, split, response)
        node = recording[split].to_dataset()
        np.testing.assert_array_equal(node["stimulus"], movie)
        assert node["stimulus"].dtype == np.uint8
        np.testing.assert_array_equal(node["rate"], rate)
        width = response.split("_")[-1].removesuffix("ms")
        assert node["rate"].attrs["long_name"] == f"{response}: {width} ms, as published"
    repeats = slow_repeats(published, 6, 60)
    np.testing.assert_array_equal(recording["test/repeats/rate"], repeats)
    for cell in range(6):
        spikes = recording["spikes"].to_dataset()
        own = spikes["spike_time"].values[spikes["spike_cell"].values == cell]
        assert own.tolist() == slow_spikes(published, cell)
    assert recording.attrs["spikes"].startswith("the clock of /train")
    assert recording.attrs["session"] == "15-10-07 naturalscene"


def test_chosen_cells_keep_their_order_and_their_names(published):
    whole = read_maheswaranathan(published)
    chosen = read_maheswaranathan(published, cells=[4, 1])
    for node in ("train", "test", "test/repeats"):
        expected = whole[node].to_dataset().isel(cell=[4, 1])
        assert chosen[f"{node}/cell"].values.tolist() == [4, 1]
        np.testing.assert_array_equal(chosen[f"{node}/rate"], expected["rate"])
    assert np.unique(chosen["spikes/spike_cell"]).tolist() == [1, 4]
    assert whole.attrs["centers"] == chosen.attrs["centers"]
    np.testing.assert_array_equal(chosen["test/center_y"], [31, 24])


def test_published_cells_and_centers(published, tmp_path):
    recording = read_maheswaranathan(published, cells="published")
    assert recording["test/cell"].values.tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(recording["test/center_y"], [21, 24, 22, 27, 31])
    np.testing.assert_array_equal(recording["train/center_x"], [18, 20, 18, 18, 20])
    assert "how they were obtained is not stated" in recording.attrs["centers"]
    whole = read_maheswaranathan(published)
    assert np.isnan(whole["test/center_y"].values[5])
    scattered = write_published(tmp_path / "15-11-21a" / "whitenoise.h5", cells=14)
    recording = read_maheswaranathan(scattered, cells="published")
    assert recording["test/cell"].values.tolist() == [6, 10, 12, 13]
    _, rate = slow_split(scattered, "test")
    np.testing.assert_array_equal(recording["test/rate"], rate[:, [6, 10, 12, 13]])


def test_the_tables_agree_with_each_other():
    for experiment, centers in PUBLISHED_CENTERS.items():
        assert len(centers) == len(PUBLISHED_CELLS[experiment])
        assert all(0 <= pixel < 50 for place in centers for pixel in place)
    assert len(PUBLISHED_CELLS["15-11-21b"]) == 17  # outputs of the published network
    assert NUM_BLOCKS["15-10-07"] * 59967 == 359802  # frames of the published movie


@pytest.mark.parametrize(
    ("experiment", "frames", "blocks", "words"),
    [
        ("15-10-07", 120, np.repeat(range(6), 20), "6 of 20 frames"),
        ("16-01-08", 120, np.repeat(range(3), 40), "3 of 40 frames"),
        ("15-10-07", 121, None, "left out: 121 frames are not 6 blocks"),
        ("my own", 120, None, "not known for this experiment"),
    ],
)
def test_blocks_are_kept_where_the_length_divides(tmp_path, experiment, frames, blocks, words):
    path = write_published(tmp_path / experiment / "a.h5", train_frames=frames)
    recording = read_maheswaranathan(path)
    assert recording.attrs["blocks"].startswith(words)
    if blocks is None:
        assert "block" not in recording["train"].coords
    else:
        np.testing.assert_array_equal(recording["train/block"], blocks)
    assert "block" not in recording["test"].coords


def test_responses_go_with_the_forty_frames_before_them(published):
    """Response t goes with frames t − 40 .. t − 1, as in the published network."""
    recording = read_maheswaranathan(published)
    movie, rate = slow_split(published, "test")
    windows = StimulusWindows(recording["test/stimulus"], 40)
    responses = recording["test/rate"].sel(time=windows.time)
    assert len(windows) == 60 - 40
    (_, batch), *rest = windows.batches(100)
    assert not rest
    for index in range(len(windows)):
        t = index + 40
        np.testing.assert_array_equal(batch[index].numpy(), movie[t - 40 : t].astype(np.float32))
        np.testing.assert_array_equal(responses[index], rate[t])
    assert batch.dtype == torch.float32


def test_saved_and_opened_again_it_is_the_same(published, tmp_path):
    recording = read_maheswaranathan(published, cells="published")
    save_recording(recording, tmp_path / "a.nc")
    again = open_recording(tmp_path / "a.nc")
    assert again.identical(recording)
    again.close()


def test_a_folder_with_one_movie_needs_no_name_and_one_with_two_does(published, tmp_path):
    folder = tmp_path / "15-10-07"
    folder.mkdir()
    shutil.copy(published, folder)
    one = read_maheswaranathan(folder)
    assert one["test"].to_dataset().identical(read_maheswaranathan(published)["test"].to_dataset())
    write_published(folder / "whitenoise.h5", seed=1)
    with pytest.raises(RetinaCodecError, match=r"\['naturalscene', 'whitenoise'\]\. Pass stimulus"):
        read_maheswaranathan(folder)
    named = read_maheswaranathan(folder, stimulus="whitenoise")
    assert named.attrs["session"] == "15-10-07 whitenoise"
    movie, _ = slow_split(folder / "whitenoise.h5", "test")
    np.testing.assert_array_equal(named["test/stimulus"], movie)


def test_without_train_or_with_other_frames(tmp_path):
    path = write_published(tmp_path / PLACE, train_frames=None, size=(6, 8), dtype="float32")
    recording = read_maheswaranathan(path)
    assert sorted(recording.children) == ["test"]
    assert recording["test/stimulus"].dtype == np.float32
    assert recording.attrs["centers"] == "left out: frames are (6, 8) px"
    movie, _ = slow_split(path, "test")
    np.testing.assert_array_equal(recording["test/stimulus"], movie)


def edit(name, value=None):
    def apply(path):
        with h5py.File(path, "a") as file:
            if name in file:
                del file[name]
            if isinstance(value, str):
                file.create_group(name)
            elif value is not None:
                file[name] = value

    return apply


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (edit("test"), {}, r"must have a group /test; it has \['spikes', 'train'\]"),
        (edit("test", np.zeros(3)), {}, "/test must be a group; it is an array"),
        (edit("test/stimulus"), {}, r"must have stimulus \(time, y, x\); it has \['repeats',"),
        (edit("test/stimulus", "group"), {}, r"must be an array \(time, y, x\); it is Group"),
        (edit("test/stimulus", np.zeros((60, 4))), {}, r"it is Dataset \(60, 4\)"),
        (edit("test/stimulus", np.zeros((60, 4, 0))), {}, "real numbers, at least one"),
        (edit("test/stimulus", np.full((60, 4, 4), b"a")), {}, r"real numbers, at least one; .*S1"),
        (edit("test/stimulus", np.zeros((61, 4, 5))), {}, "a sample per frame, or one more"),
        (edit("test/stimulus", np.zeros((60, 4, 5))), {}, "must have the same y; they have 50"),
        (edit("test/response"), {}, "/response must have 'firing_rate_10ms'; it has nothing"),
        (edit("test/response/binned", np.zeros((5, 60))), {}, "binned has 5 instead of 6"),
        (edit("test/response/firing_rate_10ms", np.zeros((5, 60))), {}, "binned has 6 instead"),
        (edit("test/response/firing_rate_10ms", np.array([b"x"])), {}, "must be an array"),
        (edit("test/response", "group"), {}, "must have 'firing_rate_10ms'; it has nothing"),
        (edit("test/repeats/cell01", np.zeros((3, 50))), {}, "it has 50 for 60"),
        (edit("test/repeats/cell01", np.zeros(60)), {}, r"must be an array \(repeat, time\)"),
        (edit("spikes/cell01", np.array([0.1, np.nan])), {}, "must be finite times in s"),
        (edit("spikes/cell01", "group"), {}, r"cell01 must be an array \(spike\); it is Group"),
        (edit("boxes", "group"), {}, r"with rc\.recordings\.open_interneurons"),
        (edit("x"), {"response": "firing_rate_1ms"}, r"'firing_rate_1ms'; it has \['binned', 'fir"),
        (
            edit("x"),
            {"cells": "all"},
            "must be 'published' or different whole numbers, .*; got all",
        ),
        (edit("x"), {"cells": [0, 6]}, r"must lie in 0\.\.5; got \[0, 6\]"),
        (edit("x"), {"cells": [1, 1]}, "different whole numbers"),
        (edit("x"), {"cells": [0.5]}, "different whole numbers"),
        (edit("x"), {"cells": []}, "at least one"),
        (edit("x"), {"stimulus": "whitenoise"}, "by its name it holds 'naturalscene'"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(tmp_path, change, options, message):
    path = write_published(tmp_path / PLACE, test_frames=60)
    change(path)
    with pytest.raises(RetinaCodecError, match=message) as caught:
        read_maheswaranathan(path, **options)
    assert "\n" not in str(caught.value)


def test_places_without_a_recording(published, tmp_path):
    with pytest.raises(RetinaCodecError, match="must be an experiment folder or file at"):
        read_maheswaranathan(tmp_path / "nothing")
    with pytest.raises(RetinaCodecError, match=r"it holds neither\. Is it complete"):
        read_maheswaranathan(tmp_path)
    with pytest.raises(RetinaCodecError, match=r"Pass one of its folders: \['15-10-07'\]"):
        read_maheswaranathan(published.parents[1])
    with pytest.raises(RetinaCodecError, match=r"stimulus 'drifting'; it has \['naturalscene'\]"):
        read_maheswaranathan(published.parent, stimulus="drifting")
    unknown = tmp_path / "retina" / "a.h5"
    unknown.parent.mkdir()
    shutil.copy(published, unknown)
    with pytest.raises(RetinaCodecError, match=r"known for 15-10-07, .* named 'retina'"):
        read_maheswaranathan(unknown, cells="published")


def test_open_recording_finds_the_reader_and_checks_its_options(published):
    expected = read_maheswaranathan(published, cells=[2], response="firing_rate_5ms")
    for place in (published, published.parent):
        found = open_recording(place, cells=[2], response="firing_rate_5ms")
        assert found["test"].to_dataset().identical(expected["test"].to_dataset())
    with pytest.raises(RetinaCodecError, match="response, cells; got stimuli='naturalscene'"):
        open_recording(published, stimuli="naturalscene")
