"""Formats of recordings: what a format must offer, and the registry of all formats."""

import os
from abc import ABC, abstractmethod
from pathlib import Path, PurePath
from typing import Any, ClassVar

import xarray as xr

from retina_codec.errors import RetinaCodecError
from retina_codec.recordings.schema import select_cells, validate_recording
from retina_codec.registry import Registry
from retina_codec.storage.hdf5 import is_address
from retina_codec.storage.trees import open_tree, save_tree

__all__ = ["Format", "format_of", "formats", "registry", "writable_format"]


class Format(ABC):
    """A way to store recordings; a subclass with a ``name`` is registered under it.

    Must:

    - ``name``: short and new, such as ``"csv"``.
    - ``suffixes``: ends of file or folder names, lower case, with the dot: ``(".csv",)``.
    - ``read(path, **options)``: return a valid recording (see
      `retina_codec.recordings.schema.make_recording`), its stimulus lazy where that is possible.

    Should:

    - ``options``: names of the keyword options of ``read``; other names are refused before.
    - ``recognises(path)``: say whether this format reads a path. By default its suffix decides.
      Look into the file where other formats have the same suffix, and into a folder.
    - ``write(recording, path, overwrite=...)``: write a valid recording; leave nothing behind when
      that fails. A format without ``write`` is only read.
    - ``addresses``: True if ``read`` takes addresses (``https://``, ``s3://``).

    Formats that were added last are asked first, so a format of a lab may share a suffix with one
    of the package. An installed package adds its format by an entry point in the group
    ``retina_codec.formats``.
    """

    name: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]]
    options: ClassVar[tuple[str, ...]] = ()
    addresses: ClassVar[bool] = False

    def __init_subclass__(cls, **keywords: Any) -> None:
        """Register the format."""
        super().__init_subclass__(**keywords)
        if "name" in vars(cls):
            registry.register(cls.name, cls)

    def recognises(self, path: str | os.PathLike[str]) -> bool:
        """Say whether this format reads a path, which need not exist."""
        return suffix_of(path) in self.suffixes and (self.addresses or not is_address(path))

    @abstractmethod
    def read(self, path: str | os.PathLike[str], **options: Any) -> xr.DataTree:
        """Open a recording."""

    def write(
        self, recording: xr.DataTree, path: str | os.PathLike[str], *, overwrite: bool
    ) -> None:
        """Write a valid recording."""
        raise NotImplementedError


def _check(name: str, item: type[Format]) -> None:
    suffixes = getattr(item, "suffixes", ())
    dotted = isinstance(suffixes, tuple) and all(
        isinstance(suffix, str) and suffix.startswith(".") and suffix.islower()
        for suffix in suffixes
    )
    if not (isinstance(item, type) and issubclass(item, Format) and suffixes and dotted):
        raise RetinaCodecError(
            "a recording format must be a subclass of retina_codec.recordings.Format with suffixes "
            f"such as ('.csv',), lower case; {name!r} has {suffixes!r}."
        )


registry: Registry[type[Format]] = Registry(
    "recording format",
    "retina_codec.formats",
    {
        "liu_2017": "retina_codec.recordings.white_noise.liu_2017:Liu2017",
        "crcns_ret1": "retina_codec.recordings.white_noise.crcns_ret1:CrcnsRet1",
        "maheswaranathan_2023": "retina_codec.recordings.maheswaranathan_2023.recording:Published",
        "xarray": "retina_codec.recordings.formats:Xarray",
        "nwb": "retina_codec.recordings.nwb.format:Nwb",
    },
    _check,
)


class Xarray(Format):
    """The package's own format: every array of the recording as xarray stores it."""

    name = "xarray"
    suffixes = (".nc", ".zarr")
    options = ("cells",)

    def read(self, path: str | os.PathLike[str], **options: Any) -> xr.DataTree:
        """See `Format`; ``cells`` are the names of those to keep."""
        tree = open_tree(path)
        if options.get("cells") is None:
            return tree
        try:
            validate_recording(tree)
            return select_cells(tree, options["cells"])
        except RetinaCodecError as error:
            tree.close()
            raise RetinaCodecError(f"{path}: {error}") from error

    def write(
        self, recording: xr.DataTree, path: str | os.PathLike[str], *, overwrite: bool
    ) -> None:
        """See `Format`."""
        save_tree(recording, path, overwrite=overwrite)


def formats() -> list[Format]:
    """Return all formats, those added last first."""
    return [registry.get(name)() for name in reversed(registry.list())]


def format_of(path: str | os.PathLike[str]) -> Format:
    """Choose the format that reads a path.

    Parameters
    ----------
    path : path
        A file, a folder or an address.

    Returns
    -------
    Format

    Raises
    ------
    RetinaCodecError
        No format recognises it, or nothing is there.
    """
    known = formats()
    found = next((each for each in known if each.recognises(path)), None)
    if found is None and is_address(path):
        able = ", ".join(each.name for each in known if each.addresses)
        raise RetinaCodecError(
            f"at an address only recordings of the format {able} can be opened; got "
            f"{os.fspath(path)!r}. Download it and open the copy."
        )
    if found is None:
        raise RetinaCodecError(_wrong_suffix(known, path))
    if not is_address(path) and not Path(path).exists():
        raise RetinaCodecError(
            f"there must be a recording at {path}; nothing is there. Correct the path."
        )
    return found


def writable_format(path: str | os.PathLike[str]) -> Format:
    """Choose the format that writes a path, by its suffix.

    Parameters
    ----------
    path : path

    Returns
    -------
    Format

    Raises
    ------
    RetinaCodecError
        No format writes this suffix.
    """
    able = [each for each in formats() if type(each).write is not Format.write]
    for each in able:
        if suffix_of(path) in each.suffixes:
            return each
    raise RetinaCodecError(_wrong_suffix(able, path))


def suffix_of(path: str | os.PathLike[str]) -> str:
    """Return the end of a file or folder name, lower case, with its dot."""
    return PurePath(os.fspath(path).rstrip("/")).suffix.lower()


def _wrong_suffix(able: list[Format], path: str | os.PathLike[str]) -> str:
    suffixes = ", ".join(dict.fromkeys(suffix for each in able for suffix in each.suffixes))
    return f"a recording's name must end in {suffixes}; got {os.fspath(path)!r}"
