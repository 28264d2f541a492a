"""Save and open whole trees of labelled arrays; write outputs so that none is left half written.

All outputs of the package go through `new_output`: a failure leaves the folder as it was.
"""

import hashlib
import os
import re
import shutil
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from retina_codec.errors import RetinaCodecError, in_words
from retina_codec.storage.hdf5 import hdf5_output, is_address
from retina_codec.storage.integrity import FILES, RUN, seal

__all__ = ["check_output", "local_path", "new_output", "open_tree", "save_tree", "sha256_of"]

CHUNK_BYTES = 2**20

ORDER = "order_of_groups"  # attribute of a group in a file: files do not keep an order themselves

DTYPE = "stored_dtype"  # of text that stands for bytes, one letter each, and of text of no entries

HIDDEN = (ORDER, FILES, RUN, DTYPE)

# Attributes of variables that the formats or xarray read as instructions.
INSTRUCTIONS = ("_FillValue", "missing_value", "scale_factor", "add_offset", "_Unsigned", "dtype")

SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+):/")  # two letters or more: C:/ is a drive


# what libraries raise for metadata that is damaged, besides OSError
UNREADABLE = (ValueError, LookupError, TypeError, AttributeError, RuntimeError, ArithmeticError)


def save_tree(tree: xr.DataTree, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Write a whole tree to one HDF5 file (`.nc`) or one Zarr folder (`.zarr`).

    Numeric arrays are compressed without loss, in chunks along their first dim. Lazy arrays are
    streamed. Text is stored as variable-length UTF-8.

    Parameters
    ----------
    tree : xr.DataTree
        Any dims. Attributes must be text, numbers, or lists of them. Not modified.
    path : path
        Where to write; the suffix decides the format.
    overwrite : bool
        Replace what is at ``path``; it stays untouched until the new file is complete.

    Raises
    ------
    RetinaCodecError
        Unknown suffix, existing path, an attribute or a date that cannot be stored, or a failing
        write.
    """
    suffix = tree_suffix(path)
    _check_attributes(tree)
    nodes: dict[str, xr.Dataset] = {}
    encoding: dict[str, dict[str, Any]] = {}
    for node in tree.subtree:
        nodes[node.path], encoding[node.path] = _to_storage(
            node.to_dataset(inherit=False), zarr=suffix == ".zarr"
        )
        if len(node.children) > 1:
            order = {ORDER: [str(name) for name in node.children]}
            nodes[node.path] = nodes[node.path].assign_attrs(order)
    stored = xr.DataTree.from_dict(nodes)
    with new_output(path, overwrite=overwrite) as partial:
        try:
            if suffix == ".nc":
                with hdf5_output(partial) as stream:
                    stored.to_netcdf(stream, engine="h5netcdf", encoding=encoding)
            else:
                stored.to_zarr(partial, mode="w", consolidated=False, encoding=encoding)
                seal(partial, {})
        except (RuntimeError, TypeError, ValueError, LookupError, ArithmeticError) as error:
            if isinstance(error, RetinaCodecError):
                raise
            raise RetinaCodecError(f"could not write {path}: {_one_line(error)}") from error


def open_tree(path: str | os.PathLike[str], *, lazy: bool = True) -> xr.DataTree:
    """Open a tree that `save_tree` wrote.

    Parameters
    ----------
    path : path
        A `.nc` file or a `.zarr` folder.
    lazy : bool
        True reads a numeric array when its values are asked for (a slice reads that slice);
        False reads everything now and closes the file.

    Returns
    -------
    xr.DataTree
        As saved: same nodes, dims, coordinates, values and attributes (from ``.nc``, a list of one
        number as the number).

    Raises
    ------
    RetinaCodecError
        Nothing at ``path``, an unknown suffix, or a file of another format.
    """
    place, suffix = local_path(path), tree_suffix(path)
    options: dict[str, Any] = {"decode_times": False, "decode_timedelta": False}
    if not place.exists():
        raise RetinaCodecError(f"there must be a file or folder at {path}; nothing is there")
    try:
        if suffix == ".nc":
            raw = xr.open_datatree(place, engine="h5netcdf", **options)
        else:
            raw = _open_zarr(place, options)
    except (OSError, *UNREADABLE) as error:
        kind = "HDF5 (netCDF4) file" if suffix == ".nc" else "Zarr folder"
        raise RetinaCodecError(
            f"{path} must be a readable {kind}; it is not ({_one_line(error)})"
        ) from error
    tree = xr.DataTree.from_dict(
        {node.path: _from_storage(node.to_dataset(inherit=False)) for node in _in_order(raw)}
    )
    if not lazy:
        tree = tree.load()
        raw.close()
        return tree
    tree.set_close(raw.close)
    return tree


def _open_zarr(place: Path, options: dict[str, Any]) -> xr.DataTree:
    """Open a folder so that a file that is lost or damaged is told of."""
    from zarr.errors import ZarrUserWarning
    from zarr.storage import LocalStore

    from retina_codec.storage.whole import WholeStore

    store: Any = WholeStore(LocalStore(place.resolve(), read_only=True))
    with warnings.catch_warnings():
        # zarr leaves out, with this warning, an array whose metadata it does not understand
        warnings.simplefilter("error", ZarrUserWarning)
        try:
            return xr.open_datatree(store, engine="zarr", consolidated=False, **options)
        except ZarrUserWarning as error:
            raise ValueError(str(error)) from error


def local_path(path: Any) -> Path:
    """Return a path of this machine; refuse an address, to which nothing is written.

    Parameters
    ----------
    path : path

    Returns
    -------
    Path
        With the home folder in place of ``~``.

    Raises
    ------
    RetinaCodecError
        If it is an address (``s3://...``, also as a `Path`), or no path at all.
    """
    try:
        text = os.fsdecode(os.fspath(path))
    except TypeError:
        raise RetinaCodecError(
            f"a place to write to or open must be a path; got {type(path).__name__}. "
            "Give its name, 'results.zarr', say."
        ) from None
    scheme = SCHEME.match(text)
    if scheme or is_address(text):
        way_out = "Leave 'file:' out" if scheme and scheme[1] == "file" else "Use a local folder"
        raise RetinaCodecError(
            f"results are written to and opened from folders of this machine; got the address "
            f"{text!r}. {way_out}, and copy what was made to where it should be."
        )
    return Path(text).expanduser()


def check_output(
    path: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    inputs: Iterable[str | os.PathLike[str]] = (),
) -> None:
    """Refuse an output, before any work, as `new_output` does.

    Parameters
    ----------
    path, overwrite, inputs
        See `new_output`.

    Raises
    ------
    RetinaCodecError
        The path exists (without ``overwrite``), or holds an input or the working folder.
    """
    destination = local_path(path).resolve()
    if not os.path.lexists(destination):
        return
    if not overwrite:
        raise RetinaCodecError(
            f"the output must not exist yet; {path} does. Choose another name, or replace it "
            f"with {in_words('overwrite=True', '--overwrite')}."
        )
    kept = [Path(entry).expanduser().resolve() for entry in inputs]
    for place in [*kept, Path.cwd(), Path.home()]:
        if place == destination or destination in place.parents:
            raise RetinaCodecError(
                f"the output must not replace what is in use; {path} holds {place}. "
                "Choose another place."
            )


@contextmanager
def new_output(
    path: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    inputs: Iterable[str | os.PathLike[str]] = (),
) -> Iterator[Path]:
    """Give a place to write beside ``path``, and move it there only when all went well.

    The body creates a file or a folder at the path it is given (``.<name>.partial``). On success it
    is renamed to ``path``; on any failure, a keyboard interrupt included, it is removed.

    Parameters
    ----------
    path : path
        The file or folder that should exist afterwards. Missing parent folders are made.
    overwrite : bool
        Replace what is there. The old output is removed only after the new one is in place.
    inputs : paths
        Files that the body reads: an output that would replace one of them is refused.

    Yields
    ------
    Path
        The partial path; nothing exists there yet.

    Raises
    ------
    RetinaCodecError
        The path exists (without ``overwrite``), or would swallow an input or the working folder,
        or the system could not write.
    """
    destination = local_path(path).resolve()
    check_output(path, overwrite=overwrite, inputs=inputs)
    partial = destination.with_name(f".{destination.name}.partial")
    made: list[Path] = []
    done = False
    try:
        made = _make_parents(destination.parent)
        _remove(partial)
        yield partial
        if not os.path.lexists(partial):
            raise RetinaCodecError(f"could not write {path}: nothing was written")
        check_output(destination, overwrite=overwrite, inputs=inputs)
        _replace(partial, destination)
        done = True
    except OSError as error:
        raise RetinaCodecError(
            f"could not write {path}: {_one_line(error)}; nothing was left behind. "
            "Free some space or choose another place."
        ) from error
    finally:
        if not done:
            with suppress(OSError):
                _remove(partial)
            for folder in reversed(made):
                with suppress(OSError):
                    folder.rmdir()


def sha256_of(path: str | os.PathLike[str]) -> str:
    """Hash the contents of a file, or of all files below a folder.

    A folder's hash covers the sorted relative names and the contents, nothing else: no dates.

    Parameters
    ----------
    path : path
        A file or a folder.

    Returns
    -------
    str
        SHA-256, 64 hexadecimal digits.

    Raises
    ------
    RetinaCodecError
        Nothing at ``path``, or not readable.
    """
    source = Path(path)
    try:
        if source.is_file():
            return _file_digest(source)
        if source.is_dir():
            whole = hashlib.sha256()
            names = sorted(
                entry.relative_to(source).as_posix()
                for entry in source.rglob("*")
                if entry.is_file()
            )
            for name in names:
                whole.update(f"{name}\0{_file_digest(source / name)}\n".encode())
            return whole.hexdigest()
    except OSError as error:
        raise RetinaCodecError(f"{path} must be readable; {_one_line(error)}") from error
    raise RetinaCodecError(f"there must be a file or folder at {path}; nothing is there")


def tree_suffix(path: str | os.PathLike[str]) -> str:
    """Return ``.nc`` or ``.zarr``, the two formats of a tree, or say that it is neither."""
    suffix = local_path(path).suffix.lower()
    if suffix not in (".nc", ".zarr"):
        raise RetinaCodecError(
            f"the name must end in .nc or .zarr; got {os.fspath(path)!r}. Rename it."
        )
    return suffix


def _to_storage(dataset: xr.Dataset, *, zarr: bool) -> tuple[xr.Dataset, dict[str, Any]]:
    """Chunks, compression and a text type that both formats know; values unchanged."""
    dataset = dataset.drop_encoding()
    encoding: dict[str, Any] = {}
    changed: dict[Any, xr.Variable] = {}
    for name, variable in dataset.variables.items():
        if variable.dtype.kind in "OSTU":
            changed[name] = _text_to_storage(name, variable)
            continue
        if variable.dtype.kind in "mM":  # would come back as bare numbers
            raise RetinaCodecError(
                f"dates and durations cannot be stored; {name} is {variable.dtype}. "
                "Write numbers of seconds."
            )
        if variable.ndim == 0 or variable.size == 0:
            continue
        chunks = _chunk_shape(variable.shape, variable.dtype.itemsize)
        if zarr:
            encoding[str(name)] = {"chunks": chunks}
        else:
            encoding[str(name)] = {"chunksizes": chunks, "zlib": True, "complevel": 1}
        if variable.chunks is not None:  # writers want whole chunks: rows of several per block
            rows = chunks[0] * max(1, variable.chunks[0][0] // chunks[0])
            blocks = {dim: -1 for dim in variable.dims} | {variable.dims[0]: rows}
            changed[name] = variable.chunk(blocks)
    coordinates = {name: value for name, value in changed.items() if name in dataset.coords}
    variables = {name: value for name, value in changed.items() if name not in dataset.coords}
    return dataset.assign_coords(coordinates).assign(variables).drop_encoding(), encoding


def _text_to_storage(name: Any, variable: xr.Variable) -> xr.Variable:
    """Return text of any length; bytes as letters of the same number, and their dtype beside."""
    values, about = variable.to_numpy(), dict(variable.attrs)
    if values.dtype.kind == "S":  # fixed widths have no specification in Zarr 3, bytes none in HDF5
        about[DTYPE] = values.dtype.str
        values = np.char.decode(values, "latin-1")
    elif not values.size:  # formats give no entries a dtype of numbers
        about[DTYPE] = "<U1"
    text = np.asarray(values, dtype=object)
    strange = [one for one in text.ravel() if not isinstance(one, str)]
    if not strange:
        return xr.Variable(variable.dims, text, about)
    raise RetinaCodecError(
        f"variables must hold text or numbers; {name} holds {strange[0]!r:.40}. Write missing "
        "text as an empty string, and numbers in an array of their own."
    )


def _in_order(node: xr.DataTree) -> Iterator[xr.DataTree]:
    """Give a group and all below it, in the order they were saved in."""
    yield node
    saved = node.attrs.get(ORDER, [])
    order = {str(name): place for place, name in enumerate(np.atleast_1d(saved))}
    for name in sorted(node.children, key=lambda name: order.get(str(name), len(order))):
        yield from _in_order(node.children[name])


def _from_storage(dataset: xr.Dataset) -> xr.Dataset:
    """Text as fixed-width arrays, attributes as plain Python, whichever format it came from."""
    changed: dict[Any, xr.Variable] = {}
    for name, variable in dataset.variables.items():
        if variable.dtype.kind in "OSTU" or DTYPE in variable.attrs:
            values = variable.to_numpy().astype(object).astype(str)
            dtype = np.dtype(variable.attrs.get(DTYPE, values.dtype))
            if dtype.kind == "S":
                values = np.char.encode(values, "latin-1").astype(dtype)
            changed[name] = xr.Variable(variable.dims, values, variable.attrs)
    coordinates = {name: value for name, value in changed.items() if name in dataset.coords}
    variables = {name: value for name, value in changed.items() if name not in dataset.coords}
    dataset = dataset.assign_coords(coordinates).assign(variables)
    dataset.attrs = _plain_attributes(dataset.attrs)
    for name in dataset.variables:
        dataset[name].attrs = _plain_attributes(dataset[name].attrs)
    return dataset


def _plain_attributes(attributes: Mapping[Any, Any]) -> dict[Any, Any]:
    return {
        name: value.tolist() if isinstance(value, np.ndarray | np.generic) else value
        for name, value in attributes.items()
        if name not in HIDDEN
    }


def _check_attributes(tree: xr.DataTree) -> None:
    """Both formats keep text and numbers; HDF5 has no None, bool or dict."""
    bad: list[str] = []
    for node in tree.subtree:
        dataset = node.to_dataset(inherit=False)
        owners = [(node.path, dataset.attrs)]
        owners += [(f"{node.path}:{name}", dataset[name].attrs) for name in dataset.variables]
        for owner, attributes in owners:
            bad += [
                f"{owner} {name}={value!r}"
                for name, value in attributes.items()
                if not _is_storable(value)
            ]
        for name, variable in dataset.variables.items():
            taken = [key for key in variable.attrs if key in INSTRUCTIONS]
            if taken:
                raise RetinaCodecError(
                    f"attributes must not be instructions to a reader; {node.path}:{name} has "
                    f"{taken[0]}={variable.attrs[taken[0]]!r:.40}, and its values would come back "
                    "changed. Rename the attribute."
                )
    if bad:
        raise RetinaCodecError(
            f"attributes must be text, numbers or lists of them; got {'; '.join(bad)}. "
            "Write them as text."
        )


def _is_storable(value: object) -> bool:
    if isinstance(value, bool | np.bool_):
        return False
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "iufU"
    if isinstance(value, list | tuple):
        return all(_is_storable(item) and not isinstance(item, list | tuple) for item in value)
    return isinstance(value, str | int | float | np.integer | np.floating)


def _chunk_shape(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """About one MiB: whole rows of the first dim, or parts of one row when a row is larger."""
    chunk = list(shape)
    for axis in range(len(shape)):
        below = itemsize * int(np.prod(shape[axis + 1 :], dtype=np.int64))
        chunk[axis] = max(1, min(shape[axis], CHUNK_BYTES // max(1, below)))
        if chunk[axis] > 1 or below <= CHUNK_BYTES:
            break
    return tuple(chunk)


def _make_parents(folder: Path) -> list[Path]:
    """Make missing folders; return those made, outermost first."""
    missing: list[Path] = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    made = missing[::-1]
    for entry in made:
        entry.mkdir()
    return made


def _replace(partial: Path, destination: Path) -> None:
    """Put the finished output in place; folders cannot be replaced in one step."""
    if not destination.is_dir() and not partial.is_dir():
        os.replace(partial, destination)
        return
    previous = destination.with_name(f".{destination.name}.previous")
    _remove(previous)
    had_one = os.path.lexists(destination)
    if had_one:
        os.replace(destination, previous)
    try:
        os.replace(partial, destination)
    except OSError:
        if had_one:
            os.replace(previous, destination)
        raise
    with suppress(OSError):  # the new output is in place; an old copy is no failure
        _remove(previous)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif os.path.lexists(path):
        path.unlink()


def _file_digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.errno is not None and error.strerror:
        return error.strerror.splitlines()[0]
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
