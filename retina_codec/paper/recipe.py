"""Check the files of a published recording against the table of its card, and open them."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from retina_codec.errors import RetinaCodecError
from retina_codec.recordings.files import open_recording
from retina_codec.storage.trees import sha256_of

__all__ = ["run_recipe"]


def run_recipe(card: Path, address: str, arguments: Sequence[str] | None = None) -> int:
    """Say which files of a card are here and whole; open them on request.

    Parameters
    ----------
    card : Path
        Markdown with one JSON table: ``{file: {"bytes": size, "sha256": hash}}``.
    address : str
        Where the files are to be had.
    arguments : sequence of str, optional
        Those of the process when left out: ``--folder``, ``--open``.

    Returns
    -------
    int
        0 if every file of the card is here and whole, else 2; one line for each on standard error.

    Raises
    ------
    RetinaCodecError
        The card has no table.
    """
    parser = argparse.ArgumentParser(description=f"Check the files of {card.parent.name}.")
    parser.add_argument("--folder", type=Path, required=True, help="where your copies are")
    parser.add_argument("--open", action="store_true", help="open the recordings, say what is in")
    chosen = parser.parse_args(arguments)
    wrong = 0
    for name, stated in _table(card).items():
        found = sorted(chosen.folder.rglob(name)) if chosen.folder.is_dir() else []
        line = _fault(found, stated, address)
        wrong += bool(line)
        if not line:
            line = "whole"
            if chosen.open and name.endswith(".mat"):
                line += f"; {_describe(found[0])}"
        sys.stderr.write(f"{name}: {line}\n")
    return 2 if wrong else 0


def _table(card: Path) -> dict[str, dict[str, object]]:
    parts = card.read_text(encoding="utf-8").split("```json\n")
    try:
        table = json.loads(parts[1].split("```")[0])
        if not all({"bytes", "sha256"} <= set(each) for each in table.values()):
            raise ValueError("a file without bytes and sha256")
    except (IndexError, ValueError) as error:
        raise RetinaCodecError(f"{card} must hold one JSON table of files; {error}.") from error
    return dict(table)


def _fault(found: list[Path], stated: dict[str, object], address: str) -> str:
    """Return what is wrong with a file, or nothing."""
    if len(found) != 1:
        return f"{len(found)} copies in the folder, one must be there. Get it from {address}"
    size = os.stat(found[0]).st_size
    if size != stated["bytes"]:
        return f"must have {stated['bytes']} bytes, has {size}. Get it again from {address}"
    own = sha256_of(found[0])
    if own != stated["sha256"]:
        return f"must have the SHA-256 {stated['sha256']}, has {own}. Get it again from {address}"
    return ""


def _describe(path: Path) -> str:
    try:
        recording = open_recording(path)
    except RetinaCodecError as error:
        return str(error)
    return "; ".join(
        f"{split} {dict(recording[split].sizes)}"
        for split in ("train", "test")
        if split in recording.children
    )
