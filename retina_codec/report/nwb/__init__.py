"""Results in NWB files."""
