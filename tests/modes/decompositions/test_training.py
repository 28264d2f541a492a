import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau, StepLR

from retina_codec.modes.decompositions.training import (
    TrainedNetwork,
    split_samples,
    train_network,
)


class Scale(TrainedNetwork):
    """x̂ = w x: after t steps of size 1 on |w − 3|, w = t."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.calls = []

    def rebuild(self, samples):
        self.calls.append("train" if self.training else "judge")
        return self.weight * samples

    def loss(self, samples):
        self.calls.append("loss")
        return (self.weight - 3).abs() + 0 * samples.sum()

    def constrain(self):
        self.calls.append("constrain")
        assert not torch.is_grad_enabled()

    def end_epoch(self):
        self.calls.append("end")


def fit(network, epochs, optimizer, scheduler=None, batch_size=4):
    samples = torch.ones(4, 1)
    return train_network(
        network,
        samples,
        2 * samples,
        scheduler=scheduler or StepLR(optimizer, 1000),
        epochs=epochs,
        batch_size=batch_size,
        description="scale",
        progress=False,
    )


def test_the_state_of_the_best_epoch_is_kept():
    network = Scale()
    assert fit(network, 2, torch.optim.SGD(network.parameters(), lr=1.0)) == 1  # w = 1 rebuilds
    assert float(network.weight) == 1
    assert not network.weight.requires_grad
    assert not network.training


def test_each_step_is_constrained_and_each_epoch_judged():
    network = Scale()
    fit(network, 2, torch.optim.SGD(network.parameters(), lr=1.0), batch_size=2)
    assert network.calls == (["loss", "constrain"] * 2 + ["end", "judge"]) * 2


def test_a_loss_that_is_never_finite_keeps_the_start():
    network = Scale()
    network.loss = lambda samples: network.weight * samples.sum() * float("nan")
    assert fit(network, 3, torch.optim.SGD(network.parameters(), lr=1.0)) == 0
    assert float(network.weight) == 0


def test_the_rate_falls_after_epochs_without_a_better_loss():
    network = Scale()
    network.loss = lambda samples: 0 * network.weight + samples.sum()
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    fit(network, 4, optimizer, ReduceLROnPlateau(optimizer, factor=0.5, patience=1))
    assert optimizer.param_groups[0]["lr"] == 0.5


@pytest.mark.parametrize(
    ("count", "validation", "train"), [(10, 0.2, 8), (10, 0.01, 9), (1, 0.2, 0), (0, 0.2, 0)]
)
def test_the_last_samples_judge(count, validation, train):
    features = torch.arange(count)[:, None]
    first, last = split_samples(features, validation)
    assert first[:, 0].tolist() == list(range(train))
    assert last[:, 0].tolist() == list(range(train, count))
