"""Names that users may type, each with its class and its config dataclass."""

import dataclasses
import importlib
import math
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeGuard, TypeVar, cast, get_type_hints

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from utils.errors import ConfigError, did_you_mean

P = TypeVar("P")
C = TypeVar("C", bound=type)


class Registry(Generic[P]):
    """The parts of one room by name.

    Args:
        kind: the config group, which starts every error text: ``"encoder"``.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._parts: dict[str, type[P]] = {}
        self._configs: dict[str, type] = {}
        self._aliases: dict[str, str] = {}

    def register(self, name: str, config: type, *, aliases: tuple[str, ...] = ()) -> Callable[[C], C]:
        """Class decorator: make the class known as ``name``, with its settings in the dataclass ``config``.

        Raises:
            ValueError: the name is taken, or ``config`` is no dataclass.
        """
        if not dataclasses.is_dataclass(config):
            raise ValueError(f"{self.kind} '{name}': settings must be a dataclass, got {config!r}")

        def add(part: C) -> C:
            for known in (name, *aliases):
                if known in self._parts or known in self._aliases:
                    raise ValueError(f"{self.kind} '{known}' is registered twice")
            self._parts[name] = cast(type[P], part)
            self._configs[name] = config
            self._aliases.update(dict.fromkeys(aliases, name))
            return part

        return add

    @property
    def names(self) -> list[str]:
        """Registered names, sorted, without aliases."""
        return sorted(self._parts)

    def part(self, name: str) -> type[P]:
        """The class behind a name or alias.

        Raises:
            ConfigError: no such name; suggests the nearest one and lists all.
        """
        known = self._aliases.get(name, name)
        if known not in self._parts:
            hint = did_you_mean(name, [*self.names, *self._aliases])
            raise ConfigError([f"{self.kind}: no '{name}'.{hint} Known: {', '.join(self.names)}"])
        return self._parts[known]

    def config(self, name: str) -> type:
        """The config dataclass behind a name or alias. Raises ConfigError as :meth:`part` does."""
        self.part(name)
        return self._configs[self._aliases.get(name, name)]

    def mistakes(self, node: Any) -> list[str]:
        """Everything wrong with a config node ``{_name_: …, setting: value, …}``; empty where it is sound."""
        if not isinstance(node, Mapping) or "_name_" not in node:
            return [f"{self.kind}: needs a mapping with '_name_', got {node!r}. Known: {', '.join(self.names)}"]
        try:
            config = self.config(str(node["_name_"]))
        except ConfigError as error:
            return list(error.mistakes)
        settings = {key: value for key, value in node.items() if key != "_name_"}
        return mistakes_in(config, settings, where=f"{self.kind} '{node['_name_']}'")

    def settings(self, node: Any) -> Any:
        """The typed config of a node.

        Raises:
            ConfigError: with every mistake of the node.
        """
        wrong = self.mistakes(node)
        if wrong:
            raise ConfigError(wrong)
        return typed(self.config(str(node["_name_"])), {key: value for key, value in node.items() if key != "_name_"})

    def build(self, node: Any, **wiring: Any) -> P:
        """Construct the part: ``cls(settings, **wiring)``; widths and strides come in through ``wiring``."""
        settings = self.settings(node)
        return self.part(str(node["_name_"]))(settings, **wiring)  # type: ignore[call-arg]


def import_parts(package: str) -> None:
    """Import every module of a package, so that the parts in its files are registered: a new part needs one new file."""
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
        importlib.import_module(f"{package}.{module.name}")


def mistakes_in(config: type, settings: Mapping[str, Any], *, where: str) -> list[str]:
    """Unknown, ill-typed, missing and out-of-range settings of a dataclass, one text each; of dataclasses in it, too.

    Args:
        config: the dataclass that says which settings exist, their types and (``__post_init__``) their ranges.
        settings: plain builtins.
        where: starts each text, e.g. ``"encoder 'linear'"``.
    """
    fields = {field.name: field for field in dataclasses.fields(config)}
    nested = {name: hint for name, hint in get_type_hints(config).items() if _is_schema(hint)}
    schema = OmegaConf.structured(config)
    takes = f"It takes: {', '.join(fields)}" if fields else "It takes none"
    unknown = [key for key in settings if key not in fields]
    wrong = [f"{where} has no setting '{key}'.{did_you_mean(str(key), fields)} {takes}" for key in unknown]
    sound = {}
    for key, value in settings.items():
        if isinstance(value, float) and not math.isfinite(value):
            wrong.append(f"{where}: {key} = {value}: must be finite")
        elif key in nested and isinstance(value, Mapping):
            inside = mistakes_in(nested[key], value, where=f"{where}: {key}")
            wrong += inside
            sound |= {} if inside else {key: value}
        elif key in fields:
            try:
                OmegaConf.merge(schema, {key: value})
                sound[key] = value
            except (OmegaConfBaseException, ValueError, TypeError) as error:
                wrong.append(f"{where}: {key} = {value!r}: {str(error).splitlines()[0]}")
    missing = [
        name for name, field in fields.items()
        if name not in settings and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]  # fmt: skip
    wrong += [f"{where}: '{name}' must be given" for name in missing]
    if not missing:
        try:
            typed(config, sound)
        except ValueError as error:
            wrong += [f"{where}: {line}" for line in str(error).splitlines()]
    return wrong


def _is_schema(hint: Any) -> TypeGuard[type]:
    return isinstance(hint, type) and dataclasses.is_dataclass(hint)


def typed(config: type, settings: Mapping[str, Any]) -> Any:
    """An instance of ``config`` with nested values converted; raises what its ``__post_init__`` raises."""
    node = OmegaConf.merge(OmegaConf.structured(config), dict(settings))
    values = {field.name: _plain(node, field.name) for field in dataclasses.fields(config) if field.name in node}
    return config(**values)


def _plain(node: Any, key: str) -> Any:
    value = node[key]
    return OmegaConf.to_object(value) if OmegaConf.is_config(value) else value
