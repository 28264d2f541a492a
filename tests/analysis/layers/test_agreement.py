"""Agreement between runs against numpy's correlations, image by image."""

import numpy as np
import pytest
import torch
import xarray as xr
from sklearn.metrics import r2_score
from torch import nn

import retina_codec as rc
from retina_codec.analysis.layers.agreement import (
    completeness_share,
    method_agreement,
    rebuilt_variance,
)
from tests.modes.test_decompose import make_tree
from tests.reference.modes import planted_modes


def run(seed, inputs=9, channels=6, scale=1.0):
    random = np.random.default_rng(seed)
    size = np.abs(random.normal(size=(inputs, 2, channels))) * [[-1], [1]] * scale
    layer = xr.Dataset(
        {
            "contribution": (("sample", "sign", "channel"), size),
            "activation": (("sample", "channel"), size.sum(1)),
        },
        coords={"sign": ["inhibitory", "excitatory"]},
    )
    return xr.DataTree.from_dict({"/layers/a": layer, "/layers/b": layer * 2 + 1})


def test_mean_over_images_of_numpys_correlation():
    runs = {"one": run(0), "two": run(1), "three": run(0, scale=-30.0)}
    found = method_agreement(runs, bootstraps=50)
    for layer in ("a", "b"):
        nets = {k: t[f"layers/{layer}"]["contribution"].sum("sign").values for k, t in runs.items()}
        for name, x in nets.items():
            for other, y in nets.items():
                expected = np.mean([np.corrcoef(*pair)[0, 1] for pair in zip(x, y, strict=True)])
                seen = found["correlation"].sel(layer=layer, run=name, other=other)
                assert float(seen) == pytest.approx(expected)
    same = found.sel(layer="a", run="one", other="three")  # opposite sign, another unit
    assert float(same["correlation"]) == pytest.approx(-1)
    np.testing.assert_allclose(same["correlation_interval"], -1)
    low, high = found["correlation_interval"].sel(layer="a", run="one", other="two").values
    assert low < float(found["correlation"].sel(layer="a", run="one", other="two")) < high


def test_images_without_contributions_take_no_part_and_are_counted():
    one, two = run(0), run(1)
    silent = two.copy(deep=True)
    silent["layers/a"]["contribution"][3] = 0.0
    found = method_agreement({"one": one, "two": silent}, bootstraps=20).sel(run="one", other="two")
    keep = [0, 1, 2, 4, 5, 6, 7, 8]
    rest = {k: t.isel(sample=keep) for k, t in {"one": one, "two": two}.items()}
    expected = method_agreement(rest, bootstraps=20).sel(run="one", other="two")
    assert found["undefined"].values.tolist() == [1, 0]
    assert float(found["correlation"][0]) == pytest.approx(float(expected["correlation"][0]))


def test_runs_must_fit_together():
    with pytest.raises(rc.RetinaCodecError, match="two runs"):
        method_agreement({"one": run(0)})
    with pytest.raises(rc.RetinaCodecError, match="same inputs"):
        method_agreement({"one": run(0), "two": run(0, inputs=8)})


def tree_of(error, change, completeness="holds: so it does"):
    data = {"completeness_error": ("sample", error), "target_change": ("sample", change)}
    layer = xr.Dataset(data, attrs={"completeness": completeness})
    return xr.DataTree.from_dict({"/layers/a": layer})


def test_share_is_the_ratio_of_sums():
    found = completeness_share(tree_of([1.0, -2.0, 0.0], [10.0, 5.0, -15.0]))
    assert float(found["share"][0]) == pytest.approx(0.1)
    low, high = found["share_interval"].values[0]
    assert low == 0  # the third image alone is drawn now and then
    assert 0.1 < high <= 0.4
    same = completeness_share(tree_of([1.0, 2.0, 3.0], [10.0, 20.0, -30.0]))
    np.testing.assert_allclose(same["share_interval"], [[0.1, 0.1]])


def test_draws_are_those_of_images():
    random = np.random.default_rng(1)
    error, change = random.normal(size=(2, 25))
    found = completeness_share(tree_of(error, change), bootstraps=400, seed=5)
    draws = np.random.default_rng(2)
    some = [draws.integers(25, size=25) for _ in range(4000)]
    slow = [np.abs(error[k]).sum() / np.abs(change[k]).sum() for k in some]
    np.testing.assert_allclose(
        found["share_interval"][0], np.quantile(slow, [0.025, 0.975]), rtol=0.1
    )


def test_more_steps_miss_less_and_what_cannot_be_complete_has_no_share():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
        images = torch.randn(12, 6)
    shared = {"target": rc.targets.TopK(1), "layers": ["0"], "progress": False}
    shares = []
    for steps in (2, 4, 8):
        tree = rc.contribute(net, images, method=rc.methods.IntegratedGradients(steps), **shared)
        found = completeness_share(tree)
        error = np.abs(tree["layers/0"]["completeness_error"]).mean()
        change = np.abs(tree["layers/0"]["target_change"]).mean()
        assert float(found["share"][0]) == pytest.approx(float(error / change), rel=1e-5)
        shares.append(float(found["share"][0]))
    assert shares[0] > 3 * shares[1] > 9 * shares[2]  # of second order
    plain = rc.contribute(net, images, method=rc.methods.ActGrad(), **shared)
    assert np.isnan(completeness_share(plain)["share"]).all()
    beside = tree_of([1.0, 2.0], [3.0, 4.0], "cannot hold: some path does not cross this layer")
    assert np.isnan(completeness_share(beside)["share_interval"]).all()


@pytest.fixture(scope="module")
def decomposed():
    contribution = planted_modes(0, samples=200, modes=4, active=0.3)[0]
    tree = make_tree(contribution)
    layer = next(iter(tree["layers"].children))
    found = {
        signs: rc.decompose(tree, rc.modes.NMF(modes=3), signs=signs, gap=0, progress=False)
        for signs in (None, "excitatory")
    }
    return layer, found


@pytest.mark.parametrize("signs", [None, "excitatory"])
def test_r2_is_that_of_the_scorecard_and_of_sklearn(decomposed, signs):
    layer, found = decomposed
    tree = found[signs]
    seen = rebuilt_variance(tree, layer, bootstraps=100)
    modes = tree[f"layers/{layer}/modes"].to_dataset()
    assert float(seen["r2"]) == pytest.approx(float(modes["r2"]), abs=1e-6)
    chosen = ["inhibitory", "excitatory"] if signs is None else [signs]
    held = modes["split"].values == "held_out"
    x = tree[f"layers/{layer}"]["contribution"].sel(sign=chosen).values[held]
    rebuilt = (modes["loading"] @ modes["dictionary"]).sel(sign=chosen).values[held]
    expected = r2_score(
        x.reshape(len(x), -1), rebuilt.reshape(len(x), -1), multioutput="variance_weighted"
    )
    assert float(seen["r2"]) == pytest.approx(expected, abs=1e-6)
    low, high = seen["r2_interval"].values
    assert low < expected < high
    assert int(seen["held_out"]) == held.sum()


def test_draws_are_r2_of_drawn_inputs(decomposed):
    layer, found = decomposed
    tree = found["excitatory"]
    modes = tree[f"layers/{layer}/modes"].to_dataset()
    held = np.flatnonzero(modes["split"].values == "held_out")
    x = tree[f"layers/{layer}"]["contribution"].sel(sign="excitatory").values
    rebuilt = (modes["loading"] @ modes["dictionary"]).sel(sign="excitatory").values
    random = np.random.default_rng(3)
    drawn = []
    for _ in range(40):
        some = held[random.integers(len(held), size=len(held))]
        drawn.append(r2_score(x[some], rebuilt[some], multioutput="variance_weighted"))
    seen = rebuilt_variance(tree, layer, bootstraps=40, seed=3)
    np.testing.assert_allclose(
        seen["r2_interval"], np.quantile(drawn, [0.025, 0.975]), rtol=1e-4, atol=1e-6
    )


def test_modes_that_rebuild_all_and_layers_without_modes(decomposed):
    layer, found = decomposed
    tree = found["excitatory"].copy(deep=True)
    modes = tree[f"layers/{layer}/modes"].to_dataset()
    rebuilt = (modes["loading"] @ modes["dictionary"]).transpose(..., "sign", "channel")
    tree[f"layers/{layer}"]["contribution"] = rebuilt
    seen = rebuilt_variance(tree, layer, bootstraps=20)
    np.testing.assert_allclose([seen["r2"], *seen["r2_interval"]], 1, atol=1e-9)
    with pytest.raises(rc.RetinaCodecError, match=r"must hold modes of \['a'\]"):
        rebuilt_variance(xr.DataTree(), "a")
