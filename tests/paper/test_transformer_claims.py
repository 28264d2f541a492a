"""Claims about transformers: all hold of what the paper says, and each rests on its own numbers."""

import numpy as np
import pytest
import xarray as xr

from retina_codec.paper.transformer import transformer_claims

SITES = ("blocks", "mlp", "attention")


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
            "varying_difference": (("layer", "quantity"), gap[:, None] / 2),
            "varying_difference_interval": (
                ("layer", "quantity", "bound"),
                interval(gap / 2, 0.01)[:, None],
            ),
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


def test_all_claims_hold_of_a_network_that_does_what_the_paper_says():
    found = {claim.name: claim.holds for claim in transformer_claims(planted())}
    assert len(found) == 28
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
        ("statistics", "varying_difference", {f"varying_{site}" for site in SITES}),
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
def test_claims_fall_with_the_numbers_they_rest_on_and_no_others(path, name, falls):
    claims = transformer_claims(flipped(path, name))
    assert {claim.name for claim in claims if not claim.holds} == falls


def test_what_is_ours_is_not_ascribed_to_the_paper():
    sources = {claim.name: claim.source for claim in transformer_claims(planted())}
    ours = {name for name, source in sources.items() if not source.startswith("10.5.")}
    assert ours == {f"varying_{site}" for site in SITES}
    assert {sources[name] for name in ours} == {"control of ours"}
