"""The script of the runtime section: its arithmetic on times that are known, and its verdicts."""

import json

import numpy as np
import pytest
import xarray as xr

import retina_codec as rc
from tests.analyses.small_study import holds, load_script, save_networks

NAME = "runtime"
IMAGES, STEPS = (6, 12, 24), (2, 5, 10, 20)


@pytest.fixture(scope="module")
def script():
    return load_script(NAME)


def timings(ratio=3.0, power=1.0, noise=0.001):
    """Make times: 0.5 s once, 0.02 s per image, ``ratio`` times less by one gradient."""
    rows = [("steps", "IntegratedGradients", step, 24, 1.0 + 0.1 * step**power) for step in STEPS]
    for method, each in (("IntegratedGradients", 0.02), ("ActNormGrad", 0.02 / ratio)):
        rows += [("images", method, 10, count, 0.5 + each * count**power) for count in IMAGES]
        rows.append(("method", method, 10, 24, 0.5 + each * 24))
    sweep, method, steps, images, seconds = map(np.array, zip(*rows, strict=True))
    shake = np.random.default_rng(0).normal(size=(len(rows), 4))
    data = {"seconds": (("setting", "round"), seconds[:, None] * (1 + noise * shake))}
    names = {"sweep": sweep, "method": method, "steps": steps, "images": images}
    coords = {key: ("setting", values) for key, values in names.items()}
    return xr.Dataset(data, coords=coords, attrs={"model": "models/digits_cnn", "device": "cpu"})


def test_cost_leaves_out_what_is_done_once(script):
    card = script.card_of(timings(noise=0))
    assert card["IntegratedGradients"]["seconds_per_image"] == pytest.approx(0.02)
    hours = card["ActNormGrad"]["hours_of_50000_extrapolated"]
    assert hours == pytest.approx(50_000 * 0.02 / 3 / 3600)


def test_verdicts_follow_the_times(script):
    assert list(holds(script.claims_of(timings())).values()) == [True, True, True, None, None]
    assert holds(script.claims_of(timings(ratio=11)))["ratio"] is False
    squared = holds(script.claims_of(timings(power=2)))
    assert squared["linear in steps"] is squared["linear in images"] is False


def test_times_of_the_paper_are_held_against_its_network_alone(script):
    table = timings()
    table.attrs |= {"model": "resnet50", "device": "cuda"}
    verdicts = holds(script.claims_of(table))
    assert verdicts["IntegratedGradients"] is verdicts["ActNormGrad"] is True
    slow = table.assign(seconds=100 * table["seconds"])
    slow.attrs = table.attrs
    assert holds(script.claims_of(slow))["ActNormGrad"] is False


@pytest.mark.slow
def test_the_script_measures_and_draws_again(script, tmp_path, monkeypatch, capsys):
    save_networks(tmp_path)
    words = ["--out", str(tmp_path), "--model", str(tmp_path / "cnn")]
    words += ["--count", "8", "--rounds", "2", "--batch", "4"]
    script.main(words)
    saved = rc.open_tree(tmp_path / "runtime.nc", lazy=False).to_dataset()
    assert (saved["seconds"] >= 0).all()
    most = saved["seconds"].mean("round").values[saved["sweep"].values == "steps"]
    assert most[-1] > most[0]  # 20 steps against 2
    first = json.loads((tmp_path / "runtime.json").read_text())
    monkeypatch.setattr(script, "study_of", lambda *_: pytest.fail("measured again"))
    script.main([*words, "--reuse"])
    assert json.loads((tmp_path / "runtime.json").read_text()) == first
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "runtime.png")
