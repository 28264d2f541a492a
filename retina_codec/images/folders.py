"""Open folders of pictures as data sets with classes, names and superclasses."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import Dataset

from retina_codec.errors import RetinaCodecError
from retina_codec.images.files import Collection, find_pictures, read_picture
from retina_codec.images.hierarchy import Hierarchy, open_hierarchy
from retina_codec.images.labels import WORDNET, Labels, read_class_names
from retina_codec.progress import progress_bar

__all__ = ["CenterCrop", "FileSettings", "ImageSet", "open_images"]

NAMES_FILE = "LOC_synset_mapping.txt"
Damaged = Literal["on read", "error", "skip"]
DAMAGED = ("on read", "error", "skip")


@dataclass(frozen=True)
class FileSettings:
    """How files of pictures are found and read.

    Parameters
    ----------
    damaged : {"on read", "error", "skip"}
        What happens where a picture cannot be read. "on read": an error when it is used. "error":
        all pictures are read at opening, and the error names the first. "skip": all are read at
        opening, these are left out, and ``attrs`` say how many.
    orient : bool
        Rotate and mirror pictures as EXIF says; torchvision does not.
    follow_links : bool
        Follow links that lead out of the folder.

    Raises
    ------
    RetinaCodecError
        If ``damaged`` is none of these.
    """

    damaged: Damaged = "on read"
    orient: bool = True
    follow_links: bool = False

    def __post_init__(self) -> None:
        """Validate the choice."""
        if self.damaged not in DAMAGED:
            raise RetinaCodecError(
                f"damaged must be one of {', '.join(map(repr, DAMAGED))}; got {self.damaged!r}."
            )


AS_THEY_ARE = FileSettings()


@dataclass(frozen=True)
class CenterCrop:
    """Shrink a picture, cut out its middle, and make a tensor of it.

    Parameters
    ----------
    size : int
        Side of the square that is cut out, px.
    resize : int, optional
        Length of the shorter side before that, px (bicubic, antialiased); ``size`` when left out.
    mean, std : three float, optional
        ``(value − mean) / std`` per colour, for networks that do not normalise by themselves.

    Raises
    ------
    RetinaCodecError
        If ``resize`` is smaller than ``size``, or only one of mean and std is given.
    """

    size: int
    resize: int | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None

    def __post_init__(self) -> None:
        """Validate the parameters."""
        if self.size < 1 or (self.resize or self.size) < self.size:
            raise RetinaCodecError(
                f"the shorter side must not be smaller than what is cut out; got {self!r}."
            )
        if (self.mean is None) != (self.std is None):
            raise RetinaCodecError(f"mean and std must be given together; got {self!r}.")

    def __call__(self, picture: Any) -> torch.Tensor:
        """PIL picture to ``(color, y, x)``, float32, in [0, 1] unless normalised."""
        from PIL import Image

        share = (self.resize or self.size) / min(picture.size)
        width, height = (max(self.size, round(share * length)) for length in picture.size)
        resized = picture.resize((width, height), Image.Resampling.BICUBIC)
        left, top = (width - self.size) // 2, (height - self.size) // 2
        values = _to_tensor(resized.crop((left, top, left + self.size, top + self.size)))
        if self.mean is not None and self.std is not None:
            mean, std = (torch.tensor(three).view(3, 1, 1) for three in (self.mean, self.std))
            values = (values - mean) / std
        return values


class ImageSet(Dataset[Any]):
    """Pictures by number, decoded when they are used; made by `open_images`.

    Attributes
    ----------
    coords : dict of str to numpy.ndarray
        Coordinates of the pictures, ``(sample,)``; `contribute` adds them to the results.
    classes : list of str
        Labels in the order of ``class_number``.
    shape : tuple of int
        Of one picture, ``(color, y, x)``.
    attrs : dict
        Folder, layout, seed and how many pictures were left out.
    """

    def __init__(
        self,
        folder: Path,
        coords: Mapping[str, np.ndarray],
        classes: Sequence[str],
        *,
        preprocess: Callable[[Any], Any] | None,
        orient: bool,
        attrs: Mapping[str, Any],
    ) -> None:
        self.folder, self.coords, self.classes = folder, dict(coords), list(classes)
        self.attrs = dict(attrs)
        self._preprocess, self._orient = preprocess, orient
        self.shape: tuple[int, ...] = ()
        self.shape = tuple(self.picture(0).shape)

    def __len__(self) -> int:
        return len(self.coords["file"])

    def __getitem__(self, index: int) -> Any:
        """Return the picture ``(color, y, x)``, and the number of its class where it has one."""
        picture = self.picture(index)
        if "class_number" not in self.coords:
            return picture
        return picture, int(self.coords["class_number"][index])

    def take(self, order: Sequence[int]) -> "ImageSet":
        """Return these pictures in this order, with their coordinates."""
        chosen = np.asarray(order, dtype=np.intp)
        return ImageSet(
            self.folder,
            {name: values[chosen] for name, values in self.coords.items()},
            self.classes,
            preprocess=self._preprocess,
            orient=self._orient,
            attrs=self.attrs,
        )

    def picture(self, index: int) -> torch.Tensor:
        """Read one picture."""
        count = len(self)
        if not -count <= index < count:
            raise IndexError(f"pictures are numbered from 0 to {count - 1}; got {index}")
        file = self.folder / str(self.coords["file"][index])
        picture = read_picture(file, orient=self._orient)
        values = _to_tensor(picture) if self._preprocess is None else self._preprocess(picture)
        if isinstance(values, np.ndarray):
            values = torch.from_numpy(values)
        if not isinstance(values, torch.Tensor) or values.ndim != 3:
            came = tuple(values.shape) if hasattr(values, "shape") else type(values).__name__
            raise RetinaCodecError(
                f"preprocess must return a tensor (color, y, x); it returned {came}."
            )
        if self.shape and tuple(values.shape) != self.shape:
            raise RetinaCodecError(
                f"all pictures must have one size; the first is {self.shape}, {file} is "
                f"{tuple(values.shape)}. Pass for example preprocess=CenterCrop(224)."
            )
        return values


def open_images(
    path: str | os.PathLike[str],
    *,
    preprocess: Callable[[Any], Any] | None = None,
    part: str | None = None,
    labels: Labels | None = None,
    names: str | os.PathLike[str] | Mapping[str, str] | None = None,
    hierarchy: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    classes: Sequence[str] | None = None,
    limit_per_class: int | None = None,
    seed: int = 0,
    files: FileSettings = AS_THEY_ARE,
    progress: bool | None = None,
) -> ImageSet:
    """Open a folder of pictures; each is decoded when it is used.

    Parameters
    ----------
    path : path
        One folder per class; or train, val and test with such folders (ImageNet); or one flat
        folder, with ``labels`` or without.
    preprocess : callable, optional
        PIL picture (RGB) to tensor ``(color, y, x)``: `CenterCrop`, or what torchvision, timm or
        an adapter of a network gives. None: values in [0, 1] at the size of the file.
    part : str, optional
        "train", "val" or "test", where there are parts.
    labels : path, (path, path) or mapping, optional
        Labels of a flat folder: a table (.csv, .tsv, .txt, .json) of files and labels, or
        (``ILSVRC2012_validation_ground_truth.txt``, classes in the order of its numbers).
    names : path or mapping, optional
        Names of classes by id, such as ``LOC_synset_mapping.txt``, which is taken when it lies in
        the folder. Its order numbers the classes.
    hierarchy : path or mapping, optional
        Superclasses of each class; see `retina_codec.images.hierarchy.open_hierarchy`.
    classes : sequence of str, optional
        Take only these, by label or name; they keep their numbers among all classes.
    limit_per_class : int, optional
        Take at most so many pictures of every class, at random; of all pictures where there are
        no labels.
    seed : int
        Of that choice.
    files : FileSettings
        What happens with damaged pictures; EXIF orientation; links.
    progress : bool, optional
        For the reading of all: None shows a bar after 2 s, False never, True at once.

    Returns
    -------
    ImageSet
        Goes into `contribute` and into a ``DataLoader``. Its ``coords`` along sample: ``file``;
        where there are labels, ``label``, ``label_name`` and ``class_number`` (place among the
        classes, from 0); ``wordnet_id`` where all labels are such; with a hierarchy one array per
        level (``superclass``), empty text where a class has none or several at that level.

    Raises
    ------
    RetinaCodecError
        If the layout is not one of these, a table does not fit, nothing is left, pictures are
        damaged (see `FileSettings`), or ``preprocess`` returns no tensor.

    References
    ----------
    Deng et al. 2009, ImageNet, CVPR; Russakovsky et al. 2015, ILSVRC, IJCV 115:211.
    """
    if limit_per_class is not None and limit_per_class < 1:
        raise RetinaCodecError(f"limit_per_class must be at least 1; got {limit_per_class}.")
    found = find_pictures(path, part=part, labels=labels, follow_links=files.follow_links)
    known, ordered = _names(Path(path), found, names)
    file, label = np.array(found.files), None
    keep = np.arange(len(file))
    if found.labels is not None:
        label = np.array(found.labels)
        keep = _of_classes(label, known, classes)
    elif classes is not None or hierarchy is not None:
        raise RetinaCodecError("classes and hierarchy need labels; these pictures have none.")
    attrs: dict[str, Any] = {"folder": str(found.folder), "layout": found.layout, "seed": seed}
    if files.damaged != "on read":
        whole = _whole(found.folder, file[keep], files.damaged, progress)
        attrs["damaged"] = int((~whole).sum())
        keep = keep[whole]
    if limit_per_class is not None:
        keep = _limit(keep, label, limit_per_class, seed)
    if not len(keep):
        raise RetinaCodecError(
            f"at least one picture must be left; all of {found.folder} are left out. Change "
            "classes= or files=."
        )
    coords = {"file": file[keep]}
    if label is not None:
        coords |= _label_coords(label[keep], known, ordered)
        coords |= _levels(label[keep], hierarchy)
    return ImageSet(
        found.folder, coords, ordered, preprocess=preprocess, orient=files.orient, attrs=attrs
    )


def _names(
    path: Path, found: Collection, names: str | os.PathLike[str] | Mapping[str, str] | None
) -> tuple[dict[str, str], list[str]]:
    """Return names by label, and labels in the order of their numbers."""
    if names is None:
        beside = path.expanduser() / NAMES_FILE
        names = beside if beside.is_file() else {}
    known = dict(names) if isinstance(names, Mapping) else read_class_names(names)
    if known and set(found.classes) <= set(known):
        return known, list(known)
    if known and not set(found.classes) & set(known):
        raise RetinaCodecError(
            f"names must be those of the labels; no label of {found.folder} is among them (first "
            f"label {(found.classes or ['none'])[0]!r}, first id {next(iter(known))!r})."
        )
    return known, found.classes


def _of_classes(
    label: np.ndarray, known: Mapping[str, str], classes: Sequence[str] | None
) -> np.ndarray:
    """Return the places of the pictures of some classes, named by label or name."""
    if classes is None:
        return np.arange(len(label))
    there = set(label.tolist())
    by_name: dict[str, list[str]] = {}
    for one in sorted(there):
        by_name.setdefault(known.get(one, one), []).append(one)
    wanted: set[str] = set()
    for name in [classes] if isinstance(classes, str) else classes:
        if name in there:
            wanted.add(name)
        elif len(by_name.get(name, ())) == 1:
            wanted.add(by_name[name][0])
        else:
            several = f"it names {by_name[name]}" if name in by_name else "it is not there"
            listed = ", ".join(sorted(there)[:10])
            raise RetinaCodecError(
                f"classes must be labels or names of pictures here; {name!r}: {several}. There "
                f"are {len(there)} classes: {listed}{', ...' if len(there) > 10 else ''}."
            )
    return np.flatnonzero(np.isin(label, sorted(wanted)))


def _whole(folder: Path, files: np.ndarray, damaged: Damaged, progress: bool | None) -> np.ndarray:
    """Read every picture once; return which of them can be read."""
    whole = np.ones(len(files), bool)
    first = ""
    for place in progress_bar(range(len(files)), description="pictures", progress=progress):
        try:
            read_picture(folder / str(files[place]))
        except RetinaCodecError as error:
            whole[place] = False
            first = first or str(error)
    if damaged == "error" and not whole.all():
        raise RetinaCodecError(f"{(~whole).sum()} of {len(files)} pictures are damaged: {first}")
    return whole


def _limit(keep: np.ndarray, label: np.ndarray | None, limit: int, seed: int) -> np.ndarray:
    """Choose pictures of every class at random; they keep their order."""
    groups = np.zeros(len(keep), int) if label is None else label[keep]
    chosen = []
    for name in np.unique(groups):
        places = keep[groups == name]
        number = [ord(letter) for letter in str(name)]  # other classes do not change the choice
        generator = np.random.default_rng([seed, *number])
        chosen.append(generator.permutation(places)[:limit])
    return np.sort(np.concatenate(chosen)) if chosen else keep


def _label_coords(
    label: np.ndarray, known: Mapping[str, str], ordered: Sequence[str]
) -> dict[str, np.ndarray]:
    number = {name: place for place, name in enumerate(ordered)}
    coords = {
        "label": label,
        "label_name": np.array([known.get(name, name) for name in label.tolist()]),
        "class_number": np.array([number[name] for name in label.tolist()]),
    }
    if all(WORDNET.fullmatch(name) for name in set(label.tolist())):
        coords["wordnet_id"] = label
    return coords


def _levels(
    label: np.ndarray, hierarchy: str | os.PathLike[str] | Mapping[str, Any] | None
) -> dict[str, np.ndarray]:
    """Return the superclass of every picture at each level."""
    if hierarchy is None:
        return {}
    tree = hierarchy if isinstance(hierarchy, Mapping) else open_hierarchy(hierarchy)
    if not set(label.tolist()) & set(tree):
        raise RetinaCodecError(
            f"a hierarchy must hold the labels; it has none of {sorted(set(label.tolist()))[:5]}, "
            f"it has {sorted(tree)[:5]}."
        )
    found: dict[str, np.ndarray] = {}
    if isinstance(tree, Hierarchy):
        for level in tree.levels:
            at = tree.at(level)
            found[level] = np.array([at.get(name, "") for name in label.tolist()])
        return found
    above = {name: [one] if isinstance(one, str) else list(one) for name, one in tree.items()}
    single = {name: parents[0] for name, parents in above.items() if len(parents) == 1}
    return {"superclass": np.array([single.get(name, "") for name in label.tolist()])}


def _to_tensor(picture: Any) -> torch.Tensor:
    """RGB picture to ``(color, y, x)``, float32 in [0, 1]."""
    values = torch.from_numpy(np.array(picture))  # (y, x, color)
    return values.permute(2, 0, 1).to(torch.float32).div_(255).contiguous()
