"""Superclasses of classes, from tables or WordNet; samples that belong to each class.

Notation: a WordNet id is "n" and eight digits, as in the folders of ImageNet.
"""

import csv
import io
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from retina_codec.errors import RetinaCodecError
from retina_codec.images.labels import parse_json, read_text

__all__ = ["Hierarchy", "membership", "open_hierarchy"]

CLASS_WORDS = ("class", "label", "wnid", "wordnet_id", "synset", "name")


@dataclass(frozen=True)
class Hierarchy(Mapping[str, tuple[str, ...]]):
    """Superclasses of every class, as a mapping, and their levels.

    Parameters
    ----------
    above : dict of str to tuple of str
        All superclasses of a class, lowest level first.
    level : dict of str to str
        Level of every superclass.
    levels : tuple of str
        Names of the levels, lowest first; ("superclass",) where there is one.
    """

    above: dict[str, tuple[str, ...]]
    level: dict[str, str]
    levels: tuple[str, ...] = ("superclass",)

    def __getitem__(self, name: str) -> tuple[str, ...]:
        return self.above[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.above)

    def __len__(self) -> int:
        return len(self.above)

    def at(self, level: str) -> dict[str, str]:
        """Return the superclass of every class at a level, where there is exactly one."""
        found = {}
        for name, above in self.above.items():
            there = [parent for parent in above if self.level[parent] == level]
            if len(there) == 1:
                found[name] = there[0]
        return found


def open_hierarchy(path: str | os.PathLike[str]) -> Hierarchy:
    """Read which superclasses a class has.

    Parameters
    ----------
    path : path
        ``.csv``: one class per row, then its superclass, or one per level; a first row with
        "class", "label" or "wordnet_id" in front names the levels. ``.json``: class to
        superclass, to a list of them, or to level and superclass. ``.txt``: links of WordNet
        (``wordnet.is_a.txt``), parent and child in every line; all ancestors of a child are its
        superclasses.

    Returns
    -------
    Hierarchy
        Use it as a mapping from a class to its superclasses.

    Raises
    ------
    RetinaCodecError
        If the file is missing or not such a table, a class has two rows, one superclass is
        at two levels, or links go in a circle.

    References
    ----------
    Miller 1995, WordNet: a lexical database for English; Deng et al. 2009, ImageNet, section 2.
    """
    file = Path(path)
    readers = {".csv": _from_csv, ".json": _from_json, ".txt": _from_links}
    if file.suffix.lower() not in readers:
        raise RetinaCodecError(
            f"a hierarchy must be a .csv, a .json or WordNet's links in a .txt; got {file.name!r}."
        )
    rows, levels = readers[file.suffix.lower()](read_text(file), file)
    if not rows:
        raise RetinaCodecError(f"{file} must name at least one class and its superclass.")
    return _hierarchy(rows, levels, file)


def membership(labels: Any, hierarchy: Mapping[str, Any] | None = None) -> xr.DataArray:
    """Return which samples belong to which classes and superclasses.

    ``member[sample, concept]`` is true where the concept is the sample's label or one of its
    superclasses.

    Parameters
    ----------
    labels : array-like of str, (sample,)
        Class of every sample; an empty string for none.
    hierarchy : Hierarchy or mapping, optional
        From `open_hierarchy`, or class to superclass, or to several. Classes that it does not
        name have none.

    Returns
    -------
    xr.DataArray of bool, dims (sample, concept)
        Classes by alphabet, then superclasses by level and alphabet; those without a sample are
        left out. Along ``concept``: ``level``, "class" or the level of the superclass
        ("superclass" where there is one). Along ``sample``: the coordinate of the labels.

    Raises
    ------
    RetinaCodecError
        If there are no labels, or a superclass has the name of a class.
    """
    values = np.asarray(getattr(labels, "values", labels))
    if values.ndim != 1 or not (values.dtype.kind == "U" or _all_text(values)):
        raise RetinaCodecError(
            f"labels must be text, one per sample; got {values.dtype} of {values.shape}."
        )
    names, place = np.unique(values.astype(str), return_inverse=True)
    tree = hierarchy if isinstance(hierarchy, Hierarchy) else _plain_hierarchy(hierarchy or {})
    classes = [str(name) for name in names if name]
    if not classes:
        raise RetinaCodecError("there must be at least one label; all are empty.")
    found = {parent for name in classes for parent in tree.get(name, ())}
    if twice := sorted(found & set(classes)):
        raise RetinaCodecError(
            f"a superclass must not have the name of a class; {twice[0]!r} is both. Give samples "
            "labelled with it another label, or leave it out of the hierarchy."
        )
    order = {level: rank for rank, level in enumerate(tree.levels)}
    groups = sorted(found, key=lambda parent: (order[tree.level[parent]], parent))
    concepts = [*classes, *groups]
    column = {concept: number for number, concept in enumerate(concepts)}
    of_class = np.zeros((len(names), len(concepts)), bool)
    for row, name in enumerate(names.tolist()):
        members = [name, *tree.get(name, ())] if name else []
        of_class[row, [column[concept] for concept in members]] = True
    coords = {"concept": concepts}
    levels = ["class"] * len(classes) + [tree.level[group] for group in groups]
    result = xr.DataArray(
        of_class[place], dims=("sample", "concept"), coords=coords, name="member"
    ).assign_coords(level=("concept", levels))
    if isinstance(labels, xr.DataArray) and "sample" in labels.coords:
        result = result.assign_coords(sample=labels["sample"])
    return result


Row = tuple[str, list[tuple[str, str]]]  # class, and (level, superclass) of each


def _from_csv(text: str, file: Path) -> tuple[list[Row], list[str]]:
    rows = [[cell.strip() for cell in row] for row in csv.reader(io.StringIO(text)) if any(row)]
    if not rows or len(rows[0]) < 2:
        raise RetinaCodecError(f"{file} must have a class and a superclass in every row.")
    width = len(rows[0])
    levels = ["superclass", *(f"superclass {number}" for number in range(2, width))]
    if rows[0][0].lower() in CLASS_WORDS:
        levels, rows = rows[0][1:], rows[1:]
    if wrong := next((row for row in rows if len(row) != width or not row[0]), None):
        raise RetinaCodecError(f"{file} must have {width} cells in every row; got {wrong}.")
    found = [
        (row[0], [(level, cell) for level, cell in zip(levels, row[1:], strict=True) if cell])
        for row in rows
    ]
    return found, levels


def _from_json(text: str, file: Path) -> tuple[list[Row], list[str]]:
    rows: list[Row] = []
    for name, given in parse_json(text, file).items():
        if isinstance(given, dict):
            pairs = list(given.items())
        else:
            pairs = [("superclass", one) for one in (given if isinstance(given, list) else [given])]
        if not all(isinstance(one, str) for _, one in pairs):
            raise RetinaCodecError(
                f"{file} must give text, a list or levels of text to a class; got {given!r:.60} "
                f"for {name!r}."
            )
        rows.append((name, pairs))
    return rows, list(dict.fromkeys(level for _, pairs in rows for level, _ in pairs))


def _from_links(text: str, file: Path) -> tuple[list[Row], list[str]]:
    """Follow links from child to parent, upwards to the top."""
    parents: dict[str, list[str]] = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words:
            continue
        if len(words) != 2:
            raise RetinaCodecError(
                f"{file} must have a parent and a child in every line; line {number} has "
                f"{len(words)} words."
            )
        parents.setdefault(words[1], []).append(words[0])
    known: dict[str, dict[str, None]] = {}
    for child in parents:
        _climb(child, parents, known, file)
    rows = [(child, [("superclass", one) for one in known[child]]) for child in parents]
    return rows, ["superclass"]


def _climb(
    first: str, parents: dict[str, list[str]], known: dict[str, dict[str, None]], file: Path
) -> None:
    """Find all ancestors of a class, nearest first, without recursion."""
    path, entered = [first], {first}
    while path:
        here = path[-1]
        missing = [one for one in parents.get(here, ()) if one not in known]
        if missing:
            if missing[0] in entered:
                raise RetinaCodecError(
                    f"{file} must have no cycles; {missing[0]} is its own ancestor. Remove a link."
                )
            path.append(missing[0])
            entered.add(missing[0])
            continue
        direct = parents.get(here, [])
        known.setdefault(here, dict.fromkeys([*direct, *(a for p in direct for a in known[p])]))
        path.pop()
        entered.discard(here)


def _plain_hierarchy(mapping: Mapping[str, Any]) -> Hierarchy:
    rows: list[Row] = []
    for name, given in mapping.items():
        several = [given] if isinstance(given, str) else list(given)
        rows.append((str(name), [("superclass", str(one)) for one in several]))
    return _hierarchy(rows, ["superclass"], Path("hierarchy"))


def _hierarchy(rows: list[Row], levels: list[str], file: Path) -> Hierarchy:
    above: dict[str, tuple[str, ...]] = {}
    level: dict[str, str] = {}
    for name, pairs in rows:
        if name in above:
            raise RetinaCodecError(f"{file} must name every class once; {name!r} is there twice.")
        above[name] = tuple(dict.fromkeys(parent for _, parent in pairs))
        for rank, parent in pairs:
            if level.setdefault(parent, rank) != rank:
                raise RetinaCodecError(
                    f"{file} must have a superclass at one level; {parent!r} is at "
                    f"{level[parent]!r} and {rank!r}."
                )
    return Hierarchy(above, level, tuple(levels))


def _all_text(values: np.ndarray) -> bool:
    return values.dtype.kind in "OT" and all(isinstance(value, str) for value in values)
