"""The command line ``retina-codec``: its commands, its log, and errors in one line."""

import logging
import os
import shlex
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TextIO

import click

from retina_codec.cli.analyze import analyze, demo, report
from retina_codec.cli.fit import fit
from retina_codec.cli.options import EXIT_STATUS
from retina_codec.cli.products import SomeStepsFailed, Stopped
from retina_codec.cli.recordings import convert, export, import_arrays, look
from retina_codec.errors import RetinaCodecError, command_line_words

__all__ = ["commands", "main", "recorded_command"]

ENDS = tuple(  # signals that end a command as an interrupt does
    getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)
)


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=f"Example: retina-codec demo --out demo\n\n{EXIT_STATUS}",
)
@click.version_option(package_name="retina-codec")
def commands() -> None:
    """Explain how groups of hidden units in a retina model produce its responses."""


for _command in (demo, analyze, fit, convert, import_arrays, look, export, report):
    commands.add_command(_command)


def recorded_command(arguments: Sequence[str]) -> str:
    """Return the command line as results keep it: absolute paths become file names."""
    words = ["retina-codec"]
    for argument in arguments:
        option, equals, value = "", "", argument
        if argument.startswith("--"):
            option, equals, value = argument.partition("=")
        if value.startswith("~") or Path(value).is_absolute():
            value = Path(value).name or value
        words.append(option + equals + value)
    return shlex.join(words)


class _Clock(logging.Formatter):
    """Writes each step with the seconds since the command began."""

    def __init__(self) -> None:
        super().__init__()
        self._start = time.monotonic()

    def format(self, record: logging.LogRecord) -> str:
        return f"[{time.monotonic() - self._start:6.1f} s] {record.getMessage()}"


def _one_line(message: object) -> str:
    return "retina-codec: " + " ".join(str(message).split())


def _show_warning(
    message: Warning | str,
    category: type[Warning],  # noqa: ARG001  (the names are Python's)
    filename: str,  # noqa: ARG001
    lineno: int,  # noqa: ARG001
    file: TextIO | None = None,  # noqa: ARG001
    line: str | None = None,  # noqa: ARG001
) -> None:
    click.echo(_one_line(f"warning: {message}"), err=True)


@contextmanager
def _ended_like_an_interrupt() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise `Stopped`, so that half-written files are removed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    process = os.getpid()

    def stop(number: int, _frame: FrameType | None) -> None:
        if os.getpid() != process:  # a worker
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        raise Stopped(status=128 + number)

    before = {number: signal.getsignal(number) for number in ENDS}
    for number, handler in before.items():
        if handler is signal.SIG_DFL:  # nohup ignores SIGHUP
            signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is signal.SIG_DFL:
                signal.signal(number, handler)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line.

    Parameters
    ----------
    arguments : sequence of str, optional
        None takes those of the process.

    Returns
    -------
    int
        Exit status: 0 done; 2 bad input, nothing was written; 3 some steps failed, what the others
        made is kept; 130 interrupted, 128 + n ended by the signal n. One line on standard error
        says what happened.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    handler = logging.StreamHandler()
    handler.setFormatter(_Clock())
    logger = logging.getLogger("retina_codec")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        with _ended_like_an_interrupt(), warnings.catch_warnings(), command_line_words():
            warnings.showwarning = _show_warning
            return _run(arguments)
    except KeyboardInterrupt as stop:
        click.echo(_one_line(str(stop) or "interrupted; nothing was written"), err=True)
        return getattr(stop, "status", 130)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def _run(arguments: list[str]) -> int:
    """Run a command and return its exit status; errors that a user can cause are one line."""
    try:
        context = {"command": recorded_command(arguments)}
        with commands.make_context("retina-codec", arguments, obj=context) as root:
            commands.invoke(root)
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return 0
    except click.ClickException as error:
        click.echo(_one_line(f"{error.format_message()} (--help shows how)"), err=True)
        return 2
    except SomeStepsFailed as error:
        click.echo(_one_line(error), err=True)
        return 3
    except (RetinaCodecError, OSError) as error:
        click.echo(_one_line(error), err=True)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
