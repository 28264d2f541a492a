"""Three sites as a figure: every number stands in the row and column where it belongs."""

import numpy as np
import pytest
import xarray as xr

from retina_codec.analysis.layers.statistics import measure_contributions
from retina_codec.errors import RetinaCodecError
from retina_codec.paper.figures.transformer import plot_transformer
from retina_codec.paper.transformer import KINDS, SELECTIONS, SITES
from tests.figures.checks import assert_readable, words_of

DEPTH = 6
NAMES = {"blocks": "blocks.4", "mlp": "blocks.4.mlp.fc2", "attention": "blocks.4.attn.proj"}


def made():
    random = np.random.default_rng(0)
    nodes, layers = {}, []
    for site in SITES:
        for block in range(DEPTH):
            layers.append(f"{site}.{block}")
            plus = random.gamma(0.5, size=(40, 12))
            nodes[f"/layers/{layers[-1]}"] = xr.Dataset(
                {
                    "contribution": (("sample", "sign", "channel"), np.stack([-plus / 3, plus], 1)),
                    "activation": (("sample", "channel"), random.normal(2, 1, (40, 12))),
                },
                coords={"sign": ["inhibitory", "excitatory"]},
                attrs={"site": site, "block": block},
            )
    statistics = measure_contributions(xr.DataTree.from_dict(nodes), bootstraps=20)

    def ranged(name, dims, middle):
        ends = np.stack([middle - 0.02, middle + 0.02], -1)
        return {name: (dims, middle), f"{name}_interval": ((*dims, "bound"), ends)}

    r = random.uniform(0.2, 0.9, (len(layers), len(KINDS), 1))
    null = np.stack([r / 3 - 0.02, r / 3 + 0.02], -1)
    dims = ("layer", "kind", "level")
    summary = xr.Dataset(
        {
            **ranged("concept_correlation", dims, r),
            "concept_correlation_null_interval": ((*dims, "bound"), null),
        },
        coords={"layer": layers, "kind": list(KINDS), "level": ["class"]},
    )
    specificity = random.normal(0.1, 0.05, (len(layers), len(SELECTIONS), 10, 6))
    by_trial = specificity.mean(2)
    ablation = xr.Dataset(
        {
            "specificity": (("layer", "selection", "concept", "trial"), specificity),
            "trial_mean": (("layer", "selection"), by_trial.mean(-1)),
            "trial_sem": (("layer", "selection"), by_trial.std(-1, ddof=1) / 6**0.5),
            **ranged("estimate", ("layer", "selection"), by_trial.mean(-1) + 0.01),
        },
        coords={"layer": layers, "selection": list(SELECTIONS)},
    )
    example = {
        f"/example/{site}": xr.Dataset(
            {
                "contribution": (
                    "channel",
                    nodes[f"/layers/{site}.4"]["contribution"][0, 1].values,
                ),
                "activation": ("channel", nodes[f"/layers/{site}.4"]["activation"][0].values),
            },
            attrs={"layer": NAMES[site]},
        )
        for site in SITES
    }
    parts = {"/statistics": statistics, "/summary": summary, "/ablation": ablation}
    return xr.DataTree.from_dict({"/": xr.Dataset(attrs={"images": 40}), **parts, **example})


@pytest.fixture(scope="module")
def saved():
    return made()


@pytest.fixture(scope="module")
def panels(saved):
    figure = plot_transformer(saved)
    assert len(figure.axes) == 12
    return figure, np.array(figure.axes).reshape(4, 3)


def drawn(axes):
    return {str(line.get_label()): line.get_ydata() for line in axes.lines}


def test_page_is_readable(panels):
    assert_readable(panels[0])
    words = words_of(panels[0])
    assert "A  token features, blocks.4" in words
    assert "L  attention" in words


def test_sparsity_stands_beside_that_of_what_varies(panels, saved):
    found = saved["statistics"].to_dataset()
    for column, site in enumerate(SITES):
        here = found.isel(layer=found["site"].values == site)
        lines = drawn(panels[1][1, column])
        for name in ("contribution", "activation"):
            one = here.sel(quantity=name)
            np.testing.assert_allclose(lines[f"{name}s"], one["sparsity"])
            np.testing.assert_allclose(lines[f"{name}s less mean"], one["varying_sparsity"])


def test_correlations_and_ablations_are_those_of_the_site(panels, saved):
    summary, ablation = (saved[name].to_dataset() for name in ("summary", "ablation"))
    for column, site in enumerate(SITES):
        layers = [f"{site}.{block}" for block in range(DEPTH)]
        lines = drawn(panels[1][2, column])
        for kind, words in KINDS.items():
            here = summary["concept_correlation"].sel(layer=layers, kind=kind, level="class")
            np.testing.assert_allclose(lines[words], here)
        lines = drawn(panels[1][3, column])
        for selection in SELECTIONS:
            here = ablation["estimate"].sel(layer=layers, selection=selection)
            np.testing.assert_allclose(lines[selection], here)


def test_an_example_is_sorted_by_size(panels, saved):
    for column, site in enumerate(SITES):
        size = np.sort(np.abs(saved[f"example/{site}/activation"].values))[::-1]
        np.testing.assert_allclose(drawn(panels[1][0, column])["activations"], size / size[0])


def test_something_else_is_refused(saved):
    with pytest.raises(RetinaCodecError, match="summary is missing"):
        plot_transformer(
            xr.DataTree.from_dict({k: saved[k] for k in ("statistics", "ablation", "example")})
        )
