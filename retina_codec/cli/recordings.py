"""Commands on recordings alone: ``convert``, ``look`` and ``export``."""

import logging
from pathlib import Path
from typing import Any

import click

from retina_codec.cli.options import check_out, opening_options, out_option
from retina_codec.cli.results import open_results
from retina_codec.errors import RetinaCodecError
from retina_codec.storage.hdf5 import is_address

__all__ = ["convert", "export", "import_arrays", "look"]

log = logging.getLogger(__name__)


@click.command(epilog="Example: retina-codec convert session.nwb session.zarr")
@click.argument("source")
@click.argument("destination", type=click.Path(path_type=Path))
@click.option("--overwrite", is_flag=True, help="Replace the destination if it exists.")
@opening_options
def convert(source: str, destination: Path, overwrite: bool, opening: dict[str, Any]) -> None:
    """Convert a recording to .nwb, .nc or .zarr, by suffix.

    SOURCE may be .nwb (HDF5, a Zarr folder, an address), .nc, .zarr, or a published .h5 or folder.
    To .nwb, exact spike times are written where the recording has them; otherwise spikes are placed
    evenly in their bins. Smoothed rates are kept beside them; without counts they only fit .nc or
    .zarr.
    """
    from retina_codec.recordings.files import convert as run
    from retina_codec.recordings.formats import writable_format

    writable_format(destination)
    if is_address(source) or Path(source).resolve() != destination.resolve():
        inputs = [] if is_address(source) else [source]
        check_out(destination, overwrite=overwrite, inputs=inputs, name="DESTINATION")
    log.info("convert %s to %s", Path(source).name, destination.name)
    run(source, destination, overwrite=overwrite, **opening)
    log.info("done: %s", destination)


@click.command(
    "import", epilog="Example: retina-codec import arrays.npz --frame-rate 30 --out session.nwb"
)
@click.argument("arrays", type=click.Path(path_type=Path))
@out_option("The recording to write (.nwb, .nc or .zarr).")
@click.option("--frame-rate", type=float, help="Hz; or the file holds frame_times.")
@click.option("--axes", default="tyx", help="Axes of the frames: tyx, yxt (MATLAB), xyt or txy.")
@click.option(
    "--name", "names", multiple=True, metavar="OURS=THEIRS", help="What the file calls an array."
)
@click.option("--pixel-size", type=float, default=float("nan"), help="µm on the retina.")
@click.option("--species", default="unknown")
def import_arrays(
    arrays: Path,
    out: Path,
    overwrite: bool,
    frame_rate: float | None,
    axes: str,
    names: tuple[str, ...],
    pixel_size: float,
    species: str,
) -> None:
    """Make a recording from the arrays of a .npz or .mat file.

    The file holds frames (time, y, x) and either spikes (s; a cell array in .mat, spikes_NAME for
    each cell in .npz) or counts (time, cell); for a repeated movie also test_frames with repeats
    (s, the onsets) or test_counts (repeat, time, cell). Without these the last fifth is the test
    split.
    """
    from retina_codec.recordings.files import save_recording
    from retina_codec.recordings.formats import writable_format
    from retina_codec.recordings.from_arrays import read_arrays, recording_from_arrays

    writable_format(out)
    check_out(out, overwrite=overwrite, inputs=[arrays])
    if wrong := [name for name in names if "=" not in name]:
        raise RetinaCodecError(f"--name must be OURS=THEIRS; got {wrong[0]!r}.")
    given = read_arrays(arrays, names=dict(name.split("=", 1) for name in names), axes=axes)
    about = {
        "session": arrays.stem,
        "source": arrays.name,
        "species": species,
        "pixel_size": pixel_size,
    }
    log.info("make a recording from %s: %s", arrays.name, ", ".join(given))
    recording = recording_from_arrays(
        given.pop("frames"), given.pop("spikes", None), frame_rate=frame_rate, about=about, **given
    )
    log.info("write %s", out.name)
    save_recording(recording, out, overwrite=overwrite)
    log.info("done: %s", out)


@click.command(epilog="Example: retina-codec look session.nwb --out overview.png")
@click.argument("recording")
@out_option("The picture to write (.png, .pdf or .svg).")
@opening_options
def look(recording: str, out: Path, overwrite: bool, opening: dict[str, Any]) -> None:
    """Say how RECORDING was read, measure its quality, and draw one page of it."""
    import matplotlib as mpl

    mpl.use("Agg")
    from retina_codec.figures.retina.recording import plot_recording
    from retina_codec.recordings.files import open_recording
    from retina_codec.recordings.quality.cells import measure_quality
    from retina_codec.storage.trees import new_output

    suffixes = (".png", ".pdf", ".svg")
    if out.suffix.lower() not in suffixes:
        raise RetinaCodecError(
            f"--out must name a picture that ends in {', '.join(suffixes)}; got {out.name!r}."
        )
    check_out(out, overwrite=overwrite, inputs=[] if is_address(recording) else [recording])
    session = open_recording(recording, **opening)
    for line in str(session.attrs.get("reading", "")).splitlines():
        log.info("%s", line)
    session = measure_quality(session)
    figure = plot_recording(session)
    with new_output(out, overwrite=overwrite) as partial:
        figure.savefig(partial, dpi=150, format=out.suffix[1:].lower())
    log.info("done: open %s", out)


@click.command(
    epilog="Example: retina-codec export results/results.nc session.nwb --out session_modes.nwb"
)
@click.argument("results", type=click.Path(path_type=Path))
@click.argument("session", type=click.Path(path_type=Path))
@out_option("The NWB file to write: a copy of SESSION with the results in it.")
@click.option(
    "--other-session",
    is_flag=True,
    help="Allow a session other than the one analyzed.",
)
def export(results: Path, session: Path, out: Path, overwrite: bool, other_session: bool) -> None:
    """Write modes, loadings, pathways and hypotheses of RESULTS into a copy of SESSION (.nwb)."""
    from retina_codec.report.nwb.export import save_results_to_nwb

    check_out(out, overwrite=overwrite, inputs=[results, session])
    tree = open_results(results)
    log.info("write %s", out.name)
    save_results_to_nwb(tree, session, out, overwrite=overwrite, other_session=other_session)
    log.info("done: %s", out)
