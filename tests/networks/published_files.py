"""Small checkpoints in the published form, with random weights."""

from collections import OrderedDict

import numpy as np
import torch

from tests.reference.published_networks import LAYOUTS

CENTERS = np.array([[6, 7], [8, 9], [13, 2]])
KERNELS = [5, 5, 3]


def small_state(shapes, seed=0):
    """Random weights by name; variances positive, scales of both signs."""
    random = np.random.default_rng(seed)
    state = OrderedDict()
    for key, shape in shapes.items():
        values = random.normal(size=shape) / np.sqrt(max(np.prod(shape[1:]), 4))
        if key.endswith("running_var"):
            values = 0.5 + random.random(shape)
        if key.endswith("num_batches_tracked"):
            state[f"sequential.{key}"] = torch.tensor(7)
            continue
        if key.endswith("sigma"):
            values = np.array([0.05])
        state[f"sequential.{key}"] = torch.tensor(values, dtype=torch.float32)
    return state


def small_checkpoint(layout="published", seed=0, **changes):
    """A checkpoint as the training wrote it; ``changes`` are settings."""
    model_type, settings, shapes, _ = LAYOUTS[layout]
    hyps = {
        "dataset": "15-10-07",
        "cells": [2, 4, 9],
        "stim_type": "naturalscene",
        "img_shape": (4, 14, 14),
        "chans": [3, 2],
        "ksizes": KERNELS,
        "n_units": 3,
        "noise": 0.05,
        "centers": CENTERS,
        "softplus": True,
        "seed": 1582749400,
        "exp_name": "small",
        **settings,
        **changes,
    }
    return {
        "model_type": model_type,
        "model_state_dict": small_state(shapes, seed),
        "hyps": hyps,
        "norm_stats": {"mean": np.float32(51.25), "std": np.float32(53.5)},
        "zero_dict": {"sequential.0": set(), "sequential.4": set()},
        "y_stats": {"mean": None, "std": None},
        "epoch": 64,
        "test_pearson": np.float64(0.75),
        **{key: value for key, value in hyps.items() if key not in ("noise",)},
    }


def write(checkpoint, path, *, legacy=False):
    torch.save(checkpoint, path, _use_new_zipfile_serialization=not legacy)
    return path


def arrays(checkpoint):
    """The weights as float64 arrays, names without the prefix."""
    state = checkpoint["model_state_dict"]
    return {key.removeprefix("sequential."): v.double().numpy() for key, v in state.items()}
