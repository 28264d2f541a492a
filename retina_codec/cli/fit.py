"""The command ``fit``: a network of the retina, fitted to a recording."""

import logging
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any

import click

from retina_codec.cli.options import (
    check_out,
    device_option,
    given_again,
    opening_options,
    out_option,
)
from retina_codec.cli.products import Stopped
from retina_codec.errors import RetinaCodecError
from retina_codec.storage.hdf5 import is_address

__all__ = ["fit"]

log = logging.getLogger(__name__)


@click.command(epilog="Example: retina-codec fit session.nwb --out models/session")
@click.argument("recording")
@out_option("Folder for the network (weights, configuration, card).")
@click.option(
    "--epochs",
    type=click.IntRange(min=1),
    default=30,
    show_default=True,
    help="Maximum; training stops early when the validation loss stops improving.",
)
@click.option(
    "--windows-per-epoch",
    type=click.IntRange(min=2),
    help="Stimulus windows drawn for each epoch.  [default: all]",
)
@click.option(
    "--resume",
    type=click.Path(path_type=Path),
    help="File that keeps the state after every epoch; if it exists, the fit continues from it.",
)
@click.option(
    "--history",
    type=click.IntRange(min=1),
    default=40,
    show_default=True,
    help="Frames of stimulus history that the network sees.",
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
@click.option(
    "--surround",
    is_flag=True,
    help="Add a wide field to the second layer: the mean of the first over the whole frame.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**32 - 1),
    default=0,
    show_default=True,
    help="Seed of the fit.",
)
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
    surround: bool,
    seed: int,
    device: str,
) -> None:
    """Fit the three-layer retina network to the training part of RECORDING."""
    from retina_codec.analysis.pathways.prediction import network_card, prediction_quality
    from retina_codec.networks.checkpoints import save_network
    from retina_codec.networks.retina.fitting import TrainingSettings, fit_network
    from retina_codec.recordings.files import open_recording
    from retina_codec.report.page.checks import prediction_verdict
    from retina_codec.report.page.numbers import prediction_numbers
    from retina_codec.storage.trees import new_output

    name = PurePath(recording).name
    _check_kernels(kernels)
    if resume is not None and resume.is_dir():
        raise RetinaCodecError(f"--resume must name a file; {resume} is a folder. Name a new file.")
    if resume is not None and out.resolve() in resume.resolve().parents:
        raise RetinaCodecError(
            f"--resume must lie outside of --out, which is written at the end; {resume} lies in "
            f"{out}. Name a file beside it."
        )
    inputs = [] if is_address(recording) else [recording]
    check_out(out, overwrite=overwrite, inputs=inputs)
    with new_output(out, overwrite=overwrite, inputs=inputs) as folder, _kept(resume):
        folder.mkdir()  # so that a place that cannot be written to is found now
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
            surround=surround,
        )
        quality = None
        if "test" in session.children:
            log.info("predict the test split")
            quality = prediction_quality(network, session, device=device)
            _, verdict = prediction_verdict(prediction_numbers(quality))
            log.info("%s", verdict.replace("\u00a0", " "))
        card = network_card(network, quality, title=f"A network fitted to {name}")
        save_network(network, folder, card=card, overwrite=True)
    log.info(
        "done: retina-codec analyze %s --network %s --out results%s",
        shlex.quote(recording),
        shlex.quote(str(out)),
        given_again(opening, device),
    )


@contextmanager
def _kept(resume: Path | None) -> Iterator[None]:
    """Say after an interrupt where the training state is."""
    try:
        yield
    except KeyboardInterrupt as stop:
        if resume is None or not resume.exists():
            raise
        words = f"interrupted; the same command goes on from {resume}"
        raise Stopped(words, getattr(stop, "status", 130)) from stop


def _check_kernels(kernels: tuple[int, ...]) -> None:
    """Refuse kernel sizes that are even, before any work."""
    if any(size % 2 == 0 for size in kernels):
        raise RetinaCodecError(
            f"--kernels must be odd; got {' '.join(map(str, kernels))}. Take 15 11 11, or smaller "
            "odd sizes."
        )
