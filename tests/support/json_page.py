"""What docs/json.md says that ``--json`` prints, and what of a command's answer differs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parents[2] / "docs/json.md"
_SECTION = re.compile(r"^## `([a-z -]+)`\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
_ROW = re.compile(r"^\| `(\w+)` \| ([a-z, ]+) \| (.*) \|$", re.MULTILINE)
_TYPES: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "boolean": bool,
    "number": (int, float),
    "array": list,
    "object": dict,
    "null": type(None),
}
SECTIONS = {name: _ROW.findall(text) for name, text in _SECTION.findall(PAGE.read_text())}


def problems(command: str, value: dict[str, Any]) -> list[str]:
    """Return in what *value*, which *command* printed, is not as the page says."""
    assert value.pop("schema") == 1
    rows = {name: (types, what) for name, types, what in SECTIONS[command]}
    wrong = [f"{name} is not documented" for name in value if name not in rows]
    for name, (types, what) in rows.items():
        if name not in value:
            wrong += [] if "optional" in types else [f"{name} was not printed"]
            continue
        kinds = types.removesuffix(", optional").split(" or ")
        if not any(isinstance(value[name], _TYPES[kind]) for kind in kinds):
            wrong.append(f"{name} is {type(value[name]).__name__}, not {types}")
        named = set(re.findall(r"`([^`]+)`", what))
        items = value[name] if isinstance(value[name], list) else [value[name]]
        if re.search(r"with `\w+`, `|^`\w+`, `|: `\w+`, `", what):
            for item in items:
                strange = set(item) - named if isinstance(item, dict) else set()
                wrong += [f"{name}: {sorted(strange)} is not documented"] if strange else []
    return wrong


def check(command: str, printed: str) -> None:
    """Hold what *command* *printed* against the page."""
    value, _ = json.JSONDecoder().raw_decode(printed[printed.index("{") :])
    found = problems(command, value)
    assert not found, f"{command}: " + "\n".join(found)
