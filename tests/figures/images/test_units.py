"""Maps of single channels as a figure: the right maps in their places, sums and notes."""

import numpy as np
import pytest
import xarray as xr

from retina_codec.errors import RetinaCodecError
from retina_codec.figures.images.units import plot_units
from tests.figures.checks import assert_readable, has_image, words_of


def made_maps(signed=False, layers=("stage1.0", "stage4.1")):
    random = np.random.default_rng(0)
    nodes = {"/": xr.Dataset({"image": (("color", "y", "x"), random.random((3, 8, 8)))})}
    for place, name in enumerate(layers):
        net = random.normal(size=20)
        shown = np.argsort(-np.abs(net))[:4]
        maps = random.normal(size=(2, 4, 5, 5))
        activation = maps[0] if signed else np.abs(maps[0])
        nodes[f"/layers/{place}"] = xr.Dataset(
            {
                "net": ("channel", net),
                "activation": (("shown", "row", "column"), activation),
                "contribution": (("shown", "row", "column"), maps[1]),
                "target_change": ((), net.sum() + 1),
            },
            coords={"channel": np.arange(20), "shown": shown},
            attrs={"layer": name},
        )
    return xr.DataTree.from_dict(nodes)


def made_spatial(layers=("stage1.0", "stage4.1")):
    middle = np.random.default_rng(1).uniform(0.2, 0.8, (len(layers), 2, 2))
    dims = ("layer", "scope", "quantity")
    return xr.Dataset(
        {
            "sparsity_by_input": (("sample", *dims), np.stack([middle] * 7)),
            "sparsity": (dims, middle),
            "sparsity_interval": ((*dims, "bound"), np.stack([middle - 0.1, middle + 0.1], -1)),
        },
        coords={
            "layer": list(layers),
            "scope": ["places", "units"],
            "quantity": ["contribution", "activation"],
        },
    )


@pytest.mark.parametrize("signed", [False, True])
def test_every_map_and_its_numbers_are_shown(signed):
    maps = made_maps(signed)
    figure = plot_units(maps, made_spatial(), "image 3\nthe network says: owl")
    assert_readable(figure)
    words = words_of(figure)
    assert "the network says: owl" in words
    assert "7 images" in words
    for layer in maps["layers"].children.values():
        assert layer.attrs["layer"] in words
        for number, channel in enumerate(layer["shown"].values):
            for key in ("activation", "contribution"):
                assert has_image(figure, layer[key].values[number])
            assert f"channel {channel}" in words
            value = float(layer["net"][int(channel)])
            assert f"sum {value:+.2g}".replace("-", "−") in words
        total = float(layer["net"].sum())
        assert f"sum {total:.3g} of {total + 1:.3g}".replace("-", "−") in words


def test_bars_are_all_sums_in_order():
    maps = made_maps()
    figure = plot_units(maps, made_spatial())
    drawn = [sorted(p.get_height() for p in axes.patches) for axes in figure.axes if axes.patches]
    expected = [sorted(layer["net"].values) for layer in maps["layers"].children.values()]
    for one in expected:
        assert any(np.allclose(one, other[:20]) for other in drawn if len(other) >= 20)


def test_contributions_of_the_class_token_have_no_map():
    maps = made_maps(signed=True)
    maps["layers/1"]["contribution"][:] = 0.0
    figure = plot_units(maps, made_spatial())
    assert words_of(figure).count("class\ntoken") == 4


def test_long_names_of_layers_stay_on_the_page():
    names = ("resnet.encoder.stages.0.layers.11", "vit.encoder.layer.3")
    figure = plot_units(made_maps(layers=names), made_spatial(names))
    assert_readable(figure)
    assert "stages.0\nlayers.11" in words_of(figure)
    assert "vit.encoder\nlayer.3" in words_of(figure)


def test_other_results_are_refused():
    with pytest.raises(RetinaCodecError, match="unit_maps"):
        plot_units(xr.DataTree(), made_spatial())
