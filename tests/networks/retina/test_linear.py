"""Linear-nonlinear models against planted ones, the formula, and other networks' doors."""

import numpy as np
import pytest
import torch
import xarray as xr

from retina_codec.errors import RetinaCodecError
from retina_codec.networks.retina.linear import LinearNonlinear, LnSettings, fit_ln
from retina_codec.networks.retina.model import Normalisation
from retina_codec.networks.retina.prediction import predict_rates
from retina_codec.recordings.schema import make_recording

QUICK = LnSettings(radius=(2,), rank=(1, 2), ridge=(1e-4,), rounds=8)


def planted(seed=0, frames=6000, cells=2, history=4):
    """Cells that follow one field and one time course each through a softplus."""
    random = np.random.default_rng(seed)
    movie = random.integers(0, 2, (frames, 9, 10)).astype(np.uint8) * 255
    signal = (movie / 127.5 - 1).astype(np.float64)
    filters = np.zeros((cells, history, 9, 10))
    for cell in range(cells):
        sign, at = (-1) ** cell, 3 + cell
        filters[cell, :, at : at + 2, at : at + 3] = (
            sign * np.array([0, 0.2, 0.8, -0.3])[:, None, None]
        )
    windows = np.lib.stride_tricks.sliding_window_view(signal, history, 0)[:-1]
    drive = np.einsum("tyxl,clyx->tc", windows, filters)
    rate = 0.6 * np.logaddexp(0, 1.2 * drive - 0.5)
    counts = np.concatenate([np.ones((history, cells), int), random.poisson(rate)])

    def part(start, stop):
        return xr.Dataset(
            {
                "stimulus": (("time", "y", "x"), movie[start:stop]),
                "spike_count": (("time", "cell"), counts[start:stop]),
            },
            coords={"time": np.arange(start, stop) / 30, "cell": [f"c{n}" for n in range(cells)]},
        )

    cut = frames * 4 // 5
    recording = make_recording(
        train=part(0, cut),
        test=part(cut, frames),
        frame_rate=30,
        pixel_size=50,
        session="planted",
        species="none",
        source="test",
    )
    return recording, filters, rate[cut:]


def test_a_planted_model_is_found():
    recording, filters, true = planted()
    model = fit_ln(recording, history=4, settings=QUICK, progress=False)
    found = model.filters.detach().numpy()
    for own, planted_one in zip(found, filters, strict=True):
        cosine = (own * planted_one).sum() / np.linalg.norm(own) / np.linalg.norm(planted_one)
        assert cosine > 0.95
    rates = predict_rates(model, recording["test"], progress=False)
    for cell in range(2):
        assert np.corrcoef(rates[:, cell], true[: len(rates), cell])[0, 1] > 0.95
    assert float(rates.mean()) == pytest.approx(true.mean() * 30, rel=0.05)  # Hz
    assert set(model.training_record["cells"]["c0"]) == {
        "radius",
        "rank",
        "ridge",
        "validation_loss",
    }


def test_forward_is_the_formula():
    torch.manual_seed(0)
    filters, offset, gain = torch.randn(2, 3, 4, 5), torch.randn(2), torch.rand(2) * 10
    model = LinearNonlinear(
        filters,
        offset,
        gain,
        cells=["a", "b"],
        normalisation=Normalisation(0.0, 1.0),
        frame_rate=30,
    )
    windows = torch.randn(6, 3, 4, 5)
    expected = gain * torch.log1p(
        torch.exp(torch.einsum("blyx,clyx->bc", windows, filters) + offset)
    )
    torch.testing.assert_close(model(windows), expected)


def test_windows_across_blocks_are_left_out():
    """Spikes at the first bins of a block, that no frame explains, change nothing."""
    recording, *_ = planted(frames=3000)
    train = recording["train"].to_dataset()
    train = train.assign_coords(block=("time", np.arange(2400) // 100))
    spoiled = train.copy(deep=True)
    spoiled["spike_count"][{"time": np.flatnonzero(np.arange(2400) % 100 < 4)}] = 50
    found = []
    for part in (train, spoiled):
        tree = recording.copy()
        tree["train"] = xr.DataTree(
            part.assign_coords(center_y=("cell", [4.0, 5.0]), center_x=("cell", [4.0, 5.0]))
        )
        model = fit_ln(tree, history=4, settings=LnSettings((2,), (1,), (1e-4,), 2), progress=False)
        found.append(model.filters.detach())
    # the start of the gain counts all spikes; the loss does not
    cosine = torch.nn.functional.cosine_similarity(found[0].flatten(1), found[1].flatten(1))
    assert (cosine > 0.98).all()


def test_bad_input():
    recording, *_ = planted(frames=400)
    with pytest.raises(RetinaCodecError, match="must be longer than the history"):
        fit_ln(recording, history=100)
    with pytest.raises(RetinaCodecError, match="a fit needs a train split"):
        fit_ln(xr.DataTree.from_dict({"/test": recording["test"].to_dataset()}))
    with pytest.raises(RetinaCodecError, match=r"rank must be one or more numbers of at least 1"):
        LnSettings(rank=())
    with pytest.raises(RetinaCodecError, match="validation between 0 and 1"):
        LnSettings(validation=1.0)
    silent = recording.copy(deep=True)
    silent["train/spike_count"][:, 1] = 0
    with pytest.raises(RetinaCodecError, match="every cell must fire"):
        fit_ln(silent, history=4)
