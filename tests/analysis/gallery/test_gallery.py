"""Galleries: the right images in the right places, and maps that are those of the images."""

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

from retina_codec.analysis.gallery.gallery import (
    as_mask,
    mean_over_color,
    median_filtered,
    mode_gallery,
    overlay,
    scaled_to_one,
    top_images,
)
from retina_codec.analysis.gallery.maps import MapSettings, mode_maps
from retina_codec.errors import RetinaCodecError
from retina_codec.methods.gradients import InputGrad

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


def test_without_labels_the_top_images_are_of_all_samples():
    plain = tree()
    plain["layers/0"] = plain["layers/0"].to_dataset().drop_vars("label")
    plain["layers/0/modes"] = tree()["layers/0/modes"]
    found = top_images(plain, "0", 0, classes=2, per_class=2)
    assert found["concept"].values.tolist() == ["all"]
    np.testing.assert_array_equal(found["position"], [[3, 2, 6, 0]])
    with pytest.raises(RetinaCodecError, match="classes by name need labels"):
        top_images(plain, "0", 0, classes=["a"])


def test_classes_and_labels_can_be_given():
    found = top_images(tree(), "0", 0, classes=["c", "a"], per_class=1)
    np.testing.assert_array_equal(found["position"], [[4], [5]])
    other = top_images(tree(), "0", 0, labels=["x"] * 8, per_class=1)
    np.testing.assert_array_equal(other["position"], [[3]])


def test_gallery_holds_images_maps_and_overlays():
    few = MapSettings(top=2)
    found = mode_gallery(network(), images(), tree(), "0", 0, classes=3, per_class=2, settings=few)
    maps = mode_maps(network(), images(), tree(), "0", 0, settings=few)["map"]
    masked = overlay(images(), maps.drop_vars("sample"))
    for row, column, place in ((0, 1, 6), (1, 0, 5), (2, 0, 4)):
        here = found.isel(concept=row, rank=column)
        np.testing.assert_allclose(here["image"], images()[place], rtol=1e-6)
        np.testing.assert_allclose(here["map"], maps[place], rtol=1e-5, atol=1e-9)
        np.testing.assert_allclose(here["overlay"], masked["overlay"][place], rtol=1e-4, atol=1e-6)
    assert np.isnan(found["image"].isel(concept=2, rank=1)).all()
    assert found.attrs["contrast"] == 7


class Labelled(torch.utils.data.Dataset):
    """Images with a class each, as torchvision gives them."""

    def __init__(self, values):
        self.values = torch.from_numpy(values)

    def __len__(self):
        return len(self.values)

    def __getitem__(self, number):
        return self.values[number], 0


@pytest.mark.parametrize(
    "kind",
    [
        torch.from_numpy,
        np.asarray,
        Labelled,
        lambda values: torch.utils.data.DataLoader(Labelled(values), batch_size=3),
        lambda values: images().copy(data=values).rename("image").to_dataset(),
    ],
)
def test_every_kind_of_images_gives_the_same_gallery(kind):
    expected = mode_gallery(network(), images(), tree(), "0", 0, classes=3, per_class=2)
    found = mode_gallery(network(), kind(images().values), tree(), "0", 0, classes=3, per_class=2)
    xr.testing.assert_allclose(found, expected)
    assert found["image"].dims == ("concept", "rank", "color", "y", "x")


def test_images_by_name_and_of_several_sizes_are_refused():
    named = {"a": torch.rand(8, 3, 8, 8), "b": torch.rand(8, 3, 8, 8)}
    with pytest.raises(RetinaCodecError, match="one array of images"):
        mode_gallery(network(), named, tree(), "0", 0)
    several = [torch.rand(3, 8 + number, 8) for number in range(8)]

    class Several(Labelled):
        def __init__(self):
            self.values = several

    with pytest.raises(RetinaCodecError, match="one size"):
        mode_gallery(network(), Several(), tree(), "0", 0, method=InputGrad())


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


RANDOM = np.random.default_rng(0)


def maps(values):
    return xr.DataArray(np.asarray(values, float), dims=("sample", "y", "x"))


def test_median_equals_a_loop():
    values = RANDOM.normal(size=(2, 6, 7))
    found = median_filtered(maps(values), 4).values
    for k in range(2):
        wide = np.pad(values[k], 2, mode="symmetric")
        for y in range(6):
            for x in range(7):
                window = np.sort(wide[y : y + 4, x : x + 4].ravel())
                assert found[k, y, x] == window[8]  # the upper of the middle two


def test_size_one_changes_nothing():
    values = maps(RANDOM.normal(size=(1, 4, 4)))
    xr.testing.assert_identical(median_filtered(values, 1), values)


def test_largest_becomes_one_and_zero_stays():
    found = scaled_to_one(maps([[[0, 2], [-1, 4]], [[0, 0], [-1, 0]]]))
    np.testing.assert_allclose(found[0], [[0, 0.5], [-0.25, 1]])
    assert np.isnan(found[1]).all()  # nothing was used of it


def test_contrast_saturates_and_negative_is_dark():
    found = as_mask(maps([[[-0.5, 0, 1 / 14, 1 / 7, 1]]]), 7)
    np.testing.assert_allclose(found[0, 0], [0, 0, 0.5, 1, 1])


def test_color_is_averaged_and_nan_stays():
    values = xr.DataArray(np.ones((1, 3, 2, 2)), dims=("sample", "color", "y", "x"))
    values[0, 0, 0, 0], values[0, 1, 1, 1] = 7.0, np.nan
    found = mean_over_color(values)
    assert float(found[0, 0, 0]) == 3
    assert np.isnan(found[0, 1, 1])


def test_overlay_is_the_steps_in_order():
    images = xr.DataArray(RANDOM.random((3, 3, 8, 8)), dims=("sample", "color", "y", "x"))
    one = xr.DataArray(RANDOM.normal(size=(3, 3, 8, 8)), dims=images.dims)
    found = overlay(images, one, filter_size=3, contrast=5)
    mask = as_mask(scaled_to_one(median_filtered(mean_over_color(one), 3)), 5)
    np.testing.assert_allclose(found["mask"], mask)
    np.testing.assert_allclose(found["overlay"], images.values * mask.values[:, None])
    for options in ({"filter_size": 1, "contrast": 5}, {"filter_size": 3, "contrast": 2}):
        assert (overlay(images, one, **options)["mask"] != found["mask"]).any()


def test_size_of_the_map_and_other_images_do_not_matter():
    images = xr.DataArray(RANDOM.random((3, 8, 8)), dims=("sample", "y", "x"))
    one = maps(RANDOM.normal(size=(3, 8, 8)))
    found = overlay(images, one)
    scaled = overlay(images, one * xr.DataArray([1e-6, 1.0, 1e6], dims="sample"))
    xr.testing.assert_allclose(found, scaled)
    alone = overlay(images.isel(sample=[1]), one.isel(sample=[1]))
    np.testing.assert_allclose(alone["overlay"][0], found["overlay"][1])


def test_inputs_are_left_alone():
    images = xr.DataArray(RANDOM.random((2, 3, 8, 8)), dims=("sample", "color", "y", "x"))
    one = maps(RANDOM.normal(size=(2, 8, 8)))
    before = images.copy(deep=True), one.copy(deep=True)
    overlay(images, one)
    assert images.identical(before[0])
    assert one.identical(before[1])


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({}, {"filter_size": 0}, "filter_size must be at least 1"),
        ({}, {"contrast": 0.0}, "contrast positive"),
        ({"y": slice(4)}, {}, "same samples and size"),
        ({"sample": [0, 0]}, {}, "same samples and size"),
        ({"sample": 0}, {}, "must be"),
    ],
)
def test_mistakes_of_overlays_are_named(change, options, message):
    images = xr.DataArray(
        RANDOM.random((2, 8, 8)), dims=("sample", "y", "x"), coords={"sample": [4, 5]}
    )
    with pytest.raises(RetinaCodecError, match=message):
        overlay(images, images.isel(change), **options)
