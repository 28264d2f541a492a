"""The script of Figure S1: its numbers are those of the public functions, and decide the claims."""

import numpy as np
import pytest
import xarray as xr

import retina_codec as rc
from retina_codec.analysis.layers.agreement import method_agreement
from retina_codec.analysis.layers.statistics import measure_contributions
from retina_codec.analysis.layers.units import some_inputs, spatial_sparsity
from retina_codec.paper.study import open_study
from tests.analyses.small_study import (
    draws_without_computing,
    holds,
    load_script,
    run_small,
    shifted,
)

NAME = "figure_s1_methods"


@pytest.fixture(scope="module")
def script():
    return load_script(NAME)


@pytest.fixture(scope="module")
def run(script, tmp_path_factory):
    folder = tmp_path_factory.mktemp("figure_s1")
    words = ["--count", "12", "--steps", "1", "--spatial", "4", "--methods", "normalised"]
    return run_small(script, folder, *words, "--targets", "entropy")


def test_numbers_are_those_of_the_public_functions(run):
    folder, _, saved = run
    study = open_study(folder, model=str(folder / "cnn"), count=12, progress=False)
    runs = saved["runs"].to_dataset()
    assert runs["run"].values.tolist() == [
        "integrated gradients, top logit",
        "integrated gradients, entropy",
        "normalised, top logit",
        "normalised, entropy",
    ]
    trees = {}
    some = some_inputs(study.images, [0, 4, 7, 11])
    for name, method, target in (
        ("integrated gradients, top logit", study.path_integral(1), rc.targets.TopK(1)),
        ("normalised, entropy", rc.methods.ActNormGrad(), rc.targets.Entropy()),
    ):
        shared = {"target": target, "method": method, "progress": False}
        trees[name] = rc.contribute(study.network, study.images, **shared)
        here = runs.sel(run=name)
        spatial = spatial_sparsity(study.network, some, **shared).sel(scope="places")
        for key in ("sparsity", "difference", "difference_interval"):
            np.testing.assert_allclose(here[f"map_{key}"], spatial[key], rtol=1e-4, atol=1e-5)
        channels = measure_contributions(trees[name], progress=False).sel(quantity="contribution")
        for key in ("sparsity", "sparsity_interval"):
            own = here[f"channel_{key}"].sel(quantity="contribution")
            np.testing.assert_allclose(own, channels[key], rtol=1e-4)
        np.testing.assert_allclose(here["channel_difference"], channels["difference"], rtol=1e-4)
    direct = method_agreement(trees, progress=False)["correlation"][:, 0, 1]
    one, other = trees
    saved_r = saved["agreement"]["correlation"].sel(run=one, other=other)
    np.testing.assert_allclose(saved_r, direct, rtol=1e-4)


def test_saved_results_are_drawn_without_computing(script, run, monkeypatch, capsys):
    draws_without_computing(script, run, monkeypatch, capsys)


def test_verdicts_follow_the_numbers(script, run):
    saved = run[2]
    for change, verdict in ((0.3, True), (-0.3, False)):
        runs = saved["runs"].to_dataset()
        for kind in ("map", "channel"):
            runs = shifted(runs, f"{kind}_difference", change)
        tree = xr.DataTree.from_dict({"/": saved.to_dataset(), "/runs": runs})
        assert holds(script.claims_of(tree)) == {"sparse maps": verdict, "sparse channels": verdict}
    runs["map_difference_interval"][2, 3] = -1.0  # one method, one target, one layer
    tree = xr.DataTree.from_dict({"/runs": shifted(runs, "channel_difference", 0.3)})
    claim = script.claims_of(tree)[0]
    assert claim.holds is False
    assert "at worst normalised, top logit, stage2.1" in claim.measure


@pytest.mark.slow
def test_all_methods_and_targets(script, run, tmp_path):
    words = ["--out", str(tmp_path), "--model", str(run[0] / "vit"), *run[1][4:10]]
    script.main(words)
    saved = rc.open_tree(tmp_path / f"{NAME}.nc", lazy=False)
    assert saved["runs"].sizes["run"] == 30
    assert saved.attrs["target"] == "probability"
