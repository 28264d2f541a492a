"""Networks that take pictures."""
