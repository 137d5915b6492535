"""What every checkpoint says of itself: the record, its schema, and how records of earlier schemas become present ones."""

import subprocess
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from utils.errors import CheckpointError

KEY = "wavexlstm"
"""Where a checkpoint holds its record."""
SCHEMA = 1
"""Of records written now. It grows by one when a reader of today could not use what is written, with an entry below."""
Migration = Callable[[dict[str, Any]], dict[str, Any]]
"""A checkpoint's content of one schema to that of the next: the record, and weights where their names change; no I/O."""
MIGRATIONS: dict[int, Migration] = {}
"""By the schema they start from, each a named function. None so far: there has been one schema. What records of it gained
(``lineage``, ``config["init"]``) is read with what earlier versions meant."""
_PACKAGES = ("torch", "pytorch-lightning", "hydra-core", "seisbench", "xlstm", "mlstm_kernels", "triton", "numpy")


@cache
def commit() -> str:
    """The project's commit, with ``+`` where the tree is changed; ``unknown`` outside a git checkout."""
    root = Path(__file__).resolve().parent.parent
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=True).stdout.strip()
        dirty = subprocess.run(
            ["git", "status", "--porcelain"], cwd=root, capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head + ("+" if dirty else "")


def versions() -> dict[str, str]:
    """Installed versions of the packages that decide what a run computes."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return found


def record(config: Mapping[str, Any], data_spec: Mapping[str, Any], lineage: Sequence[str] = ()) -> dict[str, Any]:
    """What every checkpoint carries besides weights: plain builtins, so that it loads with ``weights_only=True``."""
    return {
        "schema": SCHEMA,
        "config": dict(config),
        "data_spec": dict(data_spec),
        "lineage": list(lineage),
        "commit": commit(),
        "versions": versions(),
    }


def upgraded(content: Any, where: str) -> dict[str, Any]:
    """A checkpoint's content with its record in the present schema.

    Args:
        content: as read, whatever it is.
        where: names it in errors.

    Raises:
        CheckpointError: it has no record of a run, or one of a schema that this version cannot read.
    """
    own = _own(content, where)
    schema = own.get("schema")
    while isinstance(schema, int) and schema < SCHEMA and schema in MIGRATIONS:
        content = MIGRATIONS[schema](content)
        schema += 1
        own = _own(content, where)
        own["schema"] = schema
    if own.get("schema") != SCHEMA or not {"config", "data_spec"} <= set(own):
        raise CheckpointError(
            f"{where}: schema {own.get('schema')!r}, this version reads whole records of schema "
            f"{', '.join(map(str, (*sorted(MIGRATIONS), SCHEMA)))}."
        )
    return content


def _own(content: Any, where: str) -> dict[str, Any]:
    own = content.get(KEY) if isinstance(content, dict) else None
    if not isinstance(own, dict) or not isinstance(content.get("state_dict"), dict):
        raise CheckpointError(f"{where}: no record of a WaveXLSTM run in it. Use a checkpoint that train.py wrote.")
    return own
