import json

import numpy as np
import pytest
import xarray as xr

from retina_codec.recordings.nwb.extras import dataset_from_notes, dataset_to_notes


@pytest.fixture
def clock():
    return xr.Dataset(
        {
            "offset": ((), 1 / 3, {"units": "s", "long_name": "movie after spikes"}),
            "drift": ((), np.float32(np.nan), {"units": "1"}),
            "dropped": ((), 4, {"units": "count"}),
            "outside": ("cell", np.array([0, 2, 5], dtype=np.int32), {"units": "count"}),
            "is_regular": ((), True),
            "source": ((), "timestamps"),
        },
        coords={"cell": ["a", "b", "µ"]},
        attrs={"method": "median", "tolerance": np.float64(0.1), "frames": np.array([1, 2])},
    )


def test_a_dataset_comes_back_through_json(clock):
    kept = clock.copy(deep=True)
    text = json.dumps(dataset_to_notes(clock), ensure_ascii=False)
    found = dataset_from_notes(json.loads(text))
    clock.attrs["frames"] = [1, 2]  # JSON has lists, no arrays
    xr.testing.assert_identical(found, clock)
    assert {name: found[name].dtype for name in found.variables} == {
        name: clock[name].dtype for name in clock.variables
    }
    clock.attrs["frames"] = np.array([1, 2])
    assert clock.attrs.keys() == kept.attrs.keys()
    np.testing.assert_array_equal(clock.attrs["frames"], kept.attrs["frames"])


def test_the_notes_are_what_a_person_would_write(clock):
    notes = dataset_to_notes(clock[["outside"]])
    assert notes["data_vars"] == {
        "outside": {
            "dims": ["cell"],
            "dtype": "int32",
            "data": [0, 2, 5],
            "attrs": {"units": "count"},
        }
    }
    assert notes["coords"]["cell"]["data"] == ["a", "b", "µ"]


def test_an_empty_dataset_stays_empty():
    xr.testing.assert_identical(dataset_from_notes(dataset_to_notes(xr.Dataset())), xr.Dataset())
