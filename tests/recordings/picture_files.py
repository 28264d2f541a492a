"""Small collections of pictures, each of a colour that says which it is."""

from pathlib import Path

import numpy as np
from PIL import Image

WORDNET = ("n01440764", "n01443537", "n02012849")
NAMES = dict(zip(WORDNET, ("tench", "goldfish", "crane"), strict=True))


def write_picture(path: Path, level: int, size: tuple[int, int] = (8, 8)) -> None:
    """A picture ``(y, x)`` of red ``level``, green 2 and blue 3."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.full((*size, 3), [level, 2, 3], np.uint8)
    Image.fromarray(values).save(path, "PNG")


def write_classes(folder: Path, classes: tuple[str, ...] = WORDNET, each: int = 12) -> None:
    """Folders of classes; red counts pictures, class by class, in natural order of names."""
    for number, name in enumerate(classes):
        for place in range(each):
            write_picture(folder / name / f"picture {place + 1}.png", number * each + place)


def write_flat(folder: Path, count: int = 9) -> list[str]:
    """A validation folder as ImageNet has it; labels go round the classes."""
    names = [f"ILSVRC2012_val_{number + 1:08d}.JPEG" for number in range(count)]
    for number, name in enumerate(names):
        write_picture(folder / name, number)
    return names
