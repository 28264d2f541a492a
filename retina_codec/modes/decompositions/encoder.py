"""Encoder network of the sparse autoencoder: sparse coding, unrolled into learned steps."""

import torch
from torch import Tensor, nn

from retina_codec.modes.decompositions.sparse_coding import sample_weights, to_dense
from retina_codec.progress import progress_bar

__all__ = ["UnrolledEncoder", "train_encoder"]

LEARNING_RATE = 3e-3


class UnrolledEncoder(nn.Module):
    """Estimate the loadings of a sample by a few learned steps of sparse coding.

    u = x / ‖x‖, a₀ = 0, aᵢ₊₁ = ReLU(aᵢ + (u − aᵢ D) Wᵢ − bᵢ), loading = ‖x‖ a: twice the sample
    gives twice the loadings, so rare large samples are as easy as ordinary ones. Wᵢ and bᵢ are
    learned; they start as Wᵢ = Dᵀ/L, bᵢ = 0 (L the largest eigenvalue of D Dᵀ), which is projected
    gradient descent on ‖u − a D‖². D is the decoder's dictionary and is not learned here.

    Parameters
    ----------
    dictionary : Tensor (mode, feature), rows of unit length
    steps : int

    References
    ----------
    Gregor, LeCun 2010, Learning fast approximations of sparse coding.
    """

    dictionary: Tensor

    def __init__(self, dictionary: Tensor, steps: int) -> None:
        super().__init__()
        self.register_buffer("dictionary", dictionary.clone())
        largest = torch.linalg.matrix_norm(dictionary, ord=2) ** 2
        start = dictionary.T / largest
        self.weight = nn.Parameter(start.expand(steps, -1, -1).clone())  # (step, feature, mode)
        self.bias = nn.Parameter(start.new_zeros((steps, len(dictionary))))  # (step, mode)

    def forward(self, samples: Tensor) -> Tensor:
        """Return loadings (sample, mode) >= 0 of samples (sample, feature)."""
        length = samples.norm(dim=1, keepdim=True)
        direction = samples / length.clamp(min=torch.finfo(samples.dtype).tiny)
        loading = samples.new_zeros((len(samples), len(self.dictionary)))
        for weight, bias in zip(self.weight, self.bias, strict=True):
            residual = direction - loading @ self.dictionary
            loading = torch.relu(loading + residual @ weight - bias)
        scaled: Tensor = length * loading
        return scaled


def train_encoder(
    network: UnrolledEncoder,
    features: Tensor,
    codes: tuple[Tensor, Tensor],
    *,
    active: int,
    epochs: int,
    batch_size: int,
    seed: int,
    progress: bool | None = None,
) -> UnrolledEncoder:
    """Train the encoder to give known sparse codes, and through them the samples.

    Loss per sample: w (‖x − z D‖² + ‖a − z*‖²), a the network's output, z its ``active`` largest
    entries, z* the known code, w as in `sample_weights`. Adam, the rate falling as a cosine.

    Parameters
    ----------
    network : UnrolledEncoder
        Trained in place and returned, in evaluation mode and without gradients.
    features : Tensor (sample, feature)
    codes : Tensor (sample, slot) twice
        Support and amplitude of every sample.
    active, epochs, batch_size, seed : int
    progress : bool, optional

    Returns
    -------
    UnrolledEncoder
    """
    dictionary = network.dictionary
    wanted = to_dense(*codes, len(dictionary))
    weight = sample_weights(features)
    weight = weight / (weight * features.square().sum(1)).mean()  # loss 1 at loadings of 0
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, epochs))
    for _ in progress_bar(range(epochs), description="encoder", progress=progress):
        order = torch.randperm(len(features), generator=generator)
        for batch in torch.split(order.to(features.device), batch_size):
            guess = network(features[batch])
            top = guess.topk(min(active, len(dictionary)), dim=1)
            sparse = torch.zeros_like(guess).scatter(1, top.indices, top.values)
            miss = (features[batch] - sparse @ dictionary).square().sum(1)
            loss = (weight[batch] * (miss + (guess - wanted[batch]).square().sum(1))).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
    return network.eval().requires_grad_(False)
