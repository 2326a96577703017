"""Calls the Nix code of the product (``flake/expressions``) on a flake, purely."""

import json
import re
import shlex
import tempfile
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl, unquote

from nix_seed.core.errors import InputError, NixFailed, foreign
from nix_seed.core.safe_text import split_address
from nix_seed.flake.nix import Nix
from nix_seed.flake.rules.nix_failures import FORBIDDEN, find_input_hint

# What project.nix adds to the trace of an output that cannot be evaluated.
_CONTEXT = re.compile(r'while looking at .*leave it out .*exclude = \[ "(.+)" \]')
_PATIENCE = 60  # seconds
# A step of the trace that newer Nix shows, with the code around it; and a trace without any.
_STEP = re.compile(
    r"^ *… .*\n +at (\S*/nix/store/[^/\s]+)/[a-z-]+\.nix:[0-9:]+\n(?: *[0-9]*\|.*\n)* *\n", re.M
)
_NO_STEPS = re.compile(r"^error:\n\s*(?=error:)", re.M)
_MEND = (
    "mend that in the flake; or, where an input says it, take another state of the input:"
    " nix flake update INPUT"
)
# Linux takes 128 KiB as one argument of a program.
_LONGEST = 64 << 10
# Attributes of a tree that are no text.
_NUMBERS = ("lastModified", "revCount")
CODE: Final = Path(__file__).parent / "expressions"
"""Where the product's Nix code is."""


def call_nix_half(
    nix: Nix, function: str, url: str, arguments: Mapping[str, Any], doing: str
) -> Any:
    """Return what *function* of ``default.nix`` answers for the flake at *url*, from JSON.

    *arguments* are JSON too; ``flake`` is added to them. *doing* names the work in errors. Where
    the flake has no outline, more evaluations find what to leave out.
    """
    try:
        return _evaluate(nix, _Call(function, url, arguments), doing)
    except NixFailed as error:
        detail = error.detail or ""
        hint = error.hint or find_input_hint(detail)
        # What a strict evaluation may not do, the next one may.
        final = "restrict-eval" not in nix.settings or not FORBIDDEN.search(detail)
        if function == "outline" and final:
            left = _what_to_leave_out(nix, _Call("twin", url, arguments), doing)
            hint = "\nor ".join(filter(None, (hint, left))) or (_MEND if detail else None)
        theirs = _without_our_steps(nix, detail) or None
        raise NixFailed(error.message, detail=theirs, hint=hint) from error


class _Call(NamedTuple):
    """A *function* of the product's code, and what it is called with."""

    function: str
    url: str
    arguments: Mapping[str, Any]


def _evaluate(nix: Nix, call: _Call, doing: str, *options: str) -> Any:
    text = json.dumps(call.arguments)
    if len(text) < _LONGEST:
        return nix.evaluate(_code(call, nix_string(text)), doing, *options)
    with tempfile.TemporaryDirectory(prefix="nix-seed-") as directory:
        Path(directory, "arguments.json").write_text(text)
        given = f'(builtins.readFile "${{{_tree(nix, Path(directory))}}}/arguments.json")'
        return nix.evaluate(_code(call, given), doing, *options)


def _what_to_leave_out(nix: Nix, call: _Call, doing: str) -> str | None:
    """Name the outputs that do not evaluate: those that throw all at once, others one by one."""
    named: list[str] = []
    rest = ""
    until = time.monotonic() + _PATIENCE
    while time.monotonic() < until:
        given = {**call.arguments, "exclude": [*call.arguments["exclude"], *named]}
        try:
            outputs = _evaluate(nix, call._replace(arguments=given), doing, "--show-trace")
        except NixFailed as error:
            found = _CONTEXT.search(error.detail or "")
            if found is None or found[1] in named:
                break
            named.append(found[1])
        else:
            entries = outputs["outputs"]
            thrown = [entry["output"] for entry in entries if "context" not in entry]
            rest = "; no output is left then" if len(thrown) == len(entries) else ""
            named += thrown
            break
    options = " ".join(f"--exclude {shlex.quote(name)}" for name in sorted(set(named)))
    return f"leave out what does not evaluate: {options}{rest}" if named else None


def _without_our_steps(nix: Nix, detail: str) -> str:
    """Leave out of Nix's trace the steps in the product's code, which a user cannot mend."""
    ours = nix.hash_path(CODE)

    def unless_ours(step: re.Match[str]) -> str:
        # Of a store of its own, Nix names the place on the disk.
        trees = filter(Path.is_dir, (nix.at(step[1]), Path(step[1])))
        return "" if any(nix.hash_path(tree) == ours for tree in trees) else step[0]

    return _NO_STEPS.sub("", _STEP.sub(unless_ours, detail))


def flake_code(code: str, url: str) -> str:
    """Return Nix code for the flake at *url*; *code* is Nix code for the product's own.

    Older Nix knows no directory of a plain path: ``flake.nix`` there does.
    """
    parts = split_address(url)
    query = dict(parse_qsl(parts.query))
    directory = query.pop("dir", "")
    if parts.scheme != "path" or not directory:
        return f"builtins.getFlake {nix_string(url)}"
    with foreign(f"{url} holds a number that is none", ValueError, as_=InputError, quoted=False):
        numbers = {name: int(query.pop(name)) for name in _NUMBERS if name in query}
    tree = {"type": "path", "path": unquote(parts.path), **query, **numbers}
    fetched = f"builtins.fetchTree (builtins.fromJSON {nix_string(json.dumps(tree))})"
    return f'import ({code} + "/flake.nix") {{ tree = {fetched}; dir = {nix_string(directory)}; }}'


def _code(call: _Call, arguments: str) -> str:
    own = f"{_own_tree()}.outPath"
    return (
        f"(import {own}).{call.function} (builtins.fromJSON {arguments}"
        f" // {{ flake = {flake_code(own, call.url)}; }})"
    )


@cache
def _own_tree() -> str:
    # An evaluation calls the product's own code several times.
    return _tree(Nix(), CODE)


def _tree(nix: Nix, directory: Path) -> str:
    """Return Nix code for *directory*, named with its hash: evaluation stays pure."""
    tree = {"type": "path", "path": str(directory), "narHash": nix.hash_path(directory)}
    return f"(builtins.fetchTree (builtins.fromJSON {nix_string(json.dumps(tree))}))"


def nix_string(text: str) -> str:
    """Return *text* as a string in the Nix language."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("${", "\\${")
    return f'"{escaped}"'
