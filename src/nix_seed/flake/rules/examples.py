"""Names that a pattern takes: where no file of a flake is called so, another tree needs one.

Patterns are POSIX extended regular expressions, as ``builtins.match`` takes them. What is not
understood gives no name, or one that the pattern does not take, which does no harm.
"""

import re
from collections.abc import Iterator

_CLASSES = {"digit": "1", "upper": "A", "punct": "-", "space": " ", "xdigit": "a", "blank": " "}
_TIMES = re.compile(r"[*+?]|\{([0-9]*)[^}]*\}")
# What a name may be made of, so that it is no path and needs no quoting.
_NAME = re.compile(r"[A-Za-z0-9_.+ @=,~-]{1,60}")


def example(pattern: str, often: int = 1) -> str | None:
    """Return a name of a file that *pattern* takes whole, with what may come *often* as often."""
    reader = _Reader(pattern, often)
    name = reader.choices()
    taken = reader.done and _NAME.fullmatch(name) and name not in (".", "..")
    return name if taken else None


class _Reader:
    """Reads a pattern once, from its start to its end; a group is a pattern of its own."""

    def __init__(self, pattern: str, often: int) -> None:
        self._rest = list(reversed(pattern))
        self._often = often

    @property
    def done(self) -> bool:
        return not self._rest

    def choices(self) -> str:
        """Return what the first branch that takes anything takes."""
        found = ["".join(self._branch())]
        while self._rest and self._rest[-1] == "|":
            self._rest.pop()
            found.append("".join(self._branch()))
        return next(filter(None, found), "")

    def _branch(self) -> Iterator[str]:
        while self._rest and self._rest[-1] not in "|)":
            character = self._rest.pop()
            if character == "(":
                one = self.choices()
                self._close(")")
            elif character == "[":
                one = self._bracket()
            elif character == "\\" and self._rest:
                one = self._rest.pop()
            else:
                one = {".": "a", "^": "", "$": ""}.get(character, character)
            yield one * self._times()

    def _close(self, character: str) -> None:
        """Read *character*; where it is missing, the pattern is none."""
        if self._rest and self._rest[-1] == character:
            self._rest.pop()
        else:
            self._rest.append(")")

    def _times(self) -> int:
        """Read how often it comes."""
        found = _TIMES.match("".join(reversed(self._rest)))
        if found is None:
            return 1
        del self._rest[-found.end() :]
        if found[1] is not None:
            return int(found[1] or 1)
        return 1 if found[0] == "?" else self._often

    def _bracket(self) -> str:
        """Return a character that a bracket expression takes."""
        other = bool(self._rest) and self._rest[-1] == "^"
        if other:
            self._rest.pop()
        inside = self._rest.pop() if self._rest else ""
        while self._rest and self._rest[-1] != "]":
            inside += self._rest.pop()
            if inside.endswith("[:"):
                while self._rest and not inside.endswith(":]"):
                    inside += self._rest.pop()
        self._close("]")
        if other:
            return next(one for one in "a0-_ A." if re.search(re.escape(one), inside) is None)
        if found := re.match(r"\[:([a-z]+):\]", inside):
            return _CLASSES.get(found[1], "a")
        return inside[:1]
