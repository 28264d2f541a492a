"""The whole way: a recording split and a network in, labelled contributions out."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from captum.attr import LayerConductance
from torch import nn

from retina_codec.contributions.contribute import contribute
from retina_codec.contributions.results import completeness
from retina_codec.errors import RetinaCodecError
from retina_codec.methods.gradients import ActGrad, ActNormGrad, InputGrad, SmoothGrad
from retina_codec.methods.integrated_gradients import IntegratedGradients
from retina_codec.networks.adapter import adapt
from retina_codec.reductions import AllUnits, HeadSums
from retina_codec.storage.trees import open_tree
from retina_codec.targets.base import Sum, Unit
from retina_codec.targets.classification import TopK
from retina_codec.targets.surprisal import Surprisal
from tests.contributions.tiny import CELLS, HISTORY, tiny_retina, tiny_split, tiny_windows
from tests.reference.contributions import integrated_gradients, split_by_sign, surprisal

LAYERS = ("conv1", "conv2", "conv3")

UNIFORM = IntegratedGradients(5, placement="uniform")


def explain(network: nn.Module, inputs: Any, **options: Any) -> xr.DataTree:
    settings: dict[str, Any] = {
        "target": Surprisal(),
        "method": IntegratedGradients(4, placement="uniform"),
        "dtype": torch.float64,
        "progress": False,
    }
    return contribute(network, inputs, **(settings | options))


def values(tree: xr.DataTree, layer: str = "conv1", what: str = "contribution") -> np.ndarray:
    return tree[f"layers/{layer}/{what}"].values


def assert_same(one: xr.DataTree, other: xr.DataTree, **tolerance: float) -> None:
    """Equal labels and attributes, values equal within the tolerance."""
    xr.testing.assert_allclose(one, other, **tolerance)


@pytest.fixture(scope="module")
def explained() -> xr.DataTree:
    return explain(tiny_retina(), tiny_split())


def test_agrees_with_the_slow_reference_from_frames_to_signs(explained: xr.DataTree) -> None:
    """Everything a second time: windows, Σ of the responses, path, differences, signs, sums."""
    network = tiny_retina().double().requires_grad_(False)
    windows = tiny_windows(55)
    rates = network(windows).numpy()
    mean, covariance = rates.mean(0), np.cov(rates.T)
    np.testing.assert_allclose(explained["responses/prediction"], rates, rtol=1e-9)
    np.testing.assert_allclose(explained["responses/mean"], mean, rtol=1e-9)
    np.testing.assert_allclose(explained["responses/covariance"], covariance, rtol=1e-9)
    condition = float(explained["responses/condition_number"])
    assert condition == pytest.approx(np.linalg.cond(covariance), rel=1e-6)

    def third(units: torch.Tensor) -> torch.Tensor:
        return network.softplus(network.norm3(network.readout(units)))

    def second(units: torch.Tensor) -> torch.Tensor:
        return third(network.conv3(network.relu2(network.norm2(units))))

    def to_second(first: torch.Tensor) -> torch.Tensor:
        return network.conv2(network.relu1(network.norm1(first)))

    def to_third(first: torch.Tensor) -> torch.Tensor:
        return network.conv3(network.relu2(network.norm2(to_second(first))))

    parts: dict[str, tuple[Callable[..., torch.Tensor], Callable[..., torch.Tensor]]] = {
        "conv1": (network.conv1, network.above_first_layer),
        "conv2": (lambda x: to_second(network.conv1(x)), second),
        "conv3": (lambda x: to_third(network.conv1(x)), third),
    }
    zero = torch.zeros_like(windows[0])
    for name, (below, above) in parts.items():
        activation = below(windows).mean((2, 3))
        np.testing.assert_allclose(values(explained, name, "activation"), activation, rtol=1e-8)
        for time in (0, 31):
            slow = integrated_gradients(
                lambda x, below=below: below(x[None])[0],
                lambda h, above=above: surprisal(above(h[None])[0].numpy(), mean, covariance),
                windows[time],
                zero,
                steps=4,
            )
            expected, found = split_by_sign(slow), values(explained, name)[time]
            # Central differences of 1e-6 and their sums are good to about 1e-7 of the largest.
            np.testing.assert_allclose(found, expected, atol=1e-6 * np.abs(expected).max())
    for time in (0, 31, 54):
        value = surprisal(rates[time], mean, covariance)
        assert float(explained["responses/target"][time]) == pytest.approx(value, rel=1e-9)
        at_grey = surprisal(network(zero[None])[0].numpy(), mean, covariance)
        for name in LAYERS:
            change = values(explained, name, "target_change")[time]
            assert change == pytest.approx(value - at_grey, rel=1e-8)


def test_agrees_with_captum_on_the_retina_network() -> None:
    """Half the difference of both directions of captum's left sum is the trapezoid."""
    network = tiny_retina().double()
    windows = tiny_windows(6)
    found = explain(network, windows, target=Sum(), method=UNIFORM)
    options = {"n_steps": 5, "method": "riemann_trapezoid"}
    for name in LAYERS:
        captum = LayerConductance(lambda x: network(x).sum(1), getattr(network, name))
        zero = torch.zeros_like(windows)
        there = captum.attribute(windows.clone(), baselines=zero, **options)
        back = captum.attribute(zero.clone(), baselines=windows, **options)
        units = ((there - back) / 2).detach().numpy()
        expected = np.stack([split_by_sign(one) for one in units])
        # Captum makes its points in float32; kinks may lie between its points and ours.
        np.testing.assert_allclose(values(found, name), expected, rtol=1e-5, atol=1e-6)


def test_a_recording_and_its_windows_give_the_same() -> None:
    """Streams through transforms of frames against ready windows in another order."""
    split, order = tiny_split(), np.random.default_rng(0).permutation(55)
    stream = explain(tiny_retina(), split)
    windows = xr.DataArray(tiny_windows(55), dims=("time", "lag", "y", "x"))
    windows = windows.assign_coords(time=split["time"].values[HISTORY:])
    shuffled = explain(tiny_retina(), windows[order])
    np.testing.assert_array_equal(shuffled["responses/time"], windows["time"][order])
    for name in LAYERS:
        found = shuffled[f"layers/{name}"].to_dataset().sortby("time")
        expected = stream[f"layers/{name}"].to_dataset()
        xr.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-10)


def test_the_order_of_dims_of_windows_does_not_matter() -> None:
    random = np.random.default_rng(0)
    windows = xr.DataArray(random.normal(size=(9, HISTORY, 9, 9)), dims=("time", "lag", "y", "x"))
    network = tiny_retina(frame_shape=(9, 9))
    turned = explain(network, windows.transpose("time", "x", "y", "lag"))
    xr.testing.assert_identical(turned, explain(network, windows))


def test_batches_do_not_matter_but_bound_what_the_network_sees() -> None:
    network, sizes = tiny_retina(), []
    expected = explain(network, tiny_split(), batch_size=55)
    for size in (1, 7, 54):
        assert_same(explain(network, tiny_split(), batch_size=size), expected, rtol=1e-8)
    handle = network.conv2.register_forward_hook(lambda *about: sizes.append(len(about[1][0])))
    # With a hook of the caller's the network runs module by module: the same result again.
    assert_same(explain(network, tiny_split(), batch_size=7), expected, rtol=1e-8)
    assert len(network.conv2._forward_hooks) == 1
    handle.remove()
    assert max(sizes) == 7


def test_completeness_improves_with_steps_and_is_reported(explained: xr.DataTree) -> None:
    fine = explain(tiny_retina(), tiny_split(), method=IntegratedGradients(300))
    for name in LAYERS:
        total = values(explained, name).sum((1, 2))
        error = values(explained, name, "completeness_error")
        change = values(explained, name, "target_change")
        np.testing.assert_allclose(error, total - change, rtol=1e-9, atol=1e-12)
    summary = completeness(explained)
    relative = np.abs(error / change)  # of conv3, the last of the loop
    assert summary["layer"].values.tolist() == list(LAYERS)
    assert float(summary["median"][2]) == pytest.approx(np.median(relative))
    assert float(summary["percentile_95"][2]) == pytest.approx(np.percentile(relative, 95))
    # 75 times the steps: an error of 1/n² for smooth paths, about 1/n where ReLUs switch.
    assert (completeness(fine)["median"] < summary["median"] / 40).all()
    assert (completeness(fine)["median"] < 1e-2).all()


def test_at_the_baseline_nothing_is_missing() -> None:
    at_grey = explain(tiny_retina(), torch.zeros(3, HISTORY, 9, 8), target=Sum())
    assert (completeness(at_grey)["percentile_95"] == 0).all()
    assert (values(at_grey) == 0).all()
    with pytest.raises(RetinaCodecError, match="must hold contributions of at least one layer"):
        completeness(xr.DataTree())


def test_signs_keep_their_side_and_labels_stand(explained: xr.DataTree) -> None:
    split = tiny_split()
    for name, channels in zip(LAYERS, (2, 3, 4), strict=True):
        contribution = explained[f"layers/{name}/contribution"]
        assert contribution.dims == ("time", "sign", "channel")
        assert contribution.sizes == {"time": 55, "sign": 2, "channel": channels}
        assert contribution["sign"].values.tolist() == ["inhibitory", "excitatory"]
        assert (contribution.sel(sign="inhibitory") <= 0).all()
        assert (contribution.sel(sign="excitatory") >= 0).all()
        assert float(contribution.sel(sign="inhibitory").sum()) < 0
        for what in ("contribution", "target_change", "completeness_error"):
            assert explained[f"layers/{name}/{what}"].attrs["units"] == "nats"
        np.testing.assert_array_equal(contribution["time"], split["time"][HISTORY:])
    responses = explained["responses"].to_dataset()
    assert responses["cell"].values.tolist() == list(CELLS)
    assert responses["type"].values.tolist() == ["off", "off", "on", "on"]
    assert responses["prediction"].attrs["units"] == responses["rate"].attrs["units"] == "Hz"
    np.testing.assert_array_equal(responses["rate"], split["rate"][HISTORY:])
    assert explained.attrs["method"] == "IntegratedGradients"
    assert explained.attrs["steps"] == 4
    assert explained.attrs["target"].startswith("Surprisal(mean=estimated")
    assert "torch " in explained.attrs["versions"]


def test_the_networks_cells_are_found_by_id_and_others_left_out(explained: xr.DataTree) -> None:
    split = tiny_split()
    more = split.isel(cell=[3, 0, 1, 0, 2]).assign_coords(cell=["d", "other", "b", "a", "c"])
    assert_same(explain(tiny_retina(), more), explained)


def test_permuted_channels_give_permuted_contributions(explained: xr.DataTree) -> None:
    network, order = tiny_retina(), torch.tensor([1, 0])
    with torch.no_grad():
        network.conv1.weight.copy_(network.conv1.weight[order].clone())
        network.conv1.bias.copy_(network.conv1.bias[order].clone())
        for values_ in (*network.norm1.parameters(), *network.norm1.buffers()):
            values_.copy_(values_[order].clone())
        network.conv2.weight.copy_(network.conv2.weight[:, order].clone())
    found = explain(network, tiny_split())
    np.testing.assert_allclose(values(found), values(explained)[..., order], rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(values(found, "conv2"), values(explained, "conv2"), rtol=1e-8)


def test_a_lazy_stimulus_is_read_in_parts_and_gives_the_same(explained: xr.DataTree) -> None:
    assert_same(explain(tiny_retina(), tiny_split().chunk(time=13)), explained)
    node = xr.DataTree.from_dict({"/test": tiny_split()})["test"]
    assert_same(explain(tiny_retina(), node), explained)


@pytest.mark.parametrize("crash", [False, True])
@pytest.mark.parametrize("layers", [LAYERS, ("relu1", "conv3")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_network_and_inputs_are_left_as_they_were(
    crash: bool, layers: tuple[str, ...], dtype: torch.dtype
) -> None:
    network, split = tiny_retina().train(), tiny_split()
    network.norm2.eval()
    network.conv1.weight.requires_grad_(False)
    state = {name: value.clone() for name, value in network.state_dict().items()}
    flags = [module.training for module in network.modules()]
    wanted = [parameter.requires_grad for parameter in network.parameters()]
    calls = []

    def target(outputs: torch.Tensor) -> torch.Tensor:
        calls.append(len(outputs))
        if crash and len(calls) == 3:
            raise RuntimeError("boom")
        return outputs.sum(1)

    options = {"target": target, "layers": layers, "dtype": dtype}
    if crash:
        with pytest.raises(RuntimeError, match="boom"):
            explain(network, split, **options)
    else:
        explain(network, split, **options)
    for name, value in network.state_dict().items():
        assert torch.equal(value, state[name])
        assert value.dtype == state[name].dtype
    assert [module.training for module in network.modules()] == flags
    assert [parameter.requires_grad for parameter in network.parameters()] == wanted
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())
    xr.testing.assert_identical(split, tiny_split())


def test_training_mode_and_no_grad_of_the_caller_do_not_matter(explained: xr.DataTree) -> None:
    """In training mode the network would add noise and normalise by the batch."""
    with torch.no_grad():
        assert_same(explain(tiny_retina().train(), tiny_split()), explained)


def test_double_precision_only_on_request(explained: xr.DataTree) -> None:
    single = explain(tiny_retina(), tiny_split(), dtype=None)
    double = explain(tiny_retina().double(), tiny_split(), dtype=None)
    back = explain(tiny_retina().double(), tiny_split(), dtype=torch.float32)
    for name in LAYERS:
        assert values(single, name).dtype == values(back, name).dtype == np.float32
        assert values(explained, name).dtype == np.float64
        np.testing.assert_allclose(values(double, name), values(explained, name), rtol=1e-9)
        scale = np.abs(values(explained, name)).max()
        difference = np.abs(values(single, name) - values(explained, name)).max()
        assert 0 < difference < 1e-3 * scale
    assert single.attrs["dtype"] == "float32"
    assert explained.attrs["dtype"] == "float64"


@pytest.mark.parametrize(
    "change",
    [
        {"method": UNIFORM},
        {"method": IntegratedGradients(4, baseline=0.5)},
        {"method": IntegratedGradients(4, baseline="mean")},
        {"method": IntegratedGradients(4, baseline=[0.0, 0.5])},
        {"method": IntegratedGradients(4, path="hidden"), "compare": "conv2"},
        {"method": IntegratedGradients(4, quadrature="simpson")},
        {"method": IntegratedGradients(4, quadrature="gauss-legendre")},
        {"method": IntegratedGradients(4, quadrature="chords")},
        {"method": IntegratedGradients(4, tolerance=0.01)},
        {"method": IntegratedGradients(4, tolerance=0.01, most_steps=8)},
        {"method": InputGrad()},
        {"method": InputGrad(baseline=0.5)},
        {"method": ActGrad()},
        {"method": ActGrad(baseline=0.5)},
        {"method": ActNormGrad()},
        {"method": SmoothGrad()},
        {"method": SmoothGrad(samples=3)},
        {"method": SmoothGrad(sigma=0.1)},
        {"method": SmoothGrad(seed=1)},
        {"method": IntegratedGradients(4, baseline=torch.linspace(-1, 1, 72).reshape(9, 8))},
        {"target": Surprisal(shrinkage="ledoit-wolf")},
        {"target": Surprisal(np.zeros(4), np.eye(4))},
        {"target": Unit("b")},
        {"target": Sum()},
        {"target": lambda rates: rates[:, 0] ** 2},
    ],
)
def test_every_setting_changes_the_values(change: dict[str, Any], explained: xr.DataTree) -> None:
    change = dict(change)
    layer = change.pop("compare", "conv1")
    method = change.get("method")
    if method is not None and isinstance(getattr(method, "baseline", None), torch.Tensor):
        frame = method.baseline
        change = {"method": IntegratedGradients(4, baseline=frame.expand(HISTORY, 9, 8))}
    other = explain(tiny_retina(), tiny_split(), **change)
    seen = [values(explained, layer)]
    if isinstance(method, SmoothGrad) and method != SmoothGrad():
        seen.append(values(explain(tiny_retina(), tiny_split(), method=SmoothGrad()), layer))
    for expected in seen:
        difference = np.abs(values(other, layer) - expected).max()
        assert difference > 1e-4 * np.abs(expected).max()
    assert dict(other.attrs) != dict(explained.attrs)


def test_layers_can_be_chosen_and_do_not_change_each_other(explained: xr.DataTree) -> None:
    some = explain(tiny_retina(), tiny_split(), layers=("conv2", "relu1"))
    assert list(some["layers"].children) == ["conv2", "relu1"]
    np.testing.assert_allclose(values(some, "conv2"), values(explained, "conv2"), rtol=1e-8)
    one = explain(tiny_retina(), tiny_split(), layers="conv2")
    np.testing.assert_allclose(values(one, "conv2"), values(explained, "conv2"), rtol=1e-8)
    # own points are those of the layers asked for: the integral is the same, its error another
    own = {
        layers: explain(tiny_retina(), tiny_split(), layers=layers, method=IntegratedGradients(40))
        for layers in ("conv2", ("conv1", "conv2"))
    }
    alone, together = (values(tree, "conv2") for tree in own.values())
    np.testing.assert_allclose(alone, together, atol=0.01 * np.abs(alone).max())


def test_progress_shows_on_request_only(capsys: pytest.CaptureFixture[str]) -> None:
    explain(tiny_retina(), tiny_split(), progress=False)
    assert capsys.readouterr().err == ""
    explain(tiny_retina(), tiny_split(), progress=True)
    shown = capsys.readouterr().err
    assert "predictions" in shown
    assert "contributions" in shown


def test_any_module_and_units_of_any_target() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))
    inputs = xr.DataArray(
        np.random.default_rng(0).normal(size=(6, 3)),
        dims=("sample", "feature"),
        coords={"sample": list("uvwxyz"), "label": ("sample", [0, 1, 0, 1, 0, 1])},
    )
    found = explain(network, inputs, target=Unit(1), layers=["0", "2"])
    assert found["layers/0/contribution"].dims == ("sample", "sign", "channel")
    # Only a network that names its cells puts out rates.
    assert found["layers/0/contribution"].attrs["units"] == "1"
    assert (
        explain(tiny_retina(), tiny_split(), target=Sum())["layers/conv1/contribution"].attrs[
            "units"
        ]
        == "Hz"
    )
    assert found["layers/0"]["label"].values.tolist() == [0, 1, 0, 1, 0, 1]
    assert found["responses"]["sample"].values.tolist() == list("uvwxyz")
    np.testing.assert_allclose(found["responses/target"], found["responses/prediction"][:, 1])
    tensor = explain(network, torch.from_numpy(inputs.values), target=Unit(1), layers=["0", "2"])
    np.testing.assert_array_equal(values(tensor, "0"), values(found, "0"))


def test_nested_layers_keep_their_own_node() -> None:
    network = nn.Sequential(nn.Sequential(nn.Linear(3, 4), nn.Tanh()), nn.Linear(4, 2))
    found = explain(network, torch.ones(2, 3), target=Sum(), layers=["0.0", "0", "1"])
    assert list(found["layers"].children) == ["0.0", "0", "1"]


def test_files_hold_everything(explained: xr.DataTree, tmp_path: Any) -> None:
    explained.to_netcdf(tmp_path / "explained.nc", engine="h5netcdf")
    with xr.open_datatree(tmp_path / "explained.nc", engine="h5netcdf") as opened:
        xr.testing.assert_identical(opened.load(), explained)


def with_nan() -> xr.Dataset:
    split = tiny_split()
    split["stimulus"] = split["stimulus"].astype("f4")
    split["stimulus"][7, 3, 3] = np.nan
    return split


def silent_network() -> nn.Module:
    network = tiny_retina()
    with torch.no_grad():
        network.conv3.weight[2] = 0
    return network


def infinite(outputs: torch.Tensor) -> torch.Tensor:
    return outputs.sum(1) / 0


@pytest.mark.parametrize(
    ("network", "inputs", "options", "message"),
    [
        (tiny_retina, lambda: tiny_split(4), {}, "looks back 5 frames"),
        (tiny_retina, with_nan, {}, "NaN"),
        (tiny_retina, lambda: tiny_split().drop_vars("stimulus"), {}, "must have a stimulus"),
        (tiny_retina, lambda: tiny_split().isel(y=slice(8)), {}, r"frames of 9 × 8"),
        (tiny_retina, lambda: tiny_split().isel(cell=slice(3)), {}, r"cells \['d'\]"),
        (silent_network, tiny_split, {}, "silent cells .*: 'c'. "),
        (tiny_retina, lambda: tiny_split(9), {}, "more than 4 responses; got 4"),
        (
            tiny_retina,
            tiny_split,
            {"layers": ["conv4"]},
            "no layer 'conv4'. The closest are: conv3, conv2, conv1. Its layers are: conv1",
        ),
        (tiny_retina, tiny_split, {"layers": []}, "layers must name"),
        (tiny_retina, tiny_split, {"target": Unit("q")}, "no cell 'q'"),
        (tiny_retina, tiny_split, {"target": "Sum"}, "target must be"),
        (tiny_retina, tiny_split, {"target": infinite}, "target is not finite for input 0"),
        (tiny_retina, tiny_split, {"method": "ig"}, "method must be"),
        (tiny_retina, tiny_split, {"batch_size": 0}, "batch_size must be at least 1"),
        (tiny_retina, tiny_split, {"dtype": torch.float16}, "float32 or torch.float64"),
        (tiny_retina, lambda: [1, 2], {}, "got list"),
        (tiny_retina, dict, {}, "at least one tensor; got an empty dict"),
        (tiny_retina, lambda: torch.ones(0, HISTORY, 9, 8), {}, r"at least one sample.*\(0, 5"),
        (tiny_retina, tiny_split, {"method": IntegratedGradients}, "method must be"),
        (tiny_retina, tiny_split, {"reduction": "sum"}, "reduction must be"),
        (tiny_retina, tiny_split, {"reduction": HeadSums(2), "layers": ["conv2"]}, "2 heads"),
        (tiny_retina, tiny_split, {"store": "run.h5"}, "must end in .nc or .zarr"),
        (tiny_retina, tiny_split, {"client": object()}, "give store='run.zarr'"),
        (tiny_retina, tiny_split, {"target": lambda y: y}, r"shape \(\d+,\); got \(\d+, 4\)"),
        (
            tiny_retina,
            tiny_split,
            {"layers": ["relu1"], "method": IntegratedGradients(4, quadrature="chords")},
            "says which nonlinearity",
        ),
        (tiny_retina, lambda: torch.ones(3), {}, r"shape \(3,\)"),
        (tiny_retina, lambda: torch.ones(2, 7, 9, 8), {}, r"\(5, 9, 8\).* got \(7, 9, 8\)"),
        (tiny_retina, lambda: torch.ones(2, HISTORY, 8, 9), {}, r"got \(5, 8, 9\)"),
        (tiny_retina, lambda: xr.DataArray(np.ones((2, 2)), dims=("a", "b")), {}, "first dim"),
        (
            tiny_retina,
            lambda: torch.full((2, HISTORY, 9, 8), torch.nan),
            {},
            "sample number 0 is not",
        ),
        (
            lambda: nn.Sequential(nn.Linear(3, 2)),
            tiny_split,
            {"layers": ["0"]},
            "cut into windows for a network",
        ),
        (lambda: nn.Sequential(nn.Linear(3, 2)), lambda: torch.ones(2, 3), {}, "They are: 0"),
        (lambda: print, tiny_split, {}, "must be a torch module"),
    ],
)
def test_bad_input_is_one_clear_line(
    network: Callable[[], Any],
    inputs: Callable[[], Any],
    options: dict[str, Any],
    message: str,
) -> None:
    with pytest.raises(RetinaCodecError, match=message) as caught:
        explain(network(), inputs(), **options)
    assert "\n" not in str(caught.value)


class Poisoned(nn.Module):
    """Puts out an infinity for inputs whose first number is 7."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return torch.where(values[:, :1] == 7, torch.inf, values)


@pytest.mark.parametrize("target", [Sum(), Surprisal()])
def test_values_that_are_not_finite_are_located(target: Any) -> None:
    network = nn.Sequential(nn.Identity(), Poisoned(), nn.Linear(3, 2))
    inputs = torch.randn(12, 3)
    inputs[9, 0] = 7
    with pytest.raises(RetinaCodecError, match="layer '1' are not finite for input 9"):
        explain(network, inputs, target=target, layers=["0", "1"], batch_size=4)


def test_a_gradient_that_is_not_finite_is_located() -> None:
    """√y at y = 0: values are fine, the slope is not."""
    network = nn.Sequential(nn.Identity())
    inputs = torch.ones(5, 2)
    inputs[3] = 0
    with pytest.raises(RetinaCodecError, match="of layer '0' are not finite for input 3"):
        explain(network, inputs, target=lambda y: y.sum(1).sqrt(), layers="0", method=ActGrad())


def test_all_units_add_up_to_the_sums() -> None:
    network = tiny_retina()
    whole = explain(network, tiny_split(), reduction=AllUnits())
    summed = explain(network, tiny_split())
    for name, space in zip(LAYERS, ((7, 6), (5, 4), (3, 2)), strict=True):
        units = whole[f"layers/{name}/contribution"]
        assert units.dims == ("time", "channel", "row", "column")
        assert units.shape[2:] == space
        parts = np.stack([units.clip(max=0).sum(("row", "column")),
                          units.clip(min=0).sum(("row", "column"))], 1)  # fmt: skip
        np.testing.assert_allclose(parts, values(summed, name), rtol=1e-8, atol=1e-10)
        activation = whole[f"layers/{name}/activation"].mean(("row", "column"))
        np.testing.assert_allclose(activation, values(summed, name, "activation"), rtol=1e-8)


def test_heads_share_the_channels() -> None:
    network = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 2))
    inputs = torch.randn(5, 4, 3)  # (sample, token, feature)
    target = {"target": lambda y: y.sum((1, 2)), "layers": ["1"]}
    units = explain(network, inputs, reduction=AllUnits(), **target)["layers/1/contribution"]
    assert units.dims == ("sample", "channel", "token")
    heads = explain(network, inputs, reduction=HeadSums(3), **target)["layers/1/contribution"]
    for head in range(3):
        mine = units.isel(channel=slice(2 * head, 2 * head + 2))
        for sign, limits in (("inhibitory", {"max": 0}), ("excitatory", {"min": 0})):
            expected = mine.clip(**limits).sum(("channel", "token"))
            found = heads.sel(sign=sign, channel=head)
            np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)


def test_what_a_result_says_of_its_layers(explained: xr.DataTree) -> None:
    attrs = explained["layers/conv2"].attrs
    assert attrs["unit_shape"] == [3, 5, 4]
    assert attrs["channel_axis"] == 1
    assert attrs["space_axes"] == [2, 3]
    assert attrs["axes_are"] == "inferred"
    assert attrs["completeness"] == "holds: contributions sum to F(x) - F(baseline)"
    declared = explain(adapt(tiny_retina(), ["conv2"], channel_axis=2), tiny_split())
    assert declared["layers/conv2"].attrs["axes_are"] == "declared"
    assert declared["layers/conv2"].attrs["channel_axis"] == 2


def test_methods_without_a_known_sum_say_so() -> None:
    found = explain(tiny_retina(), tiny_split(), method=ActGrad())
    assert "completeness_error" not in found["layers/conv1"]
    assert found["layers/conv1"].attrs["completeness"] == "not defined for ActGrad"
    with pytest.raises(RetinaCodecError, match="no completeness error; not defined for ActGrad"):
        completeness(found)
    smooth = explain(tiny_retina(), tiny_split(), method=SmoothGrad())
    assert float(smooth["layers/conv1/standard_error"].min()) > 0
    normalised = explain(tiny_retina(), tiny_split(), method=ActNormGrad())
    assert normalised["layers/conv1/contribution"].attrs["units"] == "activation"


def test_steps_that_a_tolerance_took_are_in_the_result() -> None:
    found = explain(tiny_retina(), tiny_split(), method=IntegratedGradients(4, tolerance=0.05))
    steps = found["responses/steps"].values
    doubled = IntegratedGradients(4, tolerance=0.05, placement="uniform")
    powers = explain(tiny_retina(), tiny_split(), method=doubled)["responses/steps"].values
    assert set(powers) <= {4 * 2**k for k in range(9)}
    assert steps.max() > 4
    for name in LAYERS:
        error = np.abs(values(found, name, "completeness_error"))
        assert error[steps < 1280].max() <= 0.05


def test_the_mean_of_the_inputs_is_a_baseline() -> None:
    """For a recording the mean frame, at every lag; for samples their mean."""
    network, split = tiny_retina(), tiny_split()
    frame = torch.from_numpy((split["stimulus"].values.mean(0) - 120) / 50)
    method = IntegratedGradients(4, baseline=frame.expand(HISTORY, 9, 8))
    expected = explain(network, split, method=method)
    found = explain(network, split, method=IntegratedGradients(4, baseline="mean"))
    np.testing.assert_allclose(values(found), values(expected), rtol=1e-8)
    windows = tiny_windows(20)
    method = IntegratedGradients(4, baseline=windows.mean(0))
    expected = explain(network, windows, method=method, target=Sum())
    found = explain(network, windows, method=IntegratedGradients(4, baseline="mean"), target=Sum())
    np.testing.assert_allclose(values(found), values(expected), rtol=1e-8)


def test_a_surprisal_can_be_fitted_to_another_split() -> None:
    from retina_codec.networks.retina.prediction import predict_rates

    network = tiny_retina()
    target = Surprisal().fit(predict_rates(network, tiny_split(seed=5), progress=False))
    found = explain(network, tiny_split(), target=target)
    np.testing.assert_array_equal(found["responses/mean"], target.mean)
    other = explain(network, tiny_split())
    assert not np.allclose(found["responses/mean"], other["responses/mean"], rtol=1e-3)
    rates = found["responses/prediction"].values
    for time in (0, 20):
        value = surprisal(rates[time], target.mean, target.covariance)
        assert float(found["responses/target"][time]) == pytest.approx(value, rel=1e-6)


def test_small_results_go_to_one_file(explained: xr.DataTree, tmp_path: Any) -> None:
    found = explain(tiny_retina(), tiny_split(), store=tmp_path / "run.nc")
    xr.testing.assert_identical(found, explained)
    opened = open_tree(tmp_path / "run.nc", lazy=False)
    xr.testing.assert_allclose(opened, explained, rtol=0)
    with pytest.raises(RetinaCodecError, match="must not exist yet"):
        explain(tiny_retina(), tiny_split(), store=tmp_path / "run.nc")


def test_the_choice_of_a_target_is_held_along_the_path() -> None:
    """Closed form: F = max of two lines; the winner at x gives its own line all the way."""
    network = nn.Sequential(nn.Linear(1, 2, bias=True))
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([[2.0], [-1.0]]))
        network[0].bias.copy_(torch.tensor([-1.0, 1.0]))
    x = torch.tensor([[2.0], [3.0]])  # outputs (3, −1), (5, −2); at 0 they are (−1, 1)
    held = explain(network, x, target=TopK(1), layers="0")
    np.testing.assert_allclose(held["layers/0/target_change"], 2 * x[:, 0])
    np.testing.assert_allclose(values(held, "0").sum((1, 2)), 2 * x[:, 0])
    again = explain(network, x, target=TopK(1, reselect=True), layers="0")
    np.testing.assert_allclose(again["layers/0/target_change"], [2.0, 4.0])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_the_same(explained: xr.DataTree) -> None:
    network = tiny_retina()
    assert_same(explain(network, tiny_split(), device="cuda"), explained, rtol=1e-6)
    assert network.conv1.weight.device.type == "cpu"


def test_a_device_that_is_not_there_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RetinaCodecError, match="no CUDA device here"):
        explain(tiny_retina(), tiny_split(), device="cuda")
    with pytest.raises(RetinaCodecError, match=r"device must be 'cpu', .* got 'abacus'"):
        explain(tiny_retina(), tiny_split(), device="abacus")
