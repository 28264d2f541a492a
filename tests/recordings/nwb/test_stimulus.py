"""Every way in which NWB files keep a stimulus comes back as the frames it was made from."""

import json

import h5py
import numpy as np
import pytest
from PIL import Image
from pynwb.image import ImageSeries, OpticalSeries, RGBImage

from retina_codec.errors import RecordingWarning, RetinaCodecError
from retina_codec.recordings.frames.seeded import SeededFrames
from retina_codec.recordings.nwb.reader import read_nwb
from tests.recordings.nwb_files import (
    ALL_TEST,
    FRAMES,
    PICTURES,
    RATE,
    SPIKES,
    counted,
    index_series,
    intervals,
    movie,
    pictures,
    write,
)

pytestmark = pytest.mark.filterwarnings(ALL_TEST)


def shown(path, **options):
    return read_nwb(path, **options)["test/stimulus"]


# Frames in the file


@pytest.mark.parametrize("kind", [ImageSeries, OpticalSeries])
def test_inline_frames(tmp_path, kind):
    more = {} if kind is ImageSeries else {"distance": 0.1, "field_of_view": [90e-6, 120e-6]}
    series = kind(name="movie", data=FRAMES, unit="n/a", rate=RATE, **more)
    recording = read_nwb(write(tmp_path / "a.nwb", stimulus=series))
    np.testing.assert_array_equal(recording["test/stimulus"], FRAMES)
    assert recording["test/stimulus"].dtype == np.uint8
    expected = counted(SPIKES, np.arange(60) / RATE, 1 / RATE)
    np.testing.assert_array_equal(recording["test/spike_count"], expected)
    assert "'movie', inline data" in recording.attrs["reading"]


@pytest.mark.parametrize(
    ("axes", "order"),
    [("tyx", (0, 1, 2)), ("txy", (0, 2, 1)), ("xyt", (2, 1, 0)), ("yxt", (1, 2, 0))],
)
def test_the_stated_order_of_axes(tmp_path, axes, order):
    stored = np.transpose(FRAMES, order)
    path = write(tmp_path / "a.nwb", stimulus=movie(data=FRAMES))

    def turn(file):
        del file["stimulus/presentation/movie/data"]
        file["stimulus/presentation/movie/data"] = stored

    with h5py.File(path, "a") as file:
        turn(file)
    np.testing.assert_array_equal(shown(path, axis_order=axes), FRAMES)


def test_dimension_confirms_the_axes_or_asks(tmp_path):
    right = write(tmp_path / "a.nwb", stimulus=movie(dimension=[3, 4]))  # x, y
    np.testing.assert_array_equal(shown(right), FRAMES)
    turned = write(tmp_path / "b.nwb", stimulus=movie(dimension=[4, 3]))
    with pytest.raises(RetinaCodecError, match=r"4 × 3 and dimension .* 4 × 3.*axis_order='tyx'"):
        read_nwb(turned)
    np.testing.assert_array_equal(shown(turned, axis_order="tyx"), FRAMES)
    np.testing.assert_array_equal(shown(turned, axis_order="txy"), FRAMES.transpose(0, 2, 1))
    other = write(tmp_path / "c.nwb", stimulus=movie(dimension=[40, 30]))
    with pytest.raises(RetinaCodecError, match="other sizes"):
        read_nwb(other)
    with pytest.raises(RetinaCodecError, match="axis_order must be one of tyx, txy, xyt, yxt"):
        read_nwb(right, axis_order="zyx")


@pytest.mark.parametrize(
    ("color", "weights"),
    [("luminance", (0.299, 0.587, 0.114)), ("mean", (1 / 3,) * 3), ("green", (0, 1, 0))],
)
def test_color_becomes_grey_only_as_told(tmp_path, color, weights):
    colored = np.random.default_rng(3).integers(0, 255, (20, 4, 3, 3), dtype=np.uint8)
    path = write(tmp_path / "a.nwb", stimulus=movie(data=colored))
    with pytest.raises(RetinaCodecError, match=r"frames in color.*Pass color="):
        read_nwb(path)
    expected = sum(w * colored[..., i].astype(float) for i, w in enumerate(weights))
    np.testing.assert_allclose(shown(path, color=color), expected, rtol=1e-6)
    with pytest.raises(RetinaCodecError, match="luminance, mean, red, green, blue; got 'teal'"):
        shown(path, color="teal").compute()


def test_a_series_of_an_extension_that_is_not_installed(tmp_path):
    def rename(file):
        attrs = file["stimulus/presentation/movie"].attrs
        attrs["neurodata_type"], attrs["namespace"] = "LabImageSeries", "ndx-lab"

    recording = read_nwb(write(tmp_path / "a.nwb", mend=rename))
    np.testing.assert_array_equal(recording["test/stimulus"], FRAMES)
    assert "is of the type LabImageSeries, read as an image series" in recording.attrs["reading"]


def test_frames_behind_a_link_inside_the_folder_and_outside(tmp_path):
    folder = tmp_path / "session"
    (folder / "stimuli").mkdir(parents=True)
    for place in (folder / "stimuli/noise.h5", tmp_path / "noise.h5"):
        with h5py.File(place, "w") as file:
            file["frames"] = FRAMES

    def link(target):
        def mend(file):
            del file["stimulus/presentation/movie/data"]
            file["stimulus/presentation/movie/data"] = h5py.ExternalLink(target, "/frames")

        return mend

    inside = write(folder / "a.nwb", mend=link("stimuli/noise.h5"))
    np.testing.assert_array_equal(shown(inside), FRAMES)
    outside = write(folder / "b.nwb", mend=link("../noise.h5"))
    with pytest.raises(
        RetinaCodecError, match=r"points to '\.\./noise\.h5', outside its own folder"
    ):
        read_nwb(outside)
    with pytest.raises(RetinaCodecError, match="outside its own folder"):
        read_nwb(write(folder / "c.nwb", mend=link(str(tmp_path / "noise.h5"))))


# Frames in other files


def external(names, starts=None, count=20, **more):
    return ImageSeries(
        name="movie",
        external_file=names,
        format="external",
        starting_frame=starts or [0] * len(names),
        num_samples=count,
        rate=RATE,
        **more,
    )


def test_pictures_in_files_beside(tmp_path):
    for number in range(12):
        Image.fromarray(PICTURES[number]).save(tmp_path / f"frame{number}.png")
    names = [f"./frame{number}.png" for number in range(12)]
    path = write(tmp_path / "a.nwb", stimulus=external(names, list(range(12)), 12))
    recording = read_nwb(path)
    np.testing.assert_array_equal(recording["test/stimulus"], PICTURES)
    np.testing.assert_array_equal(recording["test/stimulus"][7:3:-2], PICTURES[7:3:-2])
    assert "12 picture files" in recording.attrs["reading"]
    stale = write(tmp_path / "b.nwb", stimulus=external(names, [0, *range(2, 13)], 12))
    with pytest.raises(RetinaCodecError, match=r"starting_frame must be .* \[0, 1, 2, .* stale"):
        read_nwb(stale)
    (tmp_path / "frame3.png").unlink()
    with pytest.raises(RetinaCodecError, match=r"frame3\.png; no file is there"):
        read_nwb(path)


def test_a_file_of_many_pages(tmp_path):
    pages = [Image.fromarray(each) for each in PICTURES]
    pages[0].save(tmp_path / "movie.tif", save_all=True, append_images=pages[1:])
    path = write(tmp_path / "a.nwb", stimulus=external(["movie.tif"], None, 12))
    np.testing.assert_array_equal(shown(path), PICTURES)


def test_files_outside_the_folder_only_when_asked(tmp_path):
    Image.fromarray(PICTURES[0]).save(tmp_path / "frame.png")
    (tmp_path / "session").mkdir()
    for name in ("../frame.png", str(tmp_path / "frame.png")):
        path = tmp_path / "session/a.nwb"
        path.unlink(missing_ok=True)
        write(path, stimulus=external([name, name], [0, 1], 2), spikes={1: [0.03]})
        with pytest.raises(RetinaCodecError, match=r"frame\.png', outside its own folder"):
            read_nwb(path)
        np.testing.assert_array_equal(shown(path, trust_paths=True), PICTURES[[0, 0]])


def write_video(path, frames, codec, rate=50):
    import av

    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=rate)
        stream.height, stream.width, stream.bit_rate = *frames.shape[1:], 10_000_000
        stream.pix_fmt = "gray" if codec == "ffv1" else "yuv420p"
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(frame, format="gray")
            out.mux(stream.encode(picture.reformat(format=stream.pix_fmt)))
        out.mux(stream.encode())


SMOOTH = (
    127
    + 100
    * np.sin(np.arange(64)[:, None, None] / 7 + np.arange(32)[:, None] / 5 + np.arange(48) / 9)
).astype(np.uint8)


@pytest.mark.parametrize(("name", "codec"), [("m.avi", "ffv1"), ("m.mkv", "ffv1")])
def test_a_lossless_video_comes_back_exactly(tmp_path, name, codec):
    pytest.importorskip("av")
    write_video(tmp_path / name, SMOOTH, codec)
    recording = read_nwb(write(tmp_path / "a.nwb", stimulus=external([name], None, 64)))
    np.testing.assert_array_equal(recording["test/stimulus"], SMOOTH)
    np.testing.assert_array_equal(
        recording["test/stimulus"][[50, 3, 3, 20]], SMOOTH[[50, 3, 3, 20]]
    )
    assert "a video file" in recording.attrs["reading"]


def test_a_compressed_video_and_two_in_a_row(tmp_path):
    pytest.importorskip("av")
    write_video(tmp_path / "one.mp4", SMOOTH[:40], "mpeg4")
    write_video(tmp_path / "two.mp4", SMOOTH[40:], "mpeg4")
    series = external(["one.mp4", "two.mp4"], [0, 40], 64)
    movie_back = shown(write(tmp_path / "a.nwb", stimulus=series))
    assert movie_back.shape == SMOOTH.shape
    error = np.abs(movie_back.values.astype(float) - SMOOTH)
    neighbour = np.abs(SMOOTH[1:].astype(float) - SMOOTH[:-1])
    assert error.mean() < 0.5 * neighbour.mean(), "each frame must be nearer than its neighbour"
    np.testing.assert_array_equal(movie_back[60:62], movie_back.values[60:62])


def test_a_video_that_is_none(tmp_path):
    pytest.importorskip("av")
    (tmp_path / "m.mp4").write_bytes(b"no video" * 100)
    with pytest.raises(RetinaCodecError, match=r"m\.mp4 must be a video that can be read"):
        read_nwb(write(tmp_path / "a.nwb", stimulus=external(["m.mp4"])))
    (tmp_path / "m.doc").write_bytes(b"")
    with pytest.raises(RetinaCodecError, match=r"must be pictures .* or videos .*got \['\.doc'\]"):
        read_nwb(write(tmp_path / "b.nwb", stimulus=external(["m.doc"])))


# Pictures by index


def test_indices_into_pictures_in_stated_order(tmp_path):
    order = [3, 1, 2, 0, *range(4, 12)]
    index = np.random.default_rng(2).integers(0, 12, 30)

    def fill(nwbfile):
        images = pictures(order=order)
        nwbfile.add_stimulus_template(images)
        nwbfile.add_stimulus(index_series(images, index, rate=RATE))

    recording = read_nwb(write(tmp_path / "a.nwb", fill, stimulus=()))
    np.testing.assert_array_equal(recording["test/stimulus"], PICTURES[order][index])
    assert "indices into /stimulus/templates/pictures" in recording.attrs["reading"]


def test_pictures_without_an_order_go_by_number_in_their_names_with_a_warning(tmp_path):
    index = np.arange(12)[::-1]

    def fill(nwbfile):
        images = pictures()
        nwbfile.add_stimulus_template(images)
        nwbfile.add_stimulus(index_series(images, index, rate=RATE))

    path = write(tmp_path / "a.nwb", fill, stimulus=())
    with pytest.warns(RecordingWarning, match="does not say the order of its pictures"):
        found = shown(path)
    np.testing.assert_array_equal(found, PICTURES[index])  # im10 after im9, not after im1


def test_indices_into_an_older_series_whose_own_times_mean_nothing(tmp_path):
    index = np.tile(np.arange(12), 3)

    def fill(nwbfile):
        template = movie("template", PICTURES, timestamps=np.r_[np.arange(11.0), np.nan])
        nwbfile.add_stimulus_template(template)
        images = pictures(order=range(12))
        nwbfile.add_stimulus_template(images)
        nwbfile.add_stimulus(index_series(images, index, rate=RATE))

    def redirect(file):  # pynwb no longer writes this
        series = file["stimulus/presentation/index"]
        del series["indexed_images"]
        series["indexed_timeseries"] = h5py.SoftLink("/stimulus/templates/template")

    recording = read_nwb(write(tmp_path / "a.nwb", fill, stimulus=(), mend=redirect))
    np.testing.assert_array_equal(recording["test/stimulus"], PICTURES)  # shown three times
    assert recording["test/repeats"].sizes["repeat"] == 3
    np.testing.assert_allclose(recording["test/repeats/start_time"], [0, 0.24, 0.48])


def onset_file(path, table=None, **timing):
    """Pictures shown for unequal times, with a blank of half a second before the last."""
    onsets = [1.0, 1.5, 1.7, 3.0]

    def fill(nwbfile):
        images = pictures(order=range(12))
        nwbfile.add_stimulus_template(images)
        nwbfile.add_stimulus(index_series(images, [5, 2, 9, 5], timestamps=onsets, **timing))
        if table is not None:
            nwbfile.add_time_intervals(intervals("flashes", onsets, table))

    return write(path, fill, stimulus=(), spikes={1: [1.05, 3.2]})


def test_the_last_duration_is_never_invented(tmp_path):
    path = onset_file(tmp_path / "a.nwb")
    with pytest.raises(RetinaCodecError, match=r"the last one, shown from 3 s, has no known end"):
        read_nwb(path, frame_rate=10)
    with pytest.raises(RetinaCodecError, match=r"0\.2 to 1\.3 s.*Pass frame_rate=HZ"):
        read_nwb(path, last_duration=0.4)
    found = shown(path, frame_rate=10, last_duration=0.4)
    index = [5] * 5 + [2] * 2 + [9] * 13 + [5] * 4
    np.testing.assert_array_equal(found, PICTURES[index])


def test_ends_come_from_intervals_and_blanks_must_be_known(tmp_path):
    path = onset_file(tmp_path / "a.nwb", table=[1.5, 1.7, 2.5, 3.4])
    with pytest.raises(RetinaCodecError, match=r"at all times.*Pass blank=128"):
        read_nwb(path, frame_rate=10)
    found = read_nwb(path, frame_rate=10, blank=128)
    expected = PICTURES[[5] * 5 + [2] * 2 + [9] * 8 + [0] * 5 + [5] * 4].copy()
    expected[15:20] = 128
    np.testing.assert_array_equal(found["test/stimulus"], expected)
    assert found["test/stimulus"].dtype == np.uint8
    assert "stop_time of /intervals/flashes" in found.attrs["reading"]
    assert np.flatnonzero(found["test/spike_count"]).tolist() == [0, 22]
    half = shown(path, frame_rate=10, blank=127.5)
    assert half.values[16, 0, 0] == 127.5


def test_an_index_beyond_the_pictures(tmp_path):
    def fill(nwbfile):
        images = pictures(order=range(12))
        nwbfile.add_stimulus_template(images)
        nwbfile.add_stimulus(index_series(images, [0, 12], rate=RATE))

    with pytest.raises(RetinaCodecError, match=r"numbers below 12, .* they are 0 to 12"):
        read_nwb(write(tmp_path / "a.nwb", fill, stimulus=()))


def test_pictures_of_two_sizes_and_in_color(tmp_path):
    def fill(nwbfile):
        images = pictures(order=None)
        colored = np.random.default_rng(4).integers(0, 255, (4, 3, 3), dtype=np.uint8)
        images.add_image(RGBImage(name="im12", data=colored))
        nwbfile.add_stimulus_template(images)
        nwbfile.add_stimulus(index_series(images, [12, 0], rate=RATE))

    path = write(tmp_path / "a.nwb", fill, stimulus=(), spikes={1: [0.03]})
    with pytest.raises(RetinaCodecError, match="pictures in color"):
        read_nwb(path)
    with pytest.warns(RecordingWarning, match="numbered by name"):
        found = shown(path, color="red").values
    np.testing.assert_array_equal(found[1], PICTURES[0])

    def uneven(nwbfile):
        images = pictures(data=[*PICTURES[:2], np.zeros((5, 3), "u1")], order=range(3))
        nwbfile.add_stimulus_template(images)
        nwbfile.add_stimulus(index_series(images, [0, 1], rate=RATE))

    with pytest.raises(
        RetinaCodecError, match=r"one size; im0 and others have \[\(4, 3\), \(5, 3\)"
    ):
        read_nwb(write(tmp_path / "b.nwb", uneven, stimulus=()))


# Presentations that name a template


def test_a_table_of_presentations_with_frame_numbers(tmp_path):
    starts = 2 + np.arange(36) / 30

    def fill(nwbfile):
        nwbfile.add_stimulus_template(movie("clip", PICTURES))
        table = intervals(
            "clip_presentations", starts, starts + 1 / 30, frame=np.tile(np.arange(12.0), 3)
        )
        nwbfile.add_time_intervals(table)

    recording = read_nwb(
        write(tmp_path / "a.nwb", fill, stimulus=(), spikes={1: [2.01, 2.45, 9.0]})
    )
    np.testing.assert_array_equal(recording["test/stimulus"], PICTURES)
    assert recording.attrs["frame_rate"] == pytest.approx(30)
    rate = recording["test/repeats/rate"].values[:, :, 0]
    assert np.argwhere(rate).tolist() == [[0, 0], [1, 1]]
    assert "by the column 'frame'" in recording.attrs["reading"]


def test_presentations_of_several_templates_by_picture_name(tmp_path):
    starts = np.arange(6) * 0.5
    names = ["im3", "im1", "clip", "im3", "im0", "clip"]

    def fill(nwbfile):
        nwbfile.add_stimulus_template(pictures("scenes", order=range(12)))
        nwbfile.add_stimulus_template(movie("clip", FRAMES))
        table = intervals(
            "flash_presentations",
            starts,
            starts + 0.25,
            stimulus=["scenes", "scenes", "clip", "scenes", "scenes", "clip"],
            image_name=names,
        )
        nwbfile.add_time_intervals(table)

    path = write(tmp_path / "a.nwb", fill, stimulus=())
    found = shown(path, frame_rate=8, blank=0)
    expected = np.zeros((18, 4, 3), "u1")
    for bin_, number in {0: 3, 4: 1, 12: 3, 16: 0}.items():
        expected[bin_ : bin_ + 2] = PICTURES[number]
    np.testing.assert_array_equal(found, expected)


# Seeds


def test_frames_from_a_seed_in_the_words_of_the_series(tmp_path):
    words = {"generator": "numpy", "seed": 7, "bright": 200, "dark": 50}

    def fill(nwbfile):
        series = ImageSeries(
            name="noise",
            external_file=[""],
            format="external",
            starting_frame=[0],
            num_samples=30,
            dimension=[5, 4],
            timestamps=np.arange(30) / RATE,
            comments=json.dumps(words),
        )
        nwbfile.add_stimulus(series)

    def empty(file):
        del file["stimulus/presentation/noise/external_file"]

    recording = read_nwb(write(tmp_path / "a.nwb", fill, stimulus=(), mend=empty))
    draw = np.random.default_rng(7).random((30, 4, 5))
    np.testing.assert_array_equal(recording["test/stimulus"], np.where(draw < 0.5, 200, 50))
    assert "made from seed 7 by numpy" in recording.attrs["reading"]


def test_frames_that_the_user_gives(tmp_path):
    path = write(tmp_path / "a.nwb")
    other = np.random.default_rng(9).random((60, 5, 6), dtype=np.float32)
    np.testing.assert_array_equal(shown(path, frames=other), other)
    seeded = SeededFrames("minimal_standard", seed=1, shape=(60, 5, 6))
    np.testing.assert_array_equal(shown(path, frames=seeded), seeded.read(np.arange(60)))
    with pytest.raises(
        RetinaCodecError, match=r"an array \(time, y, x\), .*; got an array of shape \(60, 5\)"
    ):
        read_nwb(path, frames=other[:, :, 0])


def test_bins_finer_than_frames(tmp_path):
    recording = read_nwb(write(tmp_path / "a.nwb"), bins_per_frame=4)
    np.testing.assert_array_equal(recording["test/stimulus"], np.repeat(FRAMES, 4, axis=0))
    assert recording.attrs["frame_rate"] == 4 * RATE
    expected = counted(SPIKES, np.arange(240) / (4 * RATE), 1 / (4 * RATE))
    np.testing.assert_array_equal(recording["test/spike_count"], expected)


def test_bins_finer_than_frames_of_two_presentations(tmp_path):
    """Presentations are compared by their frames where no picture has a number."""
    path = write(tmp_path / "a.nwb", stimulus=movie(data=np.concatenate([FRAMES[:20]] * 2)))
    shown = {"test": [(0, 0.4), (0.4, 0.8)]}
    recording = read_nwb(path, splits=shown, bins_per_frame=2)
    np.testing.assert_array_equal(recording["test/stimulus"], np.repeat(FRAMES[:20], 2, axis=0))
    assert recording["test/repeats"].sizes["repeat"] == 2


def test_train_and_test_from_two_series(tmp_path):
    other = np.random.default_rng(5).integers(0, 255, (30, 4, 3), dtype=np.uint8)
    series = [movie("noise"), movie("clip", other, starting_time=2.0)]
    path = write(tmp_path / "a.nwb", stimulus=series, spikes={1: [0.1, 1.9, 2.1]})
    recording = read_nwb(path, stimulus={"train": "noise", "test": "clip"})
    np.testing.assert_array_equal(recording["train/stimulus"], FRAMES)
    np.testing.assert_array_equal(recording["test/stimulus"], other)
    assert recording["train/spike_count"].values.sum() == 1
    assert float(recording["test/time"][0]) == 2.0
    assert int(recording["clock/spikes_outside"][0]) == 1
    with pytest.raises(RetinaCodecError, match="or one for 'test' and perhaps for 'train'"):
        read_nwb(path, stimulus={"train": "noise"})


# What files leave unknown


@pytest.mark.parametrize("value", [np.float32(np.nan), "NaN", np.float32(0), np.float64(np.inf)])
@pytest.mark.parametrize("name", ["conversion", "offset"])
def test_a_factor_that_is_none_is_told_and_the_usual_one_taken(tmp_path, name, value):
    def mend(file):
        file["stimulus/presentation/movie/data"].attrs[name] = value

    path = write(tmp_path / "a.nwb", mend=mend)
    if name == "offset" and value == 0:
        np.testing.assert_array_equal(shown(path), FRAMES)
        return
    with pytest.warns(RecordingWarning, match=rf"{name} of /stimulus.* is .* is taken"):
        np.testing.assert_array_equal(shown(path), FRAMES)


@pytest.mark.parametrize("view", [[np.nan, 1.0], [0.0, 0.0], [-1.0, 2.0], [np.inf, 1.0]])
def test_a_field_of_view_that_is_none_leaves_the_pixel_size_unknown(tmp_path, view):
    stimulus = OpticalSeries(
        name="movie", data=FRAMES, unit="n/a", rate=RATE, distance=1.0,
        field_of_view=view, orientation="up",
    )  # fmt: skip
    recording = read_nwb(write(tmp_path / "a.nwb", stimulus=stimulus))
    assert np.isnan(recording.attrs["pixel_size"])


TURNED = np.moveaxis(FRAMES, 0, -1)  # (y, x, time)


def test_time_as_the_last_axis_is_a_doubt_and_taken_as_told(tmp_path):
    path = write(tmp_path / "a.nwb", stimulus=movie(data=TURNED))
    with pytest.warns(RecordingWarning, match=r"read as 4 frames of 3 × 60 px.*axis_order='xyt'"):
        read_nwb(path)
    np.testing.assert_array_equal(shown(path, axis_order="yxt"), FRAMES)
    read_nwb(path, axis_order="tyx")  # so said, no doubt is left


@pytest.mark.parametrize(
    ("more", "stamps"),
    [({}, np.arange(60) / RATE), ({"dimension": [3, 4]}, None), ({"dimension": [4, 3]}, None)],
)
def test_time_as_the_last_axis_is_refused_where_the_file_contradicts(tmp_path, more, stamps):
    def mend(file):
        if stamps is not None:  # pynwb warns of them
            del file["stimulus/presentation/movie/starting_time"]
            file["stimulus/presentation/movie/timestamps"] = stamps

    path = write(tmp_path / "a.nwb", stimulus=movie(data=TURNED, **more), mend=mend)
    with pytest.raises(RetinaCodecError, match=r"Pass axis_order='xyt' or axis_order='yxt'"):
        read_nwb(path)
    np.testing.assert_array_equal(shown(path, axis_order="yxt"), FRAMES)


@pytest.mark.parametrize("more", [{"timestamps": np.arange(5) / RATE}, {"dimension": [9, 8]}])
def test_few_frames_are_no_doubt_where_the_file_confirms_them(tmp_path, more):
    few = np.random.default_rng(0).integers(0, 255, (5, 8, 9), dtype=np.uint8)
    path = write(tmp_path / "a.nwb", stimulus=movie(data=few, **more))
    np.testing.assert_array_equal(shown(path), few)


def test_frames_that_were_never_written_are_told(tmp_path):
    def mend(file):
        group = file["stimulus/presentation/movie"]
        attributes = dict(group["data"].attrs)
        del group["data"]
        made = group.create_dataset("data", (60, 4, 3), "u1", chunks=(10, 4, 3))
        made[:30] = FRAMES[:30]
        made.attrs.update(attributes)

    path = write(tmp_path / "a.nwb", mend=mend)
    with pytest.warns(RecordingWarning, match="50 % of its values were never written"):
        np.testing.assert_array_equal(shown(path)[:30], FRAMES[:30])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_frames_that_are_not_finite_are_told(tmp_path, bad):
    frames = FRAMES.astype(np.float32)
    frames[-3:] = bad
    path = write(tmp_path / "a.nwb", stimulus=movie(data=frames))
    with pytest.warns(RecordingWarning, match="frames of test hold NaN or infinity"):
        read_nwb(path)


# Frames and movies that the file does not call a stimulus


def test_frames_and_their_times_need_no_stimulus_in_the_file(tmp_path):
    path = write(tmp_path / "a.nwb", stimulus=())
    onsets = 0.013 + np.arange(60) / RATE
    for frames in (FRAMES, tmp_path / "frames.npy"):
        np.save(tmp_path / "frames.npy", FRAMES)
        recording = read_nwb(path, frames=frames, frame_times=onsets)
        np.testing.assert_array_equal(recording["test/stimulus"], FRAMES)
        expected = counted(SPIKES, onsets, 1 / RATE)
        np.testing.assert_array_equal(recording["test/spike_count"], expected)
    with pytest.raises(RetinaCodecError, match="it has 59 for 60 frames"):
        read_nwb(path, frames=FRAMES, frame_times=onsets[:-1])
    with pytest.raises(RetinaCodecError, match=r"Pass frames=ARRAY and frame_times=ONSETS"):
        read_nwb(path, frames=FRAMES)
    with pytest.raises(RetinaCodecError, match=r"must be a \.npy file that can be read"):
        read_nwb(path, frames="nowhere.npy", frame_times=onsets)


@pytest.mark.parametrize("place", ["acquisition", "processing/vision", "stimulus/templates"])
def test_a_movie_elsewhere_is_taken_by_name_or_path(tmp_path, place):
    def fill(nwbfile):
        if place == "acquisition":
            nwbfile.add_acquisition(movie())
        elif place == "stimulus/templates":
            nwbfile.add_stimulus_template(movie())
        else:
            nwbfile.create_processing_module("vision", "shown").add(movie())

    path = write(tmp_path / "a.nwb", fill, stimulus=())
    with pytest.raises(
        RetinaCodecError, match=rf"{place}/movie elsewhere\. Pass stimulus='{place}"
    ):
        read_nwb(path)
    for name in ("movie", f"{place}/movie"):
        recording = read_nwb(path, stimulus=name)
        np.testing.assert_array_equal(recording["test/stimulus"], FRAMES)
    timed = read_nwb(path, stimulus="movie", frames=255 - FRAMES)
    np.testing.assert_array_equal(timed["test/stimulus"], 255 - FRAMES)


def test_a_movie_of_cells_is_not_proposed_as_the_stimulus(tmp_path):
    def mend(file):
        file.move("stimulus/presentation/movie", "acquisition/movie")
        file["acquisition/movie"].attrs["neurodata_type"] = "TwoPhotonSeries"

    with pytest.raises(RetinaCodecError, match=r"it has none\. Pass frames=") as caught:
        read_nwb(write(tmp_path / "a.nwb", mend=mend))
    assert "acquisition" not in str(caught.value)


def test_frames_of_torch_are_frames(tmp_path):
    torch = pytest.importorskip("torch")
    path = write(tmp_path / "a.nwb")
    np.testing.assert_array_equal(shown(path, frames=torch.from_numpy(255 - FRAMES)), 255 - FRAMES)


def raw(file):
    """Raw data in other files, as links, that were not copied along."""
    file["acquisition/ElectricalSeries"] = h5py.ExternalLink("raw.h5", "/acquisition/raw")
    file["acquisition/far"] = h5py.ExternalLink("/data/rig/raw.h5", "/acquisition/raw")
    file.create_group("processing/ecephys")["LFP"] = h5py.ExternalLink("lfp.h5", "/lfp")
    file["stimulus/templates/pictures"] = h5py.ExternalLink("pictures.h5", "/pictures")
    stored = file["acquisition"].create_group("beside")
    stored.create_dataset("data", (5,), "i2", external=[("raw.bin", 0, 10)])


def test_raw_data_that_is_not_beside_is_not_needed(tmp_path):
    recording = read_nwb(write(tmp_path / "a.nwb", mend=raw))
    np.testing.assert_array_equal(recording["test/stimulus"], FRAMES)
    assert (
        "cannot be reached, and was not needed: ElectricalSeries, far"
        in (recording.attrs["reading"])
    )


def test_a_second_movie_that_is_not_beside_is_asked_for_like_any(tmp_path):
    def mend(file):
        file["stimulus/presentation/second"] = h5py.ExternalLink("second.h5", "/movie")

    path = write(tmp_path / "a.nwb", mend=mend)
    with pytest.raises(RetinaCodecError, match="must have one stimulus; it has movie, second"):
        read_nwb(path)
    np.testing.assert_array_equal(shown(path, stimulus="movie"), FRAMES)
    with pytest.raises(RetinaCodecError, match=r"'second\.h5', and no file is there"):
        read_nwb(path, stimulus="second")


# Tables that name a movie


def plays(nwbfile, names=("noise", "film", "film"), **more):
    nwbfile.add_stimulus_template(movie("noise", data=FRAMES[:20]))
    nwbfile.add_stimulus_template(movie("film", data=FRAMES[20:30]))
    starts, length = [0.0, 0.5, 0.8], {"noise": 0.4, "film": 0.2}
    stops = [start + length[name] for start, name in zip(starts, names, strict=True)]
    nwbfile.add_time_intervals(intervals("movies", starts, stops, stimulus_name=names, **more))


def test_rows_that_name_a_movie_play_it_whole(tmp_path):
    path = write(tmp_path / "a.nwb", plays, stimulus=())
    with pytest.raises(RetinaCodecError, match="one stimulus; it has movies/film, movies/noise"):
        read_nwb(path)
    recording = read_nwb(path, stimulus={"train": "movies/noise", "test": "movies/film"})
    np.testing.assert_array_equal(recording["train/stimulus"], FRAMES[:20])
    np.testing.assert_array_equal(recording["test/stimulus"], FRAMES[20:30])
    assert recording["test/repeats/start_time"].values.tolist() == [0.5, 0.8]
    for repeat, start in enumerate((0.5, 0.8)):
        expected = counted(SPIKES, start + np.arange(10) / RATE, 1 / RATE)
        found = recording["test/repeats/rate"].values[repeat] / RATE
        np.testing.assert_allclose(found, expected)
    assert "2 presentations of the whole of /stimulus/templates/film" in recording.attrs["reading"]


def test_rows_of_another_length_than_their_movie_are_a_doubt(tmp_path):
    def fill(nwbfile):
        nwbfile.add_stimulus_template(movie("film", data=FRAMES))
        nwbfile.add_time_intervals(intervals("film_shown", [0.0, 0.6], [0.5, 1.1]))

    path = write(tmp_path / "a.nwb", fill, stimulus=())
    with pytest.warns(RecordingWarning, match=r"last 0\.5 s and the 60 frames .* 1\.2 s"):
        recording = read_nwb(path)
    np.testing.assert_array_equal(recording["test/stimulus"], FRAMES[:25])


def test_movies_on_two_scales_are_a_doubt(tmp_path):
    noise = movie("noise", data=(FRAMES[:20] > 127).astype(np.uint8))
    film = movie("film", data=FRAMES[20:], starting_time=0.4)
    path = write(tmp_path / "a.nwb", stimulus=[noise, film])
    both = {"train": "noise", "test": "film"}
    with pytest.warns(RecordingWarning, match=r"train lie in 0 to 1 and those of test in"):
        read_nwb(path, stimulus=both)
