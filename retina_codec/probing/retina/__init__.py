"""The retina network in less time."""
