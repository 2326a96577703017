"""Other bytes for a file of the project, such as another commit could bring, that stay valid.

Whatever evaluation makes of the file then comes out otherwise, unless it is not made of it. A
change must not break evaluation: what is text keeps its meaning for whoever parses it.
"""

import json
import re
from typing import Any

FURTHER_FILE = "nix-seed-further-file.txt"
"""Another file in each directory, for what lists directories."""

# A file that is one short line ending in a digit: a version, as a rule, and read without its line
# end. What pins a tool is left alone: it chooses what the project is built from.
_VERSION = re.compile(rb"[^\n:=/]{0,39}[0-9]\n?")
_PINS = re.compile(
    r"([a-z]+[.-])?toolchain([.-][a-z]+)?|\.tool-versions|\.?[a-z]+-version|\.[a-z]+vmrc|\.[a-z]+rc"
)
_WORD = re.compile(rb"\S{1,80}\n?")
# Where languages keep a package's own version, which a derivation is often named by, and more that
# a commit may change. A lock file says none of it, but for the version.
_MANIFESTS = ("Cargo.toml", "package.json", "pyproject.toml")
_OWN_VERSION = re.compile(rb'^(\s*"?version"?\s*[:=]\s*"[^"\n]*)([0-9])(")', re.MULTILINE)
_OWN_TABLE = re.compile(
    rb"^\[(?:package|workspace\.package|project|tool\.poetry)\][^\n]*\n(?:(?!\[)[^\n]*\n?)*", re.M
)
_DESCRIPTION = re.compile(rb'((?:^\s*description\s*=|"description"\s*:)\s*")(?=[^"])', re.MULTILINE)
_FEATURES = re.compile(rb"^\[features\][^\n]*\n|\Z", re.MULTILINE)
# A lock file says it again, of packages that come from nowhere else.
_LOCKED_VERSION = re.compile(
    rb'^(name = "[^"\n]*"\nversion = "[^"\n]*)([0-9])("\n)(?!source)', re.MULTILINE
)
# Comments, so that a reader who strips white space sees a change too.
_HASH = re.compile(
    r".*\.(nix|sh|bash|zsh|fish|py|rb|pl|ya?ml|toml|mk|cmake|conf|r|jl|awk|tf|exs?|nim|tcl)"
    r"|(GNU)?[Mm]akefile|Dockerfile|Containerfile|Justfile|\.gitignore|\.editorconfig"
)
_SLASHES = re.compile(
    r".*\.(c|h|cc|cpp|hpp|cxx|rs|go|js|mjs|ts|tsx|jsx|java|kt|swift|scala|cs|zig)"
)


def alter(name: str, data: bytes) -> bytes:
    """Return other bytes for the file *name* (without directories), as valid as *data*."""
    if _PINS.fullmatch(name) and _WORD.fullmatch(data):
        return data  # a further line end may be part of what is read
    if _VERSION.fullmatch(data) and not name.endswith(".nix"):
        text = data.rstrip(b"\n")
        return text[:-1] + _next_digit(text[-1:]) + data[len(text) :]
    if name in _MANIFESTS:
        data = _alter_manifest(name, data)
    if name == "Cargo.lock":
        data = _LOCKED_VERSION.sub(_with_next_digit, data)
    if name.endswith((".json", ".lock")) and data[:1] in (b"{", b"["):
        return data[:1] + b"\n" + data[1:] + b"\n"
    end = b"" if data.endswith(b"\n") else b"\n"
    if _HASH.fullmatch(name) or data.startswith(b"#!"):
        return data + end + b"#\n"
    if _SLASHES.fullmatch(name):
        return data + end + b"//\n"
    return data + b"\n"


def _alter_manifest(name: str, data: bytes) -> bytes:
    """Change what a commit may that leaves the lock file alone; dependencies stay."""
    if name == "package.json":
        data = _OWN_VERSION.sub(_with_next_digit, data, count=1)
        data = _DESCRIPTION.sub(rb"\1. ", data, count=1)
        return re.sub(rb"\A\{(?=\s*\")", b'{"nixSeedFurther": "", ', data)
    text = _OWN_TABLE.sub(
        lambda table: _DESCRIPTION.sub(rb"\1. ", _OWN_VERSION.sub(_with_next_digit, table[0])), data
    )
    if name != "Cargo.toml":
        return text
    if re.search(rb"^\[package\]", text, re.MULTILINE) is None:
        # A workspace's alone: what it says may be no version.
        return text + b'\n[profile.nix-seed-further]\ninherits = "release"\n'
    # A manifest may leave its version to the workspace's.
    place = next(_FEATURES.finditer(text))
    header = place[0] or b"\n[features]\n"
    return text[: place.start()] + header + b"nix-seed-further = []\n" + text[place.end() :]


def alter_carefully(name: str, data: bytes) -> bytes:
    """Return other bytes only where nothing reads more than that they are other ones.

    A lock file whose hash is asserted, a version that has to be among others, and a text that is
    read line by line, stay what they are.
    """
    is_text = b"\0" not in data and not name.endswith((".md", ".rst"))
    if name in _MANIFESTS or _PINS.fullmatch(name) or name.endswith((".json", ".lock")):
        return data
    if is_text and not (_HASH.fullmatch(name) or _SLASHES.fullmatch(name) or data[:2] == b"#!"):
        return data
    return alter(name, data)


def alter_values(name: str, data: bytes) -> bytes:
    """Return *data* with other values in it, of the same shape, as code may read from the file.

    What names a package, a hash or an address is such a value too: evaluation may fail of it. What
    chooses dependencies, and what is no data, stays as it is.
    """
    if _CHOOSES.fullmatch(name) or _PINS.fullmatch(name):
        return data
    try:
        return _alter_text(name, data.decode()).encode()
    except (ValueError, RecursionError):
        return data


def _alter_text(name: str, text: str) -> str:
    """Return other text; ``ValueError`` where it is not what its *name* says."""
    if name.endswith(".json"):
        value = json.loads(text)
        other = _other(value)
        return json.dumps(_other(value, flip=True) if other == value else other)
    if name.endswith(".toml"):
        altered = _VALUE.sub(lambda found: found[0].replace(found[2], _other(found[2])), text)
        if altered == text:
            altered = _TRUTH.sub(lambda found: _FLIPPED[found[0]], text)
        import tomllib  # half of the projects have none

        tomllib.loads(altered)
        return altered
    if "\0" in text:
        return text
    kinds = (_HASH, _SLASHES, _CODE)
    if text.startswith("#!") or any(kind.fullmatch(name) for kind in kinds):
        # Of code, nothing but a version: another word may be no code.
        return _VERSION_LINE.sub(lambda line: _NUMBERED.sub(_other_match, line[0]), text)
    return _LAST_WORD.sub(_other_match, _NUMBERED.sub(_other_match, text))


def _other_match(found: re.Match[str]) -> str:
    return str(_other(found[0]))


_CHOOSES = re.compile(
    r"Cargo\.toml|package\.json|pyproject\.toml|.*\.lock|.*lock.*\.(json|toml)|go\.(mod|sum)"
    r"|(sources|generated|deps|hashes|gomod2nix|rust-toolchain)\.(json|toml)|.*\.nix"
)
_CODE = re.compile(r".*\.(md|rst|php|lua|erl|gradle|sbt|zon)")
_VERSION_LINE = re.compile(r"^.*version.*$", re.MULTILINE | re.IGNORECASE)
_TRUTH = re.compile(r"\b(?:true|false)(?=\s*(?:#.*)?$)", re.MULTILINE)
_FLIPPED = {"true": "false", "false": "true"}
# A text or a number after "=" or between others, not what stands before "=" or in a header.
_VALUE = re.compile(r'((?:=|,|\[)\s*|^\s+)("(?:[^"\\\n]|\\.)*"|[0-9]+\b)(?=\s*(?:[],}#]|$))', re.M)
_NUMBERED = re.compile(r"\b[0-9]+(?:\.[0-9]+)+\b")
_LAST_WORD = re.compile(r"\b[A-Za-z]\w{0,30}(?=\s*$)", re.M)
_ODD = re.compile(r"[/:=]|\w{32}|^(true|false|null)$")


def _other(value: Any, *, flip: bool = False) -> Any:
    """Return another *value* of the same shape; with *flip*, what is true is false."""
    match value:
        case dict():
            return {name: _other(one, flip=flip) for name, one in value.items()}
        case list():
            return [_other(one, flip=flip) for one in value]
        case str() if value and not _ODD.search(value):
            end = re.search(r"[0-9](?=\W*$)", value)
            if end:
                return value[: end.start()] + str((int(end[0]) + 1) % 10) + value[end.end() :]
            return re.sub(r"([A-Za-z])(?=\W*$)", r"\1\1", value)
        case int():
            return value != flip if isinstance(value, bool) else value + 1
    return value


def _with_next_digit(match: re.Match[bytes]) -> bytes:
    return match[1] + _next_digit(match[2]) + match[3]


def _next_digit(digit: bytes) -> bytes:
    return str((int(digit) + 1) % 10).encode()
