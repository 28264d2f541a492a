"""Receptive fields by active mode."""
