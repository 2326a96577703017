"""Store derivations: the ``.drv`` files that evaluation writes (Nix manual, "Derivation", ATerm).

``Derive([outputs],[inputDrvs],[inputSrcs],"system","builder",[args],[env])``, a tiny subset of the
ATerm format: strings, lists and tuples. Only that subset is read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from nix_seed.formats.nix.store_path import StorePath
from nix_seed.ground.errors import InputError

__all__ = ["Derivation", "Output"]

_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_NAMED = {"n": "\n", "r": "\r", "t": "\t"}
_DEPTH = 8


@dataclass(frozen=True, slots=True)
class Output:
    """One output: its path, where it is known before building, and its hash, if it is fixed."""

    path: StorePath | None
    hash_algorithm: str
    hash: str


@dataclass(frozen=True, slots=True)
class Derivation:
    """What a ``.drv`` says: outputs by name, input derivations with the outputs used of each."""

    outputs: Mapping[str, Output]
    input_drvs: Mapping[StorePath, tuple[str, ...]]
    input_srcs: tuple[StorePath, ...]
    system: str
    builder: str
    args: tuple[str, ...]
    env: Mapping[str, str]

    @property
    def is_fixed_output(self) -> bool:
        """Whether the content is agreed on beforehand (a download, as a rule)."""
        return any(output.hash for output in self.outputs.values())

    @classmethod
    def parse(cls, text: str, what: str) -> Self:
        """Read the text of a ``.drv`` file; *what* names it in errors."""
        if not text.startswith("Derive("):
            raise InputError(f"{what} is not a store derivation")
        try:
            value, end = _value(text, len("Derive"), 0)
            if end != len(text):
                raise ValueError("text after the end")
            outputs, drvs, srcs, system, builder, args, env = value
            return cls(
                outputs={name: _output(*rest) for name, *rest in outputs},
                input_drvs={StorePath.parse(path): tuple(names) for path, names in drvs},
                input_srcs=tuple(StorePath.parse(path) for path in srcs),
                system=system,
                builder=builder,
                args=tuple(args),
                env=dict(env),
            )
        except (ValueError, TypeError, IndexError) as error:
            raise InputError(f"{what} is not a store derivation: {error}") from error


def _output(path: str, algorithm: str, hash_: str) -> Output:
    return Output(StorePath.parse(path) if path else None, algorithm, hash_)


def _value(text: str, at: int, depth: int) -> tuple[Any, int]:
    """Read one term at *at*; return it and where it ends."""
    opening = text[at]
    if opening == '"':
        match = _STRING.match(text, at)
        if match is None:
            raise ValueError("a string does not end")
        return _unescape(match[1]), match.end()
    closing = {"(": ")", "[": "]"}.get(opening)
    if closing is None or depth == _DEPTH:
        raise ValueError(f"unexpected {opening!r} at character {at}")
    items: list[Any] = []
    at += 1
    while text[at] != closing:
        if items:
            if text[at] != ",":
                raise ValueError(f"unexpected {text[at]!r} at character {at}")
            at += 1
        item, at = _value(text, at, depth + 1)
        items.append(item)
    return items, at + 1


def _unescape(text: str) -> str:
    if "\\" not in text:
        return text
    return _ESCAPE.sub(lambda match: _NAMED.get(match[1], match[1]), text)
