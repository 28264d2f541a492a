"""Statistics: correlations, intervals, clusters and power."""
