"""Times of a run whose costs are known, as the script of the runtime section saves them."""

from typing import Any

import numpy as np
import xarray as xr

PATH, ONE = "IntegratedGradients", "ActNormGrad"
BASE = {"part": "images", "sweep": "", "method": "", "steps": 10, "batch": 8, "layers": "all",
        "images": 16, "tokens": 0, "channels": 0, "depth": np.nan, "above": np.nan}  # fmt: skip


def timings(
    *,
    ratio: float = 3.0,
    power: float = 1.0,
    site: float = 1.0,
    late: float = 1.0,
    length: float = 0.8,
    width: float = 2.0,
    language: bool = True,
    noise: float = 0.002,
    rounds: int = 7,
) -> xr.Dataset:
    """Make times: 0.5 s once, 0.02 s per image by a path, ``ratio`` times less by one gradient.

    Parameters
    ----------
    power : float
        Of images, and of steps, above the smallest.
    site, late : float
        How much longer a language model takes at the attention, and in its last block.
    length : float
        Exponent over tokens.
    width : float
        How much longer the wider autoencoder takes.
    language : bool
        Whether there is a language model.
    """
    rows: list[dict[str, Any]] = []
    seconds: list[float] = []

    def add(time: float, **values: Any) -> None:
        rows.append(BASE | values)
        seconds.append(time)

    each = {PATH: 0.02, ONE: 0.02 / ratio}
    for name, counts in ((PATH, (8, 16, 32, 64)), (ONE, (32, 64, 128, 256))):
        for count in counts:
            time = 0.5 + each[name] * (counts[0] + (count - counts[0]) ** power)
            add(time, sweep="images", method=name, images=count)
        for layer, share in (("layers.0", 1.0), ("layers.1", 0.8), ("all", 1.0)):
            add(share * each[name] * 16, sweep="layers", method=name, layers=layer)
    for steps in (2, 5, 10, 20):
        extra = (steps - 2) ** power if steps > 2 else 0.0
        add(0.5 + 0.1 * (3 + extra), sweep="steps", method=PATH, steps=steps)
    for batch in (1, 4, 16):
        add(0.3 + 0.2 / batch, sweep="batch", method=ONE, batch=batch)
    for name, widths in (("ResNet-50", (256, 2048)), ("ViT-B", (768, 3072))):
        for place, channels in enumerate(widths):
            add(width**place, part="autoencoder", sweep=name, channels=channels)
    for name, factor in ((PATH, 11.0), (ONE, 1.0)) if language else ():
        shared = {"part": "language", "method": name, "images": 1, "batch": 1}
        for kind, more in (("post_attention", site), ("post_mlp", 1.0)):
            for depth in (0.0, 1.0):
                place = {"depth": depth, "above": 0.9 - 0.8 * depth, "layers": f"h.{depth}"}
                time = 0.1 * factor * more * late**depth
                add(time, sweep=kind, tokens=64, **shared | place)
        for tokens in (32, 64, 128):
            add(0.1 * factor * (tokens / 64) ** length, sweep="tokens", tokens=tokens, **shared)
    shake = 1 + noise * np.random.default_rng(0).normal(size=(len(rows), rounds))
    processor = np.array(seconds)[:, None] * shake
    memory = [50.0 + row["batch"] if row["sweep"] == "batch" else np.nan for row in rows]
    return xr.Dataset(
        {
            "processor": (("setting", "round"), processor),
            "wall": (("setting", "round"), 2 * processor),
            "memory": ("setting", memory),
        },
        coords={key: ("setting", np.array([row[key] for row in rows])) for key in BASE},
        attrs={"model": "digits_cnn", "device": "cpu", "clock": "processor"},
    )
