"""Neurodata Without Borders."""
