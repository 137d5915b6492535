"""Where SeisBench keeps a model: ``<name>.json`` (its settings) and ``<name>.pt`` (weights), with or without ``.v<version>``.

Licence: as :mod:`evaluation.seisbench_model`.
"""

import json
from pathlib import Path
from typing import Any, TypeVar

from seisbench.models import WaveformModel

from utils.checkpoint_weights import SUFFIX
from utils.errors import CheckpointError, did_you_mean

Model = TypeVar("Model", bound="SavedModel")

REQUIRES = "0.10.0"
"""Oldest SeisBench an exported model asks for: the oldest this project installs with."""


def locate(path: Path, version: str | None) -> tuple[Path, str | None]:
    """``folder/name`` of a model, and its version.

    Args:
        path: ``folder/name``, one of the two files, or a folder that holds one model.
        version: as given; None is the file without a version, else the newest.

    Raises:
        CheckpointError: no such model, or several in the folder.
    """
    if path.is_dir():
        names = sorted({file.name.rpartition(".pt")[0] for file in path.glob("*.pt*")})  # JSON may be of other things
        if len(names) != 1:
            raise CheckpointError(f"{path}: holds {len(names)} models ({', '.join(names) or 'none'}). Give folder/name of one.")
        path = path / names[0]
    for kind in (".json", ".pt"):
        stem, found, rest = path.name.rpartition(kind)
        if found and (not rest or rest.startswith(".v")):
            path, version = path.with_name(stem), rest.removeprefix(".v") or version
    if version is None and not path.with_name(f"{path.name}.pt").is_file():
        files = path.parent.glob(f"{path.name}.json.v*")
        versions = [file.name.rpartition(".json.v")[2] for file in files]
        if not versions:
            raise CheckpointError(f"{path}.json.v1: no such model. Make one: python -m evaluation.export checkpoint=… output=…")
        version = max(versions, key=lambda each: [int(part) if part.isdigit() else 0 for part in each.split(".")])
    return path, version


def shared_weights(path: Path) -> Path | None:
    """The file of weights that ``python -m utils.checkpoint_show export=`` wrote, where a path means one.

    Args:
        path: the file; its JSON, their common name, or a folder of them, where no SeisBench model and no checkpoint has that
            place.

    Raises:
        CheckpointError: a folder holds several, or a JSON has no weights beside it.
    """
    if path.suffix == SUFFIX:
        return path
    if path.is_dir():
        found = sorted(path.glob(f"*{SUFFIX}"))
        if not found or any(path.glob("*.pt*")) or any(path.rglob("*.ckpt")):
            return None
        if len(found) > 1:
            names = ", ".join(file.name for file in found)
            raise CheckpointError(f"{path}: holds {len(found)} files of weights ({names}). Give one of them.")
        return found[0]
    base = path.with_suffix("") if path.suffix == ".json" else path
    weights = base.with_name(base.name + SUFFIX)
    rivals = ".pt" if path.suffix == ".json" else ".pt*"  # name.json is not of name.pt.v1
    if path.suffix == ".ckpt" or any(base.parent.glob(f"{base.name}{rivals}")):
        return None
    if path.suffix == ".json" and path.is_file() and not weights.is_file():
        raise CheckpointError(f"{path}: its weights, {weights.name} or {base.name}.pt, are not beside it. Copy both files.")
    return weights if weights.is_file() else None


class SavedModel(WaveformModel):
    """SeisBench's ``save``, ``load`` and ``from_pretrained``: float32 files, clear errors, no downloads, no pickled code."""

    def save(self, path: str | Path, weights_docstring: str = "", version_str: str | None = None) -> None:
        """Write ``<path>.json`` and ``<path>.pt`` (``.v<version_str>``): float32 on the CPU, wherever the model is."""
        device, dtype = self.device, next(self.parameters()).dtype
        try:
            self.float().cpu()
            super().save(path, weights_docstring, version_str)
        finally:
            self.to(device, dtype)
        about, _ = self._get_weights_file_paths(path, version_str)
        content = json.loads(about.read_text()) | {"seisbench_requirement": REQUIRES}
        about.write_text(json.dumps(content, indent=2) + "\n")

    @classmethod
    def from_pretrained(cls: type[Model], name: str, version_str: str = "latest", **kwargs: Any) -> Model:
        """The model of that name in SeisBench's cache, where ``evaluation.export … cache=true`` writes. Nothing is downloaded.

        Args:
            name: of the model.
            version_str: latest, or a version.
            kwargs: SeisBench's ``update``, ``force``, ``wait_for_file``, without effect.

        Raises:
            CheckpointError: no such model; lists those that are there.
        """
        versions = cls.list_versions(name)
        if not versions or version_str not in ("latest", *versions):
            known = cls.list_pretrained()
            raise CheckpointError(
                f"{cls._model_path()}: no model '{name}'{f' of version {version_str}' if versions else ''}."
                f"{did_you_mean(name, known)} It holds: {', '.join(known) or 'none'}. "
                "Make one: python -m evaluation.export checkpoint=… output=… cache=true"
            )
        return super().from_pretrained(name, version_str)

    @classmethod
    def list_pretrained(cls, details: bool = False, remote: bool = True) -> list[str] | dict[str, str]:
        """Models in SeisBench's cache, on request with their descriptions; ``remote`` is without effect: there are no others."""
        return super().list_pretrained(details, remote=False)

    @classmethod
    def list_versions(cls, name: str, remote: bool = True) -> list[str]:
        """Versions of a model in SeisBench's cache."""
        return super().list_versions(name, remote=False)

    @classmethod
    def load(cls: type[Model], path: str | Path, version_str: str | None = None, **kwargs: Any) -> Model:
        """Load what :meth:`save` or ``evaluation.export`` wrote.

        Args:
            path: ``folder/name``, one of the two files, or a folder that holds one model.
            version_str: None is the file without a version, else the newest.
            kwargs: go to ``torch.load``.

        Raises:
            CheckpointError: no such model, or several in the folder.
        """
        base, version = locate(Path(path).expanduser(), version_str)
        return super().load(base, version, **{"map_location": "cpu", "weights_only": True, **kwargs})
