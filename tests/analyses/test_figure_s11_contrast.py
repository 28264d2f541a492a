"""The script of Figure S11: numbers are those of the public functions, and decide the claims."""

import numpy as np
import pytest
import xarray as xr

import retina_codec as rc
from retina_codec.analysis.layers.statistics import measure_contributions
from retina_codec.paper.study import open_study
from tests.analyses.small_study import (
    draws_without_computing,
    holds,
    load_script,
    run_small,
    shifted,
)

NAME = "figure_s11_contrast"


@pytest.fixture(scope="module")
def script():
    return load_script(NAME)


@pytest.fixture(scope="module")
def run(script, tmp_path_factory):
    folder = tmp_path_factory.mktemp("figure_s11")
    words = ["--count", "40", "--steps", "1", "--epochs", "2", "--layers", "stage3.0", "stage4.1"]
    return run_small(script, folder, *words)


def test_numbers_are_those_of_the_public_functions(script, run):
    folder, words, saved = run
    study = open_study(folder, model=str(folder / "cnn"), count=40, progress=False)
    method = study.path_integral(1)
    means = []
    for name, target in (("standard", rc.targets.TopK(1)), ("contrast", rc.targets.Contrast())):
        tree = study.contributions(target, method)
        direct = measure_contributions(tree, bootstraps=10, progress=False)["sparsity"]
        here = saved["sparsity"]["sparsity"]
        means.append(direct.sel(quantity="contribution").values)
        np.testing.assert_allclose(here.sel(quantity=name), means[-1])
        np.testing.assert_allclose(
            here.sel(quantity="activation"), direct.sel(quantity="activation")
        )
        fit = script.fit_of(study, script.arguments(words))
        modes = study.modes(target=target, method=method, layers=["stage4.1"], **fit)
        r2 = saved["rebuilt"]["r2"].sel(target=name, layer="stage4.1")
        assert float(r2) == pytest.approx(float(modes["layers/stage4.1/modes"]["r2"]), abs=1e-6)
    np.testing.assert_allclose(saved["sparsity"]["difference"], means[1] - means[0], atol=1e-12)


def test_saved_results_are_drawn_without_computing(script, run, monkeypatch, capsys):
    draws_without_computing(script, run, monkeypatch, capsys)


@pytest.mark.parametrize(
    ("difference", "r2", "expected"),
    [
        (0.03, 0.9, (True, True)),
        (-0.03, 0.855, (True, False)),
        (0.045, 0.9, (False, True)),
        (-0.2, 0.5, (False, False)),
    ],
)
def test_verdicts_follow_the_numbers(script, run, difference, r2, expected):
    saved = run[2]
    parts = {
        "/sparsity": shifted(saved["sparsity"].to_dataset(), "difference", difference),
        "/rebuilt": shifted(saved["rebuilt"].to_dataset(), "r2", r2),
    }
    verdicts = holds(script.claims_of(xr.DataTree.from_dict(parts)))
    assert tuple(verdicts.values()) == expected
