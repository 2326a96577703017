"""What makes a policy no policy: it could never be satisfied, or always would be."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from datetime import datetime
from typing import TypeVar

from nix_seed.core.errors import InputError
from nix_seed.core.words import in_utc, plural
from nix_seed.formats.tlog.note import NoteKey
from nix_seed.logs.rules.signer import CertificateIdentity, PublicKey
from nix_seed.trust.rules.independence import independent_builders
from nix_seed.trust.rules.policy import Builder, Policy, Signer, same_name, signer_name
from nix_seed.trust.rules.policy_reader import Section

_Item = TypeVar("_Item")


def check_policy(policy: Policy, root: Section, now: datetime) -> None:
    """Raise ``InputError``, with its line, for a *policy* that cannot mean what it says."""
    if policy.epoch < 1:
        raise root.error("epoch must be 1 or more; each change of the policy raises it", "epoch")
    if policy.expires <= now:
        raise root.error(
            f"the policy expired on {in_utc(policy.expires)}",
            "expires",
            "ask whoever publishes it for the next epoch",
        )
    if not policy.systems:
        raise root.error("the policy needs systems: those that make a release complete", "systems")
    _check_names(policy, root)
    _check_signers(root, "builders", [builder.signer for builder in policy.builders])
    _check_signers(root, "promoters", [promoter.signer for promoter in policy.promoters])
    _check_builders(policy, root)
    _check_quorum(policy, root)
    _check_logs(policy, root)


def check_counts(
    policy: Policy, builder_id: str, source: str, system: str | None, now: datetime
) -> None:
    """Raise ``InputError`` where no quorum by *policy* could count what the builder says now.

    What is logged is so for good: a statement about another *source*, or a *system* that is not the
    builder's, would stay there. A *system* of None is not known yet.
    """
    if policy.source is not None and source != policy.source:
        raise InputError(
            f"the policy is of {policy.source}, and this checkout is of {source}",
            hint="name the policy of this source (--policy FILE); or, where the source has moved, "
            f'write source = "{source}" into it',
        )
    builder = next((each for each in policy.builders if each.id == builder_id), None)
    if builder is None:
        raise InputError(
            f"the policy knows no builder {builder_id}",
            hint="add it: nix-seed policy add-builder; or name another one with --builder",
        )
    if system is not None and system not in builder.systems:
        systems = ", ".join(sorted(builder.systems))
        raise InputError(
            f"the policy does not let {builder.id} build for {system}",
            hint=f"it may for {systems}; or add {system} to its systems in the policy",
        )
    if builder.revoked_at is not None and builder.revoked_at <= now:
        raise InputError(
            f"{builder.id} was revoked at {in_utc(builder.revoked_at)}",
            hint="what it says now counts for nothing; sign as another builder of the policy",
        )
    if builder.not_before is not None and now < builder.not_before:
        raise InputError(
            f"{builder.id} counts from {in_utc(builder.not_before)} on, and that is to come",
            hint="attest after that, or change its notBefore in the policy",
        )


def policy_warnings(policy: Policy, now: datetime) -> tuple[str, ...]:
    """Return what is allowed and yet worth saying, one line each."""
    found = []
    for system in policy.systems:
        live = [b for b in _able(policy, system) if b.revoked_at is None or b.revoked_at > now]
        number = len(independent_builders(live, policy.quorum.distinct))
        if number < policy.quorum.threshold:
            found.append(
                f"{system}: only {plural(number, 'builder is', 'builders are')} not revoked by now;"
                f" what is built from now on cannot reach {policy.quorum.threshold}"
            )
    if policy.quorum.threshold == 1:
        found.append("one builder alone decides: threshold is 1")
    if policy.quorum.logs == 0:
        found.append("no log is demanded: what a builder said need not be public")
    if not policy.quorum.distinct:
        found.append("distinct is empty: one operator may run every builder")
    for ledger in policy.ledgers:
        if len(ledger.rpc) == 1:
            found.append(
                f"ledger {ledger.id}: one node alone, in rpc, is believed whatever it says"
            )
    if (policy.expires - now).days < 30:
        found.append(f"the policy expires in {max((policy.expires - now).days, 0)} days")
    return tuple(found)


def _check_names(policy: Policy, root: Section) -> None:
    for key, ids in (
        ("builders", [each.id for each in policy.builders]),
        ("logs", [each.id for each in policy.logs]),
        ("witnesses", [each.id for each in policy.witnesses]),
        ("promoters", [each.id for each in policy.promoters]),
    ):
        _check_unique(root, key, ids, f"two {key} have the id {{}}", same_name)


def _check_signers(root: Section, key: str, signers: Sequence[Signer]) -> None:
    _check_unique(
        root,
        key,
        signers,
        f"two {key} have one signer, {{}}: they would be one voice under two names",
        _same_signer,
        signer_name,
    )
    _check_overlap(root, key, signers)


def _same_signer(signer: Signer) -> Hashable:
    """Fold what may be one signer written twice: verification itself compares exactly."""
    if isinstance(signer, PublicKey):
        return signer
    return _name(signer), signer.repository.rstrip("/").casefold()


def _name(signer: CertificateIdentity) -> tuple[str, str]:
    return signer.issuer.rstrip("/").casefold(), signer.subject.casefold()


def _check_overlap(root: Section, key: str, signers: Sequence[Signer]) -> None:
    """Refuse who is trusted for every repository, and once more for one of them."""
    anywhere = {_name(each) for each in _certified(signers) if not each.repository}
    for number, each in enumerate(signers):
        if isinstance(each, PublicKey) or not each.repository or _name(each) not in anywhere:
            continue
        raise _at(root, key, number).error(
            f"{each} is trusted for every repository, too: that would be one voice under two names"
        )


def _certified(signers: Sequence[Signer]) -> list[CertificateIdentity]:
    return [each for each in signers if not isinstance(each, PublicKey)]


def _check_unique(
    root: Section,
    key: str,
    items: Iterable[_Item],
    message: str,
    fold: Callable[[_Item], Hashable],
    show: Callable[[_Item], str] = str,
) -> None:
    seen: set[Hashable] = set()
    for number, item in enumerate(items):
        if fold(item) in seen:
            raise _at(root, key, number).error(message.format(show(item)))
        seen.add(fold(item))


def _check_builders(policy: Policy, root: Section) -> None:
    for number, builder in enumerate(policy.builders):
        section = _at(root, "builders", number)
        if (
            builder.not_before is not None
            and builder.revoked_at is not None
            and builder.revoked_at <= builder.not_before
        ):
            raise section.error(
                f"{builder.id} is revoked before it begins: its word never counts", "revokedAt"
            )
        for name in policy.quorum.distinct:
            if builder.attribute(name) is None:
                raise section.error(
                    f"{builder.id} has no {name}, by which builders must be distinct"
                )


def _check_quorum(policy: Policy, root: Section) -> None:
    section = root.table("quorum")
    wanted = policy.quorum.threshold
    if wanted < 1:
        raise section.error(
            f"threshold is {wanted}: every image would pass, with nobody's word for it", "threshold"
        )
    for system in policy.systems:
        able = independent_builders(_able(policy, system), policy.quorum.distinct)
        if len(able) < wanted:
            by = " and ".join(policy.quorum.distinct)
            whom = f"builders distinct in {by}" if by else "builders"
            raise section.error(
                f"threshold is {wanted}, but only {len(able)} {whom} can build {system}: "
                "it could never be reached",
                "threshold",
            )
    if policy.quorum.promoters > len(policy.promoters):
        raise section.error(
            f"{policy.quorum.promoters} promoters must sign, but there are {len(policy.promoters)}",
            "promoters",
        )
    if policy.promoters and policy.quorum.promoters == 0:
        raise section.error("there are promoters, and none of them must sign", "promoters")


def _able(policy: Policy, system: str) -> list[Builder]:
    return [builder for builder in policy.builders if system in builder.systems]


def _check_logs(policy: Policy, root: Section) -> None:
    section = root.table("quorum")
    # One log under two URLs is one log: what tells logs apart is who signs their checkpoints.
    logs = [log.key for log in policy.logs]
    message = "two logs have the key {}: one log would count as two"
    _check_unique(root, "logs", logs, message, _key_itself)
    _check_unique(
        root, "logs", [log.origin for log in policy.logs], "two logs have origin {}", str.casefold
    )
    witnesses = [witness.key for witness in policy.witnesses]
    _check_unique(root, "witnesses", witnesses, "two witnesses have the key {}", _key_itself)
    for number, witness in enumerate(policy.witnesses):
        if witness.key.der in {log.key.der for log in policy.logs}:
            raise _at(root, "witnesses", number).error(
                f"the witness {witness.id} has a log's key: a log cannot witness itself", "key"
            )
    if policy.quorum.logs > len(policy.logs):
        raise section.error(
            f"{policy.quorum.logs} logs are demanded, but {len(policy.logs)} are listed", "logs"
        )
    if policy.quorum.witnesses > len(policy.witnesses):
        raise section.error(
            f"{policy.quorum.witnesses} witnesses are demanded, but {len(policy.witnesses)} are "
            "listed",
            "witnesses",
        )
    if policy.quorum.witnesses and not policy.quorum.logs:
        raise section.error("witnesses watch logs, and no log is demanded", "witnesses")


def _key_itself(key: NoteKey) -> Hashable:
    return key.der


def _at(root: Section, key: str, number: int) -> Section:
    return Section(root.values[key][number], (key, number), root.lines, root.label)
