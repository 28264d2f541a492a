"""Many images through the 16 blocks of a ResNet-50 into a store: memory, time, and a kill.

Random weights in the published shape (``transformers``), pieces of 224 px of two photographs made
when they are asked for, channel sums by sign of all 16 blocks, `contribute` with ``store``. Three
things are measured:

- ``streams``: for each of ``--counts`` a fresh process; highest resident memory during the run
  above the level before it, wall and processor time per image, bytes of the store. Up to 256 images
  are one shard, so memory may grow with the number of images until there, and not after;
- ``killed``: a run over smaller pictures (``--pixels-killed``) is killed by SIGKILL once a shard is
  on the disk, the same call is made again, and all files are compared with those of a run that was
  never interrupted;
- ``arithmetic``: floating point operations of one forward pass and of one image by the method, from
  torch's counter.

Prints one JSON line.

    python benchmarks/image_store.py --counts 64 256 1000 --threads 1
"""

import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import measure, parser, report
from operations import Operations
from resnet_contributions import Logits
from torch.utils.data import Dataset

import retina_codec as rc
from retina_codec.networks.adapter import Adapter

HERE = Path(__file__).resolve()
MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
METHODS: dict[str, Callable[[int], Any]] = {
    "ActNormGrad": lambda _steps: rc.methods.ActNormGrad(),
    "IntegratedGradients": rc.methods.IntegratedGradients,
}


class Pieces(Dataset[torch.Tensor]):
    """Random squares of two photographs, half of them mirrored; number i is always the same."""

    def __init__(self, count: int, pixels: int) -> None:
        from sklearn.datasets import load_sample_images

        self.count, self.pixels = count, pixels
        self.photographs = load_sample_images().images

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> torch.Tensor:
        """Return piece number ``index``, ``(color, y, x)``, z-scored."""
        if not 0 <= index < self.count:
            raise IndexError(index)
        draw = np.random.default_rng((0, index))
        photograph = self.photographs[index % len(self.photographs)]
        y, x = (int(draw.integers(side - self.pixels + 1)) for side in photograph.shape[:2])
        piece = photograph[y : y + self.pixels, x : x + self.pixels]
        if draw.random() < 0.5:
            piece = piece[:, ::-1]
        scaled = (piece.astype(np.float32) / 255 - MEAN) / STD
        return torch.from_numpy(np.ascontiguousarray(scaled.transpose(2, 0, 1)))


def prepare() -> Adapter:
    """Return the network and its 16 blocks, always the same."""
    from transformers import ResNetConfig, ResNetForImageClassification

    torch.manual_seed(0)
    network = Logits(ResNetForImageClassification(ResNetConfig(num_labels=1000)))
    norms = [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    with torch.no_grad():  # statistics of a few pieces, as training would have left them
        for norm in norms:
            norm.momentum = 1.0
            norm.bias.normal_(0, 0.2)
        pieces = Pieces(8, 224)
        network.train()(torch.stack([pieces[place] for place in range(8)]))
    return rc.adapt(network.eval(), "blocks")


def explain(
    network: Adapter, count: int, pixels: int, batch: int, method: str, steps: int, store: Path
) -> None:
    """Stream ``count`` pieces into a store."""
    rc.contribute(
        network,
        Pieces(count, pixels),
        target=rc.targets.TopK(1),
        method=METHODS[method](steps),
        batch_size=batch,
        store=store,
        progress=False,
    )


def stream(
    count: int, pixels: int, batch: int, method: str, steps: int, store: str
) -> tuple[Callable[[], None], Callable[[], dict[str, np.ndarray]]]:
    """Prepare one measured run; a batch is the warm-up."""
    network = prepare()
    settings = (pixels, batch, method, steps)

    def warm() -> None:
        explain(network, batch, *settings, Path(store) / "warm.zarr")

    def run() -> dict[str, np.ndarray]:
        explain(network, count, *settings, Path(store) / "run.zarr")
        files = [p for p in (Path(store) / "run.zarr").rglob("*") if p.is_file()]
        return {"bytes": np.array(sum(p.stat().st_size for p in files))}

    return warm, run


def streams(given: Any) -> list[dict[str, Any]]:
    """Measure a run of every size in a process of its own."""
    rows = []
    for count in given.counts:
        with tempfile.TemporaryDirectory(dir=given.folder) as store:
            settings = {
                "count": count,
                "pixels": given.pixels,
                "batch": given.batch,
                "method": given.method,
                "steps": given.steps,
                "store": store,
            }
            row, arrays = measure(HERE, "stream", settings, repeats=1, threads=given.threads)
        rows.append(
            {
                "images": count,
                "seconds_per_image": row["seconds"] / count,
                "cpu_seconds_per_image": row["cpu_seconds"] / count,
                "peak_mb": row["peak_bytes"] / 1e6,
                "store_kb_per_image": float(arrays["bytes"]) / count / 1e3,
                "gemm_gflops": row["gemm_flops"] / 1e9,
            }
        )
        print(rows[-1], file=sys.stderr, flush=True)
    return rows


def killed(given: Any) -> dict[str, Any]:
    """Kill a run after its first shard, go on, and compare with one never interrupted."""
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        broken, whole = Path(folder) / "broken.zarr", Path(folder) / "whole.zarr"
        first = _child(given, broken)
        marks = broken.with_name("broken.zarr.partial") / "done"
        while first.poll() is None and not list(marks.glob("contributions*")):
            time.sleep(0.05)
        os.kill(first.pid, signal.SIGKILL)  # our own child, which nobody has waited for yet
        first.wait()
        done = len(list(marks.glob("contributions*")))
        if broken.exists():
            raise RuntimeError("the run ended before it was killed; take more images")
        for place in (broken, whole):
            if _child(given, place).wait():
                raise RuntimeError(f"a run into {place.name} failed")
        sums = [_sums(place) for place in (broken, whole)]
    differing = [name for name in sums[0] | sums[1] if sums[0].get(name) != sums[1].get(name)]
    return {
        "images": given.images_killed,
        "pixels": given.pixels_killed,
        "shards": -(-given.images_killed // 256),
        "shards_done_when_killed": done,
        "files": len(sums[1]),
        "files_that_differ": differing,
    }


def _child(given: Any, store: Path) -> subprocess.Popen[bytes]:
    words = [given.images_killed, given.pixels_killed, given.batch, given.method, given.steps]
    command = [sys.executable, str(HERE), "--child", str(store), *map(str, words)]
    return subprocess.Popen(command)


def _sums(store: Path) -> dict[str, str]:
    """Return a checksum of every file of a store."""
    return {
        str(path.relative_to(store)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(store.rglob("*"))
        if path.is_file()
    }


def arithmetic(method: str, steps: int) -> dict[str, float]:
    """Count the operations for one more image, and those of one forward pass."""
    network = prepare()
    how = {"target": rc.targets.TopK(1), "method": METHODS[method](steps)}
    counts = []
    for images in (1, 2):  # what is looked up once per run drops out of the difference
        with Operations() as whole:
            rc.contribute(network, Pieces(images, 224), **how, batch_size=1, progress=False)
        counts.append(whole.count)
    with torch.no_grad(), Operations() as forward:
        network.module(Pieces(1, 224)[0][None])
    return {
        "forward_gflop": forward.count / 1e9,
        "image_gflop": (counts[1] - counts[0]) / 1e9,
    }


def main() -> None:
    """Run all and print one line."""
    if "--child" in sys.argv:
        store, count, pixels, batch, method, steps = sys.argv[sys.argv.index("--child") + 1 :]
        torch.set_num_threads(1)
        explain(prepare(), int(count), int(pixels), int(batch), method, int(steps), Path(store))
        return
    line = parser(__doc__ or "")
    line.add_argument("--counts", type=int, nargs="*", default=[64, 256, 512])
    line.add_argument("--pixels", type=int, default=224, help="of the streams")
    line.add_argument("--batch", type=int, default=4)
    line.add_argument("--no-arithmetic", action="store_true", help="count no operations")
    line.add_argument("--method", choices=list(METHODS), default="ActNormGrad")
    line.add_argument("--steps", type=int, default=10, help="of integrated gradients")
    line.add_argument("--images-killed", type=int, default=520, help="0: no run is killed")
    line.add_argument("--pixels-killed", type=int, default=64)
    line.add_argument("--folder", type=Path, help="for the stores; the system's if left out")
    given = line.parse_args()
    result: dict[str, Any] = {
        "benchmark": "image_store",
        "method": given.method,
        "batch": given.batch,
        "pixels": given.pixels,
        "threads": given.threads,
    }
    if not given.no_arithmetic:
        result["arithmetic"] = {name: arithmetic(name, given.steps) for name in METHODS}
    if given.images_killed:
        result["killed"] = killed(given)
    result["streams"] = streams(given)
    report(result)


if __name__ == "__main__":
    main()
