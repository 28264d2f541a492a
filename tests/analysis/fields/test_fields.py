from collections import OrderedDict
from dataclasses import fields as fields_of

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

from retina_codec.analysis.fields.all_fields import all_fields
from retina_codec.analysis.fields.combinations import measure_combinations
from retina_codec.analysis.fields.events import combination_labels
from retina_codec.analysis.fields.fields import (
    FieldSettings,
    instantaneous_fields,
    rank_one_parts,
    receptive_fields,
)
from retina_codec.contributions.contribute import contribute
from retina_codec.errors import RetinaCodecError
from retina_codec.methods.integrated_gradients import IntegratedGradients
from retina_codec.modes.decompose import decompose
from retina_codec.modes.decompositions.sparse_autoencoder import SparseAutoencoder
from retina_codec.networks.retina.model import Normalisation, RetinaCNN
from retina_codec.targets.surprisal import Surprisal
from tests.reference.receptive_fields import finite_difference_fields, rank_one_by_svd
from tests.small import small_network, small_recording

HISTORY, SIDE, CELLS = 4, 9, 3


def computed(network, inputs, modes, **options):
    """Call `receptive_fields`; options that are settings go there."""
    names = {field.name for field in fields_of(FieldSettings)}
    chosen = FieldSettings(**{k: v for k, v in options.items() if k in names})
    others = {k: v for k, v in options.items() if k not in names}
    return receptive_fields(network, inputs, modes, settings=chosen, **others)


class Linear(nn.Module):
    """Rates that are a weighted sum of the window: its receptive field is the weights."""

    def __init__(self, weights):
        super().__init__()
        self.weights = nn.Parameter(torch.as_tensor(weights))

    def forward(self, windows):
        return torch.einsum("elyx,nlyx->en", windows, self.weights)


@pytest.fixture
def network():
    torch.manual_seed(3)
    net = RetinaCNN(
        ["a", "b", "c"],
        [(0, 0), (1, 2), (2, 1)],
        cell_types=["ON", "OFF", "ON"],
        history=HISTORY,
        frame_shape=(SIDE, SIDE),
        channels=(2, 3),
        kernel_sizes=(3, 3, 3),
        noise=0.5,
        normalisation=Normalisation(mean=100.0, std=40.0),
    )
    for norm in (net.norm1, net.norm2, net.norm3):
        norm.running_mean.normal_(std=0.1)
        norm.running_var.uniform_(0.5, 1.5)
    return net


def results(time, cells, types, prediction, active):
    """Build the least that receptive_fields reads."""
    along = {"time": time}
    responses = xr.Dataset(
        {"prediction": (("time", "cell"), prediction)},
        coords=along | {"cell": cells, "type": ("cell", types)},
    )
    modes = xr.Dataset(
        {"active": (("time", "mode"), active)}, coords=along | {"mode": np.arange(active.shape[1])}
    )
    return xr.DataTree.from_dict({"/responses": responses, "/layers/conv2/modes": modes})


@pytest.fixture
def session(network):
    """Return a movie, and results on it with known active modes."""
    rng = np.random.default_rng(0)
    time = np.arange(120) / 100
    movie = rng.integers(0, 255, (120, SIDE, SIDE), dtype=np.uint8)
    split = xr.Dataset(
        {"stimulus": (("time", "y", "x"), movie)},
        coords={"time": time, "cell": list(network.cells)},
    )
    count = 120 - HISTORY
    active = np.zeros((count, 2), dtype=bool)
    active[::3, 0] = active[1::3, 1] = active[2::3] = True
    prediction = rng.uniform(0, 6, (count, CELLS))
    tree = results(time[HISTORY:], list(network.cells), ["ON", "OFF", "ON"], prediction, active)
    return split, tree


def test_field_of_a_linear_network_is_its_weights():
    weights = np.random.default_rng(1).normal(size=(CELLS, HISTORY, 5, 6))
    windows = torch.randn(7, HISTORY, 5, 6, dtype=torch.float64)
    fields = instantaneous_fields(Linear(weights), windows)
    for event in fields:
        np.testing.assert_array_equal(event.numpy(), weights)


def test_fields_match_finite_differences(network):
    network.double().eval()
    windows = torch.randn(2, HISTORY, SIDE, SIDE, dtype=torch.float64)
    fields = instantaneous_fields(network, windows).detach().numpy()
    for field, window in zip(fields, windows, strict=True):
        slow = finite_difference_fields(network, window, 1e-5)
        # Central differences err by step² ~ 1e-10 where no ReLU kink lies within a step.
        np.testing.assert_allclose(field, slow, atol=1e-7 * np.abs(slow).max())


def test_noise_and_batch_do_not_reach_the_fields_and_the_network_is_left_alone(network):
    network.train()
    network.relu2.eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    windows = torch.randn(3, HISTORY, SIDE, SIDE)
    together = instantaneous_fields(network, windows)
    alone = torch.cat([instantaneous_fields(network, window[None]) for window in windows])
    torch.testing.assert_close(together, alone)
    assert network.training
    assert network.noise1.training
    assert not network.relu2.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not windows.requires_grad


def test_mode_of_the_network_comes_back_after_a_crash(network):
    network.train()
    with pytest.raises(RuntimeError):
        instantaneous_fields(network, torch.randn(1, HISTORY + 1, SIDE, SIDE))
    assert network.training


def test_rank_one_parts_match_numpy_svd():
    fields = torch.randn(2, 3, 6, 5, 4, dtype=torch.float64) + 0.7
    spatial, temporal, explained, mean = rank_one_parts(fields)
    for index in np.ndindex(2, 3):
        image, course, share = rank_one_by_svd(fields[index].numpy())
        np.testing.assert_allclose(spatial[index], image, atol=1e-10)
        np.testing.assert_allclose(temporal[index], course, atol=1e-10)
        np.testing.assert_allclose(explained[index], share, rtol=1e-10)
        np.testing.assert_allclose(mean[index], fields[index].mean())


@pytest.mark.parametrize("polarity", [1.0, -1.0])
def test_a_separable_field_comes_back_whole_with_the_sign_of_its_peak(polarity):
    y, x = torch.meshgrid(torch.arange(9.0), torch.arange(9.0), indexing="ij")
    image = torch.exp(-((y - 4) ** 2 + (x - 5) ** 2) / 4)
    image = polarity * (image - image.mean())
    course = torch.tensor([-0.2, -0.5, 0.3, 1.0])
    field = course[:, None, None] * image
    spatial, temporal, explained, mean = rank_one_parts(field)
    torch.testing.assert_close(
        temporal[:, None, None] * spatial + mean, course[:, None, None] * image
    )
    assert torch.sign(spatial[4, 5]) == polarity  # the frame at lag 1, not an average, decides
    assert temporal[3] > 0
    torch.testing.assert_close(explained, torch.tensor(1.0))


def test_very_small_fields_have_parts_like_others():
    fields = torch.randn(3, 4, 5, 4)  # squares of 1e-25 are 0 in float32
    expected = rank_one_parts(fields)
    spatial, temporal, explained, _ = rank_one_parts(1e-25 * fields)
    torch.testing.assert_close(1e25 * spatial, expected[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(temporal, expected[1], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(explained, expected[2], rtol=1e-4, atol=1e-4)


def test_a_constant_field_has_no_time_course():
    spatial, temporal, explained, mean = rank_one_parts(torch.full((2, 4, 3, 3), 2.0))
    assert torch.isnan(temporal).all()
    assert torch.isnan(explained).all()
    assert (spatial == 0).all()
    assert (mean == 2).all()


def test_recording_and_ready_windows_give_the_same_fields(network, session):
    split, tree = session
    kept = split.copy(deep=True)
    fields = computed(network, split, tree, combinations=3, progress=False)
    raw = (split["stimulus"].values.astype("f4") - 100) / 40
    windows = np.stack([raw[i : i + HISTORY] for i in range(120 - HISTORY)])
    ready = xr.DataArray(windows, dims=("time", "lag", "y", "x"))
    again = computed(network, ready, tree, combinations=3, progress=False)
    for name in ("spatial", "temporal", "rank1", "scene"):
        np.testing.assert_allclose(fields[name], again[name], rtol=2e-4, atol=1e-6, err_msg=name)
    np.testing.assert_allclose(fields["lag"], [0.04, 0.03, 0.02, 0.01])
    np.testing.assert_allclose(again["lag"], fields["lag"])
    turned = ready.transpose("time", "x", "y", "lag")
    turned = computed(network, turned, tree, combinations=3, progress=False)
    xr.testing.assert_identical(turned, again)
    xr.testing.assert_identical(split, kept)

    # The window that explains the response at time t ends one frame before t.
    event = 2
    last = round(float(fields["time"][event]) * 100)
    window = torch.as_tensor(raw[last - HISTORY : last][None])
    field = instantaneous_fields(network, window)[0].detach()
    image, course, share = rank_one_by_svd(field[1].double().numpy())
    np.testing.assert_allclose(fields["spatial"][event, 1], image, atol=1e-4 * np.abs(image).max())
    np.testing.assert_allclose(fields["temporal"][event, 1], course, atol=1e-3)
    np.testing.assert_allclose(fields["rank1"][event, 1], share, rtol=1e-4)
    np.testing.assert_allclose(fields["scene"][event], window[0].mean(0), atol=1e-6)


def test_labels_and_rates_belong_to_the_events(network, session):
    split, tree = session
    fields = computed(
        network, split, tree, combinations=3, per_combination=2, minimum_rate=2.0, progress=False
    )
    assert fields["combination"].values.tolist() == ["0", "0", "1", "1", "0+1", "0+1"]
    modes, responses = tree["layers/conv2/modes"], tree["responses"]
    for label, time in zip(fields["combination"].values, fields["time"].values, strict=True):
        active = np.flatnonzero(modes["active"].sel(time=time))
        assert "+".join(map(str, active)) == label
    expected = responses["prediction"].sel(time=fields["time"].values).values
    np.testing.assert_array_equal(fields["prediction"], expected)
    np.testing.assert_array_equal(fields["responding"], expected >= 2.0)
    assert fields["type"].values.tolist() == ["ON", "OFF", "ON"]
    assert fields["spatial"].attrs["units"] == "Hz per standard deviation of intensity"
    assert fields["lag"].attrs["units"] == fields["time"].attrs["units"] == "s"
    assert fields.attrs["layer"] == "conv2"


def test_events_can_be_asked_for(network, session):
    split, tree = session
    fields = computed(network, split, tree, events=[0.5, 0.07], progress=False)
    np.testing.assert_allclose(fields["time"], [0.5, 0.07])
    chosen = computed(network, split, tree, events=[0.07], progress=False)
    np.testing.assert_allclose(fields["spatial"][1], chosen["spatial"][0], rtol=1e-5, atol=1e-7)


def test_fields_survive_the_file(network, session, tmp_path):
    split, tree = session
    fields = computed(network, split, tree, combinations=2, progress=False)
    fields.to_netcdf(tmp_path / "fields.nc", engine="h5netcdf")
    with xr.open_dataset(tmp_path / "fields.nc", engine="h5netcdf") as back:
        xr.testing.assert_identical(back.load(), fields)


@pytest.fixture(scope="module")
def explained():
    """Return a recording, its network and the modes of what it contributes."""
    network = small_network()
    split = small_recording(network, bins=400)["test"]
    tree = contribute(
        network,
        split,
        target=Surprisal(),
        method=IntegratedGradients(4, placement="uniform"),
        progress=False,
    )
    method = SparseAutoencoder(modes=6, active=2, seed=0)
    return network, split, decompose(tree, method, gap=HISTORY, progress=False)


@pytest.mark.parametrize("layer", ["conv1", "conv2", "conv3"])
def test_parts_and_remainder_add_up_to_every_field(explained, layer):
    network, split, tree = explained
    fields = computed(network, split, tree, layer=layer, samples=0, progress=False)
    assert float(fields["identity_error"].max()) < 1e-5
    # Time courses are eigenvectors in float32: where two eigenvalues are close, they err more.
    # Shares of parts that nearly cancel are larger than 1, and so is their rounding.
    for part, rest, whole, tolerance in (
        ("part", "remainder", fields["spatial"], 1e-5),
        ("part_temporal", "remainder_temporal", fields["temporal"], 2e-3),
        ("part_share", "remainder_share", xr.ones_like(fields["rank1"]), 1e-4),
    ):
        total = fields[part].sum("mode", skipna=False) + fields[rest]
        known = np.isfinite(total.values)
        assert known.mean() > 0.9  # NaN only where a cell has no gradient
        scale = float(np.abs(whole).max())
        np.testing.assert_allclose(
            total.values[known], whole.transpose(*total.dims).values[known], atol=tolerance * scale
        )
    # Modes that are not active at an event have no part in its fields; those that are have.
    names = [[int(name) for name in label.split("+")] for label in fields["combination"].values]
    for event, active in enumerate(names):
        share = np.abs(fields["part_share"].isel(event=event)).max("cell")
        assert (share.values > 0).tolist() == [mode in active for mode in fields["mode"].values]


def test_parts_of_another_module_are_those_of_its_layer(explained):
    network, split, tree = explained
    events = tree["responses"]["time"].values[[40, 90]]
    scale = network.normalisation
    frames = (split["stimulus"].values.astype("f4") - scale.mean) / scale.std
    count = len(tree["responses"]["time"])
    history = network.history
    windows = torch.as_tensor(np.stack([frames[i : i + history] for i in range(count)]))
    bare = nn.Sequential(OrderedDict(conv2=nn.Identity(), rest=network))
    with pytest.raises(RetinaCodecError, match="must be those of the results"):
        computed(bare, windows, tree, events=events, parts=True, progress=False)
    whole = computed(network, split, tree, events=events, samples=0, progress=False)

    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv2 = network.conv2
            self.inner = network

        def forward(self, x):
            return self.inner(x)

    plain = computed(
        Wrapped(),
        windows,
        tree,
        events=events,
        target=Surprisal(tree["responses"]["mean"].values, tree["responses"]["covariance"].values),
        method=IntegratedGradients(4, placement="uniform"),
        parts=True,
        progress=False,
    )
    for name in ("part", "remainder", "part_share", "spatial"):
        scale = float(np.abs(whole[name]).max())
        np.testing.assert_allclose(plain[name], whole[name], atol=1e-4 * scale, err_msg=name)


def test_parts_need_to_know_how_contributions_were_computed(explained):
    network, split, tree = explained
    unknown = tree.copy()
    unknown.attrs = {}
    assert "part" not in computed(network, split, unknown, samples=0, progress=False)
    with pytest.raises(RetinaCodecError, match="Pass the target= and method="):
        computed(network, split, unknown, parts=True, progress=False)
    wrong = tree.copy(deep=True)
    wrong["layers/conv2"]["contribution"] = 2 * wrong["layers/conv2"]["contribution"]
    with pytest.raises(RetinaCodecError, match="at the events must be those of the results"):
        computed(network, split, wrong, progress=False)


def test_combinations_are_compared_at_even_times(explained):
    network, split, tree = explained
    fields = computed(network, split, tree, parts=False, samples=196, progress=False)
    every = 2
    sampled = all_fields(network, split, every=every, progress=False)
    modes = tree["layers/conv2/modes"]
    labels = combination_labels(modes["active"].values, modes["mode"].values.tolist())
    expected = measure_combinations(sampled, np.array(labels)[::every], progress=False)
    np.testing.assert_array_equal(fields["combination_p_value"], expected["p_value"])
    assert fields["combination_effect"].attrs["every"] == every
    few = computed(network, split, tree, parts=False, samples=50, progress=False)
    assert "combination_p_value" not in few


def _other_layer(_network, split, tree):
    return _network, split, tree, {"layer": "conv7"}


def _event_outside(network, split, tree):
    return network, split, tree, {"events": [99.0]}


def _bare_module(_network, split, tree):
    return Linear(np.ones((CELLS, HISTORY, SIDE, SIDE), dtype="f4")), split, tree, {}


def _short_windows(network, _split, tree):
    return network, torch.zeros(5, HISTORY, SIDE, SIDE), tree, {}


def _no_event(network, split, tree):
    return network, split, tree, {"events": []}


def _event_nan(network, split, tree):
    return network, split, tree, {"events": [np.nan]}


def _whole_recording(network, split, tree):
    return network, xr.DataTree.from_dict({"/test": split}), tree, {}


def _samples(network, split, tree):
    nodes = {node.path: node.to_dataset(inherit=False) for node in tree.subtree}
    nodes = {
        path: node.rename(time="sample") if "time" in node.dims else node
        for path, node in nodes.items()
    }
    return network, split, xr.DataTree.from_dict(nodes), {}


def _cells_in_another_order(network, split, tree):
    network.cells = network.cells[::-1]
    return network, split, tree, {}


def _too_many_cells(_network, _split, tree):
    windows = torch.zeros(120 - HISTORY, HISTORY, SIDE, SIDE)
    return Linear(np.ones((CELLS + 2, HISTORY, SIDE, SIDE), dtype="f4")), windows, tree, {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_other_layer, r"of \['conv7'\]; they hold modes of \['conv2'\]"),
        (_event_outside, r"response times of the results \(0.040 to 1.190 s\); got 99.000 s"),
        (_bare_module, "only be cut into windows for a network that knows"),
        (_no_event, "at least one event"),
        (_event_nan, "got nan s"),
        (_whole_recording, r"must have a stimulus.*recording\['test'\]"),
        (_samples, "results over 'time'"),
        (_cells_in_another_order, r"the network has \['c', 'b', 'a'\]"),
        (_short_windows, r"one window for each time of the results \(116\)"),
        (_too_many_cells, "5 outputs, the results 3 cells"),
    ],
)
def test_bad_input_is_one_clear_error(network, session, change, message):
    net, inputs, tree, settings = change(network, *session)
    with pytest.raises(RetinaCodecError, match=message):
        computed(net, inputs, tree, progress=False, **settings)


def test_events_come_from_one_forward_pass_and_one_backward_pass_per_cell(network):
    passes = []
    handle = network.conv1.register_forward_hook(lambda *_: passes.append(1))
    instantaneous_fields(network, torch.randn(5, HISTORY, SIDE, SIDE))
    handle.remove()
    assert len(passes) == 1


def test_settings_are_validated():
    with pytest.raises(RetinaCodecError, match="at least one combination with one event"):
        FieldSettings(combinations=0)
