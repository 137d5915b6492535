"""Backbones: tokens to context, one a file."""
