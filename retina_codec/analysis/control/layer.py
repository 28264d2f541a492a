"""Run one layer with channel sets held back, and turn the answers into curves and areas.

Notation: P points of a curve, T trials, B resamples, N images.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr

from retina_codec.analysis.control.channels import Choice, Concepts, channel_counts, keep_sets
from retina_codec.analysis.control.settings import ControlSettings
from retina_codec.analysis.control.trials import Answers, Draws, areas, mean_known, two_sided
from retina_codec.errors import RetinaCodecError
from retina_codec.probing.interventions import Perturbed
from retina_codec.statistics.resampling import percentiles

__all__ = ["LayerAnswers", "run_layer"]

CURVE = ("style", "selection", "concept", "side", "percentage", "trial")

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

UNITS = {"units": "1"}


def run_layer(
    opened: Perturbed,
    name: str,
    chosen: dict[str, Choice],
    concepts: Concepts,
    settings: ControlSettings,
    progress: bool | None,
) -> "LayerAnswers":
    """Run the network once for each different channel set of a layer."""
    channels = opened.layers[name].channels
    groups = {choice.order.shape[1] for choice in chosen.values()}
    if len(groups) > 1:
        raise RetinaCodecError(
            f"all selections of layer {name!r} must take the same groups of channels; got "
            f"{sorted(groups)} of them. Give heads=, or modes of single channels."
        )
    number = groups.pop()
    counts = channel_counts(settings.shown, number)
    masks = [np.zeros((1, channels), np.float32)]
    for choice in chosen.values():
        for style in settings.styles:
            sets = keep_sets(choice.order, counts, style, channels)
            masks.append(sets.reshape(-1, channels))
    different, place = np.unique(np.concatenate(masks), axis=0, return_inverse=True)
    right, original = _answers(opened, name, different, concepts.output, settings, progress)
    share = np.concatenate([[0.0], counts / number, [1.0]])
    return LayerAnswers(
        chosen, concepts, settings, share, place.reshape(-1), right, original, opened.resumed[name]
    )


def _answers(
    opened: Perturbed,
    name: str,
    masks: npt.NDArray[np.float32],
    output: npt.NDArray[np.intp],
    settings: ControlSettings,
    progress: bool | None,
) -> tuple[Bools, Bools]:
    """Return which images are answered rightly, (set, N), and without intervention, (N,)."""
    code, top = torch.as_tensor(output), settings.top
    right = np.zeros((len(masks), len(code)), bool)
    original = np.zeros(len(code), bool)

    def hit(outputs: torch.Tensor, samples: slice) -> Bools:
        if outputs.shape[-1] < max(top, int(code.max()) + 1):
            raise RetinaCodecError(
                f"labels name output {int(code.max())}, top={top}, but the network has "
                f"{outputs.shape[-1]} outputs (batch, class). Give "
                "ControlSettings(classes=[...]), the names of the outputs in order."
            )
        leading = outputs.topk(top, -1).indices.cpu()
        found: Bools = (leading == code[samples][:, None]).any(-1).numpy()
        return found

    for sets, samples, outputs in opened.stream(
        name, masks, held_at=settings.held_at, progress=progress
    ):
        if sets.start == 0:
            original[samples] = hit(opened.unperturbed, samples)
        right[sets, samples] = hit(outputs, samples)
    return right, original


@dataclass
class LayerAnswers:
    """Answers of a network with channel sets of one layer held back."""

    chosen: dict[str, Choice]
    concepts: Concepts
    settings: ControlSettings
    share: Floats  # (P,) of the layer's channels
    place: npt.NDArray[np.intp]  # row of ``right`` for each set, in order of selection and style
    right: Bools  # (different set, N)
    original: Bools  # (N,)
    resumed: bool  # the network was run from this layer up

    def curves(self, trial: Draws, resampled: Draws) -> xr.Dataset:
        """Return curves and areas of trials, and estimates with intervals from resamples."""
        answers = Answers(self.concepts.code, self.concepts.member, self.original)
        ratio: dict[tuple[str, str], Floats] = {}
        again: dict[tuple[str, str], Floats] = {}
        for selection, style, right in self._rows():
            by_chance = self.chosen[selection].mode is None
            pairs = []
            for concept in range(len(self.concepts.concepts)):
                own = right if by_chance else right[concept][None]
                one, two = (
                    answers.on_and_off(answers.ratios(own, concept, draws), concept, draws)
                    for draws in (trial, resampled)
                )
                pairs.append((one, areas(self.share, two)))
            ratio[style, selection] = np.stack([one for one, _ in pairs])
            again[style, selection] = np.stack(
                [_turn(style) * (two[1] - two[0]) for _, two in pairs], -1
            )
        kinds, styles = list(self.chosen), self.settings.styles
        curves = np.stack([[ratio[s, k] for k in kinds] for s in styles]).swapaxes(-1, -2)
        drawn = np.stack([[again[s, k] for k in kinds] for s in styles])
        data = self._of_trials(curves) | self._of_resamples(drawn) | self._of_channels()
        return xr.Dataset(
            data,
            coords={
                "style": styles,
                "selection": kinds,
                "concept": self.concepts.concepts,
                "side": ["on target", "off target"],
                "percentage": [0.0, *self.settings.shown, 100.0],
                "bound": ["low", "high"],
                "pair": [f"{a} − {b}" for a, b in combinations(kinds, 2)],
                "class": self.concepts.classes,
            },
        )

    def undefined(self, trial: Draws) -> npt.NDArray[np.int64]:
        """Count trials in which no image of a concept is right to begin with, (concept,)."""
        own = self.concepts.member[:, self.concepts.code] & self.original  # (concept, N)
        found: npt.NDArray[np.int64] = ((trial.image @ own.T) == 0).sum(0)
        return found

    def original_accuracy(self) -> Floats:
        """Return the accuracy of every class without intervention, (class,)."""
        classes = range(len(self.concepts.classes))
        return np.array([self.original[self.concepts.code == n].mean() for n in classes])

    def _rows(self) -> Iterator[tuple[str, str, Bools]]:
        """Yield for every selection and style the answers (concept or draw, P, N)."""
        start, steps = 1, len(self.share) - 2
        nothing = self.right[self.place[0]][None, None]
        whole = self.original[None, None]
        for selection, choice in self.chosen.items():
            for style in self.settings.styles:
                rows = len(choice.order)
                place = self.place[start : start + rows * steps].reshape(rows, steps)
                start += rows * steps
                ends = (nothing, whole) if style == "preserve" else (whole, nothing)
                first, last = (np.repeat(end, rows, axis=0) for end in ends)
                yield selection, style, np.concatenate([first, self.right[place], last], 1)

    def _of_trials(self, curves: Floats) -> dict[str, Any]:
        """Label curves (style, selection, concept, side, P, T) and what follows from them."""
        under = areas(self.share, curves.swapaxes(-1, -2))  # (style, selection, concept, side, T)
        turn = np.array([_turn(style) for style in self.settings.styles])[:, None, None, None]
        gap = turn * (under[:, :, :, 1] - under[:, :, :, 0])
        by_trial = mean_known(gap, axis=2)  # (style, selection, T)
        known = np.isfinite(by_trial).sum(-1)
        spread = np.full(known.shape, np.nan)
        some = known > 1
        spread[some] = np.nanstd(by_trial[some], axis=-1, ddof=1) / np.sqrt(known[some])
        return {
            "ratio": (CURVE, curves, UNITS | {"long_name": "accuracy over original"}),
            "area": ((*CURVE[:4], "trial"), under, UNITS),
            "specificity": ((*CURVE[:3], "trial"), gap, UNITS),
            "trial_mean": (CURVE[:2], mean_known(by_trial, axis=-1), UNITS),
            "trial_sem": (CURVE[:2], spread, UNITS),
        }

    def _of_resamples(self, drawn: Floats) -> dict[str, Any]:
        """Label specificity (style, selection, B, concept) of all images and of resamples."""
        mean = mean_known(drawn, axis=-1)  # (style, selection, B)
        pairs = list(combinations(range(len(self.chosen)), 2))
        apart = np.stack([mean[:, a] - mean[:, b] for a, b in pairs], 1) if pairs else mean[:, :0]
        by_concept = np.moveaxis(drawn, 2, -1)
        data: dict[str, Any] = {}
        for name, dims, values, p in (
            ("estimate", CURVE[:2], mean, "p_value"),
            ("concept_estimate", CURVE[:3], by_concept, ""),
            ("difference", ("style", "pair"), apart, "difference_p"),
        ):
            interval = name.replace("concept_estimate", "concept") + "_interval"
            resampled = np.moveaxis(values[..., 1:], -1, 0)
            if self.concepts.single:  # such a class is the same in every resample
                resampled = np.full_like(resampled, np.nan)
            data[name] = (dims, values[..., 0], UNITS)
            data[interval] = ((*dims, "bound"), percentiles(resampled), UNITS)
            if p:
                data[p] = (dims, two_sided(resampled), UNITS)
        return data

    def _of_channels(self) -> dict[str, Any]:
        """Label which modes order the channels, and how many channels each point takes."""
        choices = list(self.chosen.values())
        ranks = max([c.mode.shape[1] for c in choices if c.mode is not None], default=0)
        shape = (len(choices), len(self.concepts.concepts), ranks)
        mode, r = np.full(shape, -1), np.full(shape, np.nan)
        for row, choice in enumerate(choices):
            if choice.mode is not None and choice.correlation is not None:
                mode[row], r[row] = choice.mode, choice.correlation
        dims = ("selection", "concept", "rank")
        count = np.round(self.share * choices[0].order.shape[1]).astype(int)
        return {
            "mode": (dims, mode, {"long_name": "mode, -1: none"}),
            "correlation": (dims, r, UNITS),
            "share": ("percentage", self.share, UNITS),
            "channels": ("percentage", count, {"units": "count"}),
            "resumed": ((), self.resumed),
            "different_sets": ((), len(self.right), {"units": "count"}),
        }


def _turn(style: str) -> int:
    """Return the sign of off − on target that means "specific" in a style."""
    return 1 if style == "ablate" else -1
