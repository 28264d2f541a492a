"""Contributions of a language model to the next word: sparsity, modes, groups, ablation.

Texts of one length are explained together, so that no text is padded.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr

from retina_codec.analysis.concepts.correlate import activation_tree
from retina_codec.contributions.contribute import contribute
from retina_codec.methods.base import Method
from retina_codec.methods.integrated_gradients import IntegratedGradients
from retina_codec.modes.decompose import decompose
from retina_codec.modes.decompositions.nmf import NMF
from retina_codec.networks.adapter import Adapter, adapt
from retina_codec.paper.language.model import AnswerGroups, LanguageModel, NextWord
from retina_codec.paper.language.sentences import Sentence, answer_words
from retina_codec.progress import progress_bar
from retina_codec.storage.provenance import array_text
from retina_codec.storage.results import layer_sites, layers_of, table
from retina_codec.targets.base import Target
from retina_codec.targets.classification import Entropy, TopK

__all__ = ["SITES", "TARGETS", "LanguageStudy"]

SITES = ("mlp", "attention")
TARGETS: Mapping[str, Target] = {"entropy": Entropy(), "logit": TopK(1)}
SIGNS: Mapping[str, str | None] = {"entropy": None, "logit": "excitatory"}
BATCH = 8  # texts at a time
ITERATIONS = 200  # of the factorisation


@dataclass(frozen=True, eq=False)
class LanguageStudy:
    """A language model and sentences; contributions and modes are computed when asked for.

    Parameters
    ----------
    model : LanguageModel
    sentences : sequence of Sentence
        Those of the part "chosen" first.
    folder : Path
        Where contributions are kept, so that an interrupted run goes on.
    steps : int
        Of the path integral.
    seed : int
    progress : bool, optional
    """

    model: LanguageModel
    sentences: Sequence[Sentence]
    folder: Path
    steps: int = 16
    seed: int = 0
    progress: bool | None = None
    _ready: dict[Any, xr.DataTree] = field(default_factory=dict, init=False, repr=False)

    @cached_property
    def tokens(self) -> list[list[int]]:
        """Numbers of the tokens of every sentence."""
        return [self.model.tokens(one.text) for one in self.sentences]

    @cached_property
    def labels(self) -> npt.NDArray[np.str_]:
        """Group of every sentence."""
        return np.array([one.group for one in self.sentences])

    def part(self, name: str) -> npt.NDArray[np.intp]:
        """Return the numbers of the sentences of a part."""
        return np.flatnonzero([one.part == name for one in self.sentences])

    @cached_property
    def network(self) -> Adapter:
        """The model as it is explained: MLP and attention of every block."""
        return adapt(NextWord(self.model.module), list(SITES))

    def layers_of(self, site: str) -> list[str]:
        """Return the layers of one kind of place, from input to output."""
        sites = {name: known.site for name, known in self.network.sites.items()}
        return [name for name in self.network.layers if sites[name] == site]

    @property
    def method(self) -> Method:
        """Integrated gradients from the mean embedding."""
        return IntegratedGradients(self.steps)

    def contributions(self, target: str, method: Method | None = None) -> xr.DataTree:
        """Return contributions to a target of all layers, computed or found in the folder.

        Parameters
        ----------
        target : {"entropy", "logit"}
        method : Method, optional
            `method` of the study when left out.

        Returns
        -------
        xr.DataTree
            See `contribute`; sentences in their order, with ``label`` along sample.
        """
        method = method or self.method
        if (key := (target, repr(method))) in self._ready:
            return self._ready[key]
        length = np.array([len(own) for own in self.tokens])
        parts = []
        for size in progress_bar(
            np.unique(length).tolist(), description=f"{target}", progress=self.progress
        ):
            own = np.flatnonzero(length == size)
            words = xr.DataArray(
                np.array([self.tokens[one] for one in own]),
                dims=("sample", "token"),
                coords={"sample": own, "label": ("sample", self.labels[own])},
            )
            mark = array_text(words.values).split()[-1].strip("()")[-12:]
            name = f"{target}-{type(method).__name__}-{self.steps}-{size}-{mark}.zarr"
            found = contribute(
                self.network,
                words,
                target=TARGETS[target],
                method=method,
                batch_size=BATCH,
                store=self.folder / name,
                progress=False,
            )
            parts.append(found)
        self._ready[key] = _joined(parts)
        return self._ready[key]

    def modes(
        self,
        target: str,
        layers: Sequence[str],
        number: int,
        *,
        of: Literal["contributions", "activations"] = "contributions",
        held_out: float | None = None,
    ) -> xr.DataTree:
        """Return modes of some layers, fitted to the sentences of the part "chosen".

        Parameters
        ----------
        target : {"entropy", "logit"}
        layers : sequence of str
        number : int
            Of modes.
        of : {"contributions", "activations"}
            Contributions to a logit: those that raise it; to the entropy: of both signs.
        held_out : float, optional
            Share of the sentences, the last ones, that are not fitted; the part "reported" when
            left out.

        Returns
        -------
        xr.DataTree
            See `decompose`; these layers only.
        """
        found = self.contributions(target)
        tree = activation_tree(found, list(layers)) if of == "activations" else found
        if held_out is None:
            held_out = len(self.part("reported")) / len(self.sentences)
        fitted = decompose(
            tree,
            NMF(modes=number, seed=self.seed, iterations=ITERATIONS),
            layers=list(layers),
            signs=SIGNS[target] if of == "contributions" else None,
            held_out=held_out,
            gap=0,
            progress=False,
        )
        return _only(fitted, layers)

    @cached_property
    def answers(self) -> AnswerGroups:
        """The model as a classifier of groups."""
        words = {
            name: [self.model.first_token(word) for word in own]
            for name, own in answer_words(list(dict.fromkeys(self.labels.tolist()))).items()
        }
        return AnswerGroups(self.model.module, words)

    def padded(self, chosen: npt.NDArray[np.intp]) -> dict[str, torch.Tensor]:
        """Return tokens and mask of some sentences, padding behind the text."""
        rows = [self.tokens[one] for one in chosen]
        wide = max(map(len, rows))
        words = torch.zeros(len(rows), wide, dtype=torch.long)
        mask = torch.zeros_like(words)
        for number, row in enumerate(rows):
            words[number, : len(row)], mask[number, : len(row)] = torch.tensor(row), 1
        return {"input_ids": words, "attention_mask": mask}

    def predictions(self) -> xr.Dataset:
        """Ask the model for the next word of every sentence.

        Returns
        -------
        xr.Dataset, dims (sample)
            ``text``, ``answer``, ``label``, ``part``; ``predicted``, the word with the largest
            probability; ``probability`` of it and ``answer_probability``; ``entropy``, nats;
            ``right``, whether the answer comes first; ``group_right``, whether the words of the
            sentence's own group are the likeliest of all groups together.
        """
        network, answers = self.network.module, self.answers
        rows: list[tuple[Any, ...]] = []
        with torch.inference_mode():
            for number, one in enumerate(self.sentences):
                log_p = network(torch.tensor([self.tokens[number]])).log_softmax(1)[0]
                groups = [float(log_p[own].logsumexp(0)) for own in answers.words]
                best, answer = int(log_p.argmax()), self.model.first_token(one.answer)
                rows.append((
                    self.model.word(best), float(log_p[best].exp()), float(log_p[answer].exp()),
                    float(-(log_p.exp() * log_p).sum()), best == answer,
                    answers.classes[int(np.argmax(groups))] == one.group,
                ))  # fmt: skip
        names = ("predicted", "probability", "answer_probability", "entropy", "right",
                 "group_right")  # fmt: skip
        columns = dict(zip(names, map(np.array, zip(*rows, strict=True)), strict=True))
        own = {key: np.array([getattr(one, key) for one in self.sentences])
               for key in ("text", "answer", "part")}  # fmt: skip
        data = {key: ("sample", values) for key, values in (own | columns).items()}
        found = xr.Dataset(data, coords={"label": ("sample", self.labels)})
        found["entropy"].attrs["units"] = "nats"
        return found


def _joined(parts: Sequence[xr.DataTree]) -> xr.DataTree:
    """Put texts of all lengths together, in the order of their numbers."""
    nodes: dict[str, xr.Dataset] = {"/": xr.Dataset(attrs=dict(parts[0].attrs))}
    about = {name: site for name, site in zip(
        layers_of(parts[0]), layer_sites(parts[0], layers_of(parts[0])), strict=True)}  # fmt: skip
    for path in ("responses", *(f"layers/{name}" for name in about)):
        several = [table(part, path).load() for part in parts]
        together = xr.concat(
            several, "sample", join="exact", combine_attrs="drop_conflicts", data_vars="minimal"
        )
        nodes[f"/{path}"] = together.sortby("sample")
    return xr.DataTree.from_dict(nodes)


def _only(tree: xr.DataTree, layers: Sequence[str]) -> xr.DataTree:
    """Return a tree without its other layers."""
    nodes = {
        node.path: node.to_dataset(inherit=False)
        for node in tree.subtree
        if not node.path.startswith("/layers/") or node.path.split("/")[2] in layers
    }
    return xr.DataTree.from_dict(nodes)
