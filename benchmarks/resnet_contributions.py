"""Contributions of the 16 blocks of a ResNet-50: the authors' code against this package.

Random weights in the published shape (``transformers``), random pictures, integrated gradients with
10 steps, the winning logit decided again at every point as the authors do, reduced to channel and
sign; each in a fresh process. Prints one JSON line.

    python benchmarks/resnet_contributions.py --reference ~/bscope
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from authors import load_scope
from measure import measure, parser, report
from torch import nn

import retina_codec as rc

HERE = Path(__file__).resolve()

Arrays = dict[str, np.ndarray]
Work = Callable[[], Arrays]


class Logits(nn.Module):
    """A classifier of the transformers library that gives back a plain tensor."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """Return logits ``(b, class)``."""
        logits: torch.Tensor = self.network(pictures).logits
        return logits


def prepare(size: str, batch: int) -> tuple[Logits, list[str], torch.Tensor]:
    """Return network, names of its blocks and pictures, always the same."""
    from transformers import ResNetConfig, ResNetForImageClassification

    torch.manual_seed(0)
    if size == "resnet50":
        config, pixels = ResNetConfig(num_labels=1000), 224
    else:
        config = ResNetConfig(
            embedding_size=16, hidden_sizes=[32, 64], depths=[2, 2], num_labels=10
        )
        pixels = 64
    network = Logits(ResNetForImageClassification(config)).eval()
    pictures = torch.randn(batch, 3, pixels, pixels)
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    with torch.no_grad():  # statistics of these pictures, as training would have left them
        for norm in norms:
            norm.momentum = 1.0
            norm.bias.normal_(0, 0.2)
        network.train()(pictures)
        network.eval()
    blocks = [name for name, _ in network.named_modules() if re.search(r"layers\.\d+$", name)]
    return network, blocks, pictures


def theirs(reference: str, size: str, batch: int, steps: int) -> Work:
    """Prepare the authors' way: trainable weights, arrays on the host, their reductions."""
    scope_class, _ = load_scope(reference)
    network, blocks, pictures = prepare(size, batch)
    scope = scope_class(network, [network.get_submodule(name) for name in blocks])
    scope.use_int_grad(steps=steps)
    scope.wrt_topk(k=1, softmax=False)

    def run() -> Arrays:
        scope.log_start(reduction=["ei_split", "spatial_sum"])
        scope(pictures)
        scope.log_stop()
        found = zip(blocks, scope.log_contributions, strict=True)
        return {name: both.reshape(len(both), 2, -1) for name, both in found}

    return run


def ours(
    size: str, batch: int, steps: int, reselect: bool = True, double: bool = False, part: int = 0
) -> Work:
    """Prepare `contribute`; ``part`` inputs at a time, all when 0."""
    network, blocks, pictures = prepare(size, batch)
    adapter = rc.adapt(network, blocks)
    pictures = pictures.to(memory_format=torch.channels_last)  # convolutions like it

    def run() -> Arrays:
        found = rc.contribute(
            adapter,
            pictures,
            target=rc.targets.TopK(1, reselect=reselect),
            method=rc.methods.IntegratedGradients(steps),
            batch_size=part or batch,
            dtype=torch.float64 if double else None,
            progress=False,
        )
        nodes = found["layers"].children
        return {name: nodes[name]["contribution"].values for name in blocks}

    return run


def captum(size: str, batch: int, steps: int) -> Work:
    """Prepare captum's layer conductance of the last block alone."""
    from captum.attr import LayerConductance

    network, blocks, pictures = prepare(size, batch)
    network.requires_grad_(False)
    conductance = LayerConductance(lambda x: network(x).amax(1), network.get_submodule(blocks[-1]))

    def run() -> Arrays:
        units = conductance.attribute(pictures, n_steps=steps, method="riemann_trapezoid")
        units = units.detach().flatten(2)
        both = torch.stack((units.clamp(max=0).sum(2), units.clamp(min=0).sum(2)), 1)
        return {blocks[-1]: both.numpy()}

    return run


def error(found: Arrays, truth: Arrays) -> list[float]:
    """Return, per block, ``√Σ(found − truth)² / √Σ truth²`` over inputs, signs and channels."""
    return [
        float(np.linalg.norm(found[name] - truth[name]) / np.linalg.norm(truth[name]))
        for name in found
    ]


def main() -> None:
    """Run all and print one line."""
    line = parser(__doc__ or "")
    line.add_argument("--reference", required=True, help="folder that holds the package bscope/")
    line.add_argument("--size", choices=("resnet50", "small"), default="resnet50")
    line.add_argument("--batch", type=int, default=4)
    line.add_argument("--steps", type=int, default=10)
    line.add_argument("--reference-steps", type=int, default=1000, help="0: no error")
    line.add_argument("--captum", action="store_true", help="also captum, one block")
    given = line.parse_args()
    common = {"size": given.size, "batch": given.batch, "steps": given.steps}
    tasks: dict[str, tuple[str, dict[str, Any]]] = {
        "authors": ("theirs", {"reference": given.reference}),
        "ours": ("ours", {}),
        "ours_one_at_a_time": ("ours", {"part": 1}),
    }
    if given.captum:
        tasks["captum_one_block"] = ("captum", {})
    rows: dict[str, dict[str, Any]] = {}
    arrays: dict[str, Arrays] = {}
    for name, (function, more) in tasks.items():
        rows[name], arrays[name] = measure(
            HERE, function, common | more, repeats=given.repeats, threads=given.threads
        )
    result: dict[str, Any] = {
        "benchmark": "resnet_contributions",
        **common,
        "layers": len(arrays["ours"]),
        "threads": rows["ours"]["torch_threads"],
        "peak_source": rows["ours"]["peak_source"],
        "reference_steps": given.reference_steps,
    }
    fastest = {name: min(row["all_seconds"]) for name, row in rows.items()}
    for name, row in rows.items():
        result[name] = {
            "seconds_per_input": fastest[name] / given.batch,
            "times_faster": fastest["authors"] / fastest[name],
            "peak_mb": row["peak_bytes"] / 1e6,
            "times_less_memory": rows["authors"]["peak_bytes"] / row["peak_bytes"],
            "gemm_gflops": row["gemm_flops"] / 1e9,
        }
    if given.reference_steps:
        for reselect, names in ((True, ("authors", "ours")), (False, ("ours_held",))):
            exact = {"reselect": reselect, "double": True, "steps": given.reference_steps}
            truth = ours(**(common | exact), part=1)()
            if not reselect:
                arrays["ours_held"] = ours(**common, reselect=False)()
                result["ours_held"] = {}
            for name in names:
                result[name]["error"] = error(arrays[name], truth)
    result["ours"]["difference_from_authors"] = error(arrays["ours"], arrays["authors"])
    report(result)


if __name__ == "__main__":
    main()
