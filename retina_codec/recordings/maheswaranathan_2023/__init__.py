"""The published recordings of Maheswaranathan et al. 2023."""
