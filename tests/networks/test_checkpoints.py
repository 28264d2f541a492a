"""Networks on disk: exact round trip; missing, altered and foreign files are refused."""

import json
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

import retina_codec as rc
from retina_codec.networks.checkpoints import KINDS


@pytest.fixture
def saved(small_network, tmp_path):
    small_network.training_record = {"settings": {"seed": 3}}
    rc.save_network(small_network, tmp_path / "net", card="# Card\n")
    return tmp_path / "net"


def test_round_trip_is_exact(saved, small_network):
    again = rc.load_network(saved)
    windows = torch.randn(3, 5, 13, 14)
    torch.testing.assert_close(again(windows), small_network(windows), rtol=0, atol=0)
    assert again.config() == small_network.config()
    assert again.training_record == {"settings": {"seed": 3}}
    assert not again.training
    assert (saved / "card.md").read_text() == "# Card\n"


def test_a_wide_field_is_kept_and_folders_from_before_have_none(saved, small_network, tmp_path):
    assert not rc.load_network(saved).surround
    assert "surround" not in (saved / "config.json").read_text()
    wide = rc.networks.RetinaCNN.from_config(small_network.config() | {"surround": True}).eval()
    torch.nn.init.normal_(wide.conv2.surround)
    rc.save_network(wide, tmp_path / "wide")
    again, windows = rc.load_network(tmp_path / "wide"), torch.randn(3, 5, 13, 14)
    assert again.surround
    torch.testing.assert_close(again(windows), wide(windows), rtol=0, atol=0)


def test_an_existing_folder_is_kept(saved, small_network):
    before = (saved / "config.json").read_bytes()
    with pytest.raises(rc.RetinaCodecError, match="overwrite"):
        rc.save_network(small_network, saved)
    assert (saved / "config.json").read_bytes() == before
    rc.save_network(small_network, saved, overwrite=True)
    assert not (saved / "card.md").exists()


@pytest.mark.parametrize("name", ["config.json", "weights.safetensors"])
def test_missing_file(saved, name):
    (saved / name).unlink()
    with pytest.raises(rc.RetinaCodecError, match=f"must hold {name}"):
        rc.load_network(saved)


def test_one_altered_byte(saved):
    weights = saved / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(rc.RetinaCodecError, match="sha256 differs"):
        rc.load_network(saved)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda c: c.update(format="other"), "must say format"),
        (lambda c: c.pop("network"), "lacks"),
        (lambda c: c["network"].update(channels=[4, 2]), "do not fit together"),
        (lambda c: c["network"].update(extra=1), "do not fit together"),
        (lambda c: c["network"].pop("history"), "do not fit together"),
    ],
)
def test_config_that_does_not_fit(saved, edit, message):
    config = json.loads((saved / "config.json").read_text())
    edit(config)
    (saved / "config.json").write_text(json.dumps(config))
    with pytest.raises(rc.RetinaCodecError, match=message):
        rc.load_network(saved)


def test_not_json_and_no_folder(saved, tmp_path):
    (saved / "config.json").write_text("{")
    with pytest.raises(rc.RetinaCodecError, match="must be JSON"):
        rc.load_network(saved)
    with pytest.raises(rc.RetinaCodecError, match="not there"):
        rc.load_network(tmp_path / "nowhere")


@pytest.mark.parametrize(("name", "value"), [("history", "five"), ("channels", [3])])
def test_a_config_that_makes_no_network_is_refused(saved, name, value):
    config = json.loads((saved / "config.json").read_text())
    config["network"][name] = value
    (saved / "config.json").write_text(json.dumps(config))
    with pytest.raises(rc.RetinaCodecError, match="do not fit together"):
        rc.load_network(saved)


def test_cells_and_types_from_arrays_can_be_saved(tmp_path):
    sizes = dict(history=5, frame_shape=(13, 14), channels=(2, 2), kernel_sizes=(5, 3, 3))
    types = np.array(["ON", "OFF"])
    rc.save_network(
        rc.networks.RetinaCNN(np.array([4, 8]), [[1, 1], [0, 2]], cell_types=types, **sizes),
        tmp_path / "n",
    )
    again = rc.load_network(tmp_path / "n")
    assert (again.cells, again.cell_types) == ((4, 8), ("ON", "OFF"))


class Line(nn.Linear):
    """A kind of network that the package does not know."""

    kind: ClassVar[str] = "Line"

    def __init__(self, size: int) -> None:
        super().__init__(size, 1)
        self.size, self.training_record = size, {}

    def config(self) -> dict:
        return {"kind": self.kind, "size": self.size}

    @classmethod
    def from_config(cls, config: dict, state: dict) -> "Line":
        network = cls(config["size"])
        network.load_state_dict(state)
        return network


def test_a_new_kind_is_one_row_of_the_table(tmp_path):
    network = Line(3)
    rc.save_network(network, tmp_path / "line")
    with pytest.raises(rc.RetinaCodecError, match="no kind of network 'Line'"):
        rc.load_network(tmp_path / "line")
    KINDS.register("Line", Line)
    again = rc.load_network(tmp_path / "line")
    assert isinstance(again, Line)
    assert torch.equal(again.weight, network.weight)


def test_what_cannot_be_saved_is_named(tmp_path):
    with pytest.raises(rc.RetinaCodecError, match=r"can be saved \(RetinaCNN, .*got Linear"):
        rc.save_network(nn.Linear(2, 2), tmp_path / "linear")
