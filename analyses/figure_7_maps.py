# ---
# jupytext:
#   text_representation:
#     extension: .py
#     format_name: percent
# ---

# %% [markdown]
# # Figure 7: what a mode uses of an image
#
# The images that load a mode most, of the classes that load it most, and what the mode's channels
# use of them (Melander et al., ICLR 2026, section 6): maps of the probability of the predicted
# class through the tenth of the channels with the largest weights, and images seen through them.
#
#     python analyses/figure_7_maps.py --out out/digits_cnn
#     python analyses/figure_7_maps.py --out out/resnet50 --data IMAGES --model resnet50
#
# "The same lower-level features in images of different classes" is measured, not only looked at.
# What lies under a map is described by fourteen features (edges in eight directions, light, dark,
# four colours): how much more of each lies under the map than in the whole image, less the mean
# over all maps that are made of this image. Likeness is Pearson r of two such descriptions, of two
# images of different classes. It is compared with the likeness when the second map is another
# mode's: 0 where it does not matter which mode it is. Maps through random channels, the same in
# both images, stand beside: any fixed set of channels has features of its own.

# %%
"""Maps of modes in images of several classes: pictures, likeness across classes, gain."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import retina_codec as rc
from retina_codec.analysis import MapSettings, mode_maps, overlay, top_images
from retina_codec.paper import (
    MUTED,
    WIDTH,
    contrast,
    digit_squares,
    draw_title,
    features_under,
    grid,
    likeness,
    local_features,
    mode_channels,
    new_figure,
    object_gain,
    progress_bar,
    styled,
    type_colors,
)
from retina_codec.paper.claims import Claim, judge
from retina_codec.paper.script import run_figure, run_script
from retina_codec.paper.study import ImageStudy, study_arguments, study_of

NAME = "figure_7_maps"
KINDS = ("mode", "other mode", "random channels")
CLASSES, PER_CLASS = 4, 3


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    study_arguments(parser)
    parser.add_argument(
        "--layers", nargs="+", help="blocks; those at a quarter and half of the depth if left out"
    )
    parser.add_argument("--modes", type=int, default=12, help="leading modes measured, per layer")
    parser.add_argument("--shown", type=int, default=3, help="modes that are drawn, per layer")
    parser.add_argument("--share", type=float, default=0.1, help="of the channels, by weight")
    parser.add_argument("--others", type=int, default=2, help="other modes, and random sets, each")
    parser.add_argument(
        "--input-grad", action="store_true", help="maps as in the paper, noisier: gradients once"
    )
    return parser.parse_args(words)


# %% [markdown]
# ## Step 1: compute and save


# %%
def compute(options: argparse.Namespace, path: Path) -> None:
    """Map the leading modes of some layers, in their own top images."""
    study = study_of(options)
    blocks = study.layers_of("blocks")
    layers = options.layers or [blocks[len(blocks) // 4], blocks[len(blocks) // 2]]
    modes = study.modes("contributions", layers=layers)
    nodes: dict[str, xr.Dataset] = {}
    for number, layer in enumerate(layers):
        found = one_layer(study, modes, layer, options)
        nodes |= {f"/{number}/{path}": data for path, data in found.items()}
    tree = xr.DataTree.from_dict(nodes)
    tree.attrs = {"model": options.model, "layers": list(layers), "share": options.share}
    rc.save_tree(tree, path, overwrite=True)


def one_layer(
    study: ImageStudy, modes: xr.DataTree, layer: str, options: argparse.Namespace
) -> dict[str, xr.Dataset]:
    """Make pictures and numbers of the leading modes of a layer."""
    tops = leading(modes, layer, options.modes)
    nodes: dict[str, xr.Dataset] = {}
    rows: list[dict[str, list[float]]] = []
    names = list(tops)
    for number, mode in enumerate(progress_bar(names, description=f"modes of {layer}")):
        others = [names[(number + k + 1) % len(names)] for k in range(options.others)]
        position, label = tops[mode]
        some = pictures(study.images, position)
        maps = all_maps(study, some, modes, layer, mode, others, options)
        nodes[f"pictures/{number}"] = seen(some, maps["mode"][0], label, position, mode)
        features = local_features(some)
        under = {
            kind: [features_under(features, one).values for one in several]
            for kind, several in maps.items()
        }
        rows.append({"likeness": across_classes(under, label), "gain": gains(some, maps)})
    numbers = {
        key: (("mode", "kind"), np.array([row[key] for row in rows]), {"units": "1"})
        for key in ("likeness", "gain")
    }
    coords = {"mode": names, "kind": list(KINDS)}
    nodes["numbers"] = xr.Dataset(numbers, coords=coords, attrs={"layer": layer})
    return nodes


def leading(modes: xr.DataTree, layer: str, count: int) -> dict[int, tuple[np.ndarray, list[str]]]:
    """Return the modes with the largest loadings that two classes or more share.

    With each, the positions and classes of the images that load it most.
    """
    loading = modes[f"layers/{layer}/modes"]["loading"]
    order = loading["mode"].values[np.argsort(-loading.sum("sample").values, kind="stable")]
    found: dict[int, tuple[np.ndarray, list[str]]] = {}
    for mode in order:
        top = top_images(modes, layer, mode, classes=CLASSES, per_class=PER_CLASS)
        there = (top["loading"].values > 0) & (top["position"].values >= 0)
        label = np.repeat(top["concept"].values[:, None].astype(str), PER_CLASS, 1)[there]
        if len(set(label.tolist())) > 1 and len(found) < count:
            found[int(mode)] = (top["position"].values[there], label.tolist())
    if not found:
        raise rc.RetinaCodecError(
            f"no mode of layer {layer!r} is loaded by images of two classes. Explain more images."
        )
    return found


def pictures(images: Any, position: Sequence[int] | np.ndarray) -> xr.DataArray:
    """Read some of the images."""
    if isinstance(images, xr.DataArray):
        return images.isel(sample=position)
    some = [images[int(one)] for one in position]
    values = np.stack([np.asarray(one[0] if isinstance(one, tuple) else one) for one in some])
    return xr.DataArray(values, dims=("sample", "color", "y", "x"))


def all_maps(
    study: ImageStudy,
    some: xr.DataArray,
    modes: xr.DataTree,
    layer: str,
    mode: int,
    others: list[int],
    options: argparse.Namespace,
) -> dict[str, list[xr.DataArray]]:
    """Make maps (sample, color, y, x) of the mode, of other modes and of random channels."""
    method = rc.methods.InputGrad(study.grey) if options.input_grad else study.path_integral()

    def of_mode(one: int) -> xr.DataArray:
        return mode_maps(
            study.network, some, modes, layer, one, method=method,
            settings=MapSettings(share=options.share, batch_size=len(some)),
            device=study.device, progress=False,
        )["map"]  # fmt: skip

    weight = mode_channels(modes, layer, mode, share=options.share).values > 0
    random = np.random.default_rng([options.seed, mode])
    by_chance = [
        rc.analysis.input_map(
            study.network, some, layer, target=rc.targets.Probability(), method=method,
            weights=random.permutation(weight).astype(float), positive_only=True,
            batch_size=len(some), device=study.device,
        )["map"]
        for _ in range(options.others)
    ]  # fmt: skip
    return {
        "mode": [of_mode(mode)],
        "other mode": [of_mode(other) for other in others],
        "random channels": by_chance,
    }


def seen(
    some: xr.DataArray, maps: xr.DataArray, label: list[str], position: np.ndarray, mode: int
) -> xr.Dataset:
    """Images in [0, 1] and what the mode uses of them."""
    low, high = float(some.min()), float(some.max())
    shown = some if low >= 0 and high <= 1 else (some - low) / (high - low)
    plain = xr.DataArray(shown.values, dims=shown.dims)
    found = overlay(plain, xr.DataArray(maps.values, dims=maps.dims))
    return xr.Dataset(
        {"image": plain, "overlay": found["overlay"], "mask": found["mask"]},
        coords={"label": ("sample", label), "position": ("sample", np.asarray(position))},
        attrs={"mode": mode},
    )


def across_classes(under: dict[str, list[np.ndarray]], label: list[str]) -> list[float]:
    """Mean likeness of two images of different classes, by kind of the second map.

    From each description (sample, feature) the mean over all maps of the same image is taken away.
    """
    apart = np.not_equal.outer(np.array(label), np.array(label))
    every = np.stack([one for kind in KINDS for one in under[kind]])
    known = np.isfinite(every)
    count = np.maximum(known.sum(0), 1)  # where nothing is known, nothing remains
    common = np.where(known, every, 0.0).sum(0) / count
    own, *_ = rest = [one - common for kind in KINDS for one in under[kind]]
    others = len(under["other mode"])
    pairs = {
        "mode": [(own, own)],
        "other mode": [(own, one) for one in rest[1 : 1 + others]],
        "random channels": [(one, one) for one in rest[1 + others :]],
    }
    found = []
    for kind in KINDS:
        each = np.concatenate([likeness(one, other)[apart] for one, other in pairs[kind]])
        each = each[np.isfinite(each)]
        found.append(float(each.mean()) if len(each) else np.nan)
    return found


def gains(some: xr.DataArray, maps: dict[str, list[xr.DataArray]]) -> list[float]:
    """Mean gain of each kind of map on the digit; NaN where images do not say where it is."""
    if "digit_size" not in some.coords:
        return [np.nan] * len(KINDS)
    inside = digit_squares(some)
    found = []
    for kind in KINDS:
        each = np.concatenate([object_gain(one, inside) for one in maps[kind]])
        each = each[np.isfinite(each)]
        found.append(float(each.mean()) if len(each) else np.nan)
    return found


# %% [markdown]
# ## Step 2: what the paper says, judged by intervals
#
# Modes are the units of all intervals (Student's t); each number of a mode averages its images.


# %%
def numbers_of(saved: xr.DataTree) -> dict[str, xr.Dataset]:
    """Return the numbers of each layer, in the order they were asked for."""
    found = [saved[name]["numbers"].to_dataset() for name in sorted(saved.children, key=int)]
    return {str(one.attrs["layer"]): one for one in found}


def claims_of(saved: xr.DataTree) -> list[Claim]:
    """Judge the paper's sentences, layer by layer."""
    source, claims = "section 6, Fig. 7", []
    for layer, numbers in numbers_of(saved).items():
        alike, gain = (
            numbers[key].transpose("mode", "kind").values for key in ("likeness", "gain")
        )
        same, own, more = (
            contrast(alike, [1, -1, 0]), contrast(gain, [1, 0, 0]), contrast(gain, [1, 0, -1])
        )  # fmt: skip
        claims += [
            judge(f"same_features_{layer}", source, "A mode uses the same lower-level features in "
                  f"images of different classes: {layer}.", *same[:2], low=0,
                  measure="likeness of two images' maps, of the mode − with another mode's"),
            judge(f"used_pixels_{layer}", source, "Maps show the pixels that channels within modes "
                  f"use to drive the output (here: they lie on the digit): {layer}.", *own[:2],
                  low=1, measure="share of the map on the digit's square / its share of the image"),
            judge(f"more_than_random_{layer}", source, "Maps highlight what drives the mode's own "
                  "channels (here: on the digit more than maps of random channels): "
                  f"{layer}.", *more[:2], low=0, measure="the same share, mode − random channels"),
        ]  # fmt: skip
    return claims


# %% [markdown]
# ## Step 3: draw what was saved


# %%
@styled
def figure_7(saved: xr.DataTree, shown: int = 3) -> Figure:
    """Draw images and overlays of some modes of each layer, and the numbers of all."""
    left, gap, bottom, top, between = 0.8, 0.12, 2.9, 0.5, 0.22
    side = (WIDTH - left - 0.1 - gap * (CLASSES - 1)) / (2 * CLASSES)
    rows = []
    for number, layer in enumerate(numbers_of(saved)):
        every = saved[f"{number}/pictures"]
        rows += [
            (layer, every[name].to_dataset()) for name in sorted(every.children, key=int)[:shown]
        ]
    height = top + len(rows) * (side + between) + bottom
    figure = new_figure(height)
    draw_title(figure, "", "Images of several classes, and what a mode uses of them")
    for row, (layer, here) in enumerate(rows):
        start = top + row * (side + between) + 0.18
        spec = grid(figure, [1], [1] * CLASSES, left=left, right=0.1, top=start,
                    bottom=height - start - side, gap_x=gap)  # fmt: skip
        y = 1 - (start + side / 2) / height
        words = f"{layer}\nmode {here.attrs['mode']}"
        figure.text(0.1 / WIDTH, y, words, va="center", weight="bold", size=8)
        for column, name in enumerate(dict.fromkeys(here["label"].values.tolist())):
            own = here.isel(sample=here["label"].values == name)
            both = spec[0, column].subgridspec(1, 2, wspace=0.02)
            for place, key in enumerate(("image", "overlay")):
                axes = figure.add_subplot(both[place])
                _picture(axes, own[key].isel(sample=0))
                if place == 0:
                    axes.set_title(str(name)[:28], size=8, loc="left", pad=2)
    spec = grid(figure, [1], [1, 1], left=0.75, right=0.15, top=height - bottom + 0.62, bottom=0.45,
                gap_x=0.9)  # fmt: skip
    axes = figure.add_subplot(spec[0])
    _by_mode(axes, saved, "likeness", "with another\nmode's map")
    axes.set_ylabel("likeness (r)")
    axes.set_title("what two maps mark, images of different classes", size=9)
    axes.axhline(0, color=MUTED, lw=0.8, ls=":")
    axes.legend(loc="best")
    axes = figure.add_subplot(spec[1])
    if all(np.isfinite(one["gain"]).any() for one in numbers_of(saved).values()):
        _by_mode(axes, saved, "gain", "another\nmode's")
        axes.axhline(1, color=MUTED, lw=0.8, ls=":")
        axes.set_ylabel("gain on the digit")
    else:
        axes.text(0.5, 0.5, "not measured: images do not\nsay where their object is",
                  ha="center", va="center", transform=axes.transAxes)  # fmt: skip
        axes.set_axis_off()
    axes.set_title("share of the map on the digit / share of the image", size=9)
    return figure


def _picture(axes: Axes, image: xr.DataArray) -> None:
    """Draw one image (color, y, x); grey where nothing is known."""
    axes.set_facecolor("#c9ced4")
    values = image.transpose("y", "x", "color").values if "color" in image.dims else image.values
    if np.isfinite(values).all():
        shown = values[..., 0] if values.ndim == 3 and values.shape[2] == 1 else values
        axes.imshow(shown.clip(0, 1), cmap="gray", vmin=0, vmax=1)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def _by_mode(axes: Axes, saved: xr.DataTree, key: str, other: str) -> None:
    """Draw a pale line per mode over the kinds of maps, and means with intervals, by layer."""
    place, found = np.arange(len(KINDS)), numbers_of(saved)
    colors = type_colors(list(found))
    for number, (layer, numbers) in enumerate(found.items()):
        table = numbers[key].transpose("mode", "kind").values
        here = place + 0.14 * (number - (len(found) - 1) / 2)
        axes.plot(here, table.T, "-", color=colors[layer], lw=0.6, alpha=0.3)
        means = [contrast(column[:, None], [1]) for column in table.T]
        axes.plot(here, [one.found for one in means], "o", color=colors[layer], ms=6,
                  label=f"{layer}, {len(table)} modes")  # fmt: skip
        axes.vlines(here, *np.array([one.interval for one in means]).T, color=colors[layer], lw=2)
    axes.set_xticks(place, ["the\nmode's", other, "through random\nchannels"])
    axes.set_xlim(-0.4, len(KINDS) - 0.6)


# %%
def draw(options: argparse.Namespace, saved: xr.DataTree) -> Path:
    """Draw the picture; return its path."""
    picture: Path = options.out / f"{NAME}.png"
    figure_7(saved, options.shown).savefig(picture, dpi=150)
    return picture


# %%
def main(words: list[str] | None = None) -> None:
    """Run all steps."""
    print(run_figure(NAME, arguments(words), compute, claims_of, draw))


if __name__ == "__main__":
    run_script(main)
