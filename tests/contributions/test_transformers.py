"""Networks as they are in the wild, against captum and against their own sums.

Shapes of the transformers library with few units and random weights.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import InternalInfluence, LayerConductance, LayerGradientXActivation
from torch import nn
from transformers import (
    ConvNextConfig,
    ConvNextForImageClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)

from retina_codec.contributions.contribute import contribute
from retina_codec.contributions.maps import input_map
from retina_codec.errors import RetinaCodecError
from retina_codec.methods.base import Method
from retina_codec.methods.gradients import ActGrad, ActNormGrad, InputGrad
from retina_codec.methods.integrated_gradients import IntegratedGradients
from retina_codec.networks.adapter import adapt
from retina_codec.probing.hooks import HookedFunction
from retina_codec.reductions import AllUnits, HeadSums
from retina_codec.targets.base import Unit
from retina_codec.targets.classification import Entropy, Probability, TopK


def randomise(network: nn.Module) -> nn.Module:
    """Give biases and norms other values than 0 and 1, which hide mistakes."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, values in [*network.named_parameters(), *network.named_buffers()]:
            if not values.is_floating_point():
                continue
            noise = torch.randn(values.shape, generator=generator)
            if name.endswith("running_var") or (values.ndim < 2 and name.endswith("weight")):
                values.copy_((0.5 * noise).exp())
            elif name.endswith("layer_scale_parameter"):
                values.copy_(0.5 * noise)
            else:
                values.add_(0.1 * noise)
    return network.double().eval()


def resnet() -> nn.Module:
    torch.manual_seed(0)
    config = ResNetConfig(
        embedding_size=4, hidden_sizes=[6, 8], depths=[2, 1], layer_type="basic", num_labels=5
    )
    return randomise(ResNetForImageClassification(config))


def vit() -> nn.Module:
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=12,
        image_size=12, patch_size=4, num_labels=5,
    )  # fmt: skip
    return randomise(ViTForImageClassification(config))


def convnext() -> nn.Module:
    torch.manual_seed(0)
    config = ConvNextConfig(depths=[1, 1], hidden_sizes=[4, 6], num_stages=2, num_labels=5)
    return randomise(ConvNextForImageClassification(config))


def gpt2() -> nn.Module:
    torch.manual_seed(0)
    config = GPT2Config(
        n_embd=8, n_layer=2, n_head=2, vocab_size=20, n_positions=12, bos_token_id=0,
        eos_token_id=0,
    )  # fmt: skip
    return randomise(GPT2LMHeadModel(config))


def pictures(size: int, count: int = 3) -> torch.Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1)).double()


CASES: dict[str, tuple[Callable[[], nn.Module], int, str, str]] = {
    "resnet": (resnet, 16, "resnet.encoder.stages.0.layers.0", "resnet.encoder.stages.1.layers.0"),
    "vit": (vit, 12, "vit.layers.0", "vit.layers.1.mlp"),
}


def logits(network: nn.Module, target: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda batch: target(network(batch).logits)


def units(network: nn.Module, x: Any, method: Method, target: Any, names: list[str]) -> Any:
    function = HookedFunction.open(adapt(network.requires_grad_(False), names), x)
    return method.explain(function, target, x).contribution


@pytest.mark.parametrize("case", CASES)
def test_integrated_gradients_agree_with_captums_conductance_step_for_step(case: str) -> None:
    """Captum sums left ends; half the difference of both directions is the trapezoid."""
    make, size, *names = CASES[case]
    network, x, target, steps = make(), pictures(size), Unit(2), 5
    start = torch.full_like(x, 0.3)
    method = IntegratedGradients(steps, baseline=0.3, placement="uniform")
    ours = units(network, x, method, target, names)
    for name in names:
        captum = LayerConductance(logits(network, target), network.get_submodule(name))
        options = {"n_steps": steps, "method": "riemann_trapezoid"}
        there = captum.attribute(x.clone(), baselines=start, **options)
        back = captum.attribute(start.clone(), baselines=x, **options)
        expected = ((there - back) / 2).detach()
        assert float(expected.abs().max()) > 1e-4
        # Captum makes its points in float32, so they sit up to 3e-8 off ours.
        torch.testing.assert_close(ours[name], expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("target", [Unit(1), Entropy()], ids=repr)
def test_act_grad_is_captums_layer_gradient_times_activation(case: str, target: Any) -> None:
    make, size, *names = CASES[case]
    network, x = make(), pictures(size)
    ours = units(network, x, ActGrad(), target, names)
    for name in names:
        captum = LayerGradientXActivation(logits(network, target), network.get_submodule(name))
        torch.testing.assert_close(ours[name], captum.attribute(x.clone()), rtol=1e-9, atol=1e-12)


def test_the_hidden_path_is_captums_internal_influence_where_both_are_straight() -> None:
    """Up to a layer that is affine in the input, both paths meet the same hidden points."""
    network, x, steps = resnet(), pictures(16), 7
    name = "resnet.embedder.embedder.normalization"
    method = IntegratedGradients(steps, path="hidden", baseline=0.3)
    ours = units(network, x, method, Unit(2), [name])[name]
    captum = InternalInfluence(logits(network, Unit(2)), network.get_submodule(name))
    start = torch.full_like(x, 0.3)
    influence = captum.attribute(
        x.clone(), baselines=start, n_steps=steps + 1, method="riemann_trapezoid"
    )
    function = HookedFunction.open(network, x, [name])
    change = function.activations(x)[name] - function.activations(start)[name]
    # Captum's weights are 1/points, half at the ends, and so do not sum to one.
    expected = change * influence.detach() * (steps + 1) / steps
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)


def test_the_hidden_path_is_captums_integrated_gradients_of_the_part_above() -> None:
    from captum.attr import IntegratedGradients as Captum

    network, x, name, steps = resnet(), pictures(16), "resnet.encoder.stages.0", 9
    method = IntegratedGradients(steps, path="hidden", baseline=0.3, quadrature="gauss-legendre")
    ours = units(network, x, method, Unit(2), [name])[name]
    function = HookedFunction.open(network, x, [name])
    there, start = (function.activations(v)[name] for v in (x, torch.full_like(x, 0.3)))

    def above(h: torch.Tensor) -> torch.Tensor:
        h = network.resnet.encoder.stages[1](h)
        return Unit(2)(network.classifier(network.resnet.pooler(h)))

    expected = Captum(above).attribute(there, start, n_steps=steps, method="gausslegendre")
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-7)


def test_every_site_of_a_resnet() -> None:
    network, x = resnet(), pictures(16)
    adapter = adapt(network, ["*stages.?.layers.?", "*stages.0.layers.1.layer", "*shortcut"])
    assert [name.partition("stages.")[2] for name in adapter.layers] == [
        "0.layers.0", "0.layers.1", "1.layers.0", "0.layers.1.layer", "0.layers.0.shortcut",
        "0.layers.1.shortcut", "1.layers.0.shortcut",
    ]  # fmt: skip
    tree = contribute(adapter, x, target=TopK(1), method=IntegratedGradients(400), progress=False)
    for name, layer in tree["layers"].children.items():
        inside = name.endswith(("layer", "shortcut"))
        assert layer.attrs["completeness"].startswith("cannot" if inside else "holds")
        assert layer.attrs["channel_axis"] == 1
        error = np.abs(layer["completeness_error"] / layer["target_change"])
        assert float(error.max()) > 0.05 if inside else float(error.max()) < 0.02


VIT_SITES = {
    "vit.embeddings": True, "vit.layers.0": True, "vit.layers.1": True,
    "vit.layers.0.mlp.activation_fn": False, "vit.layers.1.mlp": False,
    "vit.layers.1.attention": False, "vit.layernorm": True,
}  # fmt: skip


@pytest.mark.parametrize(
    "method",
    [
        IntegratedGradients(200),
        InputGrad(),
        IntegratedGradients(24, path="hidden", quadrature="gauss-legendre"),
    ],
    ids=("input path", "InputGrad", "hidden path"),
)
def test_every_site_of_a_vision_transformer(method: Method) -> None:
    """Also fused attention, which has no forward-mode derivative of its own."""
    network, x = vit(), pictures(12)
    tree = contribute(
        adapt(network, list(VIT_SITES)), x, target=Probability(), method=method, progress=False
    )
    for name, cuts in VIT_SITES.items():
        layer = tree["layers"].children[name]
        assert layer.attrs["channel_axis"] == 2
        assert layer.attrs["space_axes"] == [1]
        assert layer.attrs["completeness"].startswith("holds" if cuts else "cannot")
        error = float(np.abs(layer["completeness_error"] / layer["target_change"]).max())
        allowed = 1e-9 if isinstance(method, InputGrad) else 0.02
        assert error < allowed if cuts else error > 0.05, (name, error)


def test_attention_by_head() -> None:
    """The input of the output projection: heads side by side along the channels."""
    network, x = vit(), pictures(12)
    adapter = adapt(network, "vit.layers.1.attention.o_proj", hook="input", kind="transformer")
    method = ActGrad()
    options = {"target": Probability(), "method": method, "progress": False}
    heads = contribute(adapter, x, reduction=HeadSums(2), **options)
    every = contribute(adapter, x, reduction=AllUnits(), **options)
    (name,) = heads["layers"].children
    whole = every["layers"].children[name]["contribution"].values  # (sample, channel, token)
    parts = whole.reshape(3, 2, 4, -1)
    expected = np.stack([np.minimum(parts, 0).sum((2, 3)), np.maximum(parts, 0).sum((2, 3))], 1)
    found = heads["layers"].children[name]
    np.testing.assert_allclose(found["contribution"], expected, rtol=1e-9, atol=1e-15)
    assert heads["layers"].children[name].attrs["axes_are"] == "declared"


def test_every_site_of_a_convnext() -> None:
    """Its linear layers see pixels with channels last; blocks give channels second."""
    network, x = convnext(), pictures(32)
    sites = {
        "convnext.encoder.stages.0.layers.0.pwconv1": (3, False),
        "convnext.encoder.stages.0.layers.0": (1, True),
        "convnext.encoder.stages.1.downsampling_layer.0": (1, True),
        "convnext.encoder.stages.1.layers.0.layernorm": (3, False),
        "convnext.encoder.stages.1.layers.0": (1, True),
    }
    method = IntegratedGradients(192, quadrature="gauss-legendre", baseline=0.3)
    tree = contribute(adapt(network, list(sites)), x, target=TopK(1), method=method, progress=False)
    for name, (axis, cuts) in sites.items():
        layer = tree["layers"].children[name]
        assert layer.attrs["channel_axis"] == axis, name
        assert layer.attrs["axes_are"] == "inferred", name
        assert layer.attrs["completeness"].startswith("holds" if cuts else "cannot")
        error = float(np.abs(layer["completeness_error"] / layer["target_change"]).max())
        assert error < 0.02 if cuts else error > 0.05, (name, error)


def test_channels_of_a_convnext_are_found_where_all_axes_have_their_number() -> None:
    """4 channels of 4 × 4 pixels."""
    network, x = convnext(), pictures(16)
    layers = ["convnext.encoder.stages.0.layers.0", "convnext.encoder.stages.0.layers.0.pwconv2"]
    known = HookedFunction.open(adapt(network, layers), x).survey
    assert [layer.shape for layer in known.values()] == [(4, 4, 4)] * 2
    assert [layer.channel_axis for layer in known.values()] == [1, 3]
    assert [layer.axes_are for layer in known.values()] == ["inferred"] * 2


def last_word(outputs: torch.Tensor) -> torch.Tensor:
    return Entropy()(outputs[:, -1])


def test_every_site_of_a_language_model() -> None:
    network, sites = gpt2(), ["transformer.h.?", "*.mlp.act", "*.attn.c_attn", "transformer.wte"]
    ids = torch.randint(0, 20, (3, 7), generator=torch.Generator().manual_seed(2))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    inputs["attention_mask"][0, :2] = 0
    adapter = adapt(network, sites)
    found = {}
    for method in (ActGrad(), ActNormGrad()):
        tree = contribute(
            adapter, inputs, target=last_word, method=method, progress=False, reduction=AllUnits()
        )
        found[type(method)] = {
            n: d["contribution"].values for n, d in tree["layers"].children.items()
        }
    for name, node in tree["layers"].children.items():
        assert node.attrs["channel_axis"] == 2, name
        plain, normed = (found[kind][name] for kind in (ActGrad, ActNormGrad))
        h, leaf = node["activation"].values, plain / node["activation"].values  # g, where h ≠ 0
        norm = np.sqrt(np.nansum(leaf**2, (1, 2), keepdims=True))
        np.testing.assert_allclose(normed, h * leaf / norm, rtol=1e-6, atol=1e-9, err_msg=name)
    assert node.sizes["token"] == 7
    # An oracle for one site: the block's output put in by hand.
    kept: dict[str, torch.Tensor] = {}
    block = network.transformer.h[0]
    handle = block.register_forward_hook(lambda *seen: kept.setdefault("h", _leaf(seen[2])))
    outcome = network(**inputs).logits
    handle.remove()
    (gradient,) = torch.autograd.grad(last_word(outcome).sum(), kept["h"])
    expected = (kept["h"] * gradient).detach().movedim(2, 1)
    np.testing.assert_allclose(found[ActGrad]["transformer.h.0"], expected, rtol=1e-9, atol=1e-12)


def _leaf(output: Any) -> torch.Tensor:
    tensor = output[0] if isinstance(output, tuple) else output
    tensor.requires_grad_()
    tensor.retain_grad()
    return tensor


def test_embeddings_as_input_make_a_language_model_complete() -> None:
    """Given embeddings instead of token numbers, there is a path, and blocks cut it."""
    network = gpt2()
    words = torch.randn(3, 7, 8, generator=torch.Generator().manual_seed(3)).double()
    adapter = adapt(network, ["transformer.h.?", "transformer.h.1.mlp"])
    method = IntegratedGradients(64, quadrature="gauss-legendre", baseline=0.1)
    tree = contribute(
        adapter, {"inputs_embeds": words}, target=last_word, method=method, progress=False
    )
    for name, layer in tree["layers"].children.items():
        error = float(np.abs(layer["completeness_error"] / layer["target_change"]).max())
        cuts = not name.endswith("mlp")
        assert layer.attrs["completeness"].startswith("holds" if cuts else "cannot")
        assert error < 1e-3 if cuts else error > 0.05, (name, error)


def llama() -> nn.Module:
    """Every norm multiplies gradients at zero by 1/√eps: more than a float32 can hold, twice."""
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=8, intermediate_size=12, num_hidden_layers=3, num_attention_heads=2,
        num_key_value_heads=1, vocab_size=20, max_position_embeddings=12, rms_norm_eps=1e-30,
        bos_token_id=0, eos_token_id=1, pad_token_id=1, initializer_range=0.5,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


EMBEDDING = "embedding of model.embed_tokens"


def texts() -> dict[str, torch.Tensor]:
    ids = torch.randint(2, 20, (3, 7), generator=torch.Generator().manual_seed(2))
    mask = torch.ones_like(ids)
    mask[0, :2] = 0
    return {"input_ids": ids, "attention_mask": mask}


def explain_words(method: Method, inputs: Any = None, **more: Any) -> Any:
    options: dict[str, Any] = {"target": last_word, "progress": False, "dtype": torch.float64}
    words = texts() if inputs is None else inputs
    return contribute(adapt(llama(), "blocks"), words, method=method, **(options | more))


def mean_row() -> torch.Tensor:
    table: Any = llama().get_input_embeddings()
    row: torch.Tensor = table.weight.detach().double().mean(0)
    return row


def assert_same(found: Any, expected: Any) -> None:
    for name, layer in found["layers"].children.items():
        values = expected["layers"].children[name]["contribution"].values
        scale = float(abs(values).max())
        assert scale > 1e-3
        np.testing.assert_allclose(layer["contribution"], values, atol=1e-9 * scale)


@pytest.mark.parametrize("path", ["input", "hidden"])
def test_mean_embedding_is_the_mean_of_the_rows_of_the_table(path: Any) -> None:
    """For every word, given by name or not, as one row or as many."""
    row = mean_row()
    found = explain_words(IntegratedGradients(8, path=path, baseline="mean embedding"))
    assert found.attrs["baseline"] == "mean embedding"
    for given in ({EMBEDDING: row}, row, {EMBEDDING: row.expand(7, 8)}):
        assert_same(explain_words(IntegratedGradients(8, path=path, baseline=given)), found)
    other = explain_words(IntegratedGradients(8, path=path, baseline=0.1))
    last = "layers/model.layers.2/contribution"
    assert float(abs(other[last] - found[last]).max()) > 1e-3


@pytest.mark.parametrize("method", [IntegratedGradients(8), InputGrad()], ids=repr)
def test_the_first_word_that_is_no_padding_stands_by_default(method: Method) -> None:
    found = explain_words(method)
    assert found.attrs["baseline"] == "mean embedding after first word"
    row = mean_row()
    embeddings: Any = llama().get_input_embeddings()
    words = embeddings(texts()["input_ids"]).detach().double()
    for number, first in enumerate((2, 0, 0)):  # the first text begins with two that are padding
        start = row.repeat(7, 1)
        start[first] = words[number, first]
        given = type(method)(**{**vars(method), "baseline": {EMBEDDING: start}})
        alone = explain_words(given, inputs={n: v[[number]] for n, v in texts().items()})
        one = found.isel(sample=[number])
        assert_same(one, alone)


def test_a_text_of_one_word_has_no_first_that_stands() -> None:
    one = {"input_ids": texts()["input_ids"][:, :1]}
    found = explain_words(IntegratedGradients(8), inputs=one)
    assert_same(found, explain_words(IntegratedGradients(8, baseline=mean_row()), inputs=one))


def test_paths_of_words_are_complete_where_they_begin_by_default() -> None:
    tree = explain_words(IntegratedGradients(96, quadrature="gauss-legendre"))
    for layer in tree["layers"].children.values():
        error = np.abs(layer["completeness_error"] / layer["target_change"])
        assert float(error.max()) < 0.05
        assert float(error.min()) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_where_no_gradient_exists_the_message_names_a_baseline(dtype: torch.dtype) -> None:
    with pytest.raises(RetinaCodecError) as told:
        explain_words(IntegratedGradients(4, baseline=0.0), dtype=dtype)
    text = str(told.value)
    assert "finite at the input, but not at the baseline where the path begins (zeros" in text
    assert "baseline='mean embedding after first word'" in text
    assert "eps" in text
    assert "float64" not in text
    with pytest.raises(RetinaCodecError, match="not at baseline 1 where"):
        explain_words(IntegratedGradients(4, baseline=["mean embedding", 0.0]), dtype=dtype)


@pytest.mark.parametrize("method", [InputGrad(), IntegratedGradients(6), ActGrad()], ids=repr)
def test_maps_of_words_begin_where_contributions_do(method: Method) -> None:
    """The first word, which stands, has no part in the map."""
    options: dict[str, Any] = {"target": last_word, "dtype": torch.float64}
    adapter, baseline = adapt(llama(), "blocks"), "mean embedding after first word"
    found, given = (
        input_map(adapter, texts(), "model.layers.1", method=one, **options)
        for one in (method, type(method)(**{**vars(method), "baseline": baseline}))
    )
    assert found.attrs["baseline"] == ("None" if isinstance(method, ActGrad) else baseline)
    assert float(abs(given["map"]).max()) > 1e-3
    np.testing.assert_allclose(found["map"], given["map"], rtol=1e-7, atol=1e-9)
    assert float(abs(found["map"][1:, 0]).max()) == 0.0
    assert float(abs(found["map"][1:, 1]).max()) > 0.0


def test_a_store_knows_its_baseline_and_not_how_it_was_chosen(tmp_path: Any) -> None:
    store = tmp_path / "run.zarr"
    first = explain_words(IntegratedGradients(4), store=store)
    same = IntegratedGradients(4, baseline="mean embedding after first word")
    again = explain_words(same, store=store)
    name = "layers/model.layers.0/contribution"
    np.testing.assert_array_equal(again[name], first[name])
    with pytest.raises(
        RetinaCodecError, match="baseline: mean embedding after first word there, mean here"
    ):
        explain_words(IntegratedGradients(4, baseline="mean"), store=store)
