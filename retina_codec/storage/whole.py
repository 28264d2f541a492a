"""Read a Zarr folder and tell of files that are lost or damaged, instead of missing values."""

import zlib
from pathlib import Path
from typing import Any

from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import LocalStore, WrapperStore

from retina_codec.errors import RetinaCodecError
from retina_codec.storage.integrity import FILES, ROOT, bad_files, root_attribute

__all__ = ["WholeStore"]


class WholeStore(WrapperStore[LocalStore]):
    """A Zarr folder for reading that tells of files that are lost or damaged.

    A folder that does not list its files is read as it is.

    Parameters
    ----------
    store : LocalStore

    Raises
    ------
    RetinaCodecError
        If files are missing or have another size; when one is read, also another checksum.
    """

    def __init__(self, store: LocalStore) -> None:
        super().__init__(store)
        self._folder = Path(store.root)
        self._files: dict[str, Any] = root_attribute(self._folder, FILES) or {}
        bad = bad_files(self._folder, self._files, exact=False)
        if bad:
            self._refuse(bad)

    def __reduce__(self) -> Any:
        """Travel as the name of the folder."""
        return type(self), (self._store,)

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Return a file and verify its checksum."""
        found = await super().get(key, prototype, byte_range)
        about = self._files.get(key)
        if about is not None and byte_range is None and Path(key).name != ROOT:
            size, total = about
            if found is None or len(found) != size or zlib.crc32(found.to_bytes()) != total:
                self._refuse([key])
        return found

    def _refuse(self, bad: list[str]) -> None:
        raise RetinaCodecError(
            f"{self._folder} must be whole; {len(bad)} of its {len(self._files)} files are lost or "
            f"damaged ({bad[0]}{', ...' if len(bad) > 1 else ''}). Copy it again from a whole "
            "copy, or remove it and make it again."
        )
