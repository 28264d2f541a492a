"""Layers compared: sparsity, dimensionality, agreement."""
