"""Control of planted and of random networks: closed forms, a slow second form, properties."""

from dataclasses import fields

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

import retina_codec as rc
from retina_codec.analysis.control.curves import control_curves
from retina_codec.analysis.control.settings import ControlSettings
from retina_codec.errors import RecordingWarning, RetinaCodecError
from retina_codec.networks.adapter import adapt
from tests.reference.control import area, curves

FAST = {"bootstraps": 60, "trials": 4, "progress": False}


def controlled(network, images, labels, modes, **options):
    """Call `control_curves`; options that are settings go there."""
    names = {field.name for field in fields(ControlSettings)}
    chosen = ControlSettings(**{k: v for k, v in options.items() if k in names})
    others = {k: v for k, v in options.items() if k not in names}
    return control_curves(network, images, labels, modes, settings=chosen, **others)


class Planted(nn.Module):
    """Class c needs every channel of its own block; without that, output "none" wins."""

    def __init__(self, classes: int, block: int) -> None:
        super().__init__()
        self.classes = (*(f"c{n}" for n in range(classes)), "none")
        self.layers = ("hidden",)
        self.hidden = nn.Identity()
        weight = torch.zeros(classes + 1, classes * block)
        for number in range(classes):
            weight[number, number * block : (number + 1) * block] = 1
        bias = torch.full((classes + 1,), 0.5 - block)
        bias[-1] = 0
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.hidden(x) @ self.weight.T + self.bias


def planted(classes: int, block: int, each: int = 4):
    """The network, its images (own block 1, all others 1/2 so that only one class wins)."""
    labels = np.repeat(np.arange(classes), each)
    own = np.repeat(np.eye(classes), block, axis=1)[labels]
    return Planted(classes, block).eval(), torch.as_tensor(own).float(), labels


def tree_of(loading, dictionary, labels, layer="hidden"):
    """Results with given modes: dictionary (mode, channel), excitatory."""
    both = np.stack([np.zeros_like(dictionary), dictionary], 1)
    coords = {"sign": ["inhibitory", "excitatory"]}
    modes = xr.Dataset(
        {
            "dictionary": (("mode", "sign", "channel"), both),
            "loading": (("sample", "mode"), loading),
        },
        coords=coords,
    )
    labelled = xr.Dataset(coords={"label": ("sample", labels)})
    return xr.DataTree.from_dict({f"/layers/{layer}": labelled, f"/layers/{layer}/modes": modes})


def planted_tree(network, classes, block, each=4):
    labels = np.repeat(network.classes[:classes], each)
    loading = np.repeat(np.eye(classes), each, axis=0)
    return tree_of(loading, np.repeat(np.eye(classes), block, axis=1), labels)


def every(channels: int) -> list[float]:
    """Percentages that stand for every number of channels."""
    return [100 * k / channels for k in range(1, channels)]


def test_a_planted_network_in_closed_form() -> None:
    """Two classes, c channels: on target all is lost at channel 1, off target at c/2 + 1."""
    network, x, labels = planted(2, 5)
    found = controlled(
        network, x, labels, planted_tree(network, 2, 5), percentages=every(10),
        by=["contribution modes", "random channels"], **FAST,
    )  # fmt: skip
    one = found.sel(layer="hidden", selection="contribution modes")
    on, off = (one["ratio"].sel(side=f"{side} target") for side in ("on", "off"))
    share = np.arange(11) / 10
    np.testing.assert_allclose(one["share"], share)
    for style, step in (("ablate", lambda x, at: x < at), ("preserve", lambda x, at: x >= at)):
        at = (0.1, 0.6) if style == "ablate" else (0.5, 1.0)
        for side, place in zip((on, off), at, strict=True):
            expected = step(share + 1e-9, place).astype(float)
            for curve in side.sel(style=style).transpose(..., "percentage").values.reshape(-1, 11):
                np.testing.assert_allclose(curve, expected)
    np.testing.assert_allclose(one["specificity"], 0.5)
    np.testing.assert_allclose(one["estimate"], 0.5)
    np.testing.assert_allclose(one["estimate_interval"], 0.5)
    np.testing.assert_allclose(one["trial_sem"], 0, atol=1e-12)
    # ablating exactly the block: nothing left on target, all left off target
    at_block = one["ratio"].sel(style="ablate", percentage=50).mean(("concept", "trial"))
    np.testing.assert_allclose(at_block, [0, 1])
    np.testing.assert_allclose(one["correlation"], 1)
    assert one["mode"].values.ravel().tolist() == [0, 1]


def test_random_channels_are_not_specific_and_modes_are_better() -> None:
    """In a network in which all classes are alike, chance hits on and off target the same."""
    network, x, labels = planted(4, 3)
    found = controlled(
        network, x, labels, planted_tree(network, 4, 3), percentages=every(12), trials=40,
        by=["contribution modes", "random channels"], bootstraps=200, progress=False,
    ).sel(layer="hidden")  # fmt: skip
    chance = found.sel(selection="random channels")
    for style in ("ablate", "preserve"):
        low, high = chance["estimate_interval"].sel(style=style).values
        assert low <= 0 <= high
        assert low < high
        assert float(chance["p_value"].sel(style=style)) > 0.05
        assert float(found["difference_p"].sel(style=style)[0]) < 0.05
        low, high = found["difference_interval"].sel(style=style)[0].values
        assert 0 < low < float(found["difference"].sel(style=style)[0]) <= high
    apart = found["estimate"].sel(selection="contribution modes") - chance["estimate"]
    np.testing.assert_allclose(found["difference"][:, 0], apart)


def small_cnn() -> nn.Module:
    torch.manual_seed(3)
    network = nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, 5, 2), nn.ReLU(), nn.Flatten(), nn.Linear(20, 3)
    )
    return network.eval()


@pytest.fixture(scope="module")
def random_case():
    """A random network and its own answers as labels, a quarter of them exchanged."""
    network, random = small_cnn(), np.random.default_rng(0)
    x = torch.as_tensor(random.normal(size=(60, 1, 5, 5)).astype(np.float32))
    with torch.no_grad():
        network[-1].bias -= network(x).mean(0)
        labels = network(x).argmax(1).numpy()
    labels[::4] = (labels[::4] + 1) % 3
    modes = tree_of(
        random.exponential(size=(60, 4)), random.random((4, 6)), labels.astype(str), "1"
    )
    return network, x, labels, modes


@pytest.mark.parametrize("style", ["ablate", "preserve"])
def test_equals_the_slow_second_form(random_case, style) -> None:
    network, x, labels, modes = random_case
    found = controlled(
        network, x, labels, modes, by="contribution modes", style=style, images_per_trial=99,
        percentages=(10, 40, 70), **FAST,
    ).sel(layer="1", style=style, selection="contribution modes")  # fmt: skip
    weights = modes["layers/1/modes/dictionary"].values[:, 1][found["mode"].values[:, 0]]
    counts = found["channels"].values
    assert counts.tolist() == [0, 1, 2, 4, 6]
    expected = curves(network, network[1], x, labels.tolist(), weights, counts, style, [0, 1, 2])
    for trial in range(4):  # all images: all trials are alike
        values = found["ratio"].isel(trial=trial).transpose("concept", "side", "percentage")
        np.testing.assert_allclose(values, expected)
    under = np.array([[area(counts / 6, side) for side in one] for one in expected])
    turn = 1 if style == "ablate" else -1
    np.testing.assert_allclose(found["concept_estimate"], turn * (under[:, 1] - under[:, 0]))
    np.testing.assert_allclose(found["estimate"], turn * (under[:, 1] - under[:, 0]).mean())
    assert 0 < found["original_accuracy"].values.min() < 1
    # an ablation of nothing and a preservation of all are the network itself
    end = 0.0 if style == "ablate" else 100.0
    np.testing.assert_allclose(found["ratio"].sel(percentage=end), 1)


def test_means_over_trials_are_those_of_the_trials(random_case) -> None:
    network, x, labels, modes = random_case
    found = controlled(
        network, x, labels, modes, by=["contribution modes", "random channels"],
        images_per_trial=5, off_classes=1, **FAST,
    )  # fmt: skip
    under = found["area"]
    gap = under.sel(side="off target") - under.sel(side="on target")
    turn = xr.DataArray([1, -1], coords={"style": ["ablate", "preserve"]})
    np.testing.assert_allclose(found["specificity"], (turn * gap).transpose(*gap.dims))
    one = found["specificity"].mean("concept")
    np.testing.assert_allclose(found["trial_mean"], one.mean("trial"))
    np.testing.assert_allclose(found["trial_sem"], one.std("trial", ddof=1) / 2)
    assert float(found["trial_sem"].min()) > 0
    again = controlled(
        network, x, labels, modes, by=["contribution modes", "random channels"],
        images_per_trial=5, off_classes=1, batch_size=7, **FAST,
    )  # fmt: skip
    xr.testing.assert_identical(found, again)
    other = controlled(
        network, x, labels, modes, by=["contribution modes", "random channels"],
        images_per_trial=5, off_classes=1, seed=1, **FAST,
    )  # fmt: skip
    assert not np.allclose(found["trial_mean"], other["trial_mean"])


def test_order_of_images_and_names_of_classes_do_not_matter(random_case) -> None:
    network, x, labels, modes = random_case
    options = FAST | {"by": "contribution modes", "images_per_trial": 99}
    found = controlled(network, x, labels, modes, **options)
    order = np.random.default_rng(5).permutation(len(x))
    mixed = controlled(network, x[order], labels[order], modes, **options)
    np.testing.assert_allclose(found["ratio"], mixed["ratio"])
    named = np.array(["a", "b", "c"])[labels]
    text = controlled(
        network, x, named, modes, mode_labels=named, classes=["a", "b", "c"], **options
    )
    np.testing.assert_allclose(found["ratio"], text["ratio"])
    assert text["concept"].values.tolist() == ["a", "b", "c"]


def test_superclasses_are_means_over_their_classes(random_case) -> None:
    network, x, labels, _ = random_case
    random = np.random.default_rng(2)  # one mode, so that all concepts take the same channels
    modes = tree_of(random.random((60, 1)), random.random((1, 6)), labels.astype(str), "1")
    options = FAST | {"by": "contribution modes", "images_per_trial": 99}
    groups = {"0": "low", "1": "low", "2": "high"}
    found = controlled(network, x, labels, modes, superclasses=groups, **options)
    assert found.attrs["level"] == "superclass"
    assert found["concept"].values.tolist() == ["high", "low"]
    single = controlled(network, x, labels, modes, **options)
    on = single["ratio"].sel(side="on target")
    low = found["ratio"].sel(concept="low")
    np.testing.assert_allclose(
        low.sel(side="on target"), on.sel(concept=["0", "1"]).mean("concept")
    )
    np.testing.assert_allclose(low.sel(side="off target"), on.sel(concept="2"))


def test_intervals_over_one_image_of_a_class_are_not_known() -> None:
    network, x, number = planted(3, 2)
    labels = np.array([f"c{n}" for n in number])
    modes = tree_of(np.eye(3)[number], np.repeat(np.eye(3), 2, 1), labels)
    few = np.arange(9)  # four, four and one image
    options = FAST | {"by": ("contribution modes", "random channels")}
    with pytest.warns(RecordingWarning, match="1 of 3 classes has a single image"):
        found = controlled(network, x[few], labels[few], modes, mode_labels=labels, **options)
    for name in ("estimate_interval", "concept_interval", "difference_interval", "p_value"):
        assert found[name].isnull().all(), name
    assert found["estimate"].notnull().all()
    rc.figures.plot_control(found)
    whole = controlled(network, x, labels, modes, **options)
    assert whole["estimate_interval"].notnull().all()


def test_no_right_answer_is_nan_and_counted(random_case) -> None:
    network, x, labels, modes = random_case
    with torch.no_grad():
        wrong = np.where(labels == 2, network(x).argmax(1).numpy() == 2, False)
    kept = ~wrong  # no image of class 2 is answered rightly
    found = controlled(network, x[kept], labels[kept], modes, images_per_trial=99,
                           by="contribution modes", **FAST)  # fmt: skip
    assert found["undefined_trials"].values.tolist() == [0, 0, 4]
    on = found["ratio"].sel(side="on target")
    assert np.isnan(on.sel(concept="2")).all()
    assert np.isfinite(on.sel(concept=["0", "1"])).all()
    mean = found["concept_estimate"].sel(concept=["0", "1"]).mean("concept")
    np.testing.assert_allclose(found["estimate"], mean)


def test_heads_are_taken_whole() -> None:
    network, x, labels = planted(2, 4)
    modes = planted_tree(network, 2, 4)
    modes["layers/hidden/modes/dictionary"].values[:, 1] *= [1, 2, 3, 4, 4, 3, 2, 1]
    options = FAST | {"by": "contribution modes", "style": "ablate"}
    found = controlled(network, x, labels, modes, heads=4, percentages=[25, 50, 75], **options)
    assert found["channels"].values[0].tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(found["estimate"], 0.5)  # on: 1 0 0 0 0, off: 1 1 1 0 0
    same = modes.copy(deep=True)
    heads = modes["layers/hidden/modes"].to_dataset().coarsen(channel=2).sum()
    same["layers/hidden/modes"] = xr.DataTree(heads)
    again = controlled(network, x, labels, same, percentages=[25, 50, 75], **options | {
        "heads": {"hidden": 4}})  # fmt: skip
    np.testing.assert_allclose(again["ratio"], found["ratio"])


def test_from_contributions_to_control() -> None:
    """The whole road, activation modes made on the way as contribution modes were."""
    network, x, labels = planted(3, 3, each=12)
    images = xr.DataArray(
        x.numpy() * np.random.default_rng(0).uniform(0.9, 1.0, (36, 1)),
        dims=("sample", "y"),
        coords={"label": ("sample", np.array(network.classes)[labels])},
    )
    tree = rc.contribute(
        adapt(network),
        images,
        target=rc.targets.TopK(1),
        method=rc.methods.IntegratedGradients(2),
        progress=False,
    )
    tree = rc.decompose(tree, rc.modes.NMF(modes=3), signs="excitatory", gap=0, progress=False)
    coded = np.array(network.classes)[labels]
    found = controlled(network, images, None, tree, mode_labels=coded, held_at=0.0, **FAST)
    assert found["resumed"].values.all()
    modes = found.sel(selection="contribution modes", layer="hidden")
    np.testing.assert_array_less(0.2, modes["estimate"])
    active = found["correlation"].sel(selection="activation modes")
    assert np.isfinite(active).all()
    assert np.isnan(found["correlation"].sel(selection="random channels")).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"by": "chance"}, "by must be among 'contribution modes'"),
        ({"style": ["ablate", "ablate"]}, "each once"),
        ({"percentages": (0, 50)}, "percentages must lie between 0 and 100"),
        ({"trials": 1}, "trials must be at least 2"),
        ({"sign": "positive"}, "sign must be one of excitatory, inhibitory, net"),
        ({"layers": ["9"]}, r"of \['9'\]; they hold modes of \['1'\]"),
        ({"labels": np.zeros(5, int)}, r"one label per image, \(60,\)"),
        ({"labels": None}, "Give labels="),
        ({"labels": np.full(60, "x")}, "labels must be numbers of outputs"),
        ({"labels": np.full(60, 1)}, "'1' holds all 1 classes"),
        (
            {"labels": np.arange(60) % 7, "by": "random channels"},
            r"labels name output 6, .* the network has 3 outputs",
        ),
        ({"classes": ["a", "b"]}, r"must lie in 0..1, the outputs; got 0 to 2"),
        ({"concepts": ["7"]}, r"must name classes of the images; got \['7'\]"),
        ({"off_classes": 3}, "off_classes must be between 1 and 2"),
        ({"modes_per_concept": 9}, "at most the 4 modes of layer '1'; got 9"),
        ({"mode_labels": np.full(60, "0")}, r"they hold none of \['1', '2'\]"),
        ({"heads": 4}, "4 heads cannot share the 6 channels"),
    ],
)
def test_bad_input_is_named(random_case, change, message) -> None:
    network, x, labels, modes = random_case
    given = {"labels": labels, "by": "contribution modes"} | FAST | change
    given["labels"] = change.get("labels", labels) if "labels" in change else labels
    with pytest.raises(RetinaCodecError, match=message):
        controlled(network, x, modes=modes, **given)
