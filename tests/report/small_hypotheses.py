"""Hypotheses as `hypothesize` gives them, written by hand."""

import numpy as np
import xarray as xr

NAN, INF = float("nan"), float("inf")
TYPES = ["on", "off", "on", "off", "slow"]


def hypotheses(rows: int = 2) -> xr.Dataset:
    """Return rows of falling information for five cells; the second row has nothing to show."""
    change = np.zeros((rows, 5))
    change[0] = [-4.0, 1.5, -2.0, 0.1, 0.0]
    affected = np.zeros((rows, 5), bool)
    affected[0, :3] = True

    def each(first, second, rest=None):
        return "hypothesis", np.array([first, second, *[second if rest is None else rest] * rows])[
            :rows
        ]

    return xr.Dataset(
        {
            "statement": each("Silencing them lowers cell a.", "Silencing them changes nothing."),
            "layer": each("conv1", "conv2"),
            "channels": each("3, 0", "1"),
            "silenced": each("conv1: 0, 3, 5", "conv2: 1"),
            "modes": each("2", ""),
            "pathways": each("0", "1, 0"),
            "polarity": each("OFF", "none"),
            "peak_lag": each(0.08, NAN),
            "biphasic_index": each(0.7, NAN),
            "width": each(3.4, NAN),
            "interneuron": each("fast bipolar", ""),
            "match": each(0.871, NAN),
            "match_p_value": each(0.04, NAN),
            "second_interneuron": each("amacrine", ""),
            "second_match": each(-0.252, NAN),
            "segment_start": each(12.34, 0.0),
            "segment_duration": each(1.0, 1.0),
            "segment_repeats": each(1.0, INF),
            "best_stimulus": each("OFF flash", "ON flash"),
            "stimulus_repeats": each(12.0, NAN),
            "information": ("hypothesis", 12.04 - np.arange(rows)),
            "change": (("hypothesis", "cell"), change),
            "change_low": (("hypothesis", "cell"), change - 0.5),
            "change_high": (("hypothesis", "cell"), change + 0.25),
            "affected": (("hypothesis", "cell"), affected),
            "rate": ("cell", np.full(5, 8.0)),
        },
        coords={
            "hypothesis": np.arange(rows),
            "cell": list("abcde"),
            "type": ("cell", TYPES),
        },
        attrs={
            "split": "test",
            "threshold": 0.1,
            "significance": 0.05,
            "power": 0.8,
            "duration": 58.0,
        },
    )


def timed(rows: int = 2) -> xr.Dataset:
    """Return the same with changes that are claimed for the events of a mode."""
    found = hypotheses(rows)
    start, stop = np.full((2, rows, 3), NAN)
    start[0], stop[0] = [1.0, 7.5, NAN], [1.5, 9.0, NAN]
    elsewhere = np.zeros((rows, 5))
    elsewhere[0] = [-0.5, 0.25, -0.3, 0.0, 0.0]
    return found.assign(
        event_start=(("hypothesis", "event"), start),
        event_stop=(("hypothesis", "event"), stop),
        change_elsewhere=(("hypothesis", "cell"), elsewhere),
        event_repeats=("hypothesis", np.full(rows, 2.0)),
        support=("hypothesis", ["conv1 modes 2; conv2 modes 4, 0; conv2 pathways 1"] * rows),
        event_source=("hypothesis", ["conv1 mode 2", *["conv2 pathway 1"] * (rows - 1)]),
    ).assign_attrs(when="active")


def channels() -> xr.Dataset:
    """What two channels see."""
    course = np.array([[-1.0, 0.5, 0.0, 0.0], [0.0, 0.0, 0.25, 1.0]])
    field = np.zeros((2, 3, 3))
    field[:, 1, 1], field[:, 0, 2] = 1.0, -0.5
    return xr.Dataset(
        {
            "time_course": (("channel", "lag"), course),
            "field": (("channel", "field_y", "field_x"), field),
        },
        coords={
            "channel": ["conv1/3", "conv2/1"],
            "lag": [0.01, 0.02, 0.03, 0.04],
            "field_y": [-1, 0, 1],
            "field_x": [-1, 0, 1],
        },
    )
