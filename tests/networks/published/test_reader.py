"""Published checkpoints: every layout equals a slow second implementation of its formulas."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

import retina_codec as rc
from retina_codec.networks.published.layers import LayeredNetwork
from retina_codec.networks.published.reader import grab_locations, read_published
from retina_codec.networks.retina.prediction import check_match, open_windows
from retina_codec.recordings.maheswaranathan_2023.constants import PUBLISHED_CENTERS as TABLE
from retina_codec.storage.trees import sha256_of
from tests.networks.published_files import (
    CENTERS,
    KERNELS,
    arrays,
    small_checkpoint,
    small_state,
    write,
)
from tests.reference.published_networks import LAYOUTS, collapse, forward, locations

DATA = Path(__file__).resolve().parents[2] / "data" / "checkpoints"
AS_RETINA_CNN = {
    "published": True,
    "no dropout": True,
    "plain": False,
    "last layer stacked": False,
    "last kernel of another size": False,
    "wide stack": False,
}  # and whether its stacks are kept


def places(layout):
    sizes = LAYOUTS[layout][1].get("ksizes", KERNELS)
    return locations(CENTERS.tolist(), sizes, 14 - sum(sizes) + 3)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_equals_its_formulas(layout, tmp_path):
    checkpoint = small_checkpoint(layout)
    network = rc.load_network(write(checkpoint, tmp_path / "net.pt"))
    windows = torch.randn(3, 4, 14, 14, generator=torch.Generator().manual_seed(1))
    expected = [
        forward(window, arrays(checkpoint), LAYOUTS[layout][3], places(layout))
        for window in windows.double().numpy()
    ]
    with torch.no_grad():
        found = network(windows)
        plain = network.collapse()(windows)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(plain, expected, rtol=1e-5, atol=1e-5)
    assert found.std() > 1e-3  # the rates do depend on the window
    assert not network.training
    assert isinstance(network, rc.networks.RetinaCNN) == (layout in AS_RETINA_CNN)
    if layout in AS_RETINA_CNN:
        assert network.stacked == AS_RETINA_CNN[layout]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_was_loaded_is_saved_and_loaded_again(layout, tmp_path):
    network = rc.load_network(write(small_checkpoint(layout), tmp_path / "net.pt", legacy=True))
    before = {key: value.clone() for key, value in network.state_dict().items()}
    rc.save_network(network, tmp_path / "ours")
    again = rc.load_network(tmp_path / "ours")
    windows = torch.randn(2, 4, 14, 14)
    torch.testing.assert_close(again(windows), network(windows), rtol=0, atol=0)
    assert again.config() == network.config()
    assert again.training_record == network.training_record
    assert (again.layers, again.cells) == (network.layers, network.cells)
    torch.testing.assert_close(network.state_dict(), before, rtol=0, atol=0)


def test_what_the_file_says_is_kept(tmp_path):
    path = write(small_checkpoint(), tmp_path / "15-10-07_naturalscene.pt")
    network = rc.load_network(path)
    assert network.cells == (2, 4, 9)
    assert network.cell_types == ("unknown",) * 3
    assert network.normalisation == rc.networks.Normalisation(51.25, 53.5)
    assert (network.history, network.frame_shape, network.frame_rate) == (4, (14, 14), 100.0)
    assert network.layers == ("conv1", "conv2", "conv3")
    assert network.noise == pytest.approx(0.05)
    record = network.training_record
    assert record["file"] == "15-10-07_naturalscene.pt"
    assert record["sha256"] == sha256_of(path)
    assert record["experiment"] == "15-10-07"
    assert record["stim_type"] == "naturalscene"
    assert record["model_type"] == "VaryModel"
    assert record["test_pearson"] == 0.75
    assert any("where cells are read" in doubt for doubt in record["doubtful"])
    assert json.loads(json.dumps(record)) == record


def test_the_names_of_other_layouts_are_those_of_the_file(tmp_path):
    network = rc.load_network(write(small_checkpoint("bncnn"), tmp_path / "net.pth"))
    assert isinstance(network, LayeredNetwork)
    assert network.layers == ("sequential.0", "sequential.6")
    torch.testing.assert_close(
        network.get_submodule("sequential.6").weight,
        small_checkpoint("bncnn")["model_state_dict"]["sequential.6.weight"],
    )


@pytest.mark.parametrize("file", ["vary_model.pt", "vary_model_legacy.pt"])
def test_full_size_files_of_both_torch_formats(file):
    """Recorded from the research code: collapsed kernels and the places where cells are read."""
    network, recorded = rc.load_network(DATA / file), np.load(DATA / "vary_model_expected.npz")
    assert isinstance(network, rc.networks.RetinaCNN)
    assert network.stacked
    plain = network.collapse()
    for ours, theirs in (("conv1", "conv0"), ("conv2", "conv4")):
        module = getattr(plain, ours)
        weights = module.weight.detach().numpy().ravel()[recorded[f"{theirs}_place"]]
        np.testing.assert_allclose(weights, recorded[f"{theirs}_weight"], atol=1e-6)
        np.testing.assert_allclose(module.bias.detach(), recorded[f"{theirs}_bias"], atol=1e-6)
        kernels = [step.weight.detach().numpy() for step in getattr(network, ours)]
        np.testing.assert_allclose(module.weight.detach(), collapse(kernels), atol=1e-6)
    np.testing.assert_array_equal(network.readout.locations, recorded["grab_coords"])
    assert network.cells == (0, 1, 2, 3, 4)


def test_the_fixture_equals_its_formulas():
    checkpoint = torch.load(DATA / "vary_model.pt", weights_only=False)
    window = torch.randn(1, 40, 50, 50, generator=torch.Generator().manual_seed(0))
    steps = LAYOUTS["published"][3]
    where = locations(checkpoint["hyps"]["centers"].tolist(), [15, 11, 11], 16)
    expected = forward(window[0].double().numpy(), arrays(checkpoint), steps, where)
    for file in ("vary_model.pt", "vary_model_legacy.pt"):
        with torch.no_grad():
            found = rc.load_network(DATA / file)(window)[0]
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_printed_places_of_15_11_21b():
    """The columns of all 17 cells are 0; rows by the rule; clipped above for 15-11-21a."""
    found = np.array(grab_locations(TABLE["15-11-21b"], [15, 11, 11], (16, 16)))
    assert (found[:, 1] == 0).all()
    assert found[0, 0] == 0
    assert found[-2, 0] == 8
    assert grab_locations(TABLE["15-10-07"], [15, 11, 11], (16, 16)) == [
        *([3, 0], [6, 2], [4, 0], [9, 0], [13, 2])
    ]
    rows = [row for row, _ in grab_locations(TABLE["15-11-21a"], [15, 11, 11], (16, 16))]
    assert rows == [15, 15, 2, 15]


def test_centers_and_cells_from_the_tables(tmp_path):
    sizes = {"img_shape": [4, 50, 50], "ksizes": [15, 11, 11], "n_units": 2, "stackconvs": False}
    checkpoint = small_checkpoint("plain", cells=[10, 41], dataset="15-11-21a", **sizes)
    shapes = {"0.weight": (3, 4, 15, 15), "4.weight": (2, 3, 11, 11), "8.weight": (2, 2, 11, 11)}
    shapes |= {f"10.{name}": (2,) for name in ("running_mean", "running_var", "scale", "shift")}
    checkpoint["model_state_dict"] = small_state(LAYOUTS["plain"][2] | shapes)
    del checkpoint["hyps"]["centers"], checkpoint["centers"]
    with pytest.raises(rc.RetinaCodecError, match="41"):
        rc.load_network(write(checkpoint, tmp_path / "unknown cell.pt"))
    checkpoint["hyps"]["cells"] = [10, 13]
    network = rc.load_network(write(checkpoint, tmp_path / "net.pt"))
    assert network.cells == (10, 13)
    assert network.readout.locations.tolist() == [[15, 0], [15, 0]]
    doubts = " ".join(network.training_record["doubtful"])
    assert "from the list of 15-11-21a" in doubts
    assert "cells [10, 13] lie beyond" in doubts


def test_cells_all(tmp_path):
    network = rc.load_network(write(small_checkpoint(cells="all"), tmp_path / "net.pt"))
    assert network.cells == (0, 1, 2)  # 15-10-07 has five, this file three
    assert "counted from 0" in network.training_record["doubtful"][0]


def test_older_names(tmp_path):
    new, old = small_checkpoint(), small_checkpoint()
    old["model_hyps"] = old.pop("hyps")
    old["state_dict"] = {
        key.replace("sigma", "cuda_param"): value
        for key, value in old.pop("model_state_dict").items()
    }
    windows = torch.randn(2, 4, 14, 14)
    one = rc.load_network(write(new, tmp_path / "new.pt"))
    other = rc.load_network(write(old, tmp_path / "old.pth", legacy=True))
    torch.testing.assert_close(one(windows), other(windows), rtol=0, atol=0)


@pytest.mark.parametrize("layout", ["published", "plain", "bncnn"])
def test_pruned_channels_are_silent(layout, tmp_path):
    checkpoint = small_checkpoint(layout)
    checkpoint["zero_dict"] = {"sequential.0": {1}}
    network = rc.load_network(write(checkpoint, tmp_path / "net.pt"))
    windows = torch.randn(2, 4, 14, 14)
    first = network.get_submodule(network.layers[0])(windows)
    assert not first[:, 1].any()
    assert first[:, [0, 2]].abs().min() > 0


def test_saved_on_a_gpu(tmp_path):
    """The place of a storage stands in the pickle; only the place is another."""
    import zipfile

    path = write(small_checkpoint(), tmp_path / "net.pt")
    moved = tmp_path / "gpu.pt"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(moved, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name.endswith("data.pkl"):
                place = b"X\x03\x00\x00\x00cpu"
                assert content.count(place) == 1  # said once, then referred to
                content = content.replace(place, b"X\x06\x00\x00\x00cuda:0")
            target.writestr(name, content)
    windows = torch.randn(2, 4, 14, 14)
    one, other = rc.load_network(path), rc.load_network(moved)
    torch.testing.assert_close(one(windows), other(windows), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(model_type="SomeNet"), "VaryModel, LinearStackedBNCNN, BNCNN"),
        (lambda c: c.pop("hyps"), "must hold hyps or model_hyps"),
        (lambda c: c.pop("model_state_dict"), "must hold model_state_dict or state_dict"),
        (lambda c: c.pop("norm_stats"), "normalisation=Normalisation"),
        (lambda c: c["y_stats"].update(mean=1.0, std=2.0), "z-scored"),
        (lambda c: c["hyps"].update(chans=[3, 7]), "fit together"),
        (lambda c: c["hyps"].update(ksizes=[5, 5, 11]), "must fit into frames"),
        (lambda c: c["hyps"].update(groups=2), "groups other than 1"),
        (lambda c: c["hyps"].update(activ_fxn="Sine"), "activ_fxn must be one of"),
        (lambda c: c["hyps"].update(centers=CENTERS[:2]), "2 centers for 3 cells"),
        (lambda c: c["model_state_dict"].popitem(), "fit together"),
        (
            lambda c: c["model_state_dict"].update({"sequential.12.weight": torch.ones(2)}),
            "belong to no layer",
        ),
        (
            lambda c: c["model_state_dict"]["sequential.1.scale"].fill_(float("nan")),
            "finite",
        ),
        (
            lambda c: c["model_state_dict"]["sequential.1.running_var"].fill_(-1),
            "must not be negative",
        ),
        (lambda c: c.update(zero_dict={"sequential.3": {0}}), "no convolution"),
    ],
)
def test_what_does_not_fit_is_refused(change, message, tmp_path):
    checkpoint = small_checkpoint()
    change(checkpoint)
    path = write(checkpoint, tmp_path / "net.pt")
    with pytest.raises(rc.RetinaCodecError, match=message) as caught:
        rc.load_network(path)
    assert str(path) in str(caught.value)


def test_a_normalisation_can_be_given(tmp_path):
    checkpoint = small_checkpoint()
    del checkpoint["norm_stats"]
    path = write(checkpoint, tmp_path / "net.pt")
    network = read_published(path, normalisation=rc.networks.Normalisation(3.0, 2.0))
    assert network.normalisation == rc.networks.Normalisation(3.0, 2.0)


def recording(frames=40):
    random = np.random.default_rng(0)
    return xr.Dataset(
        {"stimulus": (("time", "y", "x"), random.integers(0, 256, (frames, 14, 14)))},
        coords={"time": np.arange(frames) / 100},
    )


@pytest.mark.parametrize("layout", ["published", "linear", "bncnn", "retinotopic"])
def test_a_recording_is_explained(layout, tmp_path):
    """Contributions to one cell add up to its change along the path, in every layout."""
    network = rc.load_network(write(small_checkpoint(layout), tmp_path / "net.pt"))
    split = recording()
    explained = rc.contribute(
        network,
        split,
        target=rc.targets.Unit(4),
        method=rc.methods.IntegratedGradients(200),
        progress=False,
    )
    rates = rc.networks.predict_rates(network, split, progress=False)
    frames = (split["stimulus"].values - 51.25) / 53.5
    batch = np.stack([frames[t - 4 : t] for t in range(4, len(frames))])
    batch = torch.tensor(batch, dtype=torch.float32)
    with torch.no_grad():
        expected = network(batch).numpy()
        grey = network(torch.zeros_like(batch[:1]))[0, 1].item()
    np.testing.assert_allclose(rates, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(explained["responses"]["prediction"], expected, rtol=1e-5, atol=1e-6)
    for name in network.layers:
        total = explained[f"layers/{name}"]["contribution"].sum(("sign", "channel"))
        np.testing.assert_allclose(total, expected[:, 1] - grey, atol=0.02 * np.ptp(expected[:, 1]))
    assert rates["cell"].values.tolist() == [2, 4, 9]


def test_a_recording_that_does_not_fit(tmp_path):
    network = rc.load_network(write(small_checkpoint("bncnn"), tmp_path / "net.pt"))
    with pytest.raises(rc.RetinaCodecError, match="14 × 14 px"):
        check_match(network, recording().isel(x=slice(0, 10)))
    with pytest.raises(rc.RetinaCodecError, match="knows its history"):
        open_windows(torch.nn.Linear(2, 2), recording())


def test_it_can_be_adapted(tmp_path):
    network = rc.load_network(write(small_checkpoint("bncnn"), tmp_path / "net.pt"))
    assert rc.adapt(network).layers == network.layers
    assert rc.adapt(network, "sequential.13").layers == ("sequential.13",)


def test_layers_of_a_config_must_be_known(tmp_path):
    network = rc.load_network(write(small_checkpoint("bncnn"), tmp_path / "net.pt"))
    rc.save_network(network, tmp_path / "ours")
    file = tmp_path / "ours" / "config.json"
    config = json.loads(file.read_text())
    config["network"]["sequence"][0]["kind"] = "attention"
    file.write_text(json.dumps(config))
    with pytest.raises(rc.RetinaCodecError, match="attention"):
        rc.load_network(tmp_path / "ours")
    config["network"] = {"kind": "another"}
    file.write_text(json.dumps(config))
    with pytest.raises(rc.RetinaCodecError, match="there is no kind of network 'another'"):
        rc.load_network(tmp_path / "ours")


def test_the_page_says_what_runs(tmp_path, monkeypatch, capsys):
    page = Path(__file__).resolve().parents[3] / "docs" / "networks.md"
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    write(small_checkpoint(), tmp_path / "15-10-07_naturalscene.pt")
    monkeypatch.chdir(tmp_path)
    exec(compile(blocks[0], "networks.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "(2, 4, 9) ('conv1', 'conv2', 'conv3')" in printed
    assert "where cells are read" in printed
