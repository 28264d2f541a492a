"""Gradient training of autoencoders: the state of the best epoch on validation samples is kept."""

import copy
from abc import abstractmethod

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from retina_codec.progress import progress_bar

__all__ = ["TrainedNetwork", "split_samples", "train_network"]


class TrainedNetwork(nn.Module):
    """A network that `train_network` can train.

    Must: implement `loss` and `rebuild`.

    Should: override `constrain` for conditions on the parameters, and `end_epoch` for what is
    counted over an epoch.
    """

    @abstractmethod
    def loss(self, samples: Tensor) -> Tensor:
        """Return the loss () of a batch (sample, feature)."""

    @abstractmethod
    def rebuild(self, samples: Tensor) -> Tensor:
        """Return the samples (sample, feature) as rebuilt from their loadings."""

    def constrain(self) -> None:
        """Bring the parameters back to allowed values; called after each step, without gradient."""

    def end_epoch(self) -> None:
        """Do what is due once per epoch, before validation."""


def split_samples(features: Tensor, validation: float) -> tuple[Tensor, Tensor]:
    """Split samples (sample, feature) into training ones and the last part, at least one."""
    train = max(0, len(features) - max(1, round(validation * len(features))))
    return features[:train], features[train:]


def train_network(
    network: TrainedNetwork,
    train: Tensor,
    validation: Tensor,
    *,
    scheduler: LRScheduler | ReduceLROnPlateau,
    epochs: int,
    batch_size: int,
    generator: torch.Generator | None = None,
    description: str,
    progress: bool | None = None,
) -> int:
    """Minimise the loss over shuffled batches and keep the state of the best epoch.

    Best is the epoch with the smallest mean squared error of the rebuilt ``validation`` samples.

    Parameters
    ----------
    network : TrainedNetwork
        Trained in place; left in evaluation mode, without gradients.
    train, validation : Tensor (sample, feature)
        Samples that train, and samples that choose the epoch.
    scheduler : LRScheduler or ReduceLROnPlateau
        Of the learning rate, stepped after each epoch (on a plateau: with the sum of the batch
        losses); its optimizer is used.
    epochs, batch_size : int
    generator : torch.Generator, optional
        Of the order of samples; torch's own when left out.
    description : str
        Of the progress bar.
    progress : bool, optional

    Returns
    -------
    int
        The epoch that was kept, from 1; 0 if no error was finite.
    """
    optimizer = scheduler.optimizer
    best, kept, kept_epoch = float("inf"), copy.deepcopy(network.state_dict()), 0
    bar = progress_bar(range(1, epochs + 1), description=description, progress=progress)
    for epoch in bar:
        network.train()
        total = 0.0
        order = torch.randperm(len(train), generator=generator)
        for batch in torch.split(order.to(train.device), batch_size):
            loss = network.loss(train[batch])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            total += float(loss.detach())
            with torch.no_grad():
                network.constrain()
        if isinstance(scheduler, ReduceLROnPlateau):
            scheduler.step(total)
        else:
            scheduler.step()
        network.end_epoch()
        network.eval()
        with torch.no_grad():
            error = float((validation - network.rebuild(validation)).square().mean())
        if error < best:
            best, kept, kept_epoch = error, copy.deepcopy(network.state_dict()), epoch
    network.load_state_dict(kept)
    network.eval().requires_grad_(False)
    return kept_epoch
