"""The small networks: what they compute, where they can be read, and how they are stored."""

import json

import numpy as np
import pytest
import torch
from torch import nn

import retina_codec as rc
from retina_codec.methods.gradients import ActGrad, InputGrad
from retina_codec.methods.integrated_gradients import IntegratedGradients
from retina_codec.networks.checkpoints import load_network, save_network
from retina_codec.networks.pictures.load import load_image_network
from retina_codec.networks.pictures.small_resnet import PictureNorm, SmallResNet
from retina_codec.networks.pictures.small_vit import Attention, SmallViT
from retina_codec.targets.base import Sum
from retina_codec.targets.classification import TopK

PICTURES = torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))
SMALL = {
    "cnn": lambda: SmallResNet(["a", "b", "c"], widths=(4, 5, 6, 7)),
    "vit": lambda: SmallViT(["a", "b", "c"], dim=16, depth=3, heads=2, hidden=20, stem=8),
    "patches": lambda: SmallViT(["a", "b", "c"], dim=16, depth=2, heads=2, hidden=20, stem=0),
}


def make(kind, dtype=torch.float32):
    """A network whose biases and running statistics are not 0 and 1."""
    torch.manual_seed(1)
    network = SMALL[kind]()
    with torch.no_grad():
        for name, values in [*network.named_parameters(), *network.named_buffers()]:
            if name.startswith("normalisation") or not values.is_floating_point():
                continue
            if name.endswith("running_var"):
                values.copy_(torch.rand_like(values) + 0.5)
            elif values.ndim < 2:
                values.add_(0.1 * torch.randn_like(values))
    return network.to(dtype).eval()


@pytest.mark.parametrize("kind", [SmallResNet, SmallViT])
def test_the_shipped_sizes_are_small(kind):
    network = kind()
    assert sum(values.numel() for values in network.parameters()) < 300_000
    assert network.classes == tuple("0123456789")
    if kind is SmallResNet:
        assert len(network.layers) == 8


@pytest.mark.parametrize("kind", SMALL)
def test_a_picture_is_treated_alone(kind):
    network = make(kind, torch.float64)
    together = network(PICTURES.double())
    alone = torch.cat([network(picture[None]) for picture in PICTURES.double()])
    torch.testing.assert_close(together, alone, rtol=1e-10, atol=1e-12)
    assert together.shape == (5, 3)


def test_pictures_are_centred_and_scaled_by_colour():
    norm = PictureNorm((0.1, 0.2, 0.3), (0.5, 0.25, 0.125))
    expected = np.stack(
        [
            (PICTURES[:, colour].numpy() - mean) / std
            for colour, (mean, std) in enumerate(
                zip((0.1, 0.2, 0.3), (0.5, 0.25, 0.125), strict=True)
            )
        ],
        1,
    )
    np.testing.assert_allclose(norm(PICTURES), expected, rtol=1e-6, atol=1e-6)
    assert not list(norm.parameters())


def test_the_residual_network_is_its_formula():
    """Written out with functions, block by block."""
    network = make("cnn", torch.float64)
    f = nn.functional

    def norm(module, maps):
        return f.batch_norm(
            maps, module.running_mean, module.running_var, module.weight, module.bias
        )

    maps = (PICTURES.double() - network.normalisation.mean) / network.normalisation.std
    maps = f.relu(norm(network.stem_norm, f.conv2d(maps, network.stem.weight, None, 2, 2)))
    sides = [maps.shape[-1]]
    for stage, stride in zip((1, 2, 3, 4), (1, 2, 1, 2), strict=True):
        for number, block in enumerate(getattr(network, f"stage{stage}")):
            step = stride if number == 0 else 1
            branch = f.relu(norm(block.norm1, f.conv2d(maps, block.conv1.weight, None, step, 1)))
            branch = norm(block.norm2, f.conv2d(branch, block.conv2.weight, None, 1, 1))
            if number == 0 and not isinstance(block.shortcut, nn.Identity):
                maps = norm(block.shortcut[1], f.conv2d(maps, block.shortcut[0].weight, None, step))
            maps = f.relu(maps + branch)
        sides.append(maps.shape[-1])
    expected = maps.mean((2, 3)) @ network.head.weight.T + network.head.bias
    torch.testing.assert_close(network(PICTURES.double()), expected, rtol=1e-10, atol=1e-12)
    assert sides == [16, 16, 8, 8, 4]


def test_attention_is_that_of_torch():
    torch.manual_seed(0)
    ours = Attention(12, 3).double()
    theirs = nn.MultiheadAttention(12, 3, batch_first=True).double()
    with torch.no_grad():
        theirs.in_proj_weight.copy_(ours.qkv.weight)
        theirs.in_proj_bias.copy_(ours.qkv.bias)
        theirs.out_proj.weight.copy_(ours.proj.weight)
        theirs.out_proj.bias.copy_(ours.proj.bias)
    tokens = torch.randn(2, 7, 12, dtype=torch.float64)
    expected = theirs(tokens, tokens, tokens)[0]
    torch.testing.assert_close(ours.eval()(tokens), expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(ours.train()(tokens), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", ["vit", "patches"])
def test_the_transformer_is_that_of_torch(kind):
    """torch's encoder layers with the same weights, from the same tokens."""
    network = make(kind, torch.float64)
    tokens = network.patch_embed(network.normalisation(PICTURES.double())).flatten(2).mT
    assert tokens.shape == (5, 64, 16)
    tokens = torch.cat([network.class_token.expand(5, 1, 16), tokens], 1) + network.positions
    for block in network.blocks:
        layer = nn.TransformerEncoderLayer(
            16, 2, 20, 0.0, nn.functional.gelu, batch_first=True, norm_first=True
        ).double()
        names = {
            "self_attn.in_proj_": "attn.qkv.",
            "self_attn.out_proj.": "attn.proj.",
            "linear1.": "mlp.fc1.",
            "linear2.": "mlp.fc2.",
            "norm1.": "norm1.",
            "norm2.": "norm2.",
        }
        state = block.state_dict()
        layer.load_state_dict(
            {
                f"{theirs}{what}": state[f"{ours}{what}"]
                for theirs, ours in names.items()
                for what in ("weight", "bias")
            }
        )
        tokens = layer(tokens)
    expected = network.head(network.norm(tokens)[:, 0])
    torch.testing.assert_close(network(PICTURES.double()), expected, rtol=1e-9, atol=1e-11)


def test_a_patch_is_a_token_of_its_own():
    """Without a stem, a change in one patch reaches its own token alone."""
    network = make("patches")
    other = PICTURES.clone()
    other[:, :, 8:12, 20:24] += 0.5  # row 2, column 5
    with torch.no_grad():
        tokens, changed = (network.patch_embed(p).flatten(2).mT for p in (PICTURES, other))
    moved = (tokens != changed).any(-1)
    assert moved[:, 2 * 8 + 5].all()
    assert moved.sum() == 5


def test_positions_differ_in_both_directions():
    positions = make("vit").positions[0, 1:].detach()
    distances = torch.cdist(positions, positions)
    assert float(distances[~torch.eye(64, dtype=torch.bool)].min()) > 0.1


@pytest.mark.parametrize("kind", SMALL)
def test_contributions_of_every_block_are_complete(kind):
    """All paths go through each block, so that contributions sum to the change of the target."""
    network = make(kind, torch.float64)
    explained = rc.contribute(
        network, PICTURES, target=TopK(1), method=IntegratedGradients(80), progress=False
    )
    assert set(explained["layers"].children) == set(network.layers)
    for layer in network.layers:
        found = explained["layers"].children[layer].to_dataset()
        assert found.attrs["completeness"].startswith("holds")
        error = np.abs(found["completeness_error"] / found["target_change"])
        assert float(error.median()) < 0.02


@pytest.mark.parametrize("method", [ActGrad(), InputGrad()])
def test_sites_inside_a_block_can_be_read(method):
    network = make("vit")
    sites = ["blocks.1.mlp.act", "blocks.1.attn.qkv"]
    explained = rc.contribute(
        network, PICTURES, target=Sum(), method=method, layers=sites, progress=False
    )
    assert explained["layers/blocks.1.mlp.act"].sizes["channel"] == 20
    before = rc.adapt(network, "blocks.1.attn.proj", hook="input")
    heads = rc.contribute(
        before,
        PICTURES,
        target=Sum(),
        method=method,
        reduction=rc.reductions.HeadSums(2),
        progress=False,
    )
    assert heads["layers/blocks.1.attn.proj"].sizes["channel"] == 2
    assert float(np.abs(heads["layers/blocks.1.attn.proj/contribution"]).max()) > 0


# On disk


@pytest.fixture(params=["cnn", "vit"])
def saved(request, tmp_path):
    network = make(request.param)
    network.training_record = {"epochs": 2}
    save_network(network, tmp_path / "net", card="# Card\n")
    return network, tmp_path / "net"


def test_round_trip_is_exact(saved):
    network, folder = saved
    again = load_network(folder)
    assert type(again) is type(network)
    assert again.config() == network.config()
    assert again.training_record == {"epochs": 2}
    assert not again.training
    torch.testing.assert_close(again(PICTURES), network(PICTURES), rtol=0, atol=0)
    assert (folder / "card.md").read_text() == "# Card\n"


def test_altered_weights_are_refused(saved):
    _, folder = saved
    weights = folder / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(rc.RetinaCodecError, match="sha256 differs"):
        load_network(folder)


@pytest.mark.parametrize(
    "change",
    [{"kind": "SmallNet"}, {"classes": ["a"]}, {"classes": list("abcd")}, {"more": 1}, {"mean": 3}],
)
def test_a_config_that_does_not_fit_is_refused(saved, change):
    _, folder = saved
    config = json.loads((folder / "config.json").read_text())
    config["network"] |= change
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(rc.RetinaCodecError, match="do not fit together"):
        load_network(folder)


def test_an_endless_network_is_refused(tmp_path):
    save_network(make("vit"), tmp_path / "net")
    config = json.loads((tmp_path / "net/config.json").read_text())
    config["network"]["depth"] = 10**9
    (tmp_path / "net/config.json").write_text(json.dumps(config))
    with pytest.raises(rc.RetinaCodecError, match="depth at most 256"):
        load_network(tmp_path / "net")


def test_networks_of_another_kind_are_refused(tmp_path, small_network):
    rc.save_network(small_network, tmp_path / "retina")
    with pytest.raises(rc.RetinaCodecError, match=r"it holds a RetinaCNN\. Use load_network"):
        load_image_network(tmp_path / "retina")
    with pytest.raises(rc.RetinaCodecError, match="got Linear"):
        save_network(nn.Linear(2, 2), tmp_path / "linear")
    with pytest.raises(rc.RetinaCodecError, match="is not there"):
        load_network(tmp_path / "nowhere")


def test_an_existing_folder_is_kept(saved):
    network, folder = saved
    with pytest.raises(rc.RetinaCodecError, match="overwrite"):
        save_network(network, folder)
    save_network(network, folder, card="other", overwrite=True)
    assert (folder / "card.md").read_text() == "other"


@pytest.mark.parametrize(
    ("make_one", "message"),
    [
        (lambda: SmallResNet(["a"]), "at least two different names"),
        (lambda: SmallResNet(["a", "a"]), "at least two different names"),
        (lambda: SmallResNet(widths=(1, 2, 3)), "widths must be four numbers"),
        (lambda: SmallResNet(std=(1, 0, 1)), "std above 0"),
        (lambda: SmallViT(dim=10, heads=4), "dim one of heads"),
        (lambda: SmallViT(size=30), "size a multiple of patch"),
        (lambda: SmallViT(depth=0), "above 0"),
        (lambda: SmallViT(patch=8), "stem=0 for other patches"),
        (lambda: SmallViT(stem=-1), "channels above 0"),
    ],
)
def test_what_cannot_be_built_is_refused(make_one, message):
    with pytest.raises(rc.RetinaCodecError, match=message):
        make_one()
