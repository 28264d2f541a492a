import copy

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

from retina_codec.analysis.fields import all_fields as module
from retina_codec.analysis.fields.all_fields import all_fields, whole_frames
from retina_codec.analysis.fields.fields import instantaneous_fields
from retina_codec.errors import RetinaCodecError
from tests.reference.receptive_fields import rank_one_by_svd
from tests.small import HISTORY, small_network, small_recording

BINS = 100


@pytest.fixture(scope="module")
def network():
    return small_network()


@pytest.fixture(scope="module")
def split(network):
    return small_recording(network, bins=BINS)["test"].to_dataset()


@pytest.fixture(scope="module")
def found(network, split):
    return all_fields(network, split, progress=False)


def windows_of(network, split):
    scale = network.normalisation
    frames = (split["stimulus"].values.astype("f4") - scale.mean) / scale.std
    return torch.as_tensor(np.stack([frames[i : i + HISTORY] for i in range(BINS - HISTORY)]))


def test_every_time_and_cell_has_the_best_product(network, split, found):
    windows = windows_of(network, split)
    images = whole_frames(found)
    for t in (0, 3, 63, 64, BINS - HISTORY - 1):  # pieces meet at 64
        fields = instantaneous_fields(network, windows[t : t + 1])[0].double().numpy()
        for cell in (0, 3):
            image, course, share = rank_one_by_svd(fields[cell])
            sign = np.sign(course @ found["temporal"].values[t, cell, 0])
            largest = np.abs(image).max()
            np.testing.assert_allclose(images[t, cell, 0], sign * image, atol=1e-3 * largest)
            np.testing.assert_allclose(found["temporal"][t, cell, 0], sign * course, atol=1e-3)
            np.testing.assert_allclose(found["explained"][t, cell, 0], share, rtol=1e-4)
    with torch.no_grad():
        np.testing.assert_allclose(found["prediction"], network(windows), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found["time"], split["time"][HISTORY:])
    np.testing.assert_allclose(found["lag"], np.arange(HISTORY, 0, -1) / 100)
    assert found["type"].values.tolist() == list(network.cell_types)


def test_with_a_wide_field_every_cell_sees_the_whole_frame():
    network = small_network(surround=True)
    split = small_recording(network, bins=BINS)["test"].to_dataset().isel(time=slice(0, 30))
    found = all_fields(network, split, rank=HISTORY, progress=False)
    assert found.sizes["y"] == 16
    assert not found["first_y"].any()
    frames = (split["stimulus"].values.astype("f4") - 127.5) / 60.0
    window = torch.as_tensor(frames[:HISTORY])[None]
    fields = instantaneous_fields(network, window)[0].numpy()
    product = found["temporal"] * whole_frames(found)
    rebuilt = product.sum("component").isel(time=0) + found["mean"].isel(time=0)
    rebuilt = rebuilt.transpose("cell", "lag", "y", "x")
    np.testing.assert_allclose(rebuilt, fields, atol=1e-3 * np.abs(fields).max())


@pytest.mark.parametrize("every", [2, 7])
def test_every_so_manieth_time_is_a_selection(network, split, found, every):
    some = all_fields(network, split, every=every, batch_size=3, progress=False)
    for name in ("spatial", "explained", "prediction", "mean"):
        expected = found[name].isel(time=slice(None, None, every))
        scale = float(np.abs(expected).max())
        np.testing.assert_allclose(some[name], expected, atol=1e-4 * scale, err_msg=name)
    np.testing.assert_array_equal(some["time"], found["time"][::every])


def test_windows_give_what_a_recording_gives(network, split, found):
    windows = xr.DataArray(windows_of(network, split).numpy(), dims=("time", "lag", "y", "x"))
    again = all_fields(network, windows.assign_coords(time=found["time"].values), progress=False)
    for name in found.data_vars:
        scale = float(np.abs(found[name]).max())
        np.testing.assert_allclose(again[name], found[name], atol=1e-4 * scale, err_msg=name)


def test_more_products_explain_more_and_the_first_stays(network, split, found):
    more = all_fields(network, split, rank=3, every=5, progress=False)
    first = found["explained"].values[::5, :, 0]
    np.testing.assert_allclose(more["explained"].values[..., 0], first, rtol=1e-4)
    total = more["explained"].sum("component", skipna=False).values
    alive = np.isfinite(first)
    assert alive.mean() > 0.9  # at few times a cell has no gradient at all
    np.testing.assert_array_equal(np.isfinite(total), alive)
    assert (np.diff(more["explained"].values[alive], axis=-1) <= 1e-6).all()
    assert (total[alive] > first[alive] + 1e-3).all()
    assert (total[alive] <= 1 + 1e-5).all()


def test_a_store_continues_where_it_stopped(network, split, found, tmp_path, monkeypatch):
    path = tmp_path / "fields.zarr"
    done = []
    compute = module._Worker.piece

    def stop_after_one(self, number):
        if done:
            raise KeyboardInterrupt
        done.append(number)
        return compute(self, number)

    monkeypatch.setattr(module._Worker, "piece", stop_after_one)
    with pytest.raises(KeyboardInterrupt):
        all_fields(network, split, store=path, progress=False)
    assert not path.exists()

    def only_the_second(self, number):
        done.append(number)
        return compute(self, number)

    monkeypatch.setattr(module._Worker, "piece", only_the_second)
    stored = all_fields(network, split, store=path, progress=False)
    assert done == [0, 1]
    assert not path.with_name("fields.zarr.partial").exists()
    xr.testing.assert_allclose(stored.load(), found, rtol=1e-6)
    assert {n: v.attrs for n, v in stored.items()} == {n: v.attrs for n, v in found.items()}
    again = all_fields(network, split, store=path, progress=False)  # opened, not computed
    assert done == [0, 1]
    xr.testing.assert_identical(again.load(), stored.load())
    with pytest.raises(RetinaCodecError, match=r"settings: rank=1, every=1.*rank=2"):
        all_fields(network, split, rank=2, store=path, progress=False)


def test_a_store_is_of_one_network_and_whole(network, split, tmp_path):
    path = tmp_path / "fields.zarr"
    all_fields(network, split, store=path, progress=False).close()
    other = copy.deepcopy(network)
    other.note = 1
    with pytest.raises(RetinaCodecError, match=r"another \(network.note: nothing there, 1 here"):
        all_fields(other, split, store=path, progress=False)
    torch.set_default_dtype(torch.float64)
    try:
        with pytest.raises(RetinaCodecError, match=r"another \(default_dtype: float32 there"):
            all_fields(network, split, store=path, progress=False)
    finally:
        torch.set_default_dtype(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):  # which a borrowed network does not heed
        all_fields(network, split, store=path, progress=False).close()
    chunk = next(file for file in (path / "spatial/c").rglob("*") if file.is_file())
    chunk.write_bytes(chunk.read_bytes()[:-1])
    with pytest.raises(RetinaCodecError, match=r"must be whole.*spatial/c/"):
        all_fields(network, split, store=path, progress=False)


def test_what_is_in_the_way_stays(network, split, tmp_path):
    other = tmp_path / "mine.zarr.partial"
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    with pytest.raises(RetinaCodecError, match=r"holds 'notes.txt' and does not say"):
        all_fields(network, split, store=tmp_path / "mine.zarr", progress=False)
    assert (other / "notes.txt").read_text() == "mine"


def test_bad_input_is_one_clear_error(network, split, tmp_path, monkeypatch):
    for settings, message in (
        ({"rank": 0}, "rank must be at least 1; got 0"),
        ({"every": 0}, "every must be at least 1"),
        ({"rank": HISTORY + 1}, f"at most the number of lags, {HISTORY}"),
        ({"store": tmp_path / "fields.nc"}, r"must end in .zarr"),
    ):
        with pytest.raises(RetinaCodecError, match=message):
            all_fields(network, split, progress=False, **settings)
    with pytest.raises(RetinaCodecError, match="structure of a RetinaCNN; got Linear"):
        all_fields(nn.Linear(2, 2), split, progress=False)
    monkeypatch.setattr(module, "MOST_BYTES", 1000)
    with pytest.raises(RetinaCodecError, match=r"Give store='fields.zarr'"):
        all_fields(network, split, progress=False)
