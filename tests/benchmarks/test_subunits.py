"""The benchmark of subunits: its reader, its cells, its matching, and a whole small run."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import retina_codec as rc

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
PIXEL = 8.0  # µm
SIGMA = 1.0  # px
COUNT = 1200  # places of the grid
TAIL = [SIGMA, 6.0, 0.2, -3.0, 8.0, 20.0, 1.5, 3.0, 0.1]


@pytest.fixture
def cells(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("subunit_cells")


@pytest.fixture
def bench(cells):
    del cells
    return importlib.import_module("subunits")


def places_of(cells, points):
    """Numbers of grid points, from their places in grid steps."""
    grid = cells.hexagon(COUNT)
    return [int(np.hypot(*(grid - point).T).argmin()) for point in points]


# 4 places, 2 steps of 16 µm apart: 4 sigmas
APART = [(0, 0), (2, 0), (-1, np.sqrt(3)), (1, np.sqrt(3))]


def line_of(number, weights, tail=TAIL):
    return " ".join(f"{value:.6f}" for value in [number, 1e-4, 300.0, 200.0, *weights, *tail])


def weights_at(places, count=COUNT, values=None):
    weights = np.zeros(count)
    weights[places] = 1.0 if values is None else values
    return weights


def write(path, lines, stimulus="gratingflashes"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([f"{stimulus} {PIXEL:.6f}", *lines]) + "\n")
    return path


def test_grid_is_hexagonal_and_starts_at_its_middle(cells):
    grid = cells.hexagon(1200)
    distance = np.hypot(*(grid[:, None] - grid[None]).transpose(2, 0, 1))
    np.fill_diagonal(distance, np.inf)
    own = np.hypot(*grid.T)
    np.testing.assert_allclose(grid[0], 0, atol=1e-12)
    assert (np.diff(own) > -1e-9).all()
    inside = own < own.max() - 1.5
    assert ((distance[inside] < 1 + 1e-9).sum(1) == 6).all()
    assert (distance[inside].min(1) > 1 - 1e-9).all()


def test_order_of_places_at_one_distance_is_that_of_the_fits(cells):
    # confirmed by 1325 strongly penalised fits, in which neighbours hardly ever are both large
    half, high = 0.5, np.sqrt(3) / 2
    ring = [(-half, high), (half, high), (-1, 0), (1, 0), (-half, -high), (half, -high)]
    np.testing.assert_allclose(cells.hexagon(1200)[1:7], ring, atol=1e-9)
    # the middle is the mean of both ends, and either side is counted from its end
    steps = cells._steps(19, 0, np.sqrt(3))
    assert len(steps) == 21
    assert steps[10] == 0
    np.testing.assert_array_equal(steps, -steps[::-1])


def test_a_file_is_read_as_it_is_written(cells, tmp_path):
    chosen = places_of(cells, APART)
    weights = weights_at(chosen, values=[1.0, 0.5, 0.2, 0.1])
    lost = line_of(8, np.full(COUNT, np.nan), [np.nan] * 9)
    path = write(tmp_path / "eye_marmoset_1.txt", [line_of(7, weights), lost])
    (cell,) = cells.read_cells(path)
    assert (cell.recording, cell.name, cell.species) == ("eye_marmoset_1", "7", "marmoset")
    assert cell.sigma == PIXEL * SIGMA
    assert cell.surround == (6, 0.2)
    assert cell.inner == (-3, 8)
    assert cell.outer == (20, 1.5, 3, 0.1)
    assert cell.certain
    np.testing.assert_allclose(cell.weights, weights[weights > 0])
    assert cell.true.sum() == 3  # 0.1 is below a fifth of the largest
    found = dict(zip(cell.weights.tolist(), cell.places, strict=True))
    np.testing.assert_allclose(found[0.5] - found[1.0], [4, 0], atol=1e-9)  # 2 · 16 µm / 8 µm
    true = cell.places[cell.true]
    np.testing.assert_allclose(true.min(0), -true.max(0), atol=1e-9)


def test_fits_to_other_stimuli_are_left_out(cells, tmp_path):
    path = write(tmp_path / "a.txt", [line_of(1, weights_at([0]))], "gratingflicker")
    assert cells.read_cells(path) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must begin with a stimulus and a pixel size"),
        ("gratingflashes\n1 2\n", "must begin with a stimulus and a pixel size"),
        ("gratingflashes 7.5\n1 2 x\n", "one line of numbers per cell"),
        ("gratingflashes 7.5\n1 2 3\n", "at least 14"),
        ("gratingflashes 7.5\n" + "1 " * 73 + "\n", "cannot have 60 weights"),
        ("gratingflashes 7.5\n" + "1 " * 20 + "\n" + "1 " * 21 + "\n", r"got \[20, 21\]"),
    ],
)
def test_a_wrong_file_is_one_line(cells, tmp_path, text, message):
    path = tmp_path / "a.txt"
    path.write_text(text)
    with pytest.raises(rc.RetinaCodecError, match=message) as raised:
        cells.read_cells(path)
    assert "\n" not in str(raised.value)


def test_folder_without_cells_says_where_they_are(cells, tmp_path):
    with pytest.raises(rc.RetinaCodecError, match="subunit_grid_model"):
        cells.draw_cells(tmp_path, 1, seed=0, side=9)


@pytest.mark.parametrize(
    ("places", "values", "tail", "expected"),
    [
        (APART, None, TAIL, True),
        (APART[:3], None, TAIL, False),  # too few
        ([*APART, (1, 0)], None, [2.0, *TAIL[1:]], False),  # 16 µm are one sigma
        ([*APART, (-4, 0)], None, TAIL, True),  # 12 sigmas wide
        ([*APART, (-4, 0)], None, [0.8, *TAIL[1:]], False),  # 15 sigmas
        # six weights just below a fifth hold more than a fifth of the whole
        ([*APART, (0, -1.732), (3, 1.73), (-2, 0), (1, -1.73), (3, 0), (4, 0), (-3, 0)],
         [1.0, 1, 1, 1, 0.21, *[0.19] * 6], TAIL, False),
        ([*APART, (0, -1.732), (3, 1.73), (-2, 0), (1, -1.73), (3, 0), (4, 0), (-3, 0)],
         [1.0, 1, 1, 1, 0.21, *[0.15] * 6], TAIL, True),
    ],
)  # fmt: skip
def test_cells_are_well_defined_by_the_stated_numbers(
    cells, tmp_path, places, values, tail, expected
):
    weights = weights_at(places_of(cells, places), values=values)
    (cell,) = cells.read_cells(write(tmp_path / "a.txt", [line_of(1, weights, tail)]))
    if values is not None:
        assert cell.true.sum() == 5
    assert cells.well_defined(cell) is expected


def one_cell(cells, tmp_path, gain=8.0):
    tail = [*TAIL[:4], gain, *TAIL[5:]]
    weights = weights_at(places_of(cells, APART), values=[1.0, 0.8, 0.6, 0.4])
    (cell,) = cells.read_cells(write(tmp_path / "one.txt", [line_of(1, weights, tail)]))
    return cell


def test_rates_are_those_of_loops(cells, tmp_path):
    cell, side = one_cell(cells, tmp_path), 11
    frames = cells.noise(40, side, 3)
    contrast = np.where(frames > 0, 1.0, -1.0)
    kernel, axis = cells.time_course(), np.arange(side) - 5
    assert np.linalg.norm(kernel) == pytest.approx(1)
    assert kernel.argmax() == cells.LAGS - 2  # two frames before
    fields = []
    for x, y in cell.places:
        square = (axis[None, :] - x) ** 2 + (axis[:, None] - y) ** 2
        center = np.exp(-square / 2) / (2 * np.pi)
        fields.append(center - 0.2 * np.exp(-square / 72) / (72 * np.pi))
    size = max(np.sqrt((field**2).sum()) for field in fields)
    found = []
    for t in range(cells.LAGS, 40):
        total = 0.0
        for weight, field in zip(cell.weights, fields, strict=True):
            signal = sum(
                kernel[lag] * (field * contrast[t - cells.LAGS + lag]).sum()
                for lag in range(cells.LAGS)
            )
            total += weight / (1 + np.exp(3 - 8 * cells.DRIVE * signal / size))
        found.append(20 * total**1.5 / (total**1.5 + 3**1.5) + 0.1)
    expected = np.array(found) * cells.RATE / np.mean(found)
    rates = cells.rates(cell, frames)
    np.testing.assert_allclose(rates[cells.LAGS :], expected, rtol=1e-4)
    assert (rates[: cells.LAGS] == 0).all()


def test_gain_below_0_is_an_off_cell(cells, bench, tmp_path):
    for gain, sign in ((8.0, 1), (-8.0, -1)):
        cell = one_cell(cells, tmp_path, gain)
        recording = cells.record([cell], 4, 11, 0)
        sta, course, filtered, counts = bench.spike_triggered(
            recording["train"].to_dataset(), "one/1"
        )
        assert np.sign(sta[np.unravel_index(np.abs(sta).argmax(), sta.shape)]) == sign
        # turned to the time course of the cell, the average of filtered frames stands upright
        image = bench.upright(np.tensordot(course, sta, 1)[None])[0]
        assert bench.match(image[None], cells.centres(cell, 11)[:1])[0] > 0.3
        np.testing.assert_allclose(
            np.tensordot(counts, filtered, 1) / counts.sum(),
            np.tensordot(course, sta, 1),
            atol=1e-5,
        )


def gaussian(side, x, y):
    axis = np.arange(side) - side // 2
    return np.exp(-((axis[:, None] - y) ** 2 + (axis - x) ** 2) / 2)


@pytest.mark.parametrize("distance", [0, 1, 2, 3])
def test_correlation_of_gaussians_is_known(bench, distance):
    # of infinite frames exp(-d² / 4); the mean of a finite one takes away A / (area of the frame)
    side = 81
    pair = [gaussian(side, 0, 0)[None], gaussian(side, distance, 0)[None]]
    small = 4 * np.pi / side**2
    expected = (np.exp(-(distance**2) / 4) - small) / (1 - small)
    # sums over pixels of one sigma are not quite integrals
    assert bench.correlations(*pair)[0, 0] == pytest.approx(expected, abs=3e-4)


def test_every_subunit_has_its_own_map(bench):
    truth = np.stack([gaussian(31, x, 0) for x in (-6, 0, 6)])
    np.testing.assert_allclose(bench.match(truth[[2, 0, 1]], truth), 1)
    # one map cannot stand for two; a constant one stands for none
    one = bench.match(np.stack([truth[0], np.ones((31, 31))]), truth)
    assert one[0] == pytest.approx(1)
    np.testing.assert_allclose(one[1:], 0, atol=1e-12)
    twice = bench.match(truth[[1, 1]], truth)
    assert (twice > bench.RECOVERED).sum() == 1
    assert (bench.match(np.zeros((0, 31, 31)), truth) == 0).all()
    # the pairs with the largest sum, not the best pair first
    between = np.stack([gaussian(31, x, 0) for x in (0, 1.6)])
    wanted = np.stack([gaussian(31, x, 0) for x in (0.7, -1.5)])
    np.testing.assert_allclose(
        bench.match(between, wanted),
        [bench.correlations(between[1:], wanted)[0, 0], bench.correlations(between, wanted)[1, 0]],
    )


def test_morans_index_of_known_images(bench):
    checks = np.indices((8, 8)).sum(0) % 2
    assert bench.moran(checks.astype(float)) == pytest.approx(-1)
    assert bench.moran(np.ones((8, 8))) == 0
    halves = np.repeat([[0.0, 1.0]], 8, axis=0).repeat(4, axis=1)
    assert bench.moran(halves) == pytest.approx(1 - 2 * 8 / 112)  # 8 of 112 pairs differ
    noise = np.random.default_rng(0).normal(size=(60, 60))
    assert abs(bench.moran(noise)) < 0.05
    kept = bench.local_maps(np.stack([noise[:31, :31], -gaussian(31, 0, 0)]))
    np.testing.assert_array_equal(kept, gaussian(31, 0, 0)[None])


def test_nulls_stay_where_the_cell_responds_and_turn_around_its_middle(cells, bench, tmp_path):
    cell = one_cell(cells, tmp_path)
    truth = cells.centres(cell, 15)[cell.true]
    np.testing.assert_allclose(bench.turned(cell, 15, 2 * np.pi), truth, atol=1e-12)
    half = bench.turned(cell, 15, np.pi)
    np.testing.assert_allclose(half, truth[:, ::-1, ::-1], atol=1e-9)
    quarter = bench.turned(cell, 15, np.pi / 2)
    np.testing.assert_allclose(quarter, truth.transpose(0, 2, 1)[:, :, ::-1], atol=1e-9)
    sta = np.zeros((15, 15))
    sta[3, 10] = 1
    found = bench.somewhere(sta, 4, np.random.default_rng(0))
    np.testing.assert_allclose(found, np.broadcast_to(gaussian(15, 3, -4), (4, 15, 15)))


def planted(places, side=15, history=2):
    """Return a network of one cell whose rate sums rectified Gaussians at these places."""
    network = rc.networks.RetinaCNN(
        ["a"], [[0, 0]], history=history, frame_shape=(side, side), channels=(1, 1),
        kernel_sizes=(5, 1, side - 4), frame_rate=30.0,
    ).eval()  # fmt: skip
    with torch.no_grad():
        kernel = torch.as_tensor(gaussian(5, 0, 0)).float()
        network.conv1.weight.copy_(torch.stack([-0.5 * kernel, kernel])[None])
        network.conv2.weight.fill_(1)
        network.conv3.weight.zero_()
        for y, x in places:
            network.conv3.weight[0, 0, y, x] = 3
        for layer in (network.conv1, network.conv2):
            layer.bias.zero_()
    return network


def test_modes_of_units_are_the_subunits_of_a_planted_network(bench):
    places = [(2, 2), (8, 3), (5, 8)]
    network = planted(places)
    windows = torch.randn(300, 2, 15, 15, generator=torch.Generator().manual_seed(0))
    truth = np.stack([gaussian(15, x + 2 - 7, y + 2 - 7) for y, x in places])
    maps, loading = bench.unit_modes(network, windows, 3, 4)
    assert loading.shape == (300, 3)
    assert (bench.match(bench.local_maps(maps), truth) > 0.99).all()
    assert (np.diff(loading.mean(0)) <= 0).all()
    by_mode, plain = bench.field_maps(network, windows, loading, 3)
    assert (bench.match(bench.local_maps(by_mode), truth) > 0.8).all()
    assert (bench.match(bench.local_maps(plain), truth) > 0.95).all()


def test_one_cell_of_a_network_answers_as_before(bench):
    torch.manual_seed(0)
    network = rc.networks.RetinaCNN(
        ["a", "b"], [[1, 0], [0, 2]], history=3, frame_shape=(15, 15), channels=(2, 2),
        kernel_sizes=(5, 3, 7),
    ).eval()  # fmt: skip
    network.norm3.shift.data.copy_(torch.tensor([1.0, 3.0]))
    windows = torch.randn(4, 3, 15, 15)
    for place, cell in enumerate("ab"):
        found = bench.alone(network, cell)
        assert found.cells == (cell,)
        torch.testing.assert_close(found(windows)[:, 0], network(windows)[:, place])


def test_interval_of_equal_values_has_no_width(bench):
    assert bench.interval([0.25] * 5) == [0.25] * 3
    mean, low, high = bench.interval(np.arange(100) / 100)
    error = np.std(np.arange(100) / 100) / 10
    assert mean == pytest.approx(0.495)
    np.testing.assert_allclose([low, high], [mean - 1.96 * error, mean + 1.96 * error], atol=0.01)


def test_missing_stnmf_is_said_before_the_work(bench, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "stnmf", None)
    with pytest.raises(rc.RetinaCodecError, match="--no-stnmf"):
        bench.main(["--parameters", str(tmp_path)])


@pytest.mark.slow
def test_small_run_gives_every_list_and_goes_on(cells, bench, tmp_path, capsys):
    weights = [
        weights_at(places_of(cells, APART), values=np.roll([1.0, 0.9, 0.8, 0.7], shift))
        for shift in range(3)
    ]
    lines = [line_of(number, row) for number, row in enumerate(weights)]
    write(tmp_path / "modelparameters" / "eye_mouse.txt", lines[:2])
    write(tmp_path / "modelparameters" / "eye_marmoset.txt", lines[2:])
    given = [
        "--parameters", str(tmp_path), "--cells", "2", "--pilot", "1", "--minutes", "1.5",
        "--side", "15", "--channels", "2", "--kernels", "5", "3", "--epochs", "2",
        "--windows", "80", "--steps", "2", "--modes", "4", "--events", "4", "--no-stnmf",
        "--keep", str(tmp_path / "kept"), "--figure", str(tmp_path / "out.png"),
    ]  # fmt: skip
    bench.main(given)
    printed = capsys.readouterr().out
    found = [json.loads(line) for line in printed.splitlines()]
    assert [row["subunits"] for row in found[:2]] == [4, 4]
    assert [row["maps"] for row in found[2:]] == [name for name in bench.LISTS if name != "stnmf"]
    for row in found[2:]:
        assert row["cells"] == 2
        mean, low, high = row["recovered"]
        assert 0 <= low <= mean <= high <= 1
        gain = row["recovered"][0] - row["recovered_places"][0]
        assert row["recovered_above_places"][0] == pytest.approx(gain, abs=2e-3)
    assert (tmp_path / "out.png").stat().st_size > 5000

    bench.main(given)  # from what was kept
    assert capsys.readouterr().out == printed
    with pytest.raises(rc.RetinaCodecError, match="another folder"):
        bench.main([*given, "--seed", "3"])
