"""Scripts as modules, and small networks with random weights for them."""

import importlib.util
from pathlib import Path
from types import ModuleType

import torch

from retina_codec.networks.small_networks import SmallResNet, SmallViT, save_small_network

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
        save_small_network(SmallResNet(widths=(4, 4, 6, 8)), folder / "cnn", "card")
        save_small_network(SmallViT(depth=2, dim=16), folder / "vit", "card")


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
