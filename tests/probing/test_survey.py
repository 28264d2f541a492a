"""Which axis is channels, how sure that is, and which layers cut: networks where it is known."""

from typing import Any

import pytest
import torch
from torch import nn

from retina_codec.errors import RetinaCodecError
from retina_codec.networks.adapter import adapt
from retina_codec.probing.hooks import HookedFunction
from retina_codec.probing.survey import Layer, survey
from tests.contributions.tiny import HISTORY, tiny_retina


def look(network: nn.Module, inputs: Any, layers: Any = "*", **choices: Any) -> dict[str, Layer]:
    return HookedFunction.open(adapt(network.eval(), layers, **choices), inputs).survey


class Flat(nn.Module):
    """Mean over everything but the batch and one axis, then two outputs."""

    def __init__(self, body: nn.Module, features: int, axis: int = 1) -> None:
        super().__init__()
        self.body, self.readout, self.axis = body, nn.Linear(features, 2), axis

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.body(x)
        h = h[0] if isinstance(h, tuple) else h
        h = h.movedim(self.axis, 1)
        return self.readout(h.flatten(2).mean(2) if h.ndim > 2 else h)


class LastToSecond(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.permute(0, 3, 1, 2)


class SecondToLast(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.permute(0, 2, 3, 1)


class ChannelsFirstNorm(nn.LayerNorm):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


IMAGE = torch.randn(1, 3, 8, 9, generator=torch.Generator().manual_seed(0))


def test_convolution_norm_and_what_follows_have_channels_second() -> None:
    body = nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.MaxPool2d(2), nn.GroupNorm(1, 5)
    )
    found = look(Flat(body, 5), IMAGE, "body.*")
    for name, shape in zip(found, [(5, 6, 7)] * 3 + [(5, 3, 3)] * 2, strict=True):
        assert (found[name].shape, found[name].channel_axis) == (shape, 1)
        assert found[name].axes_are == "inferred"
        assert found[name].channels == 5
        assert found[name].space_axes == (2, 3)


def test_a_linear_layer_on_pixels_has_channels_last_until_it_is_permuted() -> None:
    body = nn.Sequential(SecondToLast(), nn.Linear(3, 4), nn.GELU(), LastToSecond())
    found = look(Flat(body, 4), IMAGE, "body.*")
    axes = {name: layer.channel_axis for name, layer in found.items()}
    assert axes["body.1"] == axes["body.2"] == 3
    assert axes["body.3"] == 1
    assert found["body.3"].axes_are == "inferred"


@pytest.mark.parametrize("size", [2, 4])
def test_axes_of_equal_length_are_told_apart_by_tracing_units_back(size: int) -> None:
    """4 channels on 4 × 4 pixels: only the way back to the linear layer tells which axis."""
    torch.manual_seed(0)
    body = nn.Sequential(SecondToLast(), nn.Linear(3, size), nn.GELU(), LastToSecond())
    found = look(Flat(body, size), torch.randn(1, 3, size, size), "body.*")
    assert found["body.1"].channel_axis == found["body.2"].channel_axis == 3
    assert found["body.3"].channel_axis == 1
    assert [found[f"body.{k}"].axes_are for k in (1, 2, 3)] == ["inferred"] * 3


def test_where_several_axes_fit_and_nothing_tells_it_is_called_a_guess() -> None:
    class Mix(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x - x.mean((1, 2, 3), keepdim=True)

    body = nn.Sequential(nn.Conv2d(3, 4, 1), Mix())
    found = look(Flat(body, 4), torch.randn(1, 3, 4, 5), "body.*")
    assert found["body.1"].axes_are == "guessed: axes 1, 2 have 4 entries each"
    assert found["body.1"].channel_axis == 1
    assert found["body.0"].axes_are == "inferred"  # the convolution itself cannot be otherwise


def test_no_module_that_makes_channels_and_no_axis_that_fits_are_guesses() -> None:
    found = look(Flat(nn.Sequential(nn.ReLU()), 3), IMAGE, "body.0")
    assert found["body.0"].axes_are == "guessed: no module before this layer makes channels"
    body = nn.Sequential(nn.Conv2d(3, 4, 1), nn.PixelShuffle(2))
    found = look(Flat(body, 1), IMAGE, "body.*")
    assert found["body.1"].axes_are == "guessed: no axis has the 4 channels of the module before"


def test_a_layer_norm_of_channels_first_is_inferred_or_called_a_guess() -> None:
    body = nn.Sequential(nn.Conv2d(3, 4, 1), ChannelsFirstNorm(4))
    found = look(Flat(body, 4), IMAGE, "body.*")
    assert (found["body.1"].channel_axis, found["body.1"].axes_are) == (1, "inferred")
    found = look(Flat(body, 4), torch.randn(1, 3, 4, 4), "body.*")  # 4 × 4 × 4: cannot be known
    assert found["body.1"].axes_are.startswith("guessed: axes 1, 2, 3 have 4 entries each")


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("proj_size", [0, 3])
def test_a_recurrent_layer_has_channels_last(proj_size: int) -> None:
    body = nn.LSTM(3, 4, batch_first=True, bidirectional=True, proj_size=proj_size)
    found = look(Flat(body, 2 * (proj_size or 4), 2), torch.randn(1, 6, 3), "body")
    assert found["body"].shape == (6, 2 * (proj_size or 4))
    assert (found["body"].channel_axis, found["body"].axes_are) == (2, "inferred")


def test_declared_axes_win_and_are_checked() -> None:
    body = nn.Sequential(nn.Conv2d(3, 5, 3))
    found = look(Flat(body, 5), IMAGE, "body.0", channel_axis=-1)
    assert (found["body.0"].channel_axis, found["body.0"].axes_are) == (3, "declared")
    for wrong in (0, 4, -4, -5):
        with pytest.raises(RetinaCodecError, match=r"'body.0' must be between 1 and 3 .*got"):
            look(Flat(body, 5), IMAGE, "body.0", channel_axis=wrong)


def test_the_retina_network_is_a_chain_of_images() -> None:
    network = tiny_retina()
    found = look(network, torch.zeros(1, HISTORY, 9, 8), None)
    assert list(found) == ["conv1", "conv2", "conv3"]
    for layer in found.values():
        assert layer.cuts
        assert layer.channel_axis == 1


class Residual(nn.Module):
    """y = readout(x + right(left(x)) + maybe x again at the end)."""

    def __init__(self, skip_all: bool = False) -> None:
        super().__init__()
        self.stem, self.left, self.right = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3)
        self.block, self.readout, self.skip_all = nn.Identity(), nn.Linear(3, 2), skip_all

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        stem = self.stem(x)
        h = self.block(stem + self.right(torch.tanh(self.left(stem))))
        return self.readout(h + x if self.skip_all else h)


@pytest.mark.parametrize("skip_all", [False, True])
def test_a_layer_cuts_if_nothing_goes_round_it(skip_all: bool) -> None:
    found = look(Residual(skip_all), torch.randn(1, 3))
    cuts = {name: layer.cuts for name, layer in found.items()}
    inside = dict.fromkeys(("left", "right"), False)
    around = dict.fromkeys(("stem", "block"), not skip_all)
    assert cuts == inside | around | {"readout": True}


def test_an_identity_in_a_branch_does_not_cut() -> None:
    """It gives back its own input, so that tensor alone cannot tell the two ways apart."""

    class Branch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.same, self.last = nn.Linear(3, 3), nn.Identity(), nn.Linear(3, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = self.stem(x)
            return self.last(h + self.same(h).tanh())

    found = look(Branch(), torch.randn(1, 3))
    assert {name: one.cuts for name, one in found.items()} == {
        "stem": True, "same": False, "last": True,
    }  # fmt: skip


class Twice(nn.Module):
    def __init__(self, *, parallel: bool) -> None:
        super().__init__()
        self.shared, self.last, self.parallel = nn.Linear(3, 3), nn.Linear(3, 2), parallel

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = self.shared(x).tanh()
        second = self.shared(x * 2 if self.parallel else first)
        return self.last(first + second if self.parallel else second)


@pytest.mark.parametrize("parallel", [False, True])
def test_every_call_of_a_module_is_a_layer(parallel: bool) -> None:
    found = look(Twice(parallel=parallel), torch.randn(1, 3), "shared")
    assert {name: layer.cuts for name, layer in found.items()} == {
        "shared@1": not parallel,
        "shared@2": not parallel,
    }


def test_the_hooked_input_of_a_module_cuts_where_the_input_does() -> None:
    found = look(Residual(), torch.randn(1, 3), hook="input")
    assert {name: layer.cuts for name, layer in found.items()} == {
        "stem": True, "left": False, "right": False, "block": True, "readout": True,
    }  # fmt: skip


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(7, 4), nn.Embedding(5, 4)
        self.mix, self.last = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        h = self.words(ids) + self.places(torch.arange(ids.shape[1]))
        h = h + self.mix(h).tanh()
        return self.last((h * mask[..., None]).sum(1))


def test_for_token_numbers_the_embeddings_stand_for_the_input() -> None:
    inputs = {"ids": torch.tensor([[1, 2, 3]]), "mask": torch.ones(1, 3, dtype=torch.int64)}
    network = adapt(Tokens().eval(), "*")
    found = survey(network, inputs, HookedFunction(network, {}).watched).layers
    assert {name: layer.cuts for name, layer in found.items()} == {
        "words": True, "places": False, "mix": False, "last": True,
    }  # fmt: skip
    # Places come without the axis of inputs, as one table for all.
    assert [name for name, layer in found.items() if not layer.row_for_each] == ["places"]
    inside = look(Tokens(), inputs, "mix", hook="input")
    assert not inside["mix"].cuts


@pytest.mark.parametrize(
    ("module", "overwritten"), [(nn.ReLU(inplace=True), True), (nn.ReLU(), False)]
)
def test_layers_that_are_overwritten_later_are_known(module: nn.Module, overwritten: bool) -> None:
    body = nn.Sequential(nn.Conv2d(3, 5, 3), module)
    found = look(Flat(body, 5), IMAGE, "body.*")
    assert [layer.overwritten for layer in found.values()] == [overwritten, False]


def test_a_layer_that_is_never_called_is_named() -> None:
    network = Flat(nn.Conv2d(3, 5, 3), 5)
    network.spare = nn.Linear(2, 2)
    with pytest.raises(RetinaCodecError, match=r"\['spare'\] were not called"):
        look(network, IMAGE)


def test_looking_leaves_no_hooks_and_changes_no_input() -> None:
    network, image = Flat(nn.Sequential(nn.Conv2d(3, 5, 3)), 5), IMAGE.clone()
    look(network, image)
    assert torch.equal(image, IMAGE)
    assert not image.requires_grad
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())
