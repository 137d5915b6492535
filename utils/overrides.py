"""The command line's own words: sound ones made fit for Hydra, mistyped ones told, stated settings told from defaults."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from omegaconf import OmegaConf

from utils.config import CONFIGS, PARTS
from utils.errors import did_you_mean

SWITCHES = {"plan": "enabled"}
"""Sections that their own name switches on: ``plan=true`` is ``plan.enabled=true``."""


def lenient(arguments: Sequence[str]) -> list[str]:
    """Command-line overrides with ``++`` before every ``key=value`` that chooses no config group.

    Hydra refuses an unknown key at the first one, with its own words; with ``++`` all of them reach :func:`root_mistakes`
    and the registries, which name every mistake at once and what would have worked.
    """
    groups = {str(path.relative_to(CONFIGS)) for path in CONFIGS.rglob("*") if path.is_dir()}
    return [_lenient(argument, groups) for argument in arguments]


def _lenient(argument: str, groups: set[str]) -> str:
    key, sign, value = argument.partition("=")
    if sign and key in SWITCHES:
        return f"++{key}.{SWITCHES[key]}={value}"
    special = not sign or key.startswith(("-", "+", "~", "hydra")) or "@" in key or key in groups
    return argument if special else f"++{argument}"


def unknown_choices(arguments: Sequence[str]) -> list[str]:
    """Mistyped choices of a config group (``encoder=conv-dwon``), each with the nearest one and all that there are.

    Told here since Hydra stops at the first, in its own words and without the names in sub-folders.
    """
    wrong = []
    for argument in arguments:
        group, sign, choice = argument.lstrip("+").partition("=")
        folder = CONFIGS / group
        if sign and group and not group.startswith("hydra") and folder.is_dir():
            known = sorted(str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.yaml"))
            wrong += [
                f"{group}: no '{name}'.{did_you_mean(name, known)} Known: {', '.join(known)}"
                for name in choice.strip("[]").split(",")
                if name.strip() not in known
            ]
    return wrong


def explicit_settings(overrides: Iterable[str], experiment: str) -> set[str]:
    """Dotted names of the part settings that a person stated: on the command line, or in the experiment's own YAML.

    Args:
        overrides: command-line overrides, with or without ``+``.
        experiment: name of the experiment, e.g. ``contrastive/small``.

    Returns:
        e.g. ``{"model.d_model", "encoder._name_"}``; ``_name_`` stands for the choice of a part.
    """
    stated: set[str] = set()
    for override in overrides:
        key = override.lstrip("+").partition("=")[0]
        stated.add(f"{key}._name_" if key in PARTS else key)
    return stated | _stated_by(CONFIGS / "experiment" / f"{experiment}.yaml")


def _stated_by(path: Path) -> set[str]:
    """Part settings in an experiment's YAML and in those it builds on."""
    if not path.is_file():
        return set()
    recipe = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(recipe, dict)
    stated = {f"{part}.{key}" for part in PARTS for key in (recipe.get(part) or {})}
    for line in recipe.get("defaults", []):
        if isinstance(line, dict):
            group = str(next(iter(line))).removeprefix("override ").lstrip("/")
            stated |= {f"{group}._name_"} if group in PARTS else set()
        else:
            stated |= _stated_by(CONFIGS / "experiment" / f"{line}.yaml")
    return stated
