"""Modes and classes."""
