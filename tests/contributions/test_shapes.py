"""Whole networks from end to end: every site in one pass, complete where it can be.

Small ones always; true sizes, with random weights and two inputs, are marked slow.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import nn

from retina_codec.contributions.contribute import contribute
from retina_codec.contributions.maps import input_map
from retina_codec.errors import RetinaCodecError
from retina_codec.methods.base import Method
from retina_codec.methods.baselines import resolve_baselines
from retina_codec.methods.gradients import ActGrad, ActNormGrad, InputGrad, SmoothGrad
from retina_codec.methods.integrated_gradients import IntegratedGradients
from retina_codec.networks.adapter import adapt, as_adapter
from retina_codec.reductions import AllUnits, HeadSums
from retina_codec.targets.classification import Entropy, Probability, TopK
from tests.networks.families import IMAGE, LANGUAGE, TorchViT, plain_cnn

IDS = torch.randint(1, 20, (3, 7), generator=torch.Generator().manual_seed(0))
SITES = ["blocks", "mlp", "attention"]
SMOOTH = IntegratedGradients(48, quadrature="gauss-legendre")
EXACT = {"progress": False, "dtype": torch.float64}


def pictures(size: int, count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1)).double()


def relative_error(layer: Any) -> float:
    return float(np.abs(layer["completeness_error"] / layer["target_change"]).max())


SMALL: dict[str, tuple[Callable[[], nn.Module], Any]] = {
    "torch": (TorchViT, pictures(12)),
    "plain": (plain_cnn, pictures(12)),
    # With weights like these the 26 ReLUs in a row of mobilenet_v1 let nothing through.
    **{name: (make, pictures(32 if "net" in name else 12)) for name, make in IMAGE.items()
       if name != "mobilenet_v1"},
    **{name: (make, {"input_ids": IDS}) for name, make in LANGUAGE.items()},
}  # fmt: skip


@pytest.mark.parametrize("name", SMALL)
def test_every_site_in_one_pass_and_complete_where_it_can_be(name: str) -> None:
    make, inputs = SMALL[name]
    network = make()
    attends = any("Attention" in type(m).__name__ for m in network.modules())
    words = isinstance(inputs, dict)
    # From zeros, norms that divide by the size of their input would jump at the first step.
    start: Any = "mean" if words else 0.3
    smooth = name != "torch" and not any(
        isinstance(m, nn.ReLU | nn.ReLU6) for m in network.modules()
    )
    method = IntegratedGradients(32, quadrature="gauss-legendre" if smooth else "trapezoid")
    sites = SITES if attends and name != "opt" else "blocks"  # OPT's MLP sees all tokens in a row
    adapter = adapt(network, sites)
    tree = contribute(
        adapter, inputs, target=TopK(1), method=replace(method, baseline=start), **EXACT
    )
    assert set(tree["layers"].children) == set(adapter.layers)
    for layer in tree["layers"].children.values():
        cuts = layer.attrs["site"] == "blocks"
        assert layer.attrs["completeness"].startswith("holds" if cuts else "cannot hold")
        assert not layer.attrs["axes_are"].startswith("guessed")
        assert layer.attrs["side"] == ("output" if cuts else "input")
        if cuts:
            assert relative_error(layer) < (0.001 if smooth and attends else 0.05)
        assert layer.attrs.get("heads", 2) == 2


@pytest.mark.parametrize("name", ["vit", "gpt2", "torch"])
def test_one_pass_for_all_sites_is_one_pass_for_each(name: str) -> None:
    make, inputs = SMALL[name]
    network = make()
    options = {"target": TopK(1), "method": IntegratedGradients(5, placement="uniform"), **EXACT}
    together = contribute(adapt(network, SITES), inputs, **options)["layers"].children
    for word in SITES:
        for layer, node in contribute(adapt(network, word), inputs, **options)["layers"].items():
            found = together[layer]["contribution"].values
            np.testing.assert_allclose(found, node["contribution"].values, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("family", ["vit", "gpt2", "llama", "neox"])
@pytest.mark.parametrize("part", ["attention", "mlp"])
def test_a_site_and_what_it_adds_to_the_stream_have_the_same_sum(family: str, part: str) -> None:
    """The linear layer between them is affine, and g·Wᵀ against Δh is g against W Δh."""
    make, inputs = SMALL[family]
    network, options = (
        make(),
        {"target": TopK(1), "method": IntegratedGradients(3, placement="uniform"), **EXACT},
    )

    def sums(word: str) -> list[np.ndarray]:
        tree = contribute(adapt(network, word), inputs, **options)
        return [
            node["contribution"].sum(("sign", "channel")).values
            for node in tree["layers"].children.values()
        ]

    np.testing.assert_allclose(sums(part), sums(f"post_{part}"), rtol=1e-9, atol=1e-14)


def test_a_named_site_keeps_its_side_and_axis_when_layers_are_chosen_again() -> None:
    adapter = adapt(LANGUAGE["gpt2"](), SITES)
    name = "transformer.h.1.mlp.c_proj"
    again = as_adapter(adapter, [name])
    assert (again.hook_of(name), again.declared_axis(name)) == ("input", -1)
    whole, alone = (
        contribute(one, IDS, target=TopK(1), method=ActGrad(), **EXACT)["layers"].children[name]
        for one in (adapter, again)
    )
    np.testing.assert_array_equal(whole["contribution"].values, alone["contribution"].values)
    assert whole.attrs == alone.attrs


# ------------------------------------------------------------------ class tokens and registers


@pytest.mark.parametrize(("family", "leading"), [("vit", 1), ("deit", 2), ("dinov2_registers", 5)])
def test_leading_tokens_can_be_left_out_of_sums(family: str, leading: int) -> None:
    network, inputs = IMAGE[family](), pictures(12)
    options = {"target": Probability(), "method": IntegratedGradients(5), **EXACT}
    units = contribute(adapt(network, SITES), inputs, reduction=AllUnits(), **options)["layers"]
    every = contribute(adapt(network, SITES), inputs, **options)["layers"]
    patches = contribute(adapt(network, SITES, tokens="patches"), inputs, **options)["layers"]
    kept = contribute(
        adapt(network, SITES, tokens="patches"), inputs, reduction=AllUnits(), **options
    )["layers"]
    for name, node in patches.children.items():
        c = units[name]["contribution"].values  # (sample, channel, token)
        assert c.shape[2] == 9 + leading  # 12 × 12 px in patches of 4 × 4
        for found, some in ((every[name], c), (node, c[..., leading:])):
            expected = np.stack([np.minimum(some, 0).sum(2), np.maximum(some, 0).sum(2)], 1)
            np.testing.assert_allclose(found["contribution"], expected, rtol=1e-12, atol=1e-16)
        h = units[name]["activation"].values[..., leading:].mean(2)
        np.testing.assert_allclose(node["activation"], h, rtol=1e-12)
        # What is missing is counted over all tokens: leaving some out is no error of quadrature.
        np.testing.assert_allclose(
            node["completeness_error"], every[name]["completeness_error"], atol=1e-12
        )
        assert node.attrs["leading_tokens"] == leading
        assert (node.attrs["tokens"], every[name].attrs["tokens"]) == ("patches", "all")
        assert kept[name]["token"].values.tolist() == list(range(leading, 9 + leading))
        np.testing.assert_array_equal(kept[name]["contribution"], c[..., leading:])
    assert adapt(network, "blocks", tokens="patches").describe()["tokens"] == "patches"


@pytest.mark.parametrize("make", [plain_cnn, LANGUAGE["gpt2"]])
def test_leaving_out_what_is_not_there_is_refused(make: Any) -> None:
    inputs: Any = pictures(12) if make is plain_cnn else IDS
    with pytest.raises(RetinaCodecError, match="leaves class tokens and registers out, but none"):
        contribute(
            adapt(make(), "blocks", tokens="patches"), inputs, target=TopK(1), method=ActGrad()
        )


def test_tokens_of_all_inputs_in_a_row_are_refused() -> None:
    with pytest.raises(RetinaCodecError, match=r"one row for every input; .*fc2"):
        contribute(adapt(LANGUAGE["opt"](), "mlp"), IDS, target=TopK(1), method=ActGrad())


def test_windows_of_attention_are_refused_and_the_blocks_are_not() -> None:
    torch.manual_seed(0)
    config = transformers.SwinConfig(
        image_size=32, patch_size=4, embed_dim=8, depths=[1, 1], num_heads=[2, 2], window_size=4,
        num_labels=5,
    )  # fmt: skip
    network = transformers.SwinForImageClassification(config).eval()
    options = {"target": TopK(1), "method": ActGrad(), **EXACT}
    with pytest.raises(RetinaCodecError, match=r"one row for every input; .*o_proj"):
        contribute(adapt(network, "attention"), pictures(32), **options)
    tree = contribute(adapt(network, "blocks"), pictures(32), **options)
    assert len(tree["layers"].children) == 2


# ------------------------------------------------------------------ words


@pytest.mark.parametrize(
    "method",
    [
        IntegratedGradients(6, baseline=0.0), IntegratedGradients(6, baseline=0.1),
        InputGrad(baseline=0.0), IntegratedGradients(5, path="hidden", baseline=0.0),
        IntegratedGradients(5, quadrature="gauss-legendre", baseline=0.0),
    ],
    ids=repr,
)  # fmt: skip
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_paths_of_words_are_paths_of_their_embeddings(family: str, method: Method) -> None:
    """The same contributions as for the network that is given embeddings from the start."""
    network = LANGUAGE[family]()
    words = network.get_input_embeddings()(IDS).detach()
    mask = torch.ones_like(IDS)
    mask[1, 5:] = 0
    options = {"target": Entropy("mean"), "method": method, **EXACT}
    adapter = adapt(network, SITES)
    found = contribute(adapter, {"input_ids": IDS, "attention_mask": mask}, **options)
    given = contribute(adapter, {"inputs_embeds": words, "attention_mask": mask}, **options)
    for name, node in given["layers"].children.items():
        layer = found["layers"].children[name]
        for what in ("contribution", "completeness_error", "target_change"):
            np.testing.assert_allclose(layer[what], node[what], rtol=1e-7, atol=1e-10)
        assert float(abs(layer["contribution"]).max()) > 0
        assert layer.attrs == node.attrs


def test_the_mean_baseline_is_the_mean_embedding() -> None:
    network = LANGUAGE["gpt2"]()
    words = network.get_input_embeddings()(IDS).detach().double()
    adapter = adapt(network, "blocks")
    found = contribute(
        adapter, IDS, target=TopK(1), method=IntegratedGradients(5, baseline="mean"), **EXACT
    )
    by_hand = IntegratedGradients(5, baseline={"inputs_embeds": words.mean(0)})
    given = contribute(adapter, {"inputs_embeds": words}, target=TopK(1), method=by_hand, **EXACT)
    for name, node in given["layers"].children.items():
        layer = found["layers"].children[name]
        np.testing.assert_allclose(layer["contribution"], node["contribution"], rtol=1e-7)
    assert found.attrs["baseline"] == "mean"
    assert found.attrs["paths_in"] == "embedding of transformer.wte"
    assert "paths_in" not in given.attrs


@pytest.mark.parametrize("target", [Entropy(), Entropy("sum"), Entropy("mean"), TopK(2)], ids=repr)
def test_padding_after_a_text_changes_nothing(target: Any) -> None:
    """A causal model never looks ahead: the shorter text alone has the same contributions."""
    adapter, length = adapt(LANGUAGE["gpt2"](), SITES), 4
    mask = torch.ones_like(IDS)
    mask[:, length:] = 0
    options = {"target": target, "method": IntegratedGradients(5), **EXACT}
    padded = contribute(adapter, {"input_ids": IDS, "attention_mask": mask}, **options)
    short = contribute(adapter, {"input_ids": IDS[:, :length]}, **options)
    np.testing.assert_allclose(padded["responses/target"], short["responses/target"], rtol=1e-9)
    for name, node in short["layers"].children.items():
        layer = padded["layers"].children[name]
        np.testing.assert_allclose(
            layer["contribution"], node["contribution"], rtol=1e-7, atol=1e-12
        )


def test_every_input_has_its_own_last_token() -> None:
    adapter, lengths = adapt(LANGUAGE["gpt2"](), "blocks"), [2, 7, 5]
    mask = (torch.arange(7) < torch.tensor(lengths)[:, None]).long()
    options = {"target": Probability(), "method": ActNormGrad(), **EXACT}
    batch = contribute(adapter, {"input_ids": IDS, "attention_mask": mask}, **options)
    for number, length in enumerate(lengths):
        alone = contribute(adapter, {"input_ids": IDS[number : number + 1, :length]}, **options)
        for name, node in alone["layers"].children.items():
            found = batch["layers"].children[name]["contribution"][number]
            np.testing.assert_allclose(found, node["contribution"][0], rtol=1e-7, atol=1e-12)


def test_a_word_embedding_is_a_layer_too_and_noise_reaches_it() -> None:
    adapter = adapt(LANGUAGE["gpt2"](), ["transformer.wte", "blocks"])
    tree = contribute(adapter, IDS, target=TopK(1), method=SMOOTH, **EXACT)
    assert tree["layers/transformer.wte"].attrs["completeness"].startswith("holds")
    assert relative_error(tree["layers/transformer.wte"]) < 1e-6
    noisy = contribute(adapter, IDS, target=TopK(1), method=SmoothGrad(3, 0.5), **EXACT)
    assert float(noisy["layers/transformer.h.0/standard_error"].min()) > 0


def test_a_map_of_words() -> None:
    adapter = adapt(LANGUAGE["gpt2"](), "blocks")
    found = input_map(
        adapter, IDS, "transformer.h.0", target=TopK(1), method=InputGrad(), dtype=torch.float64
    )
    assert found["map"].shape == (3, 7, 8)
    np.testing.assert_allclose(found["completeness_error"], 0, atol=1e-12)
    assert float(abs(found["total"]).min()) > 0


def test_whole_numbers_that_no_embedding_takes_have_no_path() -> None:
    with pytest.raises(RetinaCodecError, match="needs floating inputs"):
        resolve_baselines(0.0, {"ids": IDS})


# ------------------------------------------------------------------ true sizes


def true_size(kind: str, config: Any) -> nn.Module:
    torch.manual_seed(0)
    return getattr(transformers, kind)(config).eval()


def gpt2_config() -> Any:
    return transformers.GPT2Config()


TRUE: dict[str, tuple[str, Callable[[], Any], int, bool]] = {
    "resnet50": ("ResNetForImageClassification", transformers.ResNetConfig, 16, False),
    "vit_b_16": ("ViTForImageClassification", transformers.ViTConfig, 12, True),
    "convnext_t": ("ConvNextForImageClassification", transformers.ConvNextConfig, 18, False),
    "mobilenet_v2": (
        "MobileNetV2ForImageClassification", transformers.MobileNetV2Config, 16, False,
    ),
    "gpt2": ("GPT2LMHeadModel", gpt2_config, 12, True),
}  # fmt: skip


# Zeros would leave the first norm of a ConvNeXt or a ViT nothing to divide by.
START = {"resnet50": 0.0, "vit_b_16": 0.3, "convnext_t": 0.3, "mobilenet_v2": 0.0, "gpt2": 0.0}


@pytest.mark.slow
@pytest.mark.parametrize("name", TRUE)
def test_true_sizes_with_random_weights(name: str) -> None:
    kind, config, blocks, attends = TRUE[name]
    network = true_size(kind, config())
    generator = torch.Generator().manual_seed(1)
    inputs: Any = torch.randn(2, 3, 224, 224, generator=generator)
    if name == "gpt2":
        inputs = {"input_ids": torch.randint(0, 50257, (2, 128), generator=generator)}
    adapter = adapt(network, SITES if attends else "blocks")
    assert len(adapter.layers) == blocks * (3 if attends else 1)
    target = Entropy() if name == "gpt2" else TopK(1)
    tree = contribute(
        adapter, inputs, target=target, progress=False,
        method=IntegratedGradients(8, baseline=START[name]),
    )  # fmt: skip
    for layer in tree["layers"].children.values():
        cuts = layer.attrs["site"] == "blocks"
        assert layer.attrs["completeness"].startswith("holds" if cuts else "cannot hold")
        assert not layer.attrs["axes_are"].startswith("guessed")
        if cuts:
            assert relative_error(layer) < 0.1
        if layer.attrs["site"] == "attention":
            assert layer.attrs["heads"] == 12
    if attends:
        heads = contribute(
            adapt(network, "attention"), inputs, target=target, method=ActGrad(),
            reduction=HeadSums(12), progress=False,
        )  # fmt: skip
        assert {node.sizes["channel"] for node in heads["layers"].children.values()} == {12}
