"""Contributions: how much each hidden unit acted, for any network and any target."""
