"""Sets of traces on disk in SeisBench's format: finding, indexing, splitting and reading them, without importing SeisBench."""
