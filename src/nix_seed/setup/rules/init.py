"""What ``init`` would write: who publishes where, the policy, and how files differ from it.

CI jobs are known by their certificates. A new version of nix-seed is a new identity of the same
job. A policy that knew that one alone would refuse all there is until it had made a release; and
nothing can make one before it is merged. So the old policy's identities are kept.
"""

import difflib
import io
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Final, Literal

from nix_seed.core.digests import Digest
from nix_seed.core.errors import InputError
from nix_seed.core.safe_text import split_address
from nix_seed.core.values import dataclass
from nix_seed.trust.rules.policy import Policy
from nix_seed.trust.rules.policy_template import Workflow
from nix_seed.trust.rules.signer import CertificateIdentity

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


BEFORE: Final = "github-before"
"""The id of the builder that was *github*, until this policy has made a release."""


@dataclass(frozen=True, slots=True)
class KeptPolicy:
    """The *epoch* of the new policy, the earlier ones it *accepts*, and the job known before.

    *accepts* has each one's digest and how many systems it had.
    """

    epoch: int = 1
    accepts: tuple[tuple[Digest, int], ...] = ()
    workflow: Workflow | None = None


def keep_before(old: Policy | None, current: Workflow) -> KeptPolicy:
    """Decide what of *old* a policy for *current* keeps: nothing that *old* does not trust."""
    if old is None:
        return KeptPolicy()
    accepts = tuple(old.accepts.items())
    known = {builder.id: builder.signer for builder in old.builders}
    was = known.get(current.id)
    if was == CertificateIdentity(current.issuer, current.subject, current.repository):
        return KeptPolicy(old.epoch, accepts, _as_before(known.get(BEFORE), current))
    before = _as_before(was, current)
    if before is None:
        return KeptPolicy(old.epoch, accepts)
    return KeptPolicy(old.epoch + 1, (*accepts, (old.digest, len(old.systems))), before)


def _as_before(signer: object, current: Workflow) -> Workflow | None:
    """Return *signer* as a workflow, if it is another version of *current*, for one repository."""
    if not isinstance(signer, CertificateIdentity):
        return None
    same = (signer.issuer, signer.repository) == (current.issuer, current.repository)
    if not same or signer.subject.partition("@")[0] != current.subject.partition("@")[0]:
        return None
    about = "The version of it before, for what there is: out with it after the first release."
    return replace(current, id=BEFORE, about=about, subject=signer.subject)


FileState = Literal["new", "same", "kept", "replaced"]


@dataclass(frozen=True, slots=True)
class FileChange:
    """The file *path* (relative, with slashes) is to hold *after*; None *before*: it is not there.

    *state* ``new`` and ``replaced`` are written; ``same`` need not be, and ``kept`` is
    not, since somebody changed what is there.
    """

    path: str
    before: str | None
    after: str
    state: FileState

    @property
    def writes(self) -> bool:
        """Whether the file is written."""
        return self.state in ("new", "replaced")

    def diff(self) -> Iterator[str]:
        """Yield the lines of a unified diff, as ``git apply`` reads it, without line ends."""
        before = _lines(self.before or "")
        old = "/dev/null" if self.before is None else f"a/{self.path}"
        for line in difflib.unified_diff(before, _lines(self.after), old, f"b/{self.path}"):
            yield line.removesuffix("\n")
            if not line.endswith("\n"):
                yield "\\ No newline at end of file"


def _lines(text: str) -> list[str]:
    # Not splitlines, which takes form feeds and their like for ends of lines.
    return list(io.StringIO(text, newline="\n"))


def change_of(path: str, before: str | None, after: str, *, force: bool) -> FileChange:
    """Return the change for a file that is written whole; *force* replaces what differs."""
    state: FileState = "new"
    if before is not None:
        state = "same" if before == after else "replaced" if force else "kept"
    return FileChange(path, before, after, state)
