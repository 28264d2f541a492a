"""The script of Figure 7: likeness across classes finds what was planted, and only that."""

import numpy as np
import pytest
import torch
import xarray as xr
from PIL import Image

import retina_codec as rc
from retina_codec.analysis.gallery.features import digit_squares, object_gain
from retina_codec.analysis.gallery.maps import mode_maps
from retina_codec.networks.checkpoints import save_network
from retina_codec.networks.pictures.small_resnet import SmallResNet
from retina_codec.paper.study import open_study
from tests.analyses.small_study import load_script

NAME = "figure_7_maps"
FEW = ["--count", "40", "--modes", "2", "--others", "1", "--input-grad"]


@pytest.fixture(scope="module")
def script():
    return load_script(NAME)


@pytest.fixture(scope="module")
def run(script, tmp_path_factory):
    folder = tmp_path_factory.mktemp("f7")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_network(SmallResNet(widths=(4, 4, 12, 8)), folder / "cnn", card="card")
    words = ["--out", str(folder), "--model", str(folder / "cnn"), *FEW]
    script.main(words)
    return folder, words, rc.open_tree(folder / "figure_7_maps.nc", lazy=False)


def test_gain_and_pictures_are_those_of_the_public_functions(run):
    folder, _, saved = run
    study = open_study(folder, model=str(folder / "cnn"), count=40, progress=False)
    numbers = saved["1/numbers"].to_dataset()
    layer = numbers.attrs["layer"]
    assert layer == study.layers_of("blocks")[4]
    modes = study.modes("contributions", layers=[layer])
    for number, mode in enumerate(numbers["mode"].values.tolist()):
        shown = saved[f"1/pictures/{number}"].to_dataset()
        some = study.images.isel(sample=shown["position"].values)
        np.testing.assert_array_equal(shown["image"].values, some.values)
        assert shown["label"].values.tolist() == study.labels[shown["position"].values].tolist()
        maps = mode_maps(
            study.network,
            some,
            modes,
            layer,
            mode,
            method=rc.methods.InputGrad(study.grey),
            progress=False,
        )["map"]
        gain = np.nanmean(object_gain(maps, digit_squares(some)))
        assert float(numbers["gain"].sel(mode=mode, kind="mode")) == pytest.approx(gain, rel=1e-4)


def test_saved_results_are_drawn_without_computing(script, run, monkeypatch):
    folder, words, _ = run
    before = (folder / "figure_7_maps_claims.csv").read_text()
    monkeypatch.setattr(script, "study_of", lambda *_: pytest.fail("computed again"))
    (folder / "figure_7_maps.png").unlink()
    script.main([*words, "--reuse"])
    assert (folder / "figure_7_maps.png").exists()
    assert (folder / "figure_7_maps_claims.csv").read_text() == before


LABEL = [name for name in "0123" for _ in range(3)]


def described(random, own, size):
    """Descriptions (sample, feature) of maps: what images share, what the mode marks, noise."""
    common = random.normal(size=(12, 12))
    kinds = {"mode": 1, "other mode": 2, "random channels": 2}
    return {
        kind: [
            common + size * (own if kind == "mode" else 0) + random.normal(size=(12, 12))
            for _ in range(count)
        ]
        for kind, count in kinds.items()
    }


def test_likeness_is_found_where_the_mode_marks_the_same_and_not_by_chance(script):
    random = np.random.default_rng(0)
    for size in (0.0, 2.0):
        found = np.array(
            [
                script.across_classes(described(random, random.normal(size=12), size), LABEL)
                for _ in range(200)
            ]
        )
        gap = found[:, 0] - found[:, 1]
        error = gap.std(ddof=1) / np.sqrt(len(gap))
        if size:
            assert gap.mean() > 0.5
        else:
            assert abs(gap.mean()) < 3 * error
            assert error < 0.02


def test_images_of_the_same_class_do_not_count(script):
    random = np.random.default_rng(1)
    under = described(random, random.normal(size=12), 2.0)
    changed = {kind: [one.copy() for one in several] for kind, several in under.items()}
    order = [1, 2, 0, *range(3, 12)]  # within the first class
    changed = {kind: [one[order] for one in several] for kind, several in changed.items()}
    np.testing.assert_allclose(
        script.across_classes(under, LABEL), script.across_classes(changed, LABEL)
    )


def test_verdicts_follow_the_numbers(script):
    kinds = list(script.KINDS)
    noise = np.random.default_rng(0).normal(0, 0.01, (8, 3))
    numbers = xr.Dataset(
        {
            "likeness": (("mode", "kind"), np.array([0.5, 0.1, 0.3]) + noise),
            "gain": (("mode", "kind"), np.array([2.0, 1.8, 1.2]) + noise),
        },
        coords={"mode": range(8), "kind": kinds},
        attrs={"layer": "stage1.0"},
    )

    def verdicts(found):
        tree = xr.DataTree.from_dict({"/0/numbers": found})
        return [claim.holds for claim in script.claims_of(tree)]

    assert verdicts(numbers) == [True, True, True]
    swapped = numbers.isel(kind=[1, 0, 2]).assign_coords(kind=kinds)
    assert verdicts(swapped) == [False, True, True]
    swapped = (
        (numbers / 2.5).assign_attrs(numbers.attrs).isel(kind=[2, 1, 0]).assign_coords(kind=kinds)
    )
    assert verdicts(swapped) == [True, False, False]


def test_of_other_images_only_likeness_is_tested(script, run, tmp_path):
    random = np.random.default_rng(0)
    for name in ("0", "3"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(10):
            pixels = random.integers(0, 256, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{number}.png")
    words = ["--out", str(tmp_path), "--model", str(run[0] / "cnn"), *FEW]
    script.main([*words, "--data", str(tmp_path / "data"), "--modes", "1"])
    saved = rc.open_tree(tmp_path / "figure_7_maps.nc", lazy=False)
    claims = script.claims_of(saved)
    assert [claim.verdict for claim in claims if "same" not in claim.name] == ["not tested"] * 4
    assert np.isfinite(saved["0/pictures/0"].to_dataset()["image"]).all()
