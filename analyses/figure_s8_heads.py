# ---
# jupytext:
#   text_representation:
#     extension: .py
#     format_name: percent
# ---

# %% [markdown]
# # Figure S8: do attention heads specialise?
#
# Contributions (and activations) before the output projection of every attention are summed within
# each head. If few heads did the work, the Hoyer sparsity of these sums would lie above that of
# random groups of as many dimensions (Melander et al., ICLR 2026, section 10.5.4). Beside it stands
# the sparsity of single channels of the same images.
#
#     python analyses/figure_s8_heads.py --out out/digits_vit
#     python analyses/figure_s8_heads.py --out out/vit --data IMAGES --model vit_b_16
#
# Four heads of 16 dimensions in the network that is shipped, twelve of 64 in the paper's.

# %%
"""Sparsity over attention heads beside random groups, by layer; saved, judged, drawn."""

import argparse
from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

import retina_codec as rc
from retina_codec.analysis import head_sparsity
from retina_codec.paper import (
    COLORS,
    MUTED,
    band,
    contrast,
    draw_title,
    grid,
    hoyer,
    layer_axis,
    line,
    new_figure,
    styled,
)
from retina_codec.paper.claims import Claim, judge
from retina_codec.paper.script import run_figure, run_script
from retina_codec.paper.study import study_arguments, study_of

NAME = "figure_s8_heads"
QUANTITIES = ("contribution", "activation")
OVER = ("channels", "heads", "random groups")
GROUPINGS = 50  # for the random groups of every image
MUCH = 0.1  # a difference in Hoyer sparsity that counts as large; alike: less than half of it


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    study_arguments(parser)
    parser.set_defaults(model="digits_vit")
    parser.add_argument("--draws", type=int, default=200, help="random groupings")
    return parser.parse_args(words)


# %% [markdown]
# ## Step 1: compute and save


# %%
def compute(options: argparse.Namespace, path: Path) -> None:
    """Measure heads, random groups and single channels."""
    study = study_of(options)
    layers = study.layers_of("attention")
    if not layers:
        raise rc.RetinaCodecError(
            f"this figure needs a network with attention; {options.model!r} has "
            f"{', '.join(study.sites)}. Take digits_vit."
        )
    found = study.contributions()
    heads = head_sparsity(found, layers=layers, draws=options.draws, seed=options.seed)
    groups = {name: int(heads.attrs["heads"][n]) for n, name in enumerate(layers)}
    tree = xr.DataTree.from_dict(
        {"/heads": heads, "/images": by_image(found, groups, GROUPINGS, options.seed)}
    )
    tree.attrs = {"model": options.model, "images": len(study.labels)}
    rc.save_tree(tree, path, overwrite=True)


def by_image(found: xr.DataTree, heads: dict[str, int], draws: int, seed: int) -> xr.Dataset:
    """Hoyer sparsity of every image over channels, over heads, and over random groups (mean)."""
    rows = []
    for name, count in heads.items():
        layer = found[f"layers/{name}"].to_dataset()
        channels = layer.sizes["channel"]
        random = np.random.default_rng(seed)
        orders = np.stack([random.permutation(channels) for _ in range(draws)])
        for one in (layer["contribution"].sum("sign"), layer["activation"]):
            v = one.transpose("sample", "channel").values.astype(np.float64)
            groups = v[:, orders].reshape(len(v), draws, count, -1).sum(-1)
            own = v.reshape(len(v), count, -1).sum(-1)
            rows.append(np.stack([hoyer(v), hoyer(own), hoyer(groups).mean(1)]))
    table = np.stack(rows).reshape(len(heads), len(QUANTITIES), len(OVER), -1)
    return xr.Dataset(
        {"sparsity": (("layer", "quantity", "over", "sample"), table, {"units": "1"})},
        coords={"layer": list(heads), "quantity": list(QUANTITIES), "over": list(OVER)},
    )


# %% [markdown]
# ## Step 2: what the paper says, judged by intervals
#
# Excess: sparsity over heads less that over random groups. Its interval reaches from the sparsity
# (± 1.96 standard errors over images) to the middle 95 % of random groupings. Fluctuation: the
# standard deviation of the excess over images, as the paper draws it. Heads are minimally
# specialised if the excess is less than one of these.


# %%
def claims_of(saved: xr.DataTree) -> list[Claim]:
    """Judge the paper's sentences."""
    heads, images = saved["heads"].to_dataset(), saved["images"].to_dataset()["sparsity"]
    layers = [str(name) for name in heads["layer"].values]
    places = [f"{name}, {quantity}s" for name in layers for quantity in QUANTITIES]
    half = 1.96 * heads["sparsity_sem"].values
    null = heads["null_interval"].values  # (layer, quantity, bound)
    value, excess = heads["sparsity"].values, heads["excess"].values
    ends = np.stack([value - half - null[..., 1], value + half - null[..., 0]], -1)
    ratio = excess / heads["excess_spread"].values
    count = images.sizes["sample"]
    error = 1.96 * np.sqrt(1 / count + ratio**2 / (2 * count))

    def paired(first: dict[str, str], second: dict[str, str]) -> dict[str, object]:
        """Difference within images, by layer, as `judge` takes it."""
        both = [images.sel(one).transpose("layer", "sample").values for one in (first, second)]
        found = [contrast(pair, [1, -1]) for pair in np.stack(both, -1)]
        ends = [one.interval for one in found]
        return {"found": [one.found for one in found], "interval": ends, "places": layers}

    def at(quantity: str, over: str) -> dict[str, str]:
        return {"quantity": quantity, "over": over}

    source = "10.5.4, Fig. S8"
    return [
        judge("increase", source, "Learned heads show a small increase in sparsity over random "
              "groups, for contributions and activations.", excess.ravel(), ends.reshape(-1, 2),
              low=0, measure="Hoyer, heads − random groups", places=places),
        judge("minimal", source, "The increase is well within the fluctuation over the dataset: "
              "heads are minimally specialised.", ratio.ravel(),
              np.stack([ratio - error, ratio + error], -1).reshape(-1, 2), high=1,
              measure="excess in standard deviations over images", places=places),
        judge("random_alike", source, "Random groups have nearly identical sparsity for "
              "contributions and activations.",
              **paired(at("contribution", "random groups"), at("activation", "random groups")),
              low=-MUCH / 2, high=MUCH / 2,
              measure="Hoyer of random groups, contributions − activations"),
        judge("much_smaller", source, "Sparsity over heads is much smaller than over single "
              "channels.", **paired(at("contribution", "channels"), at("contribution", "heads")),
              low=MUCH, measure="Hoyer of contributions, channels − heads"),
        judge("channels", "10.5.4, Fig. S7F", "Over channels of attention, contributions are about "
              "0.1 to 0.2 sparser than activations.",
              **paired(at("contribution", "channels"), at("activation", "channels")),
              low=0.05, high=0.25, measure="Hoyer over channels, contributions − activations"),
    ]  # fmt: skip


# %% [markdown]
# ## Step 3: draw what was saved


# %%
@styled
def figure_s8(saved: xr.DataTree) -> Figure:
    """Draw heads, random groups and channels by layer, and the excess beside its fluctuation."""
    heads, images = saved["heads"].to_dataset(), saved["images"].to_dataset()["sparsity"]
    layers = [str(name) for name in heads["layer"].values]
    blocks = [str(number + 1) for number in range(len(layers))]
    figure = new_figure(3.6)
    counts = sorted({int(n) for n in np.atleast_1d(heads.attrs["heads"])})
    draw_title(figure, "", f"Attention heads ({', '.join(map(str, counts))} per layer), "
               f"{saved.attrs['images']} images")  # fmt: skip
    spec = grid(figure, [1], [1, 1, 1], left=0.6, right=0.15, top=0.72, bottom=0.5,
                gap_x=0.75)  # fmt: skip
    place = np.arange(len(layers))
    for column, quantity in enumerate(QUANTITIES):
        axes, color = figure.add_subplot(spec[column]), COLORS[quantity]
        own = images.sel(quantity=quantity, over="channels").transpose("layer", "sample").values
        numbers = [contrast(row[:, None], [1]) for row in own]
        ends = np.array([one.interval for one in numbers])
        line(axes, np.array([one.found for one in numbers]), ends, MUTED, label="single channels")
        here = heads.sel(quantity=quantity)
        middle = here["sparsity"].values
        half = 1.96 * here["sparsity_sem"].values
        spread = images.sel(quantity=quantity, over="heads").std("sample").values
        axes.vlines(place, middle - spread, middle + spread, color=color, lw=5, alpha=0.18,
                    label="± standard deviation over images")  # fmt: skip
        line(axes, middle, np.stack([middle - half, middle + half], -1), color,
             label="heads")  # fmt: skip
        low, high = here["null_interval"].values.T
        axes.fill_between(place, low, high, color="#1f2733", alpha=0.25, lw=0,
                          label="random groups, middle 95 %")  # fmt: skip
        axes.set_title(f"{quantity}s", size=9)
        axes.set_ylabel("Hoyer sparsity" if column == 0 else "")
        axes.set_ylim(0, 1)
        axes.legend(loc="upper left", handlelength=1.4, fontsize=7.5, borderaxespad=0.1)
        layer_axis(axes, blocks)
        axes.set_xlabel("block", labelpad=2)
    axes = figure.add_subplot(spec[2])
    for number, quantity in enumerate(QUANTITIES):
        here, shift = heads.sel(quantity=quantity), 0.2 * (number - 0.5)
        middle, half = here["excess"].values, 1.96 * here["excess_sem"].values
        null = here["null_interval"].values - here["null_mean"].values[:, None]
        spread = here["excess_spread"].values
        band(axes, np.stack([-spread, spread], -1), COLORS[quantity], shift=shift)
        band(axes, null, "#1f2733", shift=shift)
        line(axes, middle, np.stack([middle - half, middle + half], -1), COLORS[quantity],
             shift=shift, ls="none", label=f"{quantity}s")  # fmt: skip
    axes.axhline(0, color=MUTED, lw=0.8, ls=":")
    axes.set_title("pale: ± SD over images; dark: random groupings", size=8)
    axes.set_ylabel("heads − random groups")
    axes.set_ylim(top=1.3 * axes.get_ylim()[1])
    axes.legend(loc="upper left", ncols=2, handlelength=1.0)
    layer_axis(axes, blocks)
    axes.set_xlabel("block", labelpad=2)
    return figure


# %%
def draw(options: argparse.Namespace, saved: xr.DataTree) -> Path:
    """Draw the picture; return its path."""
    picture: Path = options.out / f"{NAME}.png"
    figure_s8(saved).savefig(picture, dpi=150)
    return picture


# %%
def main(words: list[str] | None = None) -> None:
    """Run all steps."""
    print(run_figure(NAME, arguments(words), compute, claims_of, draw))


if __name__ == "__main__":
    run_script(main)
