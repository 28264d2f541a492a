"""A simulated retina whose circuit is known."""
