"""Silencing: a slow second form, linear limits, blocks, and what is refused."""

import numpy as np
import pytest
import torch
import xarray as xr

from retina_codec.analysis.hypotheses.silencing import in_blocks, silence_channels
from retina_codec.errors import RetinaCodecError
from retina_codec.networks.retina.model import Normalisation, RetinaCNN
from retina_codec.networks.retina.prediction import predict_rates
from retina_codec.probing.interventions import Silencing
from tests.reference.hypotheses import silenced_rates
from tests.small import CELLS, HISTORY, RATE, small_network, small_recording

BIN = 1 / RATE
CUTS = [
    Silencing("conv1", (1,)),
    Silencing("conv1", (3, 0), 0.4),
    Silencing("conv2", (0, 2)),
    Silencing("conv2", (1, 2, 3), 0.7),
]


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "surround"])
def network(request):
    return small_network(surround=request.param)


@pytest.fixture(scope="module")
def split(network):
    return small_recording(network, bins=150)["test"].to_dataset()


@pytest.mark.parametrize("held_at", ["grey", "zero"])
def test_rates_equal_the_slow_second_form(network, split, held_at):
    found = silence_channels(network, split, CUTS, block=BIN, held_at=held_at, batch_size=37)
    for row, cut in enumerate(CUTS):
        expected = silenced_rates(
            network, split["stimulus"], cut.layer, cut.channels, cut.strength, held_at
        )
        np.testing.assert_allclose(found["silenced_rate"][row], expected, rtol=1e-4, atol=1e-4)
        assert np.abs(found["silenced_rate"][row] - found["rate"]).max() > 0.1


def test_without_silencing_the_network_predicts_as_always(network, split):
    found = silence_channels(network, split, CUTS[:1], block=BIN)
    expected = predict_rates(network, split)
    np.testing.assert_allclose(found["rate"], expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found["time"], expected["time"])
    assert found["cell"].values.tolist() == list(CELLS)


def test_lasting_grey_stays_as_it_is_when_channels_rest_at_grey(network, split):
    grey = split[["stimulus"]].copy(deep=True)
    grey["stimulus"] = grey["stimulus"].astype("f4") * 0 + network.normalisation.mean
    found = silence_channels(network, grey, CUTS, block=BIN)
    expected = found["rate"].broadcast_like(found["silenced_rate"])
    np.testing.assert_allclose(found["silenced_rate"], expected, rtol=1e-5)


def test_all_channels_of_a_layer_leave_only_the_answer_to_grey(network, split):
    cuts = [Silencing("conv1", (0, 1, 2, 3)), Silencing("conv2", (2, 3, 0, 1))]
    found = silence_channels(network, split, cuts, block=BIN)["silenced_rate"]
    with torch.no_grad():
        rest = network(torch.zeros(1, HISTORY, 16, 16))[0].numpy()
    np.testing.assert_allclose(found, np.broadcast_to(rest, found.shape), rtol=1e-4)


def test_blocks_are_means_and_the_rest_is_left_out(network, split):
    fine = silence_channels(network, split, CUTS, block=BIN)
    coarse = silence_channels(network, split, CUTS, block=0.5)  # 142 bins: two blocks
    expected = fine["silenced_rate"][:, :100].values.reshape(4, 2, 50, -1).mean(axis=2)
    np.testing.assert_allclose(coarse["silenced_rate"], expected, rtol=1e-5)
    np.testing.assert_allclose(coarse["time"], fine["time"][[0, 50]])
    again = in_blocks(fine, 0.5)
    xr.testing.assert_allclose(again, coarse, rtol=1e-5)
    assert again.attrs == coarse.attrs
    for wrong in (2.0, 0.001):
        with pytest.raises(RetinaCodecError, match="block must be"):
            in_blocks(fine, wrong)


def test_half_strength_is_half_the_change_before_the_last_nonlinearity(network, split):
    cuts = [Silencing("conv2", (2,), 1.0), Silencing("conv2", (2,), 0.5)]
    found = silence_channels(network, split, cuts, block=BIN)
    rates = np.stack([found["rate"], *found["silenced_rate"]]).astype(np.float64)
    kept = (rates > 1).all(axis=0)  # where the inverse of the softplus is well defined
    assert kept.mean() > 0.3
    drive = np.log(np.expm1(rates[:, kept]))
    np.testing.assert_allclose(drive[2] - drive[0], (drive[1] - drive[0]) / 2, atol=2e-3)


def test_a_stacked_network_is_silenced_like_its_plain_copy(split):
    torch.manual_seed(3)
    stacked = RetinaCNN(
        CELLS,
        [(1, 1), (5, 3), (3, 3), (2, 4), (4, 4), (4, 2)],
        history=HISTORY,
        frame_shape=(16, 16),
        channels=(4, 4),
        kernel_sizes=(5, 5, 3),
        normalisation=Normalisation(mean=127.5, std=60.0),
        stacked=True,
    ).eval()
    one = silence_channels(stacked, split, CUTS, block=BIN)
    other = silence_channels(stacked.collapse().eval(), split, CUTS, block=BIN)
    np.testing.assert_allclose(one["silenced_rate"], other["silenced_rate"], rtol=1e-6)


def test_network_and_split_are_left_as_they_were(network, split):
    network.train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    movie = split["stimulus"].values.copy()
    silence_channels(network, split, CUTS)
    assert network.training
    network.eval()
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])
    np.testing.assert_array_equal(split["stimulus"], movie)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Silencing("conv3", (0,)), "conv1, conv2; got 'conv3'"),
        (lambda: Silencing("conv1", ()), "at least one"),
        (lambda: Silencing("conv1", (1, 1)), "distinct"),
        (lambda: Silencing("conv1", (1,), 0.0), "strength"),
    ],
)
def test_an_impossible_silencing_is_refused(make, words):
    with pytest.raises(RetinaCodecError, match=words):
        make()


@pytest.mark.parametrize(
    ("cuts", "options", "words"),
    [
        ([], {}, "at least one"),
        ([Silencing("conv2", (4,))], {}, "must lie in 0..3"),
        (CUTS, {"block": 2.0}, "no longer than"),
        (CUTS, {"block": 0.001}, "at least one bin"),
        (CUTS, {"held_at": "mean"}, "'grey' or 'zero'"),
    ],
)
def test_bad_options_are_refused(network, split, cuts, options, words):
    with pytest.raises(RetinaCodecError, match=words):
        silence_channels(network, split, cuts, **options)


def test_another_module_is_refused(split):
    with pytest.raises(RetinaCodecError, match="RetinaCNN"):
        silence_channels(torch.nn.Linear(2, 2), split, CUTS)
