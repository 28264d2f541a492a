"""Panel B of Figure 8: rates, contributions, modes and fields over a few seconds."""

import numpy as np
import numpy.typing as npt
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec

from retina_codec.errors import RetinaCodecError
from retina_codec.figures import base
from retina_codec.figures.retina.fields import crop_around, draw_field
from retina_codec.figures.style import (
    LOADING,
    MUTED,
    RATE,
    SIGNED,
    Area,
    cell_groups,
    cell_order,
    color_bar,
    draw_title,
    grid,
    high_quantile,
    layer_name,
    new_figure,
    positive_root,
    signed_root,
    size_of,
    styled,
    target_name,
    type_colors,
    type_strip,
    units_of,
)
from retina_codec.storage.results import layers_of, table

__all__ = ["Contributions", "draw_contributions", "liveliest_window", "plot_contributions"]

SHOWN = 4.0  # s, when no window is asked for
LABEL_GAP = 0.44  # inches between a row and what it is called
THUMBNAILS = 8  # receptive fields under the time axis


class Contributions(base.Figure):
    """A stretch of time, from rates through contributions to modes."""

    name = "contribution_heat_maps"
    title = (
        "Rates, surprisal, contributions of two layers and mode loadings over four seconds, with "
        "receptive fields"
    )
    section = "contributions"
    look_for = "modes (purple) that switch on where several channels (red and blue) act together."
    caption = (
        "The stretch with most of the events chosen for receptive fields. Rates of all cells "
        "stand in the order of their pathways, the strip gives their type (their pathway, where no "
        "type is known). Colours grow with the square root of the value and saturate at the "
        "99.5th percentile of the stretch, so that weak contributions stay visible. Modes stand in "
        "the order of the summed contributions that they rebuild in the fitted part, largest "
        "first. Dotted lines: the numbered moments "
        "whose receptive fields are shown below."
    )

    def draw(self, results: xr.DataTree) -> Figure:
        """Draw `plot_contributions`."""
        return plot_contributions(results)


@styled
def plot_contributions(
    results: xr.DataTree, start: float | None = None, stop: float | None = None
) -> Figure:
    """Draw rates, target, contributions and mode loadings over one stretch of time.

    Parameters
    ----------
    results : xr.DataTree
        Results of ``analyze``.
    start, stop : float, optional
        s on the session clock; the 4 s with most receptive-field events when left out.

    Returns
    -------
    matplotlib.figure.Figure
        From the top: rate of one cell, recorded and predicted (Hz); predicted rates of all cells
        by pathway (Hz); target (nats); per explained layer (the first two) contributions by
        channel and sign (nats) and loadings by mode (nats); receptive fields of the cell at the
        numbered times.

    Raises
    ------
    RetinaCodecError
        If the window holds fewer than two response times.
    """
    figure = new_figure(8.4)
    draw_contributions(figure, results, start, stop)
    return figure


def liveliest_window(results: xr.DataTree, length: float = SHOWN) -> tuple[float, float]:
    """Return the window (s) that holds most receptive-field events; the earliest of equals."""
    time = table(results, "responses")["time"].values
    first, last = float(time[0]), float(time[-1])
    if last - first <= length:
        return first, last
    if "receptive_fields" not in results.children:
        center = float(time[int(table(results, "responses")["target"].values.argmax())])
        start = min(max(first, center - length / 2), last - length)
        return start, start + length
    events = np.sort(table(results, "receptive_fields")["time"].values)
    count = [int(((events >= e) & (events <= e + length - 0.4)).sum()) for e in events]
    start = min(max(first, float(events[int(np.argmax(count))]) - 0.2), last - length)
    return start, start + length


def draw_contributions(
    area: Area,
    results: xr.DataTree,
    start: float | None = None,
    stop: float | None = None,
    letter: str = "",
) -> None:
    """Draw panel B into a figure or a part of one."""
    usual = liveliest_window(results)
    begin, end = usual[0] if start is None else start, usual[1] if stop is None else stop
    if start is not None and stop is None:
        end = begin + SHOWN
    responses = table(results, "responses")
    inside = (responses["time"].values >= begin - 1e-9) & (responses["time"].values <= end + 1e-9)
    if inside.sum() < 2:
        raise RetinaCodecError(
            "the window must hold at least two response times; got "
            f"{begin:g} to {end:g} s, the results span {float(responses['time'][0]):g} to "
            f"{float(responses['time'][-1]):g} s."
        )
    draw_title(area, letter, "From rates to contributions to modes")
    shown = responses.isel(time=inside)
    layers = layers_of(results, part="modes")[:2]
    events, cell = _events_inside(results, begin, end)
    heights = [0.85, 1.0, 0.5, *([1.15, 0.85] * len(layers))]
    has_events = len(events) > 0
    spec = grid(
        area,
        heights,
        [0.11, 9.2, 0.12],
        left=1.35,
        right=0.75,
        top=0.55,
        bottom=1.62 if has_events else 0.5,
        gap_y=0.13,
        gap_x=0.07,
    )
    step = float(np.median(np.diff(shown["time"].values)))
    span = (float(shown["time"][0]), float(shown["time"][-1]) + step)

    traces = area.add_subplot(spec[0, 1])
    _cell_trace(traces, shown, cell, cell_groups(results).values)
    rows = [traces, _population(area, spec, shown, results, span)]
    target = area.add_subplot(spec[2, 1])
    target.plot(shown["time"], shown["target"], color="#5b3f8c", lw=1.0)
    _side_label(target, f"{target_name(results)}\n({units_of(shown['target'])})")
    rows.append(target)
    for number, name in enumerate(layers):
        layer, modes = (table(results, f"layers/{name}{end}") for end in ("", "/modes"))
        rows.append(
            _contributions(area, spec, 3 + 2 * number, layer["contribution"], inside, span, name)
        )
        rows.append(_loadings(area, spec, 4 + 2 * number, modes["loading"], inside, span))
    for axes in rows:
        axes.set_xlim(*span)
        axes.tick_params(labelbottom=axes is rows[-1])
    rows[-1].set_xlabel("time (s)", labelpad=1)
    if has_events:
        _numbered_fields(area, results, rows, events, cell, span)


def _events_inside(
    results: xr.DataTree, begin: float, end: float
) -> tuple[npt.NDArray[np.intp], int]:
    """Return the events in the window (at most `THUMBNAILS`) and the cell that answers most."""
    if "receptive_fields" not in results.children:
        return np.empty(0, dtype=np.intp), int(
            table(results, "responses")["prediction"].mean("time").values.argmax()
        )
    fields = table(results, "receptive_fields")
    time = fields["time"].values
    found = np.flatnonzero((time >= begin) & (time <= end))
    found = found[np.argsort(time[found])]
    found = found[np.concatenate([[True], np.diff(time[found]) > 1e-9])] if len(found) else found
    if len(found) > THUMBNAILS:
        found = found[np.linspace(0, len(found) - 1, THUMBNAILS).round().astype(int)]
    here = fields.isel(event=found) if len(found) else fields
    score = here["responding"].sum("event") + here["prediction"].mean("event") / 1e4
    return found, int(score.values.argmax())


def _cell_trace(axes: Axes, shown: xr.Dataset, cell: int, groups: npt.NDArray[np.str_]) -> None:
    """Draw recorded and predicted rate of one cell, Hz."""
    one = shown.isel(cell=cell)
    color = type_colors(groups)[groups[cell]]
    if "rate" in one:
        axes.fill_between(
            one["time"], one["rate"], step="post", color="#cfd4da", lw=0, label="recorded"
        )
    axes.plot(one["time"], one["prediction"], color=color, lw=1.3, label="predicted")
    axes.set_ylim(0, 1.3 * axes.get_ylim()[1])
    _side_label(axes, f"cell {one['cell'].item()}\n{groups[cell]}\nrate (Hz)")
    axes.legend(
        loc="upper right",
        ncols=2,
        borderpad=0.1,
        borderaxespad=0.1,
        handlelength=1.4,
        frameon=True,  # the lines of the numbered moments pass behind it
        framealpha=1.0,
        facecolor="white",
        edgecolor="none",
    )


def _population(
    area: Area,
    spec: GridSpec,
    shown: xr.Dataset,
    results: xr.DataTree,
    span: tuple[float, float],
) -> Axes:
    """Draw predicted rates of all cells, ordered by pathway, Hz."""
    layers = [
        name for name in layers_of(results) if "pathways" in results[f"layers/{name}"].children
    ]
    order = cell_order(results, layers[0]) if layers else np.arange(shown.sizes["cell"])
    ordered = shown.isel(cell=order)
    axes = area.add_subplot(spec[1, 1])
    values = ordered["prediction"].transpose("cell", "time").values
    limit = high_quantile(values)
    image = axes.imshow(
        values,
        aspect="auto",
        cmap=RATE,
        norm=positive_root(limit),
        extent=(*span, len(order) - 0.5, -0.5),
    )
    axes.set_yticks([])
    _side_label(axes, f"all {len(order)} cells\nby pathway")
    strip = area.add_subplot(spec[1, 0])
    type_strip(strip, cell_groups(results).values[order], vertical=True)
    color_bar(area, area.add_subplot(spec[1, 2]), image, "Hz", [0, limit / 4, limit])
    return axes


def _side_label(axes: Axes, words: str) -> None:
    """Write what a row shows to its left, all rows in line."""
    inches = axes.get_window_extent().width / axes.figure.dpi
    place = (-LABEL_GAP / inches, 0.5)
    axes.text(*place, words, transform=axes.transAxes, ha="right", va="center", size=9)


def _contributions(
    area: Area,
    spec: GridSpec,
    row: int,
    contribution: xr.DataArray,
    inside: npt.NDArray[np.bool_],
    span: tuple[float, float],
    name: str,
) -> Axes:
    """Draw contributions of a layer: excitatory channels above, inhibitory below, nats."""
    values = contribution.transpose("sign", "channel", "time").values[:, :, inside]
    signs = [str(sign) for sign in contribution["sign"].values]
    stacked = np.concatenate([values[signs.index("excitatory")], values[signs.index("inhibitory")]])
    channels = contribution.sizes["channel"]
    limit = high_quantile(stacked)
    axes = area.add_subplot(spec[row, 1])
    image = axes.imshow(
        stacked,
        aspect="auto",
        cmap=SIGNED,
        norm=signed_root(limit),
        extent=(*span, 2 * channels - 0.5, -0.5),
    )
    axes.axhline(channels - 0.5, color=MUTED, lw=0.6)
    axes.set_yticks([channels / 2 - 0.5, 1.5 * channels - 0.5], ["exc.", "inh."])
    axes.tick_params(axis="y", length=0)
    _side_label(axes, f"{layer_name(name)}\ncontribution\nof {channels} channels")
    ticks = [-limit, -limit / 4, 0, limit / 4, limit]
    color_bar(area, area.add_subplot(spec[row, 2]), image, units_of(contribution), ticks)
    return axes


def _loadings(
    area: Area,
    spec: GridSpec,
    row: int,
    loading: xr.DataArray,
    inside: npt.NDArray[np.bool_],
    span: tuple[float, float],
) -> Axes:
    """Draw loadings of a layer's modes, in the order of the modes, nats."""
    values = loading.transpose("mode", "time").values[:, inside]
    limit = high_quantile(values)
    axes = area.add_subplot(spec[row, 1])
    image = axes.imshow(
        values,
        aspect="auto",
        cmap=LOADING,
        norm=positive_root(limit),
        extent=(*span, len(values) - 0.5, -0.5),
    )
    last = len(values) - 1
    axes.set_yticks(
        [0, last] if last else [0],
        [str(loading["mode"].values[i]) for i in (0, last)][: 1 + bool(last)],
    )
    axes.tick_params(axis="y", length=0)
    _side_label(axes, f"loading of\n{len(values)} modes")
    color_bar(area, area.add_subplot(spec[row, 2]), image, units_of(loading), [0, limit / 4, limit])
    return axes


def _numbered_fields(
    area: Area,
    results: xr.DataTree,
    rows: list[Axes],
    events: npt.NDArray[np.intp],
    cell: int,
    span: tuple[float, float],
) -> None:
    """Mark the events through all rows and draw the cell's field at each below."""
    fields = table(results, "receptive_fields").isel(event=events, cell=cell)
    spatial = fields["spatial"].values
    window = crop_around(np.abs(spatial).mean(axis=0))
    times = fields["time"].values
    gap = 0.02 * (span[1] - span[0])
    place = times.copy()
    for i in range(1, len(place)):  # numbers of close events move apart
        place[i] = max(place[i], place[i - 1] + gap)
    for number, (time, at) in enumerate(zip(times, place, strict=True), start=1):
        for axes in rows:
            axes.axvline(time, color="black", lw=0.6, ls=(0, (2, 2)), alpha=0.7)
        rows[0].text(
            at,
            1.04,
            str(number),
            transform=rows[0].get_xaxis_transform(),
            ha="center",
            size=8.5,
            weight="bold",
        )
    spec = grid(
        area,
        [1],
        [1] * THUMBNAILS,
        left=1.53,
        right=0.94,
        top=0.0,
        bottom=0.12,
        gap_x=0.22,
    )
    width, height = size_of(area)
    for number in range(len(events)):
        column = spec[number].get_position(area)  # type: ignore[arg-type]  # as in style.grid
        axes = area.add_axes((column.x0, column.y0, column.width, 0.85 / height))
        one = fields.isel(event=number)
        draw_field(axes, spatial[number][window])
        if not bool(one["responding"]):
            axes.set_facecolor("#eef0f2")
        modes = str(one["combination"].item())
        word = "" if len(modes) > 3 else "modes " if "+" in modes else "mode "
        axes.set_title(f"$\\bf{{{number + 1}}}$  {word}{modes}", size=8, pad=3)
    area.text(
        1.35 / width,
        (0.12 + 0.42) / height,
        f"receptive field\nof cell {fields['cell'].item()},\nby active modes\nof "
        f"{layer_name(str(results['receptive_fields'].attrs.get('layer', '')))}",
        ha="right",
        va="center",
        size=8.5,
    )
