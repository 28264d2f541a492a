"""Find the picture files of a collection and their classes, and read one picture as RGB."""

import os
import re
import struct
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retina_codec.errors import RetinaCodecError
from retina_codec.images.labels import Labels, labels_of_files

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["SUFFIXES", "Collection", "find_pictures", "natural", "read_picture"]

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".ppm", ".pgm", ".bmp", ".tif", ".tiff", ".webp", ".gif"}
)
FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP", "GIF")
DAMAGES = (
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    MemoryError,
    RuntimeError,
    NotImplementedError,
    struct.error,
)


def read_picture(path: Path, *, orient: bool = True) -> "Image.Image":
    """Read a picture as red, green and blue.

    Parameters
    ----------
    path : pathlib.Path
        JPEG, PNG, BMP, TIFF, WebP, GIF or PPM; the content decides, not the suffix. Of several
        frames the first is read.
    orient : bool
        Turn and mirror as the file's EXIF orientation says. The loaders of torchvision do not.

    Returns
    -------
    PIL.Image.Image
        Mode "RGB", 8 bits per colour. Grey is repeated; 16-bit grey is divided by 257;
        transparency is left out, not laid on a background; CMYK is converted without a profile.

    Raises
    ------
    RetinaCodecError
        If the file is missing, not a picture, damaged, cut off, larger than Pillow accepts, or of
        floating-point numbers.
    """
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            warnings.simplefilter("ignore", UserWarning)  # damaged EXIF, which is not needed
            with Image.open(path, formats=FORMATS) as opened:
                opened.load()
                turned = ImageOps.exif_transpose(opened) if orient else opened
                return _to_rgb(turned)
    except (*DAMAGES, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise RetinaCodecError(
            f"{path} must be a picture that can be read whole; it is not ({_reason(error)}). Copy "
            "it again, or leave it out: files=rc.images.FileSettings(damaged='skip')."
        ) from error


def _to_rgb(picture: "Image.Image") -> "Image.Image":
    """Convert any mode to RGB, always into a new picture."""
    from PIL import Image

    if picture.mode.startswith("I"):  # Pillow would cut these off at 255
        values = np.asarray(picture).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(f"grey levels from {values.min()} to {values.max()}, not of 16 bits")
        grey: Any = np.rint(values / 257).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    if picture.mode == "F":
        raise ValueError("floating-point numbers; give such pictures as a DataArray")
    if picture.mode == "P" and "transparency" in picture.info:
        picture = picture.convert("RGBA")
    return picture.copy() if picture.mode == "RGB" else picture.convert("RGB")


def _reason(error: BaseException) -> str:
    """Return in a few words what was wrong, without the path."""
    from PIL import UnidentifiedImageError

    if isinstance(error, FileNotFoundError):
        return "no file is there"
    if isinstance(error, UnidentifiedImageError):
        return "its content is not a picture, or was cut off in the first bytes"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split())[:150] or type(error).__name__


PARTS = {
    "train": ("train", "training"),
    "val": ("val", "validation", "valid"),
    "test": ("test", "testing"),
}
PART_NAMES = {name for names in PARTS.values() for name in names}


@dataclass(frozen=True)
class Collection:
    """Files of pictures, in natural order, and their classes."""

    folder: Path
    files: list[str]  # below the folder, with / between steps
    labels: list[str] | None
    classes: list[str]  # as networks number them
    layout: str


def natural(name: str) -> list[tuple[int, int, str]]:
    """Return a key that sorts "picture 2" before "picture 10"."""
    parts = re.split(r"([0-9]+)", name)
    return [(0, int(part), part) if part.isdecimal() else (1, 0, part) for part in parts if part]


def find_pictures(
    path: str | os.PathLike[str],
    *,
    part: str | None = None,
    labels: Labels | None = None,
    follow_links: bool = False,
) -> Collection:
    """Find the pictures of a collection.

    Parameters
    ----------
    path : path
        A folder with one folder per class, with parts (train, val, test), or with pictures.
    part : str, optional
        The part to take, where there are parts.
    labels : path, (path, path) or mapping, optional
        For a flat folder; see `retina_codec.images.labels.labels_of_files`.
    follow_links : bool
        Follow links that lead out of the folder; they are refused otherwise.

    Returns
    -------
    Collection
        Classes are sorted as Python sorts text, which is how torchvision numbers them; pictures
        are in natural order of their class and then of their name.

    Raises
    ------
    RetinaCodecError
        If there is no folder, no picture, a part must be chosen or is not there, or labels are
        given twice or for some pictures only.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        what = "is a file" if root.exists() else "is not there"
        raise RetinaCodecError(f"a collection of pictures must be a folder; {root} {what}.")
    folder = _choose_part(root.resolve(), part)
    found = _walk(folder, root.resolve(), follow_links)
    if not found:
        raise RetinaCodecError(
            f"there must be pictures ({', '.join(sorted(SUFFIXES))}) in {folder}; there are none."
        )
    loose = [name for name in found if "/" not in name]
    if labels is not None or len(loose) == len(found):
        return _flat(folder, found, labels)
    if loose:
        raise RetinaCodecError(
            f"pictures must lie in folders of their classes, or all have labels; {folder} holds "
            f"both folders and {loose[0]!r}. Give labels, or put it into a folder."
        )
    of_class = [name.split("/", 1)[0] for name in found]
    classes = sorted(entry.name for entry in folder.iterdir() if _is_class(entry))
    return Collection(folder, found, of_class, classes, "folders of classes")


def _flat(folder: Path, files: list[str], labels: Labels | None) -> Collection:
    """Give labels from a table, or none."""
    if labels is None:
        return Collection(folder, files, None, [], "flat, without labels")
    names = [name.rsplit("/", 1)[-1] for name in files]
    if len(set(names)) < len(names):
        raise RetinaCodecError(
            f"with a table of labels, names of pictures must differ; {folder} has some twice."
        )
    found = labels_of_files(names, labels)
    return Collection(folder, files, found, sorted(set(found)), "flat, with a table of labels")


def _choose_part(root: Path, part: str | None) -> Path:
    """Go into the folder of a part, where there are parts."""
    folders = {entry.name for entry in root.iterdir() if _is_class(entry)}
    parts = sorted(folders & PART_NAMES)
    if part is None:
        if parts and folders <= PART_NAMES:
            raise RetinaCodecError(
                f"one part of {root} must be chosen; pass part= one of {', '.join(parts)}."
            )
        return root
    wanted = PARTS.get(part, (part,))
    chosen = [name for name in wanted if name in folders]
    if not chosen and root.name in wanted:
        return root
    if len(chosen) != 1:
        raise RetinaCodecError(
            f"there must be one folder {' or '.join(wanted)} in {root}; it has "
            f"{', '.join(sorted(folders)[:10]) or 'no folders'}."
        )
    return root / chosen[0]


def _is_class(entry: Path) -> bool:
    return entry.is_dir() and not entry.name.startswith(".")


def _walk(folder: Path, root: Path, follow_links: bool) -> list[str]:
    """Return pictures below a folder, in natural order; hidden files are passed over."""
    found: list[str] = []
    entered = {folder.resolve()}
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        try:
            with os.scandir(here) as entries:
                listed = [Path(entry.path) for entry in entries if not entry.name.startswith(".")]
        except OSError as error:
            raise RetinaCodecError(f"{here} must be readable; {error.strerror}.") from error
        for entry in listed:
            wanted = entry.suffix.lower() in SUFFIXES
            if entry.is_symlink() and (wanted or entry.is_dir()):
                _check_link(entry, root, follow_links)
            if entry.is_dir():
                place = entry.resolve()
                if place not in entered:  # a link may lead back
                    entered.add(place)
                    waiting.append(entry)
            elif wanted:
                found.append(entry.relative_to(folder).as_posix())
    return sorted(found, key=lambda name: [natural(step) for step in name.split("/")])


def _check_link(entry: Path, root: Path, follow_links: bool) -> None:
    if not follow_links and not entry.resolve().is_relative_to(root):
        raise RetinaCodecError(
            f"links must stay in the folder; {entry} leads to {entry.resolve()}. Pass files="
            "rc.images.FileSettings(follow_links=True) to follow it."
        )
