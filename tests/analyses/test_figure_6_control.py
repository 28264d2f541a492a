"""The scripts of Figures 6 and S10: numbers of the public functions, and the photographs."""

import numpy as np
import pytest
import xarray as xr

from retina_codec.analysis.control.curves import control_curves
from retina_codec.analysis.control.settings import ControlSettings
from retina_codec.paper.study import DIGIT_GROUPS, open_study
from tests.analyses.small_study import draws_without_computing, holds, load_script, run_small

NAMES = ("figure_6_control", "figure_s10_superclasses")


@pytest.fixture(scope="module")
def scripts():
    return {name: load_script(name) for name in NAMES}


@pytest.fixture(scope="module")
def run(scripts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("control")
    words = ["--count", "60", "--steps", "1", "--asked", "50", "--trials", "2"]
    words += ["--bootstraps", "20", "--percentages", "25", "50"]
    return {
        name: run_small(script, folder, *words, model="vit") for name, script in scripts.items()
    }


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.slow
def test_numbers_are_those_of_the_public_function(run, name):
    folder, _, saved = run[name]
    asked, study = (
        open_study(folder, model=str(folder / "vit"), count=count, seed=seed, progress=False)
        for count, seed in ((50, 1), (60, 0))
    )
    shared = {"method": study.path_integral(1), "layers": ["blocks.0", "blocks.1"]}
    nodes = {"control": {}} if name == NAMES[1] else {
        "control": {}, "held_at_mean": {"style": "ablate", "held_at": "mean"}
    }  # fmt: skip
    for node, changes in nodes.items():
        direct = control_curves(
            study.network,
            asked.images,
            asked.labels,
            study.modes("contributions", **shared),
            activation_modes=study.modes("activations", **shared),
            superclasses=None if name == NAMES[0] else DIGIT_GROUPS,
            settings=ControlSettings(percentages=[25, 50], trials=2, bootstraps=20, **changes),
            progress=False,
        )
        kept = saved[node].to_dataset()
        xr.testing.assert_allclose(kept["ratio"], direct["ratio"])
        xr.testing.assert_allclose(kept["estimate_interval"], direct["estimate_interval"])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.slow
def test_saved_results_are_drawn_without_computing(scripts, run, monkeypatch, capsys, name):
    endings = ("", "_layers", "_mean_layers") if name == NAMES[0] else ("", "_layers")
    draws_without_computing(scripts[name], run[name], monkeypatch, capsys, endings)


def photographs(hurt):
    """Ten images on each photograph; each mode takes its own (hurt) or nothing, at 50 %."""
    names = np.array(["china", "flower"])
    of = np.repeat(names, 10)
    right = np.ones((1, 2, 3, 20), bool)
    right[:, :, 2] = False  # all channels gone
    if hurt:
        right[0, :, 1] = of != names[:, None]
    return xr.Dataset(
        {
            "right": (("layer", "concept", "percentage", "sample"), right),
            "share": (("layer", "percentage"), [[0.0, 0.5, 1.0]]),
        },
        coords={"layer": ["one"], "concept": names, "photograph": ("sample", of)},
        attrs={"seed": 0, "bootstraps": 50},
    )


@pytest.mark.parametrize(("hurt", "gap"), [(True, 0.5), (False, 0.0)])
def test_photographs_by_hand(scripts, hurt, gap):
    # area off: 0.5 + 0.25; on: 0.25 if hurt. All images alike: the interval has no width.
    script, found = scripts[NAMES[1]], photographs(hurt)
    middle, ends = script.specificity_of_photographs(found)
    np.testing.assert_allclose(middle, [gap])
    np.testing.assert_allclose(ends, [[gap, gap]])
    claims = script.photograph_claims(xr.DataTree.from_dict({"/photographs": found}))
    assert holds(claims) == {"photographs alike": not hurt, "photographs alike, late": not hurt}


def test_photographs_without_a_right_answer_are_not_tested(scripts):
    script, found = scripts[NAMES[1]], photographs(hurt=True)
    found["right"][{"percentage": 0, "sample": slice(10)}] = False
    assert set(
        holds(script.photograph_claims(xr.DataTree.from_dict({"/photographs": found}))).values()
    ) == {None}


@pytest.mark.slow
def test_photograph_with_nothing_ablated_is_the_network(run):
    folder, _, saved = run[NAMES[1]]
    found = saved["photographs"].to_dataset()
    asked = open_study(folder, model=str(folder / "vit"), count=50, seed=1, progress=False)
    import torch

    with torch.no_grad():
        output = asked.network.module.eval()(torch.from_numpy(asked.images.values))
    right = output.argmax(1).numpy() == asked.labels.astype(int)
    for layer in found["layer"].values:
        for concept in found["concept"].values:
            first = found["right"].sel(layer=layer, concept=concept).isel(percentage=0)
            np.testing.assert_array_equal(first.values, right)
