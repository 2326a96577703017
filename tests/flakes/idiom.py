"""What a flake that people write is made of here, and what a seed of it must hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Idiom:
    """The *outputs* of a flake (or the whole *flake*), its *files*, and its further *inputs*.

    *baked* are names that its seed holds, *opened* those that it must not. A commit *adds*
    and *removes* files, and some *become* another text; it changes all the others, save what it
    *keeps*. With *dirty*, it is not made.
    """

    outputs: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    inputs: str = ""
    baked: tuple[str, ...] = ()
    opened: tuple[str, ...] = ()
    adds: Mapping[str, str] = field(default_factory=dict)
    removes: tuple[str, ...] = ()
    dirty: bool = False
    becomes: Mapping[str, str] = field(default_factory=dict)
    keeps: tuple[str, ...] = ()


MAIN = {"src/main.c": "int main;\n"}
APP = 'packages.x86_64-linux.default = pkgs.runCommand "app" { src = ./src; } "cp -r $src $out";'
