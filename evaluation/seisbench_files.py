"""Where SeisBench keeps a model: ``<name>.json`` (its settings) and ``<name>.pt`` (weights), with or without ``.v<version>``."""

from pathlib import Path

from utils.errors import CheckpointError


def locate(path: Path, version: str | None) -> tuple[Path, str | None]:
    """``folder/name`` of a model, and its version.

    Args:
        path: ``folder/name``, one of the two files, or a folder that holds one model.
        version: as given; None is the file without a version, else the newest.

    Raises:
        CheckpointError: no such model, or several in the folder.
    """
    if path.is_dir():
        names = sorted({file.name.partition(".json")[0] for file in path.glob("*.json*")})
        if len(names) != 1:
            raise CheckpointError(f"{path}: holds {len(names)} models ({', '.join(names) or 'none'}). Give folder/name of one.")
        path = path / names[0]
    for kind in (".json", ".pt"):
        stem, found, rest = path.name.rpartition(kind)
        if found and (not rest or rest.startswith(".v")):
            path, version = path.with_name(stem), rest.removeprefix(".v") or version
    if version is None and not path.with_name(f"{path.name}.json").is_file():
        files = path.parent.glob(f"{path.name}.json.v*")
        versions = [file.name.rpartition(".json.v")[2] for file in files]
        if not versions:
            raise CheckpointError(f"{path}.json.v1: no such model. Make one: python -m evaluation.export checkpoint=… output=…")
        version = max(versions, key=lambda each: [int(part) if part.isdigit() else 0 for part in each.split(".")])
    return path, version
