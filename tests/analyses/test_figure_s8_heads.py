"""The script of Figure S8: its numbers are those of the public functions, and decide the claims."""

import numpy as np
import pytest
import xarray as xr

import retina_codec as rc
from retina_codec.analysis.layers.sparsity import head_sparsity
from retina_codec.paper.study import open_study
from tests.analyses.small_study import load_script, save_networks

NAME = "figure_s8_heads"


@pytest.fixture(scope="module")
def script():
    return load_script(NAME)


@pytest.fixture(scope="module")
def run(script, tmp_path_factory):
    folder = tmp_path_factory.mktemp("s8")
    save_networks(folder)
    words = ["--out", str(folder), "--model", str(folder / "vit"), "--count", "40"]
    script.main([*words, "--draws", "60"])
    return folder, words, rc.open_tree(folder / "figure_s8_heads.nc", lazy=False)


def test_numbers_are_those_of_the_public_function(run):
    folder, _, saved = run
    study = open_study(folder, model=str(folder / "vit"), count=40, progress=False)
    direct = head_sparsity(
        study.contributions(), layers=study.layers_of("attention"), draws=60, seed=0
    )
    heads = saved["heads"].to_dataset()
    xr.testing.assert_allclose(heads[list(direct.data_vars)], direct)
    images = saved["images"].to_dataset()["sparsity"]
    np.testing.assert_allclose(images.sel(over="heads").mean("sample"), direct["sparsity"])
    by_chance = images.sel(over="random groups").mean("sample")
    spread = np.diff(direct["null_interval"], axis=-1)[..., 0] / 4  # about one sd of a grouping
    assert (abs(by_chance - direct["null_mean"]) < 4 * spread / np.sqrt(50)).all()


def test_saved_results_are_drawn_without_computing(script, run, monkeypatch, capsys):
    folder, words, _ = run
    before = (folder / "figure_s8_heads_claims.csv").read_text()
    monkeypatch.setattr(script, "study_of", lambda *_: pytest.fail("computed again"))
    (folder / "figure_s8_heads.png").unlink()
    script.main([*words, "--reuse"])
    assert (folder / "figure_s8_heads.png").exists()
    assert (folder / "figure_s8_heads_claims.csv").read_text() == before
    assert "figure_s8_heads.png" in capsys.readouterr().out


def planted(saved, heads, excess):
    """Put sparsity of heads, and its excess over random groups, into saved results."""
    tree = saved.copy(deep=True)
    images, numbers = tree["images"].to_dataset(), tree["heads"].to_dataset()
    noise = np.random.default_rng(0).normal(0, 0.02, images["sparsity"].shape)
    level = {"channels": 0.5, "heads": heads, "random groups": heads - excess}
    for number, over in enumerate(images["over"].values):
        images["sparsity"].values[:, :, number] = level[str(over)] + noise[:, :, number]
    numbers["sparsity"][:] = heads
    numbers["sparsity_sem"][:] = 0.003
    numbers["excess"][:] = excess
    numbers["excess_spread"][:] = 0.1
    numbers["null_mean"][:] = heads - excess
    numbers["null_interval"].values[:] = heads - excess + np.array([-0.01, 0.01])
    parts = {"/heads": numbers, "/images": images}
    return xr.DataTree.from_dict(parts)


def verdicts(script, saved):
    return {claim.name: claim.holds for claim in script.claims_of(saved)}


def test_verdicts_follow_the_numbers(script, run):
    saved = run[2]
    papers = verdicts(script, planted(saved, 0.2, 0.03))
    assert papers == {
        "increase": True,
        "minimal": True,
        "random_alike": True,
        "much_smaller": True,
        "channels": False,  # both are 0.5 here
    }
    special = verdicts(script, planted(saved, 0.45, 0.3))
    assert (special["minimal"], special["much_smaller"]) == (False, False)
    assert verdicts(script, planted(saved, 0.2, -0.03))["increase"] is False


def test_a_network_without_attention_is_refused(script, run, tmp_path):
    words = ["--out", str(tmp_path), "--model", str(run[0] / "cnn"), "--count", "12"]
    with pytest.raises(rc.RetinaCodecError, match="attention"):
        script.main(words)
