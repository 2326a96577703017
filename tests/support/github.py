"""What GitHub gives a job beside its steps: events, and tokens that say which job it is.

The token service answers as a runner's does: ``GET $ACTIONS_ID_TOKEN_REQUEST_URL&audience=…`` with
the bearer token of the job's own, ``{"value": "<JWT>"}``. The claims are those that GitHub
documents for OIDC tokens; who signs them is an issuer of the test's.
"""

from __future__ import annotations

import json
import secrets
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from support.oidc import Issuer
from support.web import answering

__all__ = ["IdentityService", "identity_service", "pull_request", "push"]

REPOSITORY = "owner/project"


def push(project: Path, branch: str = "main") -> dict[str, Any]:
    """Return the event of a push of the project's commit."""
    return {
        "ref": f"refs/heads/{branch}",
        "after": _commit(project),
        "deleted": False,
        "repository": _repository(),
    }


def pull_request(project: Path, *, fork: bool, number: int = 7) -> dict[str, Any]:
    """Return the event of a pull request to ``main``, from a fork or from a branch."""
    head = "stranger/project" if fork else REPOSITORY
    return {
        "action": "opened",
        "number": number,
        "pull_request": {
            "number": number,
            "head": {
                "ref": "change",
                "sha": _commit(project),
                "repo": {"full_name": head, "fork": fork},
            },
            "base": {"ref": "main", "sha": "0" * 40, "repo": {"full_name": REPOSITORY}},
        },
        "repository": _repository(),
    }


def _repository() -> dict[str, Any]:
    return {"full_name": REPOSITORY, "default_branch": "main", "private": False}


def _commit(project: Path) -> str:
    command = ["git", "-C", str(project), "rev-parse", "HEAD"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@dataclass
class IdentityService:
    """The token service of one run; *claims* are its jobs'. It counts what it gave."""

    issuer: Issuer
    claims: Mapping[str, Any]
    bearer: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    url: str = ""
    given: list[str] = field(default_factory=list)

    @property
    def variables(self) -> dict[str, str]:
        """What a job with ``permissions: id-token: write`` finds in its environment."""
        return {
            "ACTIONS_ID_TOKEN_REQUEST_URL": f"{self.url}?api-version=2.0",
            "ACTIONS_ID_TOKEN_REQUEST_TOKEN": self.bearer,
        }

    def answer(self, target: str, authorization: str) -> tuple[int, dict[str, str]]:
        """Return the status and the body for a request."""
        if authorization.lower() != f"bearer {self.bearer}".lower():
            return 401, {"message": "who are you?"}
        audience = parse_qs(urlsplit(target).query).get("audience", ["https://github.com/owner"])
        self.given.append(audience[0])
        claims = dict(self.claims)
        return 200, {"value": self.issuer.token(claims.pop("sub"), aud=audience[0], **claims)}


@contextmanager
def identity_service(issuer: Issuer, workflow: str, commit: str) -> Iterator[IdentityService]:
    """Serve the tokens of a run on *commit* of which the jobs are *workflow*'s.

    *workflow* is ``owner/repository/path@ref``, of a reusable one where that is what runs.
    """
    claims = {
        "sub": f"repo:{REPOSITORY}:ref:refs/heads/main",
        "repository": REPOSITORY,
        "repository_owner": REPOSITORY.partition("/")[0],
        "ref": "refs/heads/main",
        "sha": commit,
        "event_name": "push",
        "job_workflow_ref": workflow,
        "workflow_ref": f"{REPOSITORY}/.github/workflows/seed.yml@refs/heads/main",
        "runner_environment": "github-hosted",
    }
    with answering(_Handler) as server:
        service = IdentityService(
            issuer, claims, url=f"http://127.0.0.1:{server.server_port}/token"
        )
        server.service = service  # type: ignore[attr-defined]
        yield service


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        service: IdentityService = self.server.service  # type: ignore[attr-defined]
        status, value = service.answer(self.path, self.headers.get("Authorization", ""))
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""
