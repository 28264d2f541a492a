"""Fit the retina network to a recording: Poisson loss, validation in time, early stopping."""

import copy
import math
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr

from retina_codec.errors import RetinaCodecError, option
from retina_codec.networks.borrowed import settled
from retina_codec.networks.retina.fourier_fitting import Rates, rates_of_windows
from retina_codec.networks.retina.measure import centers, check_cells_fire, measure, spike_counts
from retina_codec.networks.retina.model import RetinaCNN
from retina_codec.progress import progress_bar
from retina_codec.recordings.windows import StimulusWindows, in_one_block
from retina_codec.storage.trees import new_output

__all__ = ["TrainingSettings", "fit_network", "poisson_loss"]

Integers = npt.NDArray[np.int64]
LEAST_RATE = 0.5  # Hz
MODULATION = 0.2  # of the mean rate: standard deviation of a cell's rate before training


@dataclass(frozen=True)
class TrainingSettings:
    """Settings of the training, kept with the network.

    Parameters
    ----------
    epochs : int
        At the most.
    windows_per_epoch : int or None
        Windows drawn (without replacement) per epoch; None is all of them.
    batch_size : int
    learning_rate : float
        Peak of the schedule: linear warm-up over 3 % of a cycle, then half a cosine to 1 %.
    cycles : int
        How often the schedule runs, each time over ``epochs / cycles`` epochs (warm restarts,
        Loshchilov and Hutter 2017).
    weight_decay : float
        Decoupled (AdamW).
    validation : float
        Last part of the train split that is never trained on, fraction of its time.
    patience : int
        Epochs without a better validation loss before the training stops.
    seed : int
        Of the first weights, the order of the windows and the noise.

    Raises
    ------
    RetinaCodecError
        If a number is too small to train with.
    """

    epochs: int = 30
    windows_per_epoch: int | None = None
    batch_size: int = 256
    learning_rate: float = 5e-3
    cycles: int = 1
    weight_decay: float = 1e-4
    validation: float = 0.1
    patience: int = 6
    seed: int = 0

    def __post_init__(self) -> None:
        """Validate the parameters."""
        least = {"windows_per_epoch": 2, "batch_size": 2, "cycles": 1, "seed": 0}
        for name, limit in least.items():
            value = getattr(self, name)
            if value is not None and value < limit:
                raise RetinaCodecError(f"{name} must be at least {limit}; got {value}.")


def poisson_loss(rate: torch.Tensor, count: torch.Tensor, bin_width: float) -> torch.Tensor:
    """Mean negative log likelihood of spike counts, without the constant ``log count!``; nats.

    ``mean(rate * bin_width - count * log(rate * bin_width))`` over bins and cells, ``rate`` (b,
    cell) in Hz, ``count`` (b, cell) in spikes per bin, ``bin_width`` in s.
    """
    expected = rate * bin_width
    return (expected - count * torch.log(expected + 1e-8)).mean()


@settled()
def fit_network(
    recording: xr.DataTree,
    *,
    history: int = 40,
    channels: Sequence[int] = (8, 8),
    kernel_sizes: Sequence[int] = (15, 11, 11),
    noise: float = 0.05,
    settings: TrainingSettings | None = None,
    resume: str | os.PathLike[str] | None = None,
    fourier: bool | None = None,
    spectra_bytes: int = 2**32,
    device: str | torch.device | None = None,
    progress: bool | None = None,
    surround: bool = False,
) -> RetinaCNN:
    """Train the Maheswaranathan network on the train split of a recording.

    Adam on the Poisson loss of the spike counts, `poisson_loss`; the weights of the epoch with
    the lowest loss on the held-out last part of the train split are kept. Every cell is read at
    the centre of its receptive field: from the recording if it says so (``center_y``,
    ``center_x``), else from `estimate_centers`.

    Parameters
    ----------
    recording : xr.DataTree
        With ``/train``: stimulus (time, y, x) and spike_count (time, cell). The stimulus is held
        in memory in its own type.
    history, channels, kernel_sizes, noise
        See `RetinaCNN`.
    settings : TrainingSettings, optional
    resume : path, optional
        A file that is written after every epoch; if it exists, the training goes on from it and
        ends with the same weights as without the interruption.
    fourier : bool, optional
        Train through Fourier transforms of the frames (`FourierNetwork`): the same loss and
        gradients up to rounding, three times as fast on a CPU. None: on the CPU, not on CUDA.
    spectra_bytes : int
        Memory that transforms of all frames may take (2.5 GB for 40 minutes of 50 × 50 px at 100
        Hz); if they need more, those of each batch are made anew, which takes a third longer.
    device : str or torch.device, optional
        CUDA if present, else CPU.
    progress : bool, optional
        See `retina_codec.progress.progress_bar`.
    surround : bool
        See `RetinaCNN`.

    Returns
    -------
    RetinaCNN
        In evaluation mode, on the CPU, stacks collapsed; ``network.training_record`` holds
        settings, losses per epoch and where the cells' centres come from.

    Raises
    ------
    RetinaCodecError
        If there is no train split, a cell never fires, or the file to resume belongs to other
        data or settings.

    References
    ----------
    Maheswaranathan et al. 2023, Neuron 111:2742, methods.
    """
    settings = settings or TrainingSettings()
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    train = _train_split(recording)
    counts = spike_counts(train)
    cut = _cut(len(counts), history, settings)
    check_cells_fire(train, counts[:cut])
    stimulus = train["stimulus"]
    normalisation = measure(stimulus[:cut])
    training, validation = (
        StimulusWindows(part, history, mean=normalisation.mean, std=normalisation.std)
        for part in (stimulus[:cut], stimulus[cut:])
    )
    places, source = centers(train.isel(time=slice(0, cut)), history)

    torch.manual_seed(settings.seed)
    frame_rate = float(recording.attrs["frame_rate"])
    network = RetinaCNN(
        train["cell"].values.tolist(),
        np.zeros((train.sizes["cell"], 2), dtype=int),
        cell_types=[str(name) for name in train["type"].values],
        history=history,
        frame_shape=(stimulus.sizes["y"], stimulus.sizes["x"]),
        channels=channels,
        kernel_sizes=kernel_sizes,
        noise=noise,
        normalisation=normalisation,
        frame_rate=frame_rate,
        stacked=True,
        surround=surround,
    )
    _read_at(network, places)
    _start_at_mean_rate(network, counts[:cut] * frame_rate)
    network.to(place)
    fourier = place.type == "cpu" if fourier is None else fourier
    if not fourier:
        _lay_out(network, torch.channels_last)
    loop = _Loop(network, settings, frame_rate, place, progress, spectra_bytes if fourier else None)
    spikes = torch.from_numpy(counts.astype(np.float32))
    parts = (
        _Part(training, spikes[history:cut], _usable(stimulus[:cut], history)),
        _Part(validation, spikes[cut + history :], _usable(stimulus[cut:], history)),
    )
    loop.run(*parts, resume)
    result = _lay_out(network.cpu(), torch.contiguous_format).eval().collapse()
    result.training_record = loop.record() | {
        "train_windows": len(parts[0].usable),
        "validation_windows": len(parts[1].usable),
        "centers": source,
        "session": str(recording.attrs.get("session", "")),
    }
    return result


@dataclass(frozen=True, eq=False)
class _Part:
    """Windows of a part of the train split, their counts (window, cell), and which are used."""

    windows: StimulusWindows
    counts: torch.Tensor
    usable: Integers


def _usable(stimulus: xr.DataArray, history: int) -> Integers:
    """Numbers of the windows that lie in one block of the movie."""
    found = np.flatnonzero(in_one_block(stimulus, history))
    if len(found) < 2:
        raise RetinaCodecError(
            f"blocks of the movie must be longer than the history of {history} frames; only "
            f"{len(found)} windows lie in one block. Use a shorter history."
        )
    return found


def _train_split(recording: xr.DataTree) -> xr.Dataset:
    """Return the train split, in memory."""
    if "train" not in recording.children:
        raise RetinaCodecError(
            "a fit needs a train split; the recording has "
            f"{sorted(set(recording.children) & {'train', 'test'})}. Say which times are which: "
            f"{option('splits', {'train': [0, 300], 'test': [300, 360]})}, seconds of the session, "
            "when it is opened."
        )
    return recording["train"].to_dataset().load()


def _cut(bins: int, history: int, settings: TrainingSettings) -> int:
    """Return the bin at which the validation part begins."""
    cut = round(bins * (1 - settings.validation))
    if cut <= history or bins - cut <= history:
        raise RetinaCodecError(
            f"train and validation parts must be longer than the history of {history} frames; got "
            f"{cut} and {bins - cut}. Use a longer recording or another validation share."
        )
    return cut


class _Loop:
    """One training run: its state, saved after every epoch and resumed."""

    def __init__(
        self,
        network: RetinaCNN,
        settings: TrainingSettings,
        frame_rate: float,
        device: torch.device,
        progress: bool | None,
        spectra_bytes: int | None = None,
    ) -> None:
        self.network, self.settings, self.spectra_bytes = network, settings, spectra_bytes
        self.device, self.progress = device, progress
        self.bin_width = 1.0 / frame_rate
        # Scale and shift of the last layer are in Hz: a step of Adam must be a share of the rates,
        # or cells that the stimulus hardly drives keep the modulation that they began with.
        last = list(network.norm3.parameters())
        rest = [p for name, p in network.named_parameters() if not name.startswith("norm3.")]
        usual = torch.nn.functional.softplus(network.norm3.shift.detach()).median()
        self.steps_in = (1.0, max(float(usual), LEAST_RATE))
        groups: list[dict[str, Any]] = [{"params": rest}, {"params": last, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(
            groups,
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
        )
        self.losses: list[float] = []
        self.seconds = 0.0
        self.best_epoch = -1
        self.best_state = copy.deepcopy(network.state_dict())

    def run(
        self,
        training: _Part,
        validation: _Part,
        resume: str | os.PathLike[str] | None,
    ) -> None:
        """Train until the last epoch or the end of patience; the best weights are kept."""
        settings = self.settings
        count = len(training.usable)
        drawn = min(settings.windows_per_epoch or count, count)
        if drawn % settings.batch_size == 1:
            drawn -= 1  # one window alone has no batch statistics
        per_epoch = math.ceil(drawn / settings.batch_size)
        identity = {
            **asdict(settings),
            **self.network.config(),
            "surround": self.network.surround,
            "windows": count,
            "spikes": int(training.counts.sum()),
            "steps_in_hz": self.steps_in[1],
        }
        if resume is not None and Path(resume).exists():
            self._load(Path(resume), identity)
        rates, held_out = (
            rates_of_windows(self.network, part.windows, self.spectra_bytes, self.device)
            for part in (training, validation)
        )
        for epoch in range(len(self.losses), settings.epochs):
            if epoch - 1 - self.best_epoch >= settings.patience and self.losses:
                break
            started = time.monotonic()
            torch.manual_seed(settings.seed * 100_003 + epoch + 1)
            self.network.train()
            batches = (training.usable[few] for few in self._order(count, drawn, epoch))
            bar = progress_bar(
                batches,
                description=f"epoch {epoch + 1}/{settings.epochs}",
                total=per_epoch,
                progress=self.progress,
            )
            if self.losses:
                bar.set_postfix(validation=f"{min(self.losses):.5f}")
            for step, indices in enumerate(bar):
                self._set_learning_rate(epoch * per_epoch + step, settings.epochs * per_epoch)
                loss = self._loss(rates, training.counts, indices)
                self.optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                self.optimizer.step()
            self.losses.append(self._validate(held_out, validation))
            self.seconds += time.monotonic() - started
            if self.losses[-1] <= min(self.losses):
                self.best_epoch = epoch
                self.best_state = copy.deepcopy(self.network.state_dict())
            if resume is not None:
                self._save(Path(resume), identity)
        self.network.load_state_dict(self.best_state)

    def record(self) -> dict[str, Any]:
        """Return settings, losses and time, for the network's training record."""
        return {
            "settings": asdict(self.settings),
            "validation_loss": self.losses,
            "best_epoch": self.best_epoch,
            "seconds": round(self.seconds, 1),
        }

    def _order(self, count: int, drawn: int, epoch: int) -> Iterator[Integers]:
        """Shuffled window numbers, batch by batch; epochs walk through all windows in turn."""
        passes, start = divmod(epoch * drawn, count)
        orders = [
            np.random.default_rng([self.settings.seed, passes + ahead]).permutation(count)
            for ahead in (0, 1)
        ]
        order = np.concatenate(orders)[start : start + drawn]
        for first in range(0, drawn, self.settings.batch_size):
            yield order[first : first + self.settings.batch_size]

    def _set_learning_rate(self, step: int, steps: int) -> None:
        steps = max(1, steps // self.settings.cycles)
        step %= steps
        warm = max(1, round(0.03 * steps))
        if step < warm:
            share = (step + 1) / warm
        else:
            share = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (step - warm) / (steps - warm)))
        for group, unit in zip(self.optimizer.param_groups, self.steps_in, strict=True):
            group["lr"] = self.settings.learning_rate * share * unit

    def _loss(self, rates: Rates, counts: torch.Tensor, indices: Integers) -> torch.Tensor:
        return poisson_loss(rates(indices), counts[indices].to(self.device), self.bin_width)

    @torch.no_grad()
    def _validate(self, rates: Rates, part: _Part) -> float:
        self.network.eval()
        total = 0.0
        for start in range(0, len(part.usable), self.settings.batch_size):
            indices = part.usable[start : start + self.settings.batch_size]
            total += float(self._loss(rates, part.counts, indices)) * len(indices)
        return total / len(part.usable)

    def _save(self, path: Path, identity: dict[str, Any]) -> None:
        state = {
            "identity": identity,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "best_state": self.best_state,
            "best_epoch": self.best_epoch,
            "losses": self.losses,
            "seconds": self.seconds,
        }
        with new_output(path, overwrite=True) as partial:
            torch.save(state, partial)

    def _load(self, path: Path, identity: dict[str, Any]) -> None:
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
            kept = {"surround": False, **state["identity"]}
        except Exception as error:
            raise RetinaCodecError(
                f"{path} cannot be resumed: it is not a training state of this version. Name "
                "another file, or delete it."
            ) from error
        differ = [
            f"{key} {kept.get(key)}, now {now}"
            for key, now in identity.items()
            if kept.get(key) != now
        ]
        if differ:
            raise RetinaCodecError(
                f"{path} belongs to other data or settings; it has {'; '.join(differ)}. "
                "Delete it or use the same recording and settings."
            )
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.best_state, self.best_epoch = state["best_state"], state["best_epoch"]
        self.losses, self.seconds = state["losses"], state["seconds"]


def _lay_out(network: RetinaCNN, memory_format: torch.memory_format) -> RetinaCNN:
    """Store the kernels in this order; channels last trains several times faster on CPUs."""
    network.to(memory_format=memory_format)  # type: ignore[call-overload]  # missing in the stubs
    return network


def _read_at(network: RetinaCNN, centers: npt.NDArray[np.float64]) -> None:
    """Read every cell where the map of the last convolution is nearest to its centre, px."""
    limit = np.array(network.map_shape) - 1
    places = np.clip(np.rint(centers).astype(int) - network.margin, 0, limit)
    network.readout.locations.copy_(torch.from_numpy(places))


def _start_at_mean_rate(network: RetinaCNN, rate: npt.NDArray[np.float64]) -> None:
    """Set the last normalisation: at first each cell fires at its mean rate, little modulated."""
    mean = torch.from_numpy(rate.mean(axis=0)).float().clamp(min=0.05)
    with torch.no_grad():
        network.norm3.shift.copy_(mean + torch.log(-torch.expm1(-mean)))
        network.norm3.scale.copy_(MODULATION * mean.clamp(min=LEAST_RATE))
