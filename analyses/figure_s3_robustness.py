# ---
# jupytext:
#   text_representation:
#     extension: .py
#     format_name: percent
# ---

# %% [markdown]
# # Figure S3: are the modes robust?
#
# The study of the supplement (10.3) of Melander et al. (ICLR 2026): the published, gated
# autoencoder is fitted again with other penalties λ, thresholds θ, modes per feature K/d, widths H
# of the encoder, seeds, and with free signs; and this package's default with the settings that
# correspond: modes active at a time, modes, seeds, and free signs. One setting is changed at a
# time. Each fit is compared with the first of its kind: R² on held-out times, live modes, modes
# active at a time, and how well its modes match those of the first (mean cosine, one to one).
#
#     python analyses/figure_s3_robustness.py --results out/figure_8_retina.nc --out out
#
# `--results` is any tree with contributions, as `contribute` or `analyze` save it.

# %%
"""Fit with one setting changed at a time, and draw what that does to the modes."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import retina_codec as rc
from retina_codec.modes import GatedAutoencoder, decompose
from retina_codec.modes.stability import agreement, cosine
from retina_codec.progress import progress_bar

GATED: dict[str, list[Any]] = {
    "loading_penalty": [1e-4, 1e-3],
    "threshold": [0.5, 0.7],
    "modes_per_feature": [1, 3, 5],
    "hidden": [8, 32],
    "sign_consistent": [False],
    "seed": [1, 2],
}
SPARSE: dict[str, list[Any]] = {
    "active": [1, 2, 5],
    "modes": [16, 48],
    "sign_consistent": [False],
    "seed": [1, 2],
}
MEASURES = {
    "r2": "R² on held-out times",
    "live_modes": "live modes",
    "mean_active": "active at a time",
    "mode_match": "match to the first",
}


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, required=True, help=".nc or .zarr, contributions")
    parser.add_argument("--out", type=Path, required=True, help="folder for table and figure")
    parser.add_argument("--layer", default="conv1")
    parser.add_argument("--epochs", type=int, default=800, help="of the gated autoencoder")
    parser.add_argument(
        "--rate", type=float, default=1e-3, help="its learning rate (published 1e-5)"
    )
    parser.add_argument("--sparse-epochs", type=int, default=60, help="of the default")
    parser.add_argument("--gap", type=int, default=40, help="samples left out before held-out ones")
    parser.add_argument("--reuse", action="store_true", help="draw again from the saved table")
    return parser.parse_args(words)


# %% [markdown]
# ## Step 1: fit and save


# %%
def fits_of(options: argparse.Namespace) -> list[tuple[str, str, str, Any]]:
    """Name every fit: method, setting that is changed, its value, the method itself."""
    gated = GatedAutoencoder(epochs=options.epochs, learning_rate=options.rate)
    sparse = rc.SparseAutoencoder(epochs=options.sparse_epochs)
    found: list[tuple[str, str, str, Any]] = []
    for base, changes in ((gated, GATED), (sparse, SPARSE)):
        name = type(base).__name__
        found.append((name, "first", "", base))
        for setting, values in changes.items():
            found += [
                (name, setting, f"{value:g}", replace(base, **{setting: value})) for value in values
            ]
    return found


def compute(options: argparse.Namespace, path: Path) -> None:
    """Fit everything and save one table."""
    tree = rc.open_tree(options.results, lazy=False)
    rows: list[dict[str, Any]] = []
    first: dict[str, xr.Dataset] = {}
    for name, setting, value, method in progress_bar(fits_of(options), description="fits"):
        row: dict[str, Any] = {"method": name, "setting": setting, "value": value}
        try:
            found = decompose(tree, method, layers=[options.layer], gap=options.gap, progress=False)
        except rc.RetinaCodecError as error:  # all modes dead is an outcome of this study
            if "no mode is alive" not in str(error):
                raise
            rows.append(row | dict.fromkeys(MEASURES, np.nan) | {"live_modes": 0.0})
            continue
        modes = found[f"layers/{options.layer}/modes"].to_dataset()
        first.setdefault(name, modes)
        row |= {key: float(modes[key]) for key in ("r2", "live_modes", "mean_active")}
        rows.append(row | {"mode_match": match(first[name], modes)})
    table = xr.Dataset(
        {key: ("fit", np.array([row[key] for row in rows])) for key in rows[0]},
        attrs={"layer": options.layer, "epochs": options.epochs, "learning_rate": options.rate},
    )
    rc.save_tree(xr.DataTree(table), path, overwrite=True)


def match(one: xr.Dataset, other: xr.Dataset) -> float:
    """Return the mean cosine of the modes that explain 95 %, matched one to one."""
    flat, share = [], []
    for modes in (one, other):
        dictionary = modes["dictionary"].values.reshape(modes.sizes["mode"], -1).astype(float)
        flat.append(dictionary)
        share.append(np.abs(modes["loading"].values).sum(0) * np.abs(dictionary).sum(1))
    return agreement(cosine(*flat), *share).leading


# %% [markdown]
# ## Step 2: draw what was saved


# %%
def draw(options: argparse.Namespace, path: Path) -> Path:
    """Draw one column per measure and one row per fit; return the picture's path."""
    from matplotlib.figure import Figure

    table = rc.open_tree(path, lazy=False).to_dataset()
    names = [
        f"{setting} {value}".replace("_", " ").strip()
        for setting, value in zip(table["setting"].values, table["value"].values, strict=True)
    ]
    kinds = table["method"].values
    place = np.arange(len(names)) + (kinds != kinds[0])  # a gap between the methods
    figure = Figure(figsize=(10.4, 0.24 * len(names) + 1.3), layout="constrained")
    for axes, (key, words) in zip(
        np.ravel(figure.subplots(1, len(MEASURES), sharey=True)), MEASURES.items(), strict=True
    ):
        for kind, color in zip(dict.fromkeys(kinds), ("#b0762a", "#5b3f8c"), strict=False):
            own = kinds == kind
            axes.plot(table[key].values[own], place[own], "o", color=color, ms=5, label=kind)
            axes.axvline(table[key].values[own][0], color=color, lw=0.8, ls=":")
        axes.set_xlabel(words)
        axes.set_yticks(place, names)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].invert_yaxis()
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=2)
    picture: Path = options.out / "figure_s3_robustness.png"
    figure.savefig(picture, dpi=150)
    return picture


# %%
def main(words: list[str] | None = None) -> None:
    """Run both steps."""
    options = arguments(words)
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "figure_s3_robustness.nc"
    if not (options.reuse and path.exists()):
        compute(options, path)
    print(draw(options, path))


if __name__ == "__main__":
    main()
