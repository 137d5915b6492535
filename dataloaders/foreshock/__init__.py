"""Foreshocks and aftershocks: reading the published data without running them, classes and splits in time.

Reading order: ``inert`` unpickles without executing; ``frames`` reads columns out of what came; ``records`` decides which rows
are usable; ``write`` makes a set in SeisBench's format of them; ``classes`` are pure
functions from times to classes and splits, which ``sequence`` applies to the traces of a source.
"""
