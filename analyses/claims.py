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
#     python analyses/claims.py --out out --models digits_cnn cifar_resnet56:FILE \
#         efficientnet-lite0 --data cifar_resnet56=CIFAR/test efficientnet-lite0=IMAGENETTE/val \
#         --count 200 digits_cnn=1000 \
#         --set cifar_resnet56/figure_6_control="--layers layer2.0 layer3.8"
#
# Every network has a folder of its own in `--out`, shared by the scripts, so that contributions and
# modes are computed once. `--data`, `--count`, `--hierarchy` and `--set` take a value for all, or
# NAME=VALUE for one network (`--set` also SCRIPT=VALUE and NAME/SCRIPT=VALUE). Words after `--` go
# to every script (`-- --device cuda`). `claims.md` in the folder is the table for a page.

# %%
"""Run the scripts of all figures about image networks and print their claims as one table."""

import argparse
import contextlib
import csv
import importlib.util
import io
import itertools
import shlex
import sys
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import retina_codec as rc
from retina_codec.paper import find_structure
from retina_codec.paper.claims import with_interval
from retina_codec.paper.script import run_script
from retina_codec.paper.study import short_name

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
PER_MODEL = {
    "data": "images; digit scenes if left out",
    "count": "images; what each script takes if left out",
    "hierarchy": "file with the superclasses of classes",
}
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
    for name, what in PER_MODEL.items():
        parser.add_argument(f"--{name}", nargs="+", default=[], metavar="[MODEL=]VALUE", help=what)
    parser.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="MODEL/SCRIPT=WORDS",
        help="further words for one network (MODEL=), one script (SCRIPT=), or a script of one",
    )
    parser.add_argument("--reuse", action="store_true", help="run only what is missing")
    options = parser.parse_args(given[:cut])
    options.rest = given[cut + 1 :]
    names = [short_name(model) for model in options.models]
    for name in PER_MODEL:
        check_keys(f"--{name}", getattr(options, name), names)
    check_keys("--set", options.set, places(names))
    return options


def check_keys(option: str, values: Sequence[str], known: Sequence[str]) -> None:
    """Refuse a value for a network or script that is not run."""
    for value in values:
        key = split_key(value, known)[0]
        if key is None and "=" in value and not Path(value).exists():
            raise rc.RetinaCodecError(
                f"{option} NAME=VALUE must name one of {', '.join(known)}; got {value!r}."
            )


def split_key(value: str, known: Sequence[str]) -> tuple[str | None, str]:
    """Split NAME=VALUE; None where the value is for all."""
    key, sign, rest = value.partition("=")
    return (key, rest) if sign and key in known else (None, value)


def places(names: Sequence[str]) -> list[str]:
    """Return what words can be meant for: a network, a script, or a script of a network."""
    return [*names, *SCRIPTS, *(f"{name}/{script}" for name in names for script in SCRIPTS)]


def words_for(model: str, script: str, options: argparse.Namespace) -> list[str]:
    """Return the command line of one script for one network."""
    name = short_name(model)
    known = places(list(map(short_name, options.models)))
    words = ["--out", str(options.out / name), "--model", model, *options.rest]
    for option in PER_MODEL:
        pairs = [split_key(value, known) for value in getattr(options, option)]
        chosen = {key: value for key, value in pairs if key in (None, name)}
        words += [f"--{option}", chosen.get(name, chosen.get(None, ""))] if chosen else []
    for key, value in (split_key(one, known) for one in options.set):
        words += shlex.split(value) if key in (None, name, script, f"{name}/{script}") else []
    return words


# %% [markdown]
# ## Step 1: run what is missing


# %%
def run(script: str, model: str, options: argparse.Namespace) -> Path:
    """Run one script for one network, unless its claims are there; return their path."""
    path: Path = options.out / short_name(model) / f"{script}_claims.csv"
    if options.reuse and path.exists():
        return path
    words = words_for(model, script, options) + (["--reuse"] if options.reuse else [])
    started = time.monotonic()
    with contextlib.redirect_stdout(io.StringIO()):
        load(script).main(words)
    print(f"{script}, {short_name(model)}: {time.monotonic() - started:.0f} s", file=sys.stderr)
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
                failed.append(f"{script}, {short_name(model)}: {error}")
                continue
            with open(path, newline="", encoding="utf-8") as file:
                for row in csv.DictReader(file):
                    rows.append({"script": script, "model": short_name(model)} | row)
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


def page_table(rows: Sequence[Row]) -> str:
    """Lay claims out in Markdown: a section per script, a row per claim, a column per network."""
    models = list(dict.fromkeys(row["model"] for row in rows))
    claims: dict[str, dict[str, dict[str, Row]]] = {}
    for row in rows:
        claims.setdefault(row["script"], {}).setdefault(row["name"], {})[row["model"]] = row
    lines: list[str] = []
    for script, of_script in claims.items():
        lines += [f"### `{script}.py`", "", f"| claim | {' | '.join(models)} |"]
        lines.append("|---" * (len(models) + 1) + "|")
        for found in of_script.values():
            row = next(iter(found.values()))
            measure = shared_words([one["measure"].partition(", at worst")[0]
                                    for one in found.values()])  # fmt: skip
            rule = row["rule"].partition(", in all")[0]
            cells = [f"{row['says']} *{measure}; {rule}* ({row['source']})"]
            cells += [_cell(found[name]) if name in found else "" for name in models]
            lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
        lines.append("")
    counts = {name: [r["holds"] for r in rows if r["model"] == name] for name in models}
    totals = [f"{name}: {held.count('yes')} of {len(held)}" for name, held in counts.items()]
    return "\n".join([*lines, f"Claims that hold: {'; '.join(totals)}."]) + "\n"


def shared_words(texts: Sequence[str]) -> str:
    """Return the words with which all texts begin; they end with the name of a layer."""
    if len(set(texts)) == 1:
        return texts[0]
    columns = zip(*(text.split() for text in texts), strict=False)
    first = [words[0] for words in itertools.takewhile(lambda words: len(set(words)) == 1, columns)]
    return " ".join(first).removesuffix(" in") + " there"


def _cell(row: Row) -> str:
    """Write verdict, number and interval, and where it is worst; bold where it holds."""
    found, low, high = (float(row[key]) for key in ("found", "low", "high"))
    verdict = f"**{row['holds']}**" if row["holds"] == "yes" else row["holds"]
    if found != found:
        return verdict
    where = row["measure"].partition(", at worst ")[2].replace(" comply", "")
    return f"{verdict} {with_interval(found, low, high)}" + (f"; {where}" if where else "")


def _seen(row: Row) -> str:
    found, low, high = (float(row[key]) for key in ("found", "low", "high"))
    numbers = f"{with_interval(found, low, high)} " if found == found else ""
    return f"{row['holds'].upper()}: {numbers}{row['measure']}"


def _line(cells: Sequence[str]) -> str:
    first, *rest = cells
    return "  ".join([first.ljust(SAYS), *(cell.ljust(SEEN) for cell in rest)]).rstrip()


# %%
def main(words: list[str] | None = None) -> int:
    """Run, print the table, save it as text, CSV and Markdown; 1 if a script failed."""
    options = arguments(words)
    options.out.mkdir(parents=True, exist_ok=True)
    rows, failed = gather(options)
    for line in failed:
        print(f"not run: {line}", file=sys.stderr)
    if rows:
        text = combined_table(rows)
        (options.out / "claims.txt").write_text(text, encoding="utf-8")
        (options.out / "claims.md").write_text(page_table(rows), encoding="utf-8")
        with open(options.out / "claims.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        print(text)
    return int(bool(failed))


if __name__ == "__main__":
    run_script(main)
