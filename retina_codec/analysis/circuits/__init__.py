"""Circuits: what acts on the target through which units of successive layers."""
