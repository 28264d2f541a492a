"""A language model: sentences with a known structure, contributions, modes, ablation."""
