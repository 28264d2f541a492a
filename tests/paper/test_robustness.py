"""Verdicts about robustness follow the numbers, in words of each method's own settings."""

import numpy as np
import pytest
import xarray as xr

from retina_codec.paper.robustness import (
    Fits,
    fit_words,
    method_claims,
    robustness_claims,
)
from tests.analyses.small_study import holds, load_script


@pytest.fixture(scope="module")
def script():
    return load_script("figure_s3_robustness")


def table(script, robust):
    """What a layer of a study would give if modes came back in every fit, or in none."""
    fits = script.fits_of("gated", 16, True, script.arguments(["--out", "x"]))
    random = np.random.default_rng(0)
    setting = np.array([name for name, *_ in fits])
    value = np.array([one for _, one, _ in fits])
    cost = {"threshold": 0.3, "sign_consistent": 0.2, "seed": 0.02 if robust else 0.4}
    cost |= {"dictionary_penalty": 0.03 if robust else 0.6}
    s = np.array([1 - cost.get(name, 0.0) for name in setting])
    s[(setting == "modes_per_feature") & (value == 1)] = 0.4 if robust else 1.0
    noise = random.normal(0, 0.005, (len(fits), 10))
    noise -= noise.mean(axis=1, keepdims=True)
    error = np.where((setting == "hidden") & (value < 0.1), 6.0 if robust else 1.0, 1.0)
    return xr.Dataset(
        {
            "similarity": (("fit", "concept"), s[:, None] + noise),
            "other": (("fit", "concept"), np.full((len(fits), 10), 0.2 if robust else 0.9)),
            "live_modes": ("fit", np.full(len(fits), 9.0)),
            "error": (("fit", "held_out"), error[:, None] * random.uniform(0.5, 1.5, 50)),
            "spread": (("fit", "held_out"), np.full((len(fits), 50), 10.0)),
            "class_modes": (("fit", "concept"), 3 + noise + (value == 5)[:, None] * robust),
            "class_correlation": (("fit", "concept"), 0.8 + noise),
            "class_sparsity": (("fit", "concept"), 0.5 + noise),
            "setting": ("fit", setting),
            "value": ("fit", value),
        }
    )


def test_verdicts_follow_the_numbers(script):
    robust, other = (
        holds(method_claims("gated", [Fits("late", table(script, one), 200, 0)]))
        for one in (True, False)
    )
    flipped = ["penalty", "dictionary", "seeds", "seeds, control", "small encoder"]
    flipped += ["dictionary, modes"]
    for name in flipped:
        assert robust[f"gated: {name}"] is True, name
        assert other[f"gated: {name}"] is False, name
    for name in ("threshold", "signs"):
        assert robust[f"gated: {name}"] is True
    assert robust["gated: threshold, depth"] is None


def test_claims_about_depth_compare_layers(script):
    layers = [Fits(name, table(script, name == "late"), 200, 0) for name in ("mid", "late")]
    claims = {one.name: one for one in method_claims("gated", layers)}
    # small less large dictionary: 1 − 1 in the first layer, 0.4 − 1 in the last one
    assert claims["gated: dictionary, depth"].found == pytest.approx(-0.6, abs=0.01)
    assert claims["gated: dictionary, depth"].holds is True
    # cost of the lowest threshold: 0.6 − 0.7 in the first, 0.98 − 0.7 in the last one
    assert claims["gated: threshold, depth"].found == pytest.approx(0.38, abs=0.01)
    assert claims["gated: threshold, depth"].holds is False
    assert claims["gated: penalty"].measure.endswith("3 of 6 comply")


def test_a_dead_fit_has_nothing_in_common_with_the_reference(script):
    found = table(script, True)
    dead = int(np.flatnonzero(found["setting"].values == "dictionary_penalty")[-1])
    found["live_modes"][dead] = 0
    for name in ("similarity", "other", "error"):
        found[name][dead] = np.nan
    fits = Fits("late", found, 200, 0)
    seeds = found["similarity"].values[found["setting"].values == "seed"].mean(axis=0)
    np.testing.assert_allclose(fits.cost[dead], seeds)
    assert fits.r2(dead)[0] == pytest.approx(0)
    assert holds(method_claims("gated", [fits]))["gated: penalty"] is False


def test_r2_differences_are_paired(script):
    """The same images for both: of equal errors nothing is left, whatever is drawn."""
    fits = Fits("late", table(script, True), 200, 0)
    error, spread = (fits.found[name].values for name in ("error", "spread"))
    fits.found["error"][2] = error[0]
    found, ends = fits.r2(2, 0)
    assert found == 0
    np.testing.assert_array_equal(ends, 0)
    assert fits.r2(0)[0] == pytest.approx(1 - error[0].sum() / spread[0].sum())


def test_all_layers_and_methods_of_a_tree_are_judged(script):
    nodes = {f"/{layer}/gated": table(script, True) for layer in ("mid", "late")}
    tree = xr.DataTree.from_dict(nodes)
    tree.attrs = {"layers": "mid late", "bootstraps": 50, "seed": 0}
    claims = robustness_claims(tree)
    fits = [Fits(layer, table(script, True), 50, 0) for layer in ("mid", "late")]
    assert holds(claims) == holds(method_claims("gated", fits))
    assert {claim.says.split(":")[0] for claim in claims} == {"gated autoencoder"}


def test_fits_are_named_in_few_words(script):
    found = table(script, True)
    words = [fit_words(found, fit) for fit in range(found.sizes["fit"])]
    assert words[0] == "reference"
    assert "penalty of modes 0.01" in words
    assert "free signs" in words
    assert len(set(words)) == len(words)
