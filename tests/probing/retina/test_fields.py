import numpy as np
import pytest
import torch

from retina_codec.analysis.fields.fields import instantaneous_fields
from retina_codec.networks.retina.model import RetinaCNN
from retina_codec.probing.retina.fields import RetinaFields
from tests.reference.receptive_fields import finite_difference_fields, rank_one_by_svd
from tests.small import HISTORY, small_network


def odd_network(surround=False):
    """Stacked kernels, sights of odd and even size, cells at the edges; not square."""
    torch.manual_seed(4)
    network = RetinaCNN(
        ["a", "b", "c"],
        [(0, 0), (6, 3), (2, 5)],
        history=5,
        frame_shape=(17, 16),
        channels=(2, 3),
        kernel_sizes=(5, 3, 5),
        stacked=True,
        surround=surround,
    )
    if surround:
        network.conv2.surround.data.normal_()
    for norm in (network.norm1, network.norm2, network.norm3):
        norm.running_mean.normal_(std=0.1)
        norm.running_var.uniform_(0.5, 1.5)
        norm.scale.data.mul_(-1.0)  # the norm takes its size only
    return network.double().train()


def wide_network():
    """The same with a wide field: every cell sees the whole frame."""
    return odd_network(surround=True)


def whole(network, windows):
    structure = RetinaFields(network)
    with torch.no_grad():
        seen = structure.evaluate(network.first_layer(windows))
    gradient = structure.descend(seen)
    return structure, seen, gradient


@pytest.mark.parametrize("make", [small_network, odd_network, wide_network])
def test_fields_and_rates_are_those_of_automatic_differentiation(make):
    network = make().double()
    torch.manual_seed(0)
    windows = torch.randn(2, network.history, *network.frame_shape, dtype=torch.float64)
    training = network.training
    structure, seen, gradient = whole(network, windows)
    fields = structure.place(structure.fields(gradient))[:, :, 0]
    assert network.training == training
    expected = instantaneous_fields(network, windows)
    torch.testing.assert_close(fields, expected, rtol=1e-9, atol=1e-11 * expected.abs().max())
    torch.testing.assert_close(seen.rate, network.eval()(windows).detach())


def test_fields_match_finite_differences():
    network = odd_network().eval()
    window = torch.randn(1, 5, 17, 16, dtype=torch.float64)
    structure, _, gradient = whole(network, window)
    fields = structure.place(structure.fields(gradient))[0, :, 0]
    slow = finite_difference_fields(network, window[0], 1e-5)
    # Central differences err by step² ~ 1e-10 where no ReLU kink lies within a step.
    np.testing.assert_allclose(fields, slow, atol=1e-7 * np.abs(slow).max())


@pytest.mark.parametrize(("rank", "surround"), [(1, False), (3, False), (1, True)])
def test_products_match_numpy_svd_of_whole_fields(rank, surround):
    network = small_network(surround=surround).double()
    windows = torch.randn(2, HISTORY, 16, 16, dtype=torch.float64)
    structure, _, gradient = whole(network, windows)
    found = structure.products(gradient, rank)
    outside = -found.mean[..., None] * found.temporal.sum(-1)
    images = structure.place(found.spatial, outside)
    fields = instantaneous_fields(network, windows).numpy()
    for e, cell in np.ndindex(2, 6):
        field = fields[e, cell]
        matrix = (field - field.mean()).reshape(HISTORY, -1)
        _, size, _ = np.linalg.svd(matrix, full_matrices=False)
        np.testing.assert_allclose(
            found.explained[e, cell, 0], size[:rank] ** 2 / (size**2).sum(), rtol=1e-8
        )
        np.testing.assert_allclose(found.mean[e, cell, 0], field.mean(), rtol=1e-8)
        rebuilt = np.einsum("rl,ryx->lyx", found.temporal[e, cell, 0], images[e, cell, 0])
        left, size, right = np.linalg.svd(matrix, full_matrices=False)
        best = (left[:, :rank] * size[:rank]) @ right[:rank]
        np.testing.assert_allclose(
            rebuilt.reshape(HISTORY, -1), best, atol=1e-9 * np.abs(best).max()
        )
        largest = np.abs(found.temporal[e, cell, 0].numpy()).argmax(-1)
        assert (found.temporal[e, cell, 0].numpy()[np.arange(rank), largest] > 0).all()
        if rank == 1:
            image, course, _ = rank_one_by_svd(field)
            sign = np.sign(course @ found.temporal[e, cell, 0, 0].numpy())
            np.testing.assert_allclose(images[e, cell, 0, 0], sign * image, atol=1e-9)


def test_a_cell_without_gradient_has_no_time_course():
    network = small_network().double()
    with torch.no_grad():
        network.conv3.weight[2] = 0.0
    structure, _, gradient = whole(network, torch.randn(2, HISTORY, 16, 16, dtype=torch.float64))
    found = structure.products(gradient)
    assert torch.isnan(found.temporal[:, 2]).all()
    assert torch.isnan(found.explained[:, 2]).all()
    assert (found.spatial[:, 2] == 0).all()
    assert torch.isfinite(found.temporal[:, [0, 1, 3, 4, 5]]).all()


def test_very_small_gradients_have_products_like_others():
    network = small_network()
    structure, _, gradient = whole(network, torch.randn(2, HISTORY, 16, 16))
    gradient = torch.randn_like(gradient)  # squares of 1e-25 are 0 in float32
    plain, small = structure.products(gradient), structure.products(1e-25 * gradient)
    torch.testing.assert_close(small.explained, plain.explained, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(1e25 * small.spatial, plain.spatial, rtol=1e-4, atol=1e-4)


def test_chunks_do_not_show(monkeypatch):
    network = small_network().double()
    windows = torch.randn(5, HISTORY, 16, 16, dtype=torch.float64)
    structure, _, gradient = whole(network, windows)
    together = structure.products(gradient)
    monkeypatch.setitem(RetinaFields.products.__globals__["CHUNK"], "cpu", 7)
    for one, other in zip(structure.products(gradient), together, strict=True):
        torch.testing.assert_close(one, other)
