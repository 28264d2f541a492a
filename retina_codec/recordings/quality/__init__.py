"""Whether a recording can be trusted."""
