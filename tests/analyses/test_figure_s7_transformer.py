"""The script of Figure S7: its numbers are those of the public functions, and decide the claims."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

import retina_codec as rc
from retina_codec.analysis.layers.statistics import measure_contributions
from retina_codec.networks.checkpoints import save_network
from retina_codec.networks.pictures.small_resnet import SmallResNet
from retina_codec.networks.pictures.small_vit import SmallViT
from retina_codec.paper import transformer as transformer_study
from retina_codec.paper.study import open_study

SCRIPT = Path(__file__).parents[2] / "analyses" / "figure_s7_transformer.py"
# two images for each of ten classes are asked for, and one of them is held out
pytestmark = pytest.mark.filterwarnings("ignore:10 of 10 classes have a single image")
SITES = ("blocks", "mlp", "attention")


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("figure_s7_transformer", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def run(script, tmp_path_factory):
    folder = tmp_path_factory.mktemp("s7")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_network(SmallViT(depth=3, dim=8), folder / "vit", card="card")
    words = ["--out", str(folder), "--model", str(folder / "vit"), "--count", "60"]
    words += ["--asked", "2", "--percentages", "50", "--trials", "2", "--permutations", "4"]
    script.main(words)
    return folder, words, rc.open_tree(folder / "figure_s7_transformer.nc", lazy=False)


@pytest.mark.slow
def test_numbers_are_those_of_the_public_functions(run):
    folder, _, saved = run
    study = open_study(folder, model=str(folder / "vit"), count=60, progress=False)
    found = study.contributions()
    statistics = saved["statistics"].to_dataset()
    xr.testing.assert_allclose(statistics, measure_contributions(found, seed=0))
    images = saved["images"].to_dataset()["sparsity"].mean("sample")
    expected = statistics["sparsity"].sel(quantity=["contribution", "activation"])
    np.testing.assert_allclose(images, expected.sel(layer=images["layer"].values), rtol=1e-5)
    modes = study.modes("contributions")
    best = saved["best"].to_dataset()["correlation"].sel(kind="modes")
    for layer in study.network.layers:
        loading = modes[f"layers/{layer}/modes"]["loading"].transpose("sample", "mode").values
        for name in best["concept"].values:
            mask = study.labels == name
            r = [np.corrcoef(one, mask)[0, 1] for one in loading.T if np.ptp(one)]
            assert float(best.sel(layer=layer, concept=name)) == pytest.approx(max(r), rel=1e-4)


@pytest.mark.slow
def test_images_that_are_ablated_do_not_choose_the_modes(script, run, monkeypatch):
    words = run[1]
    seen = {}

    def asked(_, images, labels, modes, **options):
        seen.update(options, images=images, labels=labels, modes=modes)
        raise RuntimeError("far enough")

    monkeypatch.setattr(transformer_study, "control_curves", asked)
    with pytest.raises(RuntimeError, match="far enough"):
        script.compute(script.arguments(words), run[0] / "not written.nc")
    rest = seen["modes"]["layers/blocks.0/modes"]["loading"]["sample"].values
    assert not set(rest.tolist()) & set(seen["images"]["sample"].values.tolist())
    assert len(rest) + len(seen["labels"]) == 60
    assert seen["labels"].tolist() == seen["images"]["label"].values.tolist()
    assert len(seen["mode_labels"]) == len(rest)
    every = np.concatenate([seen["labels"], seen["mode_labels"]])
    few = min(2, np.unique(every, return_counts=True)[1].min() // 2)
    np.testing.assert_array_equal(np.unique(seen["labels"], return_counts=True)[1], few)


@pytest.mark.slow
def test_saved_results_are_drawn_without_computing(script, run, monkeypatch):
    folder, words, _ = run
    before = (folder / "figure_s7_transformer_claims.csv").read_text()
    monkeypatch.setattr(script, "study_of", lambda *_: pytest.fail("computed again"))
    (folder / "figure_s7_transformer.png").unlink()
    script.main([*words, "--reuse"])
    assert (folder / "figure_s7_transformer.png").exists()
    assert (folder / "figure_s7_transformer_claims.csv").read_text() == before


def test_a_network_without_attention_is_refused(script, tmp_path):
    with torch.random.fork_rng():
        save_network(SmallResNet(widths=(4, 4, 6, 8)), tmp_path / "cnn", card="card")
    words = ["--out", str(tmp_path), "--model", str(tmp_path / "cnn"), "--count", "12"]
    with pytest.raises(rc.RetinaCodecError, match="mlp"):
        script.main(words)
