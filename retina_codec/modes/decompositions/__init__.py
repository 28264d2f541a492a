"""Decompositions: ways to find modes."""
