# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # What the paper says, and what holds here: all claims in one table
#
# Runs the scripts of the figures about image networks, once for each network, and prints their
# claims as one table: what Melander et al. (ICLR 2026) say, and for each network the number seen
# with its 95 % interval and the verdict, which a rule written in the script decides.
#
#     python analyses/claims.py --out out
#     python analyses/claims.py --out out --reuse          # run only what is missing
#     python analyses/claims.py --out out --data ILSVRC --models resnet50 vit_base_patch16_224
#
# Every network has a folder of its own in `--out`, shared by the scripts, so that contributions and
# modes are computed once. Words after `--` go to every script (`-- --device cuda`).

# %%
"""Run the scripts of all figures about image networks and print their claims as one table."""

import argparse
import contextlib
import csv
import importlib.util
import io
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import retina_codec as rc
from retina_codec.paper import find_structure
from retina_codec.paper.claims import with_interval
from retina_codec.paper.script import run_script

HERE = Path(__file__).parent
SCRIPTS = (
    "figure_2_contributions",
    "figure_3_layers",
    "figure_5_classes",
    "figure_6_control",
    "figure_7_maps",
    "figure_s1_methods",
    "figure_s3_robustness",
    "figure_s7_transformer",
    "figure_s8_heads",
    "figure_s10_superclasses",
    "figure_s11_contrast",
)
TRANSFORMERS = ("figure_s7_transformer", "figure_s8_heads")  # others have no such parts
MODELS = ("digits_cnn", "digits_vit")
SAYS, SEEN = 46, 38  # width of columns

Row = dict[str, str]


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """Read the command line; words after ``--`` are kept for the scripts."""
    given = sys.argv[1:] if words is None else list(words)
    cut = given.index("--") if "--" in given else len(given)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder; one inside per network")
    parser.add_argument("--models", nargs="+", default=list(MODELS), help="folders or names")
    parser.add_argument("--scripts", nargs="+", default=list(SCRIPTS), choices=SCRIPTS)
    parser.add_argument("--data", type=Path, help="images; digit scenes if left out")
    parser.add_argument("--count", type=int, help="images; what each script takes if left out")
    parser.add_argument("--reuse", action="store_true", help="run only what is missing")
    options = parser.parse_args(given[:cut])
    options.rest = given[cut + 1 :]
    return options


# %% [markdown]
# ## Step 1: run what is missing


# %%
def run(script: str, model: str, options: argparse.Namespace) -> Path:
    """Run one script for one network, unless its claims are there; return their path."""
    folder: Path = options.out / Path(model).name
    path = folder / f"{script}_claims.csv"
    if options.reuse and path.exists():
        return path
    words = ["--out", str(folder), "--model", model, *options.rest]
    for name in ("data", "count"):
        value = getattr(options, name)
        words += [] if value is None else [f"--{name}", str(value)]
    words += ["--reuse"] if options.reuse else []
    with contextlib.redirect_stdout(io.StringIO()):
        load(script).main(words)
    return path


def load(script: str) -> Any:
    """Load a script beside this one as a module."""
    spec = importlib.util.spec_from_file_location(script, HERE / f"{script}.py")
    if spec is None or spec.loader is None:
        raise rc.RetinaCodecError(f"there is no script {script} in {HERE}.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def gather(options: argparse.Namespace) -> tuple[list[Row], list[str]]:
    """Return all claims, each with its script and network, and what went wrong."""
    rows: list[Row] = []
    failed: list[str] = []
    for model in options.models:
        module = rc.networks.load_image_network(model).module
        transformer = find_structure(module).family == "transformer"
        for script in options.scripts:
            if script in TRANSFORMERS and not transformer:
                continue
            try:
                path = run(script, model, options)
            except rc.RetinaCodecError as error:  # the other figures are still worth their table
                failed.append(f"{script}, {Path(model).name}: {error}")
                continue
            with open(path, newline="", encoding="utf-8") as file:
                for row in csv.DictReader(file):
                    rows.append({"script": script, "model": Path(model).name} | row)
    return rows, failed


# %% [markdown]
# ## Step 2: one table


# %%
def combined_table(rows: Sequence[Row]) -> str:
    """Lay claims out in plain text: a line per claim, a column per network."""
    models = list(dict.fromkeys(row["model"] for row in rows))
    lines = [_line(["what the paper says", *models])]
    lines.append(_line(["─" * SAYS, *["─" * SEEN] * len(models)]))
    claims: dict[tuple[str, str], dict[str, Row]] = {}
    for row in rows:
        claims.setdefault((row["script"], row["name"]), {})[row["model"]] = row
    last = ""
    for (script, _), found in claims.items():
        if script != last:
            lines += [script.upper().replace("_", " "), ""]
            last = script
        any_row = next(iter(found.values()))
        cells = [f"{any_row['says']} ({any_row['source']}; {any_row['rule']})"]
        cells += [_seen(found[name]) if name in found else "—" for name in models]
        wide = [SAYS, *[SEEN] * len(models)]
        parts = [textwrap.wrap(c, w) or [""] for c, w in zip(cells, wide, strict=True)]
        for place in range(max(map(len, parts))):
            lines.append(_line([part[place] if place < len(part) else "" for part in parts]))
        lines.append("")
    for name in models:
        verdicts = [row["holds"] for row in rows if row["model"] == name]
        counts = ", ".join(f"{verdicts.count(word)} {word}" for word in ("yes", "no", "not tested"))
        lines.append(f"{name}: {len(verdicts)} claims: {counts}")
    return "\n".join(lines) + "\n"


def _seen(row: Row) -> str:
    found, low, high = (float(row[key]) for key in ("found", "low", "high"))
    numbers = f"{with_interval(found, low, high)} " if found == found else ""
    return f"{row['holds'].upper()}: {numbers}{row['measure']}"


def _line(cells: Sequence[str]) -> str:
    first, *rest = cells
    return "  ".join([first.ljust(SAYS), *(cell.ljust(SEEN) for cell in rest)]).rstrip()


# %%
def main(words: list[str] | None = None) -> int:
    """Run, print the table, and save it as text and CSV; 1 if a script failed."""
    options = arguments(words)
    options.out.mkdir(parents=True, exist_ok=True)
    rows, failed = gather(options)
    for line in failed:
        print(f"not run: {line}", file=sys.stderr)
    if rows:
        text = combined_table(rows)
        (options.out / "claims.txt").write_text(text, encoding="utf-8")
        with open(options.out / "claims.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        print(text)
    return int(bool(failed))


if __name__ == "__main__":
    run_script(main)
