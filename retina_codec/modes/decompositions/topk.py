"""Top-k sparse autoencoders: one linear encoder, and a fixed number of loadings.

Why this file exists: they are what most others use to find features in networks, so ours must
stand beside them. Trained by gradient alone, with a second loss that calls dead modes back. They
have no offsets: a contribution of zero means that nothing acted.
"""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from retina_codec.errors import RetinaCodecError
from retina_codec.modes.base import Decomposition, Fitted, at_least, between
from retina_codec.modes.decompositions import sparse_coding as coding
from retina_codec.modes.decompositions.linear import keep_largest
from retina_codec.progress import progress_bar

__all__ = ["BatchTopKAutoencoder", "FittedTopK", "TopKAutoencoder"]


class TopKNetwork(nn.Module):
    """Linear encoder and dictionary; see `TopKAutoencoder` for the formula."""

    def __init__(self, dictionary: Tensor) -> None:
        super().__init__()
        self.dictionary = nn.Parameter(dictionary.clone())  # (mode, feature)
        self.weight = nn.Parameter(dictionary.T.clone())  # (feature, mode)
        self.bias = nn.Parameter(dictionary.new_zeros(len(dictionary)))

    def forward(self, samples: Tensor) -> Tensor:
        """Return loadings (sample, mode) >= 0 before the choice of the largest."""
        return torch.relu(samples @ self.weight + self.bias)

    @torch.no_grad()
    def normalise(self, non_negative: bool) -> None:
        """Give every mode unit length, without entries below 0 if asked."""
        if non_negative:
            self.dictionary.clamp_(min=0)
        tiny = torch.finfo(self.dictionary.dtype).tiny
        self.dictionary.div_(self.dictionary.norm(dim=1, keepdim=True).clamp(min=tiny))


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
        train = len(features) - max(1, round(self.validation * len(features)))
        generator = torch.Generator().manual_seed(self.seed)
        start = coding.choose_directions(
            features[: max(train, 0)], self.modes, generator, non_negative=self.sign_consistent
        )
        if len(start) == 0:
            raise RetinaCodecError(
                f"The fit needs training samples with features to start from; the first {train} "
                f"of {len(features)} have none. Give samples in which the network is active, or a "
                "smaller validation."
            )
        return self._train(
            TopKNetwork(start), features[:train], features[train:], generator, progress
        )

    def _choose(self, loading: Tensor) -> Tensor:
        """Keep the loadings of a batch that take part in training."""
        return keep_largest(loading, self.active)

    def _fitted(self, network: TopKNetwork, train: Tensor, epochs: int) -> FittedTopK:
        del train
        dictionary = network.dictionary.detach()
        return FittedTopK(dictionary=dictionary, epochs=epochs, network=network, active=self.active)

    def _train(
        self,
        network: TopKNetwork,
        train: Tensor,
        judge: Tensor,
        generator: torch.Generator,
        progress: bool | None,
    ) -> FittedTopK:
        optimizer = torch.optim.Adam(network.parameters(), lr=self.learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.epochs)
        best, kept, kept_epoch = float("inf"), copy.deepcopy(network.state_dict()), 0
        dead = torch.zeros(len(network.bias), dtype=torch.bool, device=train.device)
        rounds = range(1, self.epochs + 1)
        for epoch in progress_bar(rounds, description="top-k modes", progress=progress):
            used = torch.zeros_like(dead)
            order = torch.randperm(len(train), generator=generator)
            for batch in torch.split(order.to(train.device), self.batch_size):
                loading = network(train[batch])
                kept_loading = self._choose(loading)
                left = train[batch] - kept_loading @ network.dictionary
                loss = left.square().sum(1).mean()
                if self.revival > 0 and bool(dead.any()):
                    spare = keep_largest(loading * dead, self.active)
                    missed = left.detach() - spare @ network.dictionary
                    loss = loss + self.revival * missed.square().sum(1).mean()
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()
                network.normalise(self.sign_consistent)
                used |= (kept_loading > 0).any(0)
            schedule.step()
            dead = ~used
            with torch.no_grad():
                rebuilt = self._choose(network(judge)) @ network.dictionary
                error = float((judge - rebuilt).square().mean())
            if error < best:
                best, kept, kept_epoch = error, copy.deepcopy(network.state_dict()), epoch
        network.load_state_dict(kept)
        network.eval().requires_grad_(False)
        return self._fitted(network, train, kept_epoch)


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

    def _choose(self, loading: Tensor) -> Tensor:
        """Keep the ``active`` · n largest loadings of n samples together."""
        return torch.where(loading >= self._lowest(loading), loading, 0.0)

    def _lowest(self, loading: Tensor) -> float:
        """Return the smallest loading (sample, mode) that is kept."""
        kept = min(self.active * len(loading), loading.numel())
        return float(loading.detach().flatten().topk(kept).values[-1])

    def _fitted(self, network: TopKNetwork, train: Tensor, epochs: int) -> FittedTopK:
        with torch.no_grad():
            threshold = self._lowest(network(train))
        return FittedTopK(
            dictionary=network.dictionary.detach(),
            epochs=epochs,
            network=network,
            active=None,
            threshold=threshold,
        )
