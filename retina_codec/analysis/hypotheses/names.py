"""Which interneuron a statement is about, and how sure that is.

Why this file exists: a statement names channels; an experiment silences neurons. Resemblance is
measured in interneuron_matching.py; here it is turned into one name per row, with the second best
beside it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from retina_codec.analysis.hypotheses.interneurons import match_interneurons
from retina_codec.analysis.hypotheses.silencing import Silencing
from retina_codec.analysis.hypotheses.statements import Statement
from retina_codec.networks.retina.model import RetinaCNN

__all__ = ["find_matches", "match_of_rows", "name_statement"]


def find_matches(
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


def name_statement(
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


def match_of_rows(
    silencings: Sequence[Silencing],
    named: Sequence[dict[str, Any]],
    matches: xr.Dataset | None,
    *,
    whole: bool,
) -> npt.NDArray[np.floating]:
    """Resemblance between what each row cuts and the interneuron it names.

    Parameters
    ----------
    silencings : sequence of Silencing
    named : sequence of dict
        From `name_statement`.
    matches : xr.Dataset, optional
        From `match_interneurons`.
    whole : bool
        Whether silencings cut every channel of the interneuron: then the largest r of those cut,
        else the match of the statement.

    Returns
    -------
    array (row,)
        r; 1 without matches, 0 where no interneuron is named.
    """
    found = []
    for cut, row in zip(silencings, named, strict=True):
        kind = row["interneuron"]
        value = 1.0 if matches is None else 0.0
        if kind and matches is not None:
            labels = [f"{cut.layer}/{channel}" for channel in cut.channels]
            r = matches["type_correlation"].sel(channel=labels, interneuron_type=kind).values
            value = float(np.nanmax(r)) if whole else float(row["match"])
        found.append(value)
    return np.array(found)
