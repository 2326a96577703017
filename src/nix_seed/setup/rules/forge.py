"""Where a repository is published, and who its CI jobs are there, by their certificates."""

import re
from dataclasses import dataclass
from typing import Final, Literal

from nix_seed.core.address import split_address
from nix_seed.core.errors import InputError
from nix_seed.trust.rules.policy_template import Workflow

ForgeKind = Literal["github", "gitlab"]
OURS: Final = "0compute/nix-seed"
_PATH = re.compile(r"[A-Za-z0-9_.-]+(?:/[A-Za-z0-9_.-]+)+\Z")
_REF = re.compile(r"(?!.*\.\.)[A-Za-z0-9][A-Za-z0-9._/-]*\Z")
_COMMIT = re.compile(r"[0-9a-f]{40}\Z")
_SHORT = re.compile(r"[0-9a-f]{7,39}\Z")
_TAG = re.compile(r"v?[0-9]+(?:\.[0-9]+)*\Z")


@dataclass(frozen=True, slots=True)
class Forge:
    """*repository* is ``owner/name`` (GitLab: of any depth) at *host*."""

    kind: ForgeKind
    host: str
    repository: str

    @property
    def url(self) -> str:
        """Where the source is published."""
        return f"https://{self.host}/{self.repository}"


def read_forge(origin: str, kind: ForgeKind | None = None) -> Forge | None:
    """Return the forge of the remote *origin*, a plain URL; *kind* where its name does not tell.

    None for what is neither GitHub nor GitLab, nor said to be; and where it is the other one.
    """
    parts = split_address(origin)
    host, path = parts.netloc.lower(), parts.path.strip("/")
    if parts.scheme != "https" or not host or not _PATH.match(path):
        return None
    known = _known(host)
    kind = kind or known
    if kind is None or known not in (None, kind) or (kind == "github" and path.count("/") != 1):
        return None
    return Forge(kind, host, path)


def _known(host: str) -> ForgeKind | None:
    if host == "github.com":
        return "github"
    return "gitlab" if "gitlab" in host.split(".") else None


def check_ref(ref: str) -> str:
    """Return *ref*, a tag, branch or commit; ``InputError`` for what is none."""
    if not _REF.match(ref):
        raise InputError(
            f"{ref!r} is no tag, branch or commit",
            hint="name one of the repository of nix-seed: --ref v0.1.0, or 40 hex digits",
        )
    if _SHORT.match(ref):
        raise InputError(
            f"{ref!r} may be part of a commit, which no job is certified by",
            hint="name all 40 digits of a commit, or a tag or branch of that name in full: "
            f"--ref refs/tags/{ref}",
        )
    return ref


def is_assumed(ref: str) -> bool:
    """Whether *ref* says neither what it is nor looks like it, so that it is taken for a branch."""
    return not (_COMMIT.match(ref) or ref.startswith("refs/") or _TAG.match(ref) or ref == "main")


def check_branch(branch: str) -> str:
    """Return *branch*, the name of one; ``InputError`` for what is none, or a full name."""
    if not _REF.match(branch) or branch.startswith("refs/"):
        raise InputError(f"{branch!r} is no branch", hint="name it without refs/heads/: main")
    return branch


def workflow_of(forge: Forge, ref: str, branch: str) -> Workflow:
    """Return who signs what the CI files of ``init`` build.

    On GitHub that is the reusable workflow of nix-seed at *ref*, called by the repository; on
    GitLab the repository's own configuration on its *branch*.
    """
    if forge.kind == "github":
        return Workflow(
            id="github",
            about="The workflow on GitHub that .github/workflows/seed.yml calls, here only.",
            issuer="https://token.actions.githubusercontent.com",
            subject=f"https://github.com/{OURS}/.github/workflows/seed.yml@{full_ref(ref)}",
            repository=forge.url,
            where=(("operator", "github.com"), ("provider", "azure"), ("jurisdiction", "US")),
        )
    where = [("operator", forge.host)]
    if forge.host == "gitlab.com":
        where += [("provider", "gcp"), ("jurisdiction", "US")]
    return Workflow(
        id="gitlab",
        about="The pipeline on GitLab, by the configuration on its default branch.",
        issuer=f"https://{forge.host}",
        subject=f"{forge.url}//.gitlab-ci.yml@refs/heads/{branch}",
        repository="",
        where=tuple(where),
    )


def full_ref(ref: str) -> str:
    """Return *ref* as a job's token names it (``job_workflow_ref``): a commit, or a full name."""
    if _COMMIT.match(ref) or ref.startswith("refs/"):
        return ref
    return f"refs/tags/{ref}" if _TAG.match(ref) else f"refs/heads/{ref}"
