"""Commands that explain a network: ``demo``, ``analyze`` and ``report``."""

import logging
from functools import partial
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import click

from retina_codec.cli.options import (
    EXIT_STATUS,
    analysis_options,
    check_out,
    naming,
    opening_options,
    out_option,
)
from retina_codec.cli.products import Products, SomeStepsFailed
from retina_codec.cli.results import open_results
from retina_codec.errors import RetinaCodecError
from retina_codec.storage.hdf5 import is_address

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["analyze", "demo", "report"]

log = logging.getLogger(__name__)

DEMO_NETWORK = "insilico"  # comes with the package
DEMO_CELLS_SEED = 0  # the simulated retina that it was fitted to
DEMO_TRAIN_DURATION = 10.0  # s; the demo explains the test movie


@click.command(epilog=f"Example: retina-codec demo --out demo\n\n{EXIT_STATUS}")
@out_option("Folder for session.nwb, results.nc, report.html, hypotheses and figures/.")
@click.option(
    "--network",
    type=click.Path(path_type=Path),
    help="Network of the simulated retina.  [default: insilico, which comes with the package]",
)
@click.option(
    "--stimulus-seed",
    type=click.IntRange(min=0),
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

    chosen = network or Path(DEMO_NETWORK)
    check_out(out, overwrite=overwrite, inputs=[chosen])
    with naming("--network"):
        model = load_network(chosen)
    _check_settings(model, settings)
    with new_output(out, overwrite=overwrite, inputs=[chosen]) as folder:
        folder.mkdir()
        log.info("simulate a retina that watches photographs for %g s", duration)
        recording, _ = simulate_retina(
            seed=DEMO_CELLS_SEED,
            stimulus_seed=stimulus_seed,
            train_duration=DEMO_TRAIN_DURATION,
            test_duration=duration,
        )
        log.info("write session.nwb")
        write_nwb(recording, folder / "session.nwb")
        log.info("open session.nwb")
        session = open_recording(folder / "session.nwb")
        products = _analyze_into(folder, session, folder / "session.nwb", model, chosen, settings)
    _conclude(products, out)


@click.command(
    epilog="Example: retina-codec analyze session.nwb --network insilico --out results"
    f"\n\n{EXIT_STATUS}"
)
@click.argument("recording")
@click.option(
    "--network",
    required=True,
    type=click.Path(path_type=Path),
    help="Network fitted to this recording: a folder, a published .pt file, or insilico.",
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

    inputs: list[str | Path] = [network] if is_address(recording) else [network, recording]
    check_out(out, overwrite=overwrite, inputs=inputs)
    with naming("--network"):
        model = load_network(network)
    _check_settings(model, settings)
    session = open_recording(recording, **opening)
    with new_output(out, overwrite=overwrite, inputs=inputs) as folder:
        folder.mkdir()
        products = _analyze_into(folder, session, recording, model, network, settings)
    _conclude(products, out)


def _analyze_into(
    folder: Path,
    session: "xr.DataTree",
    session_path: str | Path,
    network: Any,
    network_path: Path,
    settings: dict[str, Any],
) -> Products:
    """Analyze a session and leave results.nc, report.html, hypotheses and figures/ in a folder."""
    from retina_codec.analysis.hypotheses.table import hypotheses_to_table
    from retina_codec.storage.trees import sha256_of

    products = Products(folder)
    provenance = {
        "command": click.get_current_context().obj["command"],
        "recording_file": PurePath(session_path).name,
        "recording_sha256": "" if is_address(session_path) else sha256_of(session_path),
        "network_folder": network_path.resolve().name,
    }
    results = _results(products, session, network, settings | {"provenance": provenance})
    if "hypotheses" in results.children:
        claims = results["hypotheses"].to_dataset()
        for suffix in ("csv", "json"):
            products.make(f"hypotheses.{suffix}", lambda path: hypotheses_to_table(claims, path))
    with products.step("figures"):
        _draw(results, products)
    products.make("report.html", lambda path: _report(results, path, products))
    return products


def _check_settings(network: Any, settings: dict[str, Any]) -> None:
    """Refuse options that do not fit together or to the network, before any work."""
    known = [str(name) for name in getattr(network, "layers", ())]
    wrong = [name for name in settings["layers"] if known and name not in known]
    if wrong:
        raise RetinaCodecError(
            f"--layer must name layers of the network; got {', '.join(wrong)}. It has "
            f"{', '.join(known)}."
        )
    if settings["active"] > settings["modes"]:
        raise RetinaCodecError(
            f"--active must be at most --modes; got {settings['active']} and {settings['modes']}."
        )
    settings["layers"] = tuple(dict.fromkeys(settings["layers"]))  # one given twice counts once


def _results(
    products: Products, session: "xr.DataTree", network: Any, settings: dict[str, Any]
) -> "xr.DataTree":
    """Analyze, and save results.nc before each step that may take minutes, and at the end."""
    from retina_codec.analysis.analyze import AnalysisSettings
    from retina_codec.analysis.analyze import analyze as run
    from retina_codec.storage.trees import open_tree, save_tree

    path, begun = products.folder / "results.nc", ""
    chosen = {name: settings.pop(name) for name in ("steps", "modes", "active", "shrinkage")}
    if not settings.pop("halves"):
        chosen["copies"] = 0

    def keep(results: "xr.DataTree", step: str) -> None:
        nonlocal begun
        log.info("write results.nc")
        save_tree(results, path, overwrite=True)
        begun = step

    try:
        results = run(
            session,
            network,
            **(settings | {"layers": settings.get("layers") or None}),
            settings=AnalysisSettings(**chosen),
            keep=keep,
        )
        keep(results, "")
        return results
    except (Exception, KeyboardInterrupt) as error:
        if not path.exists():
            raise
        step = begun or "results.nc"
        with products.step(step):
            raise error
    results = open_tree(path, lazy=False)
    if step in products.failed and step != "results.nc":
        results.attrs[f"no_{step}"] = f"an error stopped them ({products.failed[step]})"
        with products.step("results.nc"):
            save_tree(results, path, overwrite=True)
    return results


def _draw(results: "xr.DataTree", products: Products) -> None:
    """Save every figure that the results can fill as a PNG of its own."""
    import matplotlib as mpl

    mpl.use("Agg")
    from retina_codec.figures.base import drawn_figures

    if products.stopped:
        return
    (products.folder / "figures").mkdir()
    failed: dict[str, str] = {}
    for figure, drawn in drawn_figures(results, failed=failed):
        save = partial(drawn.savefig, dpi=150)
        products.make(f"figures/{figure.name}.png", save)
        if products.stopped:
            return
    products.failed |= {f"figures/{name}.png": why for name, why in failed.items()}


def _report(results: "xr.DataTree", path: Path, products: Products) -> None:
    """Write the page; a figure that cannot be drawn is left out and noted."""
    from retina_codec.report.page.page import write_report

    for name, why in write_report(results, path).items():
        if f"figures/{name}.png" not in products.failed:
            products.failed[f"figure {name} of {path.name}"] = why


def _conclude(products: Products, out: Path) -> None:
    products.conclude(out)
    log.info("done: open %s", out / "report.html")


@click.command(epilog="Example: retina-codec report demo/results.nc --out report.html")
@click.argument("results", type=click.Path(path_type=Path))
@out_option("The HTML file to write.")
def report(results: Path, out: Path, overwrite: bool) -> None:
    """Write the report of RESULTS (results.nc, or a folder that holds it) again."""
    from retina_codec.report.page.page import write_report

    check_out(out, overwrite=overwrite, inputs=[results])
    tree = open_results(results)
    log.info("write %s", out.name)
    failed = write_report(tree, out, overwrite=overwrite)
    if failed:
        why = "; ".join(f"{name} ({words})" for name, words in failed.items())
        raise SomeStepsFailed(f"{out} was written without figures that failed: {why}")
    log.info("done: open %s", out)
