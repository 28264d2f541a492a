"""Probing: run any network with its layers in view, borrow it, hold channels back."""
