"""Check the published files of Maheswaranathan et al. 2023: which are here, whole, and readable.

    python datasets/maheswaranathan_2023/recipe.py --folder neural_code_data --open

Nothing is downloaded; the card says where the files are. Hashes go to the standard output as JSON,
words to the standard error.
"""

import argparse
import json
import os
import sys
from pathlib import Path

from retina_codec.errors import RetinaCodecError
from retina_codec.recordings.maheswaranathan_2023.interneurons import open_interneurons
from retina_codec.recordings.maheswaranathan_2023.recording import read_maheswaranathan
from retina_codec.storage.trees import sha256_of

CARD = Path(__file__).with_name("card.md")
FOLDER = "RETINA_CODEC_DATA"
ADDRESS = "https://doi.org/10.25740/rk663dm5577"
INTERNEURONS = "interneuron_data"


def known_hashes(card: Path = CARD) -> dict[str, str]:
    """Read the table of the card: hashes by folder and name.

    Parameters
    ----------
    card : Path
        With one block of JSON.

    Returns
    -------
    dict of str
        SHA-256, 64 hexadecimal digits.

    Raises
    ------
    RetinaCodecError
        No such block, or one that is not a table of hashes.
    """
    parts = card.read_text(encoding="utf-8").split("```json\n")
    try:
        if len(parts) != 2:
            raise ValueError(f"{len(parts) - 1} blocks of JSON")
        table = json.loads(parts[1].split("```")[0])
        if not isinstance(table, dict) or any(len(str(value)) != 64 for value in table.values()):
            raise ValueError("not a table of names and 64 digits")
    except ValueError as error:
        raise RetinaCodecError(f"{card} must hold one table of hashes; it has {error}") from error
    return {str(name): str(value).lower() for name, value in table.items()}


def find_files(folder: Path) -> dict[str, Path]:
    """List the HDF5 files below a folder by folder and name: 15-10-07/naturalscene.h5.

    Parameters
    ----------
    folder : Path
        The unpacked archive, or a folder above it.

    Returns
    -------
    dict of Path

    Raises
    ------
    RetinaCodecError
        No folder, no files, or two files of one name.
    """
    if not folder.is_dir():
        raise RetinaCodecError(f"there must be a folder at {folder}; get the files from {ADDRESS}")
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*.h5")):
        name = f"{path.resolve().parent.name}/{path.name}"
        if name in found:
            raise RetinaCodecError(f"there must be one {name}; {found[name]} and {path} are two")
        found[name] = path
    if not found:
        raise RetinaCodecError(f"{folder} must hold .h5 files; get them from {ADDRESS}")
    return found


def check_hashes(hashes: dict[str, str], known: dict[str, str]) -> list[str]:
    """Compare hashes with the table; say one line for each file that differs or is missing.

    Parameters
    ----------
    hashes, known : dict of str
        Found and expected SHA-256 by name.

    Returns
    -------
    list of str
        Empty where every known file is here and whole.
    """
    wrong = [f"{name} is missing" for name in sorted(set(known) - set(hashes))]
    for name, value in hashes.items():
        if name in known and known[name] != value:
            wrong.append(f"{name} must have the hash {known[name]}; it has {value}. Get it again.")
    return wrong


def describe(name: str, path: Path) -> str:
    """Open one file and say in one line what is in it."""
    if name.startswith(INTERNEURONS):
        tree = open_interneurons(path)
        parts = [
            f"{node.path} {node.sizes['interneuron']} cells, {node.sizes['time']} samples"
            for node in tree.leaves
        ]
        return f"{name}: {'; '.join(parts)}"
    recording = read_maheswaranathan(path)
    parts = [
        f"/{split} {recording[split].sizes['time']} frames"
        for split in ("train", "test")
        if split in recording.children
    ]
    said = [f"{key}: {recording.attrs[key]}" for key in ("clock", "cut") if key in recording.attrs]
    return "; ".join([f"{name}: {recording['test'].sizes['cell']} cells", *parts, *said])


def main(arguments: list[str] | None = None) -> int:
    """Find, hash, compare, and open on request; 0 if nothing is wrong, else 2."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", default=os.environ.get(FOLDER), help=f"default: ${FOLDER}")
    parser.add_argument("--open", action="store_true", help="open every file and say what is in it")
    chosen = parser.parse_args(arguments)
    say = sys.stderr.write
    try:
        if not chosen.folder:
            raise RetinaCodecError(f"pass --folder, or set {FOLDER}; get the files from {ADDRESS}")
        files, known = find_files(Path(chosen.folder)), known_hashes()
        hashes = {name: sha256_of(path) for name, path in files.items()}
        sys.stdout.write(json.dumps(hashes, indent=2) + "\n")
        wrong = check_hashes(hashes, known)
        new = sorted(set(hashes) - set(known))
        if new:
            say(f"not verified, no hash is known: {', '.join(new)}. Add the JSON to {CARD.name}.\n")
        say(
            f"verified: {len(set(hashes) & set(known)) - sum('Get it' in w for w in wrong)} files\n"
        )
        for line in wrong:
            say(f"{line}\n")
        for name, path in files.items() if chosen.open else ():
            try:
                say(f"{describe(name, path)}\n")
            except RetinaCodecError as error:
                wrong.append(str(error))
                say(f"{name}: {error}\n")
    except RetinaCodecError as error:
        say(f"{error}\n")
        return 2
    return 2 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
