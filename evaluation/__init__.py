"""Protocols, metrics and reports: what a trained model is worth."""
