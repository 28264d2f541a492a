"""Figures of the retina."""
