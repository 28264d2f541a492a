"""The shipped network of digit scenes: what the paper found in ResNet-50, in small."""

from pathlib import Path

import numpy as np
import pytest
import torch

from retina_codec.analysis.concepts.correlate import activation_tree, correlate_concepts
from retina_codec.analysis.concepts.table import concept_table
from retina_codec.analysis.gallery.gallery import mode_gallery
from retina_codec.analysis.layers.statistics import measure_contributions
from retina_codec.contributions.contribute import contribute
from retina_codec.images.digits import digit_scenes
from retina_codec.methods.integrated_gradients import IntegratedGradients
from retina_codec.modes.decompose import decompose
from retina_codec.modes.decompositions.nmf import NMF
from retina_codec.networks.checkpoints import load_network
from retina_codec.targets.classification import TopK

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[3]
FOLDER = "digits_cnn"
LAYERS = ["stage1.0", "stage3.1", "stage4.0"]


@pytest.fixture(scope="module")
def parts():
    network = load_network(FOLDER).eval()
    scenes = digit_scenes("test", count=300, seed=1)
    method = IntegratedGradients(5, baseline=network.grey)
    tree = contribute(
        network, scenes["image"], target=TopK(1), method=method, layers=LAYERS, progress=False
    )
    modes = decompose(tree, NMF(modes=24), signs="excitatory", gap=0, progress=False)
    return network, scenes, modes


def test_contributions_are_sparser_than_activations(parts):
    found = measure_contributions(parts[2], bootstraps=200)
    gap = found["difference_interval"].sel(quantity="contribution", bound="low")
    assert (gap > 0.05).all()
    assert (found["q_value"].sel(quantity="contribution") < 0.01).all()


def test_signs_decorrelate_and_directions_grow_with_depth(parts):
    found = measure_contributions(parts[2], bootstraps=200)
    first, last = found.sel(layer="stage1.0"), found.sel(layer="stage4.0")
    assert float(first["sign_correlation_interval"].sel(bound="low")) > 0.2
    assert float(last["sign_correlation_interval"].sel(bound="high")) < 0.1
    ratio = found["participation_ratio"].sel(quantity="contribution").values
    assert (ratio[1:] > ratio[0] + 1).all()


def test_modes_tell_classes_better_than_channels_and_chance(parts):
    _, scenes, modes = parts
    active = decompose(
        activation_tree(modes), NMF(modes=24), signs="excitatory", gap=0, progress=False
    )
    table = concept_table(scenes["label"])
    found = correlate_concepts(
        modes, table, activation_modes=active, permutations=40, progress=False
    )["summary"].to_dataset().sel(level="class")  # fmt: skip
    r = found["concept_correlation"].sel(layer="stage3.1")
    assert float(r.sel(kind="modes")) > float(r.sel(kind="contributions"))
    assert float(r.sel(kind="contributions")) > float(r.sel(kind="activations")) + 0.05
    assert float(r.sel(kind="modes")) > float(r.sel(kind="activation_modes")) + 0.05
    assert (found["concept_correlation_p"].sel(kind="modes") < 0.05).all()


def test_maps_of_a_mode_of_a_digit_lie_on_the_digit(parts):
    """More of the positive map than of the area lies in the square that holds the digit."""
    network, scenes, modes = parts
    found = correlate_concepts(modes, of="modes", layers="stage4.0", permutations=5, progress=False)
    mode = int(found["layers/stage4.0/modes/best_feature"].sel(concept="8"))
    mean = torch.tensor(scenes["image"].values.mean((0, 2, 3)))[:, None, None].expand(3, 32, 32)
    gallery = mode_gallery(
        network, scenes["image"], modes, "stage4.0", mode, classes=["8"], per_class=12,
        method=IntegratedGradients(10, baseline=mean), progress=False,
    )  # fmt: skip
    on, area = [], []
    for rank in range(12):
        one = scenes.isel(sample=int(gallery["position"][0, rank]))
        half = float(one["digit_size"]) / 2
        y, x = (
            np.abs(np.arange(32) - float(one["digit_y"])),
            np.abs(np.arange(32) - float(one["digit_x"])),
        )
        inside = (y[:, None] <= half) & (x <= half)
        used = gallery["map"][0, rank].mean("color").values.clip(min=0)
        on.append(used[inside].sum() / used.sum())
        area.append(inside.mean())
    gain = np.array(on) - np.array(area)
    assert gain.mean() > 2 * gain.std(ddof=1) / np.sqrt(12)
