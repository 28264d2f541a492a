"""Read an untrusted torch checkpoint without running code from it.

Both formats of torch (zip archive, and the one before 1.6) are checked whole before torch reads.
"""

import io
import os
import pickle
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy._core import multiarray

from retina_codec.errors import RetinaCodecError
from retina_codec.networks.published.pickle import NUMPY_NAMES, Followed, follow

__all__ = ["read_checkpoint"]

LARGEST = 2**26  # bytes of a file; the published ones have less than 10 MB
MOST_MEMBERS = 10_000
MAGIC = 0x1950A86A20F9469CFC6C  # first value of the format before torch 1.6
VERSION = 1001  # second value of it

DAMAGES = (
    OSError,
    EOFError,
    RuntimeError,
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    NotImplementedError,
    MemoryError,
    ImportError,
    pickle.UnpicklingError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the dictionary in a torch checkpoint, on the CPU, without running anything from it.

    It may hold text, numbers, containers, tensors and numpy arrays of numbers. A zip archive holds
    a checksum of every part, so that damage is noticed. The format before torch 1.6 has none:
    numbers that changed in it are read as they are.
    """
    file = Path(path)
    if not file.is_file():
        raise RetinaCodecError(f"there must be a checkpoint at {file}; no file is there.")
    try:
        if file.stat().st_size > LARGEST:
            raise RetinaCodecError(f"it is larger than a checkpoint can be ({LARGEST} bytes)")
        content = file.read_bytes()
        content = _checked_zip(content) if content[:2] == b"PK" else _checked_legacy(content)
        found = _load(content)
        if not isinstance(found, dict):
            raise RetinaCodecError(f"it holds one {type(found).__name__}, no dictionary")
    except DAMAGES as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise RetinaCodecError(
            f"{file} must be a checkpoint that torch wrote, with tensors, numbers and text only; "
            f"it is not ({reason}). It may be damaged or only partly copied: copy it again, whole."
        ) from error
    return found


def _load(content: bytes) -> Any:
    """Read checked content with torch; numpy's names are those of the allow list."""
    made: Any = multiarray
    functions = (made.scalar, made._reconstruct) * 2  # by old and new name
    allowed: list[Any] = [
        *zip(functions, NUMPY_NAMES, strict=True),
        np.ndarray,
        np.dtype,
        *{type(np.dtype(name)) for name in "? i1 i2 i4 i8 u1 u2 u4 u8 f2 f4 f8".split()},
        set,
    ]
    with torch.serialization.safe_globals(allowed):
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def _checked_zip(content: bytes) -> bytes:
    """Return the archive, written anew from members that were all checked."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = archive.infolist()
        names = [entry.filename for entry in entries]
        _expect(0 < len(names) <= MOST_MEMBERS, f"it has {len(names)} parts")
        _expect(len(set(names)) == len(names), "a part is there twice")
        tops = {name.split("/")[0] for name in names}
        _expect(len(tops) == 1, "its parts do not stand in one folder")
        for entry in entries:
            steps = entry.filename.split("/")[1:]
            inside = steps and all(step not in ("", ".", "..") for step in steps)
            _expect(bool(inside) and "\\" not in entry.filename, "a part leads out of the file")
            plain = entry.compress_type == zipfile.ZIP_STORED and not entry.flag_bits & 1
            _expect(plain, "a part is compressed or encrypted, which torch never does")
            _expect(entry.file_size == entry.compress_size, "a part has two sizes")
        _expect(sum(entry.file_size for entry in entries) <= len(content), "its parts overlap")
        broken = archive.testzip()
        _expect(broken is None, f"the checksum of {str(broken)[:40]!r} is wrong")
        members = {name.partition("/")[2]: archive.read(name) for name in names}
    _expect("data.pkl" in members, "it has no data.pkl")
    _expect("constants.pkl" not in members, "it is a TorchScript program")
    _expect(members.get("byteorder", b"little") == b"little", "its numbers are big-endian")
    asked = _follow_all(members["data.pkl"]).storages
    for key, storage in asked.items():
        stored = len(members.get(f"data/{key}", b""))
        _expect(stored == storage.bytes, f"storage {key[:20]!r} has {stored} bytes, not its size")
    clean = io.BytesIO()
    with zipfile.ZipFile(clean, "w", zipfile.ZIP_STORED) as archive:
        for name, member in members.items():
            archive.writestr(f"archive/{name}", member)
    return clean.getvalue()


def _follow_all(content: bytes) -> Followed:
    stream = io.BytesIO(content)
    followed = follow(stream)
    _expect(stream.tell() == len(content), "something stands behind its pickle")
    return followed


def _checked_legacy(content: bytes) -> bytes:
    """Return the content after a check of every part: five pickles, then the storages."""
    stream = io.BytesIO(content)
    _expect(content[:2] == b"\x80\x02", "it is neither a zip archive nor an older checkpoint")
    _expect(follow(stream).value == MAGIC, "it does not begin as a checkpoint")
    _expect(follow(stream).value == VERSION, "it has another version")
    system = follow(stream).value
    little = getattr(system, "items", {}).get("little_endian")
    _expect(little is True, "its numbers are big-endian")
    asked = follow(stream).storages
    keys = follow(stream).value
    _expect(isinstance(keys, list) and all(isinstance(key, str) for key in keys), "no list of keys")
    _expect(len(set(keys)) == len(keys) and set(keys) == set(asked), "its storages are not listed")
    for key in keys:
        storage = asked[key]
        (count,) = struct.unpack("<q", stream.read(8))
        _expect(count == storage.count, f"storage {key[:20]!r} has two sizes")
        stream.seek(storage.bytes, io.SEEK_CUR)
    _expect(stream.tell() == len(content), "it is shorter or longer than its storages")
    return content


def _expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise RetinaCodecError(otherwise)
