"""Options that several subcommands share: one name, one default and one help text each."""

import json
import os
import shlex
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from retina_codec.errors import RetinaCodecError

__all__ = [
    "EXIT_STATUS",
    "analysis_options",
    "check_out",
    "device_option",
    "given_again",
    "naming",
    "opening_options",
    "out_option",
]

EXIT_STATUS = (
    "Exit status: 0 done; 2 bad input, nothing was written; 3 some steps failed, the results and "
    "what the other steps made are kept; 130 or 143 interrupted or terminated, results.nc is kept "
    "if it was written."
)


def out_option(what: str) -> Callable[[Any], Any]:
    """``--out`` and ``--overwrite``, the same for every subcommand."""

    def add(command: Any) -> Any:
        command = click.option(
            "--overwrite",
            is_flag=True,
            help="Replace the output if it exists, a folder with all that it holds.",
        )(command)
        return click.option(
            "--out", required=True, type=click.Path(path_type=Path), help=what, metavar="PATH"
        )(command)

    return add


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Put the name of an option before the errors that its value causes."""
    try:
        yield
    except RetinaCodecError as error:
        raise RetinaCodecError(f"{name}: {error}") from error


def check_out(
    out: Path,
    *,
    overwrite: bool,
    inputs: Iterable[str | os.PathLike[str]] = (),
    name: str = "--out",
) -> None:
    """Refuse an output that is there, or cannot be written, before any work.

    Parameters
    ----------
    out : Path
    overwrite, inputs
        See `new_output`.
    name : str
        Of the option, for messages.

    Raises
    ------
    RetinaCodecError
    """
    from retina_codec.storage.trees import check_output, local_path

    with naming(name):
        check_output(out, overwrite=overwrite, inputs=inputs)
        place = local_path(out).resolve()
        parent = next(folder for folder in place.parents if folder.exists())
        if not parent.is_dir():
            raise RetinaCodecError(
                f"the output must lie in a folder; {parent} is a file. Choose another place."
            )
        if not os.access(parent, os.W_OK | os.X_OK):
            raise RetinaCodecError(
                f"the output must lie in a folder that you may write to; {parent} is not. Choose "
                "another place."
            )


def _counted(name: str, default: int, words: str) -> Any:
    """Return an option that takes a number of at least 1."""
    kind = click.IntRange(min=1)
    return click.option(name, type=kind, default=default, show_default=True, help=words)


def analysis_options(command: Any) -> Any:
    """Add the settings of the analysis, the same for ``demo`` and ``analyze``."""
    options = [
        click.option(
            "--layer",
            "layers",
            multiple=True,
            help="Layer to explain; repeat for more.  [default: all]",
        ),
        _counted("--steps", 8, "Steps of the path integral."),
        _counted("--modes", 32, "Modes per layer."),
        _counted("--active", 3, "Maximum of modes active at a time."),
        click.option(
            "--shrinkage",
            type=click.Choice(["ledoit-wolf"]),
            help="Regularise the covariance of the responses (silent or nearly equal cells).",
        ),
        click.option(
            "--seed",
            type=click.IntRange(0, 2**32 - 1),
            default=0,
            show_default=True,
            help="Seed of the analysis.",
        ),
        click.option(
            "--hypotheses/--no-hypotheses",
            default=True,
            show_default=True,
            help="Predict the effect of silencing interneurons.",
        ),
        click.option(
            "--halves/--no-halves",
            default=True,
            show_default=True,
            help="Compare modes and pathways of the two halves of the split.",
        ),
        click.option(
            "--scores",
            is_flag=True,
            help="Score the modes by other seeds, controls and silenced channels; takes minutes.",
        ),
        device_option,
    ]
    for add in reversed(options):
        command = add(command)
    return command


def given_again(opening: dict[str, Any], device: str) -> str:
    """Write options of a command as they are given to the next one, with a space before each."""
    settings = [f"{name}={_as_typed(value)}" for name, value in opening.items()]
    words = [f"--set {shlex.quote(setting)}" for setting in settings]
    words += [f"--device {device}"] if device != "cpu" else []
    return "".join(f" {word}" for word in words)


def _as_typed(value: Any) -> str:
    """Write a value so that `_read_value` gives it back."""
    plain = isinstance(value, str) and _read_value(value) == value
    return str(value) if plain else json.dumps(value, ensure_ascii=False)


def _read_value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def opening_options(command: Any) -> Any:
    """Add ``--set NAME=VALUE``: options of `open_recording` that the file leaves open."""
    return click.option(
        "--set",
        "opening",
        multiple=True,
        metavar="NAME=VALUE",
        callback=_read_settings,
        help=(
            "How to open the recording, where its file leaves something open; repeat for more. "
            "VALUE is JSON or plain text: --set stimulus=movie --set 'splits={\"test\": [0, 60]}'. "
            "docs/recordings.md lists the names."
        ),
    )(command)


def _read_settings(
    _context: click.Context, _option: click.Parameter, settings: tuple[str, ...]
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals or not name.isidentifier():
            raise RetinaCodecError(
                f"--set must be NAME=VALUE, such as --set stimulus=movie; got {setting!r}."
            )
        if name in found:
            raise RetinaCodecError(
                f"--set must give {name} once; it is there twice. Join its values: --set "
                f"{name}='[1, 2]', or leave one out."
            )
        found[name] = _read_value(value)
    return found


def device_option(command: Any) -> Any:
    """``--device``, refused at once if it is not there."""
    return click.option(
        "--device",
        default="cpu",
        show_default=True,
        callback=_check_device,
        help="cpu, cuda or cuda:N.",
    )(command)


def _check_device(_context: click.Context, _option: click.Parameter, device: str) -> str:
    if device == "cpu":
        return device
    import torch

    kind, _, number = device.partition(":")
    if kind != "cuda" or (number and not number.isdigit()):
        raise RetinaCodecError(f"--device must be cpu, cuda or cuda:N; got {device!r}.")
    if int(number or 0) >= torch.cuda.device_count():
        raise RetinaCodecError(
            f"--device {device} needs a CUDA device; this machine has "
            f"{torch.cuda.device_count()}. Use --device cpu."
        )
    return device
