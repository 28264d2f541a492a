"""Control of a study: other images are asked, and rules decide."""

import numpy as np
import pytest
import xarray as xr

from retina_codec.paper import control
from retina_codec.paper.control import asked_study, control_claims, control_options, save_control
from tests.analyses.small_study import holds, save_networks

KINDS = ("contribution modes", "activation modes", "random channels")


def curves(sign=1, concepts=4):
    """Six layers: area on target 0.3 by contribution modes, 0.6 by others, off target 0.9."""
    shape = {"layer": 6, "style": 2, "selection": 3, "concept": concepts, "side": 2, "trial": 5}
    noise = 0.001 * xr.DataArray(np.arange(concepts), dims="concept")
    area = xr.DataArray(np.zeros(tuple(shape.values())), dims=tuple(shape)) + 0.9
    area = area.assign_coords(
        layer=[f"block {n}" for n in range(6)], style=["ablate", "preserve"],
        selection=list(KINDS), side=["on target", "off target"],
    )  # fmt: skip
    area.loc[{"side": "on target"}] = 0.6
    area.loc[{"side": "on target", "selection": KINDS[0]}] = 0.6 - 0.3 * sign
    depth = xr.DataArray(0.01 * np.arange(6), dims="layer", coords={"layer": area["layer"]})
    gap = sign * (depth + 0.3 + noise) * xr.ones_like(area.isel(side=0, trial=0, drop=True))
    middle = gap.mean("concept")
    apart = middle.isel(selection=[1, 2]).rename(selection="pair")
    apart = apart.assign_coords(pair=[f"{KINDS[0]} − {other}" for other in KINDS[1:]])
    ends = xr.DataArray([-0.01, 0.01], dims="bound", coords={"bound": ["low", "high"]})
    return xr.Dataset(
        {
            "area": area + noise * (area["selection"] == KINDS[0]),
            "concept_estimate": gap,
            "estimate": middle,
            "estimate_interval": (middle + ends).transpose(..., "bound"),
            "difference": apart,
            "difference_interval": (apart + ends).transpose(..., "bound"),
        }
    )


def test_verdicts_follow_the_numbers():
    better, worse = (control_claims(curves(sign), "Fig. 6") for sign in (1, -1))
    assert len(better) == 14
    assert set(holds(better).values()) == {True}
    assert set(holds(worse).values()) == {False}
    found = {claim.name: claim.found for claim in better}
    assert found["deeper is more specific"] == pytest.approx(
        0.04
    )  # (4 + 5)/2 − (0 + 1)/2 hundredths
    assert found["fewer channels"] == pytest.approx(-0.3 + 0.0015)


def test_where_channels_are_held_at_their_mean_it_is_said():
    found = curves().sel(style=["ablate"]).assign_attrs(fill="mean")
    claims = control_claims(found, "ours")
    assert len(claims) == 6  # of one style, and nothing of depth
    assert all("held at their mean" in claim.says for claim in claims)
    assert "ablate, held at their mean is specific" in holds(claims)
    plain = control_claims(found.assign_attrs(fill=0.0), "ours")
    assert not any("held at" in claim.says for claim in plain)


def test_an_early_layer_decides_only_claims_about_every_layer():
    found = curves()
    found["estimate_interval"].loc[{"layer": "block 0", "style": "ablate", "bound": "low"}] = -0.1
    verdicts = holds(control_claims(found, "Fig. 6"))
    assert [name for name, one in verdicts.items() if not one] == ["ablate is specific"]


def test_intervals_over_two_superclasses_are_not_tested():
    verdicts = holds(control_claims(curves(concepts=2), "Fig. S10", "superclass"))
    assert [name for name, one in verdicts.items() if one is None] == [
        "deeper is more specific",
        "fewer channels",
    ]


def test_other_images_are_asked(tmp_path):
    save_networks(tmp_path)
    words = ["--out", str(tmp_path), "--model", str(tmp_path / "vit"), "--count", "9"]
    options = control_options([*words, "--asked", "7", "--seed", "3"])
    asked = asked_study(options)
    assert (asked.seed, len(asked.labels), options.seed, options.count) == (4, 7, 3, 9)


def test_both_figures_are_saved_side_by_side(tmp_path, monkeypatch):
    class Drawn:
        def __init__(self, *arguments):
            self.arguments = arguments

        def savefig(self, path, dpi):
            path.write_text(f"{self.arguments} {dpi}")

    monkeypatch.setattr(control, "plot_control", Drawn)
    monkeypatch.setattr(control, "plot_control_by_layer", Drawn)
    curves, by_layer = save_control("found", tmp_path / "figure.6.png", "late")
    assert [curves.name, by_layer.name] == ["figure.6.png", "figure.6_layers.png"]
    assert curves.read_text() == "('found', 'late') 150"
    assert by_layer.read_text() == "('found',) 150"
