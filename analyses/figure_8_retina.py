# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Figure 8: contribution decomposition of a retina
#
# The four panels of Figure 8 of Melander et al. (ICLR 2026), for any recording and the network
# fitted to it:
#
# - **A** the network and its target, the surprisal of the population response;
# - **B** rates, contributions of two layers, mode loadings and receptive fields over a few seconds;
# - **C** correlation of every mode with every cell, ordered by pathway;
# - **D** receptive fields by the set of active modes.
#
# The first step computes and saves; the second opens what was saved and only draws. Run it in the
# root of the repository:
#
#     python analyses/figure_8_retina.py --recording session.nwb --network insilico --out out
#
# Without `--recording`, the simulated retina watches a minute of photographs.

# %%
"""Compute and draw the four panels of the paper's Figure 8 for one recording."""

import argparse
from pathlib import Path

import retina_codec as rc
from retina_codec.paper.script import run_script


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recording", type=Path, help=".nwb, .nc or .zarr; simulated if left out")
    parser.add_argument("--network", type=Path, default=Path("insilico"))
    parser.add_argument("--out", type=Path, required=True, help="folder for results and figure")
    parser.add_argument("--split", default="test", choices=["test", "train"])
    parser.add_argument("--duration", type=float, default=60.0, help="s of the simulated movie")
    parser.add_argument("--stimulus-seed", type=int, default=1, help="of the simulated movie")
    parser.add_argument("--steps", type=int, default=20, help="of the path integral")
    parser.add_argument("--seed", type=int, default=0, help="of modes and pathways")
    parser.add_argument("--start", type=float, help="s, start of panel B; the liveliest by itself")
    parser.add_argument("--stop", type=float, help="s, end of panel B")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--reuse", action="store_true", help="draw again from saved results")
    return parser.parse_args(words)


# %% [markdown]
# ## Step 1: compute and save
#
# `analyze` runs contributions (integrated gradients, 20 steps), modes (sparse autoencoder),
# pathways (k-means on mode-cell correlations) and receptive fields, each a public function of its
# own.


# %%
def compute(options: argparse.Namespace, path: Path) -> None:
    """Analyze the recording and save the results."""
    network = rc.load_network(options.network)
    if options.recording is None:
        recording, _ = rc.simulate_retina(
            stimulus_seed=options.stimulus_seed,
            train_duration=10.0,  # s; the network is fitted already
            test_duration=options.duration,
        )
    else:
        recording = rc.open_recording(options.recording)
    results = rc.analyze(
        recording,
        network,
        split=options.split,
        settings=rc.analysis.AnalysisSettings(steps=options.steps, copies=0),
        seed=options.seed,
        hypotheses=False,  # not part of the figure
        device=options.device,
    )
    rc.save_tree(results, path, overwrite=True)


# %% [markdown]
# ## Step 2: draw what was saved


# %%
def draw(options: argparse.Namespace, path: Path) -> Path:
    """Draw the four panels; return the picture's path."""
    results = rc.open_tree(path, lazy=False)
    figure = rc.figures.plot_figure_8(results, options.start, options.stop)
    picture = options.out / "figure_8_retina.png"
    figure.savefig(picture, dpi=200)
    return picture


# %%
def main(words: list[str] | None = None) -> None:
    """Run both steps."""
    options = arguments(words)
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "figure_8_retina.nc"
    if not (options.reuse and path.exists()):
        compute(options, path)
    print(draw(options, path))


if __name__ == "__main__":
    run_script(main)
