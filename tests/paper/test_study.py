"""Tests of the folder in which the results of an image network are kept."""

import argparse
from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr
from PIL import Image

import retina_codec as rc
from retina_codec.analysis.concepts.correlate import activation_tree
from retina_codec.errors import RetinaCodecError
from retina_codec.networks.checkpoints import save_network
from retina_codec.networks.pictures.small_resnet import SmallResNet
from retina_codec.networks.pictures.small_vit import SmallViT
from retina_codec.paper.control import asked_study, control_of, control_options
from retina_codec.paper.study import open_study, short_name, study_of

FEW = rc.methods.IntegratedGradients(2)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_network(SmallResNet(widths=(4, 4, 6, 8)), folder / "cnn", card="card")
        save_network(SmallViT(depth=2, dim=16), folder / "vit", card="card")
    return folder


def small_study(models, folder, kind="cnn", **options):
    return open_study(folder, model=str(models / kind), count=12, progress=False, **options)


def test_contributions_are_those_of_contribute_and_are_found_again(models, tmp_path, monkeypatch):
    study = small_study(models, tmp_path)
    found = study.contributions(method=FEW)
    direct = rc.contribute(
        study.network, study.images, target=rc.targets.TopK(1), method=FEW, progress=False
    )
    for layer in study.network.layers:
        node = found[f"layers/{layer}"]
        np.testing.assert_array_equal(
            node["contribution"].values, direct[f"layers/{layer}/contribution"].values
        )
        assert node["label"].values.tolist() == study.labels.tolist()
    monkeypatch.setattr(
        "retina_codec.contributions.contribute.run_here", lambda *_: pytest.fail("computed again")
    )
    again = small_study(models, tmp_path).contributions(method=FEW)
    xr.testing.assert_identical(again.load(), found.load())


def test_paths_begin_at_mean_grey(models, tmp_path):
    study = small_study(models, tmp_path)
    assert study.grey == 0.5  # the mean that a SmallResNet has when none is given
    method = rc.methods.IntegratedGradients(10, baseline=study.grey)
    assert study.path_integral() == method
    published = replace(study, placement="uniform").path_integral()
    assert published.describe()["placement"] == "uniform"
    direct = rc.contribute(
        study.network, study.images, target=rc.targets.TopK(1), method=method, progress=False
    )["layers/stage4.1/contribution"]
    found = study.contributions()["layers/stage4.1/contribution"]
    np.testing.assert_array_equal(found.values, direct.values)


def test_other_targets_and_methods_do_not_mix(models, tmp_path):
    study = small_study(models, tmp_path)
    one = study.contributions(rc.targets.TopK(1), FEW)
    other = study.contributions(rc.targets.Entropy(), FEW)
    third = study.contributions(rc.targets.TopK(1), rc.methods.ActGrad())
    assert len(list(tmp_path.glob("contributions-*.zarr"))) == 3
    assert one.attrs["target"] != other.attrs["target"]
    assert one.attrs["method"] != third.attrs["method"]


@pytest.mark.parametrize("of", ["contributions", "activations"])
def test_modes_are_those_of_decompose_and_are_fitted_once(models, tmp_path, monkeypatch, of):
    study = small_study(models, tmp_path)
    method, layer = rc.modes.NMF(modes=2, seed=0), "stage4.1"
    found = study.modes(of, method=FEW, decomposition=method, layers=[layer])
    explained = study.contributions(method=FEW)
    tree = explained if of == "contributions" else activation_tree(explained)
    signs = "excitatory" if of == "contributions" else None
    direct = rc.decompose(tree, method, layers=[layer], signs=signs, gap=0, progress=False)
    node = f"layers/{layer}/modes"
    for name in ("dictionary", "loading"):
        xr.testing.assert_equal(found[node][name], direct[node][name])
    assert found[f"layers/{layer}"]["contribution"].equals(tree[f"layers/{layer}"]["contribution"])
    monkeypatch.setattr(
        "retina_codec.paper.study.decompose", lambda *_, **__: pytest.fail("fitted again")
    )
    again = study.modes(of, method=FEW, decomposition=method, layers=[layer])
    xr.testing.assert_identical(again[node].to_dataset(), found[node].to_dataset())


def test_modes_of_other_images_are_fitted_anew(models, tmp_path):
    method, layer = rc.modes.NMF(modes=2, seed=0), "stage1.0"
    for seed in (0, 1):
        folder = tmp_path / "modes"
        study = small_study(models, folder, seed=seed)
        if seed:  # contributions of other images are refused in the same folder
            with pytest.raises(rc.RetinaCodecError):
                study.contributions(method=FEW)
            study = small_study(models, tmp_path / "other", seed=seed)
        study.modes(method=FEW, decomposition=method, layers=[layer])
    names = {path.name for path in tmp_path.glob("*/modes-*.nc")}
    assert len(names) == 2


def test_a_transformer_has_three_sites_and_its_probability_as_target(models, tmp_path):
    study = small_study(models, tmp_path, "vit")
    assert study.sites == ("blocks", "mlp", "attention")
    assert [len(study.layers_of(site)) for site in study.sites] == [2, 2, 2]
    assert isinstance(study.target, rc.targets.Probability)
    assert study.network.heads(study.layers_of("attention")[0]) == 4


def test_images_in_folders(models, tmp_path):
    random = np.random.default_rng(0)
    for name in ("0", "3"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(5):
            pixels = random.integers(0, 256, (40, 50, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{number}.png")
    study = open_study(
        tmp_path / "out", data=tmp_path / "data", model=str(models / "cnn"), count=6, progress=False
    )
    assert sorted(study.labels.tolist()) == ["0"] * 3 + ["3"] * 3
    folders = [str(file).split("/")[0] for file in study.images.coords["file"]]
    assert folders == study.labels.tolist()  # mixed, pictures and labels alike
    assert folders != sorted(folders)
    found = study.contributions(method=FEW)
    assert found["layers/stage1.0"]["label"].values.tolist() == study.labels.tolist()


@pytest.mark.parametrize("rows", [10, 9, 0])
def test_outputs_are_named_as_the_labels_are(models, tmp_path, rows):
    """Folders of ImageNet are named by id; the file beside them numbers the outputs."""
    random = np.random.default_rng(0)
    ids = [f"n0000000{number}" for number in range(10)]
    for name in (ids[3], ids[7]):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(3):
            pixels = random.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{number}.png")
    lines = [f"{one} a name, another\n" for one in ids[:rows]]
    if rows:
        (tmp_path / "data" / "LOC_synset_mapping.txt").write_text("".join(lines))
    words = ["--out", str(tmp_path / "out"), "--data", str(tmp_path / "data"), "--count", "6"]
    words += ["--model", str(models / "cnn"), "--percentages", "50", "--trials", "2"]
    options = control_options([*words, "--steps", "1", "--bootstraps", "5", "--asked", "6"])
    study = study_of(options)
    if rows < 10:  # not as many as outputs
        assert study.classes == tuple("0123456789")
        with pytest.raises(RetinaCodecError, match=r"n00000003.* LOC_synset_mapping\.txt .* 10 "):
            control_of(study, asked_study(options), options)
        return
    assert study.classes == tuple(ids)
    found = control_of(study, asked_study(options), options)[0]
    assert found["concept"].values.tolist() == [ids[3], ids[7]]
    assert found.attrs["images"] == 6


def test_images_without_labels_are_refused(models, tmp_path):
    (tmp_path / "data").mkdir()
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(tmp_path / "data" / "a.png")
    with pytest.raises(rc.RetinaCodecError, match="must have labels"):
        open_study(tmp_path / "out", data=tmp_path / "data", model=str(models / "cnn"))


def test_a_network_has_a_short_name():
    names = ["out/models/vit", "cifar_resnet56:weights/a.th", "timm:vit_tiny", "digits_cnn"]
    expected = ["vit", "cifar_resnet56", "timm:vit_tiny", "digits_cnn"]
    assert list(map(short_name, names)) == expected


def test_of_must_be_known(models, tmp_path):
    with pytest.raises(rc.RetinaCodecError, match="'contributions' or 'activations'"):
        small_study(models, tmp_path).modes("gradients")


def of(folder, **options):
    names = ("data", "labels", "hierarchy", "device", "early", "late", "placement")
    plain = {"out": folder, "model": "digits_cnn", "count": 12, "seed": 0}
    return argparse.Namespace(**(dict.fromkeys(names) | plain | options))


@pytest.mark.parametrize("option", ["early", "late"])
def test_a_wrong_layer_is_found_before_the_work(models, tmp_path, option):
    options = of(tmp_path, model=str(models / "cnn"), **{option: "stage4.9"})
    with pytest.raises(
        RetinaCodecError, match=rf"--{option} must be a layer.*got 'stage4.9'.*mean"
    ):
        study_of(options)
    assert study_of(of(tmp_path, model=str(models / "cnn"), **{option: "stage4.1"})).classes


OWN = """
from retina_codec.networks.pictures.small_resnet import SmallResNet

classes = ["zero"]
grey = 0.25
number = 3


def build():
    return SmallResNet(widths=(4, 4, 6, 8))


network = build()


def broken():
    raise KeyError("weights")
"""


@pytest.mark.parametrize("name", ["build", "network"])
def test_a_module_of_ones_own_is_taken_from_a_file(tmp_path, name):
    (tmp_path / "mine.py").write_text(OWN, encoding="utf-8")
    study = study_of(of(tmp_path / "out", model=f"{tmp_path / 'mine.py'}:{name}"))
    assert type(study.network.module).__name__ == "SmallResNet"
    assert not study.network.module.training
    assert (study.classes, study.grey) == (("zero",), 0.25)
    assert len(study.images) == 12


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("nowhere.py:build", "there is no file .*nowhere.py"),
        ("mine.py:other", "KeyError.*other"),
        ("mine.py:broken", "KeyError.*weights"),
        ("mine.py:number", "TypeError"),
        ("mine.py:print", "KeyError"),
    ],
)
def test_a_file_without_the_module_is_one_line(tmp_path, model, words):
    (tmp_path / "mine.py").write_text(OWN, encoding="utf-8")
    with pytest.raises(RetinaCodecError, match=words) as caught:
        study_of(of(tmp_path / "out", model=str(tmp_path / model)))
    assert "\n" not in str(caught.value)
