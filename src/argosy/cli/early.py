"""Loads click, and leaves for later what click loads of the standard library for few commands.

`inspect` with the parsers and tables it needs, `gettext` with `locale`, and `platform` are an eighth of a short
command's start. Where click, or what it loads, uses more of them than is answered here, they are loaded then.
"""

from __future__ import annotations

import importlib
import os
import sys
import types
from collections.abc import Callable, Mapping
from typing import Any


def _cleandoc(text: str) -> str:
    """As `inspect.cleandoc`: click asks it for the help of each option, which is mostly one line."""
    if "\n" in text:
        return str(importlib.import_module("inspect").cleandoc(text))
    return text.expandtabs().lstrip(" ")


def _system() -> str:
    """As `platform.system`: `uuid` asks it once."""
    return os.uname().sysname


def _gettext(text: str) -> str:
    """As `gettext.gettext`, of which nobody has translations of click's texts."""
    return text


def _ngettext(one: str, many: str, count: int) -> str:
    """As `gettext.ngettext`."""
    return one if count == 1 else many


LATER: Mapping[str, Mapping[str, Callable[..., Any]]] = {
    "gettext": {"gettext": _gettext, "ngettext": _ngettext},
    "inspect": {"cleandoc": _cleandoc},
    "platform": {"system": _system},
}
"""What is loaded later → what of it is answered without."""


class _Later(types.ModuleType):
    """Stands for a module in those that are loaded meanwhile."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # the import statement asks; a module has those it has
            raise AttributeError(name)
        self.leave()
        return getattr(importlib.import_module(self.__name__), name)

    def leave(self) -> None:
        """Stand in no longer."""
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]


def load_click() -> None:
    """Load click. The modules that stand in are met by it and what it loads alone; who comes later gets the true."""
    standing = [_Later(name) for name in LATER if name not in sys.modules]
    for module in standing:
        vars(module).update(LATER[module.__name__])
        sys.modules[module.__name__] = module
    try:
        importlib.import_module("click")
    finally:
        for module in standing:
            module.leave()
