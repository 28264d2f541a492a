"""The sparse autoencoder as published: its loadings are gates, 0 or from a threshold to 1.

With the published learning rates most modes of a small data set may end without any loading.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau, StepLR

from retina_codec.errors import RetinaCodecError
from retina_codec.modes.base import Decomposition, Fitted, at_least, between, unit_rows
from retina_codec.modes.decompositions.training import (
    TrainedNetwork,
    split_samples,
    train_network,
)

__all__ = ["GatedAutoencoder"]

PUBLISHED: dict[str, dict[str, Any]] = {
    "retina": {"sign_consistent": False},  # the rest is the default
    "images": {
        "modes_per_feature": 3,
        "dictionary_penalty": 5e-5,
        "learning_rate": 5e-5,
        "decay": 0.5,
        "plateau": 10,
        "epochs": 300,
    },
}


class GatedNetwork(TrainedNetwork):
    """Encoder with gates and a dictionary; see `GatedAutoencoder` for the formula."""

    def __init__(self, features: int, settings: "GatedAutoencoder") -> None:
        super().__init__()
        self.settings = settings
        width = features if settings.hidden is None else settings.hidden
        modes = settings.modes or settings.modes_per_feature * features
        block = [
            part
            for before in (features, width)
            for part in (
                nn.Linear(before, width),
                nn.Dropout(settings.dropout),
                nn.ReLU(),
                nn.LayerNorm(width),
            )
        ]
        self.encoder = nn.Sequential(*block, nn.Linear(width, modes, bias=False), nn.Sigmoid())
        start = torch.rand(modes, features)
        if settings.sign_consistent:
            start = start / features**0.5
        else:
            start = (2 * start - 1) * (6 / (modes + features)) ** 0.5
        self.dictionary = nn.Parameter(start)

    def gates(self, samples: Tensor) -> Tensor:
        """Return gates (sample, mode): 0, or from the threshold to 1."""
        gate: Tensor = self.encoder(samples)
        # the mask carries no gradient
        return torch.where(gate >= self.settings.threshold, gate, 0.0)

    def forward(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        """Return gates (sample, mode) and the rebuilt samples (sample, feature)."""
        gate = self.gates(samples)
        return gate, gate @ self.dictionary

    def rebuild(self, samples: Tensor) -> Tensor:
        """Return gates times the dictionary."""
        rebuilt: Tensor = self(samples)[1]
        return rebuilt

    def loss(self, samples: Tensor) -> Tensor:
        """Return mean (x − x̂)² and the penalties."""
        gate, rebuilt = self(samples)
        loss: Tensor = (samples - rebuilt).square().mean()
        loss = loss + self.settings.loading_penalty * gate.abs().mean()
        return loss + self.settings.dictionary_penalty * self.dictionary.abs().mean()

    def constrain(self) -> None:
        """Set entries of the dictionary below 0 to 0, unless signs are free."""
        if self.settings.sign_consistent:
            self.dictionary.clamp_(min=0)


@dataclass(frozen=True, kw_only=True, eq=False)
class FittedGates(Fitted):
    """A trained gated autoencoder: what ``GatedAutoencoder.fit`` returns."""

    length: Tensor
    """(mode,): length of each row as trained; a gate times this is the loading."""
    network: GatedNetwork

    @torch.no_grad()
    def encode(self, features: Tensor) -> Tensor:
        """Return loadings (sample, mode) >= 0: gates times the lengths of the modes."""
        return self.network.gates(features) * self.length


@dataclass(frozen=True, kw_only=True)
class GatedAutoencoder(Decomposition):
    """Sparse autoencoder with gates as loadings, as published.

    s = sigmoid(W f(f(x))), f = LayerNorm ∘ ReLU ∘ Dropout ∘ Linear; z = s where s >= threshold,
    else 0; x̂ = z D; loss = mean (x − x̂)² + loading_penalty · mean |z| + dictionary_penalty ·
    mean |D|. The defaults are the published ones for the retina, but for the signs, which were free
    there; `published` gives both published settings. The returned dictionary has rows of unit
    length and the loadings carry their lengths.

    Parameters
    ----------
    modes : int, optional
        ``modes_per_feature`` × features when left out.
    modes_per_feature : int
    seed : int
    sign_consistent : bool
        True: D >= 0 after inhibitory features are turned positive. False: free.
    hidden : int, optional
        Width H of the encoder's two layers; the number of features when left out.
    threshold : float
    loading_penalty, dictionary_penalty : float
    learning_rate : float
        Of Adam; × ``decay`` every ``decay_every`` epochs, or on a plateau.
    decay : float
    decay_every : int
    plateau : int
        0: the rate falls as ``decay_every`` says. Otherwise it falls after this many epochs in
        which the training loss did not improve, and ``decay_every`` is not used.
    epochs : int
    batch_size : int
    dropout : float
    validation : float
        Share of the fitted samples, at their end, that choose the epoch to keep.

    References
    ----------
    Melander et al. 2026, sparse autoencoder and its settings.
    """

    modes: int | None = None
    modes_per_feature: int = 10
    seed: int = 0
    sign_consistent: bool = True
    hidden: int | None = None
    threshold: float = 0.9
    loading_penalty: float = 0.0
    dictionary_penalty: float = 1e-4
    learning_rate: float = 1e-5
    decay: float = 0.98
    decay_every: int = 25
    plateau: int = 0
    epochs: int = 800
    batch_size: int = 128
    dropout: float = 0.05
    validation: float = 0.2

    def __post_init__(self) -> None:
        """Validate the parameters."""
        at_least(self, 1, "modes", "modes_per_feature", "hidden", "epochs", "batch_size")
        at_least(self, 1, "decay_every")
        at_least(self, 0, "plateau", "loading_penalty", "dictionary_penalty")
        if not 0 <= self.dropout < 1:
            raise RetinaCodecError(f"dropout must be >= 0 and below 1; got {self.dropout=}.")
        between(self, 0, 1, "threshold", "validation")

    @classmethod
    def published(cls, setting: str, *, seed: int = 0) -> "GatedAutoencoder":
        """Return the settings of the paper.

        Parameters
        ----------
        setting : str
            ``"retina"``: threshold 0.9, 10 modes per feature, Adam 1e-5 (× 0.98 every 25 epochs),
            800 epochs, dictionary penalty 1e-4, both signs side by side with free modes.
            ``"images"``: threshold 0.9, 3 modes per feature, Adam 5e-5 (halved after 10 epochs
            without improvement), 300 epochs, dictionary penalty 5e-5.
        seed : int

        Returns
        -------
        GatedAutoencoder

        Raises
        ------
        RetinaCodecError
            If there is no such setting.
        """
        if setting not in PUBLISHED:
            raise RetinaCodecError(
                f"setting must be one of {', '.join(map(repr, PUBLISHED))}; got {setting!r}."
            )
        return cls(seed=seed, **PUBLISHED[setting])

    def fit(self, features: Tensor, *, progress: bool | None = None) -> FittedGates:
        """Train by gradient and keep the state of the best epoch.

        Parameters
        ----------
        features : Tensor (sample, feature), in order of time, dimensionless
        progress : bool, optional

        Returns
        -------
        FittedGates
        """
        train, validation = split_samples(features, self.validation)
        if len(train) < 1:
            raise RetinaCodecError(
                f"The fit needs at least 1 training sample; got {len(features)} with "
                f"validation={self.validation}. Give more samples or a smaller validation."
            )
        with torch.random.fork_rng(devices=[]):  # the caller's random state stays as it was
            torch.manual_seed(self.seed)
            network = GatedNetwork(features.shape[1], self).to(features.device)
            optimizer = torch.optim.Adam(network.parameters(), lr=self.learning_rate)
            epoch = train_network(
                network,
                train,
                validation,
                scheduler=ReduceLROnPlateau(optimizer, factor=self.decay, patience=self.plateau)
                if self.plateau
                else StepLR(optimizer, self.decay_every, self.decay),
                epochs=self.epochs,
                batch_size=self.batch_size,
                description="gated modes",
                progress=progress,
            )
        dictionary, length = unit_rows(network.dictionary)
        return FittedGates(dictionary=dictionary, length=length, network=network, epochs=epoch)
