"""Linear-nonlinear model of each cell: the baseline beside a convolutional network.

Notation, per cell: w (lag, y, x) normalised window of a bin, u_r (y, x) and v_r (lag) fields and
time courses of rank R; rate = a log(1 + exp(Σ_r Σ_lyx v_r[l] u_r[y, x] w[l, y, x] + b)) in Hz.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr
from torch import nn
from torch.nn import functional

from retina_codec.errors import RetinaCodecError, option
from retina_codec.networks.retina.fitting import poisson_loss
from retina_codec.networks.retina.measure import centers, check_cells_fire, measure, spike_counts
from retina_codec.networks.retina.model import Normalisation
from retina_codec.progress import progress_bar
from retina_codec.recordings.windows import in_one_block

__all__ = ["LinearNonlinear", "LnSettings", "fit_ln"]

Booleans = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class LnSettings:
    """Settings of `fit_ln`; radius, rank and ridge are chosen per cell on the validation part.

    Parameters
    ----------
    radius : sequence of int
        px, half side of the square around the centre in which the field lies.
    rank : sequence of int
        Fields with a time course each.
    ridge : sequence of float
        Weight of Σ u² + Σ v² beside the Poisson loss (nats per bin).
    rounds : int
        Of 10 steps of L-BFGS each; the fit stops when the validation loss stops improving.
    validation : float
        Last part of the train split, as a share of its time.

    Raises
    ------
    RetinaCodecError
        An empty list, or a value that no model can have.
    """

    radius: Sequence[int] = (4, 8)
    rank: Sequence[int] = (1, 2)
    ridge: Sequence[float] = (1e-4, 1e-3)
    rounds: int = 12
    validation: float = 0.1

    def __post_init__(self) -> None:
        """Validate the parameters."""
        for name, least in {"radius": 0, "rank": 1, "ridge": 0.0}.items():
            values = list(getattr(self, name))
            if not values or min(values) < least:
                raise RetinaCodecError(
                    f"{name} must be one or more numbers of at least {least}; got {values}."
                )
        if self.rounds < 1 or not 0 < self.validation < 1:
            raise RetinaCodecError(
                f"rounds must be at least 1 and validation between 0 and 1; got {self.rounds} and "
                f"{self.validation}."
            )


class LinearNonlinear(nn.Module):
    """Linear-nonlinear models of all cells of a recording; runs wherever a `RetinaCNN` runs.

    Parameters
    ----------
    filters : tensor, (cell, lag, y, x)
        Over the whole frame; oldest frame first.
    offset, gain : tensor, (cell,)
        b, and a in Hz.
    cells : sequence
        Their names.
    normalisation : Normalisation
        Of raw intensities.
    frame_rate : float
        Hz.
    """

    def __init__(
        self,
        filters: torch.Tensor,
        offset: torch.Tensor,
        gain: torch.Tensor,
        *,
        cells: Sequence[Any],
        normalisation: Normalisation,
        frame_rate: float,
    ) -> None:
        super().__init__()
        self.filters, self.offset, self.gain = map(nn.Parameter, (filters, offset, gain))
        self.cells = list(cells)
        self.normalisation = normalisation
        self.frame_rate = float(frame_rate)
        self.history = int(filters.shape[1])
        self.frame_shape = (int(filters.shape[2]), int(filters.shape[3]))
        self.training_record: dict[str, Any] = {}

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Return rates (batch, cell) in Hz of windows (batch, lag, y, x)."""
        drive = windows.flatten(1) @ self.filters.flatten(1).T + self.offset
        rate: torch.Tensor = functional.softplus(drive) * self.gain
        return rate


@dataclass(frozen=True)
class _Data:
    """What the models of all cells share."""

    frames: torch.Tensor  # (time, y, x), normalised
    counts: npt.NDArray[np.float64]  # (time, cell)
    history: int
    usable: Booleans  # (time - history,), windows in one block
    cut: int  # first bin of the validation part
    bin_width: float  # s


def fit_ln(
    recording: xr.DataTree,
    *,
    history: int = 20,
    settings: LnSettings | None = None,
    progress: bool | None = None,
) -> LinearNonlinear:
    """Fit a linear-nonlinear model to every cell by maximum likelihood.

    The filter starts at the first singular vectors of the cell's spike-triggered average, within a
    square around the centre of its receptive field, and is fitted with the nonlinearity by L-BFGS
    on the Poisson loss of the spike counts. The settings and the round with the lowest loss on the
    last part of the train split are kept, cell by cell.

    Parameters
    ----------
    recording : xr.DataTree
        With ``/train``: stimulus (time, y, x), held in memory as float32, and spike_count
        (time, cell). Windows across blocks are left out.
    history : int
        Frames per window.
    settings : LnSettings, optional
    progress : bool, optional
        See `retina_codec.progress.progress_bar`.

    Returns
    -------
    LinearNonlinear
        In evaluation mode; `rc.networks.predict_rates` and `rc.contribute` take it.
        ``training_record`` holds the choices and the validation loss of every cell.

    Raises
    ------
    RetinaCodecError
        No train split, a cell that never fires, counts that are NaN, or a movie no longer than the
        history.

    References
    ----------
    Chichilnisky 2001, Network 12:199. Pillow and Simoncelli 2006, J. Vis. 6:414 (low rank).
    """
    settings = settings or LnSettings()
    if "train" not in recording.children:
        raise RetinaCodecError(
            "a fit needs a train split; the recording has none. Say which times are which: "
            f"{option('splits', {'train': [0, 300], 'test': [300, 360]})}, when it is opened."
        )
    train = recording["train"].to_dataset().load()
    counts = spike_counts(train)
    check_cells_fire(train, counts)
    cut = round(len(counts) * (1 - settings.validation))
    if not (history >= 1 and cut > history and len(counts) - cut > history):
        raise RetinaCodecError(
            f"train and validation parts must be longer than the history of {history} frames; got "
            f"{cut} and {len(counts) - cut}. Use a longer recording or another validation share."
        )
    stimulus = train["stimulus"].transpose("time", "y", "x")
    normalisation = measure(stimulus[:cut])
    values = (stimulus.values.astype(np.float32) - normalisation.mean) / normalisation.std
    frame_rate = float(recording.attrs["frame_rate"])
    data = _Data(
        torch.from_numpy(values.astype(np.float32)),
        counts,
        history,
        in_one_block(train, history),
        cut,
        1 / frame_rate,
    )
    places, source = centers(train.isel(time=slice(0, cut)), history)
    found, record = [], {}
    names = train["cell"].values.tolist()
    for cell, name in enumerate(
        progress_bar(names, description="linear-nonlinear models", progress=progress)
    ):
        best = _fit_cell(data, cell, np.rint(places[cell]).astype(int), settings)
        found.append(best)
        record[str(name)] = best["chosen"] | {"validation_loss": best["loss"]}
    model = LinearNonlinear(
        torch.stack([each["filter"] for each in found]),
        torch.stack([each["offset"] for each in found]),
        torch.stack([each["gain"] for each in found]),
        cells=names,
        normalisation=normalisation,
        frame_rate=frame_rate,
    )
    model.training_record = {"settings": asdict(settings), "cells": record, "centers": source}
    return model.requires_grad_(False).eval()


def _fit_cell(
    data: _Data, cell: int, place: npt.NDArray[np.int64], settings: LnSettings
) -> dict[str, Any]:
    """Fit one cell with every combination of settings; keep the best on the validation part."""
    best: dict[str, Any] = {"loss": math.inf}
    height, width = data.frames.shape[1:]
    for radius in settings.radius:
        rows = slice(max(0, place[0] - radius), min(height, place[0] + radius + 1))
        columns = slice(max(0, place[1] - radius), min(width, place[1] + radius + 1))
        patch = data.frames[:, rows, columns]
        flat = patch.reshape(len(patch), -1).contiguous()
        average = _average(data, flat, cell)
        for rank in settings.rank:
            if rank > min(average.shape):
                continue
            for ridge in settings.ridge:
                loss, terms = _fit_terms(data, flat, cell, average, rank, ridge, settings.rounds)
                if loss < best["loss"]:
                    full = torch.zeros(data.history, height, width)
                    own = (terms[0].T @ terms[1]).reshape(data.history, *patch.shape[1:])
                    full[:, rows, columns] = own
                    best = {
                        "loss": loss,
                        "filter": full,
                        "offset": terms[2],
                        "gain": terms[3].exp(),
                        "chosen": {"radius": radius, "rank": rank, "ridge": ridge},
                    }
    return best


def _bins(data: _Data, flat: torch.Tensor, cell: int) -> torch.Tensor:
    """Spike counts (window,) of one cell as a tensor of the frames' type."""
    return torch.from_numpy(data.counts[data.history :, cell]).to(flat.dtype)


def _average(data: _Data, flat: torch.Tensor, cell: int) -> torch.Tensor:
    """Spike-triggered average (lag, pixel) over the training part, oldest frame first."""
    weight = _bins(data, flat, cell)
    train = torch.from_numpy(data.usable.copy())
    train[data.cut - data.history :] = False
    weight = torch.where(train, weight, 0.0)
    total, mean = weight.sum().clamp(min=1), flat[: data.cut].mean(0)
    lags = range(data.history)
    return torch.stack([weight @ flat[lag : lag + len(weight)] / total - mean for lag in lags])


def _fit_terms(
    data: _Data,
    flat: torch.Tensor,
    cell: int,
    average: torch.Tensor,
    rank: int,
    ridge: float,
    rounds: int,
) -> tuple[float, list[torch.Tensor]]:
    """Fit time courses (rank, lag), fields (rank, pixel), b and log a; with the validation loss."""
    left, size, right = torch.linalg.svd(average, full_matrices=False)
    scale = size[:rank].sqrt()
    course, field = (left[:, :rank] * scale).T.clone(), right[:rank] * scale[:, None]
    count = _bins(data, flat, cell)
    mean = float(count[: data.cut - data.history].mean()) / data.bin_width
    terms = [
        course.contiguous(),
        field.contiguous(),
        torch.zeros(()),
        torch.tensor(math.log(max(mean, 1e-3) / math.log(2))),
    ]
    terms = [term.requires_grad_(True) for term in terms]
    number = torch.arange(len(count))
    usable = torch.from_numpy(data.usable)
    train = usable & (number < data.cut - data.history)
    held_out = usable & (number >= data.cut)

    def rates() -> torch.Tensor:
        drive = flat @ terms[1].T  # (time, rank)
        drive = functional.conv1d(drive.T[None], terms[0][:, None], groups=rank)[0].sum(0)
        rate: torch.Tensor = functional.softplus(drive[: len(count)] + terms[2]) * terms[3].exp()
        return rate

    def loss_on(part: torch.Tensor, rate: torch.Tensor) -> torch.Tensor:
        return poisson_loss(rate[part], count[part], data.bin_width)

    optimizer = torch.optim.LBFGS(terms, max_iter=10, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        size = (terms[0] ** 2).sum() + (terms[1] ** 2).sum()
        loss: torch.Tensor = loss_on(train, rates()) + ridge * size
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    best, kept = math.inf, [term.detach().clone() for term in terms]
    for _ in range(rounds):
        optimizer.step(closure)  # type: ignore[no-untyped-call]
        with torch.no_grad():
            loss = float(loss_on(held_out, rates()))
        if not loss < best - 1e-6:
            break
        best, kept = loss, [term.detach().clone() for term in terms]
    return best, kept
