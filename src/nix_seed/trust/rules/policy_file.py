"""Reads ``trust.toml``, whole and strictly.

An unknown key, a key of another type, a demand that nothing can meet or that everything meets is
refused, with its line. docs/verify.md lists every key. Ledgers are read here as well::

    [[ledgers]]
    id = "mainnet"
    kind = "evm"
    chainId = 1
    address = "0x…"                 # the contract
    rpc = ["https://…", "https://…"]  # nodes to ask; they must agree
    confirmations = 12              # blocks on top; without it, what the nodes call finalized
    fromBlock = 20000000            # the block the contract was deployed in
"""

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Final, get_args

from nix_seed.core.digests import Digest
from nix_seed.core.errors import InputError
from nix_seed.core.safe_text import split_address
from nix_seed.formats.tlog.note import NoteKey
from nix_seed.registry.rules.http import is_loopback
from nix_seed.trust.rules import policy as policies
from nix_seed.trust.rules.policy_checks import Section, check_policy, read_sections
from nix_seed.trust.rules.signer import CertificateIdentity, PublicKey, SignedBy

VERSION: Final = 1
_ACCEPTS: Final = (
    "each is sha256: and what `sha256sum` says of the earlier trust.toml, or, where that had "
    'another number of systems, {policy = "sha256:…", systems = N}'
)
_MOST: Final = 256  # builders, logs, witnesses and promoters, each


def parse_policy(text: bytes, label: str, now: datetime) -> policies.Policy:
    """Read *text*, the bytes of ``trust.toml``; *label* names it in errors.

    Raises ``InputError`` for a policy that is malformed, has expired by *now*, can never be
    satisfied, or always is.
    """
    root = read_sections(text, label)
    if root.required("version", int) != VERSION:
        raise root.error(f"version must be {VERSION}, the one this release reads", "version")
    policy = _policy(root, Digest.of(text))
    check_policy(policy, root, now)
    return policy


def _policy(root: Section, digest: Digest) -> policies.Policy:
    expires = root.time("expires")
    if expires is None:
        raise root.error(
            "the policy needs expires, a time",
            hint="such as expires = 2027-01-31T00:00:00Z: nobody may trust it forever unawares",
        )
    systems = root.strings("systems")
    sigstore, licences = map(root.table, ("sigstore", "licences"))
    return root.read(
        policies.Policy,
        expires=expires,
        systems=systems,
        quorum=_quorum(root.table("quorum")),
        built=root.table("built").read(policies.BuiltDemands),
        builders=tuple(_builder(each, systems) for each in _some(root, "builders")),
        logs=tuple(_log(each) for each in _some(root, "logs")),
        witnesses=tuple(_witness(each) for each in _some(root, "witnesses")),
        promoters=tuple(
            each.read(policies.Promoter, signer=_signer(each)) for each in _some(root, "promoters")
        ),
        trusted_root=sigstore.whole(sigstore.optional("trustedRoot", str)),
        digest=digest,
        accepts=_accepted(root, len(systems)),
        ledgers=tuple(_different(_some(root, "ledgers", _MOST_LEDGERS))),
        licences=licences.whole(licences.strings("accept")),
    )


def _accepted(root: Section, systems: int) -> Mapping[Digest, int]:
    """Return each earlier policy and how many systems it had: as many as this one, if not said."""
    found: dict[Digest, int] = {}
    for number, item in enumerate(root.optional("accepts", list) or []):
        text, count = item, systems
        if isinstance(item, dict):
            section = Section(item, (*root.place, "accepts", number), root.text, root.label)
            text, count = section.required("policy", str), section.required("systems", int)
            section.done()
        if not isinstance(text, str) or count < 1:
            raise root.error("accepts must be an array of policies", "accepts", _ACCEPTS)
        with root.reading("accepts", _ACCEPTS):
            digest = Digest.parse(text)
        if digest in found:
            raise root.error("accepts names something twice", "accepts")
        found[digest] = count
    return found


def _some(root: Section, key: str, most: int = _MOST) -> list[Section]:
    found = list(root.tables(key))
    if len(found) > most:
        raise root.error(f"{len(found)} {key}; at most {most} are read", key)
    return found


def _quorum(section: Section) -> policies.Quorum:
    distinct = section.strings("distinct")
    for name in distinct:
        if name not in get_args(policies.Attribute):
            raise section.error(
                f"distinct: {name!r} is no attribute of builders",
                "distinct",
                f"known: {', '.join(get_args(policies.Attribute))}",
            )
    return section.read(policies.Quorum, distinct=distinct)


def _builder(section: Section, systems: tuple[str, ...]) -> policies.Builder:
    given = section.strings("systems")
    for system in given:
        if system not in systems:
            raise section.error(f"the policy's own systems do not name {system}", "systems")
    signer = _signer(section)
    return section.read(policies.Builder, signer=signer, systems=frozenset(given or systems))


def _signer(section: Section) -> SignedBy:
    issuer, subject = section.optional("issuer", str), section.optional("subject", str)
    key = section.optional("key", str)
    if (issuer is None) != (subject is None) or (issuer is None) == (key is None):
        raise section.error("say either issuer and subject, or key")
    repository = section.optional("repository", str) or ""
    if key is None:
        return CertificateIdentity(issuer, subject, repository)
    if repository:
        raise section.error("only a certificate names a repository, not a key", "repository")
    with section.reading("key"):
        return PublicKey.from_pem(key.strip().encode() + b"\n", "key")


def _log(section: Section) -> policies.PolicyLog:
    origin = section.required("origin", str)
    key = _note_key(section, lambda text: NoteKey.read(text, origin))
    return section.read(policies.PolicyLog, key=key)


def _witness(section: Section) -> policies.Witness:
    key = _note_key(section, NoteKey.parse)
    if key.kind != "cosignature":
        raise section.error(
            "the key is a log's, not a witness's",
            "key",
            "a witness's verifier key is of type 4: its base64 begins with B",
        )
    return section.read(policies.Witness, key=key)


def _note_key(section: Section, read: Callable[[str], NoteKey]) -> NoteKey:
    text = section.required("key", str)
    with section.reading("key"):
        return read(text.strip())


_ADDRESS: Final = re.compile(r"0x[0-9a-fA-F]{40}\Z")
_MOST_LEDGERS: Final = 16
_MOST_CONFIRMATIONS: Final = 100_000


def check_rpc(url: str) -> None:
    """Raise ``InputError`` unless *url* is HTTPS, or plain HTTP to this very machine."""
    parts = split_address(url)
    host = parts.hostname
    if host and (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host))):
        return
    raise InputError(
        f"{url!r} is no address of a node",
        hint="https://HOST[/PATH] is, and http:// for loopback addresses only",
    )


def _different(sections: list[Section]) -> Iterator[policies.LedgerSpec]:
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


def _ledger(section: Section) -> policies.LedgerSpec:
    section.required("chainId", int)
    address: str = section.required("address", str)
    if _ADDRESS.match(address) is None:
        raise section.error(
            f"{address!r} is no address of a contract", "address", "0x and 40 hex digits are"
        )
    if int(address, 16) == 0:
        raise section.error("no contract is at the zero address", "address")
    nodes = section.strings("rpc")
    with section.reading("rpc"):
        for url in nodes:
            check_rpc(url)
    return section.read(
        policies.LedgerSpec,
        chain_id=section.number("chainId", least=1),
        rpc=nodes,
        confirmations=section.number("confirmations", most=_MOST_CONFIRMATIONS),
    )
