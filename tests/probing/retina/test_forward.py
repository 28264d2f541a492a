"""The fast evaluation of the retina network against the plain one through hooks."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from retina_codec.networks.retina.model import RetinaCNN
from retina_codec.probing.hooks import HookedFunction
from retina_codec.probing.points import Evaluation, Layers
from retina_codec.probing.retina.forward import RetinaFunction
from retina_codec.probing.retina.paths import LEAN, between, lean_of, points_of
from tests.contributions.tiny import tiny_retina
from tests.reference.retina_paths import by_chords

LAYERS = ("conv1", "conv2", "conv3")
CORNER = (13, 12)  # a frame of which the four cells see the upper left
STEPS = 6

Function = RetinaFunction | HookedFunction


def make(
    shape: tuple[int, int] = (9, 8),
    *,
    stacked: bool = False,
    tall: float = 1.0,
    surround: bool = False,
) -> RetinaCNN:
    network = tiny_retina(stacked=stacked, frame_shape=shape, surround=surround)
    network = network.double().requires_grad_(False)
    network.norm3.shift.mul_(tall)
    return network


def see(count: int, shape: tuple[int, int] = (9, 8), seed: int = 0) -> torch.Tensor:
    """Windows of successive times, (count, lag, y, x)."""
    random = np.random.default_rng(seed)
    frames = torch.from_numpy(random.normal(size=(count + 4, *shape)))
    return torch.stack([frames[t : t + 5] for t in range(count)])


def target(rates: torch.Tensor) -> torch.Tensor:
    """Not linear, and it joins cells."""
    return (rates**2).sum(1) / 20 + rates[:, 0] * rates[:, 1] / 10 - rates[:, 2]


def whole(values: Layers, network: RetinaCNN) -> Layers:
    """Put units in sight of cells into maps of zeros; cells into the third layer's map."""
    rows, columns = (n + 4 for n in network.map_shape)
    found, places = {}, network.readout.locations
    for name, units in values.items():
        if units.ndim == 2:
            maps = units.new_zeros(*units.shape, *network.map_shape)
            maps[:, torch.arange(len(places)), places[:, 0], places[:, 1]] = units
        else:
            shape = (rows, columns) if name == "conv1" else (rows - 2, columns - 2)
            maps = units.new_zeros(*units.shape[:2], *shape)
            maps[..., : units.shape[2], : units.shape[3]] = units
        found[name] = maps
    return found


def trapezoids(function: Function, begin: torch.Tensor, end: torch.Tensor, steps: int) -> Layers:
    begin, total = begin.expand_as(end), {}
    before = function(begin, target)
    for step in range(1, steps + 1):
        here = function(torch.lerp(begin, end, step / steps), target)
        for name, activation in here.activation.items():
            gradient = here.gradient[name] + before.gradient[name]
            part = gradient * (activation - before.activation[name]) / 2
            total[name] = total.get(name, 0) + part
        before = here
    return total


@pytest.mark.parametrize("stacked", [False, True])
@pytest.mark.parametrize("consecutive", [False, True])
@pytest.mark.parametrize(("shape", "surround"), [((9, 8), False), (CORNER, False), (CORNER, True)])
def test_the_fast_way_and_hooks_give_the_same(
    stacked: bool, consecutive: bool, shape: tuple[int, int], surround: bool
) -> None:
    network, windows = make(shape, stacked=stacked, surround=surround), see(9, shape)
    fast = RetinaFunction(network, LAYERS, consecutive=consecutive)
    plain = HookedFunction.open(network, windows, LAYERS)
    point = fast.start(windows)
    torch.testing.assert_close(point, network.conv1(windows))
    torch.testing.assert_close(fast.outputs(point), network(windows))
    here, expected = fast(point, target), plain(windows, target)
    torch.testing.assert_close(here.value, expected.value)
    torch.testing.assert_close(here.output, expected.output)
    torch.testing.assert_close(whole(here.gradient, network), expected.gradient)
    torch.testing.assert_close(fast.activations(point), expected.activation)
    found, at_end, at_begin = fast.integrate(point[:1] * 0.3, point, STEPS, target)
    # Units that no cell sees contribute exactly nothing.
    small = HookedFunction.open(network, windows, LAYERS)
    straight = trapezoids(fast, point[:1] * 0.3, point, STEPS)
    torch.testing.assert_close(found, straight)
    begin = see(1, shape, seed=3)
    found, at_end, at_begin = fast.integrate(fast.start(begin), point, STEPS, target)
    expected_sums = trapezoids(small, begin, windows, STEPS)
    torch.testing.assert_close(whole(found, network), expected_sums)
    torch.testing.assert_close(at_end.value, target(network(windows)))
    torch.testing.assert_close(at_begin.value, target(network(begin)))
    torch.testing.assert_close(at_end.output, network(windows))
    torch.testing.assert_close(at_end.activation, expected.activation)


def test_only_units_in_sight_are_computed() -> None:
    fast = RetinaFunction(make(CORNER), LAYERS, consecutive=False)
    here = fast(fast.start(see(2, CORNER)), target)
    shapes = {name: tuple(units.shape[1:]) for name, units in here.gradient.items()}
    # Cells in rows 0 to 2 and columns 0 to 1, kernels of 3.
    assert shapes == {"conv1": (2, 7, 6), "conv2": (3, 5, 4), "conv3": (4,)}


def test_with_a_wide_field_every_unit_of_the_first_layer_is_in_sight() -> None:
    network, windows = make(CORNER, surround=True), see(2, CORNER)
    here = RetinaFunction(network, LAYERS, consecutive=False)
    units = here(here.start(windows), target).gradient["conv1"]
    assert tuple(units.shape[1:]) == (2, 11, 10)  # the frame less the first kernels
    assert units[..., 7:, 6:].any()  # beyond the kernels of every cell


@pytest.mark.parametrize("chords", [False, True])
@pytest.mark.parametrize("layers", [("conv3",), ("conv2",), ("conv3", "conv1")])
def test_fewer_layers_and_single_windows_give_the_same_values(
    layers: tuple[str, ...], chords: bool
) -> None:
    network, windows = make(), see(5)
    every = RetinaFunction(network, LAYERS, consecutive=True, chords=chords)
    some = RetinaFunction(network, layers, consecutive=False, chords=chords)
    begin, end = every.start(see(1, seed=3)), every.start(windows)
    expected, at_end, _ = every.integrate(begin, end, STEPS, target)
    found, at_last, at_first = some.integrate(begin, end[4:], STEPS, target)
    assert tuple(found) == layers
    for name in layers:
        torch.testing.assert_close(found[name], expected[name][4:])
        torch.testing.assert_close(at_last.activation[name], at_end.activation[name][4:])
    torch.testing.assert_close(some(end, target).gradient[layers[0]].shape[0], 5)
    one_each, _, _ = some.integrate(begin.expand_as(end), end, STEPS, target)
    torch.testing.assert_close(one_each[layers[0]], expected[layers[0]])
    assert at_first.value.shape == (1,)


@pytest.mark.parametrize("own_points", [False, True])
@pytest.mark.parametrize("steps", [1, 2, STEPS])
def test_chords_follow_their_formula(steps: int, own_points: bool) -> None:
    network, windows, begin = make(CORNER), see(3, CORNER), see(1, CORNER, seed=3)
    fast = RetinaFunction(network, LAYERS, consecutive=True, chords=True)
    found, _, _ = fast.integrate(
        fast.start(begin), fast.start(windows), steps, target, own_points=own_points
    )
    maps = whole({name: found[name] for name in ("conv1", "conv2")}, network)
    for number, window in enumerate(windows):
        expected = by_chords(network, begin[0], window, steps, target, own_points=own_points)
        for values, truth in zip((*maps.values(), found["conv3"]), expected, strict=True):
            torch.testing.assert_close(values[number], torch.from_numpy(truth))


@pytest.mark.parametrize("chords", [False, True])
def test_points_depend_on_the_window_alone(chords: bool) -> None:
    """Alone, in another order and beside others: the same contributions."""
    fast = RetinaFunction(make(), LAYERS, consecutive=False, chords=chords)
    begin, end = fast.start(see(1, seed=3)), fast.start(see(5))
    found, _, _ = fast.integrate(begin, end, STEPS, target, own_points=True)
    order = torch.tensor([3, 0, 4, 1, 2])
    turned, _, _ = fast.integrate(begin, end[order], STEPS, target, own_points=True)
    even, _, _ = fast.integrate(begin, end, STEPS, target)
    for name in LAYERS:
        torch.testing.assert_close(turned[name], found[name][order])
        assert not torch.allclose(even[name], found[name], rtol=1e-4)
        for number in range(5):
            alone, _, _ = fast.integrate(
                begin, end[number : number + 1], STEPS, target, own_points=True
            )
            torch.testing.assert_close(alone[name], found[name][number : number + 1])


def test_own_points_follow_the_bends_of_the_path() -> None:
    """One unit that crosses at 1/5 and one, twice as fast, at 1/2: β = 2/5."""
    first = torch.tensor([[-1.0, 1.0], [5.0, 5.0], [3.0, -5.0]], dtype=torch.float64)
    way = torch.tensor([[5.0, 1.0], [-10.0, 1.0], [0.0, 1.0]], dtype=torch.float64)
    lean = lean_of(first, way)
    torch.testing.assert_close(lean, torch.tensor([LEAN * 0.1, 0.0], dtype=torch.float64))
    points = points_of(4, lean)
    middle = torch.tensor([0.5 - LEAN * 0.1 / 4, 0.5], dtype=torch.float64)
    torch.testing.assert_close(points[2], middle)
    extreme = points_of(50, torch.tensor([LEAN / 2, -LEAN / 2]))  # all bends at one end
    assert (extreme.diff(dim=0) > 0).all()
    assert extreme[0].tolist() == [0, 0]
    assert extreme[-1].tolist() == [1, 1]


@pytest.mark.parametrize(("steps", "degree"), [(1, 1), (2, 2), (3, 3), (16, 3), (17, 3), (50, 3)])
def test_values_between_points_lie_on_cubics(steps: int, degree: int) -> None:
    random = np.random.default_rng(steps)
    curves = np.polynomial.Polynomial(random.normal(size=degree + 1))
    points, places = (torch.linspace(0, 1, n + 1, dtype=torch.float64) for n in (steps, 3 * steps))
    values = torch.from_numpy(curves(points.numpy()))
    found = between(torch.stack((values, points), 1), 3)
    torch.testing.assert_close(found[:, 0], torch.from_numpy(curves(places.numpy())))
    torch.testing.assert_close(found[:, 1], places)
    torch.testing.assert_close(found[::3, 0], values, rtol=0, atol=0)


@pytest.mark.parametrize("chords", [False, True])
def test_whole_layers_hold_zeros_out_of_sight(chords: bool) -> None:
    network, windows = make(CORNER, stacked=True), see(3, CORNER)
    network.readout.locations += 1  # the cells no longer see the first row and column
    some = RetinaFunction(network, LAYERS, consecutive=True, chords=chords)
    every = RetinaFunction(network, LAYERS, consecutive=True, chords=chords, all_units=True)
    begin, end = some.start(see(1, CORNER, seed=3)), some.start(windows)
    units, at_end, _ = some.integrate(begin, end, STEPS, target)
    found, _, _ = every.integrate(begin, end, STEPS, target)
    for name, values in found.items():
        assert values.shape == at_end.activation[name].shape
        torch.testing.assert_close(values.flatten(1).sum(1), units[name].flatten(1).sum(1))
        assert not values[:, :, 0].any()
        assert not values[:, :, :, 0].any()
    points = HookedFunction.open(network, windows, LAYERS)
    if not chords:
        expected = trapezoids(points, see(1, CORNER, seed=3), windows, STEPS)
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("chords", "own_points", "surround"),
    [
        (False, False, False),
        (False, True, False),
        (True, False, False),
        (True, True, False),
        (True, True, True),
    ],
)
def test_contributions_sum_to_the_change_of_the_target(
    chords: bool, own_points: bool, surround: bool
) -> None:
    """Eight times the steps leave a tenth of the error of chords.

    A fifth of the trapezoid's: it meets each threshold of this small network at one step.
    """
    network = make(surround=surround)
    fast = RetinaFunction(network, LAYERS, consecutive=False, chords=chords)
    begin, end = fast.start(see(1, seed=3)), fast.start(see(12))
    missing = {}
    for steps in (20, 160):
        found, last, start = fast.integrate(begin, end, steps, target, own_points=own_points)
        for name in LAYERS:
            change = last.value - start.value
            error = found[name].flatten(1).sum(1) - change
            missing[name, steps] = float(error.norm() / change.norm())
    for name in LAYERS:
        assert missing[name, 20] < (0.005 if chords else 0.06)
        assert missing[name, 160] < missing[name, 20] / (10 if chords else 5)


def test_chords_and_trapezoids_meet_and_chords_are_nearer() -> None:
    network, windows = make(), see(6)
    plain = RetinaFunction(network, LAYERS, consecutive=True)
    chords = RetinaFunction(network, LAYERS, consecutive=True, chords=True)
    begin, end = plain.start(see(1, seed=3)), plain.start(windows)
    truth, _, _ = plain.integrate(begin, end, 4000, target)

    def error(function: RetinaFunction, steps: int, name: str) -> float:
        found = function.integrate(begin, end, steps, target)[0][name]
        return float((found - truth[name]).norm() / truth[name].norm())

    for name in LAYERS:
        assert error(chords, 300, name) < 3e-4
        assert error(chords, 14, name) < error(plain, 20, name) / 1.5


def test_one_chord_is_exact_where_nothing_bends() -> None:
    """All units active and rates far in the linear part: contribution = gradient × change."""
    network, windows = make(), see(3) * 0.01
    network.norm1.shift.fill_(3.0)
    network.norm2.shift.fill_(90.0)
    network.norm3.shift.fill_(3000.0)
    fast = RetinaFunction(network, LAYERS, consecutive=False, chords=True)
    begin, end = fast.start(windows[:1] * 0), fast.start(windows)

    def linear(rates: torch.Tensor) -> torch.Tensor:
        return rates @ torch.tensor([1.0, -2.0, 3.0, 0.5], dtype=torch.float64)

    found, at_end, at_begin = fast.integrate(begin, end, 1, linear)
    here, start = fast(end, linear), fast(begin.expand_as(end), linear)
    for name in LAYERS:
        change = here.activation[name] - start.activation[name]
        torch.testing.assert_close(found[name], here.gradient[name] * change)
        total = found[name].flatten(1).sum(1)
        torch.testing.assert_close(total, at_end.value - at_begin.value, atol=1e-8, rtol=1e-7)


@pytest.mark.parametrize("own_points", [False, True])
@pytest.mark.parametrize("chords", [False, True])
def test_a_unit_that_stands_still_passes_the_slope_where_it_stands(
    chords: bool, own_points: bool
) -> None:
    """Between equal points nothing changes, and nothing is 0 / 0."""
    fast = RetinaFunction(make(), LAYERS, consecutive=False, chords=chords)
    point = fast.start(see(2))
    for values in fast.integrate(point, point, 3, target, own_points=own_points)[0].values():
        # nothing beyond rounding in float64: both ends may be summed in another order
        torch.testing.assert_close(values, torch.zeros_like(values), rtol=0, atol=1e-12)


@pytest.mark.parametrize("surround", [False, True])
def test_directional_derivatives_are_those_of_forward_mode(surround: bool) -> None:
    network, windows = make(CORNER, surround=surround), see(5, CORNER)
    way = see(5, CORNER, seed=7)
    fast = RetinaFunction(network, LAYERS, consecutive=True)
    # The direction of stimuli, seen by the affine first layer.
    direction = fast.start(windows + way) - fast.start(windows)
    found = fast.along(fast.start(windows), direction, target)
    expected = HookedFunction.open(network, windows, LAYERS).along(windows, way, target)
    torch.testing.assert_close(found.value_tangent, expected.value_tangent)
    for name in LAYERS:
        tangent, truth = found.tangent[name], expected.tangent[name]
        if tangent.ndim > 2:
            truth = truth[..., : tangent.shape[2], : tangent.shape[3]]
        else:
            truth = network.readout(truth)
        torch.testing.assert_close(tangent, truth)


@pytest.mark.parametrize("name", LAYERS)
def test_units_put_in_place_of_a_layer(name: str) -> None:
    network, windows = make(), see(5)
    fast = RetinaFunction(network, LAYERS, consecutive=True)
    plain = HookedFunction.open(network, windows, LAYERS)
    point = fast.start(windows)
    units = fast(point, target).activation[name] * 0.7
    value, gradient = fast.above(name, units, point, target)
    expected, slopes = plain.above(name, whole({name: units}, network)[name], windows, target)
    torch.testing.assert_close(value, expected)
    if gradient.ndim == 2:
        slopes = network.readout(slopes)
    torch.testing.assert_close(gradient, slopes)


@pytest.mark.parametrize("chords", [False, True])
def test_the_target_is_first_asked_at_the_end_of_the_path(chords: bool) -> None:
    fast = RetinaFunction(make(), LAYERS, consecutive=True, chords=chords)
    asked: list[torch.Tensor] = []

    def ask(rates: torch.Tensor) -> torch.Tensor:
        asked.append(rates.detach())
        return rates.sum(1)

    begin, end = fast.start(see(1, seed=3)), fast.start(see(3))
    fast.integrate(begin, end, STEPS, ask)
    torch.testing.assert_close(asked[0], fast.outputs(end))
    torch.testing.assert_close(asked[-1], fast.outputs(begin))


@pytest.mark.parametrize("shape", [(9, 8), (10, 11)])
@pytest.mark.parametrize("count", [1, 4, 6, 11])
def test_frames_that_do_not_repeat_give_the_first_layer_too(
    shape: tuple[int, int], count: int
) -> None:
    """Transforms of frames against torch's convolution, odd and even sizes, any batch."""
    network, windows = make(shape), see(count, shape)
    function = RetinaFunction(network, ("conv1",), consecutive=True)
    torch.testing.assert_close(function.start(windows), network.conv1(windows))


def test_single_precision_is_near() -> None:
    network, windows, begin = make(CORNER), see(5, CORNER), see(1, CORNER, seed=3)
    found: list[Callable[[str], torch.Tensor]] = []
    for dtype in (torch.float64, torch.float32):
        fast = RetinaFunction(network.to(dtype), LAYERS, consecutive=True, chords=True)
        points = (fast.start(begin.to(dtype)), fast.start(windows.to(dtype)))
        found.append(fast.integrate(*points, STEPS, target)[0].__getitem__)
    for name in LAYERS:
        assert found[1](name).dtype == torch.float32
        scale = float(found[0](name).abs().max())
        torch.testing.assert_close(
            found[1](name).double(), found[0](name), atol=1e-5 * scale, rtol=0
        )


def test_evaluations_are_detached() -> None:
    network = tiny_retina().double()  # with weights that could be trained
    fast = RetinaFunction(network, LAYERS, consecutive=True)
    here: Evaluation = fast(fast.start(see(2)), target)
    assert not any(t.requires_grad for t in (*here.gradient.values(), *here.activation.values()))
    assert all(parameter.grad is None for parameter in network.parameters())
