"""Labels of inputs: the same in every dataset of the results, in memory and in stores."""

import pickle
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

from retina_codec.contributions import shards
from retina_codec.contributions.contribute import contribute
from retina_codec.errors import RetinaCodecError
from retina_codec.methods.integrated_gradients import IntegratedGradients
from retina_codec.modes.decompose import decompose
from retina_codec.modes.decompositions.nmf import NMF
from retina_codec.networks.adapter import adapt
from retina_codec.probing.inputs import open_inputs
from retina_codec.probing.labels import TAKEN, dataset_labels
from retina_codec.storage.trees import open_tree, save_tree
from retina_codec.targets.classification import TopK

COUNT = 40
IMAGES = torch.rand(COUNT, 3, 6, 6, generator=torch.Generator().manual_seed(0))
NUMBERS = np.arange(COUNT) * 7 % 3
NAMES = np.array(["äpfel", "b", "a longer name"])
LABELS: dict[str, Any] = {
    "label": NAMES[NUMBERS],
    "words": NAMES[NUMBERS].astype(object),
    "digit": NUMBERS,
    "share": np.linspace(0, 1, COUNT, dtype=np.float32),
    "odd": NUMBERS % 2 == 1,
}


class Folder(Dataset[Any]):
    """What torchvision.datasets.ImageFolder shows of itself."""

    def __init__(self) -> None:
        self.classes: list[str] | None = NAMES.tolist()
        self.targets: list[int] = NUMBERS.tolist()

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return IMAGES[index], self.targets[index]


class Labelled(Folder):
    def __init__(self, **coords: Any) -> None:
        super().__init__()
        self.coords = coords or LABELS


def labelled_array() -> xr.DataArray:
    along = {name: ("sample", values) for name, values in LABELS.items()}
    return xr.DataArray(
        IMAGES.numpy(),
        dims=("sample", "color", "y", "x"),
        coords={"sample": np.arange(COUNT) + 100, "color": ["r", "g", "b"], "x": range(6), **along},
    )


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(20, 3)
    ).eval()


def explain(inputs: Any, **options: Any) -> xr.DataTree:
    return contribute(
        network(),
        inputs,
        target=TopK(1),
        method=IntegratedGradients(2),
        layers=["0", "2"],
        batch_size=4,
        progress=False,
        **options,
    )


def check(tree: xr.DataTree, expected: dict[str, Any] = LABELS) -> None:
    for place in ("responses", "layers/0", "layers/2"):
        found = tree[place].to_dataset()
        for name, values in expected.items():
            assert found[name].dims == ("sample",), (place, name)
            np.testing.assert_array_equal(found[name].values, values, err_msg=f"{place} {name}")
            assert found[name].dtype.kind == ("U" if name == "words" else values.dtype.kind)
        assert set(found.coords) >= set(expected)


INPUTS = {
    "array": labelled_array,
    "dataset of arrays": lambda: labelled_array().to_dataset(name="image"),
    "data set": Labelled,
    "loader": lambda: DataLoader(Labelled(), 7),
}


@pytest.mark.parametrize(
    ("kind", "suffix"),
    [*((kind, "") for kind in INPUTS), ("array", ".nc"), ("array", ".zarr"), ("data set", ".zarr")],
)
def test_labels_are_in_every_dataset(kind: str, suffix: str, tmp_path: Path) -> None:
    store = tmp_path / f"run{suffix}" if suffix else None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = explain(INPUTS[kind](), store=store)
        check(found)
        if store is not None:
            with open_tree(store) as again:
                check(again)
        else:
            save_tree(found, tmp_path / "copy.nc")
            with open_tree(tmp_path / "copy.nc") as again:
                check(again)


def test_each_label_stays_with_its_input() -> None:
    """Explained in another order, every input has the contributions and labels it had."""
    order = np.random.default_rng(0).permutation(COUNT)
    found = explain(labelled_array())["layers/2"].to_dataset()
    other = explain(labelled_array()[order])["layers/2"].to_dataset().sortby("sample")
    xr.testing.assert_allclose(found, other, atol=1e-6)
    np.testing.assert_array_equal(other["words"], LABELS["words"])


@pytest.mark.parametrize("kind", ["array", "loader"])
def test_a_run_that_was_interrupted_has_the_labels(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "FEWEST", 8)
    monkeypatch.setattr(shards, "MOST", 8)
    plain, seen = shards.run_shard, []

    def stopped(*arguments: Any) -> Any:
        seen.append(1)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return plain(*arguments)

    store = tmp_path / "run.zarr"
    with monkeypatch.context() as patch:
        patch.setattr(shards, "run_shard", stopped)
        with pytest.raises(KeyboardInterrupt):
            explain(INPUTS[kind](), store=store)
    continued = explain(INPUTS[kind](), store=store)
    check(continued)
    whole = explain(INPUTS[kind]())
    for layer in ("0", "2"):
        xr.testing.assert_allclose(
            continued[f"layers/{layer}"].to_dataset().load(), whole[f"layers/{layer}"].to_dataset()
        )


def test_other_labels_are_another_run(tmp_path: Path) -> None:
    explain(Labelled(), store=tmp_path / "run.zarr")
    with pytest.raises(RetinaCodecError, match=r"belongs to another .*label array"):
        explain(Labelled(label=LABELS["label"][::-1]), store=tmp_path / "run.zarr")


def test_labels_reach_the_modes() -> None:
    modes = decompose(explain(labelled_array()), NMF(modes=2, seed=0), gap=0, progress=False)
    for layer in ("0", "2"):
        found = modes[f"layers/{layer}/modes/loading"]
        np.testing.assert_array_equal(found["label"], LABELS["label"])


def test_targets_of_an_image_folder_are_labels_by_name() -> None:
    check(explain(Folder()), {"label": LABELS["label"]})
    check(explain(DataLoader(Folder(), 7)), {"label": LABELS["label"]})


def test_a_subset_has_the_labels_of_its_samples() -> None:
    chosen = [5, 3, 3, 39]
    nested = Subset(Subset(Folder(), [1, *chosen]), [1, 2, 3, 4])
    check(explain(nested), {"label": LABELS["label"][chosen]})
    labels = dataset_labels(Subset(Labelled(), chosen))
    for name, values in LABELS.items():
        np.testing.assert_array_equal(labels[name].values, values[chosen])


def test_targets_without_classes_are_labels_as_they_are() -> None:
    numbers = Folder()
    numbers.classes = None
    np.testing.assert_array_equal(dataset_labels(numbers)["label"].values, NUMBERS)
    assert dataset_labels(TensorDataset(IMAGES)) == {}


def test_parts_and_other_processes_need_no_labels() -> None:
    source = open_inputs(adapt(network(), "0"), Labelled())
    assert source.part(3, 9).coords == {}
    again = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(again.coords["label"].values, LABELS["label"])


def test_inputs_keep_their_own_labels() -> None:
    inputs = labelled_array()
    before = inputs.copy(deep=True)
    explain(inputs)
    assert inputs.identical(before)
    assert inputs["words"].dtype == object


def array_with(name: str, values: Any) -> xr.DataArray:
    return labelled_array().assign_coords({name: ("sample", values)})


REFUSED = {
    "a name of the results": (
        lambda: array_with("channel", NUMBERS),
        "results use the name 'channel'.*channel_of_sample",
    ),
    "the same in a data set": (lambda: Labelled(target=NUMBERS), "results use the name 'target'"),
    "mixed": (
        lambda: array_with("word", np.array(["a"] * (COUNT - 1) + [None], object)),
        "coordinate 'word' of the inputs must be text or numbers; got nan",
    ),
    "dates": (
        lambda: array_with("day", np.array(["2020-01-01"] * COUNT, "M8[ns]")),
        "'day' of the inputs must be text or numbers; got datetime64",
    ),
    "too few": (lambda: Labelled(label=NAMES), r"one label per sample; got \(3,\) for 40"),
    "no such class": (
        lambda: folder_of([0] * (COUNT - 1) + [3]),
        "must number its 3 classes from 0; got 0 to 3",
    ),
}


def folder_of(targets: list[int]) -> Folder:
    folder = Folder()
    folder.targets = targets
    return folder


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_travel_is_refused_at_once(kind: str) -> None:
    make, message = REFUSED[kind]
    with pytest.raises(RetinaCodecError, match=message):
        explain(make())


def test_every_name_that_results_use_is_refused() -> None:
    """The names are those of a run that has everything, and of what decompose adds."""
    found = explain(IMAGES)
    used = {
        str(name)
        for node in found.subtree
        for name in node.to_dataset(inherit=False).variables
        if name != "sample"
    }
    assert used <= set(TAKEN)


def test_a_mapping_is_what_coords_must_be() -> None:
    other = SimpleNamespace(coords=[1, 2, 3])
    assert dataset_labels(other) == {}
