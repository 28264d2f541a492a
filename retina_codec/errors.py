"""The error for all bad input, the warning for recordings, and how messages write an option."""

import json
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

__all__ = ["RecordingWarning", "RetinaCodecError", "command_line_words", "in_words", "option"]

NUMBERS = ("START", "STOP")  # stand for numbers, which JSON writes without quotes

_on_command_line: ContextVar[bool] = ContextVar("on_command_line", default=False)


class RetinaCodecError(ValueError):
    """Bad input: the message says what must hold, what came, and the way out."""


class RecordingWarning(UserWarning):
    """A recording was read, but something in it should be checked."""


@contextmanager
def command_line_words() -> Iterator[None]:
    """Write options as ``--set NAME=VALUE`` in the messages that are made within."""
    token = _on_command_line.set(True)
    try:
        yield
    finally:
        _on_command_line.reset(token)


def option(name: str, value: Any = "VALUE") -> str:
    """Write an option of opening a recording as the user types it: Python or command line.

    Parameters
    ----------
    name : str
    value : text, number, bool, list or mapping
        Text in capitals stands for something that the user fills in.

    Returns
    -------
    str
        ``stimulus={'test': NAME}`` in Python; ``--set 'stimulus={"test": "NAME"}'`` within
        `command_line_words`.
    """
    if not _on_command_line.get():
        return f"{name}={_in_python(value)}"
    written = value if isinstance(value, str) else json.dumps(value, default=str)
    for word in NUMBERS:
        written = written.replace(f'"{word}"', word)
    return f"--set {shlex.quote(f'{name}={written}')}"


def in_words(python: str, command_line: str) -> str:
    """Choose the way out that the reader of a message can follow.

    Parameters
    ----------
    python : str
        For callers of functions.
    command_line : str
        For users of ``retina-codec``: within `command_line_words`.
    """
    return command_line if _on_command_line.get() else python


def _in_python(value: Any) -> str:
    if isinstance(value, str):
        return value if value.isupper() else repr(value)
    if isinstance(value, Mapping):
        inside = ", ".join(f"{key!r}: {_in_python(entry)}" for key, entry in value.items())
        return f"{{{inside}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_in_python, value))}]"
    plain = value is None or isinstance(value, bool | int | float)
    return repr(value) if plain else f"<{type(value).__name__}>"
