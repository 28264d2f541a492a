"""The one error that a user can cause, so that a caller can catch it and nothing else."""

__all__ = ["RetinaCodecError"]


class RetinaCodecError(ValueError):
    """Bad input: the message says what must hold, what came, and the way out."""
