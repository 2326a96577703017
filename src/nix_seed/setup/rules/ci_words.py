"""GitHub's workflow commands, GitLab's sections, and what else is said to a CI service in lines.

A line that begins with ``::``, or has ``##[`` anywhere, is a command to GitHub's runner. What is
quoted in one (a store path's name, Nix's own words) is escaped, and what is printed outside of one
is made harmless, so that no name of anybody's can speak to the runner.
"""

import re
from dataclasses import dataclass
from typing import Literal

from nix_seed.core.safe_text import printable

Level = Literal["error", "warning", "notice"]

# The runner shows some 4 KiB of a message.
_LONGEST = 4000
_DATA = {"%": "%25", "\r": "%0D", "\n": "%0A"}
_PROPERTY = {**_DATA, ":": "%3A", ",": "%2C"}


def annotation(
    level: Level, title: str, text: str, *, file: str | None = None, line: int | None = None
) -> str:
    """Return the workflow command that shows *text* under *title*, at a line of a file or without.

    https://docs.github.com/actions/reference/workflow-commands-for-github-actions
    """
    properties = {"title": title, "file": file, "line": None if line is None else str(line)}
    shown = ",".join(
        f"{name}={_escaped(value, _PROPERTY)}"
        for name, value in properties.items()
        if value is not None
    )
    return f"::{level} {shown}::{_escaped(printable(text)[:_LONGEST], _DATA)}"


def start_group(title: str, key: str, time: int) -> dict[str, str]:
    """Return, for each service, the line that begins a part of the log that folds away."""
    plain = printable(title).replace("\n", " ")
    return {
        "github": f"::group::{_escaped(plain, _DATA)}",
        "gitlab": f"\x1b[0Ksection_start:{time}:{key}[collapsed=true]\r\x1b[0K{plain}",
        "other": f"== {plain}",
    }


def end_group(key: str, time: int) -> dict[str, str]:
    """Return, for each service, the line that ends that part."""
    return {
        "github": "::endgroup::",
        "gitlab": f"\x1b[0Ksection_end:{time}:{key}\r\x1b[0K",
        "other": "",
    }


def output_lines(name: str, value: str, delimiter: str) -> str:
    """Return what sets an output or variable to *value* in GitHub's files.

    *delimiter* must be one that nobody can foresee; a value that has it is refused by the caller's
    own choice of another.
    """
    if "\n" not in value and "\r" not in value:
        return f"{name}={value}\n"
    return f"{name}<<{delimiter}\n{value}\n{delimiter}\n"


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A download that was not what its hash says: *what* it was, the hash *wanted* and *got*."""

    what: str
    wanted: str
    got: str

    def __str__(self) -> str:
        return f"{self.what} has another hash than stated: replace {self.wanted} with {self.got}"


_HASH = r"(?:sha\d+|md5|blake3)[-:][A-Za-z0-9+/=]+|[0-9a-z]{32,}"
_FORMS = (
    # A fixed-output derivation, or a file that was downloaded.
    re.compile(
        r"hash mismatch in (?P<what>[^\n]{1,400}?):?\s*\n\s*(?:specified|wanted|expected):\s*"
        rf"(?P<wanted>{_HASH})\s*\n\s*got:\s*(?P<got>{_HASH})"
    ),
    # The input of a flake.
    re.compile(
        r"hash mismatch in (?P<what>input '[^'\n]{1,400}')[^\n]{0,400}?"
        rf"expected '?(?P<wanted>{_HASH})'?,? (?:but )?got '?(?P<got>{_HASH})'?"
    ),
)
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def find_mismatches(text: str) -> tuple[Mismatch, ...]:
    """Find in Nix's words every hash that was not the one stated, each once."""
    plain = _COLOURS.sub("", text)
    found = [
        Mismatch(printable(match["what"]).strip(), match["wanted"], match["got"])
        for form in _FORMS
        for match in form.finditer(plain)
    ]
    return tuple(dict.fromkeys(found))


def _escaped(text: str, table: dict[str, str]) -> str:
    return "".join(table.get(character, character) for character in text)
