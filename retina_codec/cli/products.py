"""What a command makes, step by step: a step that fails or is interrupted leaves the others."""

import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["Products", "SomeStepsFailed", "Stopped", "one_line"]

log = logging.getLogger(__name__)


class SomeStepsFailed(Exception):
    """Some steps failed, what the others made is kept: exit status 3."""


class Stopped(KeyboardInterrupt):
    """A signal ended the command.

    Parameters
    ----------
    message : str
        What is kept; empty where nothing was written.
    status : int
        Exit status, 128 + the number of the signal.
    """

    def __init__(self, message: str = "", status: int = 130) -> None:
        super().__init__(message)
        self.status = status


def one_line(error: BaseException) -> str:
    """Say an error in one line, with its kind where the message alone would not be understood."""
    words = " ".join(str(error).split())
    if isinstance(error, ValueError | OSError) and words:
        return words
    return f"{type(error).__name__}: {words}" if words else type(error).__name__


class Products:
    """The files of one folder, and the steps that failed.

    Parameters
    ----------
    folder : Path
        It exists.

    Attributes
    ----------
    failed : dict of str to str
        Why each failing step failed, one line.
    stopped : KeyboardInterrupt or None
        An interrupt, after which nothing more is made.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.failed: dict[str, str] = {}
        self.stopped: KeyboardInterrupt | None = None

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Note an error or an interrupt of the body, and go on after it."""
        try:
            yield
        except KeyboardInterrupt as stop:
            self.stopped = stop
        except Exception as error:
            log.debug("%s failed", name, exc_info=True)
            self.failed[name] = one_line(error)

    def make(self, name: str, write: Callable[[Path], object]) -> None:
        """Write one file or folder; nothing of it is left if that fails.

        Parameters
        ----------
        name : str
            Inside the folder.
        write : callable
            Gets the path. Not called after an interrupt.
        """
        if self.stopped:
            return
        log.info("write %s", name)
        path, whole = self.folder / name, False
        with self.step(name):
            write(path)
            whole = True
        if not whole and path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif not whole:
            path.unlink(missing_ok=True)

    def conclude(self, out: Path) -> None:
        """Raise what happened, once the folder is in its place.

        Parameters
        ----------
        out : Path
            Where the folder is now.

        Raises
        ------
        Stopped
            The command was interrupted.
        SomeStepsFailed
            Steps failed.
        """
        if self.stopped:
            names = ", ".join(sorted(path.name for path in out.iterdir()))
            raise Stopped(
                f"interrupted; {out} keeps what was made: {names}",
                getattr(self.stopped, "status", 130),
            )
        if self.failed:
            noun = "step" if len(self.failed) == 1 else "steps"
            why = "; ".join(f"{name} ({words})" for name, words in self.failed.items())
            raise SomeStepsFailed(
                f"{len(self.failed)} {noun} failed: {why}. Everything else is in {out}"
            )
