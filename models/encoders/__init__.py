"""Encoders: wave to tokens, one a file."""
