"""openretina models on a stand-in of their structure; on the package itself where it is there."""

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

import retina_codec as rc
from retina_codec.networks.openretina import load_openretina

TIME, SPACE = (5, 3), (3, 3)  # kernels of the two layers


class Core(nn.Module):
    """3-d convolutions with normalisation, bias and ELU between, cut at the beginning."""

    def __init__(self, colors, *, padding, cut):
        super().__init__()
        self.cut = cut
        self.features = nn.Sequential()
        for number, (inputs, outputs) in enumerate(((colors, 3), (3, 2))):
            shape = (TIME[number], SPACE[number], SPACE[number])
            layer = nn.Sequential()
            layer.add_module("conv", nn.Conv3d(inputs, outputs, shape, padding=padding, bias=False))
            layer.add_module("norm", nn.BatchNorm3d(outputs))
            layer.add_module("nonlin", nn.ELU())
            layer.add_module("dropout", nn.Dropout3d(0.5))
            self.features.add_module(f"layer{number}", layer)

    def forward(self, movie):
        return self.features(movie)[:, :, self.cut :]


class Readout(nn.Module):
    """A mask over space and a weight per channel."""

    def __init__(self, cells, channels, rows, columns):
        super().__init__()
        self.mask = nn.Parameter(torch.randn(cells, rows, columns) / 5)
        self.features = nn.Parameter(torch.randn(cells, channels))

    def forward(self, maps):
        return nn.functional.softplus(
            torch.einsum("bctyx,nyx,nc->btn", maps, self.mask, self.features)
        )


class Readouts(nn.ModuleDict):
    def forward(self, maps, data_key=None):
        return self[data_key](maps)


class CoreReadout(nn.Module):
    def __init__(self, colors=1, *, padding=0, cut=0, size=9, info=True):
        super().__init__()
        torch.manual_seed(0)
        self.core = Core(colors, padding=padding, cut=cut)
        left = size if padding else size - 4
        self.readout = Readouts(
            {"first": Readout(3, 2, left, left), "second": Readout(2, 2, left, left)}
        )
        if info:
            self.data_info = {
                "input_shape": (colors, size, size),
                "stim_mean": 40.0,
                "stim_std": 20.0,
                "sessions_kwargs": {"second": {"cell_indices": [7, 4]}, "first": {}},
            }

    def forward(self, movie, data_key=None):
        return self.readout(self.core(movie), data_key=data_key)


SETTINGS = dict(frame_rate=30.0, session="second")


@pytest.mark.parametrize(
    ("padding", "cut", "history"),
    [
        (0, 0, 7),  # 5 + 3 - 1 frames
        ("same", 0, 4),  # half of every kernel looks ahead, at zeros
        ("same", 9, 10),  # the first 9 bins are cut
        (0, 3, 10),
    ],
)
def test_history_and_rates(padding, cut, history):
    model = CoreReadout(padding=padding, cut=cut).eval()
    network = load_openretina(model, **SETTINGS)
    assert network.history == history
    movie = torch.randn(2, 30, 9, 9)
    expected = model(movie[:, None], data_key="second")[:, -1]
    torch.testing.assert_close(network(movie[:, -history:]), expected, rtol=1e-5, atol=1e-6)
    if padding != "same" or cut == 0:
        with pytest.raises(rc.RetinaCodecError, match="history must hold"):
            load_openretina(model, history=history - 1, **SETTINGS)
    longer = load_openretina(model, history=history + 3, **SETTINGS)
    torch.testing.assert_close(longer(movie[:, -history - 3 :]), expected, rtol=1e-5, atol=1e-6)


def test_facts_come_from_the_model():
    model = CoreReadout()
    model.train()
    network = load_openretina(model, **SETTINGS)
    assert network.cells == (7, 4)
    assert network.cell_types == ("unknown", "unknown")
    assert network.normalisation == rc.networks.Normalisation(40.0, 20.0)
    assert (network.frame_shape, network.frame_rate) == ((9, 9), 30.0)
    assert network.layers == (
        *("model.core.features.layer0.conv", "model.core.features.layer1.conv"),
    )
    assert load_openretina(model, frame_rate=30, session="first").cells == (0, 1, 2)
    assert model.training  # the model itself was not changed
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not network.training


@pytest.mark.parametrize("color", [0, 1])
def test_one_of_two_colors(color):
    model = CoreReadout(colors=2).eval()
    network = load_openretina(model, color=color, **SETTINGS)
    windows = torch.randn(2, 7, 9, 9)
    movie = torch.zeros(2, 2, 7, 9, 9)
    movie[:, color] = windows
    expected = model(movie, data_key="second")[:, -1]
    torch.testing.assert_close(network(windows), expected, rtol=0, atol=0)


def test_a_recording_is_explained():
    model = CoreReadout().eval()
    network = load_openretina(model, **SETTINGS)
    random = np.random.default_rng(0)
    split = xr.Dataset(
        {"stimulus": (("time", "y", "x"), random.integers(0, 80, (30, 9, 9)))},
        coords={"time": np.arange(30) / 30},
    )
    rates = rc.networks.predict_rates(network, split, progress=False)
    movie = torch.tensor((split["stimulus"].values - 40) / 20, dtype=torch.float32)
    whole = model(movie[None, None], data_key="second")[0].detach()  # bin t + 6 of frames t..t+6
    np.testing.assert_allclose(rates, whole[: len(rates)], rtol=1e-4, atol=1e-5)
    explained = rc.contribute(
        network,
        split,
        target=rc.targets.Unit(4),
        method=rc.methods.IntegratedGradients(100),
        progress=False,
    )
    with torch.no_grad():
        grey = network(torch.zeros(1, 7, 9, 9))[0, 1].item()
    for name in network.layers:
        total = explained[f"layers/{name}"]["contribution"].sum(("sign", "channel"))
        assert explained[f"layers/{name}"].sizes["channel"] in (2, 3)
        np.testing.assert_allclose(total, rates.sel(cell=4) - grey, atol=1e-2)


class Integrator(nn.Module):
    """Sums the whole past, as a recurrent core can."""

    def forward(self, movie):
        return movie[:, :, :, :1, :1].cumsum(2)


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (lambda: nn.Linear(2, 2), {}, "core and a readout"),
        (CoreReadout, {"session": None}, "first, second"),
        (CoreReadout, {"session": "third"}, "first, second"),
        (lambda: CoreReadout(2), {}, "color="),
        (CoreReadout, {"color": 1}, "color must be from 0 to 0"),
        (lambda: CoreReadout(info=False), {}, "input_shape"),
        (lambda: CoreReadout(info=False), {"input_shape": (1, 9, 9)}, "stim_mean"),
        (CoreReadout, {"cells": [1]}, "has 2 cells; got 1"),
        (CoreReadout, {"cell_types": ["a"]}, "2 cells and 1 types"),
        (CoreReadout, {"layers": "conv9"}, "no layer 'conv9'"),
    ],
)
def test_what_is_missing_is_asked_for(make, options, message):
    with pytest.raises(rc.RetinaCodecError, match=message):
        load_openretina(make(), **SETTINGS | options)


def test_a_core_that_sees_the_whole_past_cannot_be_cut_into_windows():
    model = CoreReadout()
    model.core = Integrator()
    model.readout = Readouts({"second": Readout(2, 1, 1, 1)})
    with pytest.raises(rc.RetinaCodecError, match="recurrent"):
        load_openretina(model, **SETTINGS)


def test_given_facts_stand_in_for_missing_ones():
    network = load_openretina(
        CoreReadout(info=False),
        input_shape=(1, 9, 9),
        normalisation=rc.networks.Normalisation(1.0, 2.0),
        cells=["a", "b"],
        cell_types=["ON", "OFF"],
        layers="*layer1.conv",
        **SETTINGS,
    )
    assert (network.cells, network.cell_types) == (("a", "b"), ("ON", "OFF"))
    assert network.normalisation.std == 2
    assert network.layers == ("model.core.features.layer1.conv",)


def test_the_package_itself():
    pytest.importorskip("openretina")
    from openretina.models.core_readout import BaseCoreReadout
    from openretina.modules.core.base_core import SimpleCoreWrapper
    from openretina.modules.readout.multi_readout import MultiGaussianMaskReadout

    core = SimpleCoreWrapper(
        *((1, 3, 2), TIME, SPACE, 0.0, 0.0, 0.0, 0.0),
        cut_first_n_frames=0,
        hidden_padding=False,
        convolution_type="full",
    )
    readout = MultiGaussianMaskReadout(
        *((2, 4, 5, 5), {"second": 2}, True, True, 1.0, 1.0, False),
    )
    info = {"input_shape": (1, 9, 9), "stim_mean": 0.0, "stim_std": 1.0}
    model = BaseCoreReadout(core, readout, 0.01, data_info=info).eval()
    network = load_openretina(model, **SETTINGS)
    movie = torch.randn(2, 20, 9, 9)
    expected = model(movie[:, None], data_key="second")[:, -1]
    torch.testing.assert_close(network(movie[:, -network.history :]), expected)
    assert network.history == 7
