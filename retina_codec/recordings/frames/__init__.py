"""Frames of a stimulus, read when they are used."""
