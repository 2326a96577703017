"""What a log holds in a promoter's name, and whether anything that was found explains it."""

import base64
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field

from nix_seed.core.digests import Digest
from nix_seed.core.errors import InputError
from nix_seed.core.values import dataclass
from nix_seed.core.verdict import Severity
from nix_seed.core.words import shortened
from nix_seed.formats.intoto.bundle import Unverified
from nix_seed.formats.intoto.statement import Commit
from nix_seed.formats.tlog.entry import DsseV002, HashedRekord, LogBody, Verifier, parse_body
from nix_seed.release.rules.answer import AuditFinding, Kind
from nix_seed.trust.rules.policy import Policy, Promoter
from nix_seed.trust.rules.signer import PublicKey, SignedBy, read_identity


@dataclass(frozen=True, slots=True)
class PromoterEntry:
    """Entry *index* of *log*, whose verifier is a promoter's.

    *signer* is how a policy names him, *promoter* his id in it. *signed* is the SHA-256 of the
    signed bytes (the PAE), *payload* of the payload; a log records one of the two. *genuine* is
    None where what it records cannot tell whether it was the promoter who signed: a payload's hash,
    or a key that signs no hash.
    """

    log: str
    index: int
    leaf_hash: Digest
    promoter: str
    signer: SignedBy
    signed: Digest | None
    payload: Digest | None
    genuine: bool | None


@dataclass(slots=True)
class Explained:
    """What was found: the SHA-256 of envelopes' signed bytes, and of their payloads.

    *votes* are of what one signer signed, and explain entries of his alone: who signs the words of
    another, and has them discounted as a forgery, would hide the other's.
    """

    signed: set[Digest] = field(default_factory=set)
    payloads: set[Digest] = field(default_factory=set)
    votes: set[tuple[SignedBy, Digest]] = field(default_factory=set)

    def add(self, found: Unverified) -> None:
        """Remember that the envelope *found* was."""
        self.signed.add(found.signed)
        self.payloads.add(found.payload)

    def explains(self, entry: PromoterEntry) -> bool:
        """Whether the entry is of an envelope that was found."""
        if entry.signed in self.signed or entry.payload in self.payloads:
            return True
        hashes = (each for each in (entry.signed, entry.payload) if each is not None)
        return any((entry.signer, each) in self.votes for each in hashes)


class Sieve:
    """Is given each entry of the log *log*, and keeps in ``found`` those in a promoter's name.

    With *builders* those in a builder's, instead. Most of a log is told to be none by a look.
    """

    def __init__(self, log: str, policies: Sequence[Policy], *, builders: bool = False) -> None:
        self.log = log
        promoters = [each for policy in policies for each in policy.promoters]
        if builders:
            voters = [each for policy in policies for each in policy.builders]
            promoters = [Promoter(each.id, each.signer) for each in voters]
        self._keys = {e.signer.der: e for e in promoters if isinstance(e.signer, PublicKey)}
        self._identities = [e for e in promoters if not isinstance(e.signer, PublicKey)]
        # A key is spelled in one way in a body of hashes; certificates and old kinds are parsed.
        self._marks = [base64.b64encode(der) for der in self._keys]
        self._marks += [b'"dsse"', *([b'"x509Certificate"'] if self._identities else [])]
        self.found: list[PromoterEntry] = []

    def look(self, index: int, body: bytes, leaf: bytes) -> None:
        """Look at entry *index*, whose leaf hash is *leaf*."""
        if not any(mark in body for mark in self._marks):
            return
        try:
            parsed = parse_body(body, "an entry")
        except InputError:
            return  # a log holds what others wrote, too
        for verifier in _verifiers(parsed):
            if (promoter := self._promoter(verifier)) is not None:
                at = self.log, index, Digest(leaf.hex())
                self.found.append(_entry(at, promoter, parsed))

    def _promoter(self, verifier: Verifier) -> Promoter | None:
        if verifier.certificate is None:
            return self._keys.get(verifier.der)
        try:
            identity = read_identity(verifier.der, "a certificate")
        except InputError:
            return None
        for each in self._identities:
            if not isinstance(each.signer, PublicKey) and each.signer.admits(identity):
                return each
        return None


def find_withheld(entries: Sequence[PromoterEntry], explained: Explained) -> Iterator[AuditFinding]:
    """Yield every entry in a promoter's name that nothing found explains."""
    for entry in entries:
        if entry.genuine is False:
            yield _forged(entry)
        elif not explained.explains(entry):
            yield _withheld(entry)


def find_unshown(
    entries: Sequence[PromoterEntry],
    explained: Explained,
    commits: Mapping[tuple[str, int], Commit],
) -> Iterator[AuditFinding]:
    """Yield what builders signed and nothing found explains: it may be a dissent.

    Of an entry whose commit a log's index told, in *commits* by log and index, it is an alarm.
    Else it may be of a commit that was never released, and each builder has one notice a log.
    """
    others: dict[tuple[str, str], list[PromoterEntry]] = {}
    for entry in entries:
        if entry.genuine is False:
            continue  # anyone may log what is in another's name, and it says nothing
        if explained.explains(entry):
            continue
        commit = commits.get((entry.log, entry.index))
        if commit is None:
            others.setdefault((entry.log, entry.promoter), []).append(entry)
            continue
        reason = (
            f"entry {entry.index} of the log {entry.log} is signed by the builder {entry.promoter} "
            f"about {commit}, and nothing shows it: it may be a dissent that is kept from you"
        )
        where = f"{entry.log} {entry.index}"
        yield AuditFinding(Kind.WITHHELD, Severity.ALARM, where, reason, _shown(entry))
    for (log, builder), found in others.items():
        some = shortened([str(each.index) for each in found], 5)
        reason = (
            f"the builder {builder} signed entries {some} of the log {log}, and nothing that "
            "was read shows what: another commit, or a dissent that is kept from you"
        )
        shown = tuple(line for each in found[:5] for line in _shown(each))
        yield AuditFinding(Kind.WITHHELD, Severity.NOTICE, f"{log} {builder}", reason, shown)


def _withheld(entry: PromoterEntry) -> AuditFinding:
    reason = (
        f"entry {entry.index} of the log {entry.log} is signed by {entry.promoter}, and what was "
        "signed is nowhere to be found: it may be a release that is kept from you"
    )
    where = f"{entry.log} {entry.index}"
    return AuditFinding(Kind.WITHHELD, Severity.ALARM, where, reason, _shown(entry))


def _forged(entry: PromoterEntry) -> AuditFinding:
    reason = (
        f"entry {entry.index} of the log {entry.log} is in the name of {entry.promoter}, whose "
        "signature it is not: the log took what it must refuse"
    )
    return AuditFinding(Kind.LOG, Severity.ALARM, entry.log, reason, _shown(entry))


def _shown(entry: PromoterEntry) -> tuple[str, ...]:
    label = f"signed {entry.signed}" if entry.signed else f"payload {entry.payload}"
    return f"entry {entry.index} of {entry.log}", f"leaf {entry.leaf_hash}", label


def _entry(at: tuple[str, int, Digest], promoter: Promoter, body: LogBody) -> PromoterEntry:
    who = promoter.id, promoter.signer
    if isinstance(body, HashedRekord):
        return PromoterEntry(*at, *who, Digest(body.digest.hex()), None, _genuine(body))
    return PromoterEntry(*at, *who, None, Digest(body.payload_digest.hex()), None)


def _verifiers(body: LogBody) -> list[Verifier]:
    if isinstance(body, HashedRekord):
        return [body.verifier]
    if isinstance(body, DsseV002):
        return [verifier for _, verifier in body.signatures]
    return [_of_pem(pem) for _, pem in body.signatures]


def _genuine(body: HashedRekord) -> bool | None:
    try:
        return body.is_signed()
    except InputError:
        return False


def _of_pem(pem: bytes) -> Verifier:
    """Return the verifier that Rekor v1 keeps as PEM; one that is none is nobody's.

    What else stands between the letters, or after them, hides no entry: Pythons differ in that.
    """
    label, body = b"-----BEGIN CERTIFICATE-----", pem.strip().split(b"\n")
    letters = re.sub(rb"[^A-Za-z0-9+/]", b"", b"".join(body[1:-1]).partition(b"=")[0])
    try:
        der = base64.b64decode(letters + b"=" * (-len(letters) % 4))
    except ValueError:
        der = b""
    return Verifier(certificate=der) if body[0] == label else Verifier(der)
