"""check_match: selects the network's cells, and lists every reason why it cannot."""

import numpy as np
import pytest
import torch

import retina_codec as rc
from retina_codec.networks.retina.prediction import check_match


@pytest.fixture
def network():
    torch.manual_seed(0)
    sizes = dict(history=5, frame_shape=(13, 14), channels=(2, 2), kernel_sizes=(5, 3, 3))
    return rc.networks.RetinaCNN([8], [[1, 1]], **sizes)


def test_cells_are_selected_in_the_order_of_the_network(noise_recording, network):
    selected = check_match(network, noise_recording["test"])
    assert selected["cell"].values.tolist() == [8]
    np.testing.assert_array_equal(
        selected["spike_count"][:, 0], noise_recording["test"]["spike_count"].sel(cell=8)
    )


def test_every_mismatch_is_in_the_one_message(noise_recording):
    sizes = dict(history=900, frame_shape=(20, 14), channels=(2, 2), kernel_sizes=(5, 3, 3))
    other = rc.networks.RetinaCNN([8, 5], [[1, 1], [2, 2]], **sizes)
    with pytest.raises(rc.RetinaCodecError) as caught:
        check_match(other, noise_recording["test"])
    message = str(caught.value)
    for part in ("20 × 14 px", "900 frames", "cells [5]"):
        assert part in message
    assert "\n" not in message


def test_frame_rate(noise_recording, network):
    network.frame_rate = 60.0
    with pytest.raises(rc.RetinaCodecError, match="60 Hz, the recording has 100 Hz"):
        check_match(network, noise_recording["test"])


def test_what_is_no_split_is_refused(noise_recording, network):
    flat = noise_recording["test"].to_dataset().isel(x=0)
    for wrong in (noise_recording, flat):
        with pytest.raises(rc.RetinaCodecError, match="must have a stimulus with the dims"):
            check_match(network, wrong)
