"""What is measured on a language model: sparsity, groups and modes, contexts, ablation.

Notation: n sentences, g groups.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from retina_codec.analysis.concepts.correlate import correlate_concepts
from retina_codec.analysis.concepts.table import concept_table
from retina_codec.analysis.control.channels import best_modes
from retina_codec.analysis.control.curves import control_curves
from retina_codec.analysis.control.settings import ControlSettings
from retina_codec.analysis.gallery.contexts import top_contexts
from retina_codec.analysis.layers.statistics import measure_contributions
from retina_codec.networks.adapter import adapt
from retina_codec.paper.claims import Claim, judge
from retina_codec.paper.language.study import SITES, TARGETS, LanguageStudy
from retina_codec.statistics.resampling import percentiles
from retina_codec.storage.results import modes_at

__all__ = ["KINDS", "held_out_correlations", "language_claims", "language_study"]

Floats = npt.NDArray[np.float64]

KINDS = {
    "modes": "contribution modes",
    "contributions": "channels, contributions",
    "activation_modes": "activation modes",
    "activations": "channels, activations",
}
PAIRS = {
    "modes − activation modes": ("modes", "activation_modes"),
    "modes − channels": ("modes", "contributions"),
}
CONTEXTS = 6  # of a mode


def language_study(
    study: LanguageStudy,
    *,
    blocks: Sequence[int],
    ablated: Sequence[int],
    numbers: Sequence[int] = (12, 24, 48),
    percentages: Sequence[float] = (10, 40),
    trials: int = 4,
    permutations: int = 200,
    bootstraps: int = 1000,
) -> xr.DataTree:
    """Measure contributions to the entropy of the next word and to its logit.

    Parameters
    ----------
    study : LanguageStudy
    blocks : sequence of int
        Blocks, from 0, whose MLP and attention get modes.
    ablated : sequence of int
        Those of them whose channels are ablated.
    numbers : sequence of int
        Numbers of modes to choose from, on the part "chosen".
    percentages, trials
        See `control_curves`.
    permutations : int
        Shuffles of the groups.
    bootstraps : int
        Draws of sentences for intervals.

    Returns
    -------
    xr.DataTree
        ``/sentences``, see `LanguageStudy.predictions`. For each target: ``/<target>/statistics``,
        see `measure_contributions`; ``choice`` (number), the mean correlation that chose the
        number of modes; ``held_out``, see `held_out_correlations`; ``summary``, see
        `correlate_concepts`, of the part "reported"; ``contexts`` (layer, mode, rank), see
        `top_contexts`, of the part "reported". ``/logit/ablation``, see `control_curves`: classes
        are groups, right is a sentence whose next word is most likely of its group, sentences are
        those of the part "reported".

    Raises
    ------
    RetinaCodecError
        If the model has other blocks, or settings are not valid.
    """
    nodes: dict[str, Any] = {
        "/": xr.Dataset(attrs={"model": study.model.name, "sentences": len(study.sentences),
                               "method": repr(study.method), "start": str(study.model.start)}),
        "/sentences": study.predictions(),
    }  # fmt: skip
    layers = [study.layers_of(site)[block] for site in SITES for block in blocks]
    cut = [study.layers_of(site)[block] for site in SITES for block in ablated]
    for target in TARGETS:
        found = study.contributions(target)
        nodes[f"/{target}/statistics"] = measure_contributions(
            found, bootstraps=bootstraps, seed=study.seed
        )
        choice = _choice(study, target, layers, numbers)
        number = int(choice["number"].values[int(np.argmax(choice["correlation"].values))])
        nodes[f"/{target}/choice"] = choice.assign_attrs(chosen=number)
        modes = study.modes(target, layers, number)
        rival = study.modes(target, layers, number, of="activations")
        nodes[f"/{target}/held_out"] = held_out_correlations(
            study, modes, rival, layers, bootstraps=bootstraps
        )
        own = study.part("reported")
        correlated = correlate_concepts(
            modes.isel(sample=own),
            concept_table(xr.DataArray(study.labels[own], dims="sample")),
            activation_modes=rival.isel(sample=own),
            layers=layers,
            permutations=permutations,
            bootstraps=bootstraps,
            seed=study.seed,
        )
        nodes[f"/{target}/summary"] = correlated["summary"].to_dataset()
        predicted = nodes["/sentences"]["predicted"].values
        nodes[f"/{target}/contexts"] = _contexts(study, modes, layers, predicted)
        if target == "logit":
            nodes["/logit/ablation"] = _ablation(
                study, modes, rival, cut, percentages=percentages, trials=trials,
                bootstraps=bootstraps,
            )  # fmt: skip
    return xr.DataTree.from_dict(nodes)


def _choice(
    study: LanguageStudy, target: str, layers: Sequence[str], numbers: Sequence[int]
) -> xr.Dataset:
    """Correlate modes with groups inside the part "chosen": fitted to its first half.

    The mode of a group is chosen on the first half, r is that of the second; mean over groups and
    layers.
    """
    own = study.part("chosen")
    half = len(own) // 2
    inner = LanguageStudy(
        study.model, [study.sentences[one] for one in own], study.folder, study.steps, study.seed
    )
    inner._ready[target, repr(study.method)] = study.contributions(target).isel(sample=own)
    member = _members(study.labels[own])
    rows = []
    for number in numbers:
        modes = inner.modes(target, layers, number, held_out=(len(own) - half) / len(own))
        each = []
        for layer in layers:
            loading = _rows(modes_at(modes, layer)["loading"])
            best = best_modes(loading[:half], member[:half], 1)[0][:, 0]
            each.append(np.nanmean(_paired(loading[half:, best], member[half:])))
        rows.append(float(np.mean(each)))
    return xr.Dataset(
        {"correlation": ("number", rows, {"units": "1"})}, coords={"number": list(numbers)}
    )


def _members(labels: npt.NDArray[np.str_]) -> npt.NDArray[np.bool_]:
    """Return which sentences belong to which group, (n, g), groups in alphabetical order."""
    found: npt.NDArray[np.bool_] = labels[:, None] == np.unique(labels)
    return found


def _rows(values: xr.DataArray) -> Floats:
    """Return features as (sample, feature)."""
    table: Floats = values.transpose("sample", ...).values.astype(np.float64)
    return table.reshape(len(table), -1)


def _paired(features: Floats, member: npt.NDArray[np.bool_]) -> Floats:
    """Pearson r of feature k with group k, (g,); NaN where one of the two does not vary."""
    x, y = features - features.mean(0), member - member.mean(0)
    scale = np.sqrt((x**2).sum(0) * (y**2).sum(0))
    found: Floats = np.divide(
        (x * y).sum(0), scale, out=np.full(len(scale), np.nan), where=scale > 0
    )
    return found


def held_out_correlations(
    study: LanguageStudy,
    modes: xr.DataTree,
    activation_modes: xr.DataTree,
    layers: Sequence[str],
    *,
    bootstraps: int = 1000,
) -> xr.Dataset:
    """Correlate with groups, on the part "reported", what the part "chosen" found to fit best.

    For every group the mode (or channel) with the largest Pearson r on the part "chosen"; r of the
    same mode on the part "reported". Chance is 0, because the two parts share no sentence; they
    share patterns of sentences. A mode that does not vary there counts as r = 0.

    Parameters
    ----------
    study : LanguageStudy
    modes, activation_modes : xr.DataTree
        From `LanguageStudy.modes`, fitted to the part "chosen".
    layers : sequence of str
    bootstraps : int
        Draws of sentences of the part "reported", within groups.

    Returns
    -------
    xr.Dataset
        ``correlation`` (layer, kind, concept), ``mean`` (layer, kind) over groups with
        ``mean_interval`` (95 %), ``difference`` (layer, pair) of means on the same resamples with
        ``difference_interval``; ``feature`` (layer, kind, concept), label of the mode or channel.
    """
    fit, own = study.part("chosen"), study.part("reported")
    member, groups = _members(study.labels), np.unique(study.labels)
    random = np.random.default_rng(study.seed)
    drawn = np.stack([_resample(study.labels[own], random) for _ in range(bootstraps)])
    r = np.zeros((len(layers), len(KINDS), len(groups)))
    feature = np.zeros(r.shape, np.int64)
    means = np.zeros((bootstraps, len(layers), len(KINDS)))
    for row, layer in enumerate(layers):
        node = modes[f"layers/{layer}"].to_dataset()
        tables = {
            "modes": modes_at(modes, layer)["loading"],
            "contributions": node["contribution"].sel(sign="excitatory"),
            "activation_modes": modes_at(activation_modes, layer)["loading"],
            "activations": node["activation"],
        }
        for column, kind in enumerate(KINDS):
            values = _rows(tables[kind])
            best = best_modes(values[fit], member[fit], 1)[0][:, 0]
            chosen, there = values[np.ix_(own, best)], member[own]
            r[row, column] = np.nan_to_num(_paired(chosen, there))
            labels = tables[kind]["mode" if "mode" in tables[kind].dims else "channel"].values
            feature[row, column] = labels[best]
            for draw, some in enumerate(drawn):
                means[draw, row, column] = np.nan_to_num(_paired(chosen[some], there[some])).mean()
    order = list(KINDS)
    pairs = [(order.index(one), order.index(other)) for one, other in PAIRS.values()]
    apart = [r[..., one, :].mean(-1) - r[..., other, :].mean(-1) for one, other in pairs]
    drawn_apart = np.stack([means[..., one] - means[..., other] for one, other in pairs], -1)
    unit = {"units": "1"}
    return xr.Dataset(
        {
            "correlation": (("layer", "kind", "concept"), r, unit),
            "feature": (("layer", "kind", "concept"), feature),
            "mean": (("layer", "kind"), r.mean(-1), unit),
            "mean_interval": (("layer", "kind", "bound"), percentiles(means), unit),
            "difference": (("layer", "pair"), np.stack(apart, -1), unit),
            "difference_interval": (("layer", "pair", "bound"), percentiles(drawn_apart), unit),
        },
        coords={"layer": list(layers), "kind": order, "concept": groups, "pair": list(PAIRS),
                "bound": ["low", "high"]},
    )  # fmt: skip


def _resample(labels: npt.NDArray[np.str_], random: np.random.Generator) -> npt.NDArray[np.intp]:
    """Draw sentences with replacement within their groups."""
    parts = [np.flatnonzero(labels == name) for name in np.unique(labels)]
    return np.concatenate([random.choice(part, len(part)) for part in parts])


def _contexts(
    study: LanguageStudy,
    modes: xr.DataTree,
    layers: Sequence[str],
    predicted: npt.NDArray[np.str_],
) -> xr.Dataset:
    """Top contexts of every mode of every layer, of the part "reported"."""
    own = study.part("reported")
    some = modes.isel(sample=own)
    texts = [[study.model.word(token) for token in study.tokens[one]] for one in own]
    if study.model.start is not None:
        texts = [words[1:] for words in texts]
    words = predicted[own].tolist()
    by_layer = []
    for layer in layers:
        numbers = modes_at(some, layer)["mode"].values.tolist()
        found = [
            top_contexts(some, layer, mode, texts, predicted=words, count=CONTEXTS)
            for mode in numbers
        ]
        padded = [_padded(one.drop_vars("sample")) for one in found]
        by_layer.append(xr.concat(padded, xr.Variable("mode", numbers), combine_attrs="drop"))
    names = xr.Variable("layer", list(layers))
    return xr.concat(by_layer, names, join="outer", fill_value=FILL, combine_attrs="drop")


FILL: Mapping[str, Any] = {"text": "", "word": "", "predicted": "", "label": "", "position": -1,
                           "loading": np.nan}  # fmt: skip


def _padded(found: xr.Dataset) -> xr.Dataset:
    """Give contexts of a mode all ranks."""
    return found.reindex(rank=np.arange(CONTEXTS), fill_value=dict(FILL))


def _ablation(
    study: LanguageStudy,
    modes: xr.DataTree,
    rival: xr.DataTree,
    layers: Sequence[str],
    *,
    percentages: Sequence[float],
    trials: int,
    bootstraps: int,
) -> xr.Dataset:
    """Ablate the modes of groups on sentences that did not choose them."""
    fit, own = study.part("chosen"), study.part("reported")
    return control_curves(
        adapt(study.answers, list(SITES)),
        study.padded(own),
        study.labels[own],
        modes.isel(sample=fit),
        activation_modes=rival.isel(sample=fit),
        mode_labels=study.labels[fit],
        layers=list(layers),
        settings=ControlSettings(
            style="ablate",
            percentages=percentages,
            trials=trials,
            bootstraps=bootstraps,
            classes=study.answers.classes,
        ),
        seed=study.seed,
        progress=study.progress,
    )


def language_claims(saved: xr.DataTree) -> list[Claim]:
    """Judge on a language model what the paper says of networks for images.

    Parameters
    ----------
    saved : xr.DataTree
        From `language_study`.

    Returns
    -------
    list of Claim

    References
    ----------
    Melander et al. 2026, CODEC, sections 3 to 5 and 10.5, about image networks.
    """
    claims = []
    for target in TARGETS:
        statistics = saved[f"{target}/statistics"].to_dataset().sel(quantity="contribution")
        for site in SITES:
            here = statistics.isel(layer=statistics["site"].values == site)
            for key, what in (("difference", ""), ("varying_difference", ", both less their mean")):
                claims.append(judge(
                    f"sparser_{target}_{site}{'_varying' if what else ''}", "as section 3",
                    f"Contributions to the {target} are sparser than activations{what}: {site}.",
                    here[key].values, here[f"{key}_interval"].values, low=0,
                    measure="Hoyer, contributions − activations",
                    places=here["layer"].values.tolist(),
                ))  # fmt: skip
        held = saved[f"{target}/held_out"].to_dataset()
        names = held["layer"].values.tolist()
        own = held.sel(kind="modes")
        claims.append(judge(
            f"groups_{target}", "as section 4",
            f"Modes of contributions to the {target} follow groups of sentences, other sentences "
            "of the same patterns.",
            own["mean"].values, own["mean_interval"].values, low=0,
            measure="r on sentences not fitted", places=names,
        ))  # fmt: skip
        for pair, says in (
            ("modes − activation modes", "more than modes of activations"),
            ("modes − channels", "more than single channels of contributions"),
        ):
            here = held.sel(pair=pair)
            claims.append(judge(
                f"{pair.split()[-1]}_{target}", "as section 4",
                f"Modes of contributions to the {target} follow groups {says}.",
                here["difference"].values, here["difference_interval"].values, low=0,
                measure=f"r, {pair}", places=names,
            ))  # fmt: skip
    return claims + _ablation_claims(saved["logit/ablation"].to_dataset().sel(style="ablate"))


def _ablation_claims(found: xr.Dataset) -> list[Claim]:
    """Judge how specifically ablation takes a group's words away."""
    names, ours = found["layer"].values.tolist(), "contribution modes"
    own = found.sel(selection=ours)
    claims = [judge(
        "specific", "as section 5", "Ablating a group's mode costs its words more than others.",
        own["estimate"].values, own["estimate_interval"].values, low=0,
        measure="area off − on target", places=names,
    )]  # fmt: skip
    for other in ("activation modes", "random channels"):
        here = found.sel(pair=f"{ours} − {other}")
        claims.append(judge(
            f"better_than_{other.split()[0]}", "as section 5",
            f"It does so more than {other}.",
            here["difference"].values, here["difference_interval"].values, low=0,
            measure=f"area, contribution modes − {other}", places=names,
        ))  # fmt: skip
    return claims
