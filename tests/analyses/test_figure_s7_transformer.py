"""The script of Figure S7: its numbers are those of the public functions, and decide the claims."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

import retina_codec as rc
from retina_codec.analysis.contribution_statistics import contribution_statistics
from retina_codec.analysis.image_study import open_study
from retina_codec.networks.small_networks import SmallResNet, SmallViT, save_small_network

SCRIPT = Path(__file__).parents[2] / "analyses" / "figure_s7_transformer.py"
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
        save_small_network(SmallViT(depth=3, dim=8), folder / "vit", "card")
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
    xr.testing.assert_allclose(statistics, contribution_statistics(found, seed=0))
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

    monkeypatch.setattr(script, "control_curves", asked)
    with pytest.raises(RuntimeError, match="far enough"):
        script.ablation(script.study_of(script.arguments(words)), script.arguments(words))
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


def planted():
    """Results of a network that does all that the paper says of ViT-B."""
    random = np.random.default_rng(0)
    layers = [f"{site}.{block}" for site in SITES for block in range(6)]
    site = [name.partition(".")[0] for name in layers]
    depth = np.tile(np.arange(6.0), 3)
    sparsity = 0.4 + 0.04 * np.abs(depth - 2.5)
    sparsity[11] -= 0.07  # the last block of the MLP drops
    images = np.stack([sparsity, np.full(18, 0.3)], 1)[..., None]
    images = images + random.normal(0, 0.01, (18, 2, 50))
    r = np.array([0.5, 0.3, 0.6, 0.4])[None] + 0.05 * depth[:, None]
    strength = np.select([np.array(site) == "blocks", np.array(site) == "mlp"], [0.3, 0.15], 0.05)
    own = strength * (1 + 0.1 * depth)
    own[11] = 0.05
    opposed = np.where(depth >= 3, -0.05, 0.01)
    both = np.stack([own, opposed], 1)

    def interval(values, half):
        return np.stack([values - half, values + half], -1)

    about = {"layer": layers, "site": ("layer", site)}
    gap = images[:, 0].mean(-1) - images[:, 1].mean(-1)
    statistics = xr.Dataset(
        {
            "difference": (("layer", "quantity"), gap[:, None]),
            "difference_interval": (("layer", "quantity", "bound"), interval(gap, 0.01)[:, None]),
        },
        coords=about | {"quantity": ["contribution"]},
    )
    ablation = xr.Dataset(
        {
            "estimate": (("layer", "selection"), both),
            "estimate_interval": (("layer", "selection", "bound"), interval(both, 0.005)),
            "concept_estimate": (
                ("layer", "selection", "concept"),
                both[..., None] + random.normal(0, 0.005, (18, 2, 10)),
            ),
            "difference": (("layer", "pair"), (own - opposed)[:, None]),
            "difference_interval": (
                ("layer", "pair", "bound"),
                interval(own - opposed, 0.005)[:, None],
            ),
        },
        coords=about
        | {
            "selection": ["contribution modes", "activation modes"],
            "pair": ["contribution modes − activation modes"],
        },
    )
    quantities = ["contribution", "activation"]
    kinds = ["modes", "contributions", "activation_modes", "activations"]
    return xr.DataTree.from_dict(
        {
            "/statistics": statistics,
            "/images": xr.Dataset(
                {"sparsity": (("layer", "quantity", "sample"), images)},
                coords={"layer": layers, "quantity": quantities},
            ),
            "/best": xr.Dataset(
                {
                    "correlation": (
                        ("layer", "kind", "concept"),
                        r[..., None] + random.normal(0, 0.01, (18, 4, 10)),
                    )
                },
                coords={"layer": layers, "kind": kinds},
            ),
            "/ablation": ablation,
        }
    )


def test_all_claims_hold_of_a_network_that_does_what_the_paper_says(script):
    found = {claim.name: claim.holds for claim in script.claims_of(planted())}
    assert len(found) == 25
    assert [name for name, holds in found.items() if not holds] == []


def flipped(path, name):
    tree = planted()
    found = tree[path].to_dataset()
    found[name] = -found[name]
    if f"{name}_interval" in found:
        found[f"{name}_interval"] = -found[f"{name}_interval"].isel(bound=[1, 0])
    tree[path] = xr.DataTree(found)
    return tree


@pytest.mark.parametrize(
    ("path", "name", "falls"),
    [
        ("statistics", "difference", {"sparser_blocks", "sparser_mlp", "sparser_attention"}),
        ("images", "sparsity", {"dip_blocks", "dip_mlp", "dip_attention", "drop_mlp"}),
        (
            "best",
            "correlation",
            {f"rise_{site}" for site in SITES}
            | {f"{kind}_{site}" for kind in ("modes", "activation_modes")
               for site in ("blocks", "attention")},
        ),
        (
            "ablation",
            "estimate",
            {"specific_blocks", "opposed", "specific_mlp", "specific_attention"},
        ),
        ("ablation", "difference", {f"better_{site}" for site in SITES}),
        (
            "ablation",
            "concept_estimate",
            {"rise_blocks_ablation", "weaker_mlp", "drop_mlp_ablation", "weaker_attention"},
        ),
    ],
)  # fmt: skip
def test_claims_fall_with_the_numbers_they_rest_on_and_no_others(script, path, name, falls):
    claims = script.claims_of(flipped(path, name))
    assert {claim.name for claim in claims if not claim.holds} == falls


def test_a_network_without_attention_is_refused(script, tmp_path):
    with torch.random.fork_rng():
        save_small_network(SmallResNet(widths=(4, 4, 6, 8)), tmp_path / "cnn", "card")
    words = ["--out", str(tmp_path), "--model", str(tmp_path / "cnn"), "--count", "12"]
    with pytest.raises(rc.RetinaCodecError, match="mlp"):
        script.main(words)
