"""Cells grouped by the modes that drive them."""
