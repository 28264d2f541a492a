"""The three-layer network of the retina."""
