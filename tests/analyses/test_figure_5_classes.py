"""The script of Figure 5: its numbers are those of the public functions, and decide the claims."""

import pytest
import xarray as xr

from retina_codec.analysis.concepts.correlate import correlate_concepts
from retina_codec.analysis.concepts.table import concept_table
from retina_codec.paper.study import open_study
from tests.analyses.small_study import draws_without_computing, holds, load_script, run_small

NAME = "figure_5_classes"


@pytest.fixture(scope="module")
def script():
    return load_script(NAME)


@pytest.fixture(scope="module")
def run(script, tmp_path_factory):
    words = ["--count", "60", "--steps", "1", "--permutations", "20", "--bootstraps", "20"]
    folder = tmp_path_factory.mktemp("figure_5")
    return run_small(script, folder, *words, "--late", "blocks.0", model="vit")


@pytest.mark.slow
def test_numbers_are_those_of_the_public_functions(run):
    folder, _, saved = run
    study = open_study(folder, model=str(folder / "vit"), count=60, progress=False)
    shared = {"method": study.path_integral(1), "layers": ["blocks.0", "blocks.1"]}
    direct = correlate_concepts(
        study.modes("contributions", **shared),
        concept_table(study.labels),
        activation_modes=study.modes("activations", **shared),
        permutations=20,
        bootstraps=20,
        progress=False,
    )
    for node in ("layers/blocks.0/modes", "layers/blocks.1/activation_modes"):
        xr.testing.assert_allclose(saved[node].to_dataset(), direct[node].to_dataset())


@pytest.mark.slow
def test_saved_results_are_drawn_without_computing(script, run, monkeypatch, capsys):
    draws_without_computing(script, run, monkeypatch, capsys, ("", "_matrix"))


def changed(saved, sign):
    """Six blocks in which modes tell classes better than all else (sign 1), or worse."""
    names = [f"block {number}" for number in range(6)]
    nodes = {"/summary": xr.Dataset(coords={"layer": names})}
    for number, name in enumerate(names):
        for kind in ("modes", "contributions", "activations", "activation_modes"):
            one = saved[f"layers/blocks.0/{kind}"].to_dataset()
            noise = 0.001 * xr.DataArray(range(one.sizes["concept"]), dims="concept")
            mean = (
                0.5 + sign * (0.2 if number in (2, 3) else 0.1) if kind == "modes" else 0.5 + noise
            )
            one["best_correlation"] = xr.zeros_like(one["best_correlation"]) + mean
            nodes[f"/layers/{name}/{kind}"] = one
    return xr.DataTree.from_dict(nodes)


@pytest.mark.slow
def test_verdicts_follow_the_numbers(script, run):
    better, worse = (script.claims_of(changed(run[2], sign)) for sign in (1, -1))
    assert len(better) == 8
    assert set(holds(better).values()) == {True}
    assert set(holds(worse).values()) == {False}
    whole = {claim.name: claim.found for claim in better}
    # mean over blocks: (2 · 0.2 + 4 · 0.1) / 6 less the mean of 0.001 · (0 … 9)
    assert whole["more than activations, mean"] == pytest.approx(0.8 / 6 - 0.0045)
    assert whole["intermediate most"] == pytest.approx(0.1)
