import numpy as np
import pytest
import xarray as xr

from retina_codec import figures
from retina_codec.figures.retina.fields import crop_around, has_parts, shown_parts
from tests.figures.checks import assert_readable, has_image, words_of


@pytest.fixture(scope="module")
def split(results):
    """Results whose fields are split at random among their active modes and a remainder."""
    fields = results["receptive_fields"].to_dataset()
    rng = np.random.default_rng(0)
    labels = fields["combination"].values.astype(str)
    modes = sorted({int(name) for label in labels for name in label.split("+")})
    active = np.array([[str(m) in label.split("+") for m in modes] for label in labels])
    weight = rng.random((len(labels), fields.sizes["cell"], len(modes))) * active[:, None]
    rest = rng.random(weight.shape[:2]) + 0.1
    total = weight.sum(-1) + rest
    weight, rest = weight / total[..., None], rest / total
    spatial = fields["spatial"].values
    fields = fields.assign_coords(mode=modes).assign(
        part=(("event", "cell", "mode", "y", "x"), weight[..., None, None] * spatial[:, :, None]),
        remainder=(("event", "cell", "y", "x"), rest[..., None, None] * spatial),
        part_share=(("event", "cell", "mode"), weight),
        remainder_share=(("event", "cell"), rest),
        identity_error=(("event", "cell"), np.full(rest.shape, 3e-7)),
    )
    tree = results.copy()
    tree["receptive_fields"] = xr.DataTree(fields)
    return tree


def test_every_tile_of_a_sum_is_drawn_with_its_share(split):
    fields = split["receptive_fields"].to_dataset()
    figure = figures.plot_fields(split)
    assert_readable(figure)
    words = words_of(figure)
    pairs = shown_parts(fields)
    assert len(pairs) >= 2
    for event, cell in pairs:
        one = fields.isel(event=event, cell=cell)
        window = crop_around(np.abs(fields["spatial"].values[:, cell]).mean(0))
        assert has_image(figure, one["remainder"].values[window])
        assert f"remainder  {float(one['remainder_share']):.0%}" in words
        for name in one["combination"].item().split("+"):
            mode = int(name)
            assert has_image(figure, one["part"].sel(mode=mode).values[window])
            assert f"mode {mode}  {float(one['part_share'].sel(mode=mode)):.0%}" in words
        assert f"cell {one['cell'].item()}\n{one['type'].item()}\n" in words
    assert words.count(" = ") >= len(pairs)
    assert "3e-07 of the field's largest value" in words


def test_tiles_of_a_row_share_one_scale(split):
    fields = split["receptive_fields"].to_dataset()
    figure = figures.plot_fields(split)
    for event, cell in shown_parts(fields):
        window = crop_around(np.abs(fields["spatial"].values[:, cell]).mean(0))
        tile = fields["remainder"].values[event, cell][window]
        (image,) = (
            image
            for axes in figure.findobj(lambda a: hasattr(a, "images"))
            for image in axes.images
            if np.array_equal(np.asarray(image.get_array()), tile)
        )
        largest = np.abs(fields["spatial"].values[event, cell][window]).max()
        assert image.get_clim() == pytest.approx((-largest, largest))


def test_pairs_are_of_several_combinations_and_responding(split):
    fields = split["receptive_fields"].to_dataset()
    pairs = shown_parts(fields)
    labels = [fields["combination"].values[event] for event, _ in pairs]
    assert len(set(labels)) == len(labels)
    counts = [len(label.split("+")) for label in labels]
    assert counts == sorted(counts, reverse=True)
    assert all(fields["responding"].values[event, cell] for event, cell in pairs)
    silent = fields.assign(responding=xr.zeros_like(fields["responding"]))
    assert not has_parts(silent)


def test_without_parts_there_is_no_panel(results, drawn):
    assert not has_parts(results["receptive_fields"].to_dataset())
    assert "remainder" not in words_of(drawn("plot_fields"))
