"""Other bytes for a file of the project, such as another commit could bring, that stay valid.

Whatever evaluation makes of the file then comes out otherwise, unless it is not made of it. A
change must not break evaluation: what is text keeps its meaning for whoever parses it.
"""

import re

FURTHER_FILE = "nix-seed-further-file.txt"
"""Another file in each directory, for what lists directories."""

# A file that is one short line ending in a digit: a version, as a rule, and read without its line
# end. What pins a tool is left alone: it chooses what the project is built from.
_VERSION = re.compile(rb"[^\n:=/]{0,39}[0-9]\n?")
_PINS = re.compile(r"rust-toolchain|\.tool-versions|\.?[a-z]+-version|\.[a-z]+vmrc|\.[a-z]+rc")
# Where languages keep a package's own version, which a derivation is often named by.
_MANIFESTS = ("Cargo.toml", "package.json", "pyproject.toml")
_OWN_VERSION = re.compile(rb'^(\s*"?version"?\s*[:=]\s*"[^"\n]*)([0-9])(")', re.MULTILINE)
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
    if _VERSION.fullmatch(data) and not _PINS.fullmatch(name) and not name.endswith(".nix"):
        text = data.rstrip(b"\n")
        return text[:-1] + _next_digit(text[-1:]) + data[len(text) :]
    if name in _MANIFESTS:
        data = _OWN_VERSION.sub(_with_next_digit, data, count=1)
    if name.endswith((".json", ".lock")) and data[:1] in (b"{", b"["):
        return data[:1] + b"\n" + data[1:] + b"\n"
    end = b"" if data.endswith(b"\n") else b"\n"
    if _HASH.fullmatch(name) or data.startswith(b"#!"):
        return data + end + b"#\n"
    if _SLASHES.fullmatch(name):
        return data + end + b"//\n"
    return data + b"\n"


def _with_next_digit(match: re.Match[bytes]) -> bytes:
    return match[1] + _next_digit(match[2]) + match[3]


def _next_digit(digit: bytes) -> bytes:
    return str((int(digit) + 1) % 10).encode()
