import shutil

import h5py
import pytest

from retina_codec.errors import RetinaCodecError
from retina_codec.report.nwb.export import MODULE, open_results_from_nwb, save_results_to_nwb
from tests.report.small_session import write_session


@pytest.fixture(scope="module")
def once(results, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    write_session(folder / "session.nwb", range(16))
    save_results_to_nwb(results, folder / "session.nwb", folder / "out.nwb", other_session=True)
    return folder / "out.nwb"


@pytest.fixture
def exported(once, tmp_path):
    return shutil.copy(once, tmp_path / "out.nwb")


def replace(file, place, values):
    group, _, name = place.rpartition("/")
    attrs = dict(file[place].attrs)
    del file[place]
    dataset = file[group].create_dataset(name, data=values)
    dataset.attrs.update(attrs)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda m: m.pop("conv1_modes/dictionary"),
            "must hold conv1_modes/dictionary; it does not",
        ),
        (lambda m: m.pop("conv2_parts"), "must hold conv2_parts/label"),
        (
            lambda m: replace(m, "conv3_loadings/data", m["conv3_loadings/data"][:-1]),
            r"must hold \[5960, 12\] values of loading; it holds 71508",
        ),
        (lambda m: m.pop("notes"), "must hold the table of notes of the export"),
        (lambda m: m.pop("notes/value"), "must hold notes/value"),
        (
            lambda m: replace(m, "notes/value", ["{"] * len(m["notes/value"])),
            "must hold the table of notes",
        ),
    ],
)
def test_a_changed_file_is_refused(exported, change, words):
    with h5py.File(exported, "r+") as file:
        change(file[f"processing/{MODULE}"])
    with pytest.raises(RetinaCodecError, match=words) as caught:
        open_results_from_nwb(exported)
    assert "export the results again" in str(caught.value).lower()


def test_values_come_from_the_tables_not_from_the_notes(exported, results):
    with h5py.File(exported, "r+") as file:
        file[f"processing/{MODULE}/conv1_pathways/correlation"][3, 2] = 0.125
    found = open_results_from_nwb(exported)["layers/conv1/pathways/correlation"]
    expected = results["layers/conv1/pathways/correlation"].copy(deep=True)
    expected[3, 2] = 0.125
    assert found.equals(expected)
