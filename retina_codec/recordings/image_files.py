"""One picture from a file, as red, green and blue, whatever the file holds.

Why this file exists: collections of pictures hold grey, palette and CMYK files, pictures that were
stored on their side, and files that end too early. All of this is settled here, for one file, with
an error that names it. It knows nothing of classes and folders.
"""

import struct
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retina_codec.errors import RetinaCodecError

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["SUFFIXES", "read_picture"]

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
    """Read a picture as RGB.

    Parameters
    ----------
    path : pathlib.Path
        JPEG, PNG, BMP, TIFF, WebP, GIF or PPM, told by content, not by name. The first frame of
        several.
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
        If the file is missing, no picture, damaged, cut off, larger than Pillow believes a
        picture to be, or of floating-point numbers.
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
            "it again, or leave it out: open_images(..., damaged='skip')."
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
    """Say in a few words what was wrong, without the path."""
    from PIL import UnidentifiedImageError

    if isinstance(error, FileNotFoundError):
        return "no file is there"
    if isinstance(error, UnidentifiedImageError):
        return "its content is no picture, or one cut off in its first bytes"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split())[:150] or type(error).__name__
