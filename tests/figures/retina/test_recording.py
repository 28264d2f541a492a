"""The overview of a recording: what is drawn is the data, in every kind of recording."""

from functools import cache

import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr

from retina_codec.errors import RetinaCodecError
from retina_codec.figures.retina.recording import choose_cells, plot_recording
from retina_codec.figures.retina.recording_text import describe
from retina_codec.figures.style import type_colors
from retina_codec.recordings.quality.cells import measure_quality
from retina_codec.recordings.schema import make_recording
from retina_codec.recordings.smoothing import smooth_rates
from tests.figures.checks import assert_readable, has_image, images_of, words_of

RATE = 100.0  # Hz


def recording_of(
    count=6, *, repeats=4, bins=400, types=None, train=False, change=None, names=None, stimulus=None
):
    """Poisson cells around their own slow rates; ``change`` alters the repeats in place."""
    random = np.random.default_rng(count)
    drive = np.repeat(random.normal(size=(bins // 10, count)), 10, axis=0)
    mean = np.exp(1.2 * drive) * random.uniform(0.05, 0.2, count)  # (time, cell) count
    coords = {"time": 20 + np.arange(bins) / RATE, "cell": np.arange(count) if not names else names}
    if types is not None:
        coords["type"] = ("cell", types)
    if stimulus is None:
        stimulus = random.integers(0, 256, (bins, 12, 16), dtype=np.uint8)
    movie = xr.Dataset({"stimulus": (("time", "y", "x"), stimulus)}, coords=coords)
    once = movie.assign(spike_count=(("time", "cell"), random.poisson(mean)))
    each = None
    if repeats:
        rates = random.poisson(np.broadcast_to(mean, (repeats, *mean.shape))) * RATE
        if change is not None:
            change(rates)
        each = xr.Dataset({"rate": (("repeat", "time", "cell"), rates)})
    before = once.assign_coords(time=np.arange(bins) / RATE)
    return make_recording(
        train=before if train else None,
        test=movie if repeats else once,
        repeats=each,
        frame_rate=RATE,
        pixel_size=50.0,
        session="2026-01-02 retina 1",
        species="Ambystoma tigrinum",
        source="made by hand",
    )


def holes(rates):
    rates[2:, 250:, 0] = np.nan
    rates[:, :50, 1] = np.nan
    rates[:, :, 2] = 0
    rates[:, :, 3] = np.nan
    rates[:, :, 4] = 0
    rates[1, 3, 4] = RATE


def clocked():
    recording = recording_of(train=True, types=["ON", "OFF", "ON", "unknown", "OFF", "ON"])
    recording["clock"] = xr.DataTree(
        xr.Dataset(
            {
                "offset": 0.0123,
                "drift": 3.2e-6,
                "jitter": np.nan,
                "dropped_frames": 3,
                "spikes_outside": ("cell", [0, 1, 0, 4, 0, 0]),
            }
        )
    )
    return recording


CASES = {
    "types": lambda: recording_of(types=["ON", "OFF"] * 3, train=True),
    "no repeats": lambda: recording_of(repeats=0),
    "one cell, shown once": lambda: recording_of(1, repeats=1),
    "300 cells": lambda: recording_of(
        300, repeats=3, bins=100, types=[f"type {i % 12}" for i in range(300)]
    ),
    "missing": lambda: recording_of(change=holes),
    "long names, many repeats": lambda: recording_of(
        20, repeats=25, bins=100, names=[f"unit {i} of probe A" for i in range(20)]
    ),
    "clock": clocked,
    "three grey frames": lambda: recording_of(2, bins=10, stimulus=np.full((10, 3, 90), 7.0)).isel(
        time=slice(3)
    ),
    "smoothed": lambda: smooth_rates(recording_of(), width=0.02),
}


@cache
def drawn(case):
    """Draw a case once: recording, figure; look at both and leave them as they are."""
    recording = CASES[case]()
    before, settings = recording.copy(deep=True), dict(mpl.rcParams)
    figure = plot_recording(recording, progress=False)
    xr.testing.assert_identical(recording, before)
    assert dict(mpl.rcParams) == settings
    return recording, figure


@pytest.mark.parametrize("case", CASES)
def test_every_recording_is_drawn_readably_and_left_alone(case):
    _, figure = drawn(case)
    assert_readable(figure)
    assert figure.get_figwidth() == 10.4


def axes_titled(figure, words):
    return next(axes for axes in figure.axes if words in axes.get_title() + axes.get_title("left"))


def test_frames_are_those_of_the_times_written_over_them():
    recording = recording_of()
    figure = plot_recording(recording, duration=2.0)
    shown = [axes for axes in figure.axes if axes.get_title().endswith(" s")]
    assert len(shown) == 6
    assert shown[0].get_title() == "20.00 s"
    assert shown[-1].get_title() == "21.99 s"
    for axes in shown:
        time = float(axes.get_title().split()[0])
        frame = recording["test/stimulus"].sel(time=time, method="nearest").values
        np.testing.assert_array_equal(axes.images[0].get_array(), frame)


def test_only_the_frames_shown_are_read():
    import dask.array as da

    read = []

    def load(block, block_info=None):
        if block_info:
            read.append(block_info[0]["chunk-location"][0])
        return block

    frames = np.random.default_rng(0).random((400, 4, 4))
    lazy = da.from_array(frames, chunks=(1, 4, 4)).map_blocks(load, dtype=float)
    recording = recording_of(2, stimulus=lazy)
    read.clear()
    plot_recording(recording, duration=3.0)
    assert sorted(read) == [0, 60, 120, 179, 239, 299]


def test_rasters_are_the_counts_of_every_presentation():
    recording = recording_of(types=["ON", "OFF"] * 3)
    figure = plot_recording(recording, cells=[4, 1], duration=3.0)
    counts = recording["test/repeats/rate"].values[:, :300] / RATE
    words = words_of(figure)
    for cell in (4, 1):
        assert has_image(figure, np.sqrt(counts[:, :, cell]))
        assert f"cell {cell}\n{['ON', 'OFF'][cell % 2]}" in words
    assert not has_image(figure, np.sqrt(counts[:, :, 0]))
    axes = next(a for a in figure.axes if a.images and a.images[0].get_array().shape == (4, 300))
    assert tuple(axes.images[0].get_extent()) == (20.0, 23.0, 4.0, 0.0)
    once, figure = drawn("no repeats")
    fastest = once["test/spike_count"].values[:, np.argmax(once["test/rate"].mean("time").values)]
    assert has_image(figure, np.sqrt(fastest.astype(float))[None])


def test_missing_bins_are_masked_and_named():
    figure = plot_recording(recording_of(change=holes), cells=[0, 1, 3])
    rasters = [image for image in images_of(figure) if image.shape == (4, 400)]
    assert "pink: not recorded" in words_of(figure)
    masked = [
        np.ma.getmaskarray(image.get_array())
        for axes in figure.axes
        for image in axes.images
        if image.get_array().shape == (4, 400)
    ]
    assert len(rasters) == 3
    assert masked[0][2:, 250:].all()
    assert masked[0].sum() == 2 * 150
    assert masked[1][:, :50].all()
    assert masked[1].sum() == 4 * 50
    assert masked[2].all()
    assert "pink" not in words_of(drawn("types")[1])


def test_the_black_line_is_the_mean_over_recorded_cells():
    recording = recording_of(change=holes, bins=600)
    figure = plot_recording(recording, duration=5.05)
    axes = next(a for a in figure.axes if a.patches and a.get_xlabel() == "time (s)")
    values, edges, _ = axes.patches[-1].get_data()
    rate = recording["test/rate"].values[:505].astype(float)
    expected = [np.nanmean(rate[i : i + 3]) for i in range(0, 505, 3)]
    np.testing.assert_allclose(values, expected)
    np.testing.assert_allclose(edges[:2], [20.0, 20.03])
    assert edges[-1] == pytest.approx(25.05)
    assert "in steps of 30 ms" in words_of(figure)


def test_bars_errors_and_lines_are_the_quality_by_type():
    types = ["ON", "OFF", "ON", "unknown", "OFF", "ON"]
    recording = measure_quality(recording_of(types=types))
    figure = plot_recording(recording)
    quality = recording["quality"].to_dataset()
    order = [1, 4, 0, 2, 5, 3]
    axes = axes_titled(figure, "noise ceiling")
    bars = axes.patches
    np.testing.assert_allclose([b.get_height() for b in bars], quality["reliability"][order])
    colors = type_colors(types)
    assert [b.get_facecolor() for b in bars] == [
        mpl.colors.to_rgba(colors[types[i]]) for i in order
    ]
    sticks, lines = axes.collections
    half = [(s[1][1] - s[0][1]) / 2 for s in sticks.get_segments()]
    np.testing.assert_allclose(half, quality["reliability_error"][order])
    np.testing.assert_allclose(
        [s[0][1] for s in lines.get_segments()], quality["noise_ceiling"][order]
    )
    names = [label.get_text() for label in axes.get_xticklabels()]
    assert names == [str(i) for i in order]
    counts = axes_titled(figure, "cells per type")
    assert [bar.get_width() for bar in counts.patches] == [2, 3, 1]


def test_quality_that_was_measured_is_not_measured_again():
    recording = recording_of()
    odd = measure_quality(recording)
    quality = odd["quality"].to_dataset()
    quality["flag"] = ("cell", ["barks at night", *[""] * 5])
    odd["quality"] = xr.DataTree(quality)
    words = words_of(plot_recording(odd))
    assert "cell 0: barks at night" in words
    assert "flagged: 1 of 6 cells" in words
    assert "flagged: none of 6 cells" in words_of(drawn("smoothed")[1])


@pytest.mark.parametrize(
    ("repeats", "words"),
    [
        (10, "not measured: too few spikes in 10 presentations of the test movie"),
        (0, "not measured: needs at least two presentations of the test movie"),
    ],
)
def test_why_reliability_was_not_measured(repeats, words):
    def silent(rates):
        rates[:] = 0

    recording = recording_of(repeats=repeats, bins=40, change=silent)
    assert words in words_of(plot_recording(recording))


def test_words_tell_clock_session_flags_and_what_was_not_measured():
    words = words_of(drawn("clock")[1])
    for expected in (
        "session: 2026-01-02 retina 1",
        "train 4 s, test 4 s × 4",
        "offset 12.3 ms, drift 3.2 ppm, jitter not known",
        "spikes outside of the frames: 5",
        "not measured: refractory violations",
    ):
        assert expected in words
    assert "duplicated" not in words
    words = words_of(drawn("missing")[1])
    for expected in (
        "cell 2: silent",
        "cell 3: not recorded",
        "cell 4: nearly silent, 0.062 Hz; too few spikes for reliability",
        "bins without a recording: ",
        "clock: no report",
        "no train split",
    ):
        assert expected in words
    words = words_of(drawn("smoothed")[1])
    assert "rates are smoothed: gaussian, 20 ms" in words
    assert "rate × bin, smoothed" in words
    assert "spikes per bin" not in words


def test_a_drift_is_told_in_parts_per_million_and_long_times_in_seconds():
    recording = measure_quality(recording_of(2, bins=50))
    scalars = {"drift": ((), -41.5, {"units": "ppm"}), "offset": ((), 1203.25), "pauses": ((), 2)}
    recording["clock"] = xr.DataTree(xr.Dataset(scalars))
    session, _ = describe(recording)
    assert "clock: offset 1203 s, drift -41.5 ppm, 2 pauses" in session


def test_cells_are_the_most_reliable_of_each_type():
    types = ["ON", "OFF", "ON", "unknown", "OFF", "ON"]
    recording = measure_quality(recording_of(types=types, bins=50))
    quality = recording["quality"].to_dataset()
    quality["reliability"].values[:] = [0.5, 0.9, 0.7, np.nan, 0.2, 0.6]
    recording["quality"] = xr.DataTree(quality)
    assert choose_cells(recording, None).tolist() == [1, 4, 2, 5, 3]  # the third ON is left out
    quality["reliability"].values[:] = np.nan
    quality["mean_rate"].values[:] = [[1, 2, 3, 4, 5, 6]]
    recording["quality"] = xr.DataTree(quality)
    assert choose_cells(recording, None).tolist() == [4, 1, 5, 2, 3]
    assert choose_cells(recording, np.array([3, 0])).tolist() == [3, 0]


def test_bad_options_are_named():
    recording = recording_of(2)
    for cells in ([0, 9], []):
        with pytest.raises(RetinaCodecError, match="at least one cell of the recording"):
            plot_recording(recording, cells=cells)
    with pytest.raises(RetinaCodecError, match="positive number of s"):
        plot_recording(recording, duration=0)
    with pytest.raises(RetinaCodecError, match="not a valid recording"):
        plot_recording(xr.DataTree())
