"""Match a network's hidden channels with recorded interneurons, against a null.

Notation: T windows, u units (channel × row × column), k interneurons, s shifts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr

from retina_codec.analysis.hypotheses.candidates import Candidate
from retina_codec.errors import RetinaCodecError
from retina_codec.networks.borrowed import borrow, reference_parameter
from retina_codec.networks.retina.model import RetinaCNN
from retina_codec.networks.retina.prediction import open_windows, steps_through
from retina_codec.probing.interventions import Silencing
from retina_codec.probing.retina.hidden import LAYERS, HiddenLayers

__all__ = [
    "find_matches",
    "match_interneurons",
    "match_of_rows",
    "name_channels",
    "name_interneuron",
]

Floats = npt.NDArray[np.float64]

FEWEST_BINS = 50


def match_interneurons(
    network: RetinaCNN,
    split: xr.Dataset | xr.DataTree,
    interneurons: xr.Dataset | xr.DataTree,
    *,
    shifts: int = 24,
    largest_shift: float = 0.25,
    batch_size: int = 128,
    device: str | torch.device | None = None,
    progress: bool | None = None,
) -> xr.Dataset:
    """Correlate every hidden channel with every interneuron's potential, at the best place.

    ``r[c, k] = max over places of Pearson r over time (activation[c, place], potential[k])``,
    with the activation before the rectifier, so that hyperpolarisation counts as well. A channel
    of the opposite polarity has a negative r and does not match.

    Null: the linear shift. Potentials are moved by ``shifts`` equal steps to either side, up to
    ``largest_shift`` (in (0, 0.5)) of the recording, against the same activations (the middle of
    the recording), and the best place is chosen again for each shift: ``p = min(1, m / (shifts +
    1))``, m the number of shifts, 0 included, whose r reaches that of shift 0. This p is valid if
    either series is stationary, however slow. A match is no identity: neurons with the same input
    have the same potential.

    ``interneurons`` holds ``potential`` (time, interneuron), finite, any unit, on the clock of the
    ``split`` with the stimulus that they saw (matched to a quarter of a bin), and ``type``.

    Returns
    -------
    xr.Dataset
        Along ``channel`` ("conv1/0", with ``layer`` and ``number``) and ``interneuron``:
        ``correlation``, ``p_value``, ``null_mean`` (of the shifts), ``place_y`` and ``place_x``
        (px, centre of the best unit's field). Along ``channel`` and ``interneuron_type``:
        ``type_correlation``, the mean over the interneurons of a type, and ``type_p_value``. NaN
        for a channel whose units never change.

    References
    ----------
    Maheswaranathan et al. 2023, Neuron 111:2742 (best unit per channel). Harris 2020,
    doi:10.1101/2020.11.29.402719 (linear shift).
    """
    if shifts < 1 or not 0 < largest_shift < 0.5:
        raise RetinaCodecError(
            "shifts must be at least 1 and largest_shift between 0 and 0.5; "
            f"got {shifts=}, {largest_shift=}."
        )
    _, windows = open_windows(network, split)
    time = windows.time.values
    potential, names, types = _potentials(interneurons, time, 1 / network.frame_rate)
    reach = int(largest_shift * len(time))
    if reach < shifts or len(time) - 2 * reach < FEWEST_BINS:
        raise RetinaCodecError(
            f"the null needs {shifts} different shifts and {FEWEST_BINS} bins between them; got "
            f"{len(time)} bins. Use fewer shifts or a longer recording."
        )
    offsets = np.round(np.linspace(-reach, reach, 2 * shifts + 1)).astype(int)
    middle = np.arange(reach, len(time) - reach)
    columns = potential[middle[:, None] + offsets].reshape(len(middle), -1)  # (T, s · k)
    columns -= columns.mean(axis=0)
    spread = columns.std(axis=0)
    if (spread == 0).any():
        still = sorted({names[column % len(names)] for column in np.flatnonzero(spread == 0)})
        raise RetinaCodecError(f"potentials must vary in time; those of {still} do not.")
    shifted = torch.from_numpy((columns / spread).astype(np.float32))
    sums = {name: _Sums() for name in LAYERS}
    with borrow(network, device) as module, torch.no_grad():
        layers, shifted = HiddenLayers(module), shifted.to(reference_parameter(module).device)
        for part, batch in steps_through(windows, module, batch_size, "interneurons", progress):
            start, stop = max(part.start, reach), min(part.stop, reach + len(middle))
            if stop <= start:
                continue
            kept = batch[start - part.start : stop - part.start]
            first = layers.first(kept)
            second = layers.second(torch.relu(first))
            for name, values in zip(LAYERS, (first, second), strict=True):
                sums[name].add(values, shifted[start - reach : stop - reach])
    return _table(network, sums, names, types, offsets)


def name_channels(matches: xr.Dataset, significance: float = 0.05) -> dict[str, str]:
    """Name the type of interneuron that each channel resembles most, by channel.

    "" where the best type has r ≤ 0, a p above ``significance``, or there is no r.
    """
    kinds = matches["interneuron_type"].values
    named = {}
    for channel in matches["channel"].values:
        row = matches.sel(channel=channel)
        score = row["type_correlation"].values
        named[str(channel)] = ""
        if np.isfinite(score).any():
            best = int(np.nanargmax(score))
            if score[best] > 0 and row["type_p_value"].values[best] <= significance:
                named[str(channel)] = str(kinds[best])
    return named


@dataclass
class _Sums:
    """Running sums from which the correlations of all units of a layer follow."""

    number: int = 0
    shape: tuple[int, ...] = ()
    total: Any = 0.0
    square: Any = 0.0
    product: Any = 0.0

    def add(self, values: torch.Tensor, columns: torch.Tensor) -> None:
        """Add a batch: values (b, c, y, x), columns (b, s · k)."""
        self.number += len(values)
        self.shape = tuple(values.shape[1:])
        flat = values.flatten(1).float()  # (b, u)
        self.total = self.total + flat.double().sum(0)
        self.square = self.square + flat.double().square().sum(0)
        self.product = self.product + flat.T @ columns  # (u, s · k)

    def correlation(self, interneurons: int) -> tuple[Floats, npt.NDArray[np.integer]]:
        """Best over places, (c, s, k), and the best unit's place in the flattened map."""
        mean = self.total / self.number
        variance = (self.square / self.number - mean.square()).clamp_min(0)
        constant = variance <= 1e-10 * (self.square / self.number)
        scale = torch.where(constant, torch.nan, variance.sqrt() * self.number)
        r = (self.product.double() / scale[:, None]).cpu().numpy()
        r = r.reshape(self.shape[0], self.shape[1] * self.shape[2], -1, interneurons)
        filled = np.where(np.isnan(r), -np.inf, r)
        best = filled.max(axis=1)
        return np.where(np.isinf(best), np.nan, best), filled.argmax(axis=1)


def _table(
    network: RetinaCNN,
    sums: dict[str, _Sums],
    names: list[str],
    types: list[str],
    offsets: npt.NDArray[np.integer],
) -> xr.Dataset:
    """Label the correlations of both layers."""
    kinds = sorted(set(types))
    of_kind = [[t == kind for t in types] for kind in kinds]
    layers, margin = {}, 0
    for layer, size in zip(LAYERS, network.kernel_sizes, strict=False):
        margin += size // 2
        layers[layer] = _of_layer(sums[layer], len(names), of_kind, margin)
    channels = [(layer, n) for layer, one in layers.items() for n in range(len(one["place_y"]))]
    return xr.Dataset(
        {
            name: (
                ("channel", "interneuron_type" if name.startswith("type_") else "interneuron"),
                np.concatenate([one[name] for one in layers.values()]),
                {"units": "px" if name.startswith("place_") else "1"},
            )
            for name in layers[LAYERS[0]]
        },
        coords={
            "channel": [f"{layer}/{number}" for layer, number in channels],
            "layer": ("channel", [layer for layer, _ in channels]),
            "number": ("channel", [number for _, number in channels]),
            "interneuron": names,
            "type": ("interneuron", types),
            "interneuron_type": kinds,
        },
        attrs={
            "method": "Pearson r at the best place; linear shift null with the same choice",
            "shifts": len(offsets) // 2,
            "largest_shift": float(offsets[-1] / network.frame_rate),
        },
    )


def _of_layer(sums: _Sums, count: int, of_kind: list[list[bool]], margin: int) -> dict[str, Floats]:
    """Correlations, p-values and places of one layer; ``margin`` px from frame to map."""
    best, place = sums.correlation(count)  # (c, s, k)
    middle = best.shape[1] // 2
    of_type = np.stack([best[:, :, own].mean(axis=2) for own in of_kind], axis=2)
    row, column = np.divmod(place[:, middle], sums.shape[2])
    silent = np.isnan(best[:, middle])
    return {
        "correlation": best[:, middle],
        "p_value": _p_value(best),
        "null_mean": np.delete(best, middle, axis=1).mean(axis=1),
        "place_y": np.where(silent, np.nan, row + margin),
        "place_x": np.where(silent, np.nan, column + margin),
        "type_correlation": of_type[:, middle],
        "type_p_value": _p_value(of_type),
    }


def _p_value(best: Floats) -> Floats:
    """Return p per channel and column from correlations (c, s, column), shift 0 in the middle."""
    middle = best.shape[1] // 2
    reached = (best >= best[:, middle : middle + 1]).sum(axis=1)
    p = np.minimum(1.0, reached / (middle + 1))
    return np.where(np.isnan(best[:, middle]), np.nan, p)


def _potentials(
    interneurons: xr.Dataset | xr.DataTree, time: Floats, step: float
) -> tuple[Floats, list[str], list[str]]:
    """Return potentials at these times (s), (T, k), names and types."""
    data = interneurons.to_dataset() if isinstance(interneurons, xr.DataTree) else interneurons
    if "potential" not in data or set(data["potential"].dims) != {"time", "interneuron"}:
        raise RetinaCodecError(
            "interneurons must hold potential (time, interneuron); it holds "
            f"{list(data.data_vars) or 'nothing'}. Pass recording['interneurons']."
        )
    values = data["potential"].transpose("time", "interneuron")
    clock = values["time"].values
    nearest = np.clip(np.searchsorted(clock, time - step / 2), 0, len(clock) - 1)
    missing = np.abs(clock[nearest] - time) > step / 4
    if missing.any():
        raise RetinaCodecError(
            f"potentials must cover the times of the split; {int(missing.sum())} of {len(time)} "
            f"bins have none (first at {time[missing][0]:.6g} s). Cut the split to common times."
        )
    potential = values.values[nearest].astype(np.float64)
    names = [str(name) for name in values["interneuron"].values]
    finite = np.isfinite(potential).all(axis=0)
    if not finite.all():
        raise RetinaCodecError(
            "potentials must be finite; those of "
            f"{[names[k] for k in np.flatnonzero(~finite)]} are not. Leave them out."
        )
    types = data["type"].values if "type" in data.coords else ["unknown"] * len(names)
    kinds = [
        name if str(kind) == "unknown" else str(kind)
        for name, kind in zip(names, types, strict=True)
    ]
    return potential, names, kinds


def find_matches(
    network: RetinaCNN,
    recording: xr.DataTree,
    part: xr.DataTree,
    interneurons: xr.Dataset | xr.DataTree | None,
    shifts: int,
    device: str | None,
    progress: bool | None,
) -> xr.Dataset | None:
    """Match channels with interneurons, if any were recorded with this split."""
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
    """Say whether potentials were recorded while this split was shown."""
    clock, time = data["time"].values, part["time"].values
    return bool(clock[0] <= time[0] + 1e-6 and clock[-1] >= time[-1] - 1e-6)


def name_interneuron(
    candidate: Candidate, matches: xr.Dataset | None, significance: float
) -> dict[str, Any]:
    """Name the interneuron that the channels of a candidate resemble."""
    numbers = ("match", "match_p_value", "second_match", "place_y", "place_x")
    row: dict[str, Any] = {"interneuron": "", "second_interneuron": ""}
    row |= dict.fromkeys(numbers, float("nan"))
    if matches is None:
        return row
    chosen = matches.sel(channel=candidate.labels)
    score = candidate.weight @ chosen["type_correlation"].values  # (interneuron_type,)
    if not np.isfinite(score).any():
        return row
    order = np.argsort(-np.where(np.isfinite(score), score, -np.inf))
    kinds = chosen["interneuron_type"].values
    leading = chosen.isel(channel=int(np.argmax(candidate.weight)))
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
) -> Floats:
    """Return r of what each row silences with the interneuron that it names, (row,).

    ``whole``: silencings cut every channel of the interneuron; then it is the largest r of those
    cut, else the match of the candidate. 1 without matches, 0 where no interneuron is named.
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
