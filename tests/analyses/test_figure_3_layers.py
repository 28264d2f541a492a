"""The script of Figure 3: its numbers are those of the public functions, and decide the claims."""

import pytest
import xarray as xr

import retina_codec as rc
from retina_codec.analysis.layers.matrix import channel_matrix
from retina_codec.analysis.layers.statistics import measure_contributions
from retina_codec.analysis.layers.trends import depth_trends
from retina_codec.paper.study import open_study
from tests.analyses.small_study import holds, load_script, save_networks, shifted

NAME = "figure_3_layers"


@pytest.fixture(scope="module")
def script():
    return load_script(NAME)


@pytest.fixture(scope="module")
def run(script, tmp_path_factory):
    folder = tmp_path_factory.mktemp("figure_3")
    save_networks(folder)
    words = ["--out", str(folder), "--model", str(folder / "cnn"), "--count", "60", "--steps", "1"]
    words += ["--bootstraps", "50", "--late", "stage4.0"]
    script.main(words)
    return folder, words, rc.open_tree(folder / f"{NAME}.nc", lazy=False)


def test_numbers_are_those_of_the_public_functions(run):
    folder, _, saved = run
    study = open_study(folder, model=str(folder / "cnn"), count=60, progress=False)
    tree = study.contributions(method=study.path_integral(1))
    shared = {"layers": study.layers_of("blocks"), "bootstraps": 50, "seed": 0, "progress": False}
    for node, direct in (
        ("statistics", measure_contributions(tree, **shared)),
        ("trends", depth_trends(tree, **shared)),
        ("matrix/late", channel_matrix(tree, "stage4.0")),
    ):
        xr.testing.assert_allclose(saved[node].to_dataset(), direct)


def test_saved_results_are_drawn_without_computing(script, run, monkeypatch, capsys):
    folder, words, _ = run
    monkeypatch.setattr(script, "study_of", lambda *_: pytest.fail("computed again"))
    (folder / f"{NAME}.png").unlink()
    script.main([*words, "--reuse"])
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == str(folder / f"{NAME}.png")
    assert "progressively" in out
    assert (folder / f"{NAME}.png").stat().st_size > 10_000


def changed(saved, sign):
    """Results in which everything is as the paper says (sign 1), or the other way round."""
    tree = saved.copy(deep=True)
    found, trend = saved["statistics"].to_dataset(), saved["trends"].to_dataset()
    for name in ("difference", "varying_difference", "components_difference"):
        found = shifted(found, name, 0.3 * sign)
    found = shifted(found, "sign_correlation", 0.5 + 0.2 * sign)
    for name in ("sparsity", "components", "participation_ratio"):
        trend = shifted(trend, name, 0.3 * sign)
    trend = shifted(trend, "sign_correlation", -0.3 * sign)
    tree["statistics"], tree["trends"] = xr.DataTree(found), xr.DataTree(trend)
    return tree


def test_verdicts_follow_the_numbers(script, run):
    assert set(holds(script.claims_of(changed(run[2], 1))).values()) == {True}
    assert set(holds(script.claims_of(changed(run[2], -1))).values()) == {False}
    assert len(script.claims_of(run[2])) == 10


def test_one_number_decides_one_claim(script, run):
    tree = changed(run[2], 1)
    trend = tree["trends"].to_dataset()
    trend["sparsity_interval"].loc[{"quantity": "contribution", "bound": "low"}] = -0.01
    tree["trends"] = xr.DataTree(trend)
    verdicts = holds(script.claims_of(tree))
    assert [name for name, one in verdicts.items() if not one] == ["sparsity rises"]


def test_what_varies_is_judged_by_itself_and_not_as_the_papers(script, run):
    tree = changed(run[2], 1)
    tree["statistics"] = xr.DataTree(
        shifted(tree["statistics"].to_dataset(), "varying_difference", -0.1)
    )
    fallen = [claim for claim in script.claims_of(tree) if not claim.holds]
    assert [(claim.name, claim.source) for claim in fallen] == [
        ("varying part sparser", "control of ours")
    ]
