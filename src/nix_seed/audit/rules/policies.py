"""Did every record name a policy of the repository, and were its signers in office then?"""

from collections.abc import Iterable, Iterator
from datetime import datetime

from nix_seed.audit.rules.record import LedgerRecord
from nix_seed.core.digests import Digest
from nix_seed.core.verdict import Severity
from nix_seed.core.words import in_utc, shortened
from nix_seed.release.rules.finding import AuditFinding, Kind
from nix_seed.trust.rules.policy import signer_name
from nix_seed.trust.rules.policy_book import PolicyBook

_SHOWN = 5


def find_policy_faults(records: Iterable[LedgerRecord], book: PolicyBook) -> Iterator[AuditFinding]:
    """Yield the policies by which records were made that are foreign, unknown or not accepted."""
    by: dict[Digest, list[LedgerRecord]] = {}
    for record in records:
        if record.promoters:
            by.setdefault(record.policy, []).append(record)
    for digest, made in by.items():
        names = _commits(made)
        shown = (f"policy {digest}", f"epoch {made[0].epoch}", *(each.shown[0] for each in made))
        accepted = digest in (book.present.digest, *book.present.accepts)
        if not book.knows(digest) and not accepted:
            severity = Severity.ALARM
            reason = f"{names} promoted under a policy that this one does not know: {digest}"
        elif not book.knows(digest):
            severity = Severity.UNCHECKED
            reason = (
                f"{names} promoted under an earlier policy, {digest}, by which nothing could be "
                "judged: name its file with --policy-history"
            )
        elif not accepted:
            severity = Severity.WARNING
            reason = f"{names} promoted under the policy {digest}, which this one accepts no more"
        else:
            continue
        yield AuditFinding(Kind.POLICY, severity, str(digest), reason, shown)


def find_expired(
    records: Iterable[LedgerRecord], book: PolicyBook, now: datetime
) -> Iterator[AuditFinding]:
    """Yield records that were made when their policy had expired, and that the one in force has."""
    for record in records:
        policy = book.of_record(record.policy)
        if record.stands and record.time is not None and record.time > policy.expires:
            reason = (
                f"{record.commit} was promoted at {in_utc(record.time)} under a policy "
                f"that had expired at {in_utc(policy.expires)}"
            )
            yield record.finding(Kind.POLICY, Severity.ALARM, reason)
    if book.present.expires <= now:
        reason = (
            f"the policy in force expired at {in_utc(book.present.expires)}: nobody can "
            "verify anything by it"
        )
        shown = (f"policy {book.present.digest}",)
        yield AuditFinding(Kind.POLICY, Severity.UNCHECKED, "the policy", reason, shown)


def find_revoked(
    records: Iterable[LedgerRecord], book: PolicyBook, now: datetime
) -> Iterator[AuditFinding]:
    """Yield builders and promoters on whose word releases rest, and who are trusted no more."""
    standing = [record for record in records if record.stands]
    earlier = [policy for policy in book.all if policy is not book.present]
    signers = {each.signer for each in book.present.promoters}
    gone = {p.id: p for policy in earlier for p in policy.promoters if p.signer not in signers}
    for promoter in gone.values():
        rest = [
            record
            for record in standing
            if promoter.id in record.promoters
            and promoter in book.of_record(record.policy).promoters
        ]
        if rest:
            why = f"the promoter {promoter.id} ({signer_name(promoter.signer)}) is one no more"
            yield _revoked(promoter.id, why, "signed", rest)
    builders = {each.signer: each for each in book.present.builders}
    for policy in book.all:
        for builder in policy.builders:
            current = builders.get(builder.signer)
            why = f"the builder {builder.id} is one no more"
            if current is not None:
                if current.revoked_at is None or current.revoked_at > now:
                    continue
                if policy is not book.present:
                    continue  # told of once, by its name in the policy in force
                at = f"{in_utc(current.revoked_at)}"
                why = f"the builder {builder.id} was revoked at {at}"
            rest = [
                record
                for record in standing
                for named in book.of_record(record.policy).builders
                if named.signer == builder.signer and named.id in record.builders
            ]
            if rest:
                yield _revoked(builder.id, why, "vouched for", rest)


def _revoked(name: str, why: str, did: str, records: list[LedgerRecord]) -> AuditFinding:
    reason = f"{why}, and {did} what was released as {_commits(records)}"
    evidence = tuple(each.shown[0] for each in records)
    return AuditFinding(Kind.REVOKED, Severity.WARNING, name, reason, evidence)


def _commits(records: list[LedgerRecord]) -> str:
    return shortened([str(each.commit) for each in records], _SHOWN)
