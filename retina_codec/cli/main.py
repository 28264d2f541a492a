"""The command line: ``retina-codec demo | analyze | fit | report | convert | look | export``.

Why this file exists: one command takes a recording to a report. It is not a place for science: it
reads arguments, calls public functions, writes the outputs whole or not at all, and turns every
error that a user can cause into one line and exit code 2.
"""

import logging
import os
import shlex
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, TextIO

import click

from retina_codec.cli.options import analysis_options, device_option, opening_options, out_option
from retina_codec.cli.recordings import convert, export, look
from retina_codec.errors import RetinaCodecError
from retina_codec.storage.hdf5 import is_address

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["commands", "main", "recorded_command"]

log = logging.getLogger(__name__)


SHIPPED_NETWORK = "insilico"


FIGURES = (
    "figure_8",
    "network_and_target",
    "contribution_heat_maps",
    "mode_matrices",
    "irf_combinations",
    "quality_checks",
)


DEMO_TRAIN_DURATION = 10.0  # s; the demo explains the test movie


NETWORK_CELLS_SEED = 0  # the simulated retina that the shipped network was fitted to


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Example: retina-codec demo --out demo",
)
@click.version_option(package_name="retina-codec")
def commands() -> None:
    """Explain how groups of hidden units in a retina model produce its responses."""


@commands.command(epilog="Example: retina-codec demo --out demo")
@out_option("Folder for session.nwb, results.nc, report.html, hypotheses and figures/.")
@click.option(
    "--network",
    type=click.Path(path_type=Path),
    help="Network of the simulated retina.  [default: models/insilico]",
)
@click.option(
    "--stimulus-seed",
    type=int,
    default=1,
    show_default=True,
    help="Which movie the retina sees.",
)
@click.option(
    "--duration",
    type=click.FloatRange(min=1),
    default=60.0,
    show_default=True,
    help="Length of the test movie in s.",
)
@analysis_options
def demo(
    out: Path,
    overwrite: bool,
    network: Path | None,
    stimulus_seed: int,
    duration: float,
    **settings: Any,
) -> None:
    """Simulate a retina whose circuit is known, and explain the network fitted to it."""
    from retina_codec.networks.checkpoints import load_network
    from retina_codec.recordings.files import open_recording
    from retina_codec.recordings.nwb.writer import write_nwb
    from retina_codec.recordings.simulated.retina import simulate_retina
    from retina_codec.storage.trees import new_output

    folder = network or _shipped_network()
    model = load_network(folder)
    with new_output(out, overwrite=overwrite, inputs=[folder]) as partial:
        partial.mkdir()
        log.info("simulate a retina that watches photographs for %g s", duration)
        recording, _ = simulate_retina(
            seed=NETWORK_CELLS_SEED,
            stimulus_seed=stimulus_seed,
            train_duration=DEMO_TRAIN_DURATION,
            test_duration=duration,
        )
        log.info("write session.nwb")
        write_nwb(recording, partial / "session.nwb")
        log.info("open session.nwb")
        session = open_recording(partial / "session.nwb")
        _analyze_into(partial, session, partial / "session.nwb", model, folder, settings)
    _say_where(out)


def _shipped_network() -> Path:
    """Folder of the simulated retina's network, or an error that says how to name it."""
    root = os.environ.get("RETINA_CODEC_MODELS")
    folder = Path(root or "models") / SHIPPED_NETWORK
    if not folder.is_dir():
        raise RetinaCodecError(
            f"the demo needs the network of the simulated retina; {folder} is not a folder. "
            "Run it in the repository's root, set RETINA_CODEC_MODELS to its models folder, "
            "or name the network with --network."
        )
    return folder


@commands.command(
    epilog="Example: retina-codec analyze session.nwb --network models/insilico --out results"
)
@click.argument("recording")
@click.option(
    "--network",
    required=True,
    type=click.Path(path_type=Path),
    help="Network fitted to this recording: a folder, or a published .pt file.",
)
@out_option("Folder for results.nc, report.html, hypotheses and figures/.")
@click.option(
    "--split",
    type=click.Choice(["test", "train"]),
    default="test",
    show_default=True,
    help="Part of the recording to explain.",
)
@opening_options
@analysis_options
def analyze(
    recording: str,
    network: Path,
    out: Path,
    overwrite: bool,
    opening: dict[str, Any],
    **settings: Any,
) -> None:
    """Explain a network's responses to RECORDING (any format that `convert` reads)."""
    from retina_codec.networks.checkpoints import load_network
    from retina_codec.recordings.files import open_recording
    from retina_codec.storage.trees import new_output

    model = load_network(network)
    session = open_recording(recording, **opening)
    inputs: list[str | Path] = [network] if is_address(recording) else [network, recording]
    with new_output(out, overwrite=overwrite, inputs=inputs) as partial:
        partial.mkdir()
        _analyze_into(partial, session, recording, model, network, settings)
    _say_where(out)


def _analyze_into(
    folder: Path,
    session: "xr.DataTree",
    session_path: str | Path,
    network: Any,
    network_path: Path,
    settings: dict[str, Any],
) -> None:
    """Analyze a session and leave results.nc, report.html, hypotheses and figures/ in a folder."""
    from retina_codec.analysis.analyze import analyze as run
    from retina_codec.analysis.hypotheses.words import hypotheses_to_table
    from retina_codec.report.page.page import write_report
    from retina_codec.storage.trees import save_tree, sha256_of

    settings = settings | {"layers": settings.get("layers") or None}
    results = run(
        session,
        network,
        **settings,
        provenance={
            "command": click.get_current_context().obj["command"],
            "recording_file": PurePath(session_path).name,
            "recording_sha256": "" if is_address(session_path) else sha256_of(session_path),
            "network_folder": network_path.resolve().name,
        },
    )
    log.info("write results.nc")
    save_tree(results, folder / "results.nc")
    if "hypotheses" in results.children:
        log.info("write hypotheses.csv and hypotheses.json")
        claims = results["hypotheses"].to_dataset()
        for suffix in ("csv", "json"):
            hypotheses_to_table(claims, folder / f"hypotheses.{suffix}")
    log.info("draw figures")
    _draw(results, folder / "figures")
    log.info("write report.html")
    write_report(results, folder / "report.html")


def _draw(results: "xr.DataTree", folder: Path) -> None:
    """Save every panel as a PNG of its own, and the whole of Figure 8."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    from retina_codec import figures

    folder.mkdir()
    scored = any("score" in layer.children for layer in results["layers"].children.values())
    for name in (*FIGURES, *(("scorecard",) if scored else ())):
        figure = getattr(figures, name)(results)
        figure.savefig(folder / f"{name}.png", dpi=150)
        plt.close(figure)


def _say_where(out: Path) -> None:
    log.info("done: open %s", out / "report.html")


@commands.command(epilog="Example: retina-codec fit session.nwb --out models/session")
@click.argument("recording")
@out_option("Folder for the network (weights, configuration, card).")
@click.option(
    "--epochs",
    type=click.IntRange(min=1),
    default=30,
    show_default=True,
    help="At the most; the fit stops early when the validation loss does.",
)
@click.option(
    "--windows-per-epoch",
    type=click.IntRange(min=1),
    help="Stimulus windows drawn for each epoch.  [default: all]",
)
@click.option(
    "--resume",
    type=click.Path(path_type=Path),
    help="File that keeps the state after every epoch; if it exists, the fit goes on from it.",
)
@click.option(
    "--history",
    type=click.IntRange(min=1),
    default=40,
    show_default=True,
    help="Frames that the network looks back.",
)
@click.option(
    "--channels",
    type=click.IntRange(min=1),
    nargs=2,
    default=(8, 8),
    show_default=True,
    help="Channels of the first two layers.",
)
@click.option(
    "--kernels",
    type=click.IntRange(min=3),
    nargs=3,
    default=(15, 11, 11),
    show_default=True,
    help="Sizes of the three layers' kernels in px; odd.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the fit.")
@opening_options
@device_option
def fit(
    recording: str,
    out: Path,
    overwrite: bool,
    opening: dict[str, Any],
    epochs: int,
    windows_per_epoch: int | None,
    resume: Path | None,
    history: int,
    channels: tuple[int, int],
    kernels: tuple[int, int, int],
    seed: int,
    device: str,
) -> None:
    """Fit the three-layer retina network to the training part of RECORDING."""
    from retina_codec.analysis.pathways.prediction import network_card, prediction_quality
    from retina_codec.networks.checkpoints import save_network
    from retina_codec.networks.retina.fitting import TrainingSettings, fit_network
    from retina_codec.recordings.files import open_recording

    name = PurePath(recording).name
    _refuse_output(out, overwrite, inputs=[] if is_address(recording) else [Path(recording)])
    session = open_recording(recording, **opening)
    log.info("fit a network to %s", name)
    settings = TrainingSettings(epochs=epochs, windows_per_epoch=windows_per_epoch, seed=seed)
    network = fit_network(
        session,
        history=history,
        channels=channels,
        kernel_sizes=kernels,
        settings=settings,
        resume=resume,
        device=device,
    )
    quality = None
    if "test" in session.children:
        log.info("predict the test split")
        quality = prediction_quality(network, session, device=device)
    card = network_card(network, quality, title=f"A network fitted to {name}")
    save_network(network, out, card=card, overwrite=overwrite)
    log.info("done: retina-codec analyze %s --network %s --out results", recording, out)


for _command in (convert, look, export):
    commands.add_command(_command)


@commands.command(epilog="Example: retina-codec report demo/results.nc --out report.html")
@click.argument("results", type=click.Path(path_type=Path))
@out_option("The HTML file to write.")
def report(results: Path, out: Path, overwrite: bool) -> None:
    """Write the report of RESULTS (results.nc, or a folder that holds it) again."""
    from retina_codec.report.page.page import write_report
    from retina_codec.storage.trees import open_tree

    path = results
    if results.suffix not in (".nc", ".zarr"):
        path = results / "results.nc"
        if results.is_dir() and not path.is_file():
            raise RetinaCodecError(
                f"a folder of results must hold results.nc; {results} does not. "
                "Name another, or make one with `retina-codec analyze`."
            )
        path = results if results.is_file() else path
    if not path.exists():
        raise RetinaCodecError(
            f"the report needs results.nc, or a folder that holds it; {results} is not there. "
            "Make one with `retina-codec analyze`."
        )
    log.info("write %s", out.name)
    write_report(open_tree(path), out, overwrite=overwrite)
    log.info("done: open %s", out)


def _refuse_output(out: Path, overwrite: bool, inputs: Sequence[Path]) -> None:
    """Refuse before hours of work what would be refused, or would destroy an input, after them."""
    if not os.path.lexists(out):
        return
    if not overwrite:
        raise RetinaCodecError(f"the output must not exist; {out} does. Use --overwrite.")
    destination = out.expanduser().resolve()
    for place in [*(entry.expanduser().resolve() for entry in inputs), Path.cwd(), Path.home()]:
        if place == destination or destination in place.parents:
            raise RetinaCodecError(
                f"the output must not replace what is in use; {out} is or holds {place.name}. "
                "Choose another place."
            )


def recorded_command(arguments: Sequence[str]) -> str:
    """Return the command line as results keep it: absolute paths become names.

    Results and reports are passed on, and where a file lay on one machine means nothing on
    another; the SHA-256 beside the command says which file it was.
    """
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
