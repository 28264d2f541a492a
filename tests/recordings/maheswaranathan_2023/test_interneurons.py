"""Intracellular recordings: files as stored."""

import h5py
import numpy as np
import pytest

from retina_codec.errors import RetinaCodecError
from retina_codec.recordings.files import open_recording
from retina_codec.recordings.maheswaranathan_2023.interneurons import open_interneurons
from retina_codec.storage.trees import open_tree, save_tree
from tests.recordings.published_files import write_interneurons


@pytest.fixture
def path(tmp_path):
    return write_interneurons(tmp_path / "bipolars_late_2012.h5")


def test_values_are_those_of_the_file(path):
    tree = open_interneurons(path)
    with h5py.File(path) as file:
        for name, shape in (
            ("boxes", (80, 38, 38)),
            ("lines", (70, 1, 100)),
            ("flashes", (60, 1, 1)),
        ):
            node = tree[f"bipolars_late_2012/{name}"].to_dataset()
            assert node["stimulus"].dims == ("time", "y", "x")
            assert node["stimulus"].dtype == np.uint8
            stored = file[f"{name}/stimuli"]
            assert node["stimulus"].shape == shape
            for t in range(shape[0]):
                np.testing.assert_array_equal(
                    node["stimulus"][t].values.ravel(), np.ravel(stored[t])
                )
            for row in range(3):
                np.testing.assert_array_equal(
                    node["potential"].sel(interneuron=f"bipolars_late_2012 {row}"),
                    file[f"{name}/detrended_membrane_potential"][row],
                )
            np.testing.assert_allclose(node["time"], np.arange(shape[0]) / 100)
            assert node["type"].values.tolist() == ["bipolar"] * 3
            assert "100 Hz assumed" in node["time"].attrs["source"]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("bipolars_early_2012", "bipolar"),
        ("amacrines_late_2012", "amacrine"),
        ("horizontals_late_2012", "horizontal"),
        ("unks_17-10-18", "unknown"),
    ],
)
def test_the_name_of_the_file_says_the_type(tmp_path, name, kind):
    tree = open_interneurons(write_interneurons(tmp_path / f"{name}.h5"), stimuli=["boxes"])
    assert tree[f"{name}/boxes"]["type"].values.tolist() == [kind] * 3
    assert list(tree[name].children) == ["boxes"]


def test_a_folder_gives_all_files_with_unique_interneurons(tmp_path):
    for seed, (name, cells) in enumerate((("bipolars_late_2012", 4), ("amacrines_early_2012", 5))):
        write_interneurons(tmp_path / f"{name}.h5", cells=cells, seed=seed)
    tree = open_interneurons(tmp_path, frame_rate=50.0)
    assert sorted(tree.children) == ["amacrines_early_2012", "bipolars_late_2012"]
    names = [n for file in tree.children for n in tree[file]["boxes/interneuron"].values]
    assert len(set(names)) == len(names) == 9
    np.testing.assert_allclose(np.diff(tree["bipolars_late_2012/lines/time"]), 0.02)
    save_tree(tree, tmp_path / "all.nc")
    again = open_tree(tmp_path / "all.nc")
    assert again.identical(tree)
    again.close()


def test_a_stimulus_that_does_not_fit_its_potentials_is_left_out_and_said(path):
    tree = open_interneurons(path)
    assert "movingbar" not in tree["bipolars_late_2012"].children
    said = tree["bipolars_late_2012"].attrs["left_out"]
    assert said.startswith("/movingbar/detrended_membrane_potential must have a sample per frame")
    assert "it has 50 for 10 frames" in said
    with pytest.raises(RetinaCodecError, match="it has 50 for 10 frames"):
        open_interneurons(path, stimuli=["movingbar"])


def test_a_potential_beyond_the_movie_is_cut_and_said(path):
    with h5py.File(path, "a") as file:
        del file["boxes/detrended_membrane_potential"]
        file["boxes/detrended_membrane_potential"] = np.arange(162.0).reshape(2, 81)
    node = open_interneurons(path)["bipolars_late_2012/boxes"].to_dataset()
    np.testing.assert_array_equal(node["potential"].T, np.arange(162.0).reshape(2, 81)[:, :80])
    assert node.attrs["cut"].endswith("left out of: /boxes/detrended_membrane_potential")


def test_stimuli_stay_on_disk(path):
    node = open_interneurons(path)["bipolars_late_2012/boxes"].to_dataset()
    assert not node["stimulus"].variable._in_memory


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"stimuli": ["circles"]}, "must be of boxes, lines, flashes, movingbar; got 'circles'"),
        ({"frame_rate": 0.0}, "positive number of Hz; got 0"),
        ({"frame_rate": float("nan")}, "positive number of Hz"),
    ],
)
def test_wrong_options_are_refused(path, arguments, message):
    with pytest.raises(RetinaCodecError, match=message):
        open_interneurons(path, **arguments)


def test_what_is_no_such_file_is_refused(path, tmp_path):
    with h5py.File(path, "a") as file:
        del file["boxes"]
    with pytest.raises(RetinaCodecError, match=r"must have boxes; it has \['flashes', 'lines'"):
        open_interneurons(path, stimuli=["boxes"])
    with pytest.raises(RetinaCodecError, match=r"with rc\.recordings\.open_interneurons"):
        open_recording(path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(RetinaCodecError, match="must hold HDF5 files of interneurons"):
        open_interneurons(tmp_path / "empty")
    with pytest.raises(RetinaCodecError, match="no file is there"):
        open_interneurons(tmp_path / "unks_1.h5")
    with h5py.File(tmp_path / "unks_1.h5", "w") as file:
        file["boxes/stimuli"] = np.zeros((4, 3, 3))
    with pytest.raises(RetinaCodecError, match="must have detrended_membrane_potential"):
        open_interneurons(tmp_path / "unks_1.h5")
