"""Published retina networks, read without running them."""
