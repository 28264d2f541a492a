"""Read the labels of inputs (class, file, superclass) from where each kind of inputs keeps them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from torch.utils.data import Subset

from retina_codec.errors import RetinaCodecError

__all__ = ["array_labels", "dataset_labels"]

# Names that results give to something else.
TAKEN = (
    "activation",
    "axis1",
    "cell",
    "channel",
    "column",
    "completeness_error",
    "condition_number",
    "contribution",
    "covariance",
    "mean",
    "mode",
    "other_cell",
    "prediction",
    "rate",
    "row",
    "sign",
    "standard_error",
    "steps",
    "target",
    "target_change",
    "token",
    "type",
)


def array_labels(inputs: xr.DataArray, dim: str) -> dict[str, xr.Variable]:
    """Return the coordinates of an array along its first dim.

    Parameters
    ----------
    inputs : xr.DataArray
    dim : str
        Its first dim.

    Returns
    -------
    dict of str to xr.Variable
        Text is fixed-width; values and attributes are those of the inputs.

    Raises
    ------
    RetinaCodecError
        If a coordinate cannot be stored, or has a name that results use for something else.
    """
    return {
        str(name): _checked(str(name), values.variable, dim)
        for name, values in inputs.coords.items()
        if values.dims == (dim,)
    }


def dataset_labels(dataset: Any, count: int | None = None) -> dict[str, xr.Variable]:
    """Return the labels of the samples of a data set.

    Parameters
    ----------
    dataset : torch.utils.data.Dataset
        With ``coords``, arrays by name, one value per sample; or with ``targets``, numbers or
        names, one per sample, and ``classes``, the names of the numbers (as
        ``torchvision.datasets.ImageFolder`` has them): then they are the ``label``. A
        ``torch.utils.data.Subset`` of one has the labels of its samples.
    count : int, optional
        Number of samples; the length of the data set when left out, which differs where it gives
        whole batches.

    Returns
    -------
    dict of str to xr.Variable, dims (sample)
        Empty for a data set that says nothing.

    Raises
    ------
    RetinaCodecError
        If there is not one value per sample, a target has no class, or see `array_labels`.
    """
    if isinstance(dataset, Subset) and count in (None, len(dataset)):
        chosen = np.asarray(list(dataset.indices), dtype=np.int64)
        return {name: whole[chosen] for name, whole in dataset_labels(dataset.dataset).items()}
    coords = getattr(dataset, "coords", None)
    if isinstance(coords, Mapping):
        found = {str(name): values for name, values in coords.items()}
    elif getattr(dataset, "targets", None) is not None:
        found = {"label": _class_names(dataset)}
    else:
        return {}
    labels = {}
    count = len(dataset) if count is None else count
    for name, values in found.items():
        variable = getattr(values, "variable", values)
        if not isinstance(variable, xr.Variable):
            variable = xr.Variable(("sample",), np.asarray(values))
        if variable.shape != (count,):
            raise RetinaCodecError(
                f"a data set must have one {name} per sample; got {variable.shape} for "
                f"{count} samples."
            )
        labels[name] = _checked(name, xr.Variable(("sample",), variable.data, variable.attrs))
    return labels


def _class_names(dataset: Any) -> np.ndarray:
    """Return the name of every sample's class."""
    targets = np.asarray(dataset.targets)
    classes = getattr(dataset, "classes", None)
    if classes is None or targets.dtype.kind not in "iu" or targets.ndim != 1:
        return targets
    names = np.asarray([str(name) for name in classes])
    if len(targets) and not (targets.min() >= 0 and targets.max() < len(names)):
        raise RetinaCodecError(
            f"targets of a data set must number its {len(names)} classes from 0; got "
            f"{targets.min()} to {targets.max()}."
        )
    found: np.ndarray = names[targets]
    return found


def _checked(name: str, values: xr.Variable, dim: str = "sample") -> xr.Variable:
    """Return a coordinate in a form that netCDF and Zarr can hold."""
    if name in TAKEN:
        raise RetinaCodecError(
            f"results use the name {name!r} for something else; rename that coordinate of the "
            f"inputs, to {name}_of_{dim}, say."
        )
    array = values.to_numpy()
    if array.dtype.kind in "OT":
        strange = next((value for value in array if not isinstance(value, str)), None)
        if strange is not None:
            raise RetinaCodecError(
                f"the coordinate {name!r} of the inputs must be text or numbers; got "
                f"{strange!r:.60}. Write missing text as an empty string."
            )
        array = array.astype(str)
    elif array.dtype.kind not in "biufU":
        raise RetinaCodecError(
            f"the coordinate {name!r} of the inputs must be text or numbers; got {array.dtype}. "
            "Write times as seconds, or drop it."
        )
    return xr.Variable(values.dims, array, values.attrs)
