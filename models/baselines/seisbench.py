"""SeisBench's networks, imported only where one is built: the import takes seconds."""

import warnings
from types import ModuleType


def networks() -> ModuleType:
    """``seisbench.models`` (Woollam et al. 2022, doi:10.1785/0220210324; licence GPLv3).

    What its import warns of (escape sequences of its docstrings, deprecations of its dependencies) is not the caller's.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        import seisbench.models as models
    return models
