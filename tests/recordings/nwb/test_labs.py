"""Files in the style of two public collections, and the frames and spikes they were made from."""

import h5py
import numpy as np
import pytest
from pynwb.base import Images
from pynwb.file import Subject
from pynwb.image import GrayscaleImage, ImageSeries, IndexSeries

from retina_codec.errors import RecordingWarning, RetinaCodecError
from retina_codec.recordings.frames.seeded import SeededFrames
from retina_codec.recordings.nwb.reader import read_nwb
from tests.recordings.nwb_files import ALL_TEST, counted, intervals, write

pytestmark = pytest.mark.filterwarnings(ALL_TEST)

NOISE = (900, 8, 6)  # frames, rows, columns
OFFSET = 12.0  # s, from wall clock, whole seconds
STEP = 1 / 30


def meister_style(folder):
    """White noise of 0 and 255 from bits, in another file behind a link, in a type of an extension.

    Explicit timestamps, an epoch that ends a second late, spikes of two segments joined, no types.
    """
    bits = np.random.default_rng(3).integers(0, 256, NOISE[0] * 6, dtype=np.uint8)
    (folder / "ran1.bin").write_bytes(bits.tobytes())
    frames = (np.unpackbits(bits).reshape(NOISE) * 255).astype(np.uint8)
    with h5py.File(folder / "stimulus.h5", "w") as file:
        file["noise"] = frames
    times = OFFSET + np.arange(NOISE[0]) * STEP
    random = np.random.default_rng(4)
    spikes = {
        cell: np.sort(np.r_[random.uniform(0, 8, 20), random.uniform(12, 41, 300)]).tolist()
        for cell in (3, 11, 24)
    }

    def fill(nwbfile):
        series = ImageSeries(
            name="stim_1",
            data=np.zeros(NOISE, "u1"),
            unit="n/a",
            timestamps=times,
            dimension=[6, 8],  # columns, rows
        )
        nwbfile.add_stimulus(series)
        nwbfile.add_epoch(OFFSET, times[-1] + 1.0, tags=["stim_1"])

    def link(file):
        series = file["stimulus/presentation/stim_1"]
        del series["data"]
        series["data"] = h5py.ExternalLink("stimulus.h5", "/noise")
        series.attrs["neurodata_type"] = "MeisterImageSeries"
        series.attrs["namespace"] = "ndx-meister"
        for name, value in {"x": 0.0, "y": 0.0, "dx": 8.3, "dy": 8.3, "pixel_size": 8.3}.items():
            series[name] = value

    path = write(folder / "ret1.nwb", fill, stimulus=(), spikes=spikes, mend=link)
    return path, frames, times, spikes


def test_a_file_like_crcns_ret_1(tmp_path):
    path, frames, times, spikes = meister_style(tmp_path)
    with pytest.warns(RecordingWarning, match=r"reaches 0\.967 s beyond its frames"):
        recording = read_nwb(path, splits={"test": {"tags": "stim_1"}})
    np.testing.assert_array_equal(recording["test/stimulus"], frames)
    np.testing.assert_array_equal(recording["test/spike_count"], counted(spikes, times, STEP))
    assert recording.attrs["frame_rate"] == pytest.approx(30.0)
    assert recording["test/cell"].values.tolist() == [3, 11, 24]
    assert set(recording["test/type"].values) == {"unknown"}
    outside = [sum(not OFFSET <= t < times[-1] + STEP for t in train) for train in spikes.values()]
    assert recording["clock/spikes_outside"].values.tolist() == outside
    assert min(outside) >= 20
    assert "MeisterImageSeries, read as an image series" in recording.attrs["reading"]


def test_the_same_noise_from_its_bits(tmp_path):
    path, frames, _, _ = meister_style(tmp_path)
    (tmp_path / "stimulus.h5").unlink()
    noise = SeededFrames("bits", seed=0, shape=NOISE, file=tmp_path / "ran1.bin")
    recording = read_nwb(path, frames=noise, stimulus="stim_1")
    np.testing.assert_array_equal(recording["test/stimulus"], frames)


def allen_style(path):
    """Templates with many pictures, index series by onset, one table of presentations per stimulus,
    types that need an extension, unsorted ids, units with quality, a stimulus reference per row."""
    random = np.random.default_rng(6)
    scenes = random.integers(0, 255, (12, 6, 10), dtype=np.uint8)
    clip = random.integers(0, 255, (30, 6, 10), dtype=np.uint8)
    onsets = 5.0 + np.arange(24) * 0.75  # shown 0.25 s, then 0.5 s grey
    shown = random.integers(0, 12, 24)
    clip_starts = 30.0 + np.arange(90) / 30
    spikes = {
        950913: np.sort(random.uniform(5, 33, 200)).tolist(),
        950777: np.sort(random.uniform(5, 33, 150)).tolist(),
        951020: [1.0, 2.0],
    }

    def fill(nwbfile):
        nwbfile.subject = Subject(subject_id="m1", species="Mus musculus", age="P90D", sex="F")
        images = Images(
            name="natural_scenes",
            description="templates",
            images=[GrayscaleImage(name=str(n), data=each) for n, each in enumerate(scenes)],
        )
        nwbfile.add_stimulus_template(images)
        nwbfile.add_stimulus_template(
            ImageSeries(name="natural_movie_one", data=clip, unit="n/a", timestamps=np.arange(30.0))
        )
        nwbfile.add_stimulus(
            IndexSeries(
                name="natural_scenes",
                data=shown.astype("u4"),
                unit="N/A",
                indexed_images=images,
                timestamps=onsets,
            )
        )
        nwbfile.add_time_intervals(
            intervals(
                "natural_scenes_presentations",
                onsets,
                onsets + 0.25,
                stimulus_name=["natural_scenes"] * 24,
                frame=shown.astype(float),
            )
        )
        nwbfile.add_time_intervals(
            intervals(
                "natural_movie_one_presentations",
                clip_starts,
                clip_starts + 1 / 30,
                stimulus_name=["natural_movie_one"] * 90,
                frame=np.tile(np.arange(30.0), 3),
            )
        )

    def rename(file):
        file["general/subject"].attrs["neurodata_type"] = "EcephysSpecimen"
        file["general/subject"].attrs["namespace"] = "ndx-aibs-ecephys"

    columns = {"quality": ["good", "good", "noise"], "snr": [2.1, 3.3, 0.4]}
    path = write(path, fill, stimulus=(), spikes=spikes, columns=columns, mend=rename)
    return path, scenes, clip, onsets, shown, spikes


def test_a_file_like_the_allen_sessions(tmp_path):
    path, scenes, _, onsets, shown, spikes = allen_style(tmp_path / "session.nwb")
    with pytest.raises(
        RetinaCodecError, match=r"it has natural_movie_one_pres.*, natural_scenes\."
    ):
        read_nwb(path)
    with pytest.warns(RecordingWarning, match="numbered by name, numbers in names as numbers"):
        recording = read_nwb(
            path, stimulus="natural_scenes", frame_rate=20, blank=128, cells={"quality": "good"}
        )
    expected = np.full((350, 6, 10), 128, dtype=np.uint8)
    for onset, number in zip(onsets, shown, strict=True):
        first = round((onset - 5.0) * 20)
        expected[first : first + 5] = scenes[number]
    np.testing.assert_array_equal(recording["test/stimulus"], expected)
    good = {cell: spikes[cell] for cell in (950913, 950777)}
    bins = 5.0 + np.arange(350) / 20
    np.testing.assert_array_equal(recording["test/spike_count"], counted(good, bins, 1 / 20))
    assert recording.attrs["species"] == "Mus musculus"
    assert "stop_time of /intervals/natural_scenes_presentations" in recording.attrs["reading"]


def test_a_repeated_movie_of_the_allen_sessions(tmp_path):
    path, _, clip, _, _, spikes = allen_style(tmp_path / "session.nwb")
    recording = read_nwb(path, stimulus="natural_movie_one_presentations")
    np.testing.assert_array_equal(recording["test/stimulus"], clip)
    bins = 30.0 + np.arange(90) / 30
    expected = counted(spikes, bins, 1 / 30).reshape(3, 30, 3) * 30
    np.testing.assert_allclose(recording["test/repeats/rate"], expected, rtol=1e-6)
