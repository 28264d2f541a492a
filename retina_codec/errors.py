"""The one error that a user can cause, so that a caller can catch it and nothing else."""

__all__ = ["RecordingWarning", "RetinaCodecError"]


class RetinaCodecError(ValueError):
    """Bad input: the message says what must hold, what came, and the way out."""


class RecordingWarning(UserWarning):
    """A recording was read, and something about it deserves a look."""
