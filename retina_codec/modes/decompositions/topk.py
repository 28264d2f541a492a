"""Top-k sparse autoencoders: a linear encoder of which the largest loadings are kept.

A second loss trains modes that no sample uses.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from retina_codec.errors import RetinaCodecError
from retina_codec.modes.base import Decomposition, Fitted, at_least, between
from retina_codec.modes.decompositions import sparse_coding as coding
from retina_codec.modes.decompositions.linear import keep_largest
from retina_codec.modes.decompositions.training import (
    TrainedNetwork,
    split_samples,
    train_network,
)

__all__ = ["BatchTopKAutoencoder", "FittedTopK", "TopKAutoencoder"]


class TopKNetwork(TrainedNetwork):
    """Linear encoder and dictionary; see `TopKAutoencoder` for the formula."""

    def __init__(self, dictionary: Tensor, settings: "TopKAutoencoder") -> None:
        super().__init__()
        self.settings = settings
        self.dictionary = nn.Parameter(dictionary.clone())  # (mode, feature)
        self.weight = nn.Parameter(dictionary.T.clone())  # (feature, mode)
        self.bias = nn.Parameter(dictionary.new_zeros(len(dictionary)))
        self.used = torch.zeros(len(dictionary), dtype=torch.bool, device=dictionary.device)
        self.dead = torch.zeros_like(self.used)  # modes that no sample used in the last epoch

    def forward(self, samples: Tensor) -> Tensor:
        """Return loadings (sample, mode) >= 0 before the choice of the largest."""
        return torch.relu(samples @ self.weight + self.bias)

    def rebuild(self, samples: Tensor) -> Tensor:
        """Return the chosen loadings times the dictionary."""
        return self.settings.choose(self(samples)) @ self.dictionary

    def loss(self, samples: Tensor) -> Tensor:
        """Return mean ‖x − x̂‖², and the loss of dead modes while there are any."""
        loading = self(samples)
        chosen = self.settings.choose(loading)
        left = samples - chosen @ self.dictionary
        loss = left.square().sum(1).mean()
        if self.settings.revival > 0 and bool(self.dead.any()):
            spare = keep_largest(loading * self.dead, self.settings.active)
            missed = left.detach() - spare @ self.dictionary
            loss = loss + self.settings.revival * missed.square().sum(1).mean()
        self.used |= (chosen > 0).any(0)
        return loss

    def constrain(self) -> None:
        """Give every mode unit length, without entries below 0 unless signs are free."""
        if self.settings.sign_consistent:
            self.dictionary.clamp_(min=0)
        tiny = torch.finfo(self.dictionary.dtype).tiny
        self.dictionary.div_(self.dictionary.norm(dim=1, keepdim=True).clamp(min=tiny))

    def end_epoch(self) -> None:
        """Note which modes were not used."""
        self.dead, self.used = ~self.used, torch.zeros_like(self.used)


@dataclass(frozen=True, kw_only=True, eq=False)
class FittedTopK(Fitted):
    """A trained top-k autoencoder."""

    network: TopKNetwork
    active: int | None
    """Largest number of loadings of one sample; None where the threshold decides."""
    threshold: float = 0.0
    """Smaller loadings are 0."""

    @torch.no_grad()
    def encode(self, features: Tensor) -> Tensor:
        """Return loadings (sample, mode) >= 0."""
        loading = self.network(features)
        loading = torch.where(loading >= self.threshold, loading, 0.0)
        return keep_largest(loading, self.active)


@dataclass(frozen=True, kw_only=True)
class TopKAutoencoder(Decomposition):
    """Sparse autoencoder that keeps the k largest loadings of every sample.

    z = TopK(ReLU(x W + b)), x̂ = z D with rows of D of unit length; loss = mean ‖x − x̂‖² +
    ``revival`` · mean ‖(x − x̂) − z' D‖², where z' are the ``active`` largest loadings among modes
    that no sample used in the last epoch (the second term only while there are such). Starts from
    samples in different directions, W = Dᵀ. Adam, the rate falling as a cosine.

    Parameters
    ----------
    modes : int
    active : int
        k, the largest number of modes of one sample.
    seed : int
    sign_consistent : bool
        True: D >= 0 after inhibitory features are turned positive. False: free.
    learning_rate : float
    epochs : int
    batch_size : int
    revival : float
        Weight of the loss of dead modes.
    validation : float
        Share of the fitted samples, at their end, that choose the epoch to keep.

    References
    ----------
    Makhzani, Frey 2013; Gao et al. 2024, Scaling and evaluating sparse autoencoders.
    """

    modes: int = 32
    active: int = 3
    seed: int = 0
    sign_consistent: bool = True
    learning_rate: float = 3e-3
    epochs: int = 150
    batch_size: int = 128
    revival: float = 1 / 32
    validation: float = 0.2

    def __post_init__(self) -> None:
        """Validate the parameters."""
        at_least(self, 1, "modes", "active", "epochs", "batch_size")
        at_least(self, 0, "revival")
        between(self, 0, 1, "learning_rate", "validation")

    def fit(self, features: Tensor, *, progress: bool | None = None) -> FittedTopK:
        """Train by gradient and keep the state of the best epoch.

        Parameters
        ----------
        features : Tensor (sample, feature), in order of time, dimensionless
        progress : bool, optional

        Returns
        -------
        FittedTopK
        """
        train, validation = split_samples(features, self.validation)
        generator = torch.Generator().manual_seed(self.seed)
        start = coding.choose_directions(
            train, self.modes, generator, non_negative=self.sign_consistent
        )
        if len(start) == 0:
            raise RetinaCodecError(
                f"The fit needs training samples with features to start from; the first "
                f"{len(train)} of {len(features)} have none. Give samples in which the network is "
                "active, or a smaller validation."
            )
        network = TopKNetwork(start, self)
        optimizer = torch.optim.Adam(network.parameters(), lr=self.learning_rate)
        epoch = train_network(
            network,
            train,
            validation,
            scheduler=CosineAnnealingLR(optimizer, self.epochs),
            epochs=self.epochs,
            batch_size=self.batch_size,
            generator=generator,
            description="top-k modes",
            progress=progress,
        )
        unit = network.dictionary.detach()
        return FittedTopK(dictionary=unit, epochs=epoch, network=network, active=self.active)

    def choose(self, loading: Tensor) -> Tensor:
        """Keep the loadings of a batch (sample, mode) that take part in training; others are 0."""
        return keep_largest(loading, self.active)


@dataclass(frozen=True, kw_only=True)
class BatchTopKAutoencoder(TopKAutoencoder):
    """Sparse autoencoder that keeps k loadings per sample on average over a batch.

    As `TopKAutoencoder`, but the k · n largest loadings of n samples are kept together: rich
    samples may use more modes, poor ones fewer. A new sample is coded alone: its loadings count
    where they reach the smallest one that was kept among the fitted samples.

    References
    ----------
    Bussmann, Leask, Nanda 2024, BatchTopK sparse autoencoders.
    """

    def choose(self, loading: Tensor) -> Tensor:
        """Keep the ``active`` · n largest loadings of n samples together."""
        return torch.where(loading >= self._lowest(loading), loading, 0.0)

    def _lowest(self, loading: Tensor) -> float:
        """Return the smallest loading (sample, mode) that is kept."""
        kept = min(self.active * len(loading), loading.numel())
        return float(loading.detach().flatten().topk(kept).values[-1])

    def fit(self, features: Tensor, *, progress: bool | None = None) -> FittedTopK:
        """Train as `TopKAutoencoder`, then find the smallest loading that is kept."""
        fitted = super().fit(features, progress=progress)
        train, _ = split_samples(features, self.validation)
        with torch.no_grad():
            threshold = self._lowest(fitted.network(train))
        return replace(fitted, active=None, threshold=threshold)
