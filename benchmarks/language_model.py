"""Contributions of a language model of GPT-2's shape, by the layer that is explained.

Random weights (``transformers``), random words, target the entropy of the next word. Two sites of a
block, what the attention and what the MLP adds to the stream, in the first, the middle and the last
block, each explained alone; the activations times normalised gradients and integrated gradients of
the paper's supplement 10.4. Timed is the method alone, without the look at the network that comes
once per run. All in one process, in turns, so that what else the machine does falls on all of them
alike. Prints one JSON line.

    python benchmarks/language_model.py --tokens 128
"""

import time
from typing import Any

import torch
from measure import gemm_rate, parser, report
from torch import nn

import retina_codec as rc
from retina_codec.contributions.hooked import HookedFunction
from retina_codec.contributions.lending import working_network

SITES = ("post_attention", "post_mlp")


def prepare(size: str, tokens: int, batch: int) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    """Return the network and its inputs, always the same."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    small = {"n_embd": 64, "n_layer": 6, "n_head": 4, "vocab_size": 1000}
    small |= {"bos_token_id": 0, "eos_token_id": 0}
    config = GPT2Config(**({} if size == "gpt2" else small), n_positions=max(1024, tokens))
    network = GPT2LMHeadModel(config).eval()
    words = torch.randint(0, config.vocab_size, (batch, tokens))
    return network, {"input_ids": words, "attention_mask": torch.ones_like(words)}


def main() -> None:
    """Time every layer and method in turns and print one line."""
    line = parser(__doc__ or "")
    line.add_argument("--size", choices=("gpt2", "small"), default="gpt2")
    line.add_argument("--tokens", type=int, default=128)
    line.add_argument("--batch", type=int, default=1)
    line.add_argument("--steps", type=int, default=10)
    given = line.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    network, inputs = prepare(given.size, given.tokens, given.batch)
    methods = {
        "act_norm_grad": rc.ActNormGrad(),
        f"integrated_gradients_{given.steps}": rc.IntegratedGradients(given.steps),
    }
    count = len(rc.adapt(network, SITES[0]).layers)
    places = {"first": 0, "middle": count // 2, "last": count - 1}
    layers = {
        f"{site}_{place}": rc.adapt(network, site).layers[number]
        for site in SITES
        for place, number in places.items()
    }
    seconds: dict[tuple[str, str], list[tuple[float, float]]] = {}
    missing: dict[str, float] = {}
    with working_network(network, None, None) as module:
        functions = {key: HookedFunction(rc.adapt(module, layer)) for key, layer in layers.items()}
        functions["all"] = HookedFunction(rc.adapt(module, list(layers.values())))
        functions["blocks"] = HookedFunction(rc.adapt(module, "blocks"))
        for function in functions.values():
            function.look(function.enter(inputs))
        for _ in range(given.repeats):
            for name, method in methods.items():
                for key, function in functions.items():
                    point = function.enter(inputs)
                    wall, cpu = time.perf_counter(), time.process_time()
                    units = method.explain(function, rc.Entropy(), point)
                    spent = (time.perf_counter() - wall, time.process_time() - cpu)
                    seconds.setdefault((name, key), []).append(spent)
                    if key == "blocks" and units.expected is not None:
                        sums = torch.stack([c.sum((1, 2)) for c in units.contribution.values()])
                        error = (sums - units.expected).abs() / units.expected.abs()
                        missing[name] = float(error.max())
    result: dict[str, Any] = {
        "benchmark": "language_model",
        "size": given.size,
        "parameters": sum(p.numel() for p in network.parameters()),
        "blocks": count,
        "tokens": given.tokens,
        "batch": given.batch,
        "repeats": given.repeats,
        "threads": torch.get_num_threads(),
        "gemm_gflops": gemm_rate() / 1e9,
    }
    for name in methods:
        per_input = {
            key: {
                "seconds": min(wall for wall, _ in seconds[name, key]) / given.batch,
                "cpu_seconds": min(cpu for _, cpu in seconds[name, key]) / given.batch,
            }
            for key in functions
        }
        cpu = [per_input[key]["cpu_seconds"] for key in layers]
        result[name] = per_input | {"slowest_over_fastest_layer": max(cpu) / min(cpu)}
        if name in missing:
            result[name] |= {"completeness_error_of_blocks": missing[name]}
    report(result)


if __name__ == "__main__":
    main()
