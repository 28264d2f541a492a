"""Galleries: the right images in the right places, and maps that are those of the images."""

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

from retina_codec.analysis.gallery.gallery import mode_gallery, overlay, top_images
from retina_codec.analysis.gallery.maps import mode_maps
from retina_codec.errors import RetinaCodecError

LABELS = ["b", "a", "b", "", "c", "a", "b", "a"]
LOADING = np.array([3.0, 1.0, 5.0, 99.0, 0.5, 2.0, 4.0, 0.0])


def tree():
    dictionary = np.random.default_rng(0).random((1, 2, 4))
    modes = xr.Dataset(
        {
            "dictionary": (("mode", "sign", "channel"), dictionary),
            "loading": (("sample", "mode"), LOADING[:, None], {"units": "1"}),
        },
        coords={"mode": [0], "sign": ["inhibitory", "excitatory"]},
    )
    layer = xr.Dataset(coords={"label": ("sample", LABELS)})
    return xr.DataTree.from_dict({"/layers/0": layer, "/layers/0/modes": modes})


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)).double()


def images():
    random = np.random.default_rng(1)
    return xr.DataArray(random.random((8, 3, 8, 8)), dims=("sample", "color", "y", "x"))


def test_top_images_by_hand():
    found = top_images(tree(), "0", 0, classes=3, per_class=2)
    assert found["concept"].values.tolist() == ["b", "a", "c"]  # mean loadings 4, 1, 0.5
    np.testing.assert_allclose(found["mean_loading"], [4, 1, 0.5])
    np.testing.assert_array_equal(found["position"], [[2, 6], [5, 1], [4, -1]])
    np.testing.assert_array_equal(found["loading"], [[5, 4], [2, 1], [0.5, np.nan]])


def test_classes_and_labels_can_be_given():
    found = top_images(tree(), "0", 0, classes=["c", "a"], per_class=1)
    np.testing.assert_array_equal(found["position"], [[4], [5]])
    other = top_images(tree(), "0", 0, labels=["x"] * 8, per_class=1)
    np.testing.assert_array_equal(other["position"], [[3]])


def test_gallery_holds_images_maps_and_overlays():
    found = mode_gallery(network(), images(), tree(), "0", 0, classes=3, per_class=2, top=2)
    maps = mode_maps(network(), images(), tree(), "0", 0, top=2)["map"]
    masked = overlay(images(), maps.drop_vars("sample"))
    for row, column, place in ((0, 1, 6), (1, 0, 5), (2, 0, 4)):
        here = found.isel(concept=row, rank=column)
        np.testing.assert_allclose(here["image"], images()[place], rtol=1e-6)
        np.testing.assert_allclose(here["map"], maps[place], rtol=1e-5, atol=1e-9)
        np.testing.assert_allclose(here["overlay"], masked["overlay"][place], rtol=1e-4, atol=1e-6)
    assert np.isnan(found["image"].isel(concept=2, rank=1)).all()
    assert found.attrs["contrast"] == 7


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": ["z"]}, "got 'z'"),
        ({"labels": ["a"]}, "one label per input"),
    ],
)
def test_mistakes_are_named(options, message):
    with pytest.raises(RetinaCodecError, match=message):
        top_images(tree(), "0", 0, **options)


def test_other_images_are_refused():
    with pytest.raises(RetinaCodecError, match="8 of them"):
        mode_gallery(network(), images()[:5], tree(), "0", 0)
