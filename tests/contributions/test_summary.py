"""The table before a run says what the run then does."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from retina_codec.contributions.contribute import contribute
from retina_codec.contributions.summary import summarize
from retina_codec.methods.base import Method
from retina_codec.methods.gradients import ActGrad, ActNormGrad, InputGrad, SmoothGrad
from retina_codec.methods.integrated_gradients import IntegratedGradients
from retina_codec.networks.adapter import adapt
from retina_codec.probing.hooks import HookedFunction
from retina_codec.reductions import AllUnits, ChannelSums, HeadSums, Reduction
from retina_codec.targets.base import Sum, as_target
from tests.networks.families import IMAGE, LANGUAGE, TorchViT, plain_cnn

PICTURES = torch.randn(3, 3, 12, 12, generator=torch.Generator().manual_seed(0))


def test_the_table_of_a_network_that_is_known() -> None:
    summary = summarize(adapt(plain_cnn(), "blocks"), PICTURES)
    assert str(summary).splitlines() == [
        "Sequential (convolutions and nonlinearities), 3 inputs",
        "layer  site    side    units        channels  space  complete  above  bytes",
        "0.2    blocks  output  4 × 10 × 10  4         100    yes       749    56",
        "0.5    blocks  output  6 × 3 × 3    6         9      yes       527    80",
        "IntegratedGradients: 11 passes forward, 11 back per input; "
        "keeps 136 bytes per input, 408 in all",
    ]


def test_parameters_above_are_those_of_modules_called_later() -> None:
    """749 = conv 222 + conv 42 + linear 440 + linear 45; also in torch's own attention."""
    network = plain_cnn()
    later = [network[0][4], network[0][6], network[2], network[4]]
    table = summarize(adapt(network, ["0.2", "0.5"]), PICTURES).table
    counts = [sum(p.numel() for m in later[k:] for p in m.parameters()) for k in (0, 1)]
    assert table["parameters_above"].values.tolist() == counts
    vit = TorchViT()
    table = summarize(adapt(vit, ["attention", "mlp"]), PICTURES).table

    def count(*modules: nn.Module) -> int:
        return sum(p.numel() for module in modules for p in module.parameters())

    last, end = vit.encoder.layers[1], count(vit.head)
    rest = count(last.norm2, last.linear1, last.linear2)
    found = table["parameters_above"].to_series()
    assert found["encoder.layers.1.linear2"] == count(last.linear2) + end
    assert found["encoder.layers.1.self_attn.out_proj"] == (
        count(last.self_attn.out_proj) + rest + end
    )
    assert found["encoder.layers.0.linear2"] == (
        count(vit.encoder.layers[0].linear2) + count(last) + end
    )


def test_tied_weights_above_count_once() -> None:
    network = LANGUAGE["gpt2"]()
    words = {"input_ids": torch.randint(0, 20, (2, 7))}
    table = summarize(adapt(network, ["transformer.h.1", "transformer.wte"]), words).table
    last, every = table["parameters_above"].sel(layer=["transformer.h.1", "transformer.wte"]).values
    assert last == 2 * 8 + 20 * 8  # the last norm and the embedding, which is the output layer too
    assert every == sum(p.numel() for p in network.parameters())  # it is called again, at the end


@pytest.mark.parametrize("method", [ActNormGrad(), IntegratedGradients(2), SmoothGrad(2)], ids=repr)
@pytest.mark.parametrize("reduction", [ChannelSums(), AllUnits(), HeadSums(2)], ids=repr)
def test_bytes_are_those_of_the_result(method: Method, reduction: Reduction) -> None:
    adapter = adapt(IMAGE["vit"](), ["blocks", "attention"])
    options = {"method": method, "reduction": reduction}
    table = summarize(adapter, PICTURES, **options).table
    tree = contribute(adapter, PICTURES, target=Sum(), progress=False, **options)
    for name, node in tree["layers"].children.items():
        kept = sum(values.nbytes for values in node.to_dataset().data_vars.values())
        assert int(table["bytes_per_input"].sel(layer=name)) * len(PICTURES) == kept


class Counts(HookedFunction):
    """Counts passes forward, and those back."""

    forward = back = 0

    def __call__(self, *given: Any) -> Any:
        self.forward, self.back = self.forward + 1, self.back + 1
        return super().__call__(*given)

    def along(self, *given: Any) -> Any:
        self.forward += 1  # the one that carries the derivative
        return super().along(*given)

    def above(self, *given: Any) -> Any:
        self.forward, self.back = self.forward + 1, self.back + 1
        return super().above(*given)


@pytest.mark.parametrize(
    "method",
    [
        ActGrad(), ActGrad(baseline=0.5), ActNormGrad(), InputGrad(), SmoothGrad(3),
        IntegratedGradients(4), IntegratedGradients(4, quadrature="simpson"),
        IntegratedGradients(3, baseline=[0.0, 1.0]),
        IntegratedGradients(3, quadrature="gauss-legendre"),
        IntegratedGradients(3, path="hidden"),
        IntegratedGradients(3, path="hidden", quadrature="gauss-legendre", baseline=[0.0, 1.0]),
    ],
    ids=repr,
)  # fmt: skip
def test_passes_are_those_that_are_taken(method: Method) -> None:
    one = PICTURES[:1]
    function = Counts.open(adapt(plain_cnn().requires_grad_(False), "blocks"), one)
    method.explain(function, as_target(lambda y: (y**2).sum(1)), one)
    assert method.passes(2) == (function.forward, function.back)


def test_a_tolerance_gives_a_least_number_and_an_unknown_method_none() -> None:
    adapter = adapt(plain_cnn(), "blocks")
    text = str(summarize(adapter, PICTURES, method=IntegratedGradients(4, tolerance=0.1)))
    assert "at least 5 passes forward, 5 back" in text

    class Own(ActGrad.__mro__[1]):  # type: ignore[misc]  # a method of someone else
        def explain(self, function: Any, target: Any, inputs: Any) -> Any:
            raise NotImplementedError

    assert Own().passes(1) is None


def test_an_axis_that_was_guessed_is_said() -> None:
    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.same = nn.Identity()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.same(x).flatten(1)

    summary = summarize(Bare(), PICTURES, layers="same")
    assert not bool(summary.table["axis_certain"].item())
    assert "3 (guessed)" in str(summary)
    assert summary.family == "no repeated blocks"


def test_nothing_is_changed_and_the_table_can_be_saved(tmp_path: Any) -> None:
    network = IMAGE["vit"]().train()
    before = {name: values.clone() for name, values in network.state_dict().items()}
    table = summarize(adapt(network, ["blocks", "mlp", "attention"]), PICTURES).table
    assert network.training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())
    assert all(torch.equal(values, before[name]) for name, values in network.state_dict().items())
    table.to_netcdf(tmp_path / "table.nc", engine="h5netcdf")
    assert table["leading_tokens"].values.tolist() == [1] * 6
    np.testing.assert_array_equal(table["heads"], [0, 0, 0, 0, 2, 2])
