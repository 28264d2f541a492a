"""One page of a recording: movie, spikes, rates and reliability of the cells."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from retina_codec.errors import RetinaCodecError
from retina_codec.figures.retina.recording_text import describe
from retina_codec.figures.style import (
    MUTED,
    Area,
    draw_title,
    grid,
    new_figure,
    size_of,
    styled,
    type_colors,
)
from retina_codec.recordings.quality.cells import measure_quality
from retina_codec.recordings.schema import validate_recording
from retina_codec.storage.results import table

__all__ = ["choose_cells", "plot_recording"]

FRAMES = 6
CELLS = 5
ROWS = 20  # presentations in a raster: more are too thin to see
NAMES = 16  # cell ids under the bars
LARGEST_BIN = 4  # spikes in a bin that are drawn black
STEPS = 250  # of the mean rate: more are a black band
TYPES = 6  # lines of types: more cannot be told apart
LINE_HEIGHT = 0.165  # inches


@styled
def plot_recording(
    recording: xr.DataTree,
    *,
    cells: Sequence[object] | None = None,
    duration: float = 5.0,
    progress: bool | None = None,
) -> Figure:
    """Draw the first seconds of the test split and the quality of all cells on one page.

    Parameters
    ----------
    recording : xr.DataTree
        A valid recording. Of the stimulus only the frames shown are read. ``/quality`` is measured
        where it is missing; ``/clock`` is told where it exists.
    cells : sequence of cell names, optional
        Whose spikes are drawn, at least one; by default up to five, of every type the most
        reliable ones.
    duration : float
        s of the test split that are drawn, from its start; all of it where it is shorter.
    progress : bool, optional
        See `retina_codec.progress.progress_bar`.

    Returns
    -------
    matplotlib.figure.Figure
        Frames with their times (s); counts per bin of every presentation of a few cells; mean rate
        of all cells (Hz); reliability with its standard error and noise ceiling per cell, by type;
        cells per type; session, clock and flags in words.

    Raises
    ------
    RetinaCodecError
        Not a valid recording, an unknown cell, no cell, a duration that is not positive.
    """
    validate_recording(recording)
    if not (np.isfinite(duration) and duration > 0):
        raise RetinaCodecError(f"the duration must be a positive number of s; got {duration!r}")
    if "quality" not in recording.children:
        recording = measure_quality(recording, progress=progress)
    shown = choose_cells(recording, cells)
    bins = max(1, round(duration * float(recording.attrs["frame_rate"])))
    left, right = describe(recording)
    lines = max(len(left), len(right))
    heights = [1.85, 0.75 + 0.62 * len(shown), 1.5, 2.15, 0.5 + LINE_HEIGHT * lines]
    figure = new_figure(sum(heights))
    parts = figure.subfigures(5, 1, height_ratios=heights, hspace=0, squeeze=False)
    stimulus, rasters, population, trust, words = (part for (part,) in parts)
    _draw_frames(stimulus, recording, bins)
    _draw_rasters(rasters, recording, shown, bins)
    _draw_population(population, recording, bins)
    _draw_trust(trust, recording)
    _draw_words(words, left, right)
    return figure


def choose_cells(recording: xr.DataTree, cells: Sequence[object] | None) -> npt.NDArray[np.intp]:
    """Find the positions of the cells to draw.

    Parameters
    ----------
    recording : xr.DataTree
        With ``/quality``.
    cells : sequence of cell names, optional
        None chooses up to five: the best of each type in turn, by reliability where known, else by
        rate; NaN comes last.

    Returns
    -------
    array of int
        Positions along the cells, by type.

    Raises
    ------
    RetinaCodecError
        An unknown cell, or none.
    """
    test = table(recording, "test")
    names = test["cell"].values.tolist()
    types = test["type"].values.astype(str)
    if cells is not None:
        wanted = [getattr(cell, "item", lambda cell=cell: cell)() for cell in cells]
        unknown = [cell for cell in wanted if cell not in names]
        if unknown or not wanted:
            raise RetinaCodecError(
                f"cells must name at least one cell of the recording; got {wanted}. It has "
                f"{', '.join(map(str, names[:20]))}{' ...' if len(names) > 20 else ''}."
            )
        return np.array([names.index(cell) for cell in wanted], dtype=np.intp)
    quality = table(recording, "quality")
    value = quality["reliability"].values
    if not np.isfinite(value).any():
        value = quality["mean_rate"].max("split").values
    order = np.argsort(-np.nan_to_num(value, nan=-np.inf), kind="stable")
    rank = np.empty(len(order), dtype=np.intp)
    for kind in np.unique(types):
        own = order[types[order] == kind]
        rank[own] = np.arange(len(own))
    best = np.lexsort((np.argsort(order), rank))[:CELLS]
    return best[np.argsort(types[best], kind="stable")]


def _draw_frames(area: Area, recording: xr.DataTree, bins: int) -> None:
    """First frame, some later ones, and the last one of the stretch, with their times."""
    test = table(recording, "test")
    stimulus = test["stimulus"]
    bins = min(bins, stimulus.sizes["time"])
    places = np.unique(np.linspace(0, bins - 1, FRAMES).round().astype(int))
    frames = [stimulus[int(place)].values.astype(np.float64) for place in places]
    finite = [frame[np.isfinite(frame)] for frame in frames]
    low = min((float(values.min()) for values in finite if values.size), default=0.0)
    high = max((float(values.max()) for values in finite if values.size), default=1.0)
    unit = stimulus.attrs.get("units", "no unit")
    span = f"{low:.4g}" if low == high else f"{low:.4g} (black) to {high:.4g} (white)"
    size = f"{stimulus.sizes['y']} × {stimulus.sizes['x']} px"
    draw_title(area, "", f"Test stimulus: {size}, {span} {unit}")
    spec = grid(area, [1], [1] * FRAMES, left=0.6, right=0.2, top=0.52, bottom=0.1, gap_x=0.2)
    times = test["time"].values[places]
    for number, (frame, time) in enumerate(zip(frames, times, strict=True)):
        axes = area.add_subplot(spec[number])
        axes.imshow(frame, cmap="gray", vmin=low, vmax=high if high > low else low + 1)
        axes.set_title(f"{time:.2f} s", size=8, pad=3)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(True)


def _draw_rasters(
    area: Area, recording: xr.DataTree, shown: npt.NDArray[np.intp], bins: int
) -> None:
    """Spikes per bin of every presentation, one strip per cell."""
    test = table(recording, "test")
    rate = float(recording.attrs["frame_rate"])
    if "repeats" in recording["test"].children:
        values = table(recording, "test/repeats")["rate"][:ROWS, :bins, shown].values / rate
        total = recording["test/repeats"].sizes["repeat"]
        what = f"{total} presentation{'s' if total > 1 else ''}"
        what += f", the first {ROWS} drawn" if total > ROWS else ""
    else:
        values = test["spike_count"][:bins, shown].values[None].astype(np.float64)
        what = "one presentation"
    whole = np.abs(values - np.round(values))
    smooth = "kernel" in test["rate"].attrs or np.nanmax(whole, initial=0.0) > 0.01
    unit = "rate × bin, smoothed" if smooth else "spikes per bin"
    title = f"Responses to it, {what}: {unit}, black is {LARGEST_BIN} or more"
    title += ", pink: not recorded" if np.isnan(values).any() else ""
    draw_title(area, "", title)
    spec = grid(area, [1] * len(shown), [1], left=1.6, right=0.2, top=0.42, bottom=0.33, gap_y=0.08)
    start, stop = _stretch(recording, bins)
    colors = type_colors(test["type"].values)
    for row, cell in enumerate(shown):
        axes = area.add_subplot(spec[row])
        _raster(axes, values[:, :, row], (start, stop))
        name, kind = test["cell"].values[cell], str(test["type"].values[cell])
        words = f"cell {_short(name, 12)}\n{_short(kind, 16)}"
        axes.text(
            -0.012, 0.5, words, ha="right", va="center", size=8, transform=axes.transAxes,
            linespacing=1.15,
        )  # fmt: skip
        axes.spines["left"].set(color=colors[kind], linewidth=4)
        axes.set_yticks([])
        if row < len(shown) - 1:
            axes.set_xticks([])
    axes.set_xlabel("time (s)", labelpad=1)


def _raster(axes: Axes, values: npt.NDArray[np.float64], span: tuple[float, float]) -> None:
    """One strip: presentations × bins, the first presentation on top."""
    import matplotlib as mpl

    colors = mpl.colormaps["Greys"].with_extremes(bad="#f3c6c0")
    axes.imshow(
        np.ma.masked_invalid(np.sqrt(values.clip(min=0))),
        aspect="auto",
        cmap=colors,
        vmin=0,
        vmax=np.sqrt(LARGEST_BIN),
        extent=(*span, len(values), 0),
        interpolation="nearest",
    )


def _draw_population(area: Area, recording: xr.DataTree, bins: int) -> None:
    """Mean rate over cells, all and by type, in steps wide enough to be seen."""
    test = table(recording, "test")
    rate = test["rate"][:bins].values.astype(np.float64)  # (time, cell)
    types = test["type"].values.astype(str)
    step = -(-len(rate) // STEPS)
    width = step / float(recording.attrs["frame_rate"])
    words = f", in steps of {1000 * width:g} ms" if step > 1 else ""
    draw_title(area, "", f"Mean rate over the cells that were recorded (Hz){words}")
    spec = grid(area, [1], [1], left=1.6, right=0.2, top=0.42, bottom=0.4)
    axes = area.add_subplot(spec[0])
    start, stop = _stretch(recording, bins)
    edges = np.append(start + width * np.arange(-(-len(rate) // step)), stop)
    colors = type_colors(types)
    kinds = [kind for kind in colors if kind in set(types)]
    several = 1 < len(kinds) <= TYPES
    for kind in kinds if several else []:
        line = _mean(rate[:, types == kind], step)
        axes.stairs(line, edges, color=colors[kind], lw=1.0, baseline=None)
    axes.stairs(_mean(rate, step), edges, color="black", lw=1.2, baseline=None)
    axes.set_xlim(start, stop)
    axes.set_ylim(bottom=0)
    axes.locator_params(axis="y", nbins=3)
    axes.set_xlabel("time (s)", labelpad=1)
    note = "black: all cells" + (", colours: types" if several else "")
    axes.text(1, 1.02, note, ha="right", va="bottom", size=8, color=MUTED, transform=axes.transAxes)


def _draw_trust(area: Area, recording: xr.DataTree) -> None:
    """Reliability and noise ceiling per cell by type, and how many cells a type has."""
    draw_title(area, "", "How reliable the cells are")
    spec = grid(area, [1], [4.2, 1], left=0.6, right=0.3, top=0.56, bottom=0.5, gap_x=1.5)
    quality = table(recording, "quality")
    types = table(recording, "test")["type"].values.astype(str)
    colors = type_colors(types)
    order = np.argsort(types, kind="stable")
    shown = 1
    if "repeats" in recording["test"].children:
        shown = recording["test/repeats"].sizes["repeat"]
    _bars(area.add_subplot(spec[0]), quality, types, order, shown)
    kinds = [kind for kind in colors if kind in set(types)]
    counts = [int((types == kind).sum()) for kind in kinds]
    many = len(kinds) > 8
    if many:
        rest = sorted(zip(counts, kinds, strict=True), key=lambda pair: -pair[0])
        kinds = [kind for _, kind in rest[:7]] + [f"{len(kinds) - 7} more types"]
        counts = [count for count, _ in rest[:7]] + [sum(count for count, _ in rest[7:])]
    axes = area.add_subplot(spec[1])
    place = np.arange(len(kinds))
    axes.barh(place, counts, color=[colors.get(kind, MUTED) for kind in kinds], height=0.7)
    axes.set_yticks(place, [_short(kind, 16) for kind in kinds])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(kinds) - 0.4, -0.6)
    axes.set_xlim(0, 1.22 * max(counts))
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    for y, count in enumerate(counts):
        axes.text(count, y, f" {count}", va="center", size=8)
    axes.set_title("cells per type (count)", size=9)


def _bars(
    axes: Axes,
    quality: xr.Dataset,
    types: npt.NDArray[np.str_],
    order: npt.NDArray[np.intp],
    shown: int,
) -> None:
    trust = quality["reliability"].values[order]
    if not np.isfinite(trust).any():
        axes.axis("off")
        words = "not measured: needs at least two presentations of the test movie"
        if shown > 1:
            words = f"not measured: too few spikes in {shown} presentations of the test movie"
        axes.text(0, 0.6, words, transform=axes.transAxes, size=9, color=MUTED)
        return
    error = quality["reliability_error"].values[order]
    ceiling = quality["noise_ceiling"].values[order]
    position = np.arange(len(order))
    colors = type_colors(types)
    axes.bar(position, trust, width=0.75, color=[colors[types[i]] for i in order])
    known = np.isfinite(error)
    crowded = len(order) > 80
    axes.errorbar(
        position[known], trust[known], error[known], fmt="none",
        ecolor="black", elinewidth=0.5 if crowded else 0.9, capsize=0,
    )  # fmt: skip
    axes.hlines(ceiling, position - 0.42, position + 0.42, color="black", lw=1.4)
    missing = position[~np.isfinite(trust)]
    axes.plot(missing, np.full(missing.size, 0.03), "x", ms=3.5, mew=0.8, color=MUTED)
    low = min(0.0, float(np.nanmin(trust - np.nan_to_num(error))))
    axes.set_ylim(max(low, -1.0), 1.05)
    axes.set_xlim(-0.8, len(order) - 0.2)
    axes.set_yticks([0, 0.5, 1])
    axes.set_ylabel("correlation")
    step = -(-len(order) // NAMES)
    names = [
        _short(name, max(6, 110 // len(order[::step])))
        for name in quality["cell"].values[order][::step]
    ]
    axes.set_xticks(position[::step], names)
    axes.tick_params(axis="x", length=0, labelsize=7.5)
    axes.set_xlabel("cell, by type", labelpad=2)
    words = "bar: reliability ± standard error; short line: noise ceiling"
    words += "; ×: not measurable" if missing.size else ""
    axes.set_title(words, size=8, loc="left", color=MUTED)


def _draw_words(area: Area, left: list[str], right: list[str]) -> None:
    """Session and clock on the left, flags on the right."""
    draw_title(area, "", "In words")
    width, height = size_of(area)
    for x, lines in ((0.1, left), (0.52 * width, right)):
        for number, line in enumerate(lines):
            y = 1 - (0.36 + LINE_HEIGHT * number) / height
            area.text(x / width, y, line, va="top", ha="left", size=8, parse_math=False)


def _stretch(recording: xr.DataTree, bins: int) -> tuple[float, float]:
    """First and last time drawn, s."""
    time = table(recording, "test")["time"].values
    bins = min(bins, time.size)
    return float(time[0]), float(time[0]) + bins / float(recording.attrs["frame_rate"])


def _mean(rate: npt.NDArray[np.float64], step: int) -> npt.NDArray[np.float64]:
    """Mean over ``step`` bins of the cells that were recorded; NaN where there are none."""
    starts = np.arange(0, len(rate), step)
    total = np.add.reduceat(np.nansum(rate, axis=1), starts)
    known = np.add.reduceat(np.isfinite(rate).sum(axis=1), starts)
    mean = np.full(len(starts), np.nan)
    np.divide(total, known, out=mean, where=known > 0)
    return mean


def _short(name: object, longest: int) -> str:
    text = str(name)
    return text if len(text) <= longest else text[: longest - 1] + "…"
