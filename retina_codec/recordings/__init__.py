"""Recordings: stimulus and responses as labelled arrays, from files or from a simulated retina."""

from retina_codec.recordings.files import convert, open_recording, save_recording
from retina_codec.recordings.insilico import simulate_retina
from retina_codec.recordings.nwb import read_nwb, write_nwb
from retina_codec.recordings.schema import make_recording, validate_recording
from retina_codec.recordings.windows import StimulusWindows

__all__ = [
    "StimulusWindows",
    "convert",
    "make_recording",
    "open_recording",
    "read_nwb",
    "save_recording",
    "simulate_retina",
    "validate_recording",
    "write_nwb",
]
