"""Judges bundles, and alters every part of one."""

from __future__ import annotations

import base64
import binascii
import copy
from collections.abc import Iterator
from typing import Any

from nix_seed.formats.intoto.statement import (
    build_statement,
)
from nix_seed.trust.rules.bundle import (
    Expected,
    Trust,
    Verdict,
    evaluate_bundle,
)
from nix_seed.trust.sign import KeySigner
from support.attestations import IMAGE, predicate
from support.private_sigstore import b64

SIGNER = KeySigner.generate()


KEYS = Trust(keys=(SIGNER.public_key,))


ABOUT = Expected(IMAGE)


STATEMENT = build_statement(predicate(), "owner/project")


def judge(text: bytes, trust: Trust = KEYS, expected: Expected = ABOUT) -> Verdict:
    return evaluate_bundle(text, trust, expected, "it")


# No single change of what is signed or proved verifies.


def mutations(document: Any, step: int) -> Iterator[tuple[str, Any]]:
    """Yield copies in which one byte of one string, decoded where it is base64, is another."""
    for path, text in leaves(document):
        raw, decoded = content(text)
        for at in range(len(raw) % step, len(raw), step):
            changed = bytearray(raw)
            changed[at] ^= 1 << (at % 7)
            new = b64(bytes(changed)) if decoded else changed.decode("utf-8", "replace")
            yield ".".join(path), with_member(document, path, new)


def leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from leaves(item, (*path, name))
    elif isinstance(value, list):
        for position, item in enumerate(value):
            yield from leaves(item, (*path, str(position)))


def content(text: str) -> tuple[bytes, bool]:
    try:
        raw = base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        return text.encode(), False
    return (raw, True) if len(raw) >= 8 else (text.encode(), False)


def with_member(document: Any, path: tuple[str, ...], new: Any) -> Any:
    result = copy.deepcopy(document)
    *parents, last = path
    inner = result
    for part in parents:
        inner = inner[int(part)] if isinstance(inner, list) else inner[part]
    if new is ...:
        del inner[last]
    else:
        inner[int(last) if isinstance(inner, list) else last] = new
    return result


def members(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield (*path, name)
            yield from members(item, (*path, name))
    elif isinstance(value, list):
        for position, item in enumerate(value):
            yield from members(item, (*path, str(position)))
