"""Networks of many families, as small as they get, with random weights."""

from collections.abc import Callable
from typing import Any

import torch
import transformers as library
from torch import nn

SMALL: dict[str, Any] = {
    "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12,
}  # fmt: skip
WORDS: dict[str, Any] = SMALL | {
    "vocab_size": 20, "max_position_embeddings": 12, "bos_token_id": 0, "eos_token_id": 0,
    "pad_token_id": 0,
}  # fmt: skip
PICTURE: dict[str, Any] = SMALL | {"image_size": 12, "patch_size": 4, "num_labels": 5}


def roughened(network: nn.Module) -> nn.Module:
    """Give biases, norms and positions other values than 0 and 1, which hide mistakes."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for values in network.parameters():
            values.add_(0.1 * torch.randn(values.shape, generator=generator))
    return network.eval()


def _made(kind: str, config: str, **settings: Any) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        torch.manual_seed(0)
        network: nn.Module = getattr(library, kind)(getattr(library, config)(**settings))
        return roughened(network)

    return make


IMAGE = {
    "resnet": _made(
        "ResNetForImageClassification", "ResNetConfig", embedding_size=4, hidden_sizes=[8, 12],
        depths=[2, 1], layer_type="bottleneck", num_labels=5,
    ),
    "convnext": _made(
        "ConvNextForImageClassification", "ConvNextConfig", depths=[1, 1], hidden_sizes=[4, 6],
        num_stages=2, num_labels=5,
    ),
    "mobilenet_v2": _made(
        "MobileNetV2ForImageClassification", "MobileNetV2Config", depth_multiplier=0.1,
        min_depth=4, depth_divisible_by=4, num_labels=5,
    ),
    "mobilenet_v1": _made(
        "MobileNetV1ForImageClassification", "MobileNetV1Config", depth_multiplier=0.1,
        min_depth=4, num_labels=5,
    ),
    "regnet": _made(
        "RegNetForImageClassification", "RegNetConfig", embedding_size=4, hidden_sizes=[8, 8],
        depths=[1, 2], groups_width=4, num_labels=5,
    ),
    "vit": _made("ViTForImageClassification", "ViTConfig", **PICTURE),
    "deit": _made("DeiTForImageClassificationWithTeacher", "DeiTConfig", **PICTURE),
    "dinov2_registers": _made(
        "Dinov2WithRegistersForImageClassification", "Dinov2WithRegistersConfig",
        hidden_size=8, num_hidden_layers=2, num_attention_heads=2, image_size=12, patch_size=4,
        num_labels=5,
    ),
}  # fmt: skip

LANGUAGE = {
    "gpt2": _made(
        "GPT2LMHeadModel", "GPT2Config", n_embd=8, n_layer=2, n_head=2, vocab_size=20,
        n_positions=12, bos_token_id=0, eos_token_id=0,
    ),
    "llama": _made("LlamaForCausalLM", "LlamaConfig", **WORDS, num_key_value_heads=1),
    "gemma2": _made(
        "Gemma2ForCausalLM", "Gemma2Config", **WORDS, num_key_value_heads=1, head_dim=6,
    ),
    "neox": _made("GPTNeoXForCausalLM", "GPTNeoXConfig", **WORDS),
    "opt": _made(
        "OPTForCausalLM", "OPTConfig", hidden_size=8, num_hidden_layers=2, num_attention_heads=2,
        ffn_dim=12, vocab_size=20, max_position_embeddings=12, word_embed_proj_dim=8,
        pad_token_id=0, bos_token_id=0, eos_token_id=0,
    ),
    "bert": _made("BertForMaskedLM", "BertConfig", **WORDS),
}  # fmt: skip


class TorchViT(nn.Module):
    """A vision transformer of torch's own modules, as torchvision's."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patch = nn.Conv2d(3, 8, 4, 4)
        self.class_token = nn.Parameter(torch.randn(1, 1, 8))
        layer = nn.TransformerEncoderLayer(8, 2, 12, 0.0, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(8, 5)
        roughened(self)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        patches = self.patch(pictures).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.class_token.expand(len(patches), -1, -1), patches], 1)
        return self.head(self.encoder(tokens)[:, 0])


def plain_cnn() -> nn.Module:
    """Convolutions and nonlinearities in a row, as VGG's."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.MaxPool2d(2),
            nn.Conv2d(4, 6, 3), nn.GELU(), nn.Conv2d(6, 6, 1),
        ),
        nn.Flatten(), nn.Linear(54, 8), nn.ReLU(), nn.Linear(8, 5),
    ).eval()  # fmt: skip
