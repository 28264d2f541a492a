"""The descriptions of two runs: what differs is told, and where it begins."""

import json

import pytest

from retina_codec.errors import RetinaCodecError
from retina_codec.storage.provenance import LISTED, WRITTEN, check_same


def test_only_differences_are_told_and_where_they_begin() -> None:
    here = {"same": "1", "long": "a" * 300 + "x" + "b" * 300, "new": "2"}
    there = here | {"long": "a" * 300 + "y" + "b" * 300}
    del there["new"]
    check_same(json.dumps(here), here, "run.zarr")
    with pytest.raises(RetinaCodecError) as caught:
        check_same(json.dumps(there), here, "run.zarr")
    told = str(caught.value)
    assert "same" not in told
    assert "new: nothing there, 2 here" in told
    assert "aay" in told.split(" there, ")[0]
    assert "aax" in told.split(" there, ")[1]
    assert len(told) < 500
    for garbage in (None, "{", "[1", "3"):
        with pytest.raises(RetinaCodecError, match="does not say which run it is"):
            check_same(garbage, here, "run.zarr")


def test_what_runs_write_is_no_difference_and_many_differences_are_counted() -> None:
    here = {f"network.{number}": str(number) for number in range(20)}
    written = dict.fromkeys(here, WRITTEN)
    check_same(json.dumps(written), here, "run.zarr")
    check_same(json.dumps(here), written, "run.zarr")
    check_same(json.dumps({}), written, "run.zarr")
    with pytest.raises(RetinaCodecError) as caught:
        check_same(json.dumps({}), here, "run.zarr")
    assert str(caught.value).count("nothing there") == LISTED
    assert f"and {20 - LISTED} more differences" in str(caught.value)
