"""A builder that is a reusable workflow is trusted for one repository, not for all that call it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from nix_seed.core.errors import InputError
from nix_seed.trust.rules.policy import Policy
from nix_seed.trust.rules.policy_file import parse_policy
from nix_seed.trust.rules.signer import CertificateIdentity

ISSUER = "https://token.actions.githubusercontent.com"
WORKFLOW = "https://github.com/0compute/nix-seed/.github/workflows/seed.yml@refs/tags/v1"
NOW = datetime(2026, 6, 1, tzinfo=UTC)
HEAD = """version = 1
epoch = 1
expires = 2027-01-01T00:00:00Z
systems = ["x86_64-linux"]
[quorum]
threshold = 1
"""


def policy(*repositories: str | None) -> Policy:
    text = HEAD
    for number, repository in enumerate(repositories):
        text += f'[[builders]]\nid = "b{number}"\nissuer = "{ISSUER}"\nsubject = "{WORKFLOW}"\n'
        if repository is not None:
            text += f'repository = "{repository}"\n'
    return parse_policy(text.encode(), "trust.toml", NOW)


def test_it_is_read() -> None:
    identity = CertificateIdentity(ISSUER, WORKFLOW, "https://github.com/a/b")
    assert policy("https://github.com/a/b").builders[0].signer == identity
    assert str(identity) == f"{WORKFLOW} of {ISSUER}, for https://github.com/a/b"
    assert str(policy(None).builders[0].signer) == f"{WORKFLOW} of {ISSUER}"


@pytest.mark.parametrize(
    ("subject", "own"),
    [
        (WORKFLOW, "https://github.com/0Compute/nix-seed"),
        ("https://gitlab.com/a/b/c//.gitlab-ci.yml@refs/heads/main", "https://gitlab.com/a/b/c"),
    ],
)
def test_without_one_a_workflow_is_that_of_its_own(subject: str, own: str) -> None:
    trusted = CertificateIdentity(ISSUER, subject)
    assert trusted.admits(CertificateIdentity(ISSUER, subject, own))
    assert trusted.admits(CertificateIdentity(ISSUER, subject)), "older certificates state none"
    for other in ("https://github.com/mallory/x", f"{own}-x", own.rpartition("/")[0]):
        assert not trusted.admits(CertificateIdentity(ISSUER, subject, other))
    named = CertificateIdentity(ISSUER, subject, "https://github.com/a/b")
    assert named.admits(named)
    assert not named.admits(trusted)


def test_an_identity_that_names_no_file_is_anywhere_the_same() -> None:
    trusted = CertificateIdentity("https://agent.example", "https://agent.example/owner/pipeline")
    assert trusted.admits(
        CertificateIdentity(*("https://agent.example", trusted.subject, "https://x/y"))
    )


def test_two_repositories_are_two_builders() -> None:
    assert len(policy("https://github.com/a/b", "https://github.com/c/d").builders) == 2


@pytest.mark.parametrize(
    ("repositories", "words"),
    [
        (("https://github.com/a/b", "https://github.com/A/B/"), "two builders have one signer, "),
        (
            (None, "https://github.com/a/b"),
            f"{WORKFLOW} of {ISSUER}, for https://github.com/a/b is trusted for every repository, "
            "too: that would be one voice under two names",
        ),
        (("https://github.com/a/b", None), "is trusted for every repository, too"),
        ((None, None), "two builders have one signer, "),
    ],
)
def test_one_voice_under_two_names_is_refused(
    repositories: tuple[str | None, ...], words: str
) -> None:
    with pytest.raises(InputError) as raised:
        policy(*repositories)
    assert words in raised.value.message


def test_a_key_names_no_repository() -> None:
    text = HEAD + '[[builders]]\nid = "b"\nkey = "x"\nrepository = "https://github.com/a/b"\n'
    with pytest.raises(InputError) as raised:
        parse_policy(text.encode(), "trust.toml", NOW)
    assert raised.value.message == (
        "trust.toml, line 10: only a certificate names a repository, not a key"
    )
