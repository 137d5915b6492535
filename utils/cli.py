"""``key=value`` command lines for the small tools, typed by a dataclass; the exit code tells the truth."""

import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any, TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from utils.console import console
from utils.errors import ConfigError, WaveError
from utils.registry import mistakes_in, typed

T = TypeVar("T")
_SETTING = re.compile(r"[A-Za-z_][\w.]*=")


def parse(schema: type[T], arguments: Sequence[str], *, where: str, words: str = "") -> T:
    """Arguments as an instance of a dataclass.

    Args:
        schema: the dataclass; its fields are the keys.
        arguments: ``key=value`` each; a value is YAML: ``names=[a, b]``.
        where: starts each error text: ``"synthesise"``.
        words: key of a list of texts that may also be given as plain words: ``a b`` for ``names=[a, b]``; "" where there is none.

    Raises:
        ConfigError: every mistake at once.
    """
    plain = [argument for argument in arguments if not _SETTING.match(argument)]
    wrong = [
        f"{where}: '{argument}' is not of the form key=value"
        for argument in plain
        if not words or argument.startswith("-") or not argument
    ]
    try:
        given = OmegaConf.from_dotlist([argument for argument in arguments if _SETTING.match(argument)])
        values: Any = OmegaConf.to_container(given)
    except OmegaConfBaseException as error:
        raise ConfigError([*wrong, f"{where}: {str(error).splitlines()[0]}"]) from error
    if plain and words in values:
        wrong.append(f"{where}: '{plain[0]}' stands beside {words}=: give all {words} in one way")
    elif plain and words:
        values[words] = plain
    elif isinstance(values.get(words), str):
        values[words] = [values[words]]
    wrong += mistakes_in(schema, values, where=where)
    if wrong:
        raise ConfigError(wrong)
    return typed(schema, values)


def run(tool: Callable[[T], None], schema: type[T], *, where: str, words: str = "") -> None:
    """Parse the command line, run the tool, exit: 0 where it did what was asked, 1 with one screen of text where it did not.

    ``--help`` shows the text at the top of the tool's file and its keys; Ctrl-C ends with 130, as in a shell.
    """
    if {"-h", "--help"} & set(sys.argv[1:]):
        about = f"{sys.modules[tool.__module__].__doc__}\nIt takes: {', '.join(_keys(schema))}"
        console().print(about, markup=False, soft_wrap=True)
        return
    try:
        tool(parse(schema, sys.argv[1:], where=where, words=words))
    except WaveError as error:
        sys.exit(f"\n{error}")
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted\n")
        sys.exit(130)


def _keys(schema: type) -> list[str]:
    return [field.name for field in fields(schema)]
