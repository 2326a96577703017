"""What a claim is worth: by its time, by how it was built, and by what its builder says besides."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from nix_seed.core.digests import Digest
from nix_seed.formats.intoto.statement import NixFacts
from nix_seed.trust.rules.claims import Claim, Discount, Standing, judge_claim, untimely
from nix_seed.trust.rules.policy import Builder, BuiltDemands, Policy
from nix_seed.trust.rules.policy_file import parse_policy
from nix_seed.trust.rules.quorum import Outcome, evaluate_quorum
from nix_seed.trust.rules.signer import CertificateIdentity
from support.attestations import predicate
from support.trust import World

NOW = datetime(2026, 6, 1, tzinfo=UTC)
SINCE = datetime(2026, 5, 1, tzinfo=UTC)


def _builder(name: str) -> Builder:
    signer = CertificateIdentity("https://issuer.example", name)
    systems = frozenset({"x86_64-linux"})
    return Builder(name, signer, systems, f"operator {name}", None, None, None, None)


ONE, TWO = _builder("one"), _builder("two")


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    """Two builders, who both must agree; no log and nothing of the build is demanded."""
    text = World(tmp_path_factory.mktemp("world")).policy()
    read = parse_policy(text.encode(), "trust.toml", NOW)
    quorum = replace(read.quorum, threshold=2, logs=0, distinct=("operator",))
    built = BuiltDemands(sandbox=False, here=False, no_reused_layers=False)
    return replace(read, builders=(ONE, TWO), quorum=quorum, built=built, source=None)


def _claim(builder: Builder, **said: object) -> Claim:
    made = predicate(builder=builder.id, **said)
    return Claim(f"by {builder.id}", builder.signer, made)


@pytest.mark.parametrize(
    ("proved", "said", "counts"),
    [
        (SINCE, "2026-05-01T00:00:00Z", True),
        (SINCE - timedelta(seconds=1), "2026-05-01T00:00:00Z", False),
        (SINCE, "2026-04-30T23:59:59Z", False),
    ],
)
def test_a_builder_counts_from_its_moment_on(proved: datetime, said: str, counts: bool) -> None:
    """Neither the proved time nor what the claim says of itself may be older."""
    found = [why for why, _ in untimely(proved, said, replace(ONE, not_before=SINCE), NOW)]
    assert found == ([] if counts else [Discount.NOT_YET])


@pytest.mark.parametrize(
    ("sandbox", "counts"), [("true", True), ("relaxed", False), ("false", False)]
)
def test_only_a_whole_sandbox_is_one(policy: Policy, sandbox: str, counts: bool) -> None:
    demanding = replace(policy, built=replace(policy.built, sandbox=True))
    claim = _claim(ONE, nix=NixFacts("2.28.3", (), sandbox))
    asked = claim.predicate.agreement
    judged = judge_claim(claim, demanding, {ONE.signer: ONE}, asked, NOW)
    assert (judged.standing is Standing.AGREES) is counts
    assert judged.discount is (None if counts else Discount.UNSANDBOXED)
    assert judged.same_image


def test_who_says_both_agrees_with_neither(policy: Policy) -> None:
    agreeing = [_claim(ONE), _claim(TWO)]
    asked = agreeing[0].predicate.agreement
    assert evaluate_quorum(policy, asked, agreeing, NOW).outcome is Outcome.MET
    both = evaluate_quorum(
        policy, asked, [*agreeing, _claim(TWO, image_digest=Digest.of(b"another"))], NOW
    )
    assert both.outcome is Outcome.DISSENT
    assert (both.agreeing, both.counted) == ((ONE,), (ONE,))
    assert [dissent.builder for dissent in both.dissents] == [TWO]
