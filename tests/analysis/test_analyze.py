"""The whole road: the same numbers as the steps by hand, and a record of what was done."""

import copy
import functools
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from retina_codec.analysis.analyze import AnalysisSettings, analyze
from retina_codec.analysis.comparison import compare_halves
from retina_codec.analysis.hypotheses.hypothesize import hypothesize
from retina_codec.analysis.hypotheses.kernels import separable_kernels
from retina_codec.analysis.pathways.own import own_contributions
from retina_codec.analysis.pathways.pathways import find_pathways
from retina_codec.contributions.contribute import contribute
from retina_codec.errors import RetinaCodecError
from retina_codec.methods.integrated_gradients import IntegratedGradients
from retina_codec.modes.decompose import decompose
from retina_codec.modes.decompositions.sparse_autoencoder import SparseAutoencoder
from retina_codec.modes.scores.score import ScoreSettings, score_modes
from retina_codec.networks.pictures.small_resnet import SmallResNet
from retina_codec.networks.retina.model import RetinaCNN
from retina_codec.storage.trees import open_tree, save_tree
from retina_codec.targets.surprisal import Surprisal
from tests.small import CELLS, HISTORY, small_network, small_recording

WINDOWS = 60
FEW = AnalysisSettings(
    steps=4, modes=6, active=2, clusters=range(2, 4), own_windows=WINDOWS, copies=1
)
PLAIN = replace(FEW, own_windows=0)
SETTINGS = {"settings": FEW, "hypotheses": False, "progress": False}


@pytest.fixture(scope="module")
def network():
    return small_network()


@pytest.fixture(scope="module")
def recording(network):
    return small_recording(network, bins=500)


@pytest.fixture(scope="module")
def results(recording, network):
    return analyze(recording, network, seed=3, provenance={"command": "by hand"}, **SETTINGS)


@pytest.fixture(scope="module")
def claimed(recording, network):
    return analyze(recording, network, seed=3, **(SETTINGS | {"hypotheses": True}))


def test_equals_the_steps_by_hand(results, recording, network):
    explained = contribute(
        network,
        recording["test"],
        target=Surprisal(),
        method=IntegratedGradients(steps=4, quadrature="chords"),
        progress=False,
    )
    found = decompose(explained, SparseAutoencoder(modes=6, active=2, seed=3), progress=False)
    found = own_contributions(
        network, recording["test"], found, windows=WINDOWS, seed=3, progress=False
    )
    found = find_pathways(found, clusters=range(2, 4), seed=3, progress=False)
    for layer in network.layers:
        for node in ("", "/modes", "/pathways"):
            xr.testing.assert_equal(
                results[f"layers/{layer}{node}"].to_dataset(inherit=False),
                found[f"layers/{layer}{node}"].to_dataset(inherit=False),
            )


def test_halves_are_those_by_hand(results):
    by_hand = compare_halves(
        results, layers=["conv1", "conv2"], clusters=range(2, 4), copies=1, seed=3, progress=False
    )
    xr.testing.assert_equal(results["halves"].to_dataset(inherit=False), by_hand)


def test_agreement_is_the_plain_correlation(results, recording):
    responses = results["responses"]
    recorded = recording["test/rate"].values[HISTORY:]
    predicted = responses["prediction"].values
    expected = [np.corrcoef(recorded[:, i], predicted[:, i])[0, 1] for i in range(len(CELLS))]
    np.testing.assert_allclose(responses["pearson"].values, expected, rtol=1e-4)
    # The network made the spikes: it predicts as well as the repeats allow, up to chance.
    ceiling = responses["noise_ceiling"].values
    assert np.all(ceiling > 0.5)
    np.testing.assert_allclose(responses["pearson"].values, ceiling, atol=0.08)


def test_result_says_what_was_done(results, recording, network):
    assert results.attrs["split"] == "test"
    assert results.attrs["session"] == "small"
    assert results.attrs["seed"] == 3
    assert results.attrs["command"] == "by hand"
    assert results.attrs["method"] == "IntegratedGradients"
    assert results.attrs["steps"] == 4
    changed = copy.deepcopy(network)
    with torch.no_grad():
        changed.conv2.bias[0] += 1e-3
    other = analyze(recording, changed, layers=["conv3"], **SETTINGS)
    assert results.attrs["network_sha256"] != other.attrs["network_sha256"]
    assert list(other["layers"].children) == ["conv3"]


def test_same_seed_same_result_and_inputs_untouched(results, recording, network):
    state = copy.deepcopy(network.state_dict())
    before = recording.copy(deep=True)
    again = analyze(recording, network, seed=3, provenance={"command": "by hand"}, **SETTINGS)
    xr.testing.assert_identical(again, results)
    xr.testing.assert_identical(recording, before)
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in state.items())


def test_seed_reaches_the_decomposition(results, recording, network):
    other = analyze(recording, network, seed=4, layers=["conv1"], **SETTINGS)
    a = results["layers/conv1/modes/dictionary"].values
    b = other["layers/conv1/modes/dictionary"].values
    assert a.shape != b.shape or not np.allclose(a, b)


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_saving_and_loading_changes_nothing(claimed, tmp_path, suffix):
    path = tmp_path / f"results{suffix}"
    save_tree(claimed, path)
    opened = open_tree(path, lazy=False)
    xr.testing.assert_identical(opened, claimed)


def test_hypotheses_are_those_by_hand(claimed, results, recording, network):
    by_hand = hypothesize(network, recording, claimed, claimed, seed=3, progress=False)
    xr.testing.assert_equal(claimed["hypotheses"].to_dataset(inherit=False), by_hand)
    assert {"hypothesis", "cell"} <= set(claimed["hypotheses"].dims)
    assert set(by_hand["interneuron"].values.tolist()) == {""}  # the recording has none
    kernels = separable_kernels(network, recording["test"])
    xr.testing.assert_equal(claimed["channels"].to_dataset(inherit=False), kernels)
    assert "no_hypotheses" not in claimed.attrs
    assert results.attrs["no_hypotheses"] == "they were not asked for"
    rest = claimed.filter(lambda node: node.path not in ("/hypotheses", "/channels"))
    xr.testing.assert_equal(rest, results)


def test_interneurons_of_the_recording_are_named(recording, network):
    movie = recording["test/stimulus"]
    with torch.no_grad():
        windows = torch.from_numpy(movie.values.astype("f4"))
        frames = (windows - network.normalisation.mean) / network.normalisation.std
        windows = frames.unfold(0, HISTORY, 1).movedim(-1, 1)[:-1]
        first = network.norm1(network.conv1(windows))[:, 2, 7, 7]
    potential = np.concatenate([np.zeros(HISTORY), first.numpy()])
    known = xr.Dataset(
        {"potential": (("time", "interneuron"), potential[:, None], {"units": "1"})},
        coords={
            "time": recording["test/time"].values,
            "interneuron": ["x"],
            "type": ("interneuron", ["twin"]),
        },
    )
    joined = recording.copy()
    joined["interneurons"] = xr.DataTree(known)
    settings = SETTINGS | {"hypotheses": True, "layers": ["conv1"], "settings": PLAIN}
    found = analyze(joined, network, **settings)["hypotheses"]
    named = found["interneuron"].values == "twin"
    assert named.any()
    best = found.isel(hypothesis=int(np.nanargmax(np.where(named, found["match"], np.nan))))
    assert "2" in str(best["channels"].values).split(", ")
    assert float(best["match"]) > 0.99


def test_what_has_no_hypotheses_says_why(recording, network, caplog):
    settings = SETTINGS | {"hypotheses": True, "layers": ["conv3"]}
    last = analyze(recording, network, **settings)
    assert "hypotheses" not in last.children
    assert last.attrs["no_hypotheses"] == "they need conv1 or conv2 among the layers explained"
    short = recording.isel(time=slice(0, HISTORY + 95), missing_dims="ignore")
    with caplog.at_level("WARNING", "retina_codec"):
        brief = analyze(short, network, **(settings | {"layers": ["conv1"], "settings": PLAIN}))
    assert "hypotheses" not in brief.children
    assert brief.attrs["no_hypotheses"] in caplog.text
    assert "receptive_fields" in brief.children


def test_scores_are_made_when_asked_for(recording, network, monkeypatch):
    quick = functools.partial(score_modes, seeds=2, settings=ScoreSettings(limits=(2,), times=3))
    monkeypatch.setattr("retina_codec.modes.scores.score.score_modes", quick)
    settings = SETTINGS | {"layers": ["conv1"], "settings": PLAIN, "scores": True}
    scored = analyze(recording, network, seed=3, **settings)
    expected = quick(scored, network=network, inputs=recording["test"], seed=3, progress=False)
    xr.testing.assert_equal(
        scored["layers/conv1/score"].to_dataset(inherit=False),
        expected["layers/conv1/score"].to_dataset(inherit=False),
    )
    assert "pathways" in scored["layers/conv1"].children
    compare_with_the_page("/layers/<name>/score", scored["layers/conv1/score"])


PAGE = Path(__file__).parents[2] / "docs" / "results.md"
ROW = re.compile(r"^\| `(\w+)` \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)
ONLY_SIMULATED = {"pearson_noise_free", "center_y", "center_x"}


def compare_with_the_page(heading, node):
    """docs/results.md names every variable of a node, with its dims and its unit."""
    text = PAGE.read_text(encoding="utf-8").partition(f"## `{heading}`\n")[2].partition("\n## ")[0]
    page = {name: (dims, unit) for name, dims, unit, _ in ROW.findall(text)}
    data = node.to_dataset(inherit=False)
    assert set(data.variables) <= set(page), heading
    assert set(page) - set(data.variables) <= ONLY_SIMULATED, heading
    for name, variable in data.variables.items():
        dims, unit = page[name]
        assert dims == (", ".join(variable.dims) or "–"), (heading, name)
        kinds = {"U": "text", "b": "true or false"}
        expected = kinds.get(variable.dtype.kind, variable.attrs.get("units", "1"))
        names = {"cell", "other_cell", "channel"}  # text here, numbers elsewhere
        assert unit == expected or name in names, (heading, name, unit, expected)


def test_every_variable_is_on_the_page_of_results(claimed):
    for node in claimed.subtree:
        parts = node.path.split("/")
        if node.has_data and "conv2" not in parts and "conv3" not in parts:
            compare_with_the_page(node.path.replace("conv1", "<name>"), node)


@pytest.fixture
def few(network, recording):
    """Networks and recordings of one and two cells."""

    def cut(count):
        config = network.config()
        every = ("cells", "locations", "cell_types")
        small = RetinaCNN.from_config(config | {name: config[name][:count] for name in every})
        last = ("conv3", "norm3", "readout")  # one row per cell
        state = network.state_dict().items()
        small.load_state_dict({k: v[:count] if k.startswith(last) else v for k, v in state})
        return small.eval(), recording.isel(cell=slice(0, count), missing_dims="ignore")

    return cut


@pytest.mark.parametrize("count", [1, 2])
def test_one_or_two_cells_have_everything_but_pathways(few, count, caplog):
    small, cells = few(count)
    with caplog.at_level("WARNING", "retina_codec"):
        found = analyze(cells, small, layers=["conv1"], **(SETTINGS | {"hypotheses": True}))
    noun = "1 cell" if count == 1 else "2 cells"
    assert found.attrs["no_pathways"] == f"they need 3 cells; there are {noun}"
    assert "no pathways" in caplog.text
    assert {"responses", "layers", "receptive_fields"} <= set(found.children)
    assert "own" in found["layers/conv1"].children
    assert "pathways" not in found["layers/conv1"].children
    assert "hypotheses" in found.children


def test_what_a_late_step_cannot_do_is_left_out_with_a_word(recording, network, monkeypatch):
    def fail(*_args, **_settings):
        raise RetinaCodecError("too few events; got 0. Give a longer recording.")

    monkeypatch.setattr("retina_codec.analysis.fields.fields.receptive_fields", fail)
    monkeypatch.setattr("retina_codec.modes.scores.score.score_modes", fail)
    settings = SETTINGS | {"layers": ["conv1"], "settings": PLAIN, "scores": True}
    seen = []
    found = analyze(
        recording,
        network,
        keep=lambda tree, step: seen.append((step, dict(tree.attrs))),
        **settings,
    )
    assert found.attrs["no_receptive_fields"].startswith("too few events")
    assert found.attrs["no_scores"].startswith("too few events")
    assert "pathways" in found["layers/conv1"].children
    (first, before), (step, attrs) = seen
    assert (first, step) == ("halves", "scores")
    assert before["no_halves"] == before["no_scores"] == "they were not computed"
    assert "no_halves" not in attrs
    assert attrs["no_scores"] == attrs["no_hypotheses"] == "they were not computed"
    assert attrs["session"] == "small"


def test_receptive_fields_come_from_the_explained_split(results):
    fields = results["receptive_fields"]
    times = results["responses/time"].values
    assert np.isin(fields["time"].values, times).all()
    assert list(fields["cell"].values) == list(CELLS)


def test_fitted_and_held_out_share_no_frame(recording):
    network = RetinaCNN.from_config(small_network().config() | {"history": 60})
    with torch.no_grad():
        network.norm3.scale.fill_(40.0)
    settings = SETTINGS | {"settings": replace(FEW, shrinkage="ledoit-wolf")}
    results = analyze(recording, network, layers=["conv1"], **settings)
    modes = results["layers/conv1/modes"]
    last = modes["time"].values[modes["split"].values == "fit"].max()
    first = modes["time"].values[modes["split"].values == "held_out"].min()
    assert first - last > (network.history - 0.5) / network.frame_rate


def test_too_few_cells_for_pathways_are_refused_before_the_long_work(recording, network):
    with pytest.raises(RetinaCodecError, match=r"got \[6, 7\] for 6 cells") as caught:
        analyze(recording, network, settings=AnalysisSettings(clusters=range(6, 8), steps=0))
    assert "steps" not in str(caught.value)


def test_unknown_split_names_the_splits(recording, network):
    with pytest.raises(RetinaCodecError, match=r"split='train'.*\['test'\]"):
        analyze(recording, network, split="train")


def test_a_network_without_cells_is_refused(recording):
    with pytest.raises(RetinaCodecError, match=r"must put out the rates of cells.*SmallResNet"):
        analyze(recording, SmallResNet())
