"""Arrays that are read a few rows at a time: in memory, in a memory map, in HDF5 or Zarr, of dask.

Nothing is copied but the rows of a batch.
"""

import math
import mmap
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from retina_codec.errors import RetinaCodecError

__all__ = ["Rows", "check_numbers", "from_numpy", "is_mapped", "open_rows"]

NUMBERS = "biufc"


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows ``start`` to ``stop`` of an array with a shape and a dtype that can be sliced."""

    array: Any
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, part: slice) -> "Rows":
        start, stop, _ = part.indices(len(self))
        return Rows(self.array, self.start + start, self.start + max(start, stop))

    def __reduce__(self) -> Any:
        """Travel with these rows only; arrays that know their file by name travel as that name."""
        array = self.array
        if isinstance(array, np.ndarray) or type(array).__module__.startswith("h5py"):
            return Rows, (self.to_numpy(), 0, len(self))
        return Rows, (array, self.start, self.stop)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the rows."""
        return (len(self), *(int(size) for size in self.array.shape[1:]))

    @property
    def ndim(self) -> int:
        """Number of dims."""
        return len(self.array.shape)

    @property
    def nbytes(self) -> int:
        """Bytes in memory, if all were read."""
        return int(math.prod(self.shape) * np.dtype(self.array.dtype).itemsize)

    @property
    def in_memory(self) -> bool:
        """Whether the array is in memory, not in a file."""
        return isinstance(self.array, np.ndarray) and not is_mapped(self.array)

    def to_numpy(self) -> np.ndarray:
        """Read the rows.

        Raises
        ------
        RetinaCodecError
            If they cannot be read.
        """
        try:
            found = np.asarray(self.array[self.start : self.stop])
        except Exception as error:  # of any library
            reason = str(error).splitlines()[0] if str(error) else ""
            raise RetinaCodecError(
                f"inputs {self.start} to {self.stop - 1} could not be read from "
                f"{type(self.array).__name__} ({type(error).__name__}: {reason:.100}). Open their "
                "file (again), and keep it open while they are used."
            ) from error
        return found


def open_rows(array: Any) -> Rows | None:
    """Return the rows of an array of numpy, h5py, Zarr, dask and others; None if it is no array.

    Parameters
    ----------
    array : array
        With ``shape`` and ``dtype``; ``array[a:b]`` gives rows.

    Raises
    ------
    RetinaCodecError
        If it holds no numbers, or values are masked, or its rows cannot be read.
    """
    try:
        shape, dtype = tuple(array.shape), np.dtype(array.dtype)
    except (AttributeError, TypeError):
        return None
    except Exception as error:  # of any library, such as a file that is closed
        raise RetinaCodecError(
            f"inputs must be an array that can be read; {type(array).__name__} cannot "
            f"({str(error).splitlines()[0] if str(error) else type(error).__name__:.80}). Open its "
            "file, and keep it open while they are used."
        ) from error
    if not hasattr(array, "__getitem__"):
        return None
    check_numbers(dtype)
    if np.ma.is_masked(array):
        raise RetinaCodecError(
            "inputs must be numbers throughout; some values of this array are masked. Put numbers "
            "in their place: inputs.filled(0)."
        )
    if not all(isinstance(size, int | np.integer) for size in shape):
        raise RetinaCodecError(
            f"inputs must have a known shape; got {shape}. Compute it: array.compute_chunk_sizes()."
        )
    rows = Rows(array, 0, int(shape[0]) if shape else 0)
    if len(shape) > 1 and len(rows) and not isinstance(array, np.ndarray):
        first = rows[:1].to_numpy()
        if first.shape != (1, *shape[1:]) or first.dtype.kind not in NUMBERS:
            raise RetinaCodecError(
                "inputs must be an array whose slices are arrays of numbers; "
                f"{type(array).__name__} gives {first.shape} {first.dtype} for one row of "
                f"{shape}. Convert it: torch.as_tensor(...)."
            )
    return rows


def check_numbers(dtype: np.dtype[Any]) -> None:
    """Refuse a dtype that torch has no numbers for."""
    if dtype.kind not in NUMBERS or dtype.itemsize > (16 if dtype.kind == "c" else 8):
        raise RetinaCodecError(
            f"inputs must be numbers of at most 64 bits; got {dtype}. Convert them: "
            "inputs.astype('float32')."
        )


def is_mapped(array: Any) -> bool:
    """Return whether an array of numpy is a view of a file."""
    while array is not None:
        if isinstance(array, np.memmap | mmap.mmap):
            return True
        array = getattr(array, "base", None) if not isinstance(array, memoryview) else array.obj
    return False


def from_numpy(values: np.ndarray) -> torch.Tensor:
    """Return a tensor that shares no memory with the array."""
    native = np.asarray(values).astype(values.dtype.newbyteorder("="))
    if native.dtype in (np.uint16, np.uint32, np.uint64):
        native = native.astype(np.int64)
    return torch.from_numpy(native)
