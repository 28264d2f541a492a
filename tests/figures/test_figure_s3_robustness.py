"""The script of the robustness study: its numbers are those of public functions, and decide."""

import numpy as np
import pytest
import xarray as xr

import retina_codec as rc
from retina_codec.analysis.class_aggregates import class_aggregates, compare_aggregates
from retina_codec.analysis.concepts import concept_table, correlate_concepts
from retina_codec.analysis.image_study import open_study
from retina_codec.analysis.rebuilt_variance import rebuilt_variance
from retina_codec.modes import decompose
from tests.analyses.small_study import holds, load_script, save_networks
from tests.modes.test_decomposition import make_tree
from tests.reference.modes import planted_modes

NAME = "figure_s3_robustness"
FAST = ["--epochs", "2", "--sparse-epochs", "5", "--permutations", "10", "--bootstraps", "50"]


@pytest.fixture(scope="module")
def script():
    return load_script(NAME)


@pytest.fixture(scope="module")
def study(script, tmp_path_factory):
    """The default's modes of a network with random weights, 60 images."""
    folder = tmp_path_factory.mktemp("s3")
    save_networks(folder)
    words = ["--out", str(folder), "--model", str(folder / "cnn"), "--count", "60", "--steps", "1"]
    words += [*FAST, "--methods", "default", "--layers", "stage3.0"]
    script.main(words)
    return folder, words, rc.open_tree(folder / f"{NAME}.nc", lazy=False)


@pytest.fixture(scope="module")
def movie(script, tmp_path_factory):
    """Both methods on planted contributions without labels."""
    folder = tmp_path_factory.mktemp("s3_movie")
    contribution = planted_modes(0, samples=300, modes=4, active=0.3)[0]
    rc.save_tree(make_tree(contribution), folder / "in.nc")
    words = ["--results", str(folder / "in.nc"), "--out", str(folder / "out"), *FAST]
    script.main([*words, "--threshold", "0.5"])
    return folder, words, rc.open_tree(folder / "out" / f"{NAME}.nc", lazy=False)


@pytest.mark.slow
def test_numbers_of_images_are_those_of_the_public_functions(script, study):
    folder, words, saved = study
    options = script.arguments(words)
    opened = open_study(folder, model=str(folder / "cnn"), count=60, progress=False)
    tree = opened.contributions(method=opened.path_integral(1))
    channels = tree["layers/stage3.0"].sizes["channel"]
    fits = script.fits_of("default", channels, True, options)
    place = next(i for i, (setting, *_) in enumerate(fits) if setting == "modes")
    sums, labels = [], concept_table(opened.labels)
    here = saved["stage3.0/default"].to_dataset().isel(fit=place)
    assert str(here["setting"].values) == "modes"
    for method in (fits[0][2], fits[place][2]):
        fitted = decompose(tree, method, layers=["stage3.0"], signs="excitatory", gap=0)
        found = correlate_concepts(
            fitted, labels, of="modes", layers=["stage3.0"], permutations=10, bootstraps=5
        )
        node = found["layers/stage3.0/modes"].to_dataset()
        sums.append(
            class_aggregates(fitted["layers/stage3.0/modes"].to_dataset(), node.correlation)
        )
    expected = compare_aggregates(sums[1], sums[0])
    for name in ("similarity", "other", "null_interval", "p_value"):
        np.testing.assert_allclose(here[name], expected[name])
    summary = found["summary"].to_dataset().isel(layer=0, kind=0, level=0)
    assert float(here["coverage"]) == float(summary["coverage"])
    r = np.corrcoef(sums[1]["loading"].values.T, labels.values.T)[:10, 10:]
    np.testing.assert_allclose(here["class_correlation"].values, np.diag(r))
    direct = rebuilt_variance(fitted, "stage3.0")
    assert float(here["r2"]) == pytest.approx(float(direct["r2"]))
    assert float(here["r2_interval"][0]) < float(direct["r2"]) < float(here["r2_interval"][1])


@pytest.mark.slow
def test_the_baseline_equals_itself_and_a_wide_code_rebuilds_more(study):
    found = study[2]["stage3.0/default"].to_dataset()
    np.testing.assert_allclose(found["similarity"][0], 1)
    np.testing.assert_allclose(found["mode_match"][0], 1)
    active = {float(v): float(r) for s, v, r in
              zip(found["setting"].values, found["value"], found["r2"], strict=True)
              if s == "active"}  # fmt: skip
    assert active[2.0] < active[10.0] + 0.01


@pytest.mark.slow
def test_without_labels_there_are_no_classes(script, movie):
    folder, words, saved = movie
    options = script.arguments(words)
    for kind in ("gated", "default"):
        found = saved[f"conv1/{kind}"].to_dataset()
        names = [setting for setting, *_ in script.fits_of(kind, 16, False, options)]
        assert found["setting"].values.tolist() == names
        assert "similarity" not in found
        assert float(found["mode_match"][0]) == pytest.approx(1)
    claims = script.claims_of(saved)
    assert not [one for one in claims if "class" in one.measure]
    assert holds(claims)["default: dictionary, depth"] is None
    assert (folder / "out" / f"{NAME}.png").stat().st_size > 10_000


@pytest.mark.slow
def test_saved_results_are_drawn_without_computing(script, movie, monkeypatch, capsys):
    folder, words, _ = movie
    monkeypatch.setattr(script, "decompose", lambda *_, **__: pytest.fail("computed again"))
    script.main([*words, "--reuse"])
    assert capsys.readouterr().out.splitlines()[-1] == str(folder / "out" / f"{NAME}.png")


@pytest.mark.slow
def test_a_dead_baseline_says_the_way_out(script, movie, tmp_path):
    _, words, _ = movie
    words = [*words, "--threshold", "0.999", "--out", str(tmp_path), "--methods", "gated"]
    with pytest.raises(rc.RetinaCodecError, match="lower --threshold"):
        script.main(words)


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
        holds(script.claims_of_method("gated", [script.Fits("late", table(script, one), 200, 0)]))
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
    layers = [script.Fits(name, table(script, name == "late"), 200, 0) for name in ("mid", "late")]
    claims = {one.name: one for one in script.claims_of_method("gated", layers)}
    # small less large dictionary: 1 − 1 in the first layer, 0.4 − 1 in the last one
    assert claims["gated: dictionary, depth"].found == pytest.approx(-0.6, abs=0.01)
    assert claims["gated: dictionary, depth"].holds is True
    # cost of the lowest threshold: 0.6 − 0.7 in the first, 0.98 − 0.7 in the last one
    assert claims["gated: threshold, depth"].found == pytest.approx(0.38, abs=0.01)
    assert claims["gated: threshold, depth"].holds is False
    assert claims["gated: penalty"].measure.endswith("3 of 6 comply")


def test_a_dead_fit_has_nothing_in_common_with_the_baseline(script):
    found = table(script, True)
    dead = int(np.flatnonzero(found["setting"].values == "dictionary_penalty")[-1])
    found["live_modes"][dead] = 0
    for name in ("similarity", "other", "error"):
        found[name][dead] = np.nan
    fits = script.Fits("late", found, 200, 0)
    seeds = found["similarity"].values[found["setting"].values == "seed"].mean(axis=0)
    np.testing.assert_allclose(fits.cost[dead], seeds)
    assert fits.r2(dead)[0] == pytest.approx(0)
    assert holds(script.claims_of_method("gated", [fits]))["gated: penalty"] is False


def test_r2_differences_are_paired(script):
    """The same images for both: of equal errors nothing is left, whatever is drawn."""
    fits = script.Fits("late", table(script, True), 200, 0)
    error, spread = (fits.found[name].values for name in ("error", "spread"))
    fits.found["error"][2] = error[0]
    found, ends = fits.r2(2, 0)
    assert found == 0
    np.testing.assert_array_equal(ends, 0)
    assert fits.r2(0)[0] == pytest.approx(1 - error[0].sum() / spread[0].sum())
