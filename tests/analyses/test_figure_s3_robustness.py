"""The script of the robustness study: its numbers are those of public functions, and decide."""

import numpy as np
import pytest

import retina_codec as rc
from retina_codec.analysis.concepts.aggregates import class_aggregates, compare_aggregates
from retina_codec.analysis.concepts.correlate import correlate_concepts
from retina_codec.analysis.concepts.table import concept_table
from retina_codec.analysis.layers.agreement import rebuilt_variance
from retina_codec.modes.decompose import decompose
from retina_codec.paper.study import open_study
from tests.analyses.small_study import holds, load_script, save_networks
from tests.modes.test_decompose import make_tree
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
    monkeypatch.setattr(rc, "decompose", lambda *_, **__: pytest.fail("computed again"))
    script.main([*words, "--reuse"])
    assert capsys.readouterr().out.splitlines()[-1] == str(folder / "out" / f"{NAME}.png")


@pytest.mark.slow
def test_a_dead_baseline_says_the_way_out(script, movie, tmp_path):
    _, words, _ = movie
    words = [*words, "--threshold", "0.999", "--out", str(tmp_path), "--methods", "gated"]
    with pytest.raises(rc.RetinaCodecError, match="lower --threshold"):
        script.main(words)
