"""Testable statements: silence these interneurons and those cells will change by so many Hz, then.

Why this file exists: modes and pathways are descriptions; an experiment needs a prediction with
an interval, the neuron to silence, the times to look at and the number of repeats. What it is not:
evidence. `benchmarks/hypotheses.py` holds such statements against a retina whose circuit is known.

What a mode adds. The change that silencing makes follows from the network, whatever named the
neuron; averaged over a whole movie, every row about one interneuron makes the same prediction, and
any list of the two easiest interneurons is right. A mode of contributions says more: *these*
neurons matter *then*. So a row is a silencing and the events in which a mode is active
(`mode_events`), and it claims a larger change in the events than elsewhere. Modes of activations
pick times at which a neuron is active, whether or not anything follows from it.

What can be known of the error: resampled blocks of time (the interval); what the channels carry
beyond the interneuron (``match_error``); what the network explains of each cell (q). Cells whose
change exceeds the threshold but not its error are ``undecided``.
"""

from typing import Any, Literal

import numpy as np
import xarray as xr

from retina_codec.analysis.hypotheses.cells import (
    claim_cells,
    detectabilities,
    information_of_cells,
)
from retina_codec.analysis.hypotheses.effects import event_effects, event_runs, events_of, pad_runs
from retina_codec.analysis.hypotheses.interneurons import name_channels
from retina_codec.analysis.hypotheses.kernels import channel_kernels
from retina_codec.analysis.hypotheses.names import find_matches, match_of_rows, name_statement
from retina_codec.analysis.hypotheses.silencing import Baseline, in_blocks, silence_channels
from retina_codec.analysis.hypotheses.statements import (
    gather_statements,
    join_statements,
    whole_interneuron,
)
from retina_codec.analysis.hypotheses.stimuli import best_segment, show_simple_stimuli
from retina_codec.analysis.hypotheses.table import KERNEL, cells_of, make_table, order_and_join
from retina_codec.analysis.hypotheses.words import describe
from retina_codec.analysis.pathways.prediction import cell_certainty
from retina_codec.errors import RetinaCodecError
from retina_codec.networks.retina.model import RetinaCNN
from retina_codec.statistics.power import repeats_needed

__all__ = ["check_options", "hypothesize"]


def hypothesize(
    network: RetinaCNN,
    recording: xr.DataTree,
    modes: xr.DataTree,
    pathways: xr.DataTree | None = None,
    *,
    interneurons: xr.Dataset | xr.DataTree | None = None,
    split: str = "test",
    share: float = 0.5,
    threshold: float = 0.1,
    significance: float = 0.05,
    power: float = 0.8,
    block: float = 1.0,
    bootstraps: int = 1000,
    scope: Literal["interneuron", "mode"] = "interneuron",
    when: Literal["active", "always"] = "active",
    event_share: float = 0.1,
    baseline: Baseline = "grey",
    stimulus_duration: float = 2.0,
    shifts: int = 24,
    seed: int = 0,
    device: str | None = None,
    progress: bool | None = None,
) -> xr.Dataset:
    """Turn modes and pathways into ranked predictions of what silencing interneurons does.

    A mode or pathway names the channels with at least ``share`` of its largest weight
    (`gather_statements`), split by the interneuron that each resembles, and events E: the times at
    which its loading is among the largest ``event_share``. With λ the network's rate of a cell and
    λ₁ that with the channels cut (`silence_channels`), the predicted change is
    ``Δ = mean over E of (λ₁ − λ)`` (Hz), ``Δ'`` the same over all other times, and the contrast
    ``C = Δ − Δ'``; intervals and standard errors s come from resampling blocks of time.

    The channels' interneuron is the type with the largest weighted mean r of `match_interneurons`,
    if the p of the leading channel is at most ``significance``. Of the channels' variance, 1 − r²
    is not shared with it (r: the best of the channels cut), and could change any cell as well:
    ``m = (1 − r²) · max over cells |Δ|``. With λ̄ the larger of a cell's rate in E and over the
    split, a cell is affected if ``|Δ| > max(threshold · λ̄, m)`` and the interval excludes 0;
    undecided if only the threshold is exceeded; timed if it is affected, ``|C| > threshold · λ̄``
    with an interval that excludes 0, and ``|Δ| > |Δ'|``.

    The information of a row (nats) is

    ``I = r² Σ_timed cells q · ½ ln(1 + C² / (s² + m² + v))``,

    what one presentation of the split with and one without silencing tell about C if it were drawn
    from a Gaussian of width C: ``v`` is the variance of the measured contrast, the sum of
    ``F (λ + λ₁) / T`` inside and outside, and ``q = min(1, (r_model / ceiling)²)`` the explainable
    part that the network explains of this cell (1 without repeats). r² is 1 where no interneurons
    are given, 0 where none matches. The order is that of `order_and_join`: rows of the same
    silencing whose events are alike are one experiment and one row, and each further row about a
    silencing counts less.

    With ``when="always"`` events are all times: Δ and its s and v take the place of C, over all
    cells, and no cell is timed. All rows about one interneuron then are one row.

    Parameters
    ----------
    network : RetinaCNN
    recording : xr.DataTree
        With ``split``; its repeats give F and the ceiling, its ``pixel_size`` (µm) the simple
        stimuli (none where that is NaN or missing).
    modes : xr.DataTree
        Results of `decompose` for conv1, conv2 or both, of this split.
    pathways : xr.DataTree, optional
        Results of `find_pathways`; may be the same tree.
    interneurons : xr.Dataset or node, optional
        ``potential`` (time, interneuron); with its own ``stimulus``, or on the clock of the split;
        or what `match_interneurons` gave for this network. Left out:
        ``recording["interneurons"]``, where it is on that clock.
    split : str
    share : float
        In (0, 1].
    threshold : float
        Smallest change that counts, as a part of the cell's rate.
    significance, power : float
        Of the experiment, see `repeats_needed`; intervals cover 1 − significance.
    block : float
        s. Of the bootstrap, and the duration of the segment of the recording.
    bootstraps : int
        Resamples.
    scope : {"interneuron", "mode"}
        What is cut: all channels that resemble the named interneuron, in the layer where one
        resembles it most, since an experiment silences the whole type; or only the channels that
        the row names. The second wherever no interneuron is named.
    when : {"active", "always"}
    event_share : float
        In (0, 1), of the time.
    baseline : {"grey", "zero"}
        What silenced channels say, see `silence_channels`.
    stimulus_duration : float
        s, of each simple stimulus.
    shifts : int
        Of the null of the match.
    seed : int
        Of the bootstrap and the jitter of the simple stimuli.
    device, progress
        See `silence_channels`.

    Returns
    -------
    xr.Dataset, dims (hypothesis), (hypothesis, cell), (hypothesis, event), (hypothesis, stimulus)
        ``statement`` in words; ``layer``, ``channels``, ``silenced``, ``modes``, ``pathways`` as
        text, ``support`` all that name this experiment, ``event_source`` the one whose events
        these are; ``polarity``, ``peak_lag`` (s),
        ``biphasic_index``, ``width`` (px) of the leading channel; ``interneuron`` ("" if none
        matches), ``match``, ``match_p_value``, ``second_interneuron``, ``second_match``,
        ``place_y``, ``place_x`` (px, best unit of the best interneuron), ``silenced_match`` (r),
        ``match_error`` (m, Hz); ``event_start``, ``event_stop`` (s, NaN after the last),
        ``event_time`` (s, whole blocks only). Per cell, in the events: ``event_rate`` (λ),
        ``change``, ``change_low``, ``change_high``, ``change_elsewhere``, ``contrast``,
        ``contrast_low``, ``contrast_high`` (Hz), ``affected``, ``undecided``, ``timed``,
        ``cell_repeats``; ``rate`` (Hz) over the split. Over affected cells (all where none is):
        ``event_detectability``, ``elsewhere_detectability`` (Σ d² per second), ``event_repeats``;
        ``segment_start`` and ``segment_duration`` (s), the block with the largest Σ d²,
        ``segment_repeats``; ``stimulus_detectability`` (d²), ``best_stimulus``,
        ``stimulus_repeats``; ``information`` (nats). Repeats count presentations of each
        condition, of the split for single cells and events; infinite where nothing changes.

    Raises
    ------
    RetinaCodecError
        If the split is missing or does not fit the network, layers have no modes, loadings are
        missing or not of this split, or an option is out of range.

    References
    ----------
    Melander et al. 2026, section 7. Maheswaranathan et al. 2023, Neuron 111:2742. Efron,
    Tibshirani 1993, An Introduction to the Bootstrap. Cover, Thomas 2006 (Gaussian channel).
    """
    check_options(
        recording,
        split=split,
        threshold=threshold,
        significance=significance,
        bootstraps=bootstraps,
        event_share=event_share,
        scope=scope,
        when=when,
    )
    part = recording.children[split]
    matches = find_matches(network, recording, part, interneurons, shifts, device, progress)
    kinds = None if matches is None else name_channels(matches, significance)
    active = when == "active"
    statements = gather_statements(modes, pathways, share=share, kinds=kinds, apart=active)
    silencings = [statement.silencing for statement in statements]
    if scope == "interneuron" and matches is not None and kinds is not None:
        silencings = [whole_interneuron(s, matches, kinds) for s in statements]
    common: dict[str, Any] = {"baseline": baseline, "device": device, "progress": progress}
    different = list(dict.fromkeys(silencings))
    answer = silence_channels(network, part, different, block=1 / network.frame_rate, **common)
    time = answer["time"].values
    coarse = in_blocks(answer, block)
    masks = np.ones((len(statements), len(time)), dtype=bool)
    if active:
        loadings = [statement.loading for statement in statements]
        masks = events_of(loadings, time, 1 / network.frame_rate, event_share)
    masks[:, round(block * network.frame_rate) * coarse.sizes["time"] :] = False  # whole blocks
    live = np.flatnonzero(masks.any(axis=1))
    statements, silencings = [statements[i] for i in live], [silencings[i] for i in live]
    masks = masks[live]
    if not statements:
        raise RetinaCodecError("no mode is ever active in whole blocks. Use when='always'.")
    of_silencing = np.array([different.index(silencing) for silencing in silencings])
    effects = event_effects(
        answer["rate"].values,
        answer["silenced_rate"].transpose("silencing", "time", "cell").values,
        of_silencing,
        masks,
        per_block=round(block * network.frame_rate),
        frame_rate=network.frame_rate,
        resamples=bootstraps,
        significance=significance,
        seed=seed,
    )
    before = coarse["rate"].mean("time").values  # (cell,)
    named = [name_statement(statement, matches, significance) for statement in statements]
    r = match_of_rows(silencings, named, matches, whole=scope == "interneuron")
    claimed = claim_cells(effects, before, r, threshold)
    variability, quality = cell_certainty(network, modes, part, block)
    gain = information_of_cells(effects, claimed, variability, active=active)
    information = r**2 * (gain @ quality)

    rows = order_and_join(information, silencings, masks)
    lead = np.array([group[0] for group in rows])
    sources = [statements[row].source if active else "" for row in lead]
    statements = [join_statements([statements[row] for row in group]) for group in rows]
    silencings = [silencings[row] for row in lead]
    named = [named[row] for row in lead]
    effects, claimed = effects.rows(lead), claimed.rows(lead)
    affected, masks = claimed.affected, masks[lead]
    coarse = coarse.isel(silencing=of_silencing[lead])

    best, segment = best_segment(coarse, affected, variability, block)
    size = float(recording.attrs.get("pixel_size", np.nan))
    look = (silencings, affected, variability, stimulus_duration, seed, common)
    shown = show_simple_stimuli(network, size, *look)
    strongest = shown.values.max(axis=1) if shown.size else np.full(len(statements), np.nan)
    needed = {"power": power, "significance": significance}
    kernels = channel_kernels(network, part, device=device)
    leading = [s.labels[int(np.argmax(s.weight))] for s in statements]
    of_cell, inside, outside = detectabilities(effects, affected, variability)
    rows_of: dict[str, Any] = {
        "layer": [s.silencing.layer for s in statements],
        "channels": [", ".join(map(str, s.silencing.channels)) for s in statements],
        "silenced": [f"{s.layer}: {', '.join(map(str, s.channels))}" for s in silencings],
        "modes": [", ".join(map(str, s.modes)) for s in statements],
        "pathways": [", ".join(map(str, s.pathways)) for s in statements],
        "support": [s.support for s in statements],
        "event_source": sources,
        **{k: kernels[k].sel(channel=leading).values for k in KERNEL},
        **{key: [row[key] for row in named] for key in named[0]},
        "silenced_match": r[lead],
        "match_error": claimed.match_error,
        "event_time": effects.seconds,
        "event_detectability": inside,
        "elsewhere_detectability": outside,
        "event_repeats": repeats_needed(inside * effects.seconds, **needed),
        "segment_start": coarse["time"].values[best],
        "segment_duration": np.full(len(statements), block),
        "segment_repeats": repeats_needed(segment, **needed),
        "best_stimulus": (
            shown["stimulus"].values[shown.argmax("stimulus").values]
            if shown.size
            else [""] * len(statements)
        ),
        "stimulus_repeats": repeats_needed(strongest, **needed),
        "information": information[lead],
    }
    attrs = {
        "split": split,
        "share": share,
        "threshold": threshold,
        "significance": significance,
        "power": power,
        "scope": scope,
        "when": when,
        **({"event_share": event_share} if active else {}),
        "baseline": baseline,
        "block": block,
        "bootstraps": bootstraps,
        "seed": seed,
        "duration": block * coarse.sizes["time"],
    }
    cells = {**cells_of(effects, claimed), "cell_repeats": repeats_needed(of_cell, **needed)}
    runs = [event_runs(mask, time, 1 / network.frame_rate) for mask in masks]
    table = make_table(rows_of, cells, pad_runs(runs), shown, coarse["rate"].mean("time"), attrs)
    return table.assign(statement=("hypothesis", describe(table)))


def check_options(
    recording: xr.DataTree,
    *,
    split: str,
    threshold: float,
    significance: float,
    bootstraps: int,
    event_share: float,
    scope: str,
    when: str,
) -> None:
    """Check the options of `hypothesize`; one line says what must hold.

    Raises
    ------
    RetinaCodecError
        If the split is missing or an option is out of range.
    """
    if split not in recording.children:
        raise RetinaCodecError(
            f"split must be a part of the recording; got {split=}. "
            f"This recording has {sorted(set(recording.children) & {'train', 'test'})}."
        )
    if threshold < 0 or not 0 < significance < 1 or bootstraps < 2:
        raise RetinaCodecError(
            "threshold must be at least 0, significance between 0 and 1, bootstraps at least 2; "
            f"got {threshold=}, {significance=}, {bootstraps=}."
        )
    for name, value, known in (
        ("scope", scope, ("interneuron", "mode")),
        ("when", when, ("active", "always")),
    ):
        if value not in known:
            raise RetinaCodecError(f"{name} must be {known[0]!r} or {known[1]!r}; got {value!r}.")
    if not 0 < event_share < 1:
        raise RetinaCodecError(f"event_share must lie in (0, 1); got {event_share}. Use 0.1.")
