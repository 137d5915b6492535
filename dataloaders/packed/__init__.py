"""Packed sets: any SeisBench set at 100 Hz in float16, in checksummed shards, for training on millions of traces.

A folder holds ``manifest.json`` (what is there, with size and SHA-256 of every file), ``shards/*.f16`` (samples, trace after
trace, each component in one piece), ``traces.npy`` (where each trace lies, its split and event, its scales and offsets),
``arrivals.npy``, and the original metadata with samples counted at 100 Hz. It is used like the set it was made from.
"""
