"""Scripts as modules, and small networks with random weights for them."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest
import torch
import xarray as xr

import retina_codec as rc
from retina_codec.networks.checkpoints import save_network
from retina_codec.networks.pictures.small_resnet import SmallResNet
from retina_codec.networks.pictures.small_vit import SmallViT

ANALYSES = Path(__file__).parents[2] / "analyses"


def load_script(name: str) -> ModuleType:
    """Load a script of analyses/ without running it."""
    spec = importlib.util.spec_from_file_location(name, ANALYSES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def save_networks(folder: Path) -> None:
    """Write a ResNet and a vision transformer of two blocks, ``cnn`` and ``vit``."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_network(SmallResNet(widths=(4, 4, 6, 8)), folder / "cnn", card="card")
        save_network(SmallViT(depth=2, dim=16), folder / "vit", card="card")


class Run(NamedTuple):
    """A script that has run: its folder, its words and what it saved."""

    folder: Path
    words: list[str]
    saved: xr.DataTree


def run_small(script: ModuleType, folder: Path, *words: str, model: str = "cnn") -> Run:
    """Run a script on a small network with random weights."""
    if not (folder / model).exists():
        save_networks(folder)
    given = ["--out", str(folder), "--model", str(folder / model), *words]
    script.main(given)
    return Run(folder, given, rc.open_tree(folder / f"{script.NAME}.nc", lazy=False))


def draws_without_computing(
    script: ModuleType,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    endings: tuple[str, ...] = ("",),
) -> None:
    """Check that ``--reuse`` draws all pictures again, and prints their paths last."""
    monkeypatch.setattr(script, "study_of", lambda *_: pytest.fail("computed again"))
    pictures = [run.folder / f"{script.NAME}{ending}.png" for ending in endings]
    for picture in pictures:
        picture.unlink()
    script.main([*run.words, "--reuse"])
    printed = capsys.readouterr().out.splitlines()
    assert printed[-len(pictures) :] == list(map(str, pictures))
    assert all(picture.stat().st_size > 10_000 for picture in pictures)


def holds(claims: list) -> dict[str, bool | None]:
    """Return verdicts by name."""
    return {claim.name: claim.holds for claim in claims}


def shifted(dataset, name: str, change: float):
    """Put a number of all layers, and intervals of ± 0.01 around it, into a dataset."""
    found = dataset.copy(deep=True)
    found[name].values[:] = change
    ends = found[f"{name}_interval"]
    ends.loc[{"bound": "low"}] = change - 0.01
    ends.loc[{"bound": "high"}] = change + 0.01
    return found
