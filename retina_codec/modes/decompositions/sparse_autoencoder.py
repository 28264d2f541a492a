"""The sparse autoencoder: few modes per sample, with free amplitudes.

Exact steps find the dictionary (gradient training left most modes unused); the encoder is trained.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from retina_codec.errors import RetinaCodecError
from retina_codec.modes.base import Decomposition, Fitted, at_least, between
from retina_codec.modes.decompositions import sparse_coding as coding
from retina_codec.modes.decompositions.encoder import UnrolledEncoder, train_encoder
from retina_codec.modes.decompositions.training import split_samples
from retina_codec.progress import progress_bar

__all__ = ["FittedAutoencoder", "SparseAutoencoder", "without_cheapest"]

CANDIDATES = 1.5  # the search starts with this many times the modes asked for
ROUGH = 2  # alternations before spare modes are removed; more help little and amplify rounding


@dataclass(frozen=True, kw_only=True, eq=False)
class FittedAutoencoder(Fitted):
    """A trained dictionary and encoder: what ``SparseAutoencoder.fit`` returns."""

    network: UnrolledEncoder
    active: int
    exchanges: int
    minimum_share: float

    @torch.no_grad()
    def propose(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return the encoder's own code, unpolished: support and amplitude (sample, slot)."""
        top = self.network(features).topk(min(self.active, len(self.dictionary)), dim=1)
        return top.indices, top.values

    @torch.no_grad()
    def encode(self, features: Tensor) -> Tensor:
        """Return loadings (sample, mode) >= 0: the encoder's proposal, polished."""
        support, amplitude = coding.sparse_codes(
            features,
            self.dictionary,
            self.active,
            support=self.propose(features)[0],
            exchanges=self.exchanges,
            minimum_share=self.minimum_share,
        )
        return coding.to_dense(support, amplitude, len(self.dictionary))

    @torch.no_grad()
    def encode_weighted(self, features: Tensor, weight: Tensor) -> Tensor:
        """Return loadings (sample, mode) >= 0: the best few modes for the weighted features."""
        wide = self.dictionary * weight
        length = wide.norm(dim=1)
        unit = wide / torch.where(length > 0, length, 1.0)[:, None]
        support, amplitude = coding.sparse_codes(
            features * weight,
            unit,
            self.active,
            exchanges=self.exchanges,
            minimum_share=self.minimum_share,
        )
        dense = coding.to_dense(support, amplitude, len(self.dictionary))
        return dense / torch.where(length > 0, length, 1.0)

    @torch.no_grad()
    def encode_unpolished(self, features: Tensor) -> Tensor:
        """Return loadings (sample, mode) >= 0 straight from the encoder network."""
        return coding.to_dense(*self.propose(features), len(self.dictionary))


class _Candidate(NamedTuple):
    dictionary: Tensor
    error: float
    epochs: int


@dataclass(frozen=True, kw_only=True)
class SparseAutoencoder(Decomposition):
    """Sparse non-negative modes with free amplitudes.

    x ≈ z D with D (mode, feature) of unit rows, z >= 0, at most ``active`` entries of z above 0.
    Alternates: sparse codes of all samples; each mode solved on the samples that use it, weighted
    w = 1/√(‖x‖² + floor) so that the rare largest samples do not decide alone. The search starts
    from data points in different directions with 1.5 times the modes asked for; after two
    alternations, modes that the others replace at little cost are taken away. The last part of
    the data it is given decides when to stop and which restart is kept. The encoder
    (`UnrolledEncoder`) is then trained to give these codes; when used, its proposal is polished by
    exact amplitudes and a few exchanges.

    Parameters
    ----------
    modes : int
        Largest number of modes.
    active : int
        Largest number of modes of one sample.
    seed : int
    sign_consistent : bool
        True: excitatory entries of a mode are >= 0, inhibitory ones <= 0. False: free.
    minimum_gain : float
        A mode is kept if without it the error would rise by at least this share of the energy.
    minimum_share : float
        A mode is part of a sample if without it the sample's squared error would rise by at
        least this share of the sample's squared length.
    restarts : int
        Independent starts.
    epochs : int
        Largest number of alternations of each start.
    patience : int
        Alternations without a better validation error (by 0.1 %) before stopping.
    exchanges : int
        Largest number of exchanges when a proposed code is polished; see ``sparse_codes``.
    encoder_steps : int
        Steps (layers) of the encoder network.
    encoder_epochs : int
        Passes over the data to train the encoder (Adam, 3e-3 falling to 0 as a cosine).
    batch_size : int
    validation : float
        Share of the fitted samples, at their end, that choose and never train the dictionary.

    References
    ----------
    Melander et al. 2026, decomposition by sparse autoencoder; Aharon, Elad, Bruckstein 2006
    (non-negative K-SVD). Departs from the paper in free amplitudes in place of gates in (0, 1),
    and in how the dictionary is found; ``GatedAutoencoder`` is the published form.
    """

    modes: int = 32
    active: int = 3
    seed: int = 0
    sign_consistent: bool = True
    minimum_gain: float = 1e-3
    minimum_share: float = 2e-3
    restarts: int = 2
    epochs: int = 60
    patience: int = 8
    exchanges: int = 2
    encoder_steps: int = 6
    encoder_epochs: int = 20
    batch_size: int = 128
    validation: float = 0.2

    def __post_init__(self) -> None:
        """Validate the parameters."""
        at_least(self, 1, "modes", "active", "restarts", "epochs", "patience")
        at_least(self, 1, "encoder_steps", "batch_size")
        at_least(self, 0, "exchanges", "encoder_epochs", "minimum_gain", "minimum_share")
        between(self, 0, 1, "validation")

    def fit(self, features: Tensor, *, progress: bool | None = None) -> FittedAutoencoder:
        """Find dictionary and encoder.

        Parameters
        ----------
        features : Tensor (sample, feature), in order of time, dimensionless
            Inhibitory features already turned positive if ``sign_consistent``.
        progress : bool, optional

        Returns
        -------
        FittedAutoencoder
        """
        train, validation = split_samples(features, self.validation)
        if len(train) < 2:
            raise RetinaCodecError(
                f"The fit needs at least 2 training samples; got {len(features)} with "
                f"validation={self.validation}. Give more samples or a smaller held_out."
            )
        if self.sign_consistent and not bool((train > 0).any()):
            raise RetinaCodecError(
                f"The first {len(train)} of {len(features)} samples have no positive feature to "
                "start from. Give samples in which the network is active, or a smaller validation."
            )
        best: _Candidate | None = None
        rounds = progress_bar(
            range(self.restarts * self.epochs), description="modes", progress=progress
        )
        with rounds:
            for restart in range(self.restarts):
                generator = torch.Generator().manual_seed(1000 * self.seed + restart)
                found = self._search(train, validation, generator, rounds.update)
                rounds.update((restart + 1) * self.epochs - rounds.n)
                if best is None or found.error < best.error:
                    best = found
        if best is None:  # restarts >= 1 was checked
            raise RuntimeError("no restart ran")
        network = train_encoder(
            UnrolledEncoder(best.dictionary, self.encoder_steps),
            features,
            coding.sparse_codes(features, best.dictionary, self.active, exchanges=1),
            active=self.active,
            epochs=self.encoder_epochs,
            batch_size=self.batch_size,
            seed=self.seed,
            progress=progress,
        )
        return FittedAutoencoder(
            dictionary=best.dictionary,
            network=network,
            active=self.active,
            exchanges=self.exchanges,
            minimum_share=self.minimum_share,
            epochs=best.epochs,
        )

    def _search(
        self,
        train: Tensor,
        validation: Tensor,
        generator: torch.Generator,
        step: Callable[[], object],
    ) -> _Candidate:
        """Run one start: choose points, alternate, remove spare modes, alternate again."""
        weight = coding.sample_weights(train)
        number = max(self.modes + 4, round(CANDIDATES * self.modes))
        dictionary = coding.choose_directions(
            train, number, generator, non_negative=self.sign_consistent
        )
        rough = min(ROUGH, self.epochs // 2)
        first = self._alternate(train, validation, weight, dictionary, rough, step)
        dictionary = self._prune(train, weight, first.dictionary)
        last = self._alternate(train, validation, weight, dictionary, self.epochs - rough, step)
        return last._replace(epochs=first.epochs + last.epochs)

    def _alternate(
        self,
        train: Tensor,
        validation: Tensor,
        weight: Tensor,
        dictionary: Tensor,
        epochs: int,
        step: Callable[[], object],
    ) -> _Candidate:
        """Alternate codes and dictionary until the validation error falls no more."""
        best = _Candidate(dictionary.clone(), self._error(validation, dictionary), 0)
        codes = self._codes(train, dictionary)
        since = 0
        for epoch in range(1, epochs + 1):
            dictionary, amplitude = self._update(train, dictionary, codes, weight)
            error = self._error(validation, dictionary)
            since = 0 if error < 0.999 * best.error else since + 1
            if error < best.error:
                best = _Candidate(dictionary.clone(), error, epoch)
            step()
            if since >= self.patience:
                break
            codes = self._codes(train, dictionary, (codes[0], amplitude))
        return best

    def _prune(self, train: Tensor, weight: Tensor, dictionary: Tensor) -> Tensor:
        """Remove modes until each lowers the error by ``minimum_gain`` and few enough are left.

        Half of the surplus is removed at once, but never a mode and the one most like it.
        """
        energy = train.square().sum()
        weighted_energy = (weight * train.square().sum(1)).sum()
        codes = self._codes(train, dictionary)
        while len(dictionary) > 1:
            cost, weighted = coding.removal_costs(train, dictionary, *codes, self.active, weight)
            share = torch.maximum(cost / energy, weighted / weighted_energy)  # (mode,)
            excess = len(dictionary) - self.modes
            spare = int((share < self.minimum_gain).sum())
            if spare == 0 and excess <= 0:
                break
            kept = without_cheapest(dictionary, share, max(1, max(spare, excess) // 2))
            dictionary, codes = dictionary[kept], self._codes(train, dictionary[kept])
            for _ in range(2):
                dictionary, amplitude = self._update(train, dictionary, codes, weight)
                codes = self._codes(train, dictionary, (codes[0], amplitude))
        return dictionary

    def _codes(
        self, features: Tensor, dictionary: Tensor, start: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Code samples with one exchange, from nothing or from an earlier code."""
        support, used = (None, None) if start is None else (start[0], start[1] > 0)
        return coding.sparse_codes(
            features, dictionary, self.active, support=support, used=used, exchanges=1
        )

    def _update(
        self, features: Tensor, dictionary: Tensor, codes: tuple[Tensor, Tensor], weight: Tensor
    ) -> tuple[Tensor, Tensor]:
        return coding.update_dictionary(
            features, dictionary, *codes, weight, non_negative=self.sign_consistent
        )

    def _error(self, features: Tensor, dictionary: Tensor) -> float:
        """Weighted squared error of the validation samples."""
        left = features - coding.reconstruct(*self._codes(features, dictionary), dictionary)
        return float((coding.sample_weights(features) * left.square().sum(1)).sum())


def without_cheapest(dictionary: Tensor, cost: Tensor, count: int) -> Tensor:
    """Return the modes (kept,) that are left when up to ``count`` of the cheapest are removed.

    The mode most like a removed one stays, because it takes over its samples.
    """
    likeness = dictionary @ dictionary.T
    heir = likeness.fill_diagonal_(-torch.inf).argmax(1).tolist()
    stays: set[int] = set()
    leaves: set[int] = set()
    for mode in cost.argsort(stable=True).tolist():
        if len(leaves) == count:
            break
        if mode not in stays:
            leaves.add(mode)
            stays.add(heir[mode])
    kept = [mode for mode in range(len(dictionary)) if mode not in leaves]
    return torch.tensor(kept, device=dictionary.device)
