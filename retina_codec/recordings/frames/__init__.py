"""Frames of a stimulus, read when asked for."""
