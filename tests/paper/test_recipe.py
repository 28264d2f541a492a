"""Recipes: whole, missing and damaged copies of the files of a card."""

import hashlib
import json

import pytest

from retina_codec.errors import RetinaCodecError
from retina_codec.paper.recipe import run_recipe


def test_a_copy_is_whole_missing_or_damaged(tmp_path, capsys):
    content = b"spikes"
    table = {"a.bin": {"bytes": 6, "sha256": hashlib.sha256(content).hexdigest()}}
    card = tmp_path / "card.md"
    card.write_text(f"# a card\n\n```json\n{json.dumps(table)}\n```\n", encoding="utf-8")
    folder = tmp_path / "own"
    words = ["--folder", str(folder)]
    assert run_recipe(card, "SOMEWHERE", words) == 2
    assert "a.bin: 0 copies in the folder" in capsys.readouterr().err
    (folder / "deep").mkdir(parents=True)
    path = folder / "deep" / "a.bin"
    for held, status, said in (
        (content, 0, "a.bin: whole"),
        (b"spike", 2, "must have 6 bytes, has 5. Get it again from SOMEWHERE"),
        (b"spikez", 2, "must have the SHA-256"),
    ):
        path.write_bytes(held)
        assert run_recipe(card, "SOMEWHERE", words) == status
        assert said in capsys.readouterr().err
    card.write_text("# no table", encoding="utf-8")
    with pytest.raises(RetinaCodecError, match="must hold one JSON table"):
        run_recipe(card, "SOMEWHERE", words)
