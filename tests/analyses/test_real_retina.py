"""The script of real recordings, whole, on a small file in a published layout."""

import runpy
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from scipy.io import savemat

import retina_codec as rc
from retina_codec.recordings.frames.seeded import SeededFrames

SCRIPT = Path(__file__).parents[2] / "analyses" / "real_retina.py"


def recording_of(path, frames=2000):
    """Six cells, three of them OFF, each driven by four checks two frames before."""
    random = np.random.default_rng(0)
    movie = SeededFrames("ran1", seed=-77, shape=(frames, 11, 12)).read(np.arange(frames)) / 127.5
    spikes = np.empty((6, 1), dtype=object)
    for cell in range(6):
        y, x = 4 + 2 * (cell // 3), 4 + cell % 3
        drive = (-1) ** cell * (movie[:, y : y + 2, x : x + 2].mean((1, 2)) - 1)
        count = random.poisson(0.3 * np.exp(2 * np.concatenate([[0, 0], drive[:-2]])))
        spikes[cell, 0] = np.repeat(1.5 + 0.02 * (np.arange(frames) + 0.5), count)
    noise = {
        "type": "binarywhitenoise",
        "onset": 1.5,
        "frame": 0.02,
        "Nframes": frames,
        "pixelsize": 8.3,
        "param": {"x": 12, "y": 11, "dx": 1, "dy": 1, "seed": -77},
    }
    savemat(path, {"datainfo": {"animal": "none"}, "stimulus": [noise], "spikes": spikes})


def test_the_whole_road_and_no_step_twice(tmp_path, capsys):
    recording_of(tmp_path / "m.mat")
    main = runpy.run_path(str(SCRIPT))["main"]
    words = [
        *("--recording", str(tmp_path / "m.mat"), "--out", str(tmp_path / "out")),
        *("--sizes", "3,3,3:4", "--margin", "2", "--trial-epochs", "1", "--epochs", "1"),
        *("--windows-per-epoch", "300", "--explain", "200", "--modes", "4", "--copies", "1"),
        *("--quick", "--layers", "conv1", "--cut", "12"),
    ]
    main(words)
    first = capsys.readouterr().out
    assert "6 of 6 cells have a field" in first
    averages = xr.load_dataset(tmp_path / "out" / "averages.nc")
    assert averages["polarity"].values.tolist() == ["ON", "OFF"] * 3
    prediction = xr.load_dataset(tmp_path / "out" / "prediction.nc")
    baseline = prediction["pearson"].sel(model="linear-nonlinear")
    assert (baseline > 0.2).all()  # the planted cells are linear-nonlinear
    agreement = xr.load_dataset(tmp_path / "out" / "agreement.nc")
    assert dict(agreement.sizes) == {
        "compared_with": 3,
        "layer": 1,
        "quantity": 3,
        "bound": 2,
        "result": 2,
    }
    value = float(agreement["agreement"][1, 0, 0])
    assert f"| network of another seed | conv1 | modes | {value:.2f} [" in first
    silencing = xr.load_dataset(tmp_path / "out" / "silencing.nc")
    last = silencing.sel(row="sum of rates, edges/output")
    assert int(last["edges"]) == 8 * 6  # channels of the last layer, cells
    assert float(last["sign"]) > float(last["sign_null"])  # the end of the network is nearly linear
    assert f"| sum of rates, edges/output | 48 | {float(last['slope']):.2f} |" in first
    for name in ("averages", "prediction", "agreement"):
        assert (tmp_path / "out" / f"{name}.png").stat().st_size > 10_000
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("explained*")}
    main(words)
    assert capsys.readouterr().out == first
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_bad_words_are_refused(tmp_path):
    recording_of(tmp_path / "m.mat", frames=1200)
    main = runpy.run_path(str(SCRIPT))["main"]
    words = ["--recording", str(tmp_path / "m.mat"), "--out", str(tmp_path / "out")]
    with pytest.raises(rc.RetinaCodecError, match="--set must be NAME=VALUE; got 'cells'"):
        main([*words, "--set", "cells"])
    with pytest.raises(rc.RetinaCodecError, match=r"at least 4 cells.*3 have"):
        main([*words, "--set", "cells=0,1,2", "--margin", "2"])
