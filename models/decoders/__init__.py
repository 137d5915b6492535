"""Decoders: context to predictions at the sampling rate, one a file."""
