"""Open results for a command: whole, and of the kind that the command is for."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from retina_codec.errors import RetinaCodecError

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["open_results"]


def open_results(path: Path) -> "xr.DataTree":
    """Open results.nc, or the folder that holds it, and read every variable.

    Parameters
    ----------
    path : Path
        A file (.nc), a Zarr folder (.zarr), or a folder with results.nc.

    Returns
    -------
    xr.DataTree
        In memory.

    Raises
    ------
    RetinaCodecError
        Nothing there, no results, or a variable that cannot be read, which is named.
    """
    from retina_codec.storage.trees import open_tree

    place = _find(path)
    try:
        return open_tree(place, lazy=False)
    except Exception as error:
        name = _unreadable(place)
        if not name and isinstance(error, RetinaCodecError):
            raise
        what = f"its variable {name}" if name else "part of it"
        reason = " ".join(str(error).split())[:120]
        raise RetinaCodecError(
            f"{place} must be readable; {what} is not ({reason}). The file is damaged: copy it "
            "again, or run `retina-codec analyze` again."
        ) from error


def _find(path: Path) -> Path:
    """Return the file itself, or results.nc in a folder."""
    if path.suffix in (".nc", ".zarr"):
        place = path
    elif path.is_dir():
        place = path / "results.nc"
        if not place.is_file():
            raise RetinaCodecError(
                f"a folder of results must hold results.nc; {path} does not. "
                "Name another, or make one with `retina-codec analyze`."
            )
    else:
        place = path
    if not place.exists():
        raise RetinaCodecError(
            f"there must be results.nc, or a folder that holds it; {path} is not there. "
            "Make one with `retina-codec analyze`."
        )
    return place


def _unreadable(place: Path) -> str:
    """Name the first variable of a file (HDF5) that cannot be read; "" if there is none."""
    import h5py

    names: list[str] = []

    def check(name: str, item: Any) -> str | None:
        names.append(name)
        if isinstance(item, h5py.Dataset):
            item[()]
        return None

    try:
        with h5py.File(place) as file:
            names.append("")
            file.visititems(check)
    except Exception:
        return f"/{names[-1]}" if names and names[-1] else ""
    return ""
