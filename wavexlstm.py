"""The public face of WaveXLSTM for notebooks and scripts."""
