"""Train the network of the simulated retina and write models/insilico with its card.

    python models/train_insilico.py --out models/insilico

The train movie (60 min) and the test movie on which the card's numbers are measured are not those
of the demo: the same retina, another movie.
"""

import argparse
import sys

import numpy as np
import torch
import xarray as xr

import retina_codec as rc
from retina_codec.analysis.statistics import noise_ceiling, pearson
from retina_codec.networks.evaluation import predict_rates

RETINA_SEED = 0
STIMULUS_SEED = 1000


def quality(network: rc.RetinaCNN, recording: xr.DataTree) -> xr.Dataset:
    """Held-out agreement per cell: r with the repeat mean, its ceiling, r with the true rate."""
    test = recording["test"]
    prediction = predict_rates(network, test)
    time_cut = {"time": slice(network.history, None)}
    rate = test["rate"].isel(time_cut)
    true = test["expected_rate"].isel(time_cut)
    repeats = recording["test/repeats"]["rate"].isel(time_cut)
    return xr.Dataset(
        {
            "pearson": pearson(prediction, rate),
            "noise_ceiling": noise_ceiling(repeats),
            "pearson_noise_free": pearson(prediction, true),
        }
    )


def card(network: rc.RetinaCNN, found: xr.Dataset, minutes: float, settings: dict) -> str:
    """Markdown: how trained, how long, how good."""
    record = network.training_record
    rows = [
        f"| {int(cell)} | {kind} | {r:.3f} | {top:.3f} | {100 * r / top:.0f} % | {true:.3f} |"
        for cell, kind, r, top, true in zip(
            found["cell"].values,
            found["type"].values,
            found["pearson"].values,
            found["noise_ceiling"].values,
            found["pearson_noise_free"].values,
            strict=True,
        )
    ]
    mean, ceiling = float(found["pearson"].mean()), float(found["noise_ceiling"].mean())
    share = float((found["pearson"] / found["noise_ceiling"]).mean())
    losses = ", ".join(f"{loss:.5f}" for loss in record["validation_loss"])
    return f"""# insilico: the network of the simulated retina

A three-layer convolutional network (Maheswaranathan et al. 2023: 8 channels in the first two
layers, kernels 15, 11, 11, history 40 frames of 50 × 50 px at 100 Hz) fitted to the spikes of 16
ganglion cells of `rc.simulate_retina(seed={RETINA_SEED})`.

## How it was trained

- `python models/train_insilico.py --out models/insilico`
- data: {settings["train_duration"]:g} s of natural scenes (`stimulus_seed={STIMULUS_SEED}`), one
  presentation, spike counts in 10 ms bins; the last
  {100 * record["settings"]["validation"]:g} % are the validation part
- loss: Poisson; AdamW, {record["settings"]["epochs"]} epochs of
  {record["settings"]["windows_per_epoch"]} windows, batch {record["settings"]["batch_size"]}, peak
  learning rate {record["settings"]["learning_rate"]:g}, weight decay
  {record["settings"]["weight_decay"]:g}, no noise before the rectifiers, seed
  {record["settings"]["seed"]}
- validation loss per epoch (nats per bin and cell): {losses}; epoch {record["best_epoch"] + 1} kept
- time: {minutes:.0f} minutes on 2 CPU cores (shared with other work), PyTorch {torch.__version__}

## How good it is

On a test movie of {settings["test_duration"]:g} s that the training never saw (other parts of the
photographs), {settings["repeats"]} repeats. `r` is Pearson's with the mean over repeats in 10 ms
bins, not smoothed; the ceiling is the highest r that any prediction can have with so many repeats
(Sahani and Linden 2003); the last column is r with the noise-free rate, which only a simulation
knows.

Mean r = {mean:.3f}, mean ceiling = {ceiling:.3f}, mean of r / ceiling = {100 * share:.0f} %; mean
r with the noise-free rate = {float(found["pearson_noise_free"].mean()):.3f}.

| cell | type | r | ceiling | r / ceiling | r, noise-free |
|---|---|---|---|---|---|
{chr(10).join(rows)}

## Doubts

- The retina is simulated; nothing here is evidence about a real one.
- Slow adaptation beyond 400 ms cannot be learned from a window of 40 frames.
"""


def main(arguments: list[str] | None = None) -> int:
    """Simulate, fit, measure, save."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", default="models/insilico")
    parser.add_argument("--train-duration", type=float, default=3600.0, help="s")
    parser.add_argument("--test-duration", type=float, default=60.0, help="s")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--windows-per-epoch", type=int, default=60_000)
    parser.add_argument("--resume", default=None, help="file that keeps the training's state")
    parser.add_argument("--overwrite", action="store_true")
    chosen = parser.parse_args(arguments)
    settings = {
        "train_duration": chosen.train_duration,
        "test_duration": chosen.test_duration,
        "repeats": chosen.repeats,
    }
    recording, _ = rc.simulate_retina(RETINA_SEED, stimulus_seed=STIMULUS_SEED, **settings)
    network = rc.fit_network(
        recording,
        noise=0.0,
        settings=rc.TrainingSettings(
            epochs=chosen.epochs,
            windows_per_epoch=chosen.windows_per_epoch,
            learning_rate=3e-3,
            validation=0.05,
        ),
        resume=chosen.resume,
    )
    minutes = network.training_record["seconds"] / 60
    found = quality(network, recording)
    text = card(network, found, minutes, settings)
    rc.save_network(network, chosen.out, card=text, overwrite=chosen.overwrite)
    print(f"mean r / ceiling: {float(np.mean(found['pearson'] / found['noise_ceiling'])):.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
