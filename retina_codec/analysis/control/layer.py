"""One layer under control: its channel sets, the network's answers, and what follows.

Why this file exists: all selections and styles of a layer are asked together, so that equal sets
are run once; the answers then become curves, areas and their errors, with names on them. Which
channels are chosen and which images count is told by the caller.

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
from retina_codec.analysis.control.trials import Answers, Draws, areas, mean_known, two_sided
from retina_codec.errors import RetinaCodecError
from retina_codec.probing.interventions import Fill, Perturbed

__all__ = ["Asking"]

CURVE = ("style", "selection", "concept", "side", "percentage", "trial")


Floats = npt.NDArray[np.float64]


Bools = npt.NDArray[np.bool_]


@dataclass
class Asking:
    """One layer: its channel sets, the network's answers, and what follows from them."""

    opened: Perturbed
    name: str
    chosen: dict[str, Choice]
    styles: list[str]
    percentages: list[float]
    asked: Concepts
    top: int
    fill: Fill
    progress: bool | None

    def __post_init__(self) -> None:
        """Ask the network."""
        channels = self.opened.layers[self.name].channels
        groups = {choice.order.shape[1] for choice in self.chosen.values()}
        if len(groups) > 1:
            raise RetinaCodecError(
                f"all selections of layer {self.name!r} must take the same groups of channels; got "
                f"{sorted(groups)} of them. Give heads=, or modes of single channels."
            )
        number = groups.pop()
        self.counts = channel_counts(self.percentages, number)
        self.share = np.concatenate([[0.0], self.counts / number, [1.0]])
        masks = [np.zeros((1, channels), np.float32)]
        for choice in self.chosen.values():
            for style in self.styles:
                masks.append(
                    keep_sets(choice.order, self.counts, style, channels).reshape(-1, channels)
                )
        different, back = np.unique(np.concatenate(masks), axis=0, return_inverse=True)
        self.different = len(different)
        self.right, self.original = self._answers(different)
        self._back = back.reshape(-1)

    def _answers(self, masks: npt.NDArray[np.float32]) -> tuple[Bools, Bools]:
        """Run the sets: which images are right, (set, N) and (N,)."""
        code = torch.as_tensor(self.asked.output)
        right = np.zeros((len(masks), len(code)), bool)
        original = np.zeros(len(code), bool)

        def hit(outputs: torch.Tensor, samples: slice) -> npt.NDArray[np.bool_]:
            if outputs.shape[-1] < max(self.top, int(code.max()) + 1):
                raise RetinaCodecError(
                    f"labels name output {int(code.max())}, top={self.top}, but the network has "
                    f"{outputs.shape[-1]} outputs (batch, class). Give classes= in their order."
                )
            leading = outputs.topk(self.top, -1).indices.cpu()
            found: npt.NDArray[np.bool_] = (leading == code[samples][:, None]).any(-1).numpy()
            return found

        for sets, samples, outputs in self.opened.stream(
            self.name, masks, fill=self.fill, progress=self.progress
        ):
            if sets.start == 0:
                original[samples] = hit(self.opened.unperturbed, samples)
            right[sets, samples] = hit(outputs, samples)
        return right, original

    def _rows(self) -> Iterator[tuple[str, str, Bools]]:
        """Give for every selection and style the answers (concept or draw, P, N), ends added."""
        start, steps = 1, len(self.counts)
        nothing = self.right[self._back[0]][None, None]
        whole = self.original[None, None]
        for selection, choice in self.chosen.items():
            for style in self.styles:
                rows = len(choice.order)
                place = self._back[start : start + rows * steps].reshape(rows, steps)
                start += rows * steps
                ends = (nothing, whole) if style == "preserve" else (whole, nothing)
                first, last = (np.repeat(end, rows, axis=0) for end in ends)
                yield selection, style, np.concatenate([first, self.right[place], last], 1)

    def curves(self, trial: Draws, resampled: Draws) -> xr.Dataset:
        """Summarise the answers."""
        answers = Answers(self.asked.code, self.asked.member, self.original)
        concepts = range(len(self.asked.concepts))
        ratio: dict[tuple[str, str], Floats] = {}
        again: dict[tuple[str, str], Floats] = {}
        for selection, style, right in self._rows():
            by_chance = self.chosen[selection].mode is None
            pairs = []
            for concept in concepts:
                own = right if by_chance else right[concept][None]
                one, two = (
                    answers.on_and_off(answers.ratios(own, concept, draws), concept, draws)
                    for draws in (trial, resampled)
                )
                pairs.append((one, areas(self.share, two)))
            turn = 1 if style == "ablate" else -1
            ratio[style, selection] = np.stack([one for one, _ in pairs])
            again[style, selection] = np.stack([turn * (two[1] - two[0]) for _, two in pairs], -1)
        return self._label(ratio, again)

    def undefined(self, trial: Draws) -> npt.NDArray[np.int64]:
        """Count trials in which no image of a concept is right to begin with, (concept,)."""
        own = self.asked.member[:, self.asked.code] & self.original  # (concept, N)
        found: npt.NDArray[np.int64] = ((trial.image @ own.T) == 0).sum(0)
        return found

    def _label(
        self, ratio: dict[tuple[str, str], Floats], again: dict[tuple[str, str], Floats]
    ) -> xr.Dataset:
        """Put dims and names on curves (concept, side, T, P) and resamples (B, concept)."""
        kinds, styles = list(self.chosen), self.styles
        curves = np.stack([[ratio[s, k] for k in kinds] for s in styles]).swapaxes(-1, -2)
        under = areas(self.share, curves.swapaxes(-1, -2))  # (style, selection, concept, side, T)
        turn = np.array([1 if s == "ablate" else -1 for s in styles])[:, None, None, None]
        gap = turn * (under[:, :, :, 1] - under[:, :, :, 0])
        drawn = np.stack([[again[s, k] for k in kinds] for s in styles])
        mean = mean_known(drawn, axis=-1)  # (style, selection, B)
        by_trial = mean_known(gap, axis=2)  # (style, selection, T)
        pairs = list(combinations(range(len(kinds)), 2))
        apart = np.stack([mean[:, a] - mean[:, b] for a, b in pairs], 1) if pairs else mean[:, :0]
        known = np.isfinite(by_trial).sum(-1)
        spread = np.full(known.shape, np.nan)
        some = known > 1
        spread[some] = np.nanstd(by_trial[some], axis=-1, ddof=1) / np.sqrt(known[some])
        group, bound = ("style", "selection"), {"units": "1"}
        own = [self.chosen[kind] for kind in kinds]
        ranks = max([c.mode.shape[1] for c in own if c.mode is not None], default=0)
        shape = (len(kinds), len(self.asked.concepts), ranks)
        mode, r = np.full(shape, -1), np.full(shape, np.nan)
        for row, choice in enumerate(own):
            if choice.mode is not None and choice.correlation is not None:
                mode[row], r[row] = choice.mode, choice.correlation
        data: dict[str, Any] = {
            "ratio": (CURVE, curves, {"units": "1", "long_name": "accuracy over original"}),
            "area": ((*CURVE[:4], "trial"), under, bound),
            "specificity": ((*CURVE[:3], "trial"), gap, bound),
            "trial_mean": (group, mean_known(by_trial, axis=-1), bound),
            "trial_sem": (group, spread, bound),
            "estimate": (group, mean[..., 0], bound),
            "estimate_interval": ((*group, "bound"), _interval(mean[..., 1:]), bound),
            "p_value": (group, two_sided(np.moveaxis(mean[..., 1:], -1, 0)), bound),
            "concept_estimate": (CURVE[:3], drawn[:, :, 0], bound),
            "concept_interval": (
                (*CURVE[:3], "bound"),
                _interval(np.moveaxis(drawn[:, :, 1:], 2, -1)),
                bound,
            ),
            "difference": (("style", "pair"), apart[..., 0], bound),
            "difference_interval": (("style", "pair", "bound"), _interval(apart[..., 1:]), bound),
            "difference_p": (
                ("style", "pair"),
                two_sided(np.moveaxis(apart[..., 1:], -1, 0)),
                bound,
            ),
            "mode": (("selection", "concept", "rank"), mode, {"long_name": "mode, -1: none"}),
            "correlation": (("selection", "concept", "rank"), r, bound),
            "share": ("percentage", self.share, bound),
            "channels": (
                "percentage",
                np.round(self.share * own[0].order.shape[1]).astype(int),
                {"units": "count"},
            ),
            "resumed": ((), self.opened.resumed[self.name]),
            "different_sets": ((), self.different, {"units": "count"}),
        }
        coords = {
            "style": styles,
            "selection": kinds,
            "concept": self.asked.concepts,
            "side": ["on target", "off target"],
            "percentage": [0.0, *self.percentages, 100.0],
            "bound": ["low", "high"],
            "pair": [f"{kinds[a]} − {kinds[b]}" for a, b in pairs],
            "class": self.asked.classes,
        }
        return xr.Dataset(data, coords=coords)


def _interval(resampled: Floats) -> Floats:
    """Middle 95 % of resamples (..., B): (..., 2); NaN where one is not known."""
    ends: Floats = np.moveaxis(np.quantile(resampled, [0.025, 0.975], axis=-1), 0, -1)
    return ends
