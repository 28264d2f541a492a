"""Predict what silencing an interneuron does to every cell, and when: hypotheses, ranked.

`benchmarks/hypotheses.py` compares them with a retina whose circuit is known.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import xarray as xr

from retina_codec.analysis.hypotheses.candidates import (
    Candidate,
    gather_candidates,
    join_candidates,
    whole_interneuron,
)
from retina_codec.analysis.hypotheses.claims import (
    ClaimedCells,
    claim_cells,
    detectabilities,
    information_of_cells,
    order_and_join,
)
from retina_codec.analysis.hypotheses.effects import (
    EventEffects,
    event_effects,
    event_runs,
    events_of,
    pad_runs,
)
from retina_codec.analysis.hypotheses.interneurons import (
    find_matches,
    match_of_rows,
    name_channels,
    name_interneuron,
)
from retina_codec.analysis.hypotheses.kernels import channel_kernels
from retina_codec.analysis.hypotheses.silencing import RestingAt, in_blocks, silence_channels
from retina_codec.analysis.hypotheses.stimuli import best_segment, show_simple_stimuli
from retina_codec.analysis.hypotheses.table import KERNEL, cells_of, describe, make_table
from retina_codec.analysis.pathways.prediction import cell_certainty, split_of
from retina_codec.errors import RetinaCodecError
from retina_codec.networks.retina.model import RetinaCNN
from retina_codec.probing.interventions import Silencing
from retina_codec.statistics.power import repeats_needed

__all__ = ["HypothesisSettings", "hypothesize"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class HypothesisSettings:
    """Settings of `hypothesize`.

    Parameters
    ----------
    share : float
        In (0, 1]: a mode's channels with at least this share of its largest weight are silenced.
    threshold : float
        Smallest change that counts, as a part of the cell's rate.
    significance, power : float
        Of the experiment, see `repeats_needed`; intervals cover 1 − significance.
    block : float
        s. Of the bootstrap, and the duration of the segment of the recording.
    bootstraps : int
        Resamples.
    scope : {"interneuron", "mode"}
        What is silenced: all channels that resemble the named interneuron, in the layer where one
        resembles it most, since an experiment silences the whole type; or only the channels that
        are strong in the mode. The second wherever no interneuron is named.
    event_share : float
        In (0, 1), of the time.
    held_at : {"grey", "zero"}
        Output at which silenced channels are held, see `silence_channels`.
    stimulus_duration : float
        s, of each simple stimulus.
    shifts : int
        Of the null of the match.

    Raises
    ------
    RetinaCodecError
        If a value is out of range.
    """

    share: float = 0.5
    threshold: float = 0.1
    significance: float = 0.05
    power: float = 0.8
    block: float = 1.0
    bootstraps: int = 1000
    scope: Literal["interneuron", "mode"] = "interneuron"
    event_share: float = 0.1
    held_at: RestingAt = "grey"
    stimulus_duration: float = 2.0
    shifts: int = 24

    def __post_init__(self) -> None:
        """Validate the settings."""
        threshold, significance, bootstraps = self.threshold, self.significance, self.bootstraps
        if threshold < 0 or not 0 < significance < 1 or bootstraps < 2:
            raise RetinaCodecError(
                "threshold must be at least 0, significance between 0 and 1, bootstraps at least "
                f"2; got {threshold=}, {significance=}, {bootstraps=}."
            )
        _check_choice("scope", self.scope, ("interneuron", "mode"))
        if not 0 < self.event_share < 1:
            raise RetinaCodecError(
                f"event_share must lie in (0, 1); got {self.event_share}. Use 0.1."
            )


@dataclass
class _Rows:
    """Hypotheses: what is silenced, what it is named after, and what follows for the cells."""

    candidates: list[Candidate]
    sources: list[str]  # mode or pathway whose events these are
    silencings: list[Silencing]
    which: npt.NDArray[np.integer]  # (row,), number of the silencing in the network's answer
    named: list[dict[str, Any]]  # interneurons
    match: Floats  # (row,), r of silenced channels and interneuron
    masks: npt.NDArray[np.bool_]  # (row, time), events
    effects: EventEffects
    claimed: ClaimedCells
    information: Floats  # (row,), nats

    def ranked(self) -> "_Rows":
        """Rank rows and join those about the same experiment."""
        groups = order_and_join(self.information, self.silencings, self.masks)
        lead = np.array([group[0] for group in groups])
        return _Rows(
            [join_candidates([self.candidates[row] for row in group]) for group in groups],
            [self.sources[row] for row in lead],
            [self.silencings[row] for row in lead],
            self.which[lead],
            [self.named[row] for row in lead],
            self.match[lead],
            self.masks[lead],
            self.effects.rows(lead),
            self.claimed.rows(lead),
            self.information[lead],
        )


def hypothesize(
    network: RetinaCNN,
    recording: xr.DataTree,
    modes: xr.DataTree,
    pathways: xr.DataTree | None = None,
    *,
    interneurons: xr.Dataset | xr.DataTree | None = None,
    split: str = "test",
    when: Literal["active", "always"] = "active",
    settings: HypothesisSettings | None = None,
    seed: int = 0,
    device: str | None = None,
    progress: bool | None = None,
) -> xr.Dataset:
    """Turn modes and pathways into ranked predictions of what silencing interneurons does.

    A mode or pathway gives the channels with at least ``share`` of its largest weight
    (`gather_candidates`), split by the interneuron that each resembles, and events E: the times at
    which its loading is among the largest ``event_share``. With λ the network's rate of a cell and
    λ₁ that with the channels silenced (`silence_channels`), the predicted change is
    ``Δ = mean over E of (λ₁ − λ)`` (Hz), ``Δ'`` the same over all other times, and the contrast
    ``C = Δ − Δ'``; intervals and standard errors s come from resampling blocks of time.

    The channels' interneuron is the type with the largest weighted mean r of `match_interneurons`,
    if the p of the leading channel is at most ``significance``. Of the channels' variance, 1 − r²
    is not shared with it (r: the best of the silenced channels), and could change any cell as well:
    ``m = (1 − r²) · max over cells |Δ|``. With λ̄ the larger of a cell's rate in E and over the
    split, a cell is affected if ``|Δ| > max(threshold · λ̄, m)`` and the interval excludes 0;
    undecided if only the threshold is exceeded; timed if it is affected, ``|C| > threshold · λ̄``
    with an interval that excludes 0, and ``|Δ| > |Δ'|``.

    The information of a row (nats) is

    ``I = r² Σ_timed cells q · ½ ln(1 + C² / (s² + m² + v))``,

    the information of one presentation of the split with and one without silencing about a C from a
    Gaussian of width C: ``v`` is the variance of the measured contrast, the sum of
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
    when : {"active", "always"}
        Predict changes in the events of modes, or over all times.
    settings : HypothesisSettings, optional
        ``HypothesisSettings()`` when left out; ``share``, ``threshold`` and the other names above
        are its fields.
    seed : int
        Of the bootstrap and the jitter of the simple stimuli.
    device, progress
        See `silence_channels`.

    Returns
    -------
    xr.Dataset, dims (hypothesis), (hypothesis, cell), (hypothesis, event), (hypothesis, stimulus)
        ``statement`` in words; ``layer``, ``channels``, ``silenced``, ``modes``, ``pathways`` as
        text, ``support`` all with this experiment, ``event_source`` the one whose
        events these are; ``polarity``, ``peak_lag`` (s),
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
        missing or not of this split, or ``when`` is unknown.

    Notes
    -----
    The change that silencing makes follows from the network alone; averaged over a whole movie, all
    rows about one interneuron predict the same. A mode of contributions adds when the neurons
    matter: a row claims a larger change in its events than elsewhere.

    References
    ----------
    Melander et al. 2026, section 7. Maheswaranathan et al. 2023, Neuron 111:2742. Efron,
    Tibshirani 1993, An Introduction to the Bootstrap. Cover, Thomas 2006 (Gaussian channel).
    """
    settings = HypothesisSettings() if settings is None else settings
    part, step = split_of(recording, split), 1 / network.frame_rate
    _check_choice("when", when, ("active", "always"))
    silence = partial(
        silence_channels, network, held_at=settings.held_at, device=device, progress=progress
    )
    matches = find_matches(
        network, recording, part, interneurons, settings.shifts, device, progress
    )
    candidates, silencings = _candidates(modes, pathways, matches, settings, when)
    different = list(dict.fromkeys(silencings))
    answer = silence(part, different, block=step)
    coarse = in_blocks(answer, settings.block)
    certainty = cell_certainty(network, modes, part, settings.block)
    found = _predict(answer, coarse, candidates, silencings, matches, certainty,
                     network.frame_rate, settings, when, seed)  # fmt: skip
    rows = found.ranked()
    coarse = coarse.isel(silencing=rows.which)
    shown = show_simple_stimuli(
        network,
        float(recording.attrs.get("pixel_size", np.nan)),
        rows.silencings,
        rows.claimed.affected,
        certainty[0],
        settings.stimulus_duration,
        seed,
        silence,
    )
    kernels = channel_kernels(network, part, device=device)
    columns, cells = _columns(rows, coarse, certainty[0], kernels, shown, settings)
    runs = [event_runs(mask, answer["time"].values, step) for mask in rows.masks]
    table = make_table(
        columns,
        cells,
        pad_runs(runs),
        shown,
        coarse["rate"].mean("time"),
        _attrs(settings, split, when, seed, coarse.sizes["time"]),
    )
    return table.assign(statement=("hypothesis", describe(table)))


def _candidates(
    modes: xr.DataTree,
    pathways: xr.DataTree | None,
    matches: xr.Dataset | None,
    settings: HypothesisSettings,
    when: str,
) -> tuple[list[Candidate], list[Silencing]]:
    """Return the candidates of modes and pathways, and what each silences."""
    kinds = None if matches is None else name_channels(matches, settings.significance)
    candidates = gather_candidates(
        modes, pathways, share=settings.share, kinds=kinds, apart=when == "active"
    )
    if settings.scope == "interneuron" and matches is not None and kinds is not None:
        return candidates, [whole_interneuron(one, matches, kinds) for one in candidates]
    return candidates, [one.silencing for one in candidates]


def _predict(
    answer: xr.Dataset,
    coarse: xr.Dataset,
    candidates: list[Candidate],
    silencings: list[Silencing],
    matches: xr.Dataset | None,
    certainty: tuple[Floats, Floats],
    frame_rate: float,
    settings: HypothesisSettings,
    when: str,
    seed: int,
) -> _Rows:
    """Predict the changes in the events of every candidate, and their information."""
    different = list(dict.fromkeys(silencings))
    time, per_block = answer["time"].values, round(settings.block * frame_rate)
    masks = np.ones((len(candidates), len(time)), dtype=bool)
    if when == "active":
        loadings = [one.loading for one in candidates]
        masks = events_of(loadings, time, 1 / frame_rate, settings.event_share)
    masks[:, per_block * coarse.sizes["time"] :] = False  # whole blocks
    live = np.flatnonzero(masks.any(axis=1))
    if not live.size:
        raise RetinaCodecError("no mode is ever active in whole blocks. Use when='always'.")
    candidates, silencings = [candidates[i] for i in live], [silencings[i] for i in live]
    masks, which = masks[live], np.array([different.index(one) for one in silencings])
    effects = event_effects(
        answer["rate"].values,
        answer["silenced_rate"].transpose("silencing", "time", "cell").values,
        which,
        masks,
        per_block=per_block,
        frame_rate=frame_rate,
        resamples=settings.bootstraps,
        significance=settings.significance,
        seed=seed,
    )
    named = [name_interneuron(one, matches, settings.significance) for one in candidates]
    match = match_of_rows(silencings, named, matches, whole=settings.scope == "interneuron")
    rate = coarse["rate"].mean("time").values  # (cell,)
    claimed = claim_cells(effects, rate, match, settings.threshold)
    variability, quality = certainty
    gain = information_of_cells(effects, claimed, variability, active=when == "active")
    sources = [one.source if when == "active" else "" for one in candidates]
    information = match**2 * (gain @ quality)
    return _Rows(candidates, sources, silencings, which, named, match, masks, effects, claimed,
                 information)  # fmt: skip


def _columns(
    rows: _Rows,
    coarse: xr.Dataset,
    variability: Floats,
    kernels: xr.Dataset,
    shown: xr.DataArray,
    settings: HypothesisSettings,
) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """Return the variables of hypotheses, and those of hypotheses and cells."""
    count, affected, effects = len(rows.candidates), rows.claimed.affected, rows.effects
    repeats = partial(repeats_needed, power=settings.power, significance=settings.significance)
    best, segment = best_segment(coarse, affected, variability, settings.block)
    of_cell, inside, outside = detectabilities(effects, affected, variability)
    strongest, stimulus = np.full(count, np.nan), np.full(count, "")
    if shown.size:
        strongest = shown.values.max(axis=1)
        stimulus = shown["stimulus"].values[shown.argmax("stimulus").values]
    leading = [one.labels[int(np.argmax(one.weight))] for one in rows.candidates]
    columns: dict[str, Any] = {
        "layer": [one.silencing.layer for one in rows.candidates],
        "channels": [_listed(one.silencing.channels) for one in rows.candidates],
        "silenced": [f"{one.layer}: {_listed(one.channels)}" for one in rows.silencings],
        "modes": [_listed(one.modes) for one in rows.candidates],
        "pathways": [_listed(one.pathways) for one in rows.candidates],
        "support": [one.support for one in rows.candidates],
        "event_source": rows.sources,
        **{name: kernels[name].sel(channel=leading).values for name in KERNEL},
        **{name: [row[name] for row in rows.named] for name in rows.named[0]},
        "silenced_match": rows.match,
        "match_error": rows.claimed.match_error,
        "event_time": effects.seconds,
        "event_detectability": inside,
        "elsewhere_detectability": outside,
        "event_repeats": repeats(inside * effects.seconds),
        "segment_start": coarse["time"].values[best],
        "segment_duration": np.full(count, settings.block),
        "segment_repeats": repeats(segment),
        "best_stimulus": stimulus,
        "stimulus_repeats": repeats(strongest),
        "information": rows.information,
    }
    return columns, cells_of(effects, rows.claimed) | {"cell_repeats": repeats(of_cell)}


def _attrs(
    settings: HypothesisSettings, split: str, when: str, seed: int, blocks: int
) -> dict[str, Any]:
    """Return the settings as they are recorded."""
    as_given = ("share", "threshold", "significance", "power", "scope", "block", "bootstraps")
    return {
        "split": split,
        **{name: getattr(settings, name) for name in as_given},
        "when": when,
        **({"event_share": settings.event_share} if when == "active" else {}),
        "baseline": settings.held_at,
        "seed": seed,
        "duration": settings.block * blocks,
    }


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


def _check_choice(name: str, value: str, known: tuple[str, str]) -> None:
    if value not in known:
        raise RetinaCodecError(f"{name} must be {known[0]!r} or {known[1]!r}; got {value!r}.")
