"""Sources of waveforms, one a file."""
