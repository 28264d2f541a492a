"""The error for all bad input, and the warning for recordings."""

__all__ = ["RecordingWarning", "RetinaCodecError"]


class RetinaCodecError(ValueError):
    """Bad input: the message says what must hold, what came, and the way out."""


class RecordingWarning(UserWarning):
    """A recording was read, but something in it should be checked."""
