"""The script of the robustness study, with settings that are small."""

import runpy
from pathlib import Path

import numpy as np
import pytest

import retina_codec as rc
from tests.modes.test_decomposition import make_tree
from tests.reference.modes import planted_modes

SCRIPT = Path(__file__).parents[2] / "analyses" / "figure_s3_robustness.py"


@pytest.mark.slow
def test_every_fit_is_in_the_table_and_drawn(tmp_path, capsys):
    script = runpy.run_path(str(SCRIPT))
    contribution = planted_modes(0, samples=300, modes=4, active=0.3)[0]
    rc.save_tree(make_tree(contribution), tmp_path / "in.nc")
    words = ["--results", str(tmp_path / "in.nc"), "--out", str(tmp_path / "out")]
    words += ["--epochs", "2", "--sparse-epochs", "5", "--gap", "10"]
    script["main"](words)
    picture = Path(capsys.readouterr().out.strip())
    assert picture.stat().st_size > 10_000
    table = rc.open_tree(tmp_path / "out" / "figure_s3_robustness.nc", lazy=False).to_dataset()
    fits = script["fits_of"](script["arguments"](words))
    assert table["setting"].values.tolist() == [fit[1] for fit in fits]
    own = table["method"].values == "SparseAutoencoder"
    sparse = {name: values.values[own] for name, values in table.data_vars.items()}
    assert sparse["setting"][0] == "first"
    assert sparse["mode_match"][0] == pytest.approx(1)
    active = {
        str(v): r
        for s, v, r in zip(sparse["setting"], sparse["value"], sparse["r2"], strict=True)
        if s == "active"
    }
    assert active["1"] < active["2"] <= active["5"] + 0.01
    assert np.isfinite(sparse["r2"]).all()
    picture.unlink()
    script["main"]([*words, "--reuse"])
    assert picture.exists()
