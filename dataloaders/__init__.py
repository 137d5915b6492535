"""Waveforms in: sources, windows, batches. Knows nothing of models."""
