"""Testable statements: silence these interneurons and those cells will change by so many Hz.

Why this file exists: modes and pathways are descriptions; an experiment needs a prediction with
an interval, the neuron to silence, the stimulus that shows it best and the number of repeats.
What it is not: evidence. `benchmarks/hypotheses.py` holds such statements against a retina whose
circuit is known.
"""

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import xarray as xr

from retina_codec.analysis.best_stimulus import best_segment, show_simple_stimuli
from retina_codec.analysis.channel_kernels import channel_kernels
from retina_codec.analysis.hypothesis_words import describe
from retina_codec.analysis.interneuron_matching import match_interneurons, name_channels
from retina_codec.analysis.power import count_variability, detectability, repeats_needed
from retina_codec.analysis.prediction import agreement
from retina_codec.analysis.silencing import Baseline, silence_channels
from retina_codec.analysis.statements import Statement, gather_statements, whole_interneuron
from retina_codec.errors import RetinaCodecError
from retina_codec.networks.maheswaranathan import RetinaCNN

__all__ = ["hypothesize"]

Floats = npt.NDArray[np.floating]


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
    baseline: Baseline = "grey",
    stimulus_duration: float = 2.0,
    shifts: int = 24,
    seed: int = 0,
    device: str | None = None,
    progress: bool | None = None,
) -> xr.Dataset:
    """Turn modes and pathways into ranked predictions of what silencing interneurons does.

    A mode or pathway names the channels with at least ``share`` of its largest weight
    (`gather_statements`), split by the interneuron that each resembles; those that name the same
    channels are one row. With λ the network's mean
    rate of a cell on the split and λ₁ that with the channels cut (`silence_channels`), the
    predicted change is ``Δ = λ₁ − λ`` (Hz); its interval and standard error s come from resampling
    blocks of time. A cell is affected if ``|Δ| > threshold · λ`` and the interval excludes 0.

    The channels' interneuron is the type with the largest weighted mean r of `match_interneurons`,
    if the p of the leading channel is at most ``significance``. Rows are in falling order of
    expected information,

    ``I = r² Σ_cell q · ½ ln(1 + Δ² / (s² + v))`` (nats),

    what one presentation of the split with and one without silencing tell about the change if it
    were drawn from a Gaussian of width Δ: ``v = F (λ + λ₁) / T`` is the variance of the measured
    change, ``q = min(1, (r_model / ceiling)²)`` the explainable part that the network explains of
    this cell (1 without repeats), r² the part of the channels' variance that the named interneuron
    shares (1 where no interneurons are given, 0 where none matches).

    Parameters
    ----------
    network : RetinaCNN
    recording : xr.DataTree
        With ``split``; its repeats give F and the ceiling, its ``pixel_size`` (µm) the simple
        stimuli.
    modes : xr.DataTree
        Results of `decompose` for conv1, conv2 or both.
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
        Smallest change that counts, as a part of the cell's mean rate.
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
    xr.Dataset, dims (hypothesis), (hypothesis, cell), (hypothesis, stimulus)
        ``statement`` in words; ``layer``, ``channels``, ``silenced``, ``modes``,
        ``pathways`` as text;
        ``polarity``, ``peak_lag`` (s), ``biphasic_index``, ``width`` (px) of the leading channel;
        ``interneuron`` ("" if none matches), ``match``, ``match_p_value``, ``second_interneuron``,
        ``second_match``, ``place_y``, ``place_x`` (px, best unit of the best interneuron);
        ``change``, ``change_low``, ``change_high`` (Hz), ``affected``, ``cell_repeats``;
        ``segment_start`` and ``segment_duration`` (s), the block with the largest Σ d² over
        affected cells (all where none is), ``segment_repeats``; ``stimulus_detectability`` (d²),
        ``best_stimulus``, ``stimulus_repeats``; ``information`` (nats). Repeats count
        presentations of each condition, of the split for single cells; infinite where nothing
        changes.

    Raises
    ------
    RetinaCodecError
        If the split is missing or does not fit the network, layers have no modes, or an option is
        out of range.

    References
    ----------
    Melander et al. 2026, section 7. Maheswaranathan et al. 2023, Neuron 111:2742. Efron,
    Tibshirani 1993, An Introduction to the Bootstrap. Cover, Thomas 2006 (Gaussian channel).
    """
    _check(recording, split, threshold, significance, bootstraps)
    if scope not in ("interneuron", "mode"):
        raise RetinaCodecError(f"scope must be 'interneuron' or 'mode'; got {scope!r}.")
    part = recording.children[split]
    matches = _matches(network, recording, part, interneurons, shifts, device, progress)
    kinds = None if matches is None else name_channels(matches, significance)
    statements = gather_statements(modes, pathways, share=share, kinds=kinds)
    silencings = [statement.silencing for statement in statements]
    if scope == "interneuron" and matches is not None and kinds is not None:
        silencings = [whole_interneuron(s, matches, kinds) for s in statements]
    common: dict[str, Any] = {"baseline": baseline, "device": device, "progress": progress}
    different = list(dict.fromkeys(silencings))
    answer = silence_channels(network, part, different, block=block, **common)
    answer = answer.isel(silencing=[different.index(silencing) for silencing in silencings])
    before = answer["rate"].mean("time").values  # (cell,)
    after = answer["silenced_rate"].mean("time").values  # (hypothesis, cell)
    change, low, high, error = _bootstrap(
        (answer["silenced_rate"] - answer["rate"]).transpose("silencing", "time", "cell").values,
        bootstraps,
        significance,
        seed,
    )
    excludes_zero = (low > 0) | (high < 0)
    affected = (np.abs(change) > threshold * before) & excludes_zero
    variability, quality = _cells(network, modes, part, block)
    duration = block * answer.sizes["time"]
    of_cell = detectability(before, after, duration, variability)
    named = [_interneuron(statement, matches, significance) for statement in statements]
    certainty = np.array([row["match"] ** 2 if row["interneuron"] else 0.0 for row in named])
    if matches is None:
        certainty = np.ones(len(statements))
    noise = variability * (before + after) / duration
    gain = 0.5 * np.log1p(change**2 / (error**2 + noise))  # (hypothesis, cell)
    information = certainty * (quality * gain).sum(axis=1)

    best, segment = best_segment(answer, affected, variability, block)
    shown = show_simple_stimuli(
        network,
        float(recording.attrs["pixel_size"]),
        silencings,
        affected,
        variability,
        stimulus_duration,
        seed,
        common,
    )
    strongest = shown.argmax("stimulus").values
    needed = {"power": power, "significance": significance}
    kernels = channel_kernels(network, part, device=device)
    leading = [s.labels[int(np.argmax(s.weight))] for s in statements]
    of_rows: dict[str, Any] = {
        "layer": [s.silencing.layer for s in statements],
        "channels": [", ".join(map(str, s.silencing.channels)) for s in statements],
        "silenced": [f"{s.layer}: {', '.join(map(str, s.channels))}" for s in silencings],
        "modes": [", ".join(map(str, s.modes)) for s in statements],
        "pathways": [", ".join(map(str, s.pathways)) for s in statements],
        **{str(k): v.sel(channel=leading).values for k, v in kernels.data_vars.items()},
        **{key: [row[key] for row in named] for key in named[0]},
        "segment_start": answer["time"].values[best],
        "segment_duration": np.full(len(statements), block),
        "segment_repeats": repeats_needed(segment, **needed),
        "best_stimulus": shown["stimulus"].values[strongest],
        "stimulus_repeats": repeats_needed(shown.values.max(axis=1), **needed),
        "information": information,
    }
    of_cells = {
        "change": change,
        "change_low": low,
        "change_high": high,
        "affected": affected,
        "cell_repeats": repeats_needed(of_cell, **needed),
    }
    units = {
        "change": "Hz",
        "change_low": "Hz",
        "change_high": "Hz",
        "segment_start": "s",
        "segment_duration": "s",
        "peak_lag": "s",
        "width": "px",
        "information": "nats",
        "place_y": "px",
        "place_x": "px",
    }
    table = xr.Dataset(
        {
            **{k: ("hypothesis", v, _attrs(k, units)) for k, v in of_rows.items()},
            **{k: (("hypothesis", "cell"), v, _attrs(k, units)) for k, v in of_cells.items()},
            "stimulus_detectability": (("hypothesis", "stimulus"), shown.values, {"units": "1"}),
            "rate": ("cell", before, {"units": "Hz", "long_name": "predicted mean rate"}),
        },
        coords={
            "cell": answer["cell"],
            "type": answer["type"],
            "stimulus": shown["stimulus"],
        },
        attrs={
            "split": split,
            "share": share,
            "threshold": threshold,
            "significance": significance,
            "power": power,
            "scope": scope,
            "baseline": baseline,
            "block": block,
            "bootstraps": bootstraps,
            "seed": seed,
            "duration": duration,
        },
    )
    ranked = table.isel(hypothesis=np.argsort(-information, kind="stable"))
    ranked = ranked.assign_coords(hypothesis=np.arange(len(statements)))
    return ranked.assign(statement=("hypothesis", describe(ranked)))


def _attrs(name: str, units: dict[str, str]) -> dict[str, str]:
    return {"units": units[name]} if name in units else {}


def _check(
    recording: xr.DataTree, split: str, threshold: float, significance: float, bootstraps: int
) -> None:
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


def _bootstrap(
    change: Floats, resamples: int, significance: float, seed: int
) -> tuple[Floats, Floats, Floats, Floats]:
    """Mean, interval and standard error of changes (hypothesis, block, cell) over blocks."""
    blocks = change.shape[1]
    random = np.random.default_rng(seed)
    weight = random.multinomial(blocks, np.full(blocks, 1 / blocks), size=resamples) / blocks
    drawn = np.einsum("rb,hbc->rhc", weight, change, optimize=True)
    low, high = np.quantile(drawn, [significance / 2, 1 - significance / 2], axis=0)
    return change.mean(axis=1), low, high, drawn.std(axis=0, ddof=1)


def _cells(
    network: RetinaCNN, modes: xr.DataTree, part: xr.DataTree, block: float
) -> tuple[Floats, Floats]:
    """Variability F of the counts and explained part q of every cell; 1 where not known."""
    count = len(network.cells)
    variability, quality = np.ones(count), np.ones(count)
    if "repeats" not in part.children or part.children["repeats"].sizes["repeat"] < 2:
        return variability, quality
    repeats = part.children["repeats"].to_dataset()["rate"].sel(cell=list(network.cells))
    found = count_variability(repeats, block, network.frame_rate).values
    variability = np.where(found > 0, found, 1.0)  # without spikes nothing speaks against Poisson
    responses = modes["responses"].to_dataset() if "responses" in modes.children else xr.Dataset()
    if "prediction" in responses:
        fit = agreement(responses["prediction"], part).sel(cell=list(network.cells))
        ratio = (fit["pearson"] / fit["noise_ceiling"]).values
        # a cell whose ceiling is not defined counts for nothing
        quality = np.where(np.isfinite(ratio), np.clip(ratio, 0.0, 1.0) ** 2, 0.0)
    return variability, quality


def _matches(
    network: RetinaCNN,
    recording: xr.DataTree,
    part: xr.DataTree,
    interneurons: xr.Dataset | xr.DataTree | None,
    shifts: int,
    device: str | None,
    progress: bool | None,
) -> xr.Dataset | None:
    """Match channels with interneurons, if there are any."""
    given = interneurons
    if given is None:
        given = recording.children.get("interneurons")
    if given is None:
        return None
    data = given.to_dataset() if isinstance(given, xr.DataTree) else given
    if "type_correlation" in data:
        return data
    if interneurons is None and not _share_clock(data, part.to_dataset()):
        return None
    movie = data if "stimulus" in data else part
    return match_interneurons(network, movie, data, shifts=shifts, device=device, progress=progress)


def _share_clock(data: xr.Dataset, part: xr.Dataset) -> bool:
    """Tell whether potentials were recorded while this split was shown."""
    clock, time = data["time"].values, part["time"].values
    return bool(clock[0] <= time[0] + 1e-6 and clock[-1] >= time[-1] - 1e-6)


def _interneuron(
    statement: Statement, matches: xr.Dataset | None, significance: float
) -> dict[str, Any]:
    """Name the interneuron that the channels of a statement resemble."""
    nan = float("nan")
    row: dict[str, Any] = {
        "interneuron": "",
        "match": nan,
        "match_p_value": nan,
        "second_interneuron": "",
        "second_match": nan,
        "place_y": nan,
        "place_x": nan,
    }
    if matches is None:
        return row
    chosen = matches.sel(channel=statement.labels)
    score = statement.weight @ chosen["type_correlation"].values  # (interneuron_type,)
    if not np.isfinite(score).any():
        return row
    order = np.argsort(-np.where(np.isfinite(score), score, -np.inf))
    kinds = chosen["interneuron_type"].values
    leading = chosen.isel(channel=int(np.argmax(statement.weight)))
    p = float(leading["type_p_value"].values[order[0]])
    of_kind = leading.isel(interneuron=leading["type"].values == kinds[order[0]])
    nearest = of_kind.isel(interneuron=int(of_kind["correlation"].values.argmax()))
    row |= {
        "match": float(score[order[0]]),
        "match_p_value": p,
        "place_y": float(nearest["place_y"]),
        "place_x": float(nearest["place_x"]),
    }
    if p <= significance and score[order[0]] > 0:
        row["interneuron"] = str(kinds[order[0]])
    if len(order) > 1:
        row |= {"second_interneuron": str(kinds[order[1]]), "second_match": float(score[order[1]])}
    return row
