"""Write docs/configs.md from the registries: ``python -m scripts.document_configs [--check]``.

Names, types, choices and texts come from the config dataclasses and their field docstrings, values from ``configs/``: what a
run gets that states nothing. With ``--check`` nothing is written, and the exit code is 1 where the file is not what would be.
"""

import argparse
import ast
import dataclasses
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from omegaconf import OmegaConf

from tasks.build import REGISTRIES
from utils.config import CONFIGS, SECTIONS, RunConfig

TARGET = CONFIGS.parent / "docs" / "configs.md"
INTRODUCTION = """\
# Settings

Written by `python -m scripts.document_configs` from the code; change the code, then run it again.

A run's config has one node a part (`encoder`, `model`, `decoder`, `quantizer`, `loss`, `task`, `dataset`, `optimizer`,
`scheduler`) and a few sections (`train`, `loader`, `trainer`, `logger`, `checkpoint`, `pictures`, `init`). On the command line

- `group=name` chooses a part: `python train.py experiment=reconstruction/small dataset=synthetic`;
- `group.setting=value` changes a setting: `python train.py optimizer.lr=1e-3 trainer.max_steps=200`;
- lists are written in brackets and quoted against the shell: `python train.py 'model.pool=[2,2]'`.

The order of strength: command line, experiment, group file, dataclass. The column *value* is what a run gets that states nothing;
experiments state their own, see [the experiments](#experiment). Unknown names, unknown settings, wrong types and values out of
range are all reported at once, before data or a device is touched.
"""


def field_texts(config: type) -> dict[str, str]:
    """Docstrings of a dataclass's fields, over its bases, by name; a nearer class wins."""
    texts: dict[str, str] = {}
    for base in reversed(config.__mro__):
        if dataclasses.is_dataclass(base):
            body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
            assert isinstance(body, ast.ClassDef)
            for line, after in zip(body.body, body.body[1:], strict=False):
                if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and isinstance(after, ast.Expr):
                    texts[line.target.id] = _cell(inspect.cleandoc(ast.literal_eval(after.value)))
    return texts


def _cell(text: str) -> str:
    """Docstring markup as a Markdown table cell."""
    text = re.sub(r":\w+:`([^`]+)`", r"`\1`", text.replace("``", "`"))
    return " ".join(text.split()).replace("|", "\\|")


def _kind(hint: Any) -> str:
    """A type in words: ``int or null``, ``list of float``, or the choices of an enumeration."""
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(_kind(part) for part in get_args(hint))
    if get_origin(hint) is list:
        return f"list of {_kind(get_args(hint)[0])}"
    if isinstance(hint, type) and issubclass(hint, Enum):
        return ", ".join(f"`{member.value}`" for member in hint)
    return {NoneType: "null", Any: "see text"}.get(hint, getattr(hint, "__name__", str(hint)))


def _value(value: Any) -> str:
    """A value as YAML writes it."""
    if value is dataclasses.MISSING:
        return "must be given"
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, list):
        return "`[" + ", ".join(_value(item).strip("`") for item in value) + "]`"
    words = {None: "null", True: "true", False: "false"}
    return f"`{words[value] if value is None or isinstance(value, bool) else value}`"


def rows(config: type, values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Table rows of a dataclass; nested dataclasses with dotted names.

    Args:
        config: the dataclass.
        values: what ``configs/`` states; defaults stand for what it leaves out.
        prefix: of the names.
    """
    texts, hints = field_texts(config), get_type_hints(config)
    for field in dataclasses.fields(config):
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        value = values.get(field.name, default)
        if dataclasses.is_dataclass(hints[field.name]):
            yield from rows(hints[field.name], value if isinstance(value, Mapping) else vars(value), f"{prefix}{field.name}.")
        else:
            yield f"| `{prefix}{field.name}` | {_kind(hints[field.name])} | {_value(value)} | {texts[field.name]} |"


def _table(config: type, values: Mapping[str, Any]) -> list[str]:
    found = list(rows(config, values))
    return ["| setting | type | value | meaning |", "|---|---|---|---|", *found, ""] if found else ["No settings.", ""]


def _load(path: Path) -> dict[str, Any]:
    values = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def _part(group: str, name: str) -> list[str]:
    """One registered part: its class's first line, and its settings."""
    registry = REGISTRIES[group]
    summary = inspect.cleandoc(registry.part(name).__doc__ or "").partition("\n\n")[0]
    return [
        f"### `{group}={name}`",
        "",
        _cell(summary),
        "",
        *_table(registry.config(name), _load(CONFIGS / group / f"{name}.yaml")),
    ]


def _section(name: str, schema: type) -> list[str]:
    root = _load(CONFIGS / "config.yaml")
    summary = inspect.cleandoc(schema.__doc__ or "")
    choice = next((line[name] for line in root["defaults"] if isinstance(line, dict) and name in line), None)
    values = _load(CONFIGS / name / f"{choice}.yaml") if choice else root[name]
    return [f"## {name}", "", _cell(summary), "", *_table(schema, values), *_others(name, [choice] if choice else [])]


def _root() -> list[str]:
    """The settings above all sections."""
    root = _load(CONFIGS / "config.yaml")
    lines = ["## At the root", "", "| setting | type | value | meaning |", "|---|---|---|---|"]
    hints, texts = get_type_hints(RunConfig), field_texts(RunConfig)
    names = [field.name for field in dataclasses.fields(RunConfig) if field.name not in SECTIONS]
    values = {name: _value(root[name]) if name in root else "the experiment's" for name in names}
    return lines + [f"| `{name}` | {_kind(hints[name])} | {values[name]} | {texts[name]} |" for name in names] + [""]


def _others(group: str, listed: Sequence[str]) -> list[str]:
    """Choices of a group besides those listed: presets of a part with other values, aliases, the absent quantizer, loggers."""
    found = []
    for path in sorted((CONFIGS / group).glob("*.yaml")):
        if path.stem in listed:
            continue
        first = path.read_text().splitlines()[0]
        says = f": {_cell(first.partition('#')[2])}" if first.startswith(("#", "_name_")) else ""
        values = _load(path)
        base = CONFIGS / group / f"{values.get('_name_', 'default')}.yaml"
        usual = _load(base) if base.is_file() else values
        own = ", ".join(f"`{key}: {_value(value).strip('`')}`" for key, value in values.items() if usual.get(key) != value)
        found += [f"Also `{group}={path.stem}`{says}{f' (`{base.stem}` with {own})' if own else ''}.", ""]
    return found


def _recipes(group: str) -> list[str]:
    """The files of a group that is no part, each with its first comment."""
    lines = [f"## {group}", "", "| choice | what it is |", "|---|---|"]
    for path in sorted((CONFIGS / group).rglob("*.yaml")):
        comments = [line[2:] for line in path.read_text().splitlines() if line.startswith("# ") and "@package" not in line]
        name = path.relative_to(CONFIGS / group).with_suffix("")
        lines.append(f"| `{group}={name}` | {_cell(comments[0]) if comments else ''} |")
    return [*lines, ""]


def document() -> str:
    """The whole file."""
    lines = [INTRODUCTION, *_root()]
    for group, registry in REGISTRIES.items():
        lines += [f"## {group}", "", *_others(group, registry.names)]
        for name in registry.names:
            lines += _part(group, name)
    for name, schema in SECTIONS.items():
        lines += _section(name, schema)
    for group in ("experiment", "cluster"):
        lines += _recipes(group)
    return "\n".join(lines).rstrip() + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the file, or compare it.

    Args:
        arguments: of the command line; None reads them.

    Returns:
        Exit code: 1 where ``--check`` finds the file stale, else 0.
    """
    parser = argparse.ArgumentParser(prog="python -m scripts.document_configs", description="Write docs/configs.md.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if docs/configs.md is stale")
    text = document()
    if not parser.parse_args(arguments).check:
        TARGET.write_text(text)
        return 0
    if TARGET.is_file() and TARGET.read_text() == text:
        return 0
    sys.stderr.write("docs/configs.md is not what the code says. Write it again: python -m scripts.document_configs\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
