"""Other people's models behind our contracts: what they need beside the parts in ``backbones/``."""
