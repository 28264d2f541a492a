"""The order of channels and images, from images that are not shown; pairs of signs."""

import numpy as np
import pytest
import xarray as xr

import retina_codec as rc
from retina_codec.analysis.layers.matrix import channel_matrix, sign_pairs


def made_tree(inputs=40, channels=6, classes=3):
    """Channel c serves class c % classes, the later the less; labels are mixed."""
    random = np.random.default_rng(0)
    label = random.permutation([f"k{number % classes}" for number in range(inputs)])
    size = 0.1 * np.abs(random.normal(size=(inputs, 2, channels)))
    for channel in range(channels):
        size[label == f"k{channel % classes}", 1, channel] += 3.0 - 0.2 * channel
    layer = xr.Dataset(
        {
            "contribution": (("sample", "sign", "channel"), size * [[-1], [1]], {"units": "nats"}),
            "activation": (("sample", "channel"), size.sum(1)),
        },
        coords={
            "sign": ["inhibitory", "excitatory"],
            "channel": np.arange(channels) + 10,
            "label": ("sample", label),
        },
    )
    return xr.DataTree.from_dict({"/layers/a": layer})


def test_images_stand_by_class_and_channels_by_best_class():
    tree = made_tree()
    found = channel_matrix(tree, "a")
    assert found["channel"].values.tolist() == [10, 13, 11, 14, 12, 15]
    assert found["best"].values.tolist() == ["k0", "k0", "k1", "k1", "k2", "k2"]
    assert found["label"].values.tolist() == sorted(found["label"].values.tolist())
    net = tree["layers/a"]["contribution"].sum("sign")
    for place, sample in enumerate(found["sample"].values):
        own = net.isel(sample=sample).sel(channel=found["channel"])
        np.testing.assert_array_equal(found["contribution"].isel(image=place), own)
        assert found["label"].values[place] == tree["layers/a"]["label"].values[sample]
    assert found["contribution"].attrs["units"] == "nats"


def test_images_that_are_shown_do_not_order():
    tree = made_tree()
    found = channel_matrix(tree, "a")
    other = tree.copy(deep=True)
    other["layers/a"]["contribution"][{"sample": found["sample"].values}] *= -5.0
    again = channel_matrix(other, "a")
    assert again["channel"].values.tolist() == found["channel"].values.tolist()
    np.testing.assert_allclose(again["contribution"], -5 * found["contribution"])
    for name in ("k0", "k1", "k2"):  # half of every class, the smaller one
        count = (tree["layers/a"]["label"].values == name).sum()
        assert (found["label"].values == name).sum() == count // 2


def test_large_matrices_are_thinned_and_labels_are_needed():
    tree = made_tree()
    found = channel_matrix(tree, "a", images=6, channels=3)
    assert (found.sizes["image"], found.attrs["channels"]) == (6, 6)
    assert set(found["label"].values) == {"k0", "k1", "k2"}
    assert set(found["channel"].values) == {10, 11, 12}  # the largest
    bare = xr.DataTree.from_dict({"/layers/a": tree["layers/a"].to_dataset().drop_vars("label")})
    with pytest.raises(rc.RetinaCodecError, match="needs labels"):
        channel_matrix(bare, "a")
    with pytest.raises(rc.RetinaCodecError, match="two images"):
        channel_matrix(tree, "a", labels=[str(number) for number in range(40)])
    rare = channel_matrix(tree, "a", labels=["only"] + ["many"] * 39)
    assert set(rare["label"].values) == {"many"}


def test_pairs_are_values_of_the_tree_drawn_once():
    tree = made_tree()
    found = sign_pairs(tree, "a", count=100, seed=1)
    both = tree["layers/a"]["contribution"].transpose("sample", "sign", "channel").values
    places = list(zip(found["input"].values, found["channel"].values, strict=True))
    assert len(set(places)) == 100
    for number, (row, column) in enumerate(places):
        assert found["excitatory"][number] == both[row, 1, column]
        assert found["inhibitory"][number] == -both[row, 0, column]
    everything = sign_pairs(tree, "a", count=10**6)
    assert everything.sizes["pair"] == 240
    assert float(everything["excitatory"].sum()) == pytest.approx(both[:, 1].sum())
    xr.testing.assert_identical(found, sign_pairs(tree, "a", count=100, seed=1))
