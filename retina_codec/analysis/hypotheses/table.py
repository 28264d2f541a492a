"""Label hypotheses, describe them in sentences and write them as CSV or JSON."""

import csv
import json
import math
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from retina_codec.analysis.hypotheses.claims import ClaimedCells
from retina_codec.analysis.hypotheses.effects import EventEffects
from retina_codec.errors import RetinaCodecError
from retina_codec.storage.trees import local_path

__all__ = ["cells_of", "describe", "hypotheses_to_table", "make_table"]

Floats = npt.NDArray[np.float64]

FEW_BLOCKS = "not enough blocks of time"

KERNEL = ("polarity", "peak_lag", "biphasic_index", "width")

HERTZ = (
    *("event_rate", "change", "change_low", "change_high", "change_elsewhere"),
    *("contrast", "contrast_low", "contrast_high", "match_error"),
)

SECONDS = ("event_time", "segment_start", "segment_duration", "peak_lag")

UNITS = {
    **dict.fromkeys(HERTZ, "Hz"),
    **dict.fromkeys(SECONDS, "s"),
    **dict.fromkeys(("width", "place_y", "place_x"), "px"),
    **dict.fromkeys(("event_detectability", "elsewhere_detectability"), "1/s"),
    "information": "nats",
}


def cells_of(effects: EventEffects, claimed: ClaimedCells) -> dict[str, npt.NDArray[Any]]:
    """Collect the variables of each cell, (hypothesis, cell)."""
    return {
        "event_rate": effects.rate,
        "change": effects.change,
        "change_low": effects.low,
        "change_high": effects.high,
        "change_elsewhere": effects.elsewhere,
        "contrast": effects.contrast,
        "contrast_low": effects.contrast_low,
        "contrast_high": effects.contrast_high,
        "affected": claimed.affected,
        "undecided": claimed.undecided,
        "timed": claimed.timed,
    }


def make_table(
    rows: Mapping[str, Any],
    cells: Mapping[str, npt.NDArray[Any]],
    events: tuple[Floats, Floats],
    shown: xr.DataArray,
    rate: xr.DataArray,
    attrs: Mapping[str, Any],
) -> xr.Dataset:
    """Label the variables of hypotheses: rows (hypothesis,) and cells (hypothesis, cell).

    ``events`` are start and stop (hypothesis, event) in s, ``shown`` d² (hypothesis, stimulus) of
    simple stimuli, ``rate`` (cell) the predicted mean over the split in Hz.
    """
    start, stop = events
    return xr.Dataset(
        {
            **{k: ("hypothesis", v, _attrs(k)) for k, v in rows.items()},
            **{k: (("hypothesis", "cell"), v, _attrs(k)) for k, v in cells.items()},
            "event_start": (("hypothesis", "event"), start, {"units": "s"}),
            "event_stop": (("hypothesis", "event"), stop, {"units": "s"}),
            "stimulus_detectability": (("hypothesis", "stimulus"), shown.values, {"units": "1"}),
            "rate": ("cell", rate.values, {"units": "Hz", "long_name": "predicted mean rate"}),
        },
        coords={
            "hypothesis": np.arange(len(start)),
            "cell": rate["cell"],
            "type": rate["type"],
            "stimulus": shown["stimulus"],
        },
        attrs=dict(attrs),
    )


def _attrs(name: str) -> dict[str, str]:
    return {"units": UNITS[name]} if name in UNITS else {}


def describe(hypotheses: xr.Dataset) -> list[str]:
    """Describe every row of `hypothesize` in one or two sentences."""
    return [_sentence(hypotheses.isel(hypothesis=i)) for i in range(hypotheses.sizes["hypothesis"])]


def _sentence(row: xr.Dataset) -> str:
    name = str(row["interneuron"].values)
    channels = f"{row['layer'].item()} channels {row['channels'].item()}"
    if name:
        who = f"Silencing {name}s ({channels}, {row['polarity'].item()}, r = {row['match']:.2f})"
    else:
        who = f"Silencing the neurons that are like {channels} ({row['polarity'].item()})"
    change, affected = row["change"].values, row["affected"].values.astype(bool)
    then = _when(row)
    who += then
    parts = []
    for word, chosen in (("lowers", change < 0), ("raises", change > 0)):
        cells = row["cell"].values[affected & chosen]
        if cells.size:
            mean = abs(float(change[affected & chosen].mean()))
            noun = "cell" if cells.size == 1 else "cells"
            text = f"{word} the rate of {noun} {_list(cells)} by {mean:.1f} Hz on average"
            elsewhere = np.nan
            if then:
                elsewhere = float(row["change_elsewhere"].values[affected & chosen].mean())
            if np.isfinite(elsewhere):
                text += f" ({elsewhere:+.1f} Hz elsewhere)"
            parts.append(text)
    unsure = row["undecided"].values.astype(bool) if "undecided" in row else affected & False
    rest = row["cell"].values[~affected & ~unsure]
    open_end = f"; {_list(row['cell'].values[unsure])} cannot be decided" if unsure.any() else ""
    if not parts:
        least = f"{row.attrs['threshold']:.0%} of its rate"
        why = f" ({FEW_BLOCKS} for intervals)" if not _intervals(row).any() else ""
        return f"{who} changes no cell surely by more than {least}{open_end}{why}."
    end = f"; it leaves {_list(rest)} alone" if rest.size else ""
    return f"{who} {' and '.join(parts)}{end}{open_end}."


def _intervals(row: xr.Dataset) -> npt.NDArray[np.bool_]:
    """Find the cells (cell,) whose change has an interval."""
    both = np.isfinite(row["change_low"].values) & np.isfinite(row["change_high"].values)
    return np.asarray(both)


def _when(row: xr.Dataset) -> str:
    """Name the events of a row; "" for rows about all times."""
    if row.attrs.get("when") != "active":
        return ""
    return f" in the events of {row['event_source'].item()} ({row['event_time'].item():.1f} s)"


def _list(cells: Any) -> str:
    return ", ".join(str(cell) for cell in cells)


def hypotheses_to_table(
    hypotheses: xr.Dataset, path: str | os.PathLike[str] | None = None
) -> list[dict[str, Any]]:
    """Turn hypotheses into one dict per row, and write them as CSV or JSON.

    Parameters
    ----------
    hypotheses : xr.Dataset
        From `hypothesize`.
    path : path, optional
        Ends in ".csv" or ".json"; an existing file is replaced only once the new one is whole.

    Returns
    -------
    list of dict
        In order of rank: numbers and texts by the names of the dataset; ``cells`` with ``cell``,
        ``type``, ``rate``, ``change``, ``change_low``, ``change_high`` (Hz), ``affected`` and
        ``cell_repeats`` each; ``stimuli`` with d² by name. None stands for NaN and for infinity,
        which JSON does not have; ``undefined`` says in words which numbers are missing, and why. In
        CSV one line per hypothesis, with empty cells for None, and with ``affected_cells`` and
        ``changes`` as text in place of the nested ones.

    Raises
    ------
    RetinaCodecError
        If the path has another ending.
    """
    rows = [_row(hypotheses.isel(hypothesis=i)) for i in range(hypotheses.sizes["hypothesis"])]
    if path is None:
        return rows
    place = local_path(path)
    if place.suffix not in (".csv", ".json"):
        raise RetinaCodecError(
            f"a table of hypotheses is written to .csv or .json; got {place.name!r}."
        )
    beside = place.with_name(f".{place.name}.part")
    try:
        with beside.open("w", encoding="utf-8", newline="") as file:
            if place.suffix == ".json":
                json.dump(rows, file, ensure_ascii=False, indent=1, allow_nan=False)
            else:
                flat = [_flat(row) for row in rows]
                writer = csv.DictWriter(file, list(flat[0]) if flat else [])
                writer.writeheader()
                writer.writerows(flat)
        beside.replace(place)
    finally:
        beside.unlink(missing_ok=True)
    return rows


def _row(row: xr.Dataset) -> dict[str, Any]:
    plain = {"rank": int(row["hypothesis"]) + 1, "statement": row["statement"].item()}
    plain |= {
        str(name): _plain(values.item())
        for name, values in row.data_vars.items()
        if values.ndim == 0 and name != "statement"
    }
    plain["undefined"] = _undefined(row)
    names = ("rate", "change", "change_low", "change_high", "affected", "cell_repeats")
    plain["cells"] = [
        {
            "cell": _plain(row["cell"].values[i]),
            "type": str(row["type"].values[i]),
            **{name: _plain(row[name].values[i]) for name in names},
        }
        for i in range(row.sizes["cell"])
    ]
    plain["stimuli"] = {
        str(name): _plain(value)
        for name, value in zip(
            row["stimulus"].values, row["stimulus_detectability"].values, strict=True
        )
    }
    return plain


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    cells = row["cells"]
    flat = {key: value for key, value in row.items() if key not in ("cells", "stimuli")}
    flat["affected_cells"] = _list(cell["cell"] for cell in cells if cell["affected"])
    flat["changes"] = "; ".join(_change(cell) for cell in cells)
    return flat


def _change(cell: Mapping[str, Any]) -> str:
    """Write the change of one cell with its interval: "a: -3 (-4 to 4) Hz"."""
    change, low, high = (cell[name] for name in ("change", "change_low", "change_high"))
    if change is None:
        return f"{cell['cell']}: not known"
    if low is None or high is None:
        return f"{cell['cell']}: {change:.3g} Hz (no interval: {FEW_BLOCKS})"
    return f"{cell['cell']}: {change:.3g} ({low:.3g} to {high:.3g}) Hz"


def _undefined(row: xr.Dataset) -> str:
    """Say which numbers of a hypothesis are missing and why: "change_low: ...; match: ..."."""
    found: dict[str, list[str]] = {}
    for name, values in row.data_vars.items():
        if not np.issubdtype(values.dtype, np.floating) or "event" in values.dims:
            continue
        some = values.values[~np.isfinite(values.values)]
        if some.size:
            found.setdefault(_reason(str(name), some), []).append(str(name))
    return "; ".join(f"{', '.join(names)}: {why}" for why, names in found.items())


def _reason(name: str, missing: Floats) -> str:
    if name.endswith("_repeats"):
        return "no number is enough, nothing changes" if np.isinf(missing).any() else "not known"
    if name.endswith(("_low", "_high")) or name == "information":
        return FEW_BLOCKS
    if "match" in name or name.startswith("place_"):
        return "no interneuron"
    return "not known"


def _plain(value: Any) -> Any:
    """Python's own value, None for a number that JSON does not have."""
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and not math.isfinite(value) else value
