"""R² with an interval against the scorecard and scikit-learn."""

import numpy as np
import pytest
import xarray as xr
from sklearn.metrics import r2_score

import retina_codec as rc
from retina_codec.analysis.layers.agreement import rebuilt_variance
from tests.modes.test_decompose import make_tree
from tests.reference.modes import planted_modes


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
