"""Is this bundle what it seems? The one way by which every attestation is judged.

A verdict has a fate (verified; checked and false; could not be checked) and a reason, and only a
verified one carries a statement. Whatever goes wrong in judging, nothing is verified.

A certificate and its proofs are judged by Sigstore's own library, which is given in as a check.
``check_log`` adds what sigstore 4.5 passes over in a log entry: it verifies the checkpoint's
signature and compares the root, but not the tree's size, nor the log's name in the signature line,
nor more than four bytes of ``logId``, nor an index and a time that no promise signs.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from typing import Any, Final, Protocol, Self

from nix_seed.core.digests import Digest
from nix_seed.core.errors import CheckedFalse, InputError
from nix_seed.core.values import dataclass
from nix_seed.core.verdict import Fate
from nix_seed.formats.intoto import statement as intoto
from nix_seed.formats.intoto.bundle import LARGEST_BUNDLE, Bundle, Certificate
from nix_seed.logs.rules.entry import LogTrust, check_of_keys
from nix_seed.trust.rules.signer import CertificateIdentity, PublicKey, SignedBy, read_certificate


class Ground(StrEnum):
    """Why, by the first thing that failed, in the order in which things are checked."""

    VERIFIED = "verified"
    TOO_LARGE = "too large"
    MALFORMED = "malformed"
    NO_ENVELOPE = "no envelope"
    PAYLOAD_TYPE = "payload type"
    UNTRUSTED = "untrusted signer"
    SIGNATURE = "signature"
    CERTIFICATE = "certificate"
    TIME = "time"
    LOG = "log"
    STATEMENT = "statement"
    PREDICATE_TYPE = "predicate type"
    PREDICATE = "predicate"
    SUBJECT = "subject"
    UNAVAILABLE = "unavailable"
    INTERNAL = "internal error"


_UNCHECKED = frozenset({Ground.UNAVAILABLE, Ground.INTERNAL})


class Refused(Exception):
    """Raised by a check that says no, or that cannot say; the verdict is made of it.

    Never seen outside ``evaluate_bundle``, and so no part of the tree of errors.
    """

    def __init__(self, ground: Ground, reason: str) -> None:
        super().__init__(reason)
        self.ground = ground
        self.reason = reason


class BundleCheck(Protocol):
    """A further check of a bundle whose signature is good."""

    def check(self, bundle: Bundle) -> None:
        """Return if all is well; raise ``Refused`` if not, or if it cannot be told."""
        ...


NO_LOGS: Final = LogTrust(())


@dataclass(frozen=True, slots=True)
class Trust:
    """Who may sign.

    *certificates* judges a certificate's chain, time and log entry, as of Sigstore; without it no
    bundle with a certificate is verified. *logs* are those whose other entries count.
    """

    keys: tuple[PublicKey, ...] = ()
    identities: tuple[CertificateIdentity, ...] = ()
    certificates: BundleCheck | None = None
    logs: LogTrust = NO_LOGS

    @classmethod
    def in_signers(
        cls,
        signers: Iterable[SignedBy],
        certificates: BundleCheck | None,
        logs: LogTrust = NO_LOGS,
    ) -> Self:
        """Return the trust in just these keys and identities."""
        found = tuple(signers)
        return cls(
            keys=tuple(each for each in found if isinstance(each, PublicKey)),
            identities=tuple(each for each in found if not isinstance(each, PublicKey)),
            certificates=certificates,
            logs=logs,
        )


@dataclass(frozen=True, slots=True)
class Expected:
    """What the statement must be, and *subject* which bytes it must be about.

    None asks for no certain subject, or no certain type of predicate.
    """

    subject: Digest | None
    predicate_types: Collection[str] | None = (intoto.BUILD_TYPE,)
    statement_types: Collection[str] = (intoto.STATEMENT_V1,)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The end of a check. *reason* says what was wrong with what, in one line.

    *signer* is known once the signature proved good, *statement* only when all did, *predicate*
    only for a statement of ours.
    """

    fate: Fate
    ground: Ground
    reason: str
    signer: SignedBy | None = None
    statement: intoto.Statement | None = None
    predicate: intoto.BuildPredicate | None = None
    bundle: Bundle | None = None

    def __post_init__(self) -> None:
        if (self.fate is Fate.VERIFIED) is (self.statement is None):
            raise ValueError("a verdict has a statement if, and only if, it is verified")

    @property
    def verified(self) -> bool:
        """Whether everything asked for was checked and holds."""
        return self.fate is Fate.VERIFIED


def evaluate_bundle(text: bytes, trust: Trust, expected: Expected, label: str) -> Verdict:
    """Judge the bytes of a bundle; *label* names it in the verdict's words. Never raises."""
    signer: SignedBy | None = None
    bundle: Bundle | None = None
    try:
        if len(text) > LARGEST_BUNDLE:
            said = f"{label} has {len(text)} bytes; {LARGEST_BUNDLE} are the most"
            raise Refused(Ground.TOO_LARGE, said)
        with _refused(Ground.MALFORMED):
            bundle = Bundle.parse(text, label)
        envelope = _envelope(bundle, label)
        signer = find_signer(bundle, envelope.pae, envelope.signatures[0].sig, trust, label)
        statement, predicate = _statement(envelope, expected, label)
    except Refused as refused:
        fate = Fate.UNCHECKED if refused.ground in _UNCHECKED else Fate.FALSE
        return Verdict(fate, refused.ground, refused.reason, signer, bundle=bundle)
    except Exception as error:
        reason = f"{label}: an unexpected {type(error).__name__}: {error}"
        return Verdict(Fate.UNCHECKED, Ground.INTERNAL, reason, signer, bundle=bundle)
    who = signer.fingerprint if isinstance(signer, PublicKey) else str(signer)
    reason = f"{label} is signed by {who}"
    return Verdict(Fate.VERIFIED, Ground.VERIFIED, reason, signer, statement, predicate, bundle)


def find_signer(
    bundle: Bundle, signed: bytes, signature: bytes, trust: Trust, label: str
) -> SignedBy:
    """Return who of *trust* made *signature* over *signed*; ``Refused`` if none did."""
    if isinstance(bundle.material, Certificate):
        return _certified(bundle, bundle.material, signed, signature, trust, label)
    hint = bundle.material.hint
    named = [key for key in trust.keys if key.hint == hint]
    # The hint is not signed: it only says where to begin.
    for key in (*named, *trust.keys):
        if key.verifies(signature, signed):
            return key
    if named:
        raise Refused(Ground.SIGNATURE, f"{label}: the signature is not that of the key it names")
    raise Refused(
        Ground.UNTRUSTED, f"{label} is signed by none of the trusted keys (it names {hint!r})"
    )


def _certified(
    bundle: Bundle,
    certificate: Certificate,
    signed: bytes,
    signature: bytes,
    trust: Trust,
    label: str,
) -> CertificateIdentity:
    """Check signature, identity and at last, by *trust*, the certificate itself."""
    with _refused(Ground.CERTIFICATE):
        key, identity = read_certificate(certificate, label)
    if not key.verifies(signature, signed):
        raise Refused(
            Ground.SIGNATURE, f"{label}: the signature is not that of its certificate's key"
        )
    trusted = next((each for each in trust.identities if each.admits(identity)), None)
    if trusted is None:
        raise Refused(Ground.UNTRUSTED, f"{label} is signed by {identity}, who is not trusted")
    if trust.certificates is None:
        raise Refused(
            Ground.UNAVAILABLE,
            f"{label} is signed keyless, and no Sigstore root to judge it by was given",
        )
    trust.certificates.check(bundle)
    return trusted


def _envelope(bundle: Bundle, label: str) -> intoto.Envelope:
    envelope = bundle.dsse_envelope
    if envelope is None:
        raise Refused(Ground.NO_ENVELOPE, f"{label} signs an artifact and states nothing about it")
    if len(envelope.signatures) != 1:
        raise Refused(
            Ground.MALFORMED, f"{label} has {len(envelope.signatures)} signatures, not one"
        )
    if envelope.payload_type != intoto.PAYLOAD_TYPE:
        raise Refused(
            Ground.PAYLOAD_TYPE,
            f"{label}: its payload is of type {envelope.payload_type!r}, not {intoto.PAYLOAD_TYPE}",
        )
    return envelope


def _statement(
    envelope: intoto.Envelope, expected: Expected, label: str
) -> tuple[intoto.Statement, intoto.BuildPredicate | None]:
    """Read what was signed, and of a build statement the predicate.

    Only a build's image is its subject: narHash and commit are for finding it.
    """
    with _refused(Ground.STATEMENT):
        statement = intoto.Statement.parse(envelope.payload, label, expected.statement_types)
    kind, wanted = statement.predicate_type, expected.predicate_types
    if wanted is not None and kind not in wanted:
        said = f"predicateType is {kind!r}, not {' or '.join(sorted(wanted))}"
        raise Refused(Ground.PREDICATE_TYPE, f"{label}: {said}")
    if kind != intoto.BUILD_TYPE:
        if expected.subject is not None and not statement.names(expected.subject):
            raise Refused(Ground.SUBJECT, f"{label} is not about {expected.subject}")
        return statement, None
    if statement.statement_type != intoto.STATEMENT_V1:
        raise Refused(
            Ground.STATEMENT, f"{label}: {intoto.BUILD_TYPE} needs _type {intoto.STATEMENT_V1}"
        )
    with _refused(Ground.PREDICATE):
        predicate = intoto.check_build(statement, label)
    if expected.subject not in (None, predicate.image_digest):
        about = f"{label} is about {predicate.image_digest}, not {expected.subject}"
        raise Refused(Ground.SUBJECT, about)
    return statement, predicate


@contextmanager
def _refused(ground: Ground) -> Iterator[None]:
    """Refuse for *ground* what is malformed or false inside."""
    try:
        yield
    except (InputError, CheckedFalse) as error:
        raise Refused(ground, error.message) from error


def check_log(entry: Mapping[str, Any], keys: Iterable[bytes]) -> None:
    """Raise ``Refused`` unless all of the entry is of the log of one of *keys*."""
    with _refused(Ground.LOG):
        check_of_keys(entry, keys)
