"""GitHub's own store of attestations, where `gh attestation verify` looks: bundles copied there.

It is a copy for those who look there, and decides nothing here: what verifies and releases reads
registries and logs. So a store that does not take a bundle stops nobody.
"""

import json
import os
from dataclasses import field

from nix_seed.core.errors import CouldNotCheck, InputError
from nix_seed.core.safe_text import safe_line
from nix_seed.core.values import dataclass
from nix_seed.formats.intoto.bundle import Bundle, Certificate
from nix_seed.registry.errors import Denied, Patience, Unreachable, asked_to_wait, retryable
from nix_seed.registry.http import Answer, Transport

_WORDS = 300  # characters of an answer that are shown


@dataclass(frozen=True, slots=True)
class GitHubStore:
    """The store of *repository* (``owner/name``), at the address *api*, for who has *token*."""

    api: str
    repository: str
    token: str = field(repr=False)
    patience: Patience = field(default_factory=Patience)

    def add(self, text: bytes) -> None:
        """Copy a bundle there; one that is there already is not an error.

        ``InputError`` for one that a key signed, which GitHub has no place for; ``Denied`` without
        the permission, ``CouldNotCheck`` for any other answer.
        """
        if not isinstance(Bundle.parse(text, "the bundle").material, Certificate):
            raise InputError(
                "a key signed it, and GitHub stores what certificates name the signer of",
                hint="sign keyless: signing: keyless",
            )
        body = b'{"bundle":' + text + b"}"
        self.patience.retry(lambda: self._post(body))

    def _post(self, body: bytes) -> None:
        headers = {
            "Accept": "application/vnd.github+json",
            "Authorization": f"Bearer {self.token}",
            "Content-Type": "application/json",
            "X-GitHub-Api-Version": "2022-11-28",
        }
        url = f"{self.api.rstrip('/')}/repos/{self.repository}/attestations"
        answer = Transport(self.patience, os.environ).send("POST", url, headers, body)
        if answer.status == 201:
            answer.close()
            return
        said = f"{self.repository}'s attestations: GitHub answered {self._said(answer)}"
        if answer.status in (401, 403, 404):
            # To whom it does not let in it says that there is no such thing.
            raise Denied(said, hint="give the job `permissions: attestations: write`")
        if retryable(answer.status):
            raise Unreachable(said, retry_after=asked_to_wait(answer.headers))
        raise CouldNotCheck(said, hint="the attestation lies beside the image all the same")

    def _said(self, answer: Answer) -> str:
        body = answer.read_error()
        try:
            words = safe_line(str(json.loads(body)["message"]))[:_WORDS]
        except (ValueError, KeyError, TypeError, RecursionError):
            return f"{answer.status}"
        return f"{answer.status}" if self.token in words else f"{answer.status}: {words}"
