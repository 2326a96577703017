"""The ledgers of a policy: ``[[ledgers]]`` of ``trust.toml``.

::

    [[ledgers]]
    id = "mainnet"
    kind = "evm"
    chainId = 1
    address = "0x…"                 # the contract
    rpc = ["https://…", "https://…"]  # nodes to ask; they must agree
    confirmations = 12              # blocks on top; without it, what the nodes call finalized
    fromBlock = 20000000            # the block the contract was deployed in
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final, Literal, get_args
from urllib.parse import urlsplit

from nix_seed.ground.errors import InputError
from nix_seed.rules.policy_reader import Section

__all__ = ["LedgerKind", "LedgerSpec", "check_rpc", "read_ledgers"]

LedgerKind = Literal["evm"]
_ADDRESS: Final = re.compile(r"0x[0-9a-fA-F]{40}\Z")
_MOST: Final = 16
_MOST_CONFIRMATIONS: Final = 100_000
# An id of a chain beyond 2^53 would not survive JSON, in which signatures are passed on.
_LARGEST: Final = 1 << 53


@dataclass(frozen=True, slots=True)
class LedgerSpec:
    """An EVM contract that keeps a ledger: where it is, whom to ask, what counts as settled.

    *address* is ``0x`` and 40 hex digits, in the capitals it was written with (EIP-55 makes them a
    checksum, which the client checks). *confirmations* is how many blocks must lie on top of an
    entry's; None leaves it to the nodes' own ``finalized``. *from_block* is where a replay begins.
    """

    id: str
    kind: LedgerKind
    chain_id: int
    address: str
    rpc: tuple[str, ...]
    confirmations: int | None
    from_block: int = 0


def read_ledgers(root: Section) -> tuple[LedgerSpec, ...]:
    """Read the array ``ledgers`` of *root*; ``InputError``, with its line, for one that is none."""
    sections = list(root.tables("ledgers"))
    if len(sections) > _MOST:
        raise root.error(f"{len(sections)} ledgers; at most {_MOST} are read", "ledgers")
    return tuple(_different(sections))


def check_rpc(url: str) -> None:
    """Raise ``InputError`` unless *url* is HTTPS, or plain HTTP to this very machine."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        host = None
    if host and (parts.scheme == "https" or (parts.scheme == "http" and _is_here(host))):
        return
    raise InputError(
        f"{url!r} is no address of a node",
        hint="https://HOST[/PATH] is, and http:// for loopback addresses only",
    )


def _different(sections: list[Section]) -> Iterator[LedgerSpec]:
    ids: set[str] = set()
    places: set[tuple[int, str]] = set()
    for section in sections:
        spec = _ledger(section)
        place = spec.chain_id, spec.address.lower()
        if spec.id.casefold() in ids:
            raise section.error(f"two ledgers have the id {spec.id}", "id")
        if place in places:
            raise section.error("two ledgers are one contract under two names", "address")
        ids.add(spec.id.casefold())
        places.add(place)
        yield spec


def _ledger(section: Section) -> LedgerSpec:
    kind = section.required("kind", str)
    if kind not in get_args(LedgerKind):
        raise section.error(f"{kind!r} is no kind of ledger", "kind", "known: evm")
    spec = LedgerSpec(
        id=section.required("id", str),
        kind=kind,
        chain_id=_number(section, "chainId", 1, _LARGEST),
        address=_address(section),
        rpc=_nodes(section),
        confirmations=_optional(section, "confirmations", 0, _MOST_CONFIRMATIONS),
        from_block=_optional(section, "fromBlock", 0, _LARGEST) or 0,
    )
    section.done()
    return spec


def _address(section: Section) -> str:
    text: str = section.required("address", str)
    if _ADDRESS.match(text) is None:
        raise section.error(
            f"{text!r} is no address of a contract", "address", "0x and 40 hex digits are"
        )
    if int(text, 16) == 0:
        raise section.error("no contract is at the zero address", "address")
    return text


def _nodes(section: Section) -> tuple[str, ...]:
    found = section.strings("rpc")
    for url in found:
        try:
            check_rpc(url)
        except InputError as error:
            raise section.error(f"rpc: {error.message}", "rpc", error.hint) from error
    return found


def _number(section: Section, key: str, least: int, most: int) -> int:
    section.required(key, int)
    value = _optional(section, key, least, most)
    assert value is not None
    return value


def _optional(section: Section, key: str, least: int, most: int) -> int | None:
    value: int | None = section.optional(key, int)
    if value is not None and not least <= value <= most:
        raise section.error(f"{key} must be from {least} to {most}", key)
    return value


def _is_here(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
