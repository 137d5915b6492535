"""Quantizers: features to codes, one a file."""
