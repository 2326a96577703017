"""Modules that are loaded at their first use: the help of a command does not wait for its work."""

import builtins
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType, SimpleNamespace
from typing import Any

_ONE = threading.Lock()  # what one block puts back must be what it found


class _Later(ModuleType):
    """Stands for the module of its name, and imports it when one of its names is asked for."""

    def __getattr__(self, name: str) -> Any:
        return getattr(import_module(self.__name__), name)


@contextmanager
def lazily() -> Iterator[None]:
    """Take modules inside, each whole: ``from package import module``.

    They are imported as ever, but later: whichever thread is the first to use one.
    """
    here = threading.get_ident()

    def later(name: str, *others: Any, **named: Any) -> Any:
        if threading.get_ident() != here:
            return real(name, *others, **named)
        _, _, modules, _ = others
        return SimpleNamespace(**{each: _Later(f"{name}.{each}") for each in modules})

    with _ONE:
        real, builtins.__import__ = builtins.__import__, later
        try:
            yield
        finally:
            builtins.__import__ = real
