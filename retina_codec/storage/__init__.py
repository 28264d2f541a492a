"""Storage: trees, HDF5 files, resumable runs and provenance."""
