"""Objectives, one a file; where parts meet (``build``); the LightningModule (``module``)."""
