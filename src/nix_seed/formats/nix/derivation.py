"""Store derivations: the ``.drv`` files that evaluation writes (Nix manual, "Derivation", ATerm).

``Derive([outputs],[inputDrvs],[inputSrcs],"system","builder",[args],[env])``, a tiny subset of the
ATerm format: strings, lists and tuples. Only that subset is read.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Self

from nix_seed.core.errors import InputError
from nix_seed.formats.nix.store_path import StorePath

_STRING = r'"([^"\\]*+(?:\\.[^"\\]*+)*+)"'
_QUIET_STRING = r'"(?:[^"\\]*+(?:\\.[^"\\]*+)*+)"'
_PAIR = rf"\({_STRING},{_STRING}\)"
_OUTPUT = rf"\({_STRING},{_STRING},{_STRING},{_STRING}\)"


def _list(item: str) -> str:
    """Match a list of *item*; possessive, so that a malformed text costs no more than another."""
    return rf"\[(?:{item}(?:,{item})*+)?+\]"


def _quiet(pattern: str) -> str:
    """Let the strings of *pattern* capture nothing."""
    return pattern.replace(_STRING, _QUIET_STRING)


_NAMES = _list(_STRING)
_DERIVATION = re.compile(
    r"Derive\(({}),({}),({}),({}),({}),({}),({})\)".format(
        *map(
            _quiet,
            (
                _list(_OUTPUT),
                _list(rf"\({_STRING},{_NAMES}\)"),
                _NAMES,
                _STRING,
                _STRING,
                _NAMES,
                _list(_PAIR),
            ),
        )
    ),
    re.DOTALL,
)
_OUTPUTS = re.compile(_OUTPUT, re.DOTALL)
_INPUTS = re.compile(rf"\({_STRING},({_quiet(_NAMES)})\)", re.DOTALL)
_STRINGS = re.compile(_STRING, re.DOTALL)
_PAIRS = re.compile(_PAIR, re.DOTALL)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_NAMED = {"n": "\n", "r": "\r", "t": "\t"}


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
        # An impure derivation (Nix 2.8's experimental feature) writes that word in place of a hash.
        return any(output.hash not in ("", "impure") for output in self.outputs.values())

    @classmethod
    def parse(cls, text: str, label: str) -> Self:
        """Read the text of a ``.drv`` file; *label* names it in errors."""
        match = _DERIVATION.fullmatch(text)
        if match is None:
            raise InputError(f"{label} is not a store derivation")
        outputs, drvs, srcs, system, builder, args, env = match.groups()
        try:
            return cls(
                outputs={_unescape(name): _output(*o) for name, *o in _OUTPUTS.findall(outputs)},
                input_drvs={
                    StorePath.parse(path): _strings(names) for path, names in _INPUTS.findall(drvs)
                },
                input_srcs=tuple(map(StorePath.parse, _strings(srcs))),
                system=_unescape(system[1:-1]),
                builder=_unescape(builder[1:-1]),
                args=_strings(args),
                env={_unescape(name): _unescape(value) for name, value in _PAIRS.findall(env)},
            )
        except InputError as error:
            raise InputError(f"{label} is not a store derivation: {error}") from error


def _output(path: str, algorithm: str, hash_: str) -> Output:
    return Output(StorePath.parse(path) if path else None, algorithm, hash_)


def _strings(text: str) -> tuple[str, ...]:
    return tuple(map(_unescape, _STRINGS.findall(text)))


def _unescape(text: str) -> str:
    if "\\" not in text:
        return text
    return _ESCAPE.sub(lambda match: _NAMED.get(match[1], match[1]), text)


Graph = Callable[[StorePath], Derivation]
"""Reads a derivation of a store."""
