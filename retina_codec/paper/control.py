"""Figures 6 and S10: control of a network by the modes of its classes, and claims about it."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from retina_codec.analysis.control.curves import control_curves
from retina_codec.analysis.control.settings import PERCENTAGES, ControlSettings
from retina_codec.errors import RetinaCodecError
from retina_codec.figures.images.control import plot_control, plot_control_by_layer
from retina_codec.paper.claims import Claim, judge
from retina_codec.paper.study import ImageStudy, study_arguments, study_of
from retina_codec.statistics.differences import contrast, depth_weights, thirds

__all__ = [
    "asked_study",
    "control_claims",
    "control_of",
    "control_options",
    "perturbed_layers",
    "save_control",
]

OURS, THEIRS, CHANCE = "contribution modes", "activation modes", "random channels"


def control_options(
    words: Sequence[str] | None = None, description: str | None = None
) -> argparse.Namespace:
    """Read the command line of a script about control: `study_arguments` and its own."""
    parser = argparse.ArgumentParser(description=description)
    study_arguments(parser)
    parser.add_argument("--steps", type=int, default=10, help="of the path integral")
    parser.add_argument("--asked", type=int, default=100, help="images that are perturbed")
    parser.add_argument("--trials", type=int, default=10, help="draws of images and channels")
    parser.add_argument("--bootstraps", type=int, default=500, help="draws for intervals")
    parser.add_argument(
        "--percentages", type=float, nargs="+", default=list(PERCENTAGES), help="of channels"
    )
    parser.add_argument("--late", help="block of the curves; the last one if left out")
    parser.add_argument("--layers", nargs="+", help="blocks that are perturbed; all if left out")
    return parser.parse_args(words)


def asked_study(options: argparse.Namespace) -> ImageStudy:
    """Open the images that are perturbed: ``--asked`` of them, drawn with the next seed.

    Digit scenes are other scenes (of the same 500 digits of the test part); of folders some files
    may be those that chose the modes.
    """
    changed = vars(options) | {"count": options.asked, "seed": options.seed + 1}
    return study_of(argparse.Namespace(**changed))


def control_of(
    study: ImageStudy,
    asked: ImageStudy,
    options: argparse.Namespace,
    superclasses: Mapping[str, str] | None = None,
    **changes: Any,
) -> tuple[xr.Dataset, xr.DataTree]:
    """Control blocks of a network through modes of contributions and of activations.

    Parameters
    ----------
    study, asked : ImageStudy
        Whose images choose the modes, and whose are perturbed; see `asked_study`.
    options : argparse.Namespace
        From `control_options`.
    superclasses : mapping of str to str, optional
        Given, the concepts are superclasses.
    **changes
        Other fields of `ControlSettings`: ``style``, ``held_at``.

    Returns
    -------
    found : xr.Dataset
        See `control_curves`.
    modes : xr.DataTree
        Of contributions; see `ImageStudy.modes`.

    Raises
    ------
    RetinaCodecError
        If labels are no classes of the network, or superclasses hold one class each.
    """
    _check_labels(asked, superclasses)
    method, layers = study.path_integral(options.steps), perturbed_layers(study, options)
    modes, of_activations = (
        study.modes(of, method=method, layers=layers) for of in ("contributions", "activations")
    )
    found = control_curves(
        study.network,
        asked.images,
        asked.labels,
        modes,
        activation_modes=of_activations,
        mode_labels=study.labels,
        superclasses=superclasses,
        settings=ControlSettings(
            percentages=options.percentages,
            trials=options.trials,
            bootstraps=options.bootstraps,
            classes=study.classes or None,
            **changes,
        ),
        seed=options.seed,
        device=options.device,
    )
    return found, modes


def perturbed_layers(study: ImageStudy, options: argparse.Namespace) -> list[str]:
    """Return the blocks that ``--layers`` names, in their order; all when it is left out."""
    blocks, chosen = list(study.layers_of("blocks")), options.layers
    wrong = [name for name in chosen or () if name not in blocks]
    if wrong:
        raise RetinaCodecError(
            f"--layers must name blocks of the network; {wrong[0]!r} is none. They are "
            f"{', '.join(blocks)}."
        )
    return [name for name in blocks if not chosen or name in chosen]


def _check_labels(asked: ImageStudy, superclasses: Mapping[str, str] | None) -> None:
    """Refuse labels that no output has, and superclasses of one class each."""
    labels = set(asked.labels.tolist())
    wrong = sorted(labels - set(asked.classes)) if asked.classes else []
    if wrong or not (asked.classes or all(name.isdigit() for name in labels)):
        count = f" all {len(asked.classes)}" if asked.classes else " all"
        name = (wrong or sorted(labels))[0]
        raise RetinaCodecError(
            f"labels must be classes of the network, for its answers are judged; {name!r} is "
            "none. Put a LOC_synset_mapping.txt beside the folders of classes that lists"
            f"{count} outputs in order, folder name first."
        )
    groups = [superclasses.get(name, name) for name in labels] if superclasses else []
    if groups and len(set(groups)) == len(groups):
        raise RetinaCodecError(
            "superclasses must hold several classes; every class here is alone. Give --hierarchy "
            "FILE, rows of class and superclass."
        )


def save_control(found: xr.Dataset, path: Path, layer: str | None = None) -> list[Path]:
    """Save both figures of control; ``_layers`` is added to the name of the second.

    Parameters
    ----------
    found : xr.Dataset
        From ``analysis.control_curves``.
    path : Path
        Ending in the kind of picture, .png or .pdf.
    layer : str, optional
        Of the curves, the last when left out.

    Returns
    -------
    list of Path
        Of both.
    """
    other = path.with_name(f"{path.stem}_layers{path.suffix}")
    plot_control(found, layer).savefig(path, dpi=150)
    plot_control_by_layer(found).savefig(other, dpi=150)
    return [path, other]


def control_claims(found: xr.Dataset, source: str, concept: str = "class") -> list[Claim]:
    """Judge what the paper says about control through modes.

    Parameters
    ----------
    found : xr.Dataset
        From `control_curves`, with contribution modes, activation modes and random channels. Where
        channels are held at another level than 0 the claims say so.
    source : str
        Section and figure.
    concept : str
        "class" or "superclass".

    Returns
    -------
    list of Claim
        Specificity of contribution modes, and how much it exceeds that of the others, by style: in
        all layers, and in the late third of them (bootstrap over images and random orders); of
        ablation also its change from the early to the late third, and the area on target less
        that by activation modes, late third (Student's interval over concepts; not tested of
        fewer than three concepts).
    """
    layers = [str(name) for name in found["layer"].values]
    late = slice(0, None) if len(layers) < 3 else thirds(len(layers))[2]
    claims = []
    level = found.attrs.get("fill", 0.0)
    held = "" if level == 0 else f", held at {'their mean' if level == 'mean' else level}"
    does_what = {"ablate": "Ablating", "preserve": "Preserving"}
    for style in found["style"].values.tolist():
        does, here = does_what[style], found.sel(style=style)
        own = here.sel(selection=OURS)
        effect = "hurts" if style == "ablate" else "spares"
        rows = [("is specific", f"{does} a mode's channels {effect} its {concept} more than "
                 "others.", own["estimate"], own["estimate_interval"])]  # fmt: skip
        for other in (THEIRS, CHANCE):
            one = here.sel(pair=f"{OURS} − {other}")
            says = f"{does} by contribution modes is more specific than by {other}."
            name = f"beats {other}"
            rows.append((name, says, one["difference"], one["difference_interval"]))
        for name, says, middle, ends in rows:
            for where, part in (("", slice(0, None)), (", late", late)):
                words = says[:-1] + held + ("," if held else "")
                words += " in late blocks." if where else " in every block."
                claims.append(
                    judge(
                        f"{style}{held} {name}{where}",
                        source,
                        words,
                        middle.values[part],
                        ends.values[part],
                        low=0,
                        measure="specificity (area)" if "spec" in name else "its difference",
                        places=layers[part],
                    )
                )
    return claims + ([] if held else _by_concept(found, source, concept, late))


def _by_concept(found: xr.Dataset, source: str, concept: str, late: slice) -> list[Claim]:
    """Judge depth and the number of channels, with intervals over concepts."""
    here = found.sel(style="ablate")
    gap = here["concept_estimate"].sel(selection=OURS).transpose("concept", "layer").values
    area = here["area"].sel(side="on target").mean("trial")
    apart = (area.sel(selection=OURS) - area.sel(selection=THEIRS)).transpose("concept", "layer")
    less: npt.NDArray[np.float64] = apart.values[:, late].mean(axis=1)
    nothing = (np.nan, (np.nan, np.nan))
    depth = fewer = nothing
    if len(gap) >= 3:
        if gap.shape[1] >= 3:
            depth = contrast(gap, depth_weights(gap.shape[1], "late", "early"))[:2]
        fewer = contrast(less[:, None], [1.0])[:2]
    return [
        judge(
            "deeper is more specific",
            source,
            f"Ablation of a {concept} becomes more specific in deeper layers.",
            *depth,
            low=0,
            measure="specificity, late less early third of blocks",
        ),
        judge(
            "fewer channels",
            source,
            f"Fewer channels ablate a {concept} than by activation modes.",
            *fewer,
            high=0,
            measure="area on target, difference, mean over late blocks",
        ),
    ]
