"""Pictures of the paper's figures."""
