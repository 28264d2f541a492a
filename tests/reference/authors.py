"""Values that the authors' own code gives, recorded once, and how to record them again.

``python -m tests.reference.authors DIR`` runs bscope (github.com/baccuslab/bscope), whose package
lies in DIR, on a small retina network and writes authors.json beside this file. Only numbers are
kept here, none of that code.
"""

import argparse
import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch

from retina_codec.networks.retina.model import RetinaCNN

FILE = Path(__file__).with_name("authors.json")
LAYERS = ("conv1", "conv2", "conv3")
STEPS = 20
# target of ours: target of theirs, without their softmax
TARGETS = {"Surprisal": "surprisal", "Sum": "sum", "TopK": "topk", "Contrast": "contrastive_top2"}
METHODS = ("int_grad", "act_grad", "act_normgrad")


def network() -> RetinaCNN:
    """A retina network whose weights do not depend on torch's random numbers."""
    made = RetinaCNN(
        "abcd",
        [(0, 0), (1, 1), (2, 0), (1, 0)],
        history=5,
        frame_shape=(9, 8),
        channels=(2, 3),
        kernel_sizes=(3, 3, 3),
    )
    random = np.random.default_rng(11)
    with torch.no_grad():
        for name, values in made.named_parameters():
            drawn = torch.from_numpy(random.normal(size=tuple(values.shape)))
            values.copy_(drawn * (0.3 if name.endswith("weight") else 1.0))
        made.norm3.scale.fill_(3.0)
        made.norm3.shift.copy_(torch.tensor([2.0, 0.5, 1.0, 1.8]))
    return made.eval()


def windows() -> torch.Tensor:
    """Six windows, (b, lag, y, x)."""
    return torch.from_numpy(np.random.default_rng(12).normal(size=(6, 5, 9, 8))).float()


def statistics() -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of the network's responses to many windows."""
    many = torch.from_numpy(np.random.default_rng(13).normal(size=(400, 5, 9, 8))).float()
    with torch.no_grad():
        rates = network()(many).double().numpy()
    return rates.mean(0), np.cov(rates.T)


def record(folder: str) -> dict[str, Any]:
    """Run their code for every method and target."""
    sys.path.insert(0, folder)
    for missing in ("IPython", "tqdm"):
        try:
            __import__(missing)
        except ImportError:
            stand_in = types.ModuleType(missing)
            stand_in.embed = None  # type: ignore[attr-defined]  # imported there, never called
            sys.modules[missing] = stand_in
    package = types.ModuleType("bscope")
    package.__path__ = [str(Path(folder) / "bscope")]
    sys.modules["bscope"] = package
    from bscope.scope import Scope  # type: ignore[import-not-found]

    mean, covariance = statistics()
    found: dict[str, Any] = {}
    for ours, theirs in TARGETS.items():
        for method in METHODS:
            model = network()
            scope = Scope(model, [getattr(model, name) for name in LAYERS])
            if method == "int_grad":
                scope.use_int_grad(steps=STEPS)
            else:
                getattr(scope, f"use_{method}")()
            scope.contribution_target, scope.softmax, scope.k = theirs, False, 2
            scope.set_surprisal_stats(mean, np.linalg.inv(covariance))
            scope.log_start(reduction=["ei_split", "spatial_sum"])
            scope(windows())
            scope.log_stop()
            for name, values in zip(LAYERS, scope.log_contributions, strict=True):
                rounded = [[float(f"{v:.7g}") for v in row] for row in values]
                found[f"{ours}/{method}/{name}"] = rounded
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", help="the folder that holds the package bscope")
    values = record(parser.parse_args().folder)
    origin = "github.com/baccuslab/bscope at 87fa61d, torch " + torch.__version__
    FILE.write_text(json.dumps({"origin": origin, "values": values}), encoding="utf-8")
