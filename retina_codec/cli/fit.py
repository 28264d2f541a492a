"""The command ``fit``: a network of the retina, fitted to a recording."""

import logging
from pathlib import Path, PurePath
from typing import Any

import click

from retina_codec.cli.options import device_option, opening_options, out_option
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
    type=click.IntRange(min=1),
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
    from retina_codec.storage.trees import check_output

    name = PurePath(recording).name
    check_output(out, overwrite=overwrite, inputs=[] if is_address(recording) else [recording])
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
