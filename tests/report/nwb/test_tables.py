import h5py
import numpy as np
import pytest
import xarray as xr
from pynwb import NWBHDF5IO

from retina_codec.errors import RetinaCodecError
from retina_codec.recordings.nwb.extras import plain_attributes
from retina_codec.report.nwb.parts import notes_of, read_node
from retina_codec.report.nwb.session import read_units
from retina_codec.report.nwb.tables import ModuleBuilder, column
from tests.report.small_session import inspected, write_session


def written(builder, tmp_path):
    """Put a module into a session; return the path."""
    path = tmp_path / "session.nwb"
    write_session(path, [0, 1])
    with h5py.File(path, "r+") as file:
        read_units(file, "session").write_module(file, builder.module("made", "By hand.", {}))
    return path


def read_back(path, place="/node"):
    with h5py.File(path) as file:
        module = file["processing/made"]
        return read_node(module, notes_of(module, "made")["nodes"][place])


@pytest.fixture
def rows():
    return xr.Dataset(
        {
            "name": ("row", ["first", "µ", ""], {"long_name": "what it is called"}),
            "number": ("row", np.array([3, 1, 2], np.int16), {"units": "count"}),
            "is_on": ("row", [True, False, True]),
            "few": ("row", [1, 0, 1]),
            "gap": ("row", [0.5, np.nan, 2.0], {"units": "nats"}),
            "unknown": ("row", np.full(3, np.nan, np.float32)),
            "turned": (("b", "row", "a"), np.arange(18.0).reshape(2, 3, 3), {"units": "Hz"}),
            "empty": (("row", "none"), np.zeros((3, 0))),
        },
        coords={"row": ["x", "y", "z"], "a": [5, 6, 7]},
        attrs={"seed": np.int64(3), "words": ["a", "b"]},
    )


def test_every_kind_of_column_comes_back(rows, tmp_path):
    kept = rows.copy(deep=True)
    builder = ModuleBuilder()
    builder.start("/node", rows)
    builder.table("/node", rows, ["row"], ["row", *rows.data_vars], "rows", "by hand")
    builder.words("/node", rows, ["a"])
    found = read_back(written(builder, tmp_path))
    xr.testing.assert_identical(found, rows)
    xr.testing.assert_identical(rows, kept)
    for name in rows.variables:
        assert found[name].dtype.kind == rows[name].dtype.kind, name
        assert found[name].dtype == rows[name].dtype or found[name].dtype.kind == "U", name


def test_columns_are_what_a_person_expects(rows, tmp_path):
    builder = ModuleBuilder()
    builder.start("/node", rows)
    further = xr.Dataset({"more": ("row", [1.5, 2.5, 3.5]), "number": ("row", [0, 0, 0])})
    names = ["row", *rows.data_vars]
    builder.table("/node", rows, ["row"], names, "rows", "by hand", further=further)
    path = written(builder, tmp_path)
    with NWBHDF5IO(path, "r") as stream:
        table = stream.read().processing["made"]["rows"]
        assert table.colnames == (
            *("row", "name_", "number", "is_on", "few", "gap", "turned", "more"),
        )
        np.testing.assert_array_equal(table["number"][:], [3, 1, 2])
        np.testing.assert_array_equal(table["more"][:], [1.5, 2.5, 3.5])
        by_hand = [rows["turned"].sel(row=row).values.ravel() for row in "xyz"]
        np.testing.assert_array_equal(table["turned"][:], by_hand)
        assert table["turned"].description == (
            "turned, Hz; columns: b × a, the last fastest; a: 5, 6, 7"
        )
        assert table["name_"].description == "what it is called"
        assert table["gap"].description == "gap, nats"
    assert inspected(path)[0] == []
    assert not {"check_col_not_nan", "check_column_binary_capability"} & inspected(path)[1]


def test_rows_over_two_dims_run_fastest_over_the_last(tmp_path):
    grid = xr.Dataset({"value": (("channel", "sign"), np.arange(6.0).reshape(3, 2))})
    builder = ModuleBuilder()
    builder.start("/node", grid)
    first = [column("sign", np.repeat([0, 1], 3), "s")]
    builder.table("/node", grid, ["sign", "channel"], ["value"], "grid", "by hand", first=first)
    path = written(builder, tmp_path)
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["processing/made/grid/value"], [0, 2, 4, 1, 3, 5])
    xr.testing.assert_identical(read_back(path), grid)


def in_time(start=12.34, count=30, rate=100.0):
    time = start + np.arange(7, 7 + count) / rate  # not start + n / rate to the last digit
    return xr.Dataset(
        {
            "loading": (
                ("time", "mode"),
                np.random.default_rng(0).random((count, 2)),
                {"units": "nats"},
            ),
            "active": (("mode", "time"), np.arange(2 * count).reshape(2, count) % 3 == 0),
        },
        coords={
            "time": ("time", time, {"units": "s"}),
            "split": ("time", np.repeat(["fit", "gap", "held_out"], [18, 4, 8])),
        },
    )


@pytest.mark.parametrize("rate", [100.0, None])
def test_series_stand_on_the_clock_and_labels_come_back_to_the_bit(tmp_path, rate):
    dataset = in_time()
    builder = ModuleBuilder()
    builder.start("/node", dataset)
    builder.clock("/node", dataset, "time", rate, "rounding")
    for name in ("loading", "active"):
        builder.series("/node", dataset, name, name, rate)
    builder.runs("/node", dataset, "split", "parts", rate)
    path = written(builder, tmp_path)
    found = read_back(path)
    xr.testing.assert_identical(found, dataset)
    assert (found["time"].values == dataset["time"].values).all()
    with NWBHDF5IO(path, "r") as stream:
        module = stream.read().processing["made"]
        series = module["loading"]
        assert (series.unit, series.timestamps) == ("nats", None)
        assert series.starting_time == dataset["time"].values[0]
        assert series.rate == pytest.approx(100.0, rel=1e-12)
        np.testing.assert_array_equal(series.data[:], dataset["loading"])
        assert module["active"].data.shape == (30, 2)
        parts = module["parts"].to_dataframe()
        assert parts["label"].tolist() == ["fit", "gap", "held_out"]
        assert parts["bins"].tolist() == [18, 4, 8]
        edges = dataset["time"].values[[0, 18, 22]]
        np.testing.assert_allclose(parts["start_time"], edges)
        np.testing.assert_allclose(parts["stop_time"], [*edges[1:], edges[0] + 0.3])
        assert abs(module["rounding"].data[:]).max() < 1e-12
    assert inspected(path)[0] == []


def test_a_clock_without_rounding_needs_no_series():
    dataset = xr.Dataset(coords={"time": 2.0 + np.arange(5) / 4})
    builder = ModuleBuilder()
    builder.start("/node", dataset)
    builder.clock("/node", dataset, "time", 4.0, "rounding")
    assert builder.objects == []


def test_an_uneven_clock_is_refused():
    dataset = in_time()
    time = dataset["time"].values.copy()
    time[20:] += 0.005
    dataset = dataset.assign_coords(time=time)
    builder = ModuleBuilder()
    builder.start("/node", dataset)
    words = rf"advance evenly, at 100 Hz.*the one at {time[20]:.6g} s is off by 0.5 bins"
    with pytest.raises(RetinaCodecError, match=words):
        builder.series("/node", dataset, "loading", "loading", 100.0)
    with pytest.raises(RetinaCodecError, match=r"at least 2 times .* they have 1"):
        builder.series("/node", dataset.isel(time=[0]), "loading", "loading", None)


def test_large_labels_are_not_kept_in_words():
    dataset = xr.Dataset(coords={"a": np.arange(10_001), "b": np.arange(10_000)})
    builder = ModuleBuilder()
    builder.start("/node", dataset)
    builder.words("/node", dataset, ["a", "b"])
    assert list(builder.nodes["/node"]["variables"]) == ["b"]


def test_attributes_become_plain():
    found = plain_attributes({"a": np.float32(0.5), "b": np.arange(2), "c": "x", "d": (1, 2)})
    assert found == {"a": 0.5, "b": [0, 1], "c": "x", "d": [1, 2]}
