"""The whole scorecard, on planted modes and on a network whose parts are known."""

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

import retina_codec as rc
from retina_codec.modes.decompose import decompose
from retina_codec.modes.decompositions.linear import PCA
from retina_codec.modes.decompositions.nmf import NMF
from retina_codec.modes.decompositions.sparse_autoencoder import SparseAutoencoder
from retina_codec.modes.scores.refits import CONTROLS
from retina_codec.modes.scores.score import ScoreSettings, score_modes, score_table
from tests.modes.test_decompose import make_tree
from tests.reference.modes import explained_variance, planted_modes

METHOD = SparseAutoencoder(modes=6, active=2, restarts=1, epochs=12, encoder_epochs=2)


@pytest.fixture(scope="module")
def decomposed():
    contribution, _, _ = planted_modes(0, samples=800, modes=4, active=0.25, noise=0.01)
    return decompose(make_tree(contribution), METHOD, layers=["conv1"], progress=False)


@pytest.fixture(scope="module")
def scored(decomposed):
    return score_modes(decomposed, settings=ScoreSettings(limits=(1, 3)), seeds=3, progress=False)


def score_of(tree, layer="conv1"):
    return tree[f"layers/{layer}/score"].to_dataset()


def test_first_seed_is_the_result_itself(decomposed, scored):
    score, modes = score_of(scored), decomposed["layers/conv1/modes"]
    own = score.sel(limit=2, seed=0)
    for name in ("r2", "mean_active", "live_modes", "r2_feature"):
        np.testing.assert_allclose(own[name], modes[name])
    assert int(score["limit_own"]) == 2


def test_modes_of_one_sign_are_scored_on_that_sign():
    contribution, _, _ = planted_modes(0, samples=500, modes=4, active=0.25, noise=0.01)
    tree = decompose(make_tree(contribution), METHOD, layers=["conv1"], signs="excitatory")
    score = score_of(
        score_modes(tree, settings=ScoreSettings(limits=(2,)), seeds=2, progress=False)
    )
    own, modes = score.sel(limit=2, seed=0), tree["layers/conv1/modes"]
    np.testing.assert_allclose(own["r2"], modes["r2"])
    np.testing.assert_allclose(own["r2_feature"], modes["r2_feature"])
    assert np.isfinite(own["r2_feature"]).any("channel").values.tolist() == [False, True]


def test_more_modes_at_a_time_rebuild_more(scored):
    score = score_of(scored)
    assert score["limit"].values.tolist() == [1, 2, 3]
    assert (score["r2"].mean("seed").diff("limit") > 0).all()
    assert (score["mean_active"].mean("seed").diff("limit") > 0).all()
    assert (score["mean_active"] <= score["limit"]).all()
    assert score["r2_feature"].dims == ("limit", "seed", "sign", "channel")


def test_planted_modes_are_stable_and_chance_is_not(scored):
    score = score_of(scored)
    assert score.sizes["pair"] == 3
    assert float(score["mode_match"].min()) > 0.95
    assert float(score["loading_match"].min()) > 0.95
    assert float(score["mode_match_null"].max()) < 0.8
    assert float(score["loading_match_null"].max()) < 0.3
    assert list(zip(score["first_seed"].values, score["second_seed"].values, strict=True)) == [
        (0, 1),
        (0, 2),
        (1, 2),
    ]


def test_baselines_are_worse_and_equally_sparse(scored):
    score = score_of(scored)
    assert tuple(score["baseline"].values) == CONTROLS
    r2 = score["baseline_r2"].mean("seed")
    for name in ("raw channels", "frozen decoder", "frozen encoder", "PCA"):
        assert float(r2.sel(baseline=name)) < float(r2.sel(baseline="modes"))
    assert (score["baseline_active"].sel(baseline=list(CONTROLS[1:6])) <= 2).all()
    np.testing.assert_allclose(score["baseline_r2"].sel(baseline="modes"), score["r2"].sel(limit=2))


def test_a_baseline_is_what_decompose_gives(decomposed, scored):
    live = int(score_of(scored)["live_modes"].sel(limit=2, seed=1))
    nmf = decompose(decomposed, NMF(modes=live, active=2, seed=1), layers="conv1", progress=False)
    found = score_of(scored)["baseline_r2"].sel(baseline="NMF", seed=1)
    modes = nmf["layers/conv1/modes"]
    np.testing.assert_allclose(found, modes["r2"])
    values = decomposed["layers/conv1/contribution"].values.reshape(800, -1)[-200:]
    rebuilt = modes["loading"].values[-200:] @ modes["dictionary"].values.reshape(live, -1)
    np.testing.assert_allclose(found, explained_variance(values, rebuilt)[1], rtol=1e-5)


def test_table_and_file(scored, tmp_path):
    table = score_table(scored)
    score = score_of(scored)
    frame = table.to_dataframe()
    assert list(frame.index) == ["conv1"]
    np.testing.assert_allclose(frame.loc["conv1", "r2"], score["r2"].sel(limit=2).mean())
    np.testing.assert_allclose(frame.loc["conv1", "r2_sd"], score["r2"].sel(limit=2).std(ddof=1))
    np.testing.assert_allclose(
        frame.loc["conv1", "r2_frozen_decoder"],
        score["baseline_r2"].sel(baseline="frozen decoder").mean(),
    )
    r2 = score["baseline_r2"].transpose("seed", "baseline").values
    above = [row[CONTROLS.index("modes")] - row[CONTROLS.index("shuffled data")] for row in r2]
    np.testing.assert_allclose(frame.loc["conv1", "r2_above_shuffled"], np.mean(above))
    np.testing.assert_allclose(frame.loc["conv1", "r2_above_shuffled_sd"], np.std(above, ddof=1))
    rc.save_tree(scored, tmp_path / "scores.nc")
    back = rc.open_tree(tmp_path / "scores.nc", lazy=False)
    xr.testing.assert_equal(score_table(back), table)


def test_a_decomposition_without_a_start_is_not_called_stable():
    tree = make_tree(planted_modes(1, samples=300, modes=4)[0])
    tree = decompose(tree, PCA(modes=4), layers="conv1", progress=False)
    score = score_of(score_modes(tree, seeds=2, progress=False))
    assert np.isnan(score["mode_match"]).all()
    assert score["limit"].values.tolist() == [0]
    assert float(score["r2"].std()) == 0


class Cells(nn.Module):
    """Two groups of channels, each with a cell of its own."""

    def __init__(self):
        super().__init__()
        self.layer, self.last = nn.Linear(4, 6), nn.Linear(6, 2)
        with torch.no_grad():
            self.layer.weight.copy_(torch.tensor([[2.0, 0, 0, 0]] * 3 + [[0, 2.0, 0, 0]] * 3))
            self.layer.bias.zero_()
            self.last.weight.copy_(torch.tensor([[1.0, 2, 1, 0, 0, 0], [0, 0, 0, 2, 1, 1]]))

    def forward(self, x):
        return torch.nn.functional.softplus(self.last(torch.relu(self.layer(x))))


@pytest.fixture(scope="module")
def explained():
    torch.manual_seed(0)
    generator = np.random.default_rng(0)
    values = generator.normal(size=(600, 4)) * (generator.random((600, 4)) < 0.3)
    inputs = torch.tensor(values, dtype=torch.float32)
    network = Cells()
    target = rc.targets.Sum()
    tree = rc.contribute(
        network,
        inputs,
        target=target,
        layers=["layer"],
        method=rc.methods.IntegratedGradients(steps=5),
        progress=False,
    )
    return network, inputs, decompose(tree, METHOD, progress=False)


@pytest.fixture(scope="module")
def asked(explained):
    network, inputs, tree = explained
    return score_modes(
        tree,
        network=network,
        inputs=inputs,
        target=rc.targets.Sum(),
        settings=ScoreSettings(limits=(2,), times=8),
        seeds=2,
        progress=False,
    )


def test_silencing_finds_the_channels_of_a_mode(asked, explained):
    score = score_of(asked, "layer")
    dictionary = explained[2]["layers/layer/modes/dictionary"].sum("sign").values
    groups = {tuple((weights > 0.1 * weights.max()).tolist()) for weights in dictionary[:2]}
    assert groups == {(True,) * 3 + (False,) * 3, (False,) * 3 + (True,) * 3}
    for mode in (0, 1):
        one = score.sel(mode=mode)
        assert one["insertion"].values[0] == pytest.approx(0, abs=1e-6)
        assert one["insertion"].values[-1] == pytest.approx(1, abs=1e-6)
        assert one["insertion"].values[3] > 0.8  # its three channels are nearly all
        assert one["deletion"].values[3] < 0.2
        assert float(one["insertion_gain"]) > 0.1
        assert float(one["insertion_gain_interval"].sel(bound="low")) > 0
        assert float(one["deletion_gain_interval"].sel(bound="low")) > 0
        assert float(one["effect"]) > 0.8
        assert float(one["effect"]) > float(one["effect_control"])
        low, high = one["effect_interval"].values
        assert low <= float(one["effect"]) <= high


def test_the_network_of_noise_is_another(asked):
    score = score_of(asked, "layer")
    assert float(score["noise_match"]) < 0.95
    assert 0 < float(score["noise_active"]) <= 2
    assert "noise_r2" in score_table(asked)


def test_the_network_is_left_as_it_was(explained, asked):
    network, _, _ = explained
    del asked
    assert not network.layer._forward_hooks
    assert network.training
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert torch.equal(network.layer.weight, Cells().layer.weight)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": 1}, "at least 2 seeds"),
        ({"layers": ["conv9"]}, r"of \['conv9'\]; they hold modes of \['conv1'\]"),
        ({"network": nn.Linear(1, 1)}, "give both"),
    ],
)
def test_bad_input_is_named(decomposed, options, message):
    with pytest.raises(rc.RetinaCodecError, match=message):
        score_modes(decomposed, **options)


@pytest.mark.parametrize("settings", [{"limits": (0,)}, {"leading": 0}, {"times": 2}])
def test_bad_settings_are_named(settings):
    with pytest.raises(rc.RetinaCodecError, match="limits must be >= 1, leading >= 1"):
        ScoreSettings(**settings)


def test_other_inputs_and_missing_targets_are_refused(explained):
    network, inputs, tree = explained
    options = {"settings": ScoreSettings(limits=(2,)), "seeds": 2, "progress": False}
    with pytest.raises(rc.RetinaCodecError, match="target must be given"):
        score_modes(tree, network=network, inputs=inputs, **options)
    with pytest.raises(rc.RetinaCodecError, match="got 500, the results hold 600"):
        score_modes(tree, network=network, inputs=inputs[:500], target=rc.targets.Sum(), **options)
    with pytest.raises(rc.RetinaCodecError, match=r"run score_modes\(\)"):
        score_table(tree)
