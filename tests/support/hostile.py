"""Worlds in which one document is not as it was, and all that names it names what it is now."""

from __future__ import annotations

import copy
import hashlib
import json
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from fuzz.inputs import mutate

BLOBS: Final = "images/blobs/sha256/"
Files = dict[str, bytes]
Place = tuple[str | int, ...]


class _Raw(str):
    """JSON as it stands, which Python would not write."""


_ODD: Final[tuple[Any, ...]] = (
    None, True, -1, 0, 2**64, "", "\u00b2", "\ufeffx", "\x1b]0;x\x07", "../../x", "x" * 300_000,
    [], [[]], {}, {"": None}, "sha256:" + "0" * 64, "sha256:" + "0" * 64 + "\n",
    *map(_Raw, ("-0", "1.0", "1e999", "NaN", "9" * 5000, '"\\ud800"', '"\\u0000x"')),
    _Raw("[" * 20_000 + "]" * 20_000), _Raw('{"a":' * 20_000 + "1" + "}" * 20_000),
    _Raw(f"[{','.join(['0'] * 100_000)}]"), _Raw(f"[{','.join(['{}'] * 100_000)}]"),
)  # fmt: skip


def changed(
    data: bytes, made: random.Random, digests: list[str], documents: list[bytes]
) -> tuple[str, bytes]:
    """Return *data* with one hostile change, and what was done.

    *digests* are of other blobs, *documents* the world's others.
    """
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        value = None
    places = list(_places(value))
    how = made.randrange(10) if places else made.randrange(3)
    if how == 0:
        return "other bytes", mutate(data, made)
    if how == 1:
        return "another document", made.choice(documents)
    if how == 2:
        around = made.choice([b"\xef\xbb\xbf%b", b"%b\n{}", b"%b\0", b"\xff%b"])
        return "something about it", around % data
    at = made.choice(places)
    holder = value = copy.deepcopy(value)
    for step in at[:-1]:
        holder = holder[step]
    key, old = at[-1], holder[at[-1]]
    deeds: list[tuple[str, Callable[[], Any]]] = [("odd", lambda: made.choice(_ODD))]
    if isinstance(key, str):
        deeds.append(
            ("twice", lambda: _Raw(f"{_dump(old)},{_dump(key)}:{_dump(made.choice(_ODD))}"))
        )
    if isinstance(old, str):
        deeds.append(("near", lambda: made.choice([f"{old}0", old[:-1], old.upper(), f" {old}"])))
        if old.startswith("sha256:"):
            deeds.append(("other digest", lambda: f"sha256:{made.choice(digests)}"))
    elif isinstance(old, list) and old:
        deeds.append(("list", lambda: made.choice([old * 2, old[::-1], old[:-1], old * 5000])))
    elif isinstance(old, int):
        deeds.append(("number", lambda: made.choice([old + 1, -old, 10**30, _Raw(f"{old}.0")])))
    if how == 3:
        del holder[key]
        return f"without {at}", _dump(value).encode("utf-8", "surrogatepass")
    name, deed = made.choice(deeds)
    holder[key] = deed()
    return f"{name} at {at}", _dump(value).encode("utf-8", "surrogatepass")


def _places(value: Any, at: Place = ()) -> Iterator[Place]:
    pairs = value.items() if isinstance(value, dict) else ()
    for key, each in enumerate(value) if isinstance(value, list) else pairs:
        yield (*at, key)
        yield from _places(each, (*at, key))


def _dump(value: Any) -> str:
    if isinstance(value, _Raw):
        return str(value)
    if isinstance(value, dict):
        members = ",".join(f"{json.dumps(key)}:{_dump(each)}" for key, each in value.items())
        return f"{{{members}}}"
    if isinstance(value, list):
        return f"[{','.join(map(_dump, value))}]"
    return json.dumps(value)


def readdressed(files: Mapping[str, bytes], name: str, data: bytes) -> Files:
    """Return *files* with the blob *name* as *data*, and every document that names it as well."""
    found = dict(files)
    _swap(found, name, data, 0)
    return found


def _swap(files: Files, name: str, data: bytes, depth: int) -> None:
    old, new = name.removeprefix(BLOBS), hashlib.sha256(data).hexdigest()
    files.pop(name, None)
    files[BLOBS + new] = data
    if old == new or depth > 8:  # what names itself has no end
        return
    for parent in [each for each in files if each.startswith("images/") and each != BLOBS + new]:
        text = files.get(parent, b"")
        if old.encode() not in text:
            continue
        try:
            again = json.dumps(_renamed(json.loads(text), old, new, len(data))).encode()
        except (ValueError, RecursionError):
            continue
        if parent.startswith(BLOBS):
            _swap(files, parent, again, depth + 1)
        else:
            files[parent] = again


def _renamed(value: Any, old: str, new: str, size: int) -> Any:
    if isinstance(value, list):
        return [_renamed(each, old, new, size) for each in value]
    if isinstance(value, dict):
        if value.get("digest") == f"sha256:{old}" and "size" in value:
            value = value | {"size": size}
        return {key: _renamed(each, old, new, size) for key, each in value.items()}
    return value.replace(old, new) if isinstance(value, str) else value
