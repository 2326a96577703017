"""Which image of a flake is asked for, and which of the flake's outputs it leaves out."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from nix_seed.core.errors import InputError
from nix_seed.core.values import dataclass

Kind = Literal["seed", "run"]
DEFAULT_ATTR: Mapping[str, str] = {"seed": "seed", "run": "run"}

# What stands second in the name that `nix flake show` gives an output.
_SYSTEM = re.compile(
    r"(x86_64|i[3-6]86|aarch64|armv\w+|riscv\d+|powerpc\w*|loongarch64|s390x?|mips\w*)"
    r"-(linux|darwin|cygwin|windows|none|\w*bsd)"
)


@dataclass(frozen=True, slots=True)
class FlakeChoice:
    """An image of a flake: its *kind*, the attribute *attr* that makes it, its *system*.

    The defaults are a seed, by the usual name, for this machine's system. *exclude* names outputs
    and kinds of them as users do; they are left out beside what the flake itself leaves out.
    """

    kind: Kind = "seed"
    attr: str | None = None
    system: str | None = None
    exclude: tuple[str, ...] = ()

    def arguments(self, system: str) -> dict[str, Any]:
        """Return what ``flake/expressions`` takes; *system* is meant where none was chosen."""
        system = self.system or system
        return {
            "system": system,
            "kind": self.kind,
            "attr": self.attr or DEFAULT_ATTR[self.kind],
            "required": self.attr is not None,
            "exclude": list(excluded_for(system, self.exclude)),
        }


SEED = FlakeChoice()


def excluded_for(system: str, names: Iterable[str]) -> tuple[str, ...]:
    """Return what *names* leave out for *system*, each once, sorted, as mkSeed's ``exclude``.

    ``packages.big`` is meant for every system, ``packages.x86_64-linux.big`` for that one alone.
    """
    found = set()
    for name in names:
        kind, *output = name.split(".", 2)
        if output and output[0] != system and _SYSTEM.fullmatch(output[0]):
            continue
        whole = ".".join((kind, *(output[1:] if output[:1] == [system] else output)))
        if "" in whole.split("."):
            raise InputError(
                f"{name!r} is no output of a flake, and no kind of them",
                hint="such as --exclude packages.docs, or --exclude checks",
            )
        found.add(whole)
    return tuple(sorted(name for name in found if not (_kinds(name) & found)))


def _kinds(name: str) -> set[str]:
    """Return the kind of the output *name*; nothing for one that is a kind itself."""
    kind, _, output = name.partition(".")
    return {kind} if output else set()
