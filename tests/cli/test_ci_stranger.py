"""Jobs whose own identity the policy that ``init`` writes does not know: of branches and forks."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from nix_seed.cli.setup.ci_job import CiJob
from nix_seed.cli.setup.ci_promote import authority_of
from nix_seed.cli.setup.ci_seed import prepare
from nix_seed.core.errors import InputError
from nix_seed.setup.ci_host import CiHost
from nix_seed.trust.sign import KeySigner
from support.runner import git

ACTIONS = "https://token.actions.githubusercontent.com"
JOB = "0compute/nix-seed/.github/workflows/seed.yml@refs/tags/v0.1.0"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    where = tmp_path / "project"
    where.mkdir()
    git(where, "init", "-q", "-b", "main")
    (where / "flake.nix").write_text('{ outputs = _: { packages."x86_64-linux" = { }; }; }')
    return where


def prepared(project: Path, forge: str) -> Path:
    """Have ``init`` write its files, and commit them."""
    git(project, "remote", "add", "origin", f"https://{forge}.com/owner/thing")
    command = [sys.executable, "-m", "nix_seed", "init", "--yes", "--system", "x86_64-linux"]
    subprocess.run([*command, str(project)], check=True, stdout=subprocess.DEVNULL)
    git(project, "add", "-A")
    who = ["-c", "user.name=T", "-c", "user.email=t@localhost"]
    git(project, *who, "commit", "-q", "-m", "Seeds")
    return project


def token(issuer: str, **claims: str) -> str:
    now = int(time.time())
    body = {"iss": issuer, "sub": "job", "aud": "sigstore", "iat": now, "exp": now + 600, **claims}
    parts = [json.dumps(part).encode() for part in ({"alg": "RS256", "typ": "JWT"}, body)]
    return b".".join(
        base64.urlsafe_b64encode(each).rstrip(b"=") for each in (*parts, b"x")
    ).decode()


def gitlab(project: Path, branch: str, **more: str) -> tuple[dict[str, str], str]:
    ref = f"gitlab.com/owner/thing//.gitlab-ci.yml@refs/heads/{branch}"
    environ = {
        "GITLAB_CI": "true",
        "CI_PIPELINE_SOURCE": "push",
        "CI_PROJECT_PATH": "owner/thing",
        "CI_COMMIT_SHA": git(project, "rev-parse", "HEAD"),
        "CI_COMMIT_BRANCH": branch,
        "CI_DEFAULT_BRANCH": "main",
        "CI_REGISTRY": "registry.gitlab.com",
    }
    claims = {"ci_config_ref_uri": ref, "project_path": "owner/thing"}
    return environ | more, token("https://gitlab.com", **claims)


def github(project: Path, repository: str, job: str = JOB) -> tuple[dict[str, str], str]:
    environ = {
        "GITHUB_ACTIONS": "true",
        "GITHUB_EVENT_NAME": "push",
        "GITHUB_REPOSITORY": repository,
        "GITHUB_ACTOR": "someone",
        "GITHUB_REF": "refs/heads/main",
        "GITHUB_SHA": git(project, "rev-parse", "HEAD"),
        "ACTIONS_ID_TOKEN_REQUEST_URL": "unused",
    }
    return environ, token(ACTIONS, job_workflow_ref=job, repository=repository)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, project: Path) -> Any:
    """Decide about a job as its first lines do; return what would be published, and is said."""

    def run(environ: Mapping[str, str], identity: str) -> tuple[Any, list[str]]:
        said: list[str] = []
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr("nix_seed.trust.sigstore.ambient_token", lambda: identity)
        values = {"SEED_REGISTRY_TOKEN": "t", "SIGSTORE_ID_TOKEN": identity}
        secrets = values | {"ACTIONS_ID_TOKEN_REQUEST_URL": "unused"}
        monkeypatch.setattr(
            CiHost, "annotate", lambda _, *words, **__: said.append(": ".join(words))
        )
        names = "image registry registry_user ca_file seed_attr policy layers system tags signing"
        options = dict.fromkeys(names.split(), "")
        options |= {"flake": str(project), "sigstore": "", "builder": "", "policy_history": ""}
        job = CiJob(options, CiHost(dict(environ)), secrets)
        publication, authority = prepare(job)[0], authority_of(job)
        promotes = authority is None or job.why_stranger(authority.signer) is None
        assert promotes == (publication is not None)
        return publication, said

    return run


@pytest.mark.parametrize(
    "more", [{}, {"CI_COMMIT_BRANCH": "", "CI_COMMIT_TAG": "v1"}, {"CI_PIPELINE_SOURCE": "web"}]
)
def test_another_branch_on_gitlab_is_built_only(
    project: Path, run: Any, more: dict[str, str]
) -> None:
    publication, said = run(*gitlab(prepared(project, "gitlab"), "feature", **more))
    assert publication is None
    [notice] = said
    assert notice.startswith(
        "notice: Nothing is published: this is not a job of the default branch"
    )
    assert "@refs/heads/feature" in notice


def test_the_default_branch_on_gitlab_publishes(project: Path, run: Any) -> None:
    publication, said = run(*gitlab(prepared(project, "gitlab"), "main"))
    assert (publication.attester.builder, said) == ("gitlab", [])


def test_a_forks_own_repository_is_built_only(project: Path, run: Any) -> None:
    publication, said = run(*github(prepared(project, "github"), "stranger/thing"))
    assert publication is None
    [notice] = said
    assert "the policy is of owner/thing, and this is a job of stranger/thing" in notice


def test_the_repository_itself_publishes(project: Path, run: Any) -> None:
    publication, said = run(*github(prepared(project, "github"), "owner/thing"))
    assert (publication.attester.builder, said) == ("github", [])


def test_a_default_branch_that_the_policy_does_not_know_is_an_error(
    project: Path, run: Any
) -> None:
    """Else a policy with a slip in it would publish nothing, and every job be green."""
    other = JOB.replace("v0.1.0", "v0.2.0")
    with pytest.raises(InputError, match=r"v0\.2\.0 .*nothing"):
        run(*github(prepared(project, "github"), "owner/thing", other))


def test_a_key_that_the_policy_does_not_know_is_an_error(project: Path) -> None:
    """It is a secret, which somebody gave this job to sign with."""
    environ, _ = gitlab(prepared(project, "gitlab"), "feature")
    options = dict.fromkeys(("seed_attr", "policy"), "") | {"flake": str(project)}
    job = CiJob(options, CiHost(environ), {})
    assert job.why_stranger(KeySigner.generate()) is None
