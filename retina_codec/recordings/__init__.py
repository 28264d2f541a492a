"""Recordings: stimulus and responses as labelled arrays, from files or from a simulated retina.

Names are loaded when they are first used: opening a file needs neither torch nor a circuit.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retina_codec.recordings.files import convert, open_recording, save_recording
    from retina_codec.recordings.generators import SeededFrames, register_generator
    from retina_codec.recordings.insilico import simulate_retina
    from retina_codec.recordings.interneurons import read_interneurons
    from retina_codec.recordings.leakage import find_leakage
    from retina_codec.recordings.maheswaranathan import read_maheswaranathan
    from retina_codec.recordings.nwb import read_nwb, write_nwb
    from retina_codec.recordings.quality import measure_quality
    from retina_codec.recordings.schema import make_recording, validate_recording
    from retina_codec.recordings.smoothing import smooth_rates
    from retina_codec.recordings.windows import StimulusWindows

_HOMES = {
    "SeededFrames": "generators",
    "StimulusWindows": "windows",
    "convert": "files",
    "find_leakage": "leakage",
    "make_recording": "schema",
    "measure_quality": "quality",
    "open_recording": "files",
    "read_interneurons": "interneurons",
    "read_maheswaranathan": "maheswaranathan",
    "read_nwb": "nwb",
    "register_generator": "generators",
    "save_recording": "files",
    "simulate_retina": "insilico",
    "smooth_rates": "smoothing",
    "validate_recording": "schema",
    "write_nwb": "nwb",
}

__all__ = [
    "SeededFrames",
    "StimulusWindows",
    "convert",
    "find_leakage",
    "make_recording",
    "measure_quality",
    "open_recording",
    "read_interneurons",
    "read_maheswaranathan",
    "read_nwb",
    "register_generator",
    "save_recording",
    "simulate_retina",
    "smooth_rates",
    "validate_recording",
    "write_nwb",
]


def __getattr__(name: str) -> Any:
    """Load a name from its file."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
