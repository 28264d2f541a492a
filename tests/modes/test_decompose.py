from dataclasses import dataclass

import numpy as np
import pytest
import torch
import xarray as xr

from retina_codec import RetinaCodecError
from retina_codec.modes.base import Decomposition, Fitted
from retina_codec.modes.decompose import decompose
from retina_codec.modes.decompositions.gated import GatedAutoencoder
from retina_codec.modes.decompositions.sparse_autoencoder import SparseAutoencoder
from tests.reference.modes import explained_variance, planted_modes

LAYERS = ("conv1", "conv2")
SMALL = SparseAutoencoder(modes=4, active=2, restarts=1, epochs=15, encoder_epochs=3)


def make_tree(contribution, dim="time"):
    layer = xr.Dataset(
        {"contribution": ((dim, "sign", "channel"), contribution, {"units": "nats"})},
        coords={
            dim: np.arange(len(contribution)) / 100,
            "sign": ["inhibitory", "excitatory"],
            "channel": np.arange(contribution.shape[2]) + 10,
        },
    )
    return xr.DataTree.from_dict({"/layers/conv1": layer, "/layers/conv2": 2 * layer})


@pytest.fixture(scope="module")
def planted():
    return planted_modes(0, samples=600, modes=4, active=0.3, noise=0.01)


@pytest.fixture(scope="module")
def tree(planted):
    return make_tree(planted[0].astype(np.float32))


@pytest.fixture(scope="module")
def result(tree):
    return decompose(tree, SMALL, progress=False)


def test_modes_and_loadings_come_back_in_their_units(planted, result):
    contribution, dictionary, loading = planted
    modes = result["layers/conv1/modes"].to_dataset()
    found = modes["dictionary"].values.reshape(len(modes["mode"]), -1)
    cosine = dictionary.reshape(4, -1) @ found.T
    match = cosine.argmax(1)
    assert sorted(match) == [0, 1, 2, 3]
    assert cosine.max(1).min() > 0.99
    few = (loading > 0).sum(1) <= SMALL.active
    error = modes["loading"].values[few][:, match] - loading[few]
    assert np.sqrt((error**2).mean()) < 0.05 * contribution.std()


@pytest.mark.parametrize("sign", ["inhibitory", "excitatory"])
def test_one_sign_alone_is_what_the_method_finds_in_it(tree, sign):
    modes = decompose(tree, SMALL, layers=["conv1"], signs=sign)["layers/conv1/modes"].to_dataset()
    assert modes.attrs["signs"] == sign
    other = modes["sign"].values != sign
    assert (modes["dictionary"].values[:, other] == 0).all()
    assert np.isnan(modes["r2_feature"].values[other]).all()
    values = tree["layers/conv1/contribution"].sel(sign=sign).values.astype(np.float64)
    values = -values if sign == "inhibitory" else values
    kept = values[modes["split"].values == "fit"]
    scale = kept.std()
    assert float(modes["scale"]) == pytest.approx(scale)
    features = torch.as_tensor((values / scale).astype(np.float32))
    fitted = SMALL.fit(features[: len(kept)], progress=False)
    expected = fitted.encode(features) @ fitted.dictionary
    found = modes["loading"].values @ np.abs(modes["dictionary"].sel(sign=sign).values)
    np.testing.assert_allclose(found, expected.numpy() * scale, rtol=1e-4, atol=1e-5 * scale)


def test_both_signs_named_are_both_signs(tree, result):
    named = decompose(tree, SMALL, layers=["conv1"], signs=["inhibitory", "excitatory"])
    xr.testing.assert_equal(
        named["layers/conv1/modes"].to_dataset(), result["layers/conv1/modes"].to_dataset()
    )


def test_signs_lengths_and_order(result):
    modes = result["layers/conv1/modes"].to_dataset()
    assert (modes["dictionary"].sel(sign="inhibitory") <= 0).all()
    assert (modes["dictionary"].sel(sign="excitatory") >= 0).all()
    length = np.sqrt((modes["dictionary"] ** 2).sum(("sign", "channel")))
    np.testing.assert_allclose(length, 1, rtol=1e-5)
    assert (modes["loading"] >= 0).all()
    fitted = modes["loading"].values[modes["split"].values == "fit"].sum(0)
    explained = fitted * abs(modes["dictionary"]).sum(("sign", "channel")).values
    assert (np.diff(explained) <= 0).all()
    assert modes["loading"].attrs["units"] == "nats"


def test_split_and_scale(tree, result):
    split = result["layers/conv1/modes/split"].values
    assert split.tolist() == ["fit"] * 410 + ["gap"] * 40 + ["held_out"] * 150
    values = tree["layers/conv1/contribution"].values.astype(float)
    scale = float(result["layers/conv1/modes/scale"])
    np.testing.assert_allclose(scale, values[:410].std())
    loading = result["layers/conv1/modes/loading"]
    assert loading.sizes["time"] == 600
    np.testing.assert_array_equal(
        result["layers/conv1/modes/active"].values, loading.values > 0.01 * scale
    )


def test_scores_are_those_of_the_stored_arrays(tree, result):
    modes = result["layers/conv1/modes"].to_dataset()
    values = tree["layers/conv1/contribution"].values.reshape(600, -1)
    rebuilt = modes["loading"].values @ modes["dictionary"].values.reshape(-1, 16)
    each, whole = explained_variance(values[450:].astype(float), rebuilt[450:])
    np.testing.assert_allclose(modes["r2"], whole, rtol=1e-5)
    np.testing.assert_allclose(modes["r2_feature"].values.ravel(), each, rtol=1e-4)
    np.testing.assert_allclose(
        modes["r2_fit"], explained_variance(values[:410].astype(float), rebuilt[:410])[1], rtol=1e-5
    )
    assert float(modes["r2"]) > 0.95


def test_unit_of_the_contributions_does_not_matter(result):
    one, two = (result[f"layers/{name}/modes"] for name in ("conv1", "conv2"))
    np.testing.assert_allclose(one["dictionary"], two["dictionary"], atol=1e-4)
    np.testing.assert_allclose(2 * one["loading"], two["loading"], atol=1e-3)


def test_what_was_held_out_has_no_say_in_the_modes(planted, result):
    contribution = planted[0].astype(np.float32)
    contribution[410:] = contribution[410:][::-1] * 3
    other = decompose(make_tree(contribution), SMALL, layers=["conv1"], progress=False)
    np.testing.assert_array_equal(
        other["layers/conv1/modes/dictionary"], result["layers/conv1/modes/dictionary"]
    )


def test_input_stays_and_seed_decides(tree, result):
    before = tree.copy(deep=True)
    again = decompose(tree, SMALL, progress=False)
    assert tree.identical(before)
    assert again.identical(result)


def test_result_survives_a_file(result, tmp_path):
    result.to_netcdf(tmp_path / "results.nc", engine="h5netcdf")
    with xr.open_datatree(tmp_path / "results.nc", engine="h5netcdf") as opened:
        assert opened.load().identical(result)
    attrs = result["layers/conv1/modes"].attrs
    assert attrs["method"] == "SparseAutoencoder"
    assert (attrs["seed"], attrs["modes"], attrs["held_out"], attrs["gap"]) == (0, 4, 0.25, 40)


def test_every_argument_counts(planted):
    contribution = planted[0].astype(np.float32)
    found = decompose(
        make_tree(contribution, dim="sample"), SMALL, layers=["conv2"], held_out=0.5, gap=7
    )
    assert "modes" not in found["layers/conv1"].children
    split = found["layers/conv2/modes/split"].values
    assert [(split == part).sum() for part in ("fit", "gap", "held_out")] == [293, 7, 300]
    assert found["layers/conv2/modes/loading"].dims == ("sample", "mode")


def test_dead_modes_are_dropped(tree):
    gates = GatedAutoencoder(modes=6, epochs=1, threshold=0.7, learning_rate=1e-3)

    class WithDeadModes(Decomposition, register=False):
        sign_consistent = True

        def fit(self, features, *, progress=None):
            fitted = gates.fit(features, progress=progress)
            with torch.no_grad():
                fitted.network.encoder[-2].weight[1:3] = -fitted.network.encoder[-2].weight[0]
                fitted.network.encoder[-2].weight[0] *= 0  # a gate of 1/2, below the threshold
            return fitted

    modes = decompose(tree, WithDeadModes(), layers=["conv1"])["layers/conv1/modes"]
    fitted = modes["loading"].values[modes["split"].values == "fit"]
    assert 1 <= modes.sizes["mode"] < 6
    assert (fitted.max(0) > 0.01 * float(modes["scale"])).all()
    assert int(modes["live_modes"]) == modes.sizes["mode"]


def test_free_signs(tree):
    free = SparseAutoencoder(
        modes=4, active=2, restarts=1, epochs=15, encoder_epochs=3, sign_consistent=False
    )
    modes = decompose(tree, free, layers=["conv1"])["layers/conv1/modes"]
    assert float(modes["r2"]) > 0.95
    assert modes.attrs["sign_consistent"] == 0


class FittedChannels(Fitted):
    """Every feature is a mode; nothing is said of an encoder."""

    def encode(self, features):
        return features.clamp(min=0)


@dataclass(frozen=True)
class Channels(Decomposition, register=False):
    sign_consistent = True

    def fit(self, features, *, progress=None):
        del progress
        return FittedChannels(dictionary=torch.eye(features.shape[1]))


def test_a_decomposition_needs_no_unpolished_encoder(tree):
    modes = decompose(tree, Channels(), layers=["conv1"])["layers/conv1/modes"]
    assert float(modes["r2_encoder"]) == float(modes["r2"])
    assert float(modes["r2"]) > 0.99
    assert modes.attrs["kept_epoch"] == 0


@pytest.mark.parametrize(
    ("fitted", "message"),
    [
        (lambda x: x, "must return a subclass of rc.modes.Fitted; got Tensor"),
        (
            lambda x: FittedChannels(dictionary=torch.eye(x.shape[1])[:, 1:]),
            r"dictionary \(mode, 16\).*got \(16, 15\)",
        ),
        (
            lambda x: FittedChannels(dictionary=torch.eye(x.shape[1])[1:]),
            r"loadings \(600, mode\); got \(15, 16\) and \(600, 16\)",
        ),
    ],
)
def test_what_fit_returns_is_checked(tree, fitted, message):
    class Wrong(Decomposition, register=False):
        sign_consistent = True

        def fit(self, features, *, progress=None):
            del progress
            return fitted(features)

    with pytest.raises(RetinaCodecError, match=message):
        decompose(tree, Wrong(), layers=["conv1"])


def spoiled(tree, change):
    tree = tree.copy(deep=True)
    change(tree["layers/conv2/contribution"].values)
    return tree


def put_nan(values):
    values[5, 0, 0] = np.nan


def put_zero(values):
    values[:] = 0


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (put_nan, {}, r"'conv2' must be finite; 1 of 600 samples are not, the first is number 5"),
        (put_zero, {}, "must vary in the fitted part"),
        (None, {"layers": ["conv7"]}, r"of \['conv7'\]; they hold .* of \['conv1', 'conv2'\]"),
        (None, {"held_out": 1.0}, "held_out must lie between 0 and 1"),
        (None, {"gap": 460}, "a smaller gap"),
        (None, {"signs": "positive"}, r"there are \['inhibitory', 'excitatory'\]"),
    ],
)
def test_bad_input_is_named(tree, change, options, message):
    tree = tree if change is None else spoiled(tree, change)
    with pytest.raises(RetinaCodecError, match=message):
        decompose(tree, SMALL, **{"layers": ["conv2"], **options})


def test_bad_trees_and_methods(tree):
    with pytest.raises(RetinaCodecError, match=r"run contribute\(\)"):
        decompose(xr.DataTree(), SMALL)
    with pytest.raises(RetinaCodecError, match=r"decomposition must be one of rc\.modes"):
        decompose(tree, "SparseAutoencoder")
    unsigned = xr.DataTree.from_dict(
        {"/layers/conv1": tree["layers/conv1"].to_dataset().sum("sign")}
    )
    with pytest.raises(RetinaCodecError, match=r"must hold contribution \(time, sign, channel\)"):
        decompose(unsigned, SMALL)


def test_what_spoke_of_the_old_modes_is_left_out(result):
    old = result.copy()
    of_layer = ("pathways", "own", "score")
    of_all = ("pathways", "receptive_fields", "hypotheses")
    for path in (*(f"layers/{name}/{node}" for name in LAYERS for node in of_layer), *of_all):
        old[path] = xr.DataTree(xr.Dataset(attrs={"k": 2}))
    again = decompose(old, SMALL, layers="conv1", progress=False)
    assert set(again["layers/conv1"].children) == {"modes"}
    assert set(again.children) == {"layers"}
    # the modes of the other layer are the same as before
    assert set(again["layers/conv2"].children) == {"modes", *of_layer}
    assert set(old["layers/conv1"].children) == {"modes", *of_layer}
    assert set(old.children) == {"layers", *of_all}
    xr.testing.assert_equal(
        again["layers/conv1/modes"].to_dataset(), result["layers/conv1/modes"].to_dataset()
    )
