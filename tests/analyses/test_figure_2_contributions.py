"""The script of Figure 2: its numbers are those of the public functions, and decide the claims."""

import csv

import numpy as np
import pytest
import xarray as xr

import retina_codec as rc
from retina_codec.analysis.layers.units import some_inputs, spatial_sparsity
from retina_codec.paper.study import open_study
from tests.analyses.small_study import (
    draws_without_computing,
    holds,
    load_script,
    run_small,
    shifted,
)

NAME = "figure_2_contributions"


@pytest.fixture(scope="module")
def script():
    return load_script(NAME)


@pytest.fixture(scope="module")
def run(script, tmp_path_factory):
    folder = tmp_path_factory.mktemp("figure_2")
    words = ["--count", "12", "--steps", "2", "--spatial", "6", "--fine-steps", "4", "--image", "3"]
    return run_small(script, folder, *words)


def test_numbers_are_those_of_the_public_functions(run):
    folder, _, saved = run
    study = open_study(folder, model=str(folder / "cnn"), count=12, progress=False)
    shared = {"target": rc.targets.TopK(1), "method": study.path_integral(2), "progress": False}
    some = some_inputs(study.images, [0, 2, 4, 7, 9, 11])
    direct = spatial_sparsity(study.network, some, **shared)
    for name, values in direct.data_vars.items():
        np.testing.assert_allclose(saved[f"spatial/{name}"], values, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(saved["image"], study.images[3])
    assert saved.attrs["label"] == study.labels[3]
    tree = study.contributions(method=study.path_integral(2))
    for place, name in enumerate(("stage1.0", "stage3.0", "stage4.1")):
        net = tree[f"layers/{name}"]["contribution"].sum("sign")[3]
        np.testing.assert_allclose(saved[f"layers/{place}"]["net"], net, rtol=1e-4, atol=1e-6)
        layer = tree[f"layers/{name}"]
        share = np.abs(layer["completeness_error"]).sum() / np.abs(layer["target_change"]).sum()
        assert float(saved["completeness"]["share"].sel(layer=name)) == pytest.approx(float(share))


def test_saved_results_are_drawn_without_computing(script, run, monkeypatch, capsys):
    draws_without_computing(script, run, monkeypatch, capsys)
    with open(run.folder / f"{NAME}_claims.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == [
        "sparse places", "sparse units", "complete, 2 steps", "complete, 4 steps"
    ]  # fmt: skip


def test_verdicts_follow_the_numbers(script, run):
    saved = run[2]
    for change, sparse in ((0.2, True), (-0.2, False), (0.005, False)):
        for error, complete in ((0.02, True), (0.2, False)):
            tree = saved.copy(deep=True)
            tree["spatial"] = xr.DataTree(
                shifted(saved["spatial"].to_dataset(), "difference", change)
            )
            for node in ("completeness", "finer"):
                attrs = tree[node].attrs
                tree[node] = xr.DataTree(shifted(saved[node].to_dataset(), "share", error))
                tree[node].attrs.update(attrs)
            assert list(holds(script.claims_of(tree)).values()) == [sparse] * 2 + [complete] * 2


def test_the_image_must_be_there(script, run):
    with pytest.raises(rc.RetinaCodecError, match="from 0 to 11"):
        script.main([*run[1][:-1], "12"])


@pytest.mark.slow
def test_a_transformer_is_drawn_too(script, run, tmp_path):
    words = ["--out", str(tmp_path), "--model", str(run[0] / "vit"), *run[1][4:]]
    script.main(words)
    saved = rc.open_tree(tmp_path / f"{NAME}.nc", lazy=False)
    complete = np.isfinite(saved["completeness"]["share"])
    assert complete.sum() == 2  # blocks; MLPs and attention stand beside a path
    assert holds(script.claims_of(saved))["complete, 2 steps"] in (True, False)
