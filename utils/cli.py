"""``key=value`` command lines for the small tools, typed by a dataclass; the exit code tells the truth."""

import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from utils.errors import ConfigError, WaveError
from utils.registry import mistakes_in, typed

T = TypeVar("T")


def parse(schema: type[T], arguments: Sequence[str], *, where: str) -> T:
    """Arguments as an instance of a dataclass.

    Args:
        schema: the dataclass; its fields are the keys.
        arguments: ``key=value`` each; a value is YAML: ``names=[a, b]``.
        where: starts each error text: ``"synthesise"``.

    Raises:
        ConfigError: every mistake at once.
    """
    loose = [argument for argument in arguments if "=" not in argument]
    if loose:
        raise ConfigError([f"{where}: '{argument}' is not of the form key=value" for argument in loose])
    try:
        values: Any = OmegaConf.to_container(OmegaConf.from_dotlist(list(arguments)))
    except OmegaConfBaseException as error:
        raise ConfigError([f"{where}: {str(error).splitlines()[0]}"]) from error
    wrong = mistakes_in(schema, values, where=where)
    if wrong:
        raise ConfigError(wrong)
    return typed(schema, values)


def run(tool: Callable[[T], None], schema: type[T], *, where: str) -> None:
    """Parse the command line, run the tool, exit: 0 where it did what was asked, 1 with one screen of text where it did not."""
    try:
        tool(parse(schema, sys.argv[1:], where=where))
    except WaveError as error:
        sys.exit(f"\n{error}")
