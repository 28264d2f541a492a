"""The command line ``retina-codec``: its commands, its log, and errors in one line.

Outputs are written whole or not at all. An error that a user can cause ends with exit code 2.
"""

import logging
import shlex
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

import click

from retina_codec.cli.analyze import analyze, demo, report
from retina_codec.cli.fit import fit
from retina_codec.cli.recordings import convert, export, look
from retina_codec.errors import RetinaCodecError

__all__ = ["commands", "main", "recorded_command"]


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Example: retina-codec demo --out demo",
)
@click.version_option(package_name="retina-codec")
def commands() -> None:
    """Explain how groups of hidden units in a retina model produce its responses."""


for _command in (demo, analyze, fit, convert, look, export, report):
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line.

    Parameters
    ----------
    arguments : sequence of str, optional
        None takes those of the process.

    Returns
    -------
    int
        Exit code: 0 success, 2 bad input (one line on standard error), 130 interrupted.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    handler = logging.StreamHandler()
    handler.setFormatter(_Clock())
    logger = logging.getLogger("retina_codec")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            context = {"command": recorded_command(arguments)}
            commands.main(arguments, "retina-codec", standalone_mode=False, obj=context)
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return 0
    except click.ClickException as error:
        click.echo(_one_line(f"{error.format_message()} (--help shows how)"), err=True)
        return 2
    except (RetinaCodecError, OSError) as error:
        click.echo(_one_line(error), err=True)
        return 2
    except (KeyboardInterrupt, click.Abort):
        click.echo(_one_line("interrupted; nothing was written"), err=True)
        return 130
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
    return 0


if __name__ == "__main__":
    sys.exit(main())
