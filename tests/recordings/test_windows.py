import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from retina_codec.errors import RetinaCodecError
from retina_codec.recordings import windows as module
from retina_codec.recordings.windows import StimulusWindows, in_one_block, window_view
from tests.reference.windows import windows as reference_windows


def make_stimulus(frames=30, height=3, width=2, dtype="uint8", seed=0, rate=100.0, start=0.0):
    values = np.random.default_rng(seed).integers(0, 256, (frames, height, width)).astype(dtype)
    coords = {"time": start + np.arange(frames) / rate}
    return xr.DataArray(values, dims=("time", "y", "x"), coords=coords)


def gather(windows, batch_size):
    slices, batches = zip(*windows.batches(batch_size), strict=True)
    covered = np.concatenate([np.arange(len(windows))[s] for s in slices])
    np.testing.assert_array_equal(covered, np.arange(len(windows)))
    return torch.cat(batches).numpy()


def test_window_view_is_a_view_with_the_values_of_numpys_sliding_windows():
    frames = torch.arange(7 * 3 * 2.0).reshape(7, 3, 2)
    view = window_view(frames, 4)
    expected = np.lib.stride_tricks.sliding_window_view(frames.numpy(), 4, axis=0)
    np.testing.assert_array_equal(view.numpy(), np.moveaxis(expected, -1, 1))
    assert view.data_ptr() == frames.data_ptr()
    assert view.untyped_storage().nbytes() == frames.untyped_storage().nbytes()


@settings(max_examples=40, deadline=None)
@given(
    frames=st.integers(2, 40),
    history=st.integers(1, 39),
    batch_size=st.integers(1, 50),
    per_read=st.integers(1, 60),
    seed=st.integers(0, 5),
)
def test_batches_equal_the_slow_definition(frames, history, batch_size, per_read, seed):
    if frames <= history:
        frames = history + 1
    stimulus = make_stimulus(frames, seed=seed)
    expected = reference_windows(stimulus.values, history, 100.0, 30.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "READ_BYTES", per_read * 3 * 2 * 4)
        windows = StimulusWindows(stimulus, history, mean=100.0, std=30.0)
        found = gather(windows, batch_size)
    assert len(windows) == frames - history
    # float32 rounding of numbers of order 5
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_every_frame_is_read_once_and_windows_are_never_copied(batch_size, monkeypatch):
    monkeypatch.setattr(module, "READ_BYTES", 10 * 3 * 2 * 4)
    windows = StimulusWindows(make_stimulus(100), 20)
    read = []
    original = windows._read
    monkeypatch.setattr(windows, "_read", lambda a, b: read.extend(range(a, b)) or original(a, b))
    for chosen, batch in windows.batches(batch_size):
        count = chosen.stop - chosen.start
        frames_held = batch.untyped_storage().nbytes() / (3 * 2 * 4)
        assert frames_held <= count + 19 + max(10, batch_size)
    assert read == list(range(99))  # the last frame precedes no response


def test_a_flash_appears_as_the_newest_frame_of_the_next_bin():
    stimulus = make_stimulus(12) * 0
    stimulus[5] = 1
    windows = StimulusWindows(stimulus, 4)
    values = gather(windows, 5)[:, :, 0, 0]
    where = {(float(windows.time[i]), float(windows.lag[k])) for i, k in np.argwhere(values)}
    expected = {(0.06, 0.01), (0.07, 0.02), (0.08, 0.03), (0.09, 0.04)}
    assert {(round(t, 9), round(lag, 9)) for t, lag in where} == expected


def test_time_and_lag_are_labelled():
    stimulus = make_stimulus(12, rate=50.0, start=3.0)
    windows = StimulusWindows(stimulus, 4)
    np.testing.assert_allclose(windows.lag, [0.08, 0.06, 0.04, 0.02])
    np.testing.assert_allclose(windows.lag["lag"], windows.lag)
    assert windows.lag.attrs["units"] == "s"
    xr.testing.assert_equal(windows.time, stimulus["time"][4:])
    assert windows.frame_shape == (3, 2)


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float64", ">f4", "bool"])
def test_at_equals_the_windows_of_the_batches(dtype, lazy):
    stimulus = make_stimulus(40, dtype=dtype)
    values = stimulus.values.copy()
    values.flags.writeable = False
    stimulus = stimulus.copy(data=values)
    if lazy:
        stimulus = stimulus.chunk(time=7)
    windows = StimulusWindows(stimulus, 6, mean=3.0, std=2.0)
    indices = [33, 0, 5, 5, 12, 11]
    found = windows.at(indices)
    expected = reference_windows(values, 6, 3.0, 2.0)
    np.testing.assert_allclose(found.numpy(), expected[indices], rtol=1e-6)
    np.testing.assert_allclose(gather(windows, 9), expected, rtol=1e-6)
    np.testing.assert_array_equal(values, stimulus.values)


def test_dtype_and_dim_order_are_honoured():
    stimulus = make_stimulus(20)
    windows = StimulusWindows(
        stimulus.transpose("x", "time", "y"), 3, mean=1.1, dtype=torch.float64
    )
    expected = reference_windows(stimulus.values, 3, 1.1, 1.0)
    assert windows.frames(0, 4).dtype == torch.float64
    np.testing.assert_allclose(gather(windows, 4), expected, rtol=1e-15)
    np.testing.assert_allclose(windows.frames(2, 5).numpy(), stimulus.values[2:5] - 1.1, rtol=1e-15)


def broken_stimulus(value):
    stimulus = make_stimulus(30, dtype="float32", start=2.0)
    stimulus[17, 1, 1] = value
    return stimulus


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("lazy", [False, True])
def test_nan_in_the_stimulus_is_refused_with_its_time(value, lazy):
    stimulus = broken_stimulus(value)
    windows = StimulusWindows(stimulus.chunk(time=8) if lazy else stimulus, 5)
    message = r"finite.* at time 2\.17 s \(frame 17\)"
    with pytest.raises(RetinaCodecError, match=message):
        gather(windows, 4)
    with pytest.raises(RetinaCodecError, match=message):
        windows.at([15])
    assert windows.at([2]).isfinite().all()  # frames 2 to 6


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda s: s[:40], {"history": 40}, r"longer than the history; it has 40 frames.* is 40"),
        (lambda s: s.rename(x="column"), {}, "dims time, y and x; got"),
        (lambda s: s.drop_vars("time"), {}, "time coordinate"),
        (lambda s: s, {"history": 0}, "history must be at least 1"),
        (lambda s: s, {"std": 0.0}, "std positive; got mean=0.0, std=0.0"),
        (lambda s: s, {"mean": np.nan}, "mean must be finite"),
    ],
)
def test_bad_input_is_named(change, options, message):
    with pytest.raises(RetinaCodecError, match=message):
        StimulusWindows(change(make_stimulus(60)), **{"history": 5, **options})


@pytest.mark.parametrize("indices", [[-1], [25], []])
def test_response_indices_must_exist(indices):
    with pytest.raises(RetinaCodecError, match=r"response indices must lie in 0\.\.24"):
        StimulusWindows(make_stimulus(30), 5).at(indices)


def test_batch_size_must_be_positive():
    with pytest.raises(RetinaCodecError, match="batch_size"):
        next(StimulusWindows(make_stimulus(30), 5).batches(0))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_windows_are_the_same_on_the_device():
    windows = StimulusWindows(make_stimulus(50), 6, mean=100.0, std=30.0)
    for (_, here), (_, there) in zip(
        windows.batches(8), windows.batches(8, device="cuda"), strict=True
    ):
        assert there.device.type == "cuda"
        np.testing.assert_allclose(there.cpu().numpy(), here.numpy(), rtol=1e-6)
    assert windows.at([3, 1], device="cuda").device.type == "cuda"


@pytest.mark.parametrize("history", [1, 3, 7])
def test_windows_in_one_block_by_hand(history):
    """A window is used if its frames and its bin, frame by frame, have the same block."""
    block = np.array([0, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0])
    split = xr.Dataset(coords={"time": np.arange(12.0), "block": ("time", block)})
    expected = [len(set(block[t : t + history + 1])) == 1 for t in range(12 - history)]
    np.testing.assert_array_equal(in_one_block(split, history), expected)
    assert in_one_block(split.drop_vars("block"), history).all()
