"""Run the whole analysis of a recording: contributions, modes, pathways, fields, hypotheses."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import xarray as xr

from retina_codec.errors import RetinaCodecError
from retina_codec.networks.adapter import own_names
from retina_codec.networks.retina.model import RetinaCNN

__all__ = ["AnalysisSettings", "analyze"]

log = logging.getLogger(__name__)

FEWEST_CELLS = 3  # that can be grouped into 2 pathways
NOT_COMPUTED = "they were not computed"
RECORDING_ATTRS = ("session", "species", "source", "source_sha256", "frame_rate", "pixel_size")


@dataclass(frozen=True)
class AnalysisSettings:
    """Settings of `analyze`; each step validates its own.

    Parameters
    ----------
    steps : int
        Steps of the path integral, by chords at each window's own points (`IntegratedGradients`).
        Eight have less than half the error of the 20 published ones, which take more time.
    modes, active : int
        Modes to look for in each layer, and how many may be active at one time.
    held_out : float
        Last part of the split, between 0 and 1, that the modes are scored on and never fitted to.
    clusters : sequence of int
        Numbers of pathways to try; stability, silhouette and gap choose (`find_pathways`). One or
        two cells have no pathways.
    own_windows : int
        Times at which each cell is described by the modes that drive its own rate
        (`own_contributions`); 0 describes cells by correlations with the modes.
    copies : int
        Shifted copies beside which modes and pathways of the two halves of the split are compared
        (`compare_halves`, the first two layers explained); 0 leaves the comparison out.
    shrinkage : {"ledoit-wolf"}, optional
        It regularises Σ when cells are silent or nearly alike.
    """

    steps: int = 8
    modes: int = 32
    active: int = 3
    held_out: float = 0.25
    clusters: Sequence[int] = range(2, 9)
    own_windows: int = 240
    copies: int = 3
    shrinkage: Literal["ledoit-wolf"] | None = None


def analyze(
    recording: xr.DataTree,
    network: RetinaCNN,
    *,
    split: str = "test",
    layers: Sequence[str] | None = None,
    hypotheses: bool = True,
    scores: bool = False,
    settings: AnalysisSettings | None = None,
    seed: int = 0,
    device: str | None = None,
    progress: bool | None = None,
    provenance: Mapping[str, str | int | float] | None = None,
    keep: Callable[[xr.DataTree, str], object] | None = None,
) -> xr.DataTree:
    """Explain a network's responses to a recording, from contributions to hypotheses.

    The target is the surprisal of the population response, ``½ (y−μ)ᵀ Σ⁻¹ (y−μ) + const`` in
    nats, with μ and Σ of the network's own responses to this split; contributions are integrated
    gradients along the input path from mean grey.

    Parameters
    ----------
    recording : xr.DataTree
        A recording (see ``validate_recording``) with the stimulus and the network's cells.
    network : RetinaCNN
        The network fitted to these cells.
    split : str
        The part of the recording to explain: ``"test"`` or ``"train"``.
    layers : sequence of str, optional
        Layers to explain; None takes all of ``network.layers``.
    hypotheses : bool
        Predict what silencing interneurons does (`hypothesize`), where conv1 or conv2 is explained
        and the network is a `RetinaCNN`. Interneurons are named if the recording has
        ``/interneurons`` on the clock of the split.
    scores : bool
        Score the modes by other seeds, by controls and by the network (`score_modes`); minutes.
    settings : AnalysisSettings, optional
        ``AnalysisSettings()`` when left out.
    seed : int
        Start of the decomposition and of k-means.
    device : str, optional
        ``"cpu"`` or ``"cuda"``; None keeps the network where it is.
    progress : bool, optional
        None shows bars for work over 2 s, False never, True at once.
    provenance : mapping of str to scalar, optional
        Added to the attributes of the root: file names, hashes, the command.
    keep : callable, optional
        Gets the results so far and the name of the next step ("halves", "scores", "hypotheses")
        before each of these, which may take minutes; save them there against a loss.

    Returns
    -------
    xr.DataTree
        ``/responses`` (recorded rate and prediction in Hz, target in nats, and per cell
        ``pearson`` between the two and ``noise_ceiling`` where repeats exist),
        ``/layers/<name>`` (contribution in nats, activation, completeness error),
        ``/layers/<name>/modes``, ``/layers/<name>/own``, ``/layers/<name>/pathways``,
        ``/pathways``, ``/receptive_fields``; ``/hypotheses`` (hypothesis, cell) and ``/channels``
        (what each channel sees); ``/halves`` (`compare_halves`); ``/layers/<name>/score`` if asked
        for. The attributes of the root record settings and inputs; ``no_pathways``,
        ``no_receptive_fields``, ``no_halves``, ``no_scores`` and ``no_hypotheses`` give the reason
        where there are none.

    Raises
    ------
    RetinaCodecError
        If the recording lacks the split, does not fit the network or holds bad values.

    Notes
    -----
    What cannot be computed from this recording (hypotheses from a movie of a few seconds, pathways
    of two cells) is left out; the reason is logged and recorded, the other results are complete.

    References
    ----------
    Melander et al. 2026, ICLR (arXiv 2603.06557), section 7 and Figure 8.
    """
    from retina_codec.analysis.pathways.prediction import agreement, split_of
    from retina_codec.networks.retina.prediction import check_match

    settings = AnalysisSettings() if settings is None else settings
    part = split_of(recording, split)
    _check(network, settings)
    inputs = check_match(network, part)
    layers = list(network.layers) if layers is None else list(layers)
    results = _find_modes(network, inputs, layers, settings, seed, device, progress)
    results.attrs |= {
        **{name: recording.attrs[name] for name in RECORDING_ATTRS if name in recording.attrs},
        "split": split,
        "seed": seed,
        **(provenance or {}),
    }
    results = _add_pathways(results, network, inputs, layers, settings, seed, device, progress)
    _add_fields(results, network, inputs, layers, device, progress)
    responses = results["responses"].to_dataset()
    results["responses"] = xr.DataTree(
        responses.assign(agreement(responses["prediction"], part).data_vars)
    )
    _add_halves(results, network, layers, settings, seed, progress, keep)
    if scores:
        results = _add_scores(results, network, inputs, seed, device, progress, keep)
    if not hypotheses:
        results.attrs["no_hypotheses"] = "they were not asked for"
        return results
    if keep:
        results.attrs["no_hypotheses"] = NOT_COMPUTED
        keep(results, "hypotheses")
        del results.attrs["no_hypotheses"]
    log.info("hypotheses: the effect of silencing interneurons")
    _add_hypotheses(results, network, recording, split, seed, device, progress)
    return results


def _leave_out(results: xr.DataTree, what: str, reason: str) -> None:
    """Log and record why the results lack a part."""
    log.warning("no %s: %s", what.replace("_", " "), reason)
    results.attrs[f"no_{what}"] = reason


def _check(network: RetinaCNN, settings: AnalysisSettings) -> None:
    """Refuse what would fail after hours of work."""
    if own_names(network, "cells") is None:
        raise RetinaCodecError(
            "network must put out the rates of cells and name them (network.cells); got "
            f"{type(network).__name__}. Use a network of the retina (fit_network), or contribute() "
            "for other networks."
        )
    cells = len(network.cells)
    if cells >= FEWEST_CELLS and not any(2 <= k < cells for k in settings.clusters):
        raise RetinaCodecError(
            "clusters must hold a number from 2 to cells − 1; got "
            f"{list(settings.clusters)} for {cells} cells. Try fewer pathways: "
            f"AnalysisSettings(clusters=range(2, {min(cells, 9)}))."
        )


def _find_modes(
    network: RetinaCNN,
    inputs: xr.Dataset,
    layers: list[str],
    settings: AnalysisSettings,
    seed: int,
    device: str | None,
    progress: bool | None,
) -> xr.DataTree:
    """Compute contributions and decompose them."""
    from retina_codec.contributions.contribute import contribute
    from retina_codec.methods.integrated_gradients import IntegratedGradients
    from retina_codec.modes.decompose import decompose
    from retina_codec.modes.decompositions.sparse_autoencoder import SparseAutoencoder
    from retina_codec.targets.surprisal import Surprisal

    found_by = SparseAutoencoder(modes=settings.modes, active=settings.active, seed=seed)
    log.info("contributions of %s, %d steps", ", ".join(layers), settings.steps)
    hooked = any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())
    plain = set(layers) <= set(RetinaCNN.layers) and not hooked  # chords know what follows
    method = IntegratedGradients(settings.steps, quadrature="chords" if plain else "trapezoid")
    explained = contribute(
        network,
        inputs,
        target=Surprisal(shrinkage=settings.shrinkage),
        method=method,
        layers=layers,
        device=device,
        progress=progress,
    )
    log.info("modes: at most %d per layer, %d at a time", settings.modes, settings.active)
    return decompose(
        explained,
        found_by,
        layers=layers,
        held_out=settings.held_out,
        gap=max(40, network.history),  # fitted and held-out windows share no frame
        device=device,
        progress=progress,
    )


def _add_pathways(
    decomposed: xr.DataTree,
    network: RetinaCNN,
    inputs: xr.Dataset,
    layers: list[str],
    settings: AnalysisSettings,
    seed: int,
    device: str | None,
    progress: bool | None,
) -> xr.DataTree:
    """Group cells by the modes that drive them, or by correlations where some cell has none."""
    from retina_codec.analysis.pathways.own import own_contributions
    from retina_codec.analysis.pathways.pathways import find_pathways

    described = False
    if settings.own_windows:
        log.info("contributions to every cell's own rate at %d times", settings.own_windows)
        decomposed = own_contributions(
            network,
            inputs,
            decomposed,
            layers=layers,
            windows=settings.own_windows,
            seed=seed,
            device=device,
            progress=progress,
        )
        shares = [decomposed[f"layers/{name}/own/share"] for name in layers]
        described = all(bool(np.isfinite(share).all()) for share in shares)
        if not described:
            log.info("some cells have no share in any mode: all are described by correlations")
    if len(network.cells) < FEWEST_CELLS:
        count = f"{len(network.cells)} cell{'s' if len(network.cells) > 1 else ''}"
        _leave_out(decomposed, "pathways", f"they need {FEWEST_CELLS} cells; there are {count}")
        return decomposed
    log.info("pathways")
    try:
        return find_pathways(
            decomposed,
            layers=layers,
            clusters=settings.clusters,
            description="own" if described else "correlation",
            seed=seed,
            progress=progress,
        )
    except RetinaCodecError as error:
        _leave_out(decomposed, "pathways", str(error))
        return decomposed


def _add_fields(
    results: xr.DataTree,
    network: RetinaCNN,
    inputs: xr.Dataset,
    layers: list[str],
    device: str | None,
    progress: bool | None,
) -> None:
    """Put receptive fields, grouped by the modes of one layer, into the results."""
    from retina_codec.analysis.fields.fields import receptive_fields

    grouping = "conv2" if "conv2" in layers else layers[min(1, len(layers) - 1)]
    log.info("receptive fields at chosen events, grouped by the modes of %s", grouping)
    try:
        found = receptive_fields(
            network, inputs, results, layer=grouping, device=device, progress=progress
        )
    except RetinaCodecError as error:
        _leave_out(results, "receptive_fields", str(error))
        return
    results["receptive_fields"] = xr.DataTree(found)


def _add_halves(
    results: xr.DataTree,
    network: RetinaCNN,
    layers: list[str],
    settings: AnalysisSettings,
    seed: int,
    progress: bool | None,
    keep: Callable[[xr.DataTree, str], object] | None,
) -> None:
    """Compare modes and pathways of the two halves of the split, or record why not."""
    from retina_codec.analysis.comparison import compare_halves

    if not settings.copies:
        results.attrs["no_halves"] = "they were not asked for"
        return
    if keep:
        later = ("no_halves", "no_scores", "no_hypotheses")
        results.attrs |= dict.fromkeys(later, NOT_COMPUTED)
        keep(results, "halves")
        for name in later:
            del results.attrs[name]
    log.info("modes and pathways of the two halves")
    try:
        found = compare_halves(
            results,
            layers=layers[:2],
            clusters=settings.clusters,
            copies=settings.copies,
            gap=max(40, network.history),
            seed=seed,
            progress=progress,
        )
    except RetinaCodecError as error:
        _leave_out(results, "halves", str(error))
        return
    results["halves"] = xr.DataTree(found)


def _add_scores(
    results: xr.DataTree,
    network: RetinaCNN,
    inputs: xr.Dataset,
    seed: int,
    device: str | None,
    progress: bool | None,
    keep: Callable[[xr.DataTree, str], object] | None,
) -> xr.DataTree:
    """Score the modes, or record why not."""
    from retina_codec.modes.scores.score import score_modes

    if keep:
        results.attrs |= {"no_scores": NOT_COMPUTED, "no_hypotheses": NOT_COMPUTED}
        keep(results, "scores")
        del results.attrs["no_scores"], results.attrs["no_hypotheses"]
    log.info("scores of the modes: other seeds, controls, the network")
    try:
        return score_modes(
            results, network=network, inputs=inputs, seed=seed, device=device, progress=progress
        )
    except RetinaCodecError as error:
        _leave_out(results, "scores", str(error))
        return results


def _add_hypotheses(
    results: xr.DataTree,
    network: RetinaCNN,
    recording: xr.DataTree,
    split: str,
    seed: int,
    device: str | None,
    progress: bool | None,
) -> None:
    """Put hypotheses and kernels of the channels into the results, or why there are none."""
    from retina_codec.analysis.hypotheses.hypothesize import hypothesize
    from retina_codec.analysis.hypotheses.kernels import separable_kernels
    from retina_codec.probing.retina.hidden import LAYERS

    if not isinstance(network, RetinaCNN):
        kind = type(network).__name__
        reason = f"they need a RetinaCNN, whose channels can be silenced; got {kind}"
        _leave_out(results, "hypotheses", reason)
        return
    if not set(LAYERS) & set(results["layers"].children):
        _leave_out(
            results, "hypotheses", f"they need {' or '.join(LAYERS)} among the layers explained"
        )
        return
    try:
        found = hypothesize(
            network,
            recording,
            results,
            results,
            split=split,
            seed=seed,
            device=device,
            progress=progress,
        )
    except RetinaCodecError as error:
        _leave_out(results, "hypotheses", str(error))
        return
    results["hypotheses"] = xr.DataTree(found)
    kernels = separable_kernels(network, recording.children[split], device=device)
    results["channels"] = xr.DataTree(kernels)
