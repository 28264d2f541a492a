"""Contributions of a language model of GPT-2's shape, by the layer that is explained.

Random weights (``transformers``), random words, target the entropy of the next word. Two sites of a
block, what the attention and what the MLP adds to the stream, at several depths, each explained
alone, and all of them in one call; by the activations times normalised gradients and by integrated
gradients of the paper's supplement 10.4. Beside them, by plain torch and nothing of this package:
``forward``, a forward pass without a graph, and ``gradient``, a forward pass and one back to the
embeddings.

What is expected: every evaluation runs the whole network forward, and back from the target to the
layer, no further. One layer should therefore take forward + (share above it) × back; all layers at
once as much as the lowest of them; integrated gradients with s steps s + 1 times that. The counted
operations say what the shares are.

Timed is the method alone, without the look at the network that comes once per run. Every round does
all settings in an order of its own; times are medians over ``--repeats`` rounds, intervals (95 %)
are over rounds. Prints one JSON line.

    python benchmarks/language_model.py --tokens 128 --threads 1 --repeats 7
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from measure import gemm_rate, parser, report
from operations import Operations
from torch import nn

import retina_codec as rc
from retina_codec.networks.borrowed import borrow
from retina_codec.paper.timing import over_rounds, time_rounds
from retina_codec.probing.hooks import HookedFunction

SITES = ("post_attention", "post_mlp")
Inputs = dict[str, torch.Tensor]
Work = Callable[[], Any]


class LastWord(nn.Module):
    """A language model that gives the logits of the last token alone, ``(b, word)``."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, **inputs: torch.Tensor) -> torch.Tensor:
        """Run the network; its head sees one token."""
        logits: torch.Tensor = self.network(**inputs, logits_to_keep=1).logits[:, -1]
        return logits


def prepare(size: str, tokens: int, batch: int) -> tuple[nn.Module, Inputs]:
    """Return the network and its inputs, always the same."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    small = {"n_embd": 64, "n_layer": 6, "n_head": 4, "vocab_size": 1000}
    small |= {"bos_token_id": 0, "eos_token_id": 0}
    config = GPT2Config(**({} if size == "gpt2" else small), n_positions=max(1024, tokens))
    network = GPT2LMHeadModel(config).eval()
    words = torch.randint(0, config.vocab_size, (batch, tokens))
    return network, {"input_ids": words, "attention_mask": torch.ones_like(words)}


def plain(network: nn.Module, inputs: Inputs) -> dict[str, Work]:
    """Return the two references: forward, and forward and back to the embeddings."""

    def forward() -> None:
        with torch.no_grad():
            network(**inputs)

    def gradient() -> None:
        words = network.get_input_embeddings()(inputs["input_ids"]).detach().requires_grad_()  # type: ignore[operator]
        logits = network(inputs_embeds=words, attention_mask=inputs["attention_mask"]).logits
        chance = logits[:, -1].log_softmax(1)
        torch.autograd.grad(-(chance.exp() * chance).sum(), words)

    return {"forward": forward, "gradient": gradient}


def explaining(module: nn.Module, layers: Any, method: Any, inputs: Inputs) -> Work:
    """Return the explanation of some layers; the network is surveyed here."""
    function = HookedFunction.open(rc.adapt(module, layers), inputs)
    return lambda: method.explain(function, rc.targets.Entropy(), function.enter(inputs))


def counted(work: Work) -> float:
    """Return the floating point operations of a piece of work."""
    with Operations() as operations:
        work()
    return float(operations.count)


def summary(
    seconds: np.ndarray, names: list[Any], methods: list[str], batch: int
) -> dict[str, Any]:
    """Return medians with intervals, and the ratios that the claims are about."""
    place = {name: number for number, name in enumerate(names)}

    def ratio(above: list[Any], below: list[Any]) -> list[float]:
        rows = seconds[[place[name] for name in above + below]]
        count = len(above)
        middle, ends = over_rounds(rows, lambda m: float(m[:count].max() / m[count:].min()))
        return [middle, *ends]

    def each(name: Any) -> list[float]:
        middle, ends = over_rounds(seconds[[place[name]]] / batch, lambda m: float(m[0]))
        return [middle, *ends]

    found: dict[str, Any] = {name: each(("plain", name)) for name in ("forward", "gradient")}
    for method in methods:
        own = [name for name in names if name[0] == method]
        single = [name for name in own if "." in name[1]]
        both = zip(*([name for name in single if name[2] == site] for site in SITES), strict=True)
        found[method] = {
            "seconds": {name[1]: each(name) for name in own},
            "slowest_over_fastest_layer": ratio(single, single),
            "all_over_lowest_layer": ratio([(method, "all", "")], [single[0]]),
            "slowest_layer_over_all": ratio(single, [(method, "all", "")]),
            "all_over_plain_gradient": ratio([(method, "all", "")], [("plain", "gradient")]),
            "one_site_over_the_other": [ratio([a], [b]) for a, b in both],
        }
    one, many = ([(method, "all", "")] for method in methods)
    found["integrated_over_one_gradient"] = ratio(many, one)
    found["head_on_last_word_over_all"] = ratio([(methods[0], "last word", "")], one)
    return found


def main() -> None:
    """Time every layer and method in rounds and print one line."""
    line = parser(__doc__ or "")
    line.add_argument("--size", choices=("gpt2", "small"), default="gpt2")
    line.add_argument("--tokens", type=int, default=128)
    line.add_argument("--batch", type=int, default=1)
    line.add_argument("--steps", type=int, default=10)
    line.add_argument("--depths", type=int, default=5, help="blocks explained, first to last")
    line.add_argument("--depths-path", type=int, default=2, help="of integrated gradients")
    line.set_defaults(repeats=7)
    given = line.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    network, inputs = prepare(given.size, given.tokens, given.batch)
    methods = {
        "act_norm_grad": rc.methods.ActNormGrad(),
        f"integrated_gradients_{given.steps}": rc.methods.IntegratedGradients(given.steps),
    }
    of_site = {site: rc.adapt(network, site).layers for site in SITES}
    count = len(of_site[SITES[0]])
    depths = {
        name: np.unique(np.linspace(0, count - 1, number).round().astype(int)).tolist()
        for name, number in zip(methods, (given.depths, given.depths_path), strict=True)
    }
    with borrow(network) as module:
        works: dict[Any, Work] = {
            ("plain", name): work for name, work in plain(module, inputs).items()
        }
        for name, method in methods.items():
            layers = [(of_site[site][depth], site) for depth in depths[name] for site in SITES]
            for layer, site in layers:
                works[name, layer, site] = explaining(module, layer, method, inputs)
            every = [layer for site in SITES for layer in of_site[site]]
            works[name, "all", ""] = explaining(module, every, method, inputs)
        one = next(iter(methods))
        inside = [f"network.{layer}" for layer in every]
        works[one, "last word", ""] = explaining(LastWord(module), inside, methods[one], inputs)
        operations = {
            name[1]: counted(work) / given.batch / 1e9
            for name, work in works.items()
            if name[0] in ("plain", one)
        }
        times = time_rounds(list(works.values()), given.repeats, warm=False, progress=False)
    names = list(works)
    report(
        {
            "benchmark": "language_model",
            "size": given.size,
            "parameters": sum(p.numel() for p in network.parameters()),
            "blocks": count,
            "depths": depths,
            "tokens": given.tokens,
            "batch": given.batch,
            "rounds": given.repeats,
            "threads": torch.get_num_threads(),
            "gemm_gflops": gemm_rate() / 1e9,
            "intervals": "median over rounds, then low and high of 95 %",
            "gflop_per_input_of_one_gradient": operations,
            "processor": summary(times["processor"].values, names, list(methods), given.batch),
            "wall": summary(times["wall"].values, names, list(methods), given.batch),
        }
    )


if __name__ == "__main__":
    main()
