"""Whom the policy that ``nix-seed init`` writes believes: the job of the version that is named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from nix_seed.trust.rules.policy import is_signer
from nix_seed.trust.rules.signer import CertificateIdentity, certified_identity
from support.init import FLAKE, done, make, policy


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return make(tmp_path / "project", FLAKE)


@pytest.mark.parametrize(
    ("ref", "full"), [("v0.1.0", "refs/tags/v0.1.0"), ("main", "refs/heads/main")]
)
def test_the_policy_knows_the_jobs_own_token(repository: Path, ref: str, full: str) -> None:
    done(repository, "--yes", "--ref", ref)
    [builder] = policy(repository).builders
    claims = {
        "sub": "repo:me/thing:ref:refs/heads/trunk",
        "job_workflow_ref": f"0compute/nix-seed/.github/workflows/seed.yml@{full}",
        "repository": "me/thing",
    }
    issuer = "https://token.actions.githubusercontent.com"
    assert is_signer(builder.signer, certified_identity(claims, issuer))
    for name, value in [
        ("repository", "them/thing"),
        ("job_workflow_ref", "me/thing/.github/workflows/seed.yml@refs/heads/trunk"),
    ]:
        other = certified_identity(claims | {name: value}, issuer)
        assert not is_signer(builder.signer, other)
    assert not is_signer(builder.signer, certified_identity(claims, issuer + "/"))


@pytest.mark.parametrize("ref", ["v2", "v0.1.0", "main", "a" * 40, "refs/tags/nightly"])
def test_a_ref_that_says_what_it_is(repository: Path, ref: str) -> None:
    assert done(repository, "--dry-run", "--ref", ref)["notes"] == []


@pytest.mark.parametrize("ref", ["v2-dev", "2.x", "nightly"])
def test_a_ref_that_is_taken_for_a_branch(repository: Path, ref: str) -> None:
    [note] = done(repository, "--yes", "--ref", ref)["notes"]
    assert note == (
        f"{ref} is taken for a branch of nix-seed: trust.toml names refs/heads/{ref}; "
        f"for a tag give --ref refs/tags/{ref}"
    )
    [builder] = policy(repository).builders
    assert f"seed.yml@refs/heads/{ref} of" in str(builder.signer)
    assert done(repository, "--dry-run", "--no-policy", "--ref", ref)["notes"] == []


def test_a_new_ref_trusts_what_there_is_until_it_has_made_a_release(repository: Path) -> None:
    """Before it is merged it can have built nothing: else no pull request could bring it."""
    done(repository, "--yes", "--ref", "v1")
    first = policy(repository)
    before = first.builders[0].signer
    assert isinstance(before, CertificateIdentity)
    said = done(repository, "--yes", "--force", "--ref", "v2")
    [note] = said["notes"]
    assert note.startswith("trust.toml also trusts nix-seed at refs/tags/v1, as before")
    second = policy(repository)
    assert {each.id: each.signer for each in second.builders} == {
        "github": replace(before, subject=_subject("v2")),
        "github-before": before,
    }
    assert {each.signer for each in second.promoters} == {b.signer for b in second.builders}
    assert (second.epoch, dict(second.accepts)) == (2, {first.digest: 1})
    assert (second.quorum.threshold, second.quorum.promoters) == (1, 1)
    again = done(repository, "--yes", "--force", "--ref", "v2")
    assert {each["state"] for each in again["files"]} == {"same"}
    done(repository, "--yes", "--force", "--ref", "v3")
    third = policy(repository)
    assert [each.signer for each in third.builders][1] == second.builders[0].signer
    assert len(third.builders) == 2
    assert (third.epoch, dict(third.accepts)) == (3, {first.digest: 1, second.digest: 1})


def test_nobody_else_is_kept_with_a_new_ref(repository: Path) -> None:
    """Who has the builder's name by another workflow, or of another repository."""
    done(repository, "--yes", "--ref", "v1")
    path = repository / "trust.toml"
    good = path.read_text()
    for old, new in (("0compute/nix-seed/", "mallory/nix-seed/"), ("me/thing", "mallory/thing")):
        path.write_text(good.replace(old, new))
        done(repository, "--yes", "--force", "--ref", "v2")
        [builder] = policy(repository).builders
        assert str(builder.signer).startswith(_subject("v2"))


def _subject(ref: str) -> str:
    return f"https://github.com/0compute/nix-seed/.github/workflows/seed.yml@refs/tags/{ref}"
