"""One process at a time in a folder, also on a file system that several machines share.

Why this file exists: the same command started twice must not write to one store twice. The lock
belongs to the operating system, so it goes with the process however that ends, and none is ever
left behind. The file that is locked says who holds it.
"""

import logging
import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import IO

from retina_codec.errors import RetinaCodecError

__all__ = ["FolderLock"]

NAME = "lock"
_HELD: set[Path] = set()  # by this process, which the operating system would let in again
_LOG = logging.getLogger(__name__)


class FolderLock:
    """The right to write to a folder; makes the folder.

    Raises
    ------
    RetinaCodecError
        If another holds it: says which process on which host.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self._stream: IO[str] | None = None
        if self.path in _HELD:
            self._refuse(f"this process ({os.getpid()})")
        while self._stream is None:
            folder.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):  # the folder went as its holder finished: once more
                self._stream = self._open()
        _HELD.add(self.path)

    def _open(self) -> IO[str] | None:
        stream = self.path.open("a+", encoding="utf-8")
        try:
            if not _lock(stream):
                stream.seek(0)
                self._refuse(stream.read().strip() or "another process")
            if os.fstat(stream.fileno()).st_ino != self.path.stat().st_ino:
                stream.close()  # its holder removed it between our opening and our locking
                return None
            stream.truncate(0)
            stream.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            stream.flush()
        except BaseException:
            stream.close()
            raise
        return stream

    def _refuse(self, holder: str) -> None:
        raise RetinaCodecError(
            f"only one process at a time may write to {self.path.parent}; {holder} does. "
            "Wait for it, or end it and run the same again."
        )

    def release(self) -> None:
        """Let others in; nothing is left of the lock."""
        if self._stream is None:
            return
        with suppress(OSError):
            self.path.unlink()
        with suppress(OSError):
            self._stream.close()
        self._stream = None
        _HELD.discard(self.path)


def _lock(stream: IO[str]) -> bool:
    """Lock an open file; False if another process holds it."""
    try:
        import fcntl
    except ImportError:  # not a POSIX system
        return True
    try:
        fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError as error:
        _LOG.warning("this file system has no locks (%s): start a run only once", error.strerror)
    return True
